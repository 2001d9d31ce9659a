"""Words for pictures: what a figure shows, for readers who do not see it.

The best words are those somebody wrote, above a notebook. Else they are read from the figure's
SVG, which holds every text that is drawn.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from nbformat import NotebookNode

SAVED = re.compile(r"""\bsave\([^,"']+,\s*["']([\w.-]+)["']""")
DRAWN = re.compile(r"\bsf\.(?:figures|explore)\.(?!save\b)\w+")
HEADING = re.compile(r"^#{1,6} (.+)$", flags=re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
SVG = "{http://www.w3.org/2000/svg}"


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
    root = ElementTree.parse(path, parser).getroot()
    axes, legend, rest = [], [], []
    for group in root.iter(f"{SVG}g"):
        if group.get("id") == "figure_1":  # labels that all panels share
            rest = [text for part in group if _is_text(part) for text in _texts(part)]
        elif re.fullmatch(r"axes_\d+", group.get("id", "")):
            across, up = (_label(axis) for axis in _axes(group))
            axes.append(" against ".join(text for text in (up, across) if text))
        elif re.fullmatch(r"legend_\d+", group.get("id", "")):
            legend += _texts(group)
    told = ", and ".join(dict.fromkeys(text for text in (*axes, " ".join(rest)) if text))
    entries = ", ".join(dict.fromkeys(legend))
    return "; ".join(filter(None, [told, entries and f"legend: {entries}"]))


def _axes(group: ElementTree.Element) -> list[ElementTree.Element | None]:
    found = [part for part in group if part.get("id", "").startswith("matplotlib.axis_")]
    return (found + [None, None])[:2]


def _label(axis: ElementTree.Element | None) -> str:
    """The text beside the ticks: it is no part of a tick's group."""
    parts = [] if axis is None else [part for part in axis if _is_text(part)]
    return " ".join(text for part in parts for text in _texts(part))


def _is_text(group: ElementTree.Element) -> bool:
    return group.get("id", "").startswith("text_")


def _texts(group: ElementTree.Element) -> list[str]:
    comments = (part.text or "" for part in group.iter(ElementTree.Comment))
    return [re.sub(r"[$\\{}]|\\mathdefault", "", text).strip() for text in comments]


def written(folder: Path) -> dict[str, str]:
    """Name of a saved figure -> what is written of it: the pictures at the heads of notebooks.

    Args:
        folder: of the notebooks.
    """
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("[0-9][0-9]_*.py"))]
    found = re.findall(r"!\[([^\]]+)\]\(\.\./figures/([\w.-]+)\.png\)", "\n".join(sources))
    return {name: told for told, name in found}


def alternatives(
    cells: list[NotebookNode], title: str, figures: Path, known: Mapping[str, str]
) -> list[str]:
    """For each cell, what to tell of the figures among its outputs.

    Args:
        cells: of a notebook, in their order.
        title: of the notebook, for figures above the first heading.
        figures: the folder of saved figures.
        known: name of a saved figure -> what somebody wrote of it; this is preferred.
    """
    found, heading = [], title
    for cell in cells:
        if cell.cell_type == "markdown":
            headings = HEADING.findall(FENCED.sub("", cell.source))
            heading = re.sub(r"[$*`\\]", "", headings[-1]) if headings else heading
        told = _told(cell.source, figures, known)
        found.append(f'Figure under the heading "{heading}"' + (f": {told}" if told else ""))
    return found


def _told(source: str, figures: Path, known: Mapping[str, str]) -> str:
    names = SAVED.findall(source)
    told = known.get(names[-1], "") if names else ""
    if names and not told and (drawing := figures / f"{names[-1]}.svg").is_file():
        told = describe(drawing)
    if not told and (calls := DRAWN.findall(source)):
        told = f"what {calls[-1]} draws"
    return told
