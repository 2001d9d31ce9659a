"""The pages of the API: a page for each row of README's table of modules."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import griffe

PACKAGE = "synflow_lib"
LAYOUT = "## How the library is laid out"
ROW = re.compile(r"^\| (`[^|]+`) \| ([^|]+) \|$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Group:
    """Modules that belong together, and what they hold."""

    modules: tuple[str, ...]
    holds: str


def groups(root: Path) -> list[Group]:
    """The rows of README's table, and one more for the modules that it leaves out.

    Raises:
        ValueError: the table is gone, or names a module that does not exist.
    """
    _, _, text = (root / "README.md").read_text(encoding="utf-8").partition(LAYOUT)
    rows = ROW.findall(text.partition("\n## ")[0])
    if not rows:
        raise ValueError(f"README.md has no table of modules under {LAYOUT!r}")
    found = [Group(tuple(re.findall(r"`(\w+)`", names)), holds) for names, holds in rows]
    there = modules(root)
    named = {name for group in found for name in group.modules}
    if unknown := sorted(named - set(there)):
        raise ValueError(f"README.md's table names modules that do not exist: {unknown}")
    rest = tuple(name for name in there if name not in named)
    return [*found, Group(rest, "what the others share: files, random numbers, work space")]


def modules(root: Path) -> dict[str, list[str]]:
    """Public modules of the library -> the modules below them, in the order of names."""
    folder = root / PACKAGE
    paths = [*folder.glob("*.py"), *(path.parent for path in folder.glob("*/__init__.py"))]

    def below(name: str) -> list[str]:
        parts = (path.relative_to(folder / name).with_suffix("").parts for path in inside(name))
        return sorted(".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts)

    def inside(name: str) -> list[Path]:
        first = folder / name / "__init__.py"
        found = [path for path in (folder / name).rglob("*.py") if path != first]
        return [path for path in found if path.name == "__init__.py" or path.stem[0] != "_"]

    return {name: below(name) for name in sorted(p.stem for p in paths if p.stem[0] != "_")}


def group_page(root: Path, group: Group, inside: dict[str, list[str]]) -> str:
    """Markdown of a page: mkdocstrings fills in what the modules say of themselves."""
    holds = group.holds.strip()
    parts = [f"# {', '.join(group.modules)}", f"{holds[0].upper()}{holds[1:]}."]
    for module in group.modules:
        parts.append(f"::: {PACKAGE}.{module}")
        if inside[module]:  # what a package passes on from its modules is shown there, once
            parts[-1] += f"\n    options:\n      members: {json.dumps(own(root, module))}"
        for part in inside[module]:
            parts.append(f"::: {PACKAGE}.{module}.{part}\n    options:\n      heading_level: 3")
            place = f"{module}/{part.replace('.', '/')}"
            if (root / PACKAGE / place).is_dir():
                parts[-1] += f"\n      members: {json.dumps(own(root, place))}"
    return "\n\n".join(parts) + "\n"


def own(root: Path, package: str) -> list[str]:
    """Public functions and classes that stand in a package's own `__init__.py`."""
    text = (root / PACKAGE / package / "__init__.py").read_text(encoding="utf-8")
    things = (part for part in ast.parse(text).body if hasattr(part, "name"))
    return [part.name for part in things if not part.name.startswith("_")]


def names_page(root: Path) -> str:
    """Markdown of the first page: every name of `synflow_lib`, in a line each."""
    package = griffe.load(PACKAGE, search_paths=[str(root)], resolve_aliases=True)
    rows = []
    for name in sorted(package.exports or [], key=str.lower):
        member = package.members.get(name)
        if member is None:
            # A module that is imported when it is asked for.
            path = f"{PACKAGE}.reproduction.{name}"
            told = _told(griffe.load(path, search_paths=[str(root)]))
        else:
            target = member.final_target if member.is_alias else member
            path, told = target.path, _told(target)
        # What says nothing of itself has no place on its module's page to lead to.
        rows.append(f"| [`sf.{name}`][{path}] | {told} |" if told else f"| `sf.{name}` | |")
    return "\n".join(
        [
            f"# {PACKAGE}",
            "",
            str(package.docstring.value).partition("\n\n>>>")[0],
            "",
            "```python\nimport synflow_lib as sf\n```",
            "",
            "| name | |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _told(thing: griffe.Object) -> str:
    text = thing.docstring.value if thing.docstring else ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")
