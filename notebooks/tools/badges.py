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
from pathlib import Path

from pairs import ROOT, BuildError, load, run_command, serialized, source_text, write

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

BADGE = re.compile(
    r"(https://colab\.research\.google\.com/github/)[^)\s]*?(/notebooks/[\w.]+\.ipynb)"
)
SETUP = """\
SCALE = "classroom"  # @param ["classroom", "colab", "panel", "paper"]
KEEP_IN_DRIVE = True  # @param {{type: "boolean"}}

# On Colab this installs the package alone, so that torch and numpy stay as they are.
import importlib.util

if importlib.util.find_spec("synflow_lib") is None:
    %pip install --quiet --no-deps git+{address}
    importlib.invalidate_caches()
    if importlib.util.find_spec("synflow_lib") is None:
        raise ModuleNotFoundError("synflow_lib: is the network there? Connect, run this cell again")
importlib.import_module("synflow_lib.colab").greet(SCALE, KEEP_IN_DRIVE)
"""
# From the form, or the first comment, to the notebook's own imports.
OLD_SETUP = re.compile(
    r"(?:SCALE = [^\n]*\nKEEP_IN_DRIVE = [^\n]*\n\n)?"
    r"# On Colab[^\n]*\nimport importlib\.util\n.*?(?=\n\n(?:import|from) \w)",
    re.DOTALL,
)


def address(root: Path = ROOT) -> str:
    """The repository's address, without a slash at its end.

    Raises:
        BuildError: pyproject.toml has none, or one that is not on GitHub (Colab opens no other).
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found = str(project.get("project", {}).get("urls", {}).get("Repository", ""))
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+?/?", found):
        raise BuildError(
            f"[project.urls] Repository is {found!r}; expected https://github.com/OWNER/NAME"
        )
    return found.rstrip("/")


def with_badges(text: str, home: str) -> str:
    """The text with every Colab badge leading to `home`."""
    place = home.removeprefix("https://github.com/")
    return BADGE.sub(rf"\g<1>{place}/blob/main\g<2>", text)


def wanted(path: Path, home: str) -> str:
    """What a README, `.py` or `.ipynb` should hold.

    Raises:
        BuildError: a notebook has no setup cell in the known form, or no badge.
    """
    if path.suffix == ".md":
        return with_badges(path.read_text(encoding="utf-8"), home)
    setup = SETUP.format(address=home).rstrip("\n")
    notebook = load(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_badges(cell.source, home)
        else:
            cell.source = OLD_SETUP.sub(lambda _: setup, cell.source, count=1)
    if sum(cell.source.count(setup) for cell in notebook.cells) != 1:
        raise BuildError(f"{path.name}: no setup cell that starts as those of other notebooks do")
    if not any(BADGE.search(cell.source) for cell in notebook.cells):
        raise BuildError(f"{path.name}: no Colab badge")
    return serialized(notebook) if path.suffix == ".ipynb" else source_text(notebook)


def differing(root: Path, repair: bool = False) -> list[Path]:
    """Files whose badges or setup cell differ from what the address demands (before writing)."""
    home = address(root)
    notebooks = sorted((root / "notebooks").glob("[0-9][0-9]_*"))
    # All texts first: a file that cannot be changed must not leave half of the others changed.
    texts = {path: wanted(path, home) for path in [root / "README.md", *notebooks]}
    found = [path for path, text in texts.items() if text != path.read_text(encoding="utf-8")]
    if repair:
        for path in found:
            write(path, texts[path])
    return found


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError with a message for the user."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail if any differs")
    given = parser.parse_args(arguments)
    found = [path.name for path in differing(ROOT, repair=not given.check)]
    if given.check and found:
        raise BuildError(f"{', '.join(found)} differ; run `make badges`")
    print(
        f"{address()}: {len(found)} files written" if found else "all badges are as they should be"
    )


if __name__ == "__main__":
    run_command(main)
