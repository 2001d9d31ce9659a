"""The two files of a notebook: `NN_topic.py` (the source) and `NN_topic.ipynb` (with outputs).

`build.py` is the command; this module reads, compares, cleans and writes. What all commands of this
folder share stands at its end.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parents[1]  # the notebooks
ROOT = HERE.parent
METADATA = {
    # Both files tell jupytext that they are a pair and in which format, so that `jupytext --sync`
    # and JupyterLab need not guess. jupytext's own version would change with every update.
    "jupytext": {
        "formats": "ipynb,py:percent",
        "notebook_metadata_filter": "-jupytext.text_representation.jupytext_version",
    },
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
MAX_BYTES = 1_000_000
WIDGET = "application/vnd.jupyter.widget-view+json"
# This machine's own folders, or a file below the root of a file system: two components at least,
# not part of a URL, a fraction or a closing tag.
OWN_FOLDERS = [re.escape(str(path)) for path in (ROOT, Path.home(), sys.prefix) if str(path) != "/"]
ABSOLUTE_PATH = re.compile(
    "|".join([*OWN_FOLDERS, r"(?<![\w./:<)\]}\\])/[A-Za-z_][\w.+-]*/[\w.+-]+"])
)
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
MERGE = re.compile(r"^(?:<{7}|>{7}) .*", flags=re.MULTILINE)
HINT = re.compile(r"\n*<details>\s*<summary>Hint</summary>.*?</details>\n*", re.DOTALL)
CHECKED = re.compile(r"^# NBVAL_\w+\n", flags=re.MULTILINE)  # speaks to the tests, not to readers
COLORS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # of a terminal


class BuildError(Exception):
    """A notebook cannot be built; the message says which one, which cell and what to do."""


def load(path: Path) -> NotebookNode:
    """The notebook in a `.py` or `.ipynb`.

    Raises:
        BuildError: the file is damaged, empty, or holds both sides of a merge: nothing may be
            written over its other half from it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            notebook = jupytext.reads(text, fmt="py:percent")
        else:
            notebook = nbformat.reads(text, as_version=4)
        cells = notebook.cells
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes the parsers raise
        told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]
        raise BuildError(f"{path.name} is no notebook ({told}); `git checkout` it") from error
    if not cells:
        raise BuildError(f"{path.name} holds no cell; `git checkout` it")
    if MERGE.search(text):
        raise BuildError(f"{path.name} holds {MERGE.search(text)[0]!r}: resolve the merge first")
    return notebook


def source_text(notebook: NotebookNode) -> str:
    """The py:percent text of a notebook, as jupytext's own command writes it."""
    return jupytext.writes(new(notebook, metadata=METADATA), "py:percent")


def in_step(source: Path) -> bool:
    """Whether the `.ipynb` beside `source` exists and holds exactly the cells of `source`."""
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return False
    text = source_text(load(target))
    return text == source.read_text(encoding="utf-8", errors="replace")


def read_pair(source: Path) -> NotebookNode:
    """The notebook of `source`, with ids (and outputs of unchanged cells) of the old `.ipynb`."""
    notebook = load(source)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    target = source.with_suffix(".ipynb")
    old = {}
    if target.exists():
        before = nbformat.v4.upgrade(load(target))  # cells with ids
        old = {cell.id: cell.source for cell in before.cells}
        notebook = combine_inputs_with_outputs(notebook, before)
    notebook.metadata = nbformat.from_dict(METADATA)
    used = {cell.id for cell in notebook.cells if cell.id in old}
    for cell in notebook.cells:
        if cell.cell_type == "code" and old.get(cell.id) != cell.source:
            cell.outputs, cell.execution_count = [], None
        if cell.id not in old:  # jupytext draws a random one; the text gives the same every time
            cell.id = _id(f"{source.stem}\0{cell.cell_type}\0{cell.source}", used)
            used.add(cell.id)
    return notebook


def _id(text: str, used: set[str]) -> str:
    attempt = 0
    while (name := sha256(f"{text}\0{attempt}".encode()).hexdigest()[:8]) in used:
        attempt += 1
    return name


def settle(source: Path, take: str | None) -> None:
    """Makes sure that no edit is lost: the `.py` wins, unless the `.ipynb` was edited later."""
    target = source.with_suffix(".ipynb")
    if not target.exists() or in_step(source):
        return
    if take == "ipynb":
        write(source, source_text(load(target)))
    elif take is None and target.stat().st_mtime > source.stat().st_mtime + 1:
        raise BuildError(
            f"{target.name} differs from {source.name} and was saved later.\n"
            f"Keep the notebook's text:  python notebooks/tools/build.py --sync --take ipynb "
            f"--only {source.stem}\n"
            f"Keep the .py:              the same with --take py"
        )


def sync(source: Path, take: str | None = None) -> bool:
    """Brings one pair in step without running it; returns whether anything changed."""
    target = source.with_suffix(".ipynb")
    before = [path.read_bytes() if path.exists() else None for path in (source, target)]
    settle(source, take)
    notebook = read_pair(source)
    write(source, source_text(notebook))
    clean(notebook)
    write(target, serialized(notebook))
    return before != [path.read_bytes() for path in (source, target)]


def clean(notebook: NotebookNode) -> None:
    """Drops what another machine or a reader without a kernel would not share."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]


def problems(notebook: NotebookNode) -> list[str]:
    """Why this notebook must not be committed; empty when all is well."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        outputs = cell.get("outputs", [])
        printed = "\n".join(output_texts(outputs))
        if any(output.output_type == "error" for output in outputs):
            found.append(f"cell {number}: an error is stored as output")
        if match := ABSOLUTE_PATH.search(f"{cell.source}\n{printed}"):
            found.append(f"cell {number}: absolute path {match[0]}; print a relative one")
        if match := ADDRESS.search(printed):
            found.append(
                f"cell {number}: '{match[0]}' changes from run to run; "
                "assign the last line of the cell to `_` (ruff removes a semicolon)"
            )
    size = len(serialized(notebook).encode("utf-8"))
    if size >= MAX_BYTES:
        found.append(f"{size:,} bytes; at most {MAX_BYTES:,} (smaller or fewer figures)")
    return found


def output_texts(outputs: list) -> list[str]:
    """Every textual part of a cell's outputs, without embedded binary data."""
    texts = [output.text for output in outputs if output.output_type == "stream"]
    for output in outputs:
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                texts.append(re.sub(r"base64,[A-Za-z0-9+/=\\\s]+", "", value))
    return texts


def serialized(notebook: NotebookNode) -> str:
    """The text of the `.ipynb`, always in the same order and indentation."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


# ------------------------------------------------------------------ what the commands share


def is_notes(cell: NotebookNode) -> bool:
    """Whether a cell holds the speaker's notes, which RISE and nbconvert know as such."""
    return cell.metadata.get("slideshow", {}).get("slide_type") == "notes"


def new(node: NotebookNode, **parts: object) -> NotebookNode:
    """A notebook or a cell with some of its parts replaced; the given one stays as it is."""
    return nbformat.from_dict({**node, **parts})


def write(path: Path, text: str) -> None:
    """Replaces `path` in one step, or leaves it (and its date) when nothing changes."""
    if path.exists() and path.read_bytes() == text.encode("utf-8"):
        return
    from synflow_lib.files import replacing

    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def chosen(only: list[str], folder: Path = HERE, suffix: str = ".py") -> list[Path]:
    """The notebooks whose name starts with one of `only` (all when empty), in order."""
    every = sorted(folder.glob(f"[0-9][0-9]_*{suffix}"))
    if not every:
        raise BuildError(f"no notebook NN_topic{suffix} in {folder.name}/")
    for prefix in only:
        if not any(path.stem.startswith(prefix) for path in every):
            names = ", ".join(path.stem for path in every)
            raise BuildError(f"no notebook starts with {prefix!r}; there are {names}")
    return [path for path in every if path.stem.startswith(tuple(only or [""]))]


def command_line(told: str) -> argparse.ArgumentParser:
    """A parser that explains a command by its module's docstring and knows `--only`."""
    parser = argparse.ArgumentParser(
        description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="start of a name")
    return parser


def run_command(main: Callable[[], None]) -> None:
    """Calls `main`; a BuildError, or a file out of reach, is told without a traceback."""
    try:
        main()
    except (BuildError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
