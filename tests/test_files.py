"""The one writer of the library: whole files, or none."""

import os
import stat
import threading
import time

import pytest

from synflow_lib.files import remove_left_behind, replacing


def write(path, text):
    with replacing(path) as part:
        part.write_text(text)


def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    write(file, "old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and os.listdir(file.parent) == ["a.txt"]


def test_links_stay_links(tmp_path):
    (tmp_path / "there").mkdir()
    target, link, loose = tmp_path / "there" / "a.txt", tmp_path / "link", tmp_path / "loose"
    target.write_text("old")
    link.symlink_to(target)
    loose.symlink_to(tmp_path / "there" / "new.txt")
    write(link, "new")
    write(loose, "made")
    assert link.is_symlink() and target.read_text() == "new" and not target.is_symlink()
    assert loose.is_symlink() and (tmp_path / "there" / "new.txt").read_text() == "made"
    assert sorted(os.listdir(tmp_path / "there")) == ["a.txt", "new.txt"]


def test_devices_pipes_folders_and_circles_are_refused_and_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "folder", "circle", "null"):
        before = (tmp_path / name).lstat()
        with pytest.raises(ValueError, match="expected a file"):
            write(tmp_path / name, "text")
        assert (tmp_path / name).lstat() == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert len(os.listdir(tmp_path)) == 4


def test_permissions_are_the_umasks_or_those_of_the_former_file(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    write(tmp_path / "new", "again")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_threads_neither_see_halves_nor_another_umask(tmp_path):
    before, wrong, over = os.umask(0o022), [], threading.Event()
    file = tmp_path / "a"
    write(file, "0" * 10_000)

    def read():
        while not over.is_set():
            text = file.read_text()
            wrong.extend([text] if len(text) != 10_000 or len(set(text)) != 1 else [])
            (tmp_path / "other").touch()
            mode = stat.S_IMODE((tmp_path / "other").stat().st_mode)
            wrong.extend([mode] if mode != 0o644 else [])
            (tmp_path / "other").unlink()

    reader = threading.Thread(target=read)
    try:
        reader.start()
        writers = [
            threading.Thread(target=lambda n=n: [write(file, str(n) * 10_000) for _ in range(20)])
            for n in range(4)
        ]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
    finally:
        over.set()
        reader.join()
        os.umask(before)
    assert not wrong and os.listdir(tmp_path) == ["a"]


def test_what_killed_writers_left_goes_and_what_is_being_written_stays(tmp_path):
    old = [".part-0123456789abcdef.json", ".part-0123456789abcdef", ".abcd_123.pt"]
    kept = [".part-ffffffffffffffff.json", ".gitignore", "a.json", ".part-short.json"]
    for name in old + kept:
        (tmp_path / name).touch()
    for name in [*old, ".gitignore", "a.json"]:
        os.utime(tmp_path / name, (time.time() - 7 * 3600,) * 2)
    remove_left_behind(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    remove_left_behind(tmp_path / "missing")
