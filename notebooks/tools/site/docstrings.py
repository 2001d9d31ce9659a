"""What griffe, which reads the library for the site, does with what it has read."""

from __future__ import annotations

import re

import griffe

SESSION = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Examples become highlighted sessions, and every name is shown where it is defined."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        """Called by griffe for each object it has read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        """Called when all is read: what a package passes on from its modules stands there."""
        for module in pkg.modules.values():
            if not module.is_alias and module.is_init_module:
                module.exports = None
                self.on_package(pkg=module)


def fenced(text: str) -> str:
    """The text with its sessions fenced (Markdown would read ``>>>`` as quotations).

    Neighbours share a fence.

    >>> fenced("One.\\n\\n>>> 1 + 1\\n2").splitlines()[2:]
    ['```pycon', '>>> 1 + 1', '2', '```']
    """
    text = SESSION.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
    return re.sub(r"\n```\n\s*\n?```pycon\n", "\n", text)
