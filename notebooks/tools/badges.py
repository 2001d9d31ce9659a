"""Writes the repository's address wherever a notebook needs it, from the one place it stands in.

    python notebooks/tools/badges.py             write (`make badges`)
    python notebooks/tools/badges.py --check     only say what differs

The place: `[project.urls] Repository` in pyproject.toml. Written are all Colab badges (README and
the notebooks' first cells) and the top of every setup cell, which is the same in all notebooks.
Outputs stay: the text of `.py` and `.ipynb` is changed alike.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from pairs import ROOT, BuildError, serialized, write_atomically

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

BRANCH = "main"
BADGE = re.compile(
    r"(https://colab\.research\.google\.com/github/)[^)\s]*?(/notebooks/[\w.]+\.ipynb)"
)
SETUP = """\
# On Colab this installs the package alone, so that torch and numpy stay as they are.
import importlib.util

if importlib.util.find_spec("synflow_lib") is None:
    %pip install --quiet --no-deps git+{address}
    importlib.invalidate_caches()
    if importlib.util.find_spec("synflow_lib") is None:
        raise ModuleNotFoundError("synflow_lib: is the network there? Connect, run this cell again")
importlib.import_module("synflow_lib.colab").greet()
"""
# From the first comment of the cell to the notebook's own imports.
OLD_SETUP = re.compile(
    r"# On Colab[^\n]*\nimport importlib\.util\n.*?(?=\n\n(?:import|from) \w)", re.DOTALL
)


def address(root: Path = ROOT) -> str:
    """The repository's address, without a slash at its end.

    Raises:
        BuildError: pyproject.toml has none, or one that is not on GitHub (Colab opens no other).
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = project.get("urls", {}).get("Repository", "")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+?/?", found):
        raise BuildError(
            f"[project.urls] Repository is {found!r}; expected https://github.com/OWNER/NAME"
        )
    return found.rstrip("/")


def with_badges(text: str, home: str) -> str:
    """The text with every Colab badge leading to `home`."""
    place = home.removeprefix("https://github.com/")
    return BADGE.sub(lambda found: f"{found[1]}{place}/blob/{BRANCH}{found[2]}", text)


def with_setup(cell: str, home: str) -> str:
    """A code cell with the common top of setup cells, if it is a setup cell."""
    return OLD_SETUP.sub(lambda _: SETUP.format(address=home).rstrip("\n"), cell, count=1)


def wanted(path: Path, home: str) -> str:
    """What a README, `.py` or `.ipynb` should hold.

    Raises:
        BuildError: a notebook has no setup cell in the known form, or no badge.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return with_badges(text, home)
    setup = SETUP.format(address=home).rstrip("\n")
    if path.suffix == ".ipynb":
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            change = with_badges if cell.cell_type == "markdown" else with_setup
            cell.source = change(cell.source, home)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        new = serialized(notebook)
    else:
        setup = setup.replace("%pip", "# %pip")  # in py:percent a magic is a comment
        new = OLD_SETUP.sub(lambda _: setup, with_badges(text, home), count=1)
        code = [new]
    if sum(source.count(setup) for source in code) != 1:
        raise BuildError(f"{path.name}: no setup cell that starts as those of other notebooks do")
    if not BADGE.search(new):
        raise BuildError(f"{path.name}: no Colab badge")
    return new


def differing(root: Path, write: bool = False) -> list[Path]:
    """Files whose badges or setup cell differ from what the address demands (before writing)."""
    home, found = address(root), []
    notebooks = [*root.glob("notebooks/[0-9][0-9]_*.py"), *root.glob("notebooks/[0-9]*_*.ipynb")]
    # All texts first: a file that cannot be changed must not leave half of the others changed.
    texts = {path: wanted(path, home) for path in [root / "README.md", *sorted(notebooks)]}
    for path, text in texts.items():
        if text != path.read_text(encoding="utf-8"):
            found.append(path)
            if write:
                write_atomically(path, text)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError with a message for the user."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail if any differs")
    given = parser.parse_args(arguments)
    found = [path.name for path in differing(ROOT, write=not given.check)]
    if given.check and found:
        raise BuildError(f"{', '.join(found)} differ; run `make badges`")
    print(
        f"{address()}: {len(found)} files written" if found else "all badges are as they should be"
    )


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"badges: {error}")
