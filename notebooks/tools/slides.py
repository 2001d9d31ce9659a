"""reveal.js slides of a notebook that need no network: `classroom.py` is the command.

nbconvert makes them. Packages of the extra `classroom` carry the scripts: rise (reveal.js 3.9),
nbclassic (jQuery, RequireJS). They are laid out as nbconvert's template for reveal.js 4 expects
them. Formulas are MathML, which needs none, in a font that comes along.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import re
import shutil
from pathlib import Path

from nbconvert import SlidesExporter
from nbformat import NotebookNode
from pages import absent, described, keep_formulas, put_back
from pairs import HINT, BuildError, is_notes, new

PACKAGES = ("rise", "nbclassic", "math_core", "ziamath")
PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
TEMPLATE = Path(__file__).with_name("slides.html.j2")
FONT = "STIXTwoMath-Regular.ttf"
LONG = 15  # lines of code that a slide shows; longer cells show their output alone
SMALL = 0.7  # of a line of text: a line of code
ROOM = 20  # lines of text that fit on one slide of 960 x 700


def write_slides(notebook: NotebookNode, folder: Path, name: str) -> Path:
    """Writes `name.slides.html` and, once, the assets beside it; returns the page.

    Raises:
        BuildError: the extra `classroom` is missing, or the page would load something from afar.
    """
    copy_assets(folder / "assets")
    exporter = SlidesExporter(
        raw_template=TEMPLATE.read_text(encoding="utf-8"),
        reveal_url_prefix="assets/reveal",
        reveal_theme="white",
        reveal_scroll=True,
        reveal_number="c/t",
        jquery_url="assets/jquery.min.js",
        require_js_url="assets/require.js",
    )
    shown, formulas = as_slides(notebook), {}
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = keep_formulas(cell.source, formulas)
    html, _ = exporter.from_notebook_node(shown, resources={"metadata": {"name": name}})
    page = folder / f"{name}.slides.html"
    page.write_text(put_back(html, formulas), encoding="utf-8")
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
    for source, target in (
        (rise / "js" / "reveal.js", "reveal/dist/reveal.js"),
        (rise / "css" / "reveal.css", "reveal/dist/reveal.css"),
        (rise / "css" / "theme" / "white.css", "reveal/dist/theme/white.css"),
        (rise / "LICENSE", "reveal/LICENSE"),
        (rise / "plugin" / "notes" / "notes.html", "reveal/plugin/notes/notes.html"),
        (rise / "plugin" / "markdown" / "marked.js", "reveal/plugin/markdown/marked.js"),
        (parts / "jquery" / "jquery.min.js", "jquery.min.js"),
        (parts / "requirejs" / "require.js", "require.js"),
        (places["ziamath"] / "fonts" / FONT, FONT),
    ):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / target)
    # The theme looks for its fonts at ../../lib, that is beside dist/.
    shutil.copytree(rise / "lib" / "font", folder / "reveal/lib/font", dirs_exist_ok=True)
    # The window of the speaker's notes looks for a global Reveal, which RequireJS does not make.
    script = (rise / "plugin" / "notes" / "notes.js").read_text(encoding="utf-8")
    (folder / "reveal/plugin/notes/notes.js").write_text(
        f'define(["{folder.name}/reveal/dist/reveal.js"], function (Reveal) {{\n'
        f"window.Reveal = Reveal;\n{script}\n}});\n",
        encoding="utf-8",
    )


def as_slides(notebook: NotebookNode) -> NotebookNode:
    """The notebook with slide types: `##` starts a slide, what does not fit goes below it.

    The set-up is no slide, and of exercises only the text is, without hints. Cells that have the
    slide type "notes" are the speaker's: key T opens a window with them, also on what is below a
    slide.
    """
    told = described(notebook.cells, "these slides")
    for cell in told:  # on a slide a folded hint would be open
        cell.source = HINT.sub("\n\n", cell.source).strip("\n")
    cells, used, section = in_parts(told), 0, ""
    for cell in cells:
        if is_notes(cell):
            continue
        code, size = cell.cell_type == "code", height(cell)
        heading = None if code else re.match(r"##? (.+)", cell.source)
        exercise = not code and re.match(r"### (Exercise)", cell.source)
        section = (heading or exercise)[1] if heading or exercise else section
        long = code and len(cell.source.splitlines()) > LONG
        unseen = code and (section.startswith("Exercise") or (long and not cell.outputs))
        if section == "Setup" or unseen:
            kind = "skip"
        elif heading or used + size > ROOM:
            kind, used = "slide" if heading else "subslide", size
        else:
            kind, used = "-", used + size
        cell.metadata["slideshow"] = {"slide_type": kind}
        if long:  # the output is what the audience looks at
            cell.metadata["transient"] = {"remove_source": True}
    return new(notebook, cells=with_notes(cells))


def with_notes(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells, the notes of each slide at its beginning and again on those below it."""
    placed: list[NotebookNode] = []
    for place, cell in enumerate(cells):
        if is_notes(cell):
            continue
        kind = cell.metadata["slideshow"]["slide_type"]
        placed.append(cell)
        if kind == "slide":
            rest = cells[place + 1 :]
            kinds = [each.metadata["slideshow"]["slide_type"] for each in rest]
            own = rest[: kinds.index("slide") if "slide" in kinds else None]
            notes = [each for each in own if is_notes(each)]
        if kind in ("slide", "subslide"):
            placed += [new(note, id=f"{note.id}-{cell.id}") for note in notes]
    return placed


def in_parts(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells, those of text cut at blank lines into parts that fit on a slide."""
    parts = []
    for cell in cells:
        whole = cell.cell_type == "code" or is_notes(cell)
        texts = [cell.source] if whole else fitting(cell.source)
        parts += [new(cell, source=text) for text in texts]
    for number, part in enumerate(parts):
        part["id"] = f"slide-{number}"
    return parts


def fitting(text: str) -> list[str]:
    """Text cut before headings, before lines in bold, and where a slide is full."""
    parts: list[str] = []
    for block in blocks(text):
        starts = re.match(r"#{1,3} |\*\*[^*]+\*\*$", block)
        if parts and not starts and lines(f"{parts[-1]}\n\n{block}") <= ROOM:
            parts[-1] += f"\n\n{block}"
        else:
            parts.append(block)
    return parts


def blocks(text: str) -> list[str]:
    """Paragraphs, with fenced code and displayed formulas in one piece."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        if found and (found[-1].count("```") % 2 or found[-1].count("$$") % 2):
            found[-1] += f"\n\n{block}"
        else:
            found.append(block)
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
    from PIL import Image

    width, tall = Image.open(io.BytesIO(base64.b64decode(png))).size
    return min(460, tall * min(1, 900 / width)) / 26
