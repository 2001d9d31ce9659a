"""What a saved figure shows, in words: read from its SVG, which holds every text that is drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

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
