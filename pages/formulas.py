"""Formulas as MathML, which browsers set and screen readers read without any script."""

from __future__ import annotations

import html
import re

import math_core

PLACE = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.+?)\\[)\]]</\1>', flags=re.DOTALL
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
    converter = math_core.LatexToMathML()

    def formula(match: re.Match) -> str:
        latex = html.unescape(match[3]).strip()
        try:
            return converter.convert_with_local_state(latex, displaystyle=match[1] == "div")
        except math_core.LatexError as error:
            raise ValueError(f"formula {latex!r}: {COLORS.sub('', str(error))}") from None

    return PLACE.sub(formula, page)
