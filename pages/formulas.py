"""Formulas as MathML, which browsers set and screen readers read without any script."""

from __future__ import annotations

import html
import re

import math_core

PLACE = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.+?)\\[)\]]</\1>', flags=re.DOTALL)
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


def _mathml(source: str, display: bool) -> str:
    latex = html.unescape(source).strip()
    try:
        return math_core.LatexToMathML().convert_with_local_state(latex, displaystyle=display)
    except math_core.LatexError as error:
        raise ValueError(f"formula {latex!r}: {COLORS.sub('', str(error))}") from None
