"""Words for pictures: what a figure shows, for readers who do not see it.

The best words are those somebody wrote, above a notebook. Else they are read from the figure's
SVG, which holds every text that is drawn.
"""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from nbformat import NotebookNode
from pairs import HERE, ROOT

WRITTEN = re.compile(r"!\[([^\]]+)\]\(\.\./figures/([\w.-]+)\.png\)")
SAVED = re.compile(r"""\bsave\([^,"']+,\s*["']([\w.-]+)["']""")
DRAWN = re.compile(r"\bsf\.(?:figures|explore)\.(?!save\b)\w+")
HEADING = re.compile(r"^#{1,6} (.+)$", flags=re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
SVG = "{http://www.w3.org/2000/svg}"


def described(cells: list[NotebookNode], title: str) -> list[NotebookNode]:
    """Copies of cells that tell, in the metadata of each output with a picture, what it shows.

    Args:
        cells: of a notebook, in their order.
        title: of the notebook, for figures above the first heading.
    """
    sources = [path.read_text(encoding="utf-8") for path in sorted(HERE.glob("[0-9][0-9]_*.py"))]
    known = {name: words for words, name in WRITTEN.findall("\n".join(sources))}
    cells, heading = copy.deepcopy(cells), title
    for cell in cells:
        if cell.cell_type == "markdown":
            headings = HEADING.findall(FENCED.sub("", cell.source))
            heading = re.sub(r"[$*`\\]", "", headings[-1]) if headings else heading
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                words = _words(cell.source, known)
                told = f'Figure under the heading "{heading}"' + (f": {words}" if words else "")
                output.metadata["image/png"] = {"alt": told}
    return cells


def _words(source: str, known: dict[str, str]) -> str:
    """What the code that draws a figure tells of it."""
    if names := SAVED.findall(source):
        drawing = ROOT / "figures" / f"{names[-1]}.svg"
        words = known.get(names[-1]) or (describe(drawing) if drawing.is_file() else "")
        if words:
            return words
    calls = DRAWN.findall(source)
    return f"what {calls[-1]} draws" if calls else ""


def describe(path: Path) -> str:
    """The axes and the legend of a figure in words.

    matplotlib draws letters as outlines and leaves the text in comments beside them, in groups
    named after the part of the figure: that is what is read.

    Args:
        path: of an SVG that matplotlib wrote.

    Returns:
        Such as "accuracy against compression; legend: SNIP, SynFlow"; empty if there is no text.
    """
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    axes, legend, shared = [], [], []
    for group in ElementTree.parse(path, parser).getroot().iter(f"{SVG}g"):
        name = group.get("id", "")
        if name == "figure_1":  # labels that all panels share
            shared = _labels(group)
        elif re.fullmatch(r"axes_\d+", name):
            both = [g for g in group if g.get("id", "").startswith("matplotlib.axis_")][:2]
            across_and_up = [" ".join(_labels(axis)) for axis in both]
            axes.append(" against ".join(filter(None, reversed(across_and_up))))
        elif re.fullmatch(r"legend_\d+", name):
            legend += _texts(group)
    told = ", and ".join(dict.fromkeys(filter(None, [*axes, " ".join(shared)])))
    entries = ", ".join(dict.fromkeys(legend))
    return "; ".join(filter(None, [told, entries and f"legend: {entries}"]))


def _labels(group: ElementTree.Element) -> list[str]:
    """Texts directly in a group: those of an axis' ticks stand in groups of their own."""
    parts = [part for part in group if part.get("id", "").startswith("text_")]
    return [text for part in parts for text in _texts(part)]


def _texts(group: ElementTree.Element) -> list[str]:
    comments = (part.text or "" for part in group.iter(ElementTree.Comment))
    return [re.sub(r"[$\\{}]|\\mathdefault", "", text).strip() for text in comments]
