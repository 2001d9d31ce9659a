"""reveal.js slides of a notebook that need no network: `classroom.py` is the command.

Packages of the extra `classroom` carry the scripts: rise (reveal.js 3.9), nbclassic (jQuery,
RequireJS). They are laid out as nbconvert's template for reveal.js 4 expects them. Formulas are
MathML, which needs none, in a font that comes along.
"""

from __future__ import annotations

import base64
import copy
import importlib.util
import re
import shutil
import struct
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from pairs import HERE, ROOT, BuildError
from pictures import alternatives, written

PACKAGES = ("rise", "nbclassic", "math_core", "ziamath")
CHECKED = re.compile(r"^# NBVAL_\w+\n", flags=re.MULTILINE)  # speaks to the tests only
PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
FONT = "STIXTwoMath-Regular.ttf"
LONG = 15  # lines of code that a slide shows; longer cells show their output alone
SMALL = 0.7  # of a line of text: a line of code
ROOM = 20  # lines of text that fit on one slide of 960 x 700
# The template loads Mermaid and MathJax from the network, and asks the latter at every turn. It
# wraps all in <main>, which reveal.js 3 does not stretch to the window.
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
<script>window.MathJax = {Hub: {getAllJax: () => null}};</script>
{%- endblock -%}
{%- block data_png scoped -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img alt="{{ output.metadata['image/png']['alt'] | e }}"
 src="data:image/png;base64,{{ output.data['image/png'] }}"></div>
{%- endblock -%}
{%- block html_head_css -%}
<style>
html, body.jp-Notebook, main { height: 100%; margin: 0; overflow: hidden; }
@font-face { font-family: "STIX Two Math"; src: url("assets/STIXTwoMath-Regular.ttf"); }
math { font-family: "STIX Two Math", math; }
math[display="block"] { margin: 0.8em 0; }
.reveal .slides { text-align: left; }
.reveal .slides h1 { font-size: 44px; }
.reveal .slides h2 { font-size: 34px; }
.reveal .slides h3 { font-size: 26px; }
.reveal .slides :is(h1, h2, h3) { text-transform: none; }
.reveal .slides section img { max-height: 460px; max-width: 100%; }
.reveal .slides section img { margin: 0; border: 0; box-shadow: none; }
.jp-InputPrompt, .jp-OutputPrompt { display: none; }
:root { --jp-code-font-size: 14px; }
.reveal pre { width: 100%; box-shadow: none; font-size: 14px; line-height: 1.25; }
.reveal .jp-OutputArea-output pre { white-space: pre; overflow-x: auto; }
</style>
{%- endblock -%}"""


def write_slides(notebook: NotebookNode, folder: Path, name: str) -> Path:
    """Writes `name.slides.html` and, once, the assets beside it; returns the page.

    Raises:
        BuildError: the extra `classroom` is missing, or the page would load something from afar.
    """
    copy_assets(folder / "assets")
    exporter = SlidesExporter(
        raw_template=TEMPLATE,
        reveal_url_prefix="assets/reveal",
        reveal_theme="white",
        reveal_scroll=True,
        reveal_number="c/t",
        jquery_url="assets/jquery.min.js",
        require_js_url="assets/require.js",
    )
    shown, formulas = without_formulas(as_slides(notebook))
    html, _ = exporter.from_notebook_node(shown, resources={"metadata": {"name": name}})
    for place, formula in formulas.items():
        html = html.replace(place, formula)
    page = folder / f"{name}.slides.html"
    page.write_text(html, encoding="utf-8")
    if found := absent(page):
        raise BuildError(f"{page.name} would load {found[0]}, which is not beside it")
    return page


def copy_assets(folder: Path) -> None:
    """Copies reveal.js, jQuery, RequireJS and a font, unless they are there already."""
    places = {}
    for package in PACKAGES:
        if (spec := importlib.util.find_spec(package)) is None:
            raise BuildError(f"slides need {package}; `make classroom` installs it")
        places[package] = Path(spec.origin).parent
    if (folder / FONT).is_file():
        return
    rise = places["rise"] / "static" / "reveal.js"
    parts = places["nbclassic"] / "static" / "components"
    reveal = folder / "reveal"
    for source, target in (
        (rise / "js" / "reveal.js", reveal / "dist" / "reveal.js"),
        (rise / "css" / "reveal.css", reveal / "dist" / "reveal.css"),
        (rise / "css" / "theme" / "white.css", reveal / "dist" / "theme" / "white.css"),
        (rise / "LICENSE", reveal / "LICENSE"),
        (parts / "jquery" / "jquery.min.js", folder / "jquery.min.js"),
        (parts / "requirejs" / "require.js", folder / "require.js"),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    # The theme looks for its fonts at ../../lib, that is beside dist/.
    shutil.copytree(rise / "lib" / "font", reveal / "lib" / "font", dirs_exist_ok=True)
    notes = reveal / "plugin" / "notes" / "notes.js"
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.write_text("define([], function () {}); // reveal.js 3 has no such plugin object\n")
    shutil.copyfile(places["ziamath"] / "fonts" / FONT, folder / FONT)


def as_slides(notebook: NotebookNode) -> NotebookNode:
    """The notebook with slide types: `##` starts a slide, what does not fit goes below it.

    The set-up is no slide, and of exercises only the text is.
    """
    cells, used, section = [], 0, ""
    for cell in split_headings(described(notebook.cells)):
        cell = nbformat.from_dict(copy.deepcopy(dict(cell)))
        code = cell.cell_type == "code"
        heading = None if code else re.match(r"##? (.+)", cell.source)
        section = heading[1] if heading else section
        long, size = code and len(cell.source.splitlines()) > LONG, height(cell)
        unseen = (section == "Exercises" and code) or (long and not cell.outputs)
        kind = "-"
        if section == "Setup" or unseen:
            kind = "skip"
        elif heading:
            kind, used = "slide", size
        elif used + size > ROOM:
            kind, used = "subslide", size
        else:
            used += size
        cell.metadata["slideshow"] = {"slide_type": kind}
        if code:
            cell["source"] = CHECKED.sub("", cell.source)
        if long:  # the output is what the audience looks at
            cell.metadata["transient"] = {"remove_source": True}
        cells.append(cell)
    return nbformat.from_dict({**notebook, "cells": cells})


def without_formulas(notebook: NotebookNode) -> tuple[NotebookNode, dict[str, str]]:
    """The notebook with place holders for formulas, and place holder -> MathML."""
    from formulas import taken_out

    formulas: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell["source"], found = taken_out(cell.source, len(formulas))
            formulas |= found
    return notebook, formulas


def described(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells with words for their figures in the metadata of these outputs."""
    cells = [nbformat.from_dict(copy.deepcopy(dict(cell))) for cell in cells]
    told = alternatives(cells, "these slides", ROOT / "figures", written(HERE))
    for cell, words in zip(cells, told, strict=True):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": words}
    return cells


def split_headings(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Markdown cells cut at blank lines into parts that fit on a slide; formulas stay whole."""
    parts = []
    for cell in cells:
        if cell.cell_type != "markdown":
            parts.append(cell)
            continue
        piece: list[str] = []
        for block in blocks(cell.source):
            starts = re.match(r"#{1,3} |\*\*[^*]+\*\*$", block)
            if piece and (starts or lines("\n\n".join([*piece, block])) > ROOM):
                parts.append(nbformat.from_dict({**cell, "source": "\n\n".join(piece)}))
                piece = []
            piece.append(block)
        parts.append(nbformat.from_dict({**cell, "source": "\n\n".join(piece)}))
    for number, part in enumerate(parts):
        part["id"] = f"slide-{number}"
    return parts


def blocks(text: str) -> list[str]:
    """Paragraphs, with fenced code and displayed formulas in one piece."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        whole = not found or (found[-1].count("```") % 2 == 0 and found[-1].count("$$") % 2 == 0)
        if whole:
            found.append(block)
        else:
            found[-1] += f"\n\n{block}"
    return found


def lines(text: str) -> int:
    """Lines that a text takes on a slide, pictures and displayed formulas included."""
    text, pictures = PICTURE.subn("", text)
    total = 12 * pictures
    for block in blocks(text):
        if "```" not in block:  # lines of a paragraph are filled anew
            block = re.sub(r"\n(?![-*|#$>]|\d+\. )", " ", block.strip())
        total += sum(1 + len(line) // 85 for line in block.splitlines())
    return total


def height(cell: NotebookNode) -> float:
    """Lines that a cell takes on a slide; code is set smaller than text."""
    if cell.cell_type != "code":
        return lines(cell.source)
    own = cell.source.count("\n") + 2
    total = SMALL * own if own <= LONG else 0.0
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            total += picture_lines(data["image/png"])
        elif "text/html" in data:
            total += ROOM  # an animation or a table
        else:
            total += SMALL * (output.get("text", "") or data.get("text/plain", "")).count("\n")
    return total


def picture_lines(png: str) -> float:
    """Lines that a picture takes: as wide as a slide, unless that is too high."""
    header = base64.b64decode(png[:64])  # width and height are the first it tells
    width, tall = struct.unpack(">II", header[16:24])
    return min(460, tall * min(1, 900 / width)) / 26


class Resources(HTMLParser):
    """Collects what a browser fetches to show a page; links to click on are none of it."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        for name, value in attributes:
            if value and (name in ("src", "poster") or (name == "href" and tag == "link")):
                self.found.append(value)
            if value and name == "style":
                self.found += styles(value)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "style":
            self.found += styles(data)
        if self.inside == "script":
            self.found += re.findall(r"""\bimport\s[^;'"]*['"]([^'"]+)['"]""", data)
            self.found += re.findall(r"""['"](\S*assets/[^'"]*\.js)['"]""", data)


def styles(css: str) -> list[str]:
    """What a style sheet loads."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    found = re.findall(r"""url\(\s*['"]?([^'")]+)""", css)
    return found + re.findall(r"""@import\s+['"]([^'"]+)""", css)


def absent(page: Path) -> list[str]:
    """What the page and its style sheets would load that is no local file and no data URI."""
    parser = Resources()
    parser.feed(page.read_text(encoding="utf-8"))
    missing = []
    todo = [(page.parent, url) for url in parser.found]
    while todo:
        base, url = todo.pop(0)
        if url.startswith(("data:", "#")):
            continue
        local = base / urllib.parse.unquote(re.split(r"[?#]", url)[0])
        if re.match(r"\w+:|//", url) or not local.is_file():
            missing.append(url)
        elif local.suffix == ".css":
            todo += [(local.parent, u) for u in styles(local.read_text(encoding="utf-8"))]
    return missing
