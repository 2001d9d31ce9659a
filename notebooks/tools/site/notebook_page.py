"""A notebook with its stored outputs as a page in Markdown; nothing is run.

>>> code_fence("print(1)", "python")
'```python\\nprint(1)\\n```'
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from pictures import FENCED, alternatives
from slides import CHECKED

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
FORMULA = re.compile(r"^\$\$(.+?)\$\$", flags=re.MULTILINE | re.DOTALL)


@dataclass
class Page:
    """What becomes of a notebook.

    Attributes:
        markdown: the text of the page.
        pictures: file name -> PNG bytes, of a folder ``NAME_files`` beside the page.
        inserts: place holder -> HTML that no Markdown parser should see (tables, animations).
    """

    markdown: str
    pictures: dict[str, bytes] = field(default_factory=dict)
    inserts: dict[str, str] = field(default_factory=dict)


def notebook_page(path: Path, figures: Path, written: Mapping[str, str]) -> Page:
    """Reads a notebook and lays it out.

    Args:
        path: of the `.ipynb`.
        figures: the folder of saved figures, whose SVG tell what a figure shows.
        written: name of a saved figure -> what somebody wrote of it; this is preferred.

    Raises:
        ValueError: an output is of a kind that has no place on a page.
    """
    notebook = nbformat.read(path, as_version=4)
    page, parts = Page(""), []
    told = alternatives(notebook.cells, path.stem, figures, written)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(markdown_cell(cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(code_fence(CHECKED.sub("", cell.source), "python"))
            for count, output in enumerate(cell.outputs):
                name = f"{path.stem}-{number}-{count}"
                parts.append(_output(output, name, page, told[number]))
    page.markdown = "\n\n".join(part for part in parts if part) + "\n"
    return page


def markdown_cell(source: str) -> str:
    """A Markdown cell as Python-Markdown wants it.

    Displayed formulas come in one line, between blank ones (a line that begins with a minus would
    be a list), and what a reader unfolds is read as Markdown.

    >>> markdown_cell("so\\n$$a\\n - b$$")
    'so\\n\\n\\n$$\\na - b\\n$$\\n'
    """
    fences: list[str] = []

    def keep(match: re.Match) -> str:
        fences.append(match[0])
        return f"\x02{len(fences) - 1}\x03"

    def formula(match: re.Match) -> str:
        return f"\n\n$$\n{' '.join(line.strip() for line in match[1].split())}\n$$\n"

    text = FORMULA.sub(formula, FENCED.sub(keep, source))
    text = text.replace("<details>", '<details markdown="1">')
    return re.sub("\x02(\\d+)\x03", lambda match: fences[int(match[1])], text)


def code_fence(text: str, language: str) -> str:
    """Text between fences longer than any inside it."""
    longest = max((len(ticks) for ticks in re.findall(r"^`{3,}", text, re.MULTILINE)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _output(output: NotebookNode, name: str, page: Page, alternative: str) -> str:
    if output.output_type == "stream":
        return _text(output.text)
    if output.output_type == "error":
        raise ValueError(f"{name}: an error is stored as output; run the notebook again")
    data = output.data
    if "image/png" in data:
        page.pictures[f"{name}.png"] = base64.b64decode(data["image/png"])
        folder = name.rsplit("-", 2)[0] + "_files"
        return f'<p><img alt="{html.escape(alternative)}" src="{folder}/{name}.png"></p>'
    if "text/html" in data:
        page.inserts[f'<div id="{name}"></div>'] = f'<div class="output">{data["text/html"]}</div>'
        return f'<div id="{name}"></div>'
    if "text/markdown" in data:
        return markdown_cell(data["text/markdown"])
    if "text/plain" in data:
        return _text(data["text/plain"])
    raise ValueError(f"{name}: an output of {', '.join(data)}; expected a PNG, HTML or text")


def _text(text: str) -> str:
    return code_fence(ANSI.sub("", text), "{ .text .output .no-copy }") if text.strip() else ""
