"""What MkDocs reads: pages made of the repository's own files, at the same places as there.

README.md becomes the first page; `notebooks/NN_*.ipynb`, `docs/*.md` and `figures/` keep their
paths, so that links between them hold; `api/` is made from the library's docstrings.
"""

from __future__ import annotations

import importlib.metadata
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import api  # noqa: E402
from badges import address  # noqa: E402
from check import faults  # noqa: E402
from kept import put_back  # noqa: E402
from notebook_page import notebook_page  # noqa: E402

BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
LINK = re.compile(r"(?<!!)(\[[^\]]*\]\()([^)#\s:]+)((?:#[^)]*)?\))")
FONT = "ziamath/fonts/STIXTwoMath-Regular.ttf"

log = get_plugin_logger("pages")
kept: dict[str, str] = {}  # of all pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation, from what there is."""
    modules = [{", ".join(names): f"api/{names[0]}.md"} for names in api.groups(ROOT)]
    config.nav = [
        {"Home": "index.md"},
        {"Notebooks": [_page(path) for path in _notebooks()]},
        {"Agreement with the paper": "figures/agreement.md"},
        {"Guides": [_page(path) for path in sorted((ROOT / "docs").glob("*.md"))]},
        {"API": ["api/index.md", *modules]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every page and what it shows."""
    texts = {"index.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "figures").glob("*.md")]:
        texts[_page(path)] = path.read_text(encoding="utf-8")
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
    links to what is no part of the site into the repository; sessions are marked as such.

    Args:
        text: the Markdown.
        uri: where it stands, from the root of the repository.
        known: what the site has.
        repository: address of the repository.

    >>> adapt("[a](../x/a.ipynb) [b](../Makefile)", "docs/c.md", {"x/a.md"}, "https://r")
    '[a](../x/a.md) [b](https://r/blob/main/Makefile)'
    """

    def link(match: re.Match) -> str:
        start, target, end = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(uri), target))
        if path.endswith(".ipynb") and re.sub(r"ipynb$", "md", path) in known:
            return f"{start}{re.sub(r'ipynb$', 'md', target)}{end}"
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


def _notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def _page(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix(".md").as_posix()
