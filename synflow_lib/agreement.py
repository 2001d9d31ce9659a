"""What the paper says beside what we measured: one record per quantity, with a verdict."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

AGREES, DIFFERS = "agrees", "differs"
CONFIRMED, REFUTED = "confirmed", "not confirmed"
UNPUBLISHED = "no published value"
VERDICTS = (AGREES, DIFFERS, CONFIRMED, REFUTED, UNPUBLISHED)


@dataclass(frozen=True)
class Agreement:
    """One line of the comparison; make it with `agreement`.

    Attributes:
        figure: of the paper, such as "4" or "5a" (or "theorem 3").
        quantity: what is compared, with its unit.
        paper: the published number, or a claim in words, or None where nothing was published.
        ours: the number measured, or whether the claim held.
        spread: of our number over seeds, in its unit, or None.
        tolerance: how far apart two numbers may lie and still agree, or None.
        verdict: "agrees" or "differs" (numbers), "confirmed" or "not confirmed" (claims),
            "no published value".
        reason: what is known to make the two differ.
        conditions: under which ours was measured (network, seeds, scale).
    """

    figure: str
    quantity: str
    paper: float | str | None
    ours: float | bool
    spread: float | None
    tolerance: float | None
    verdict: str
    reason: str = ""
    conditions: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, or None where there are no two numbers.

        >>> agreement("7", "ratio", paper=2.0, ours=1.5, tolerance=0.1).difference
        -0.5
        """
        both = isinstance(self.paper, float) and isinstance(self.ours, float)
        return self.ours - self.paper if both else None


def agreement(
    figure: str | int,
    quantity: str,
    *,
    paper: float | str | None,
    ours: float | bool,
    tolerance: float | None = None,
    spread: float | None = None,
    reason: str = "",
    conditions: str = "",
) -> Agreement:
    """Compares one published quantity with ours and gives a verdict.

    Args:
        figure: of the paper.
        quantity: what is compared, with its unit. Compare compressions by their log10.
        paper: a number; or a claim in words, and then `ours` says whether it held; or None for
            something that the paper does not report.
        ours: a finite number, or True/False for a claim.
        tolerance: required with a number, and only then: the largest absolute difference, in the
            quantity's unit, that counts as agreement. The spread does not widen it.
        spread: of ours over seeds (say in `conditions` which: standard deviation, range, ...).
        reason: what is known to make the two differ.
        conditions: under which ours was measured.

    Raises:
        TypeError: `ours` does not fit the kind of `paper`.
        ValueError: a number that is not finite, a negative tolerance or spread, a tolerance
            missing or without use, or an empty figure, quantity or claim.

    >>> agreement(4, "slope, SynFlow", paper=1.0, ours=0.998, tolerance=0.02).verdict
    'agrees'
    >>> agreement(2, "all weights left", paper="SynFlow reaches rho_max", ours=False).verdict
    'not confirmed'
    """
    where = f"agreement({figure!r}, {quantity!r})"
    for name, text in (("figure", str(figure)), ("quantity", quantity)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {name} is empty; expected what is compared, in words.")
    held = isinstance(ours, (bool, np.bool_))
    if isinstance(paper, str):
        if not paper.strip():
            raise ValueError(f"{where}: paper is empty text; expected the claim, a number or None.")
        if not held:
            raise TypeError(
                f"{where}: paper is a claim in words, so ours must be True or False; got {ours!r}."
            )
        verdict = CONFIRMED if ours else REFUTED
    else:
        if held:
            raise TypeError(
                f"{where}: ours is {ours!r}, which answers a claim; paper must then be the claim "
                f"in words, got {paper!r}."
            )
        ours = _finite(where, "ours", ours)
        verdict = UNPUBLISHED
    if isinstance(paper, str) or paper is None:
        if tolerance is not None:
            raise ValueError(
                f"{where}: tolerance is {tolerance!r}, but there are no two numbers to compare."
            )
    else:
        paper = _finite(where, "paper", paper)
        if tolerance is None:
            raise ValueError(
                f"{where}: tolerance is missing; give the difference that still agrees."
            )
        tolerance = _finite(where, "tolerance", tolerance, minimum=0.0)
        # 1.02 - 1.00 > 0.02 in binary; a difference equal to the tolerance must agree.
        slack = 1e-12 * max(abs(paper), abs(ours))
        verdict = AGREES if abs(ours - paper) <= tolerance + slack else DIFFERS
    spread = None if spread is None else _finite(where, "spread", spread, minimum=0.0)
    ours = bool(ours) if held else ours
    return Agreement(
        str(figure), quantity, paper, ours, spread, tolerance, verdict, reason, conditions
    )


def agreement_table(rows: Iterable[Agreement]) -> pd.DataFrame:
    """The records as text to show: numbers rounded to one digit below their tolerance.

    Returns:
        Columns figure, quantity, paper, ours, difference, verdict, and conditions and known
        reasons where any record has them. In the order given.

    >>> rows = [agreement(4, "slope", paper=1.0, ours=0.99812, tolerance=0.02, spread=0.004)]
    >>> print(agreement_table(rows).to_string(index=False))
    figure quantity paper          ours difference verdict
         4    slope 1.000 0.998 ± 0.004     -0.002  agrees
    """
    lines = []
    for row in checked(rows):
        digits = digits_of(row)
        ours = row.ours
        ours = ("yes" if ours else "no") if isinstance(ours, bool) else _number(ours, digits)
        lines.append(
            {
                "figure": row.figure,
                "quantity": row.quantity,
                "paper": row.paper if isinstance(row.paper, str) else _number(row.paper, digits),
                "ours": ours if row.spread is None else f"{ours} ± {_number(row.spread, digits)}",
                "difference": _number(row.difference, digits, sign="+"),
                "verdict": row.verdict,
                "conditions": row.conditions,
                "known reasons": row.reason,
            }
        )
    table = pd.DataFrame(lines)
    unused = [name for name in ("conditions", "known reasons") if not table[name].any()]
    return table.drop(columns=unused)


def _finite(where: str, name: str, value: object, minimum: float = -math.inf) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{where}: {name} is {value!r}; expected a number.")
    value = float(value)
    if not math.isfinite(value) or value < minimum:
        least = "" if minimum == -math.inf else f" of at least {minimum:g}"
        raise ValueError(f"{where}: {name} is {value!r}; expected a finite number{least}.")
    return value


def checked(rows: Iterable[Agreement]) -> list[Agreement]:
    """The rows as a list, if there are any and each is an `Agreement`."""
    rows = [rows] if isinstance(rows, Agreement) else list(rows)
    for row in rows:
        if not isinstance(row, Agreement):
            raise TypeError(f"expected records made with agreement(...), got {row!r}.")
    if not rows:
        raise ValueError("no records; expected at least one made with agreement(...).")
    return rows


def digits_of(row: Agreement) -> int | None:
    """Decimals to show, or None for four significant digits."""
    if not row.tolerance or isinstance(row.ours, bool) or abs(row.ours) >= 1e6:
        return None
    digits = max(0, 1 - math.floor(math.log10(row.tolerance)))
    return digits if digits <= 6 else None


def _number(value: float | None, digits: int | None, sign: str = "") -> str:
    if value is None:
        return ""
    text = f"{value:{sign}.4g}" if digits is None else f"{value:{sign}.{digits}f}"
    # A difference that rounds to nothing has no sign to show.
    return text.lstrip("+-") if not float(text) else text
