"""What must hold of every page: nothing from afar, words for pictures, no formula left unset."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from slides import absent

UNSEEN = ("script", "style", "pre", "code")


class Reader(HTMLParser):
    """Collects pictures without words, and the text outside code."""

    def __init__(self):
        super().__init__()
        self.mute: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag == "img" and not (dict(attributes).get("alt") or "").strip():
            self.mute.append(dict(attributes).get("src") or "an image without a source")
        if tag in UNSEEN:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if not self.open:
            self.text.append(data)


def faults(site: Path) -> list[str]:
    """What is wrong with the pages below a folder; empty when all is well.

    Args:
        site: the folder. Its `404.html` is left out: it is served in place of pages at any depth,
            so its addresses begin at the root of a server.
    """
    found = []
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":
            continue
        name = page.relative_to(site).as_posix()
        found += [f"{name} would load {url}, which is not beside it" for url in absent(page)]
        reader = Reader()
        reader.feed(page.read_text(encoding="utf-8"))
        found += [f"{name}: no text alternative for {url}" for url in reader.mute]
        for mark in (r"\(", r"\[", "$$"):
            if mark in "".join(reader.text):
                found.append(f"{name}: {mark} is left of a formula that is not set")
    return found
