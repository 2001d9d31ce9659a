"""A notebook with its stored outputs as a page in Markdown; nothing is run.

>>> code_fence("print(1)", "python")
'```python\\nprint(1)\\n```'
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import nbformat
from kept import keep, keep_formulas
from nbformat import NotebookNode
from pairs import CHECKED
from pictures import described

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def notebook_page(path: Path, kept: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """Reads a notebook and lays it out.

    Args:
        path: of the `.ipynb`.
        kept: takes formulas, tables and animations, which no Markdown parser should see.

    Returns:
        The text of the page, and file name -> PNG of the folder ``NAME_files`` beside it.

    Raises:
        ValueError: an output is of a kind that has no place on a page.
    """
    parts, pictures = [], {}
    for number, cell in enumerate(described(nbformat.read(path, as_version=4).cells, path.stem)):
        if cell.cell_type == "markdown":
            parts.append(markdown_cell(cell.source, kept))
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(code_fence(CHECKED.sub("", cell.source), "python"))
        for count, output in enumerate(cell.get("outputs", [])):
            if "image/png" in output.get("data", {}):
                name = f"{path.stem}-{number}-{count}.png"
                pictures[name] = base64.b64decode(output.data["image/png"])
                alt = html.escape(output.metadata["image/png"]["alt"])
                parts.append(f'<p><img alt="{alt}" src="{path.stem}_files/{name}"></p>')
            else:
                parts.append(_output(output, kept, f"{path.stem}, cell {number + 1}"))
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def markdown_cell(source: str, kept: dict[str, str]) -> str:
    """A Markdown cell as Python-Markdown wants it: what a reader unfolds is read as Markdown."""
    return keep_formulas(source, kept).replace("<details>", '<details markdown="1">')


def code_fence(text: str, language: str) -> str:
    """Text between fences longer than any inside it."""
    longest = max((len(ticks) for ticks in re.findall(r"^`{3,}", text, re.MULTILINE)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _output(output: NotebookNode, kept: dict[str, str], place: str) -> str:
    if output.output_type == "error":
        raise ValueError(f"{place}: an error is stored as output; run the notebook again")
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">{keep(data["text/html"], kept)}</div>'
    if "text/markdown" in data:
        return markdown_cell(data["text/markdown"], kept)
    text = output.get("text", data.get("text/plain"))
    if text is None:
        raise ValueError(f"{place}: an output of {', '.join(data)}; expected a PNG, HTML or text")
    return code_fence(ANSI.sub("", text), "{ .text .output .no-copy }") if text.strip() else ""
