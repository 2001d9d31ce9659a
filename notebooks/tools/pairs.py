"""The two files of a notebook: `NN_topic.py` (the source) and `NN_topic.ipynb` (with outputs).

`build.py` is the command; this module reads, compares, cleans and writes.
"""

from __future__ import annotations

import os
import re
import sys
from difflib import SequenceMatcher
from hashlib import sha256
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parents[1]  # the notebooks
ROOT = HERE.parent
METADATA = {
    # Kept in the .ipynb so that jupytext's command and JupyterLab, with or without this project's
    # settings, write the short header that the sources have (no jupytext version in it).
    "jupytext": {
        "formats": "ipynb,py:percent",
        "notebook_metadata_filter": "kernelspec,-jupytext",
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
# A file below the root of a file system: two components at least, not part of a URL, a fraction
# or a closing tag.
ABSOLUTE_PATH = re.compile(r"(?<![\w./:<)\]}\\])/[A-Za-z_][\w.+-]*/[\w.+-]+")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")


class BuildError(Exception):
    """A notebook cannot be built; the message says which one, which cell and what to do."""


def source_text(notebook: nbformat.NotebookNode) -> str:
    """The py:percent text of a notebook, as jupytext's own command writes it."""
    return jupytext.writes(nbformat.from_dict({**notebook, "metadata": METADATA}), "py:percent")


def in_step(source: Path) -> bool:
    """Whether the `.ipynb` beside `source` exists and holds exactly the cells of `source`."""
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return False
    text = source_text(nbformat.read(target, as_version=4))
    return text == source.read_text(encoding="utf-8")


def read_pair(source: Path) -> nbformat.NotebookNode:
    """The notebook of `source`, with ids (and outputs of unchanged cells) of the old `.ipynb`."""
    fresh = jupytext.read(source, fmt="py:percent")
    fresh.metadata = nbformat.from_dict(METADATA)
    fresh.nbformat, fresh.nbformat_minor = 4, 5
    target = source.with_suffix(".ipynb")
    old = nbformat.read(target, as_version=4).cells if target.exists() else []
    for cell in fresh.cells:
        cell.pop("id", None)  # jupytext draws a random one
    adopt(old, fresh.cells)

    used = {cell["id"] for cell in fresh.cells if "id" in cell}
    for cell in fresh.cells:
        attempt = 0
        while "id" not in cell:
            key = f"{source.stem}\0{cell.cell_type}\0{cell.source}\0{attempt}"
            name = sha256(key.encode()).hexdigest()[:8]
            attempt += 1
            if name not in used:
                cell["id"] = name
                used.add(name)
    return fresh


def adopt(old: list, new: list) -> None:
    """Gives `new` cells the ids of the `old` cells they continue, and outputs if unchanged."""
    matcher = SequenceMatcher(
        None,
        [(cell.cell_type, cell.source) for cell in old],
        [(cell.cell_type, cell.source) for cell in new],
        autojunk=False,
    )
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        if tag not in ("equal", "replace"):
            continue
        for before, after in zip(old[a:a_end], new[b:b_end], strict=tag == "equal"):
            if before.cell_type == after.cell_type and "id" in before:
                after["id"] = before["id"]
            if tag == "equal" and after.cell_type == "code":
                after.outputs = before.outputs
                after.execution_count = before.execution_count


def settle(source: Path, take: str | None) -> None:
    """Makes sure that no edit is lost: the `.py` wins, unless the `.ipynb` was edited later."""
    target = source.with_suffix(".ipynb")
    if not target.exists() or in_step(source):
        return
    newer = target.stat().st_mtime > source.stat().st_mtime + 1
    if take == "ipynb":
        text = source_text(nbformat.read(target, as_version=4))
        write_atomically(source, text)
    elif take is None and newer:
        raise BuildError(
            f"{target.name} differs from {source.name} and was saved later.\n"
            f"Keep the notebook's text:  python notebooks/tools/build.py --sync --take ipynb "
            f"--only {source.stem}\n"
            f"Keep the .py:              the same with --take py"
        )


def canonical(source: Path, notebook: nbformat.NotebookNode, repair: bool) -> None:
    """Requires (or makes) `source` to be what jupytext would write, so that pairs compare."""
    text = source_text(notebook)
    if text == source.read_text(encoding="utf-8"):
        return
    if not repair:
        raise BuildError(
            f"{source.name} is not laid out as jupytext writes it (header or blank lines); "
            "`make sync` repairs that."
        )
    write_atomically(source, text)


def clean(notebook: nbformat.NotebookNode, metadata: list[dict]) -> None:
    """Drops what a second run, another machine or a reader without a kernel would not share."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell, kept in zip(notebook.cells, metadata, strict=True):
        cell.metadata = kept
        if cell.cell_type != "code":
            continue
        cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Why this notebook must not be committed; empty when all is well."""
    found = []
    known = {str(ROOT), str(Path.home()), sys.prefix} - {"/"}
    for number, cell in enumerate(notebook.cells, start=1):
        outputs = cell.get("outputs", [])
        if any(output.output_type == "error" for output in outputs):
            found.append(f"cell {number}: an error is stored as output")
        for text in [cell.source, *output_texts(outputs)]:
            paths = [path for path in known if path in text]
            match = ABSOLUTE_PATH.search(text)
            if paths or match:
                shown = paths[0] if paths else match.group()
                found.append(f"cell {number}: absolute path {shown}; print a relative one")
        for text in output_texts(outputs):
            if match := ADDRESS.search(text):
                found.append(
                    f"cell {number}: '{match.group()}' changes from run to run; "
                    "assign the last line of the cell to `_` (ruff removes a semicolon)"
                )
    size = len(serialized(notebook).encode("utf-8"))
    if size >= MAX_BYTES:
        found.append(f"{size:,} bytes; at most {MAX_BYTES:,} (smaller or fewer figures)")
    return list(dict.fromkeys(found))


def output_texts(outputs: list) -> list[str]:
    """Every textual part of a cell's outputs, without embedded binary data."""
    texts = []
    for output in outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        for kind, value in output.get("data", {}).items():
            if isinstance(value, str) and kind.startswith("text/"):
                texts.append(re.sub(r"base64,[A-Za-z0-9+/=\\\s]+", "", value))
    return texts


def serialized(notebook: nbformat.NotebookNode) -> str:
    """The bytes of the `.ipynb`, always in the same order and indentation."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` in one step, or leaves it (and its date) when nothing changes."""
    if path.exists() and path.read_bytes() == text.encode("utf-8"):
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(source: Path, take: str | None = None) -> bool:
    """Brings one pair in step without running it; returns whether anything changed."""
    target = source.with_suffix(".ipynb")
    before = [path.read_bytes() if path.exists() else None for path in (source, target)]
    settle(source, take)
    notebook = read_pair(source)
    canonical(source, notebook, repair=True)
    clean(notebook, [cell.metadata for cell in notebook.cells])
    write_atomically(target, serialized(notebook))
    return before != [path.read_bytes() for path in (source, target)]
