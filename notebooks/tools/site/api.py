"""The pages of the API: a page for each row of README's table of modules.

hooks.py lists the pages; mkdocstrings, which fills them, reads the library with `Docstrings`.
"""

from __future__ import annotations

import re
from pathlib import Path

import griffe

PACKAGE = "synflow_lib"
LAYOUT = "## How the library is laid out"
ROW = re.compile(r"^\| (`[^|]+`) \| ([^|]+) \|$", flags=re.MULTILINE)
SESSION = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", flags=re.MULTILINE)
FIRST_PAGE = """\
# {package}

{told}

```python
import synflow_lib as sf
```

| name | |
|---|---|
{rows}
"""


def groups(root: Path) -> dict[tuple[str, ...], str]:
    """Modules that belong together -> what they hold.

    These are the rows of README's table, and one more for the modules that it leaves out, if any.

    Raises:
        ValueError: the table is gone, or names a module that does not exist.
    """
    _, _, text = (root / "README.md").read_text(encoding="utf-8").partition(LAYOUT)
    rows = ROW.findall(text.partition("\n## ")[0])
    if not rows:
        raise ValueError(f"README.md has no table of modules under {LAYOUT!r}")
    found = {tuple(re.findall(r"`(\w+)`", names)): holds.strip() for names, holds in rows}
    there, named = modules(root), {name for names in found for name in names}
    if unknown := sorted(named - set(there)):
        raise ValueError(f"README.md's table names modules that do not exist: {unknown}")
    rest = tuple(name for name in there if name not in named)
    return found | ({rest: "what else there is"} if rest else {})


def modules(root: Path) -> list[str]:
    """Names of the public modules and packages directly in the library."""
    folder = root / PACKAGE
    paths = [*folder.glob("*.py"), *(path.parent for path in folder.glob("*/__init__.py"))]
    return sorted(path.stem for path in paths if not path.stem.startswith("_"))


def group_page(names: tuple[str, ...], holds: str) -> str:
    """Markdown of a page: mkdocstrings fills in what the modules say of themselves."""
    places = [f"::: {PACKAGE}.{name}" for name in names]
    return "\n\n".join([f"# {', '.join(names)}", f"{holds[:1].upper()}{holds[1:]}.", *places, ""])


def names_page(root: Path) -> str:
    """Markdown of the first page: every name of `synflow_lib`, in a line each."""
    package = griffe.load(PACKAGE, search_paths=[str(root)], resolve_aliases=True)
    rows = []
    for name in sorted(package.exports or [], key=str.lower):
        # A name without a member is a module that is imported when it is asked for.
        member = package.members.get(name) or package[f"reproduction.{name}"]
        target = member.final_target if member.is_alias else member
        told = _first_words(target)
        # What says nothing of itself has no place on its module's page to lead to.
        rows.append(f"| [`sf.{name}`][{target.path}] | {told} |" if told else f"| `sf.{name}` | |")
    told = package.docstring.value.partition("\n\n>>>")[0]
    return FIRST_PAGE.format(package=PACKAGE, told=told, rows="\n".join(rows))


def _first_words(thing: griffe.Object) -> str:
    text = thing.docstring.value if thing.docstring else ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


class Docstrings(griffe.Extension):
    """Examples become highlighted sessions, and every name is shown where it is defined."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        """Called by griffe for each object it has read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        """Called when all is read: what a package passes on from its modules stands there."""
        for module in pkg.modules.values():
            if not module.is_alias and module.is_init_module:
                module.exports = None
                self.on_package(pkg=module)


def fenced(text: str) -> str:
    """The text with its sessions fenced (Markdown would read ``>>>`` as quotations).

    Neighbours share a fence.

    >>> fenced("One.\\n\\n>>> 1 + 1\\n2").splitlines()[2:]
    ['```pycon', '>>> 1 + 1', '2', '```']
    """
    text = SESSION.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
    return re.sub(r"\n```\n\s*\n?```pycon\n", "\n", text)
