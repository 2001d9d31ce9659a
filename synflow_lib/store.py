"""A folder of finished runs: one small JSON file each, written whole, safe with many writers."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock

from .files import replacing
from .runs import Run

FORMAT = "synflow_lib.run.1"
_NAME = re.compile(r"[0-9a-f]{16}\.json")


class Store:
    """Finished runs by key, in a folder that several processes and machines may share.

    Args:
        path: the folder; created where it is missing.

    Raises:
        ValueError: the path is a file, or cannot be created.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.records()
    {}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"store={str(path)!r} is a file; expected a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"store={str(path)!r} cannot be created ({error})") from error

    def file(self, key: str) -> Path:
        """Where the record of a run lies."""
        return self.path / f"{key}.json"

    def checkpoint(self, key: str) -> Path:
        """Where a run in flight saves itself."""
        return self.path / "checkpoints" / f"{key}.pt"

    def write(self, run: Run, record: dict) -> None:
        """Add the record of a run, all or nothing."""
        content = {"format": FORMAT, "run": json.loads(run.canonical()), **record}
        with replacing(self.file(run.key)) as part:
            part.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def read(self, key: str) -> dict | None:
        """The record of a run, or None where there is none that can be read.

        A damaged or foreign file is moved to the folder ``set_aside``, with a warning.
        """
        file = self.file(key)
        return self._read(file) if file.exists() else None

    def records(self) -> dict[str, dict]:
        """All records, by key; what is damaged or foreign is set aside with a warning."""
        found = {}
        for file in sorted(self.path.glob("*.json")):
            if file.name.startswith("."):  # another process is writing it
                continue
            record = self._read(file)
            if record is not None:
                found[file.stem] = record
        return found

    def _read(self, file: Path) -> dict | None:
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if record["format"] != FORMAT or record["status"] not in ("done", "failed"):
                raise ValueError(f"format {record['format']!r}, expected {FORMAT!r}")
            key = Run.from_dict(record["run"]).key
            if not _NAME.fullmatch(file.name) or key != file.stem:
                raise ValueError(f"holds the run {key}")
        except FileNotFoundError:  # set aside by another process in the meantime
            return None
        except (ValueError, KeyError, TypeError) as error:
            self._set_aside(file, error)
            return None
        return record

    def _set_aside(self, file: Path, error: Exception) -> None:
        target = self.path / "set_aside" / file.name
        target.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            file.replace(target)
        warnings.warn(
            f"{file.name} in the store {self.path} is damaged or not a record of this library"
            f" ({type(error).__name__}: {error}); it was moved to {target.parent.name}/",
            stacklevel=4,
        )

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """True inside where this process alone works on the run, False where another one does.

        A lock of the operating system, which dies with its process, so that nothing that was
        killed blocks a run. A folder that cannot lock (some synced ones) claims nothing: then two
        sweeps at once may do a run twice, but since a record is written whole none is lost.
        """
        folder = self.path / "locks"
        folder.mkdir(exist_ok=True)
        lock = filelock.FileLock(folder / f"{key}.lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        except (NotImplementedError, OSError):
            yield True
            return
        try:
            yield True
        finally:
            lock.release()
