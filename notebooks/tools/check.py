"""What must hold of every page: nothing from afar, words for pictures, no formula left unset."""

from __future__ import annotations

import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Reads a page.

    Attributes:
        fetched: what a browser fetches to show it; links to click on are none of it.
        mute: pictures without words.
        text: what stands outside code.
    """

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
    """What is wrong with the pages below a folder; empty when all is well.

    Args:
        site: the folder. Its `404.html` is left out: it is served in place of pages at any depth,
            so its addresses begin at the root of a server.
    """
    found = []
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":
            continue
        page, name = Page(path), path.relative_to(site).as_posix()
        missing = _absent(path.parent, page.fetched)
        found += [f"{name} would load {url}, which is not beside it" for url in missing]
        found += [f"{name}: no text alternative for {url}" for url in page.mute]
        marks = [mark for mark in (r"\(", r"\[", "$$") if mark in page.text]
        found += [f"{name}: {mark} is left of a formula that is not set" for mark in marks]
    return found
