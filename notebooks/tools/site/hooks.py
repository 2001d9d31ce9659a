"""What MkDocs reads: pages made of the repository's own files, at the same places as there.

README.md becomes the first page; `notebooks/NN_*.ipynb`, `docs/*.md` and `figures/` keep their
paths, so that links between them hold; `api/` is made from the library's docstrings. Only the
explorers, static/explore/, are written for the site.
"""

from __future__ import annotations

import base64
import html
import importlib.metadata
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import api  # noqa: E402
from badges import address  # noqa: E402
from pages import described, faults, keep, keep_formulas, put_back  # noqa: E402
from pairs import CHECKED, COLORS  # noqa: E402

BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
LINK = re.compile(r"(?<!!)(\[[^\]]*\]\()([^)#\s:]+)((?:#[^)]*)?\))")
FONT = "ziamath/fonts/STIXTwoMath-Regular.ttf"

# Pages of static/ that move in the browser alone, and what the first page says of them.
EXPLORERS = ["explore/race.md", "explore/collapse.md", "explore/synflow.md"]
MOVING = """
**Without installing anything**: [the race](explore/race.md) of five methods,
[where each layer goes empty](explore/collapse.md), and
[SynFlow on a drawn network](explore/synflow.md), step by step, in this browser.
"""

log = get_plugin_logger("pages")
kept: dict[str, str] = {}  # of all pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation, from what there is."""
    modules = [{", ".join(names): f"api/{names[0]}.md"} for names in api.groups(ROOT)]
    config.nav = [
        {"Home": "index.md"},
        {"Notebooks": [_page(path) for path in _notebooks()]},
        {"Explorers": EXPLORERS},
        {"Agreement with the paper": "figures/agreement.md"},
        {"Guides": [_page(path) for path in sorted((ROOT / "docs").glob("*.md"))]},
        {"API": ["api/index.md", *modules]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every page and what it shows."""
    start, heading, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")
    texts = {"index.md": start + MOVING + heading + rest}
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "figures").glob("*.md")]:
        texts[_page(path)] = keep_formulas(path.read_text(encoding="utf-8"), kept)
    for path in _notebooks():
        texts[_page(path)], pictures = notebook_page(path, kept)
        for name, data in pictures.items():
            uri = f"notebooks/{path.stem}_files/{name}"
            files.append(File.generated(config, uri, content=data))
    shown = [*(ROOT / "figures").iterdir(), *(ROOT / "docs").iterdir()]
    shown = [path for path in shown if path.suffix in (".png", ".svg", ".csv", ".json")]
    for path in [*_notebooks(), *shown]:
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    known, home = {file.src_uri for file in files} | set(texts), address(ROOT)
    texts = {uri: adapt(text, uri, known, home) for uri, text in texts.items()}
    texts["api/index.md"] = api.names_page(ROOT)
    for names, holds in api.groups(ROOT).items():
        texts[f"api/{names[0]}.md"] = api.group_page(names, holds)
    for uri, text in texts.items():
        files.append(File.generated(config, uri, content=text))
    font = Path(importlib.metadata.distribution("ziamath").locate_file(FONT))
    files.append(File.generated(config, font.name, abs_src_path=str(font)))
    return files


def on_page_content(html: str, page: Page, **_) -> str:
    """Puts formulas and stored HTML where a page left room for them."""
    entries = list(page.toc)
    while entries:
        entry = entries.pop()
        entry.title = put_back(entry.title, kept)
        entries += entry.children
    return put_back(html, kept)


def on_post_build(config: MkDocsConfig) -> None:
    """Warns, which in strict mode is an error, of what no reader should meet."""
    for fault in faults(Path(config.site_dir)):
        log.warning(fault)


def adapt(text: str, uri: str, known: set[str], repository: str) -> str:
    """Markdown of the repository as a page of the site.

    Badges, which are pictures from afar, become words; links to notebooks lead to their pages, and
    links to what is not `known`, no part of the site, into the repository; sessions are marked.

    >>> adapt("[a](../x/a.ipynb) [b](../Makefile)", "docs/c.md", {"x/a.md"}, "https://r")
    '[a](../x/a.md) [b](https://r/blob/main/Makefile)'
    """

    def link(match: re.Match) -> str:
        start, target, end = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(uri), target))
        if path.endswith(".ipynb") and re.sub(r"ipynb$", "md", path) in known:
            return f"{start}{re.sub(r'ipynb$', 'md', target)}{end}"
        page = path.removeprefix("notebooks/tools/site/static/")  # written for the site itself
        if page != path and page in known:
            return f"{start}{posixpath.relpath(page, posixpath.dirname(uri))}{end}"
        if path in known or not (ROOT / path).exists():
            return match[0]  # MkDocs complains about what is nowhere
        return f"{start}{repository}/blob/main/{path}{end}"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    for number, part in enumerate(parts):
        if part.startswith("```"):
            parts[number] = re.sub(r"\A```python\n>>>", "```pycon\n>>>", part)
        else:
            part = BADGE.sub(r"[Open in Colab](\1)", part)
            parts[number] = LINK.sub(link, part)
    return "".join(parts)


def notebook_page(path: Path, kept: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """The text of an `.ipynb`'s page, and file name -> PNG of the folder ``NAME_files`` beside it.

    `kept` takes formulas, tables and animations, which no Markdown parser should see.

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
    """Text between fences longer than any inside it.

    >>> code_fence("print(1)", "python")
    '```python\\nprint(1)\\n```'
    """
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
    return code_fence(COLORS.sub("", text), "{ .text .output .no-copy }") if text.strip() else ""


def _notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def _page(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix(".md").as_posix()
