"""Examples in docstrings as highlighted sessions: Markdown would read ``>>>`` as quotations."""

from __future__ import annotations

import re

import griffe

SESSION = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", flags=re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts every doctest of every docstring between fences."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        """Called by griffe for each object it has read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with its sessions fenced; neighbours share a fence.

    >>> fenced("One.\\n\\n>>> 1 + 1\\n2").splitlines()[2:]
    ['```pycon', '>>> 1 + 1', '2', '```']
    """
    text = SESSION.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
    return re.sub(r"\n```\n\s*\n?```pycon\n", "\n", text)
