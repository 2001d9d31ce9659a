"""What the notebooks trained and measured, in one committed file, so that the tests need not again.

`build.py` computes everything and writes `results/classroom.jsonl`; `make test` puts its records
into the store of its notebooks, trains a few of them anew and compares, and leaves out some of what
was measured, another part each day; `make test-all` computes all.
Times, machines and histories are left out: where nothing changed the file is the same bytes.
"""

from __future__ import annotations

import ast
import datetime
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from pairs import ROOT, write

FILE = ROOT / "results" / "classroom.jsonl"
LIBRARY = ROOT / "synflow_lib"
NOT_STORES = ("locks", "checkpoints", "networks", "set_aside", "superseded")
# Of a record: what the store writes anew, and what differs from one time to the next.
LEFT_OUT = ("format", "key", "run", "seconds", "finished", "machine")
NOT_KNOWN = ("prune_seconds", "train_seconds")


def code(start: Path = LIBRARY / "sweeps" / "run.py") -> str:
    """A hash of the code that a run executes: `start` and whatever it imports of its package.

    Comments and docstrings do not count, nor does what draws, explains or compares.
    """
    dumps, waiting = {}, [start, LIBRARY / "methods.py"]  # methods are called by their names
    while waiting:
        file = waiting.pop()
        if file not in dumps:
            dumps[file], imported = _parsed(file, file.read_text(encoding="utf-8"))
            waiting += imported
    texts = [dumps[file] for file in sorted(dumps)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


@functools.cache
def _parsed(file: Path, text: str) -> tuple[str, tuple[Path, ...]]:
    """What a file's code says, and the files of the package that it imports."""
    tree = ast.parse(text)
    imported = tuple(_imported(file, tree))
    return ast.dump(_without_docstrings(tree)), imported


def _imported(file: Path, tree: ast.AST) -> Iterator[Path]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        # What is not of this package is not found below its folder.
        base = file.parents[node.level - 1] if node.level else LIBRARY.parent
        base = base.joinpath(*(node.module or "").split("."))
        for target in (base, *(base / alias.name for alias in node.names)):
            for found in (target.with_suffix(".py"), target / "__init__.py"):
                # The folder that a module lies in lists its neighbours; it does not need them.
                if found.is_file() and (
                    found.name != "__init__.py" or found.parent not in file.parents
                ):
                    yield found


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            text = body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                text.value = ""
    return tree


def export(runs: Path, file: Path = FILE) -> int:
    """Writes what is finished in a folder of runs; returns the number of records."""
    from synflow_lib.reproduction.experiments import measured, trained
    from synflow_lib.sweeps.store import Store

    lines = []
    for folder in (runs, *sorted(path for path in runs.iterdir() if path.is_dir())):
        name = "" if folder == runs else folder.name
        if name in (trained.FOLDER, measured.FOLDER):
            for path in folder.glob("[!.]*.json"):
                if (value := trained.read(path)) is not None:
                    parts = value if name == measured.FOLDER else {"value": value}
                    lines.append({name: path.stem, **parts})
        elif name not in NOT_STORES:
            lines += [
                {"store": name, "run": record["run"], **_lasting(record)}
                for record in Store(folder).records().values()
                if record["status"] == "done"
            ]
    names = ("measured", "trained", "store", "run")
    lines.sort(key=lambda line: _text([line.get(name) for name in names]))
    file.parent.mkdir(exist_ok=True)
    # Many runs share a recipe, a data set and a network: these are said once, in the first line.
    first = {"code": code()}
    for name, places in _shared(lines).items():
        texts = sorted({_text(place[name]) for place in places})
        for place in places:
            place[name] = texts.index(_text(place[name]))
        first[f"{name}s"] = [json.loads(text) for text in texts]
    first["modules"] = {name: code(_file(name)) for name in sorted(_modules(lines))}
    write(file, "\n".join([_text(first), *map(_text, lines), ""]))
    return len(lines)


def _shared(lines: Iterable[dict]) -> dict[str, list[dict]]:
    """Name -> the dicts in which it stands for something that many lines share."""
    return {
        "fingerprint": [line for line in lines if "fingerprint" in line],
        "recipe": [line["run"] for line in lines if "run" in line],
    }


def _lasting(record: dict) -> dict:
    result = {k: v for k, v in record["result"].items() if k not in ("history", *NOT_KNOWN)}
    for name, value in result.items():
        if isinstance(value, float) and not math.isfinite(value):
            result[name] = None  # JSON knows neither infinity nor NaN
    return {**{k: v for k, v in record.items() if k not in LEFT_OUT}, "result": result}


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _file(module: str) -> Path:
    return LIBRARY.parent.joinpath(*module.split(".")).with_suffix(".py")


def _modules(lines: Iterable[dict]) -> set[str]:
    return {line["module"] for line in lines if "measured" in line}


def records(file: Path = FILE) -> tuple[str, list[dict]]:
    """The `code` that trained them, and what `export` wrote; nothing where there is no file.

    What was measured by code that has changed since is left out.
    """
    if not file.exists():
        return "", []
    first, *lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    for name, places in _shared(lines).items():
        for place in places:
            place[name] = first[f"{name}s"][place[name]]
    marks = first.get("modules", {})
    valid = {name for name in _modules(lines) if code(_file(name)) == marks.get(name)}
    return first["code"], [line for line in lines if line.get("module") in {None, *valid}]


def due(key: str, today: datetime.date | None = None) -> bool:
    """Whether a measurement is made anew today: one in eight, each in its turn."""
    day = (today or datetime.date.today()).toordinal()
    return int(key, 16) % 8 == day % 8


def load(lines: Iterable[dict], runs: Path) -> None:
    """Puts what `records` read into a folder of runs."""
    from synflow_lib.reproduction.experiments import measured, trained
    from synflow_lib.sweeps.run import Run
    from synflow_lib.sweeps.store import Store

    for line in lines:
        if "measured" in line:
            content = {"module": line["module"], "value": line["value"]}
            trained.write(trained.file_of(line["measured"], runs, measured.FOLDER), content)
            continue
        if "trained" in line:
            trained.write(trained.file_of(line["trained"], runs), line["value"])
            continue
        record = {k: v for k, v in line.items() if k not in ("store", "run")}
        record["result"] |= dict.fromkeys(NOT_KNOWN) | {"history": []}
        unknown = {"seconds": None, "finished": None, "machine": {}}
        Store(runs / line["store"]).write(Run.from_dict(line["run"]), record | unknown)
