"""What the paper says beside what we measured: one record per quantity, with a verdict.

A verdict has three values, and the 95% interval over seeds decides. It lies inside the margin:
"agrees" (numbers), "confirmed" (claims). It lies outside: "differs", "not confirmed". Anything
else, one seed included: "undecided". For equality this is two one-sided tests of 2.5 percent each,
so a difference that was merely not found confirms nothing.
"""

from __future__ import annotations

import math
import numbers
import textwrap
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .intervals import interval

VERDICTS = ("agrees", "differs", "confirmed", "not confirmed", "undecided",
            "no published value", "holds", "broken")  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """One line of the comparison; make it with `agreement` or `identity`.

    Attributes:
        kind: "number" (against a published number), "claim" (in words), "unpublished", or
            "identity" (true by construction: a test of the implementation).
        figure: of the paper, such as "4" or "5a" (or "theorem 3").
        quantity: what is compared, with its unit; of an identity, the statement.
        verdict: one of `VERDICTS`.
        paper: the published number (mean of its runs), the claim in words, or None.
        ours: mean over seeds, or None for an identity.
        low, high: 95% interval of ours, of ours minus the paper's where that is a number; None with
            one seed.
        seeds: behind ours.
        side, margin, margin_reason, reason, conditions: as in `agreement`.
        place: which of several measurements is shown, the one that decides.
    """

    kind: str
    figure: str
    quantity: str
    verdict: str
    paper: float | str | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    side: str | None = None
    margin: float | None = None
    margin_reason: str = ""
    place: str = ""
    reason: str = ""
    conditions: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, or None where there are no two numbers.

        >>> row = agreement("7", "ratio", paper=2, ours=1.5, margin=1, margin_reason="a cut")
        >>> row.difference
        -0.5
        """
        return self.ours - self.paper if self.kind == "number" else None


def agreement(
    figure: str | int,
    quantity: str,
    *,
    paper: float | Sequence[float] | str | None,
    ours: float | Sequence[float] | Mapping[str, Sequence[float]],
    margin: float | None = None,
    margin_reason: str = "",
    side: str = "within",
    reason: str = "",
    conditions: str = "",
) -> Agreement:
    """Compares one published quantity or claim with our numbers, one a seed, and gives a verdict.

    Args:
        figure: of the paper.
        quantity: what is compared, with its unit. Compare compressions by their log10.
        paper: a number, taken as exact; or the numbers of several runs (Welch's interval of the
            difference of the means); or a claim in words about ``ours``; or None for something
            that the paper does not report.
        ours: one finite number a seed (Student's t). For a claim about a difference, the
            differences paired by seed. One number is one seed: undecided. A mapping
            place -> numbers for a claim that is made at several places, such as compressions: it
            must hold at every one, and the row shows the place that decides, a refuted one before
            the one with least room.
        margin: required with a number or a claim, and only then, in the quantity's unit.
        margin_reason: why this margin; required with it. Choose both before looking.
        side: "within": the interval must lie inside +-margin (around the paper's number, or around
            zero); "above", "below": it must lie on this side of the margin (claims only).
        reason: what is known to make the two differ.
        conditions: under which ours was measured.

    Raises:
        TypeError: what is no number where one is expected; True or False as ``ours``.
        ValueError: a number or an interval that is not finite, no numbers, a negative margin with
            "within", a margin or its reason missing or without use, another side, an empty figure,
            quantity or claim.

    >>> how = {"margin": 0.05, "margin_reason": "as wide as a line of the figure"}
    >>> agreement(4, "slope, SynFlow", paper=1.0, ours=[0.99, 1.01, 1.00, 0.98], **how).verdict
    'agrees'
    >>> ahead = {"paper": "SynFlow is ahead", "margin": 0, "side": "above", "margin_reason": "sign"}
    >>> agreement(1, "SynFlow minus SNIP", ours=[12.0, 9.5, 14.1], **ahead).verdict
    'confirmed'
    >>> agreement(1, "SynFlow minus SNIP", ours=[12.0, -9.5, 14.1], **ahead).verdict
    'undecided'
    """
    where = f"agreement({figure!r}, {quantity!r})"
    _texts(where, figure=figure, quantity=quantity)
    if side not in ("within", "above", "below"):
        raise ValueError(f"{where}: side is {side!r}; expected one of within, above, below.")
    places = _places(where, ours)
    shared = {"reason": reason, "conditions": conditions}

    if paper is None:
        if margin is not None or margin_reason or len(places) > 1:
            raise ValueError(
                f"{where}: paper is None, so there is nothing to compare; leave out margin and "
                "margin_reason, and give the numbers of one place."
            )
        (values,) = places.values()
        found = _interval(where, values) | shared
        return Agreement("unpublished", str(figure), quantity, "no published value", **found)

    if margin is None:
        raise ValueError(f"{where}: margin is missing; give what the interval must not cross.")
    least = 0.0 if side == "within" else -math.inf
    margin = _finite(where, "margin", margin, minimum=least)
    _texts(where, margin_reason=margin_reason)
    if isinstance(paper, str):
        _texts(where, paper=paper)
        kind, words, runs = "claim", ("not confirmed", "undecided", "confirmed"), [0.0]
    else:
        if side != "within" or len(places) > 1:
            raise ValueError(
                f"{where}: paper is a number; it is compared at one place and by side='within'. "
                "Say in words what the paper claims about ours."
            )
        kind, words = "number", ("differs", "undecided", "agrees")
        runs = _numbers(where, "paper", paper)
        paper = interval(runs)[0]

    found = {place: _interval(where, values, runs) for place, values in places.items()}
    judged = {place: _judge(each, side, margin) for place, each in found.items()}
    # A claim about several places holds if it holds at each: the weakest decides.
    place = min(judged, key=judged.get)
    shared |= {"side": side, "margin": margin, "margin_reason": margin_reason, "place": place}
    verdict = words[judged[place][0]]
    return Agreement(kind, str(figure), quantity, verdict, paper, **found[place], **shared)


def identity(
    figure: str | int, statement: str, holds: bool, *, reason: str = "", conditions: str = ""
) -> Agreement:
    """A statement that mathematics or construction make true: seeing it tests the implementation.

    Args:
        figure: of the paper, or a theorem.
        statement: in words.
        holds: whether it was seen.
        reason: why it must be so.
        conditions: under which it was looked at.

    Raises:
        TypeError: ``holds`` is neither True nor False.
        ValueError: an empty figure or statement.

    >>> identity("theorem 3", "the cut schedule ends at rho_max", True).verdict
    'holds'
    """
    where = f"identity({figure!r}, {statement!r})"
    _texts(where, figure=figure, statement=statement)
    if not isinstance(holds, (bool, np.bool_)):
        raise TypeError(f"{where}: holds is {holds!r}; expected True or False.")
    verdict, how = "holds" if holds else "broken", {"reason": reason, "conditions": conditions}
    return Agreement("identity", str(figure), statement, verdict, **how)


def agreement_table(rows: Iterable[Agreement]) -> pd.DataFrame:
    """The records as text to show: numbers to about two digits of their interval's half width.

    Returns:
        Columns figure, quantity, paper, ours, interval (95%, and seeds; of ours minus the paper's
        where that is a number), margin, verdict, and further ones where any record has them: why
        this margin, conditions, known reasons. In the order given.

    >>> how = {"margin": 0.02, "margin_reason": "as wide as a line of the figure"}
    >>> rows = [agreement(4, "slope", paper=1.0, ours=[0.998, 0.999, 1.001], **how)]
    >>> print(agreement_table(rows)[["paper", "ours", "interval", "margin", "verdict"]].to_string())
        paper    ours                     interval        margin verdict
    0  1.0000  0.9993  -0.0045 to +0.0031, 3 seeds  within ±0.02  agrees
    """
    table = pd.DataFrame([_shown(row) for row in checked(rows)])
    unused = [name for name in table.columns[7:] if not table[name].any()]
    return table.drop(columns=unused)


def verdicts(rows: Iterable[Agreement], columns: Sequence[str], width: int = 96) -> str:
    """The records as text that fits below a cell: a long quantity goes on in the next lines.

    Args:
        columns: of `agreement_table`, among them "quantity".
        width: characters of a line, where the other columns leave 30 of them for the quantity.

    Raises:
        ValueError: other columns, or none for the quantity.

    >>> print(verdicts([identity(3, "a law " * 8, True)], ["quantity", "verdict"], width=40))
    quantity                         verdict
    a law a law a law a law a law a  holds
      law a law a law
    """
    table = agreement_table(rows)
    columns = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))
    if "quantity" not in columns or not set(columns) <= set(table):
        raise ValueError(
            f"columns={columns}; expected 'quantity' and others of {', '.join(map(repr, table))}"
        )
    table = table[columns].astype(str)
    cells = [list(table.columns), *table.to_numpy().tolist()]
    sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
    place = table.columns.get_loc("quantity")
    others = sum(sizes) - sizes[place] + 2 * (len(sizes) - 1)
    sizes[place] = min(sizes[place], max(30, width - others))
    indent, lines = " " * (sum(sizes[:place]) + 2 * place + 2), []
    for row in cells:
        row[place], *more = textwrap.wrap(row[place], sizes[place], subsequent_indent="  ")
        texts = (text.ljust(size) for text, size in zip(row, sizes, strict=True))
        lines += ["  ".join(texts).rstrip(), *(indent + text.strip() for text in more)]
    return "\n".join(lines)


def _shown(row: Agreement) -> dict[str, str]:
    digits = digits_of(row)
    interval = "" if row.ours is None else "one seed"
    if row.low is not None:
        ends = (_number(end, digits, "+") for end in (row.low, row.high))
        interval = f"{' to '.join(ends)}, {row.seeds} seeds"
    margin = "" if row.margin is None else f"{'±' * (row.side == 'within')}{row.margin:g}"
    return {
        "figure": row.figure,
        "quantity": row.quantity,
        "paper": row.paper if isinstance(row.paper, str) else _number(row.paper, digits),
        "ours": _number(row.ours, digits) + (f" ({row.place})" if row.place else ""),
        "interval": interval,
        "margin": f"{row.side} {margin}" if margin else "",
        "verdict": row.verdict,
        "why this margin": row.margin_reason,
        "conditions": row.conditions,
        "known reasons": row.reason,
    }


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
    width = 0.0 if row.low is None else row.high / 2 - row.low / 2
    scale = width or abs(row.margin or 0.0)
    if not scale:
        return None
    if row.margin:  # much finer than the margin tells nothing
        scale = max(scale, abs(row.margin) / 20)
    digits = max(0, 1 - math.floor(math.log10(scale)))
    return digits if digits <= 6 and max(abs(row.ours), width) < 1e6 else None


def _interval(
    where: str, values: Sequence[float], runs: Sequence[float] = (0.0,)
) -> dict[str, object]:
    """Mean of ours, and the interval of it, or of its difference from the mean of ``runs``."""
    low = high = None
    if len(values) > 1:
        _, low, high = interval(values, runs)
        if not math.isfinite(low) or not math.isfinite(high):
            raise ValueError(
                f"{where}: the interval of numbers as large as {max(map(abs, values)):.3g} leaves"
                " the range of floats; compare their log10."
            )
    return {"ours": interval(values)[0], "low": low, "high": high, "seeds": len(values)}


def _judge(found: Mapping[str, object], side: str, margin: float) -> tuple[int, float]:
    """0 where the interval lies outside, 2 inside, 1 for neither; and its room to the edge."""
    low, high = found["low"], found["high"]
    if low is None:
        return 1, 0.0
    # 1.02 - 1.00 > 0.02 in binary; an interval that ends on the edge must lie inside.
    slack = 1e-12 * max(abs(low), abs(high), abs(margin), 1e-300)
    if side == "within":
        room, outside = margin - max(-low, high), low > margin + slack or high < -margin - slack
        inside = room >= -slack
    else:
        # Below the margin is above it, mirrored.
        near, far, edge = (low, high, margin) if side == "above" else (-high, -low, -margin)
        room, outside = near - edge, far <= edge + slack
        inside = room > slack
    return (2 if inside else 0 if outside else 1), room


def _places(where: str, ours: object) -> dict[str, list[float]]:
    if not isinstance(ours, Mapping):
        return {"": _numbers(where, "ours", ours)}
    if not ours:
        raise ValueError(f"{where}: ours is empty; expected a place -> one number a seed.")
    found = {str(place): _numbers(where, f"ours[{place!r}]", v) for place, v in ours.items()}
    if len(found) < len(ours):
        raise ValueError(f"{where}: two of the places {list(ours)} are written alike.")
    return found


def _numbers(where: str, name: str, values: object) -> list[float]:
    """A number or several, of Python, numpy or torch, as a list of finite ones."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, (bool, np.bool_)):
        raise TypeError(
            f"{where}: {name} is {values!r}; a verdict needs one number a seed. For what is true "
            "by construction use identity(...)."
        )
    # A set would have lost one of two equal numbers.
    if isinstance(values, (str, bytes, Set)) or not isinstance(values, Iterable):
        values = [values]
    found = [_finite(where, name, value) for value in values]
    if not found:
        raise ValueError(f"{where}: {name} is empty; expected one number a seed.")
    return found


def _finite(where: str, name: str, value: object, minimum: float = -math.inf) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{where}: {name} is {value!r}; expected a number.")
    value = float(value)
    if not math.isfinite(value) or value < minimum:
        least = "" if minimum == -math.inf else f" of at least {minimum:g}"
        raise ValueError(f"{where}: {name} is {value!r}; expected a finite number{least}.")
    return value


def _texts(where: str, **named: object) -> None:
    for name, text in named.items():
        if isinstance(text, int) and not isinstance(text, bool):
            continue  # the number of a figure
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: {name} is {text!r}; expected words.")


def _number(value: float | None, digits: int | None, sign: str = "") -> str:
    if value is None:
        return ""
    text = f"{value:{sign}.4g}" if digits is None else f"{value:{sign}.{digits}f}"
    # What rounds to nothing has no sign to show.
    return text.lstrip("+-") if not float(text) else text
