"""What slides and the site share: words for pictures, formulas, and a look at finished pages.

Formulas become MathML, which browsers set and screen readers read without any script.
"""

from __future__ import annotations

import copy
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

from nbformat import NotebookNode
from pairs import COLORS, HERE, ROOT

WRITTEN = re.compile(r"!\[([^\]]+)\]\(\.\./figures/([\w.-]+)\.png\)")
SAVED = re.compile(r"""\bsave\([^,"']+,\s*["']([\w.-]+)["']""")
DRAWN = re.compile(r"\bsf\.(?:figures|explore)\.(?!save\b)\w+")
HEADING = re.compile(r"^#{1,6} (.+)$", flags=re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
SVG = "{http://www.w3.org/2000/svg}"
FIRST = 0xF0000  # of the characters that Unicode leaves to programs; they have no other meaning
PLACE = re.compile("[\U000f0000-\U000ffffd]")
DOLLARS = re.compile(
    r"(?P<code>^```.*?^```$|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$]*[^\s$])?)\$",
    flags=re.MULTILINE | re.DOTALL,
)


def described(cells: list[NotebookNode], title: str) -> list[NotebookNode]:
    """Copies of cells that tell, in the metadata of each output with a picture, what it shows.

    The title is for figures above the first heading.
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
    """What a figure shows, by the code that draws it: best are words that a notebook has for it."""
    if names := SAVED.findall(source):
        drawing = ROOT / "figures" / f"{names[-1]}.svg"
        words = known.get(names[-1]) or (describe(drawing) if drawing.is_file() else "")
        if words:
            return words
    calls = DRAWN.findall(source)
    return f"what {calls[-1]} draws" if calls else ""


def describe(path: Path) -> str:
    """The axes and the legend of a figure: "accuracy against compression; legend: SNIP, SynFlow".

    matplotlib draws letters as outlines and leaves the text in comments beside them, in groups
    named after the part of the figure: that is what is read.
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


# ------------------------------------------------------------ HTML kept from Markdown


def keep(html: str, kept: dict[str, str]) -> str:
    """Puts HTML into `kept`; returns the character that stands for it while Markdown is parsed."""
    place = chr(FIRST + len(kept))
    kept[place] = html
    return place


def keep_formulas(text: str, kept: dict[str, str]) -> str:
    """Markdown whose formulas, between dollars and outside of code, are in `kept`.

    Raises:
        ValueError: a formula is no LaTeX that can be converted; the message shows where.

    >>> kept = {}
    >>> text = keep_formulas("so $x$, not `$x$`", kept)
    >>> put_back(text, kept)
    'so <math><mi>x</mi></math>, not `$x$`'
    """
    import math_core

    def formula(match: re.Match) -> str:
        if match["code"]:
            return match[0]
        latex, block = match["block"] or match["inline"], match["block"] is not None
        try:
            mathml = math_core.LatexToMathML().convert_with_local_state(
                latex.strip(), displaystyle=block
            )
        except math_core.LatexError as error:
            raise ValueError(f"formula {latex!r}: {COLORS.sub('', str(error))}") from None
        return keep(mathml, kept)

    return DOLLARS.sub(formula, text)


def put_back(html: str, kept: dict[str, str]) -> str:
    """HTML with what was kept; a tag, such as an anchor with the name of a heading, goes without.

    >>> put_back(f'<h2 id="a{chr(FIRST)}">a{chr(FIRST)}</h2>', {chr(FIRST): "<i>b</i>"})
    '<h2 id="a">a<i>b</i></h2>'
    """
    html = re.sub(r"<[^>]*>", lambda tag: PLACE.sub("", tag[0]), html)
    return PLACE.sub(lambda place: kept[place[0]], html)


# ------------------------------------------------------------ finished pages


class Page(HTMLParser):
    """What a browser fetches to show a page, pictures without words, and text outside of code."""

    def __init__(self, path: Path):
        super().__init__()
        self.fetched: list[str] = []
        self.mute: list[str] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        if tag in ("script", "style", "pre", "code"):
            self._inside.append(tag)
        if tag == "img" and not given.get("alt", "").strip():
            self.mute.append(given.get("src") or "an image without a source")
        self.fetched += [given[name] for name in ("src", "poster") if given.get(name)]
        self.fetched += [given["href"]] if tag == "link" and given.get("href") else []
        self.fetched += styles(given.get("style", ""))

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        inside = self._inside[-1] if self._inside else ""
        if not inside:
            self.text += data
        elif inside == "style":
            self.fetched += styles(data)
        elif inside == "script":
            self.fetched += re.findall(r"""\bimport\s[^;'"]*['"]([^'"]+)['"]""", data)
            self.fetched += re.findall(r"""['"](\S*assets/[^'"]*\.js)['"]""", data)


def styles(css: str) -> list[str]:
    """What a style sheet loads."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    found = re.findall(r"""url\(\s*['"]?([^'")]+)""", css)
    return found + re.findall(r"""@import\s+['"]([^'"]+)""", css)


def absent(path: Path) -> list[str]:
    """What a page and its style sheets would load that is no local file and no data URI."""
    return _absent(path.parent, Page(path).fetched)


def _absent(folder: Path, urls: list[str]) -> list[str]:
    missing = []
    for url in urls:
        local = folder / urllib.parse.unquote(re.split(r"[?#]", url)[0])
        if url.startswith(("data:", "#")):
            continue
        if re.match(r"\w+:|//", url) or not local.is_file():
            missing.append(url)
        elif local.suffix == ".css":
            missing += _absent(local.parent, styles(local.read_text(encoding="utf-8")))
    return missing


def faults(site: Path) -> list[str]:
    """What is wrong with the pages below a folder; empty when all is well."""
    found = []
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":  # served at any depth: its addresses begin at a server's root
            continue
        page, name = Page(path), path.relative_to(site).as_posix()
        missing = _absent(path.parent, page.fetched)
        found += [f"{name} would load {url}, which is not beside it" for url in missing]
        found += [f"{name}: no text alternative for {url}" for url in page.mute]
        marks = [mark for mark in (r"\(", r"\[", "$$") if mark in page.text]
        found += [f"{name}: {mark} is left of a formula that is not set" for mark in marks]
    return found
