"""Formulas as MathML, which browsers set and screen readers read without any script."""

from __future__ import annotations

import html
import re

import math_core

PLACE = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.+?)\\[)\]]</\1>', flags=re.DOTALL)
DOLLARS = re.compile(
    r"(?P<code>^```.*?^```$|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$]*[^\s$])?)\$",
    flags=re.MULTILINE | re.DOTALL,
)
COLORS = re.compile(r"\x1b\[[0-9;]*m")


def typeset(page: str) -> str:
    """Replaces every formula that the extension arithmatex has marked in a page.

    Args:
        page: HTML.

    Raises:
        ValueError: a formula is no LaTeX that can be converted; the message shows where.

    >>> typeset('<span class="arithmatex">\\\\(x\\\\)</span>')
    '<math><mi>x</mi></math>'
    """
    return PLACE.sub(lambda match: _mathml(match[3], match[1] == "div"), page)


def typeset_title(title: str) -> str:
    """The same for the entry of a heading in the table of contents, which has lost its marks.

    >>> typeset_title("to \\\\(x\\\\)")
    'to <math><mi>x</mi></math>'
    """
    return re.sub(r"\\\((.+?)\\\)", lambda match: _mathml(match[1], False), title)


def taken_out(text: str, first: int = 0) -> tuple[str, dict[str, str]]:
    """Markdown with a place holder for each formula, and place holder -> MathML.

    Formulas stand between dollars, outside of code. To be put back when the text is HTML, since
    Markdown would take what is inside for its own marks.

    Args:
        text: the Markdown.
        first: number of the first place holder.

    Raises:
        ValueError: as in `typeset`.

    >>> taken_out("so $x$, not `$x$`")
    ('so formula-0-set, not `$x$`', {'formula-0-set': '<math><mi>x</mi></math>'})
    """
    found: dict[str, str] = {}

    def keep(match: re.Match) -> str:
        block, inline = match["block"], match["inline"]
        if block is None and inline is None:
            return match[0]
        place = f"formula-{first + len(found)}-set"
        found[place] = _mathml(block or inline, block is not None)
        return place

    return DOLLARS.sub(keep, text), found


def _mathml(source: str, display: bool) -> str:
    latex = html.unescape(source).strip()
    try:
        return math_core.LatexToMathML().convert_with_local_state(latex, displaystyle=display)
    except math_core.LatexError as error:
        raise ValueError(f"formula {latex!r}: {COLORS.sub('', str(error))}") from None
