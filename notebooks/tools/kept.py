"""HTML that no Markdown parser should see: while it works, one character stands for each piece.

Such pieces are formulas, as MathML, which browsers set and screen readers read without any script,
and stored outputs.
"""

from __future__ import annotations

import re

import math_core

FIRST = 0xF0000  # of the characters that Unicode leaves to programs; they have no other meaning
PLACE = re.compile("[\U000f0000-\U000ffffd]")
DOLLARS = re.compile(
    r"(?P<code>^```.*?^```$|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$]*[^\s$])?)\$",
    flags=re.MULTILINE | re.DOTALL,
)
COLORS = re.compile(r"\x1b\[[0-9;]*m")


def keep(html: str, kept: dict[str, str]) -> str:
    """Puts HTML into `kept`; returns the character that stands for it."""
    place = chr(FIRST + len(kept))
    kept[place] = html
    return place


def keep_formulas(text: str, kept: dict[str, str]) -> str:
    """Markdown whose formulas, between dollars and outside of code, are in `kept`.

    Raises:
        ValueError: a formula is no LaTeX that can be converted; the message shows where.

    >>> kept = {}
    >>> text = keep_formulas("so $x$, not `$x$`", kept)
    >>> put_back(text, kept)
    'so <math><mi>x</mi></math>, not `$x$`'
    """

    def formula(match: re.Match) -> str:
        if match["code"]:
            return match[0]
        latex, block = match["block"] or match["inline"], match["block"] is not None
        try:
            mathml = math_core.LatexToMathML().convert_with_local_state(
                latex.strip(), displaystyle=block
            )
        except math_core.LatexError as error:
            raise ValueError(f"formula {latex!r}: {COLORS.sub('', str(error))}") from None
        return keep(mathml, kept)

    return DOLLARS.sub(formula, text)


def put_back(html: str, kept: dict[str, str]) -> str:
    """HTML with what was kept; a tag, such as an anchor with the name of a heading, goes without.

    >>> put_back(f'<h2 id="a{chr(FIRST)}">a{chr(FIRST)}</h2>', {chr(FIRST): "<i>b</i>"})
    '<h2 id="a">a<i>b</i></h2>'
    """
    html = re.sub(r"<[^>]*>", lambda tag: PLACE.sub("", tag[0]), html)
    return PLACE.sub(lambda place: kept[place[0]], html)
