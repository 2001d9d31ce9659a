"""reveal.js slides of a notebook that need no network: `classroom.py` is the command.

Packages of the extra `classroom` carry the scripts: rise (reveal.js 3.9), jupyter_server_mathjax
(MathJax 2.7), nbclassic (jQuery, RequireJS). They are laid out as nbconvert's template for
reveal.js 4 expects them, which differs in folders only.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import shutil
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from pairs import BuildError

PACKAGES = ("rise", "jupyter_server_mathjax", "nbclassic")
MATHJAX = "assets/mathjax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full,Safe"
LONG = 15  # lines of code that a slide shows; longer cells show their output alone
ROOM = 22  # lines of text that fit on one slide of 960 x 700
# The template loads Mermaid from the network, for diagrams that no notebook here has.
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
.reveal .slides { text-align: left; }
.reveal h1 { font-size: 44px; } .reveal h2 { font-size: 34px; } .reveal h3 { font-size: 26px; }
.reveal h1, .reveal h2, .reveal h3 { text-transform: none; }
.reveal section img { max-height: 460px; max-width: 100%; margin: 0; border: 0; box-shadow: none; }
.jp-InputPrompt, .jp-OutputPrompt { display: none; }
.reveal pre { width: 100%; box-shadow: none; font-size: 16px; line-height: 1.25; }
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
        mathjax_url=MATHJAX,
        jquery_url="assets/jquery.min.js",
        require_js_url="assets/require.js",
    )
    html, _ = exporter.from_notebook_node(
        as_slides(notebook), resources={"metadata": {"name": name}}
    )
    page = folder / f"{name}.slides.html"
    page.write_text(html, encoding="utf-8")
    if found := absent(page):
        raise BuildError(f"{page.name} would load {found[0]}, which is not beside it")
    return page


def copy_assets(folder: Path) -> None:
    """Copies reveal.js, MathJax, jQuery and RequireJS, unless they are there already."""
    places = {}
    for package in PACKAGES:
        if (spec := importlib.util.find_spec(package)) is None:
            raise BuildError(f"slides need {package}; `make classroom` installs it")
        places[package] = Path(spec.origin).parent / "static"
    if (folder / "mathjax").is_dir():
        return
    rise, parts = places["rise"] / "reveal.js", places["nbclassic"] / "components"
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
    shutil.copytree(places["jupyter_server_mathjax"], folder / "mathjax")


def as_slides(notebook: NotebookNode) -> NotebookNode:
    """The notebook with slide types: `##` starts a slide, what does not fit goes below it."""
    cells, used, exercises = [], 0, False
    for cell in split_headings(notebook.cells):
        cell = nbformat.from_dict(copy.deepcopy(dict(cell)))
        heading = re.match(r"(#+) ", cell.source) if cell.cell_type == "markdown" else None
        exercises = (
            exercises if not (heading and len(heading[1]) < 3) else "Exercises" in cell.source
        )
        size = height(cell)
        if cell.cell_type == "code" and (exercises or not cell.outputs):
            kind = "skip" if exercises or len(cell.source.splitlines()) > LONG else "-"
        else:
            kind = "-"
        if heading and len(heading[1]) < 3:
            kind, used = "slide", size
        elif kind == "-" and used + size > ROOM:
            kind, used = "subslide", size
        elif kind == "-":
            used += size
        cell.metadata["slideshow"] = {"slide_type": kind}
        if cell.cell_type == "code" and len(cell.source.splitlines()) > LONG:
            cell["source"] = ""  # the output is what the audience looks at
        cells.append(cell)
    return nbformat.from_dict({**notebook, "cells": cells})


def split_headings(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Markdown cells cut at blank lines into parts that fit on a slide; formulas stay whole."""
    parts = []
    for cell in cells:
        if cell.cell_type != "markdown":
            parts.append(cell)
            continue
        piece: list[str] = []
        for block in blocks(cell.source):
            starts = re.match(r"#{1,3} ", block)
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
    pictures = len(re.findall(r"!\[", text))
    return sum(1 + len(line) // 85 for line in text.splitlines()) + 12 * pictures


def height(cell: NotebookNode) -> int:
    """Lines that a cell takes on a slide."""
    if cell.cell_type != "code":
        return lines(cell.source)
    own = cell.source.count("\n") + 1
    total = own if own <= LONG else 0
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = output.get("text", "") or data.get("text/plain", "")
        total += 14 if any(kind.startswith("image/") for kind in data) else text.count("\n") + 1
    return total


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
