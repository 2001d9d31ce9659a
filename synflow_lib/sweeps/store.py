"""A folder of finished runs, and tables of it.

One small JSON file a run, written whole, safe with many writers.

A record is JSON of four lines, so that a table of thousands need not read every epoch:

    {"format":"synflow_lib.run.2","sha256":"<of format and of all that follows this line>",
    "record":{"key":..., "run":..., "status":"done", "result":..., "fingerprint":..., ...},
    "history":[[epoch, learning_rate, ...], ...]
    }

It holds nothing of its folder: copied to another store it is a record there. Numbers that JSON does
not have are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import filelock
import pandas as pd

from ..files import remove_left_behind, replacing
from ..training.epochs import COLUMNS
from .run import GIVEN, Run

FORMAT = "synflow_lib.run.2"
_NEWER = re.compile(rb'"synflow_lib\.run\.([1-9]\d*)"')
_UNKNOWN_TO_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Store:
    """Finished runs by key, in a folder that several processes, machines and users may share.

    Reading changes nothing in the folder. What is damaged, foreign or of a newer version of the
    library is left where it is, counts as not done, and is named once in a warning.

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
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"store={path!r}; expected the path of a folder")
        self.path = Path(path).expanduser()
        self._named: set[str] = set()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"store={str(path)!r} is a file; expected a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"store={str(path)!r} cannot be created ({error})") from error

    def file(self, key: str) -> Path:
        """Where the record of a run lies."""
        return self.path / f"{key}.json"

    def write(self, run: Run, record: dict) -> None:
        """Add the record of a run, all or nothing.

        ``record`` holds plain values: status ("done" or "failed"), and what belongs to it. A file
        that is there already and holds anything but an earlier failure of the same run is kept in
        the folder ``superseded``.
        """
        result = dict(record.get("result", {}))
        history = result.pop("history", [])
        own = {"key": run.key, "run": json.loads(run.canonical())}
        values = own | record | own  # first in order, and last in say: a record may be another's
        if "result" in record:
            values["result"] = result
        body = f'"record":{_text(values)},\n"history":{_text(history)}\n}}\n'.encode()
        file = self.file(run.key)
        former = self.read(run.key, history=False)
        if former is None or former["status"] != "failed":
            with contextlib.suppress(FileNotFoundError):  # out of the way, whatever lies there
                stamp = file.lstat().st_mtime_ns
                file.rename(self._folder("superseded") / f"{file.stem}-{stamp}.json")
        with replacing(file) as part:
            part.write_bytes(_head(body) + body)

    def read(self, key: str, *, history: bool = True) -> dict | None:
        """The record of a run, or None; without ``record["result"]["history"]`` if not wanted."""
        with contextlib.suppress(OSError, ValueError):
            return _read(self.file(key), history)
        return None

    def records(
        self, keys: Iterable[str] | None = None, *, history: bool = True
    ) -> dict[str, dict]:
        """All records, or those of ``keys``, by key; a warning names files that cannot be read."""
        files = sorted(self.path.glob("*.json")) if keys is None else map(self.file, keys)
        found, odd = {}, {}
        for file in files:
            if file.name.startswith("."):  # another process is writing it
                continue
            try:
                found[file.stem] = _read(file, history)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                odd[file.name] = str(error)
        new = [f"{name} ({why})" for name, why in odd.items() if name not in self._named]
        self._named |= odd.keys()
        if new:
            listed = new[:5] + [f"and {len(new) - 5} more"] * (len(new) > 5)
            warnings.warn(
                f"files in the store {self.path} that cannot be read as records are left as they"
                f" are and count as not done: {'; '.join(listed)}",
                stacklevel=3,
            )
        return found

    def newer(self, key: str) -> bool:
        """Whether a newer version of the library has left a record of this run, not to be lost."""
        with contextlib.suppress(OSError, ValueError):
            return _is_newer(_content(self.file(key)))
        return False

    def checkpoint(self, *keys: str) -> Path:
        """Where a run in flight saves itself, or several that are trained together."""
        folder = self._folder("checkpoints")
        if len(keys) == 1:
            return folder / f"{keys[0]}.pt"
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        members = folder / f"{name}.keys"  # for `clean`
        if not members.exists():
            with replacing(members) as part:
                part.write_text("\n".join(keys), encoding="utf-8")
        return folder / f"{name}.pt"

    def clean(self) -> None:
        """Delete checkpoints of which all runs are done, and files that killed writers left."""
        folder = self.path / "checkpoints"
        for place in (self.path, folder):
            remove_left_behind(place)
        with contextlib.suppress(OSError):
            for file in [*folder.glob("*.pt*"), *folder.glob("*.keys")]:
                name = file.name.partition(".")[0]
                members = folder / f"{name}.keys"
                keys = members.read_text(encoding="utf-8").split() if members.exists() else [name]
                if all(self.file(key).exists() for key in keys):
                    with contextlib.ExitStack() as held:  # perhaps somebody does one of them again
                        if all(held.enter_context(self.claim(key)) for key in keys):
                            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """True inside where this process alone works on the run, False where another one does.

        A lock of the operating system, which dies with its process, so that nothing that was
        killed blocks a run. A folder that cannot lock (some synced ones) claims nothing: then two
        sweeps at once may do a run twice, but since a record is written whole none is lost.
        """
        with contextlib.ExitStack() as held:
            free = True
            try:
                # Whoever may write to the store may lock in it.
                file = self._folder("locks") / f"{key}.lock"
                held.enter_context(filelock.FileLock(file, timeout=0, mode=0o666))
            except filelock.Timeout:
                free = False
            except (NotImplementedError, OSError):
                pass
            yield free

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # as open to others as the store itself
                folder.chmod(stat.S_IMODE(self.path.stat().st_mode))
        return folder


def _head(body: bytes) -> bytes:
    digest = hashlib.sha256(FORMAT.encode() + body).hexdigest()
    return f'{{"format":"{FORMAT}","sha256":"{digest}",\n'.encode()


def _read(file: Path, history: bool) -> dict:
    """The record in a file; ValueError or OSError says why there is none."""
    found = parse(_content(file), history)
    if f"{found['key']}.json" != file.name:
        raise ValueError(f"holds the run {found['key']}")
    return found


def _content(file: Path) -> bytes:
    if not stat.S_ISREG(file.stat().st_mode):  # to read from a pipe is to wait for ever
        raise ValueError("no file")
    return file.read_bytes()


def parse(content: bytes, history: bool = True) -> dict:
    """The record that is the content of a file; ValueError says why there is none."""
    head, _, body = content.partition(b"\n")
    if head + b"\n" != _head(body):
        newer = "written by a newer version of the library; update this one"
        raise ValueError(newer if _is_newer(content) else "damaged, or no record of this library")
    record, _, rest = body.partition(b"\n")
    found = json.loads(record[len(b'"record":') : -1])
    found["fingerprint"] = _restored(found.get("fingerprint", {}))
    if "result" in found:
        found["result"] = _restored(found["result"])
        if history:
            rows = json.loads(rest[len(b'"history":') : -len(b"\n}\n")])
            found["result"]["history"] = _restored(rows)
    return found


def _is_newer(content: bytes) -> bool:
    head, _, body = content.partition(b"\n")
    digest = hashlib.sha256(FORMAT.encode() + body).hexdigest().encode()
    format_ = _NEWER.search(content[:200])
    # A record of ours of which a bit of the format has flipped is a damaged one.
    return bool(format_) and int(format_[1]) > int(FORMAT[-1]) and digest not in head


def _text(values: object) -> str:
    return json.dumps(_strict(values), separators=(",", ":"), allow_nan=False)


def _strict(value: object) -> object:
    """Numbers that JSON does not have as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _strict(each) for key, each in value.items()}
    return [_strict(each) for each in value] if isinstance(value, (list, tuple)) else value


def _restored(value: object) -> object:
    if type(value) is str:
        return _UNKNOWN_TO_JSON.get(value, value)  # no text of a result reads like this
    if type(value) is dict:
        return {key: _restored(each) for key, each in value.items()}
    return [_restored(each) for each in value] if type(value) is list else value


def results(store: str | Path) -> pd.DataFrame:
    """All runs of a store, one row each; nothing in the store changes.

    Files that are no records, or damaged, are left out and named in a warning.

    Raises:
        ValueError: no such folder.

    Returns:
        Columns: key, the fields of `Run` (options as ``model.depth``, the recipe as
        ``recipe.epochs``), status ("done" or "failed"), what `perform` returns except the history,
        error (the last line of a traceback), seconds, finished (UTC), device_name, torch, and
        further versions.

    >>> import tempfile
    >>> results(tempfile.mkdtemp()).empty
    True
    """
    return table(_existing(store).records(history=False))


def histories(store: str | Path) -> pd.DataFrame:
    """Every epoch of every run of a store: key, and the columns of `Training.history`.

    >>> import tempfile
    >>> list(histories(tempfile.mkdtemp()))[:3]
    ['key', 'epoch', 'learning_rate']
    """
    rows = [
        (key, *row)
        for key, record in _existing(store).records().items()
        for row in record.get("result", {}).get("history", [])
    ]
    return pd.DataFrame(rows, columns=["key", *COLUMNS])


def _existing(path: str | Path) -> Store:
    if not Path(path).expanduser().exists():
        raise ValueError(f"there is no store {str(path)!r}; expected the folder of a sweep")
    return Store(path)


def table(records: Mapping[str, dict]) -> pd.DataFrame:
    """One row for each record, by key; what runs give is a column also where all have failed."""
    found = pd.DataFrame([_row(key, record) for key, record in records.items()])
    first = ["key", *(field.name for field in dataclasses.fields(Run)), "status", *GIVEN]
    named = [name for name in first if name not in ("recipe", "data_options", "model_options")]
    return found.reindex(columns=list(dict.fromkeys([*found.columns, *named])))


def _row(key: str, record: dict) -> dict:
    run = dict(record["run"])
    recipe = {f"recipe.{name}": value for name, value in run.pop("recipe").items()}
    options = {
        f"{kind}.{name}": value
        for kind in ("data", "model")
        for name, value in run.pop(f"{kind}_options")
    }
    result = {k: v for k, v in record.get("result", {}).items() if k not in ("history", "rounds")}
    return {
        "key": key, **run, **options, "status": record["status"], **result,
        "error": record.get("error"), "seconds": record.get("seconds"),
        "finished": record.get("finished"), **recipe, **record.get("machine", {}),
    }  # fmt: skip
