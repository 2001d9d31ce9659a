"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

_PART = ".part-"  # how the name of a file begins that is still being written
_LEFT_BEHIND = re.compile(r"\.(part-[0-9a-f]{16}|[a-z0-9_]{8})(\.\w+)?")  # also by older versions


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to, that takes the place of `path` when the block ends without an error.

    A run that is interrupted, also by a power cut, leaves the former file as it was, never half a
    file. A symbolic link stays a link: the file that it points to is replaced.

    Args:
        path: the file to write or to replace; its folder is created.

    Yields:
        A file in the same folder (a move across file systems would not be atomic).

    Raises:
        ValueError: `path` is a folder, a device, a pipe, or a link that leads to itself.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as part:
    ...     _ = part.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    target = Path(os.path.realpath(path))
    mode = _mode(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{_PART}{secrets.token_hex(8)}{target.suffix}")
    # Made by the operating system with the user's umask, which no thread has to ask for.
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = _mode(part) if mode is None else mode
    try:
        yield part
        _sync(part, os.O_RDWR)
        part.chmod(mode)  # the writer may have put a file of its own in the place of this one
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every file system can
        _sync(target.parent, os.O_RDONLY)


def _mode(target: Path) -> int | None:
    """The permissions of a file that is to be replaced; None where there is none yet."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a circle of links"
        raise ValueError(f"{target} is {kind}; expected a file, or a name that is free")
    return stat.S_IMODE(mode)


def _sync(path: Path, how: int) -> None:
    """Wait until it is on the disk: a rename may reach the disk before what it renames."""
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_left_behind(folder: Path, hours: float = 6.0) -> None:
    """Delete what killed writers left half written in ``folder``, ``hours`` ago or earlier.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / f"{_PART}0123456789abcdef.json").touch()
    >>> remove_left_behind(folder, hours=0)
    >>> list(folder.iterdir())
    []
    """
    with contextlib.suppress(OSError):  # another user's file, or another process was faster
        for file in folder.iterdir():
            if _LEFT_BEHIND.fullmatch(file.name):
                with contextlib.suppress(OSError):
                    if time.time() - file.stat().st_mtime >= 3600 * hours and file.is_file():
                        file.unlink()
