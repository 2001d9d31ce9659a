"""The folder of records: what is damaged is noticed, what is odd stops nothing."""

import contextlib
import json
import math
import os
import pickle
import shutil
import stat
import tempfile
import warnings
from pathlib import Path

import filelock
import pytest

from synflow_lib import env
from synflow_lib.files import replacing
from synflow_lib.sweeps.fingerprints import changes
from synflow_lib.sweeps.run import GIVEN, Run, perform
from synflow_lib.sweeps.store import FORMAT, Store, _is_newer, histories, parse, results
from synflow_lib.sweeps.sweep import sweep
from synflow_lib.training.recipes import Recipe

RUN = Run("digits", "fc", "random", 2, Recipe(1, 0.1), model_options={"depth": 2, "width": 4})
RESULT = {
    "kept": 3, "top1": 12.5, "test_loss": math.nan, "train_loss": math.inf, "disconnected": None,
    "ended": "NaN in epoch 1", "history": [[0, -math.inf, *[math.nan] * 6], [1, 0.1, *[2.5] * 6]],
}  # fmt: skip
RECORD = {
    "status": "done", "result": RESULT, "seconds": 1.0, "finished": "2026-01-01T00:00:00+00:00",
    "fingerprint": {"version": 2}, "machine": {"torch": "2"},
}  # fmt: skip
OLD = {
    "format": "synflow_lib.run.1", "run": json.loads(RUN.canonical()), "status": "done",
    "result": {"top1": 50.0, "kept": 3, "history": [[0, 0.1, *[math.nan] * 6]]}, "seconds": 1.0,
    "finished": "2025-01-01T00:00:00+00:00", "machine": {"torch": "2"},
}  # fmt: skip


def reject(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.write(RUN, RECORD)
    return store


def test_a_record_is_strict_json_and_comes_back_as_it_was(store):
    text = store.file(RUN.key).read_text()
    assert json.loads(text, parse_constant=reject)["format"] == FORMAT
    assert len(text.splitlines()) == 4
    found = store.read(RUN.key)
    assert repr(found["result"]) == repr(RESULT)  # NaN is not equal to itself
    assert found["run"] == json.loads(RUN.canonical()) and found["key"] == RUN.key
    assert "history" not in store.read(RUN.key, history=False)["result"]


def test_a_fingerprint_survives_the_store(store):
    marks = {"version": 2, "network": {"weights": math.nan, "made by": None}, "method": "built in"}
    store.write(RUN, {**RECORD, "fingerprint": marks})
    assert changes(store.read(RUN.key)["fingerprint"], marks) == []
    store.write(RUN, {name: value for name, value in RECORD.items() if name != "fingerprint"})
    assert changes(store.read(RUN.key)["fingerprint"], marks) == []


def test_a_record_may_be_copied_to_another_store(store, tmp_path):
    other = Store(tmp_path / "other")
    shutil.copy(store.file(RUN.key), other.file(RUN.key))
    assert repr(other.records()) == repr(store.records())


def test_every_truncation_and_every_flipped_bit_of_a_record_is_noticed(store):
    whole = store.file(RUN.key).read_bytes()
    damaged = [whole[:size] for size in range(len(whole))] + [whole + b"\n", whole + whole]
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            damaged.append(bytes(flipped))
    assert parse(whole)["key"] == RUN.key  # the check can say yes
    taken = 0
    for content in damaged:
        with contextlib.suppress(ValueError):
            parse(content)
            taken += 1
        taken += _is_newer(content)
    print(f"{len(whole)} truncations and {8 * len(whole)} flipped bits: {taken} taken for records")
    assert taken == 0


def odd_files(folder):
    """name -> what makes it, for everything that may lie in a store and is no record."""
    good = json.dumps(OLD)
    without = [{k: v for k, v in OLD.items() if k != name} for name in ("run", "status", "format")]
    texts = {
        "empty": "", "list": "[]", "null": "null", "number": "3", "text": '"a"',
        "deep": "[" * 100_000, "half": good[:100], "bytes": "\udcff", "nul": "\0" * 100,
        "other": json.dumps({"format": "coco", "run": {}, "status": "done"}),
        "runless": json.dumps({**OLD, "run": 5}), "resultless": json.dumps({**OLD, "result": []}),
        "machineless": json.dumps({**OLD, "machine": "a"}),
        "unknown": json.dumps({**OLD, "status": "running"}),
        **{f"without{number}": json.dumps(each) for number, each in enumerate(without)},
    }  # fmt: skip
    for name, text in texts.items():
        (folder / f"{name}.json").write_bytes(text.encode(errors="surrogateescape"))
    for number, text in enumerate(texts.values()):  # and under names that records have
        key = f"{number:016x}"
        (folder / f"{key}.json").write_bytes(text.encode(errors="surrogateescape"))
    (folder / "folder.json").mkdir()
    (folder / "loose.json").symlink_to(folder / "nowhere")
    (folder / "circle.json").symlink_to(folder / "circle.json")
    os.mkfifo(folder / "pipe.json")  # to read from it is to wait for ever
    (folder / ".part-0000000000000000.json").touch()
    (folder / "notes (1).json").write_text(good)
    if os.geteuid():
        (folder / "closed.json").touch(mode=0)


def test_odd_files_stop_nothing_and_stay(store):
    odd_files(store.path)
    names = sorted(os.listdir(store.path))
    for read in (results, histories):
        with pytest.warns(UserWarning, match="left as they are") as seen:
            assert set(read(store.path)["key"]) == {RUN.key}
        assert len(seen) == 1
    assert sorted(os.listdir(store.path)) == names
    print(f"{len(names) - 1} odd files: all left, none in the way")
    with warnings.catch_warnings():  # a sweep looks at the records of its runs only
        warnings.simplefilter("error")
        table = sweep([Run(**{**vars(RUN), "seed": 5})], store.path, progress=False)
    assert (table["status"] == "done").all()
    with pytest.warns(UserWarning, match="left as they are") as seen:
        store.records()
        store.records()
    assert len(seen) == 1  # named once


def test_a_folder_in_the_place_of_a_record_is_moved_by_the_writer_only(store):
    file = store.file(RUN.key)
    file.unlink()
    file.mkdir()
    with pytest.warns(UserWarning, match="left as they are"):
        assert store.records() == {} and file.is_dir()
    store.write(RUN, RECORD)
    assert store.read(RUN.key) is not None and len(os.listdir(store.path / "superseded")) == 1


def test_a_record_of_a_newer_version_is_neither_taken_nor_destroyed(store):
    file = store.file(RUN.key)
    newer = file.read_bytes().replace(b"run.2", b"run.13").replace(b"top1", b"top_1")
    file.write_bytes(newer)
    with pytest.warns(UserWarning, match="newer version"):
        assert results(store.path).empty
    other = Run(**{**vars(RUN), "seed": 1})
    with (
        pytest.warns(UserWarning, match="newer version"),
        pytest.raises(RuntimeError, match="1 of the runs.*newer version"),
    ):
        sweep([RUN, other], store.path, progress=False)
    assert file.read_bytes() == newer and store.read(other.key)["status"] == "done"


def test_a_failure_gives_way_and_a_result_is_kept(store):
    store.write(RUN, {**RECORD, "seconds": 2.0})
    assert len(list((store.path / "superseded").iterdir())) == 1
    other = Run(**{**vars(RUN), "seed": 1})
    for _ in range(2):
        store.write(other, {"status": "failed", "error": "NaN", "traceback": ""})
    assert len(list((store.path / "superseded").iterdir())) == 1
    assert store.read(other.key)["error"] == "NaN"


def test_runs_survive_pickling():
    assert pickle.loads(pickle.dumps(RUN)) == RUN


# --------------------------------------------------------------------------------------- two users


def as_user(number, act):
    """Whether ``act()`` succeeds for another user of this machine."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            os._exit(0 if act() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as two users")
def test_two_users_share_a_store(tmp_path):
    outer = tmp_path
    while outer != Path(tempfile.gettempdir()):
        outer.chmod(0o755)
        outer = outer.parent
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    runs = [Run(**{**vars(RUN), "seed": seed}) for seed in range(3)]

    def work(run):
        store = Store(shared)
        with store.claim(run.key) as mine:
            for checkpoint in (store.checkpoint(run.key), store.checkpoint(run.key, "a")):
                with replacing(checkpoint) as part:
                    part.touch()
            store.write(run, RECORD)
        return mine and store.read(run.key) is not None

    assert as_user(60001, lambda: work(runs[0])) and as_user(60002, lambda: work(runs[1]))
    # The same run again, and by the other user: lock, checkpoint folder, former record.
    assert as_user(60002, lambda: work(runs[0])) and as_user(60001, lambda: work(runs[1]))
    assert len(Store(shared).records()) == 2
    shared.chmod(0o755)
    assert not as_user(60001, lambda: work(runs[2]))  # negative control
    assert as_user(60001, lambda: len(Store(shared).records()) == 2)  # reading needs no rights


def test_folders_in_a_store_are_as_open_as_the_store(tmp_path):
    tmp_path.chmod(0o2770)
    before = os.umask(0o077)
    try:
        store = Store(tmp_path)
        store.checkpoint("a")
        with store.claim("b"):
            assert stat.S_IMODE((tmp_path / "locks" / "b.lock").stat().st_mode) == 0o666
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o2770
    assert stat.S_IMODE((tmp_path / "checkpoints").stat().st_mode) == 0o2770


def refuse(self, *args, **kwargs):
    raise PermissionError(13, "Permission denied")


def test_a_lock_of_another_user_does_not_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with Store(tmp_path).claim("a") as mine:
        assert mine


def test_locks_of_another_user_leave_the_own_workers_apart(monkeypatch, tmp_path):
    acquire = filelock.FileLock.acquire
    monkeypatch.setattr(env.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(env.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SYNFLOW_DEVICE", raising=False)

    def only_own(self, *args, **kwargs):
        if str(os.getuid()) not in os.path.basename(self.lock_file):
            refuse(self)
        return acquire(self, *args, **kwargs)

    monkeypatch.setattr(filelock.FileLock, "acquire", only_own)
    found, held = [], []
    for _ in range(2):
        monkeypatch.setattr(env, "_held", [])
        found.append(str(env.own_device()))
        held += env._held
    assert found == ["cuda:0", "cuda:1"]
    for lock, _ in held:
        lock.release()


def test_a_table_reads_no_epochs(store, monkeypatch):
    record = store.read(RUN.key)
    record["result"]["history"] = [record["result"]["history"][1]] * 161
    store.write(Run("digits", "fc", "random", 3, Recipe(160, 0.1)), {**RECORD, **record})
    read, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text: read.append(len(text)) or loads(text))
    assert len(results(store.path)) == 2 and max(read) < 2_000
    assert len(histories(store.path)) == 163 and max(read) > 4_000  # the check can say no


@pytest.mark.parametrize("read", [results, histories])
def test_a_store_that_is_not_there_is_not_made(tmp_path, read):
    with pytest.raises(ValueError, match="there is no store"):
        read(tmp_path / "runs" / "tpyo")
    assert not list(tmp_path.iterdir())


def test_a_store_needs_a_path():
    with pytest.raises(TypeError, match="store=None; expected the path of a folder"):
        sweep([RUN], None)


def test_tables_have_all_columns_also_where_nothing_was_done(tmp_path):
    columns = set(perform([RUN])[0]) - {"history"}
    assert columns == set(GIVEN)
    assert columns <= set(sweep([], tmp_path, progress=False))
    failing = Run("digits", "fc", "snip", 2, Recipe(1, 0.1), per_class=10_000)
    table = sweep([failing], tmp_path, progress=False)
    assert table["status"].tolist() == ["failed"] and columns <= set(table)
    assert table["top1"].isna().all()
