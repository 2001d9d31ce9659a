"""Means over seeds with their 95% confidence intervals (Student's t), single and paired.

One seed has no interval: its ends are NaN. Compressions that differ by less than 1e-9 of
themselves, such as 10**0.5 computed in two ways, are one, the smaller of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy
from scipy.special import stdtrit

from ..values import instance


def mean_interval(table: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds at each compression, its interval held inside 0 to 100 percent.

    Args:
        table: compression, accuracy (percent); one row a seed.

    Returns:
        compression (rising), mean, low, high, seeds.

    >>> table = pd.DataFrame({"compression": [10.0] * 3, "accuracy": [90.0, 91.0, 92.0]})
    >>> mean_interval(table).round(2).to_numpy().tolist()
    [[10.0, 91.0, 88.52, 93.48, 3.0]]
    """
    _require(table, ["compression", "accuracy"])
    table = _rounding_undone(table)
    found = _intervals(table.groupby("compression")["accuracy"], "mean")
    return found.assign(**found[["low", "high"]].clip(0, 100)).reset_index()


def paired_difference(table: pd.DataFrame, method: str, other: str) -> pd.DataFrame:
    """Accuracy of one method minus another's on the same seed.

    Both start from the same weights and see the same batches, so what a seed does to both cancels.

    Args:
        table: method, compression, seed, accuracy (percent).
        method, other: names in the column ``method``.

    Returns:
        compression (rising, those that both have), difference (mean over seeds), low, high, seeds,
        clear (whether the interval excludes zero).

    Raises:
        ValueError: a method that is not in the table; two that share no seed.

    >>> rows = [("a", 10.0, s, 90.0 + s + s % 2) for s in range(4)]
    >>> rows += [("b", 10.0, s, 80.0 + s) for s in range(4)]
    >>> table = pd.DataFrame(rows, columns=["method", "compression", "seed", "accuracy"])
    >>> paired_difference(table, "a", "b").round(2).to_numpy().tolist()
    [[10.0, 10.5, 9.58, 11.42, 4, True]]
    """
    found = _intervals(_by_seed(table, method, other), "difference")
    return found.assign(clear=(found["low"] > 0) | (found["high"] < 0)).reset_index()


def against(table: pd.DataFrame, reference: str, value: str = "accuracy") -> pd.DataFrame:
    """`paired_difference` of every method from a reference.

    Args:
        table: method, seed, the column ``value``, and compression where there are several.
        reference: a name in the column ``method``.
        value: what is compared.

    Returns:
        As `paired_difference`, with the column method; in the order of the table.

    >>> table = pd.DataFrame({"method": list("aabb"), "seed": [0, 1] * 2, "size": [1., 2., 5., 6.]})
    >>> against(table, "a", "size")[["method", "difference"]].values.tolist()
    [['b', 4.0]]
    """
    _require(table, ["method", "seed", value])
    table = table.assign(accuracy=table[value])
    if "compression" not in table:
        table = table.assign(compression=1.0)
    others = [name for name in dict.fromkeys(table["method"]) if name != reference]
    if not others:
        raise ValueError(f"no rows of another method than {reference!r}")
    tables = [paired_difference(table, name, reference).assign(method=name) for name in others]
    return pd.concat(tables, ignore_index=True)


def judged(found: pd.DataFrame, least: float) -> pd.Series:
    """What the interval of each difference says about the smallest effect that counts.

    Args:
        found: low, high, such as from `paired_difference`.
        least: the smallest effect, above 0, in the unit of the difference.

    Returns:
        A word a row: "better" (the whole interval above ``least``), "worse" (below minus that),
        "equal" (between the two), "undecided" (anything else, one seed included).

    Raises:
        ValueError: ``least`` is not above 0.

    >>> found = pd.DataFrame({"low": [6, -9, -1, -1], "high": [8, -6, 2, 9]})
    >>> judged(found, 5).tolist()
    ['better', 'worse', 'equal', 'undecided']
    """
    if not least > 0:
        raise ValueError(f"least={least!r}; expected the smallest effect that counts, above 0")
    low, high = found["low"], found["high"]
    cases = [low > least, high < -least, (low > -least) & (high < least)]
    return pd.Series(np.select(cases, ["better", "worse", "equal"], "undecided"), found.index)


def paired_seeds(
    table: pd.DataFrame, method: str, other: str, low: float = 0.0, high: float = np.inf
) -> dict[str, list[float]]:
    """The differences behind `paired_difference`, one a seed: what `paper.agreement` judges.

    Args:
        table, method, other: as there.
        low, high: ends of the range of compressions, both included.

    Returns:
        "compression 10", ... -> differences of accuracy in percent, rising with the compression.

    Raises:
        ValueError: as there; no compression in the range, or two that three digits do not tell
            apart.

    >>> rows = [("a", 10.0, 0, 90.0), ("b", 10.0, 0, 80.0)]
    >>> table = pd.DataFrame(rows, columns=["method", "compression", "seed", "accuracy"])
    >>> paired_seeds(table, "a", "b")
    {'compression 10': [10.0]}
    """
    groups = _by_seed(table, method, other)
    found = [(f"compression {c:.3g}", g.tolist()) for c, g in groups if low <= c <= high]
    if not found:
        both = ", ".join(f"{c:.3g}" for c, _ in groups) or "none on the same seed"
        raise ValueError(
            f"no compression of {method!r} and {other!r} from {low:g} to {high:g}; both have {both}"
        )
    if len(dict(found)) < len(found):  # one would take the other's place
        raise ValueError("two compressions are equal to three digits; round or leave out one")
    return dict(found)


def interval(
    values: Sequence[float], others: Iterable[float] = (0.0,)
) -> tuple[float, float, float]:
    """Mean of ``values`` minus mean of ``others``, not paired, and its 95% interval (Welch).

    A single other is taken as exact.

    >>> [round(end, 2) for end in interval([2.0, 4.0, 6.0], [1.0])]
    [3.0, -1.97, 7.97]
    """
    values, others = np.asarray(values, float), np.asarray(others, float)
    # Squares of numbers like 1e200 or 1e-200 leave the range of floats, and are taken of smaller or
    # larger ones. A power of two changes no digit.
    _, power = np.frexp(np.abs([*values, *others]).max(initial=0))
    ends = _welch(np.ldexp(values, -power), np.ldexp(others, -power))
    with np.errstate(over="ignore"):
        return tuple(map(float, np.ldexp(ends, power)))


def _welch(values: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    mean, other = values.mean(), others.mean()
    if len(values) < 2 or len(others) < 2:
        spread = values.std(ddof=1) if len(values) > 1 else np.nan
        half = _half_width(spread, len(values))
        return mean - other, mean - half - other, mean + half - other
    freedoms = np.array([len(values) - 1, len(others) - 1])
    squares = np.array([values.var(ddof=1), others.var(ddof=1)]) / (freedoms + 1)
    half = 0.0
    if squares.any():  # scipy's Welch interval is NaN where there is no spread at all
        freedom = 1 / ((squares / squares.sum()) ** 2 / freedoms).sum()
        half = stdtrit(freedom, 0.975) * np.sqrt(squares.sum())
    return mean - other, mean - other - half, mean - other + half


def _by_seed(table: pd.DataFrame, method: str, other: str) -> SeriesGroupBy:
    """Accuracy of one method minus another's by seed, grouped by compression."""
    _require(table, ["method", "compression", "seed", "accuracy"])
    for name in (method, other):
        if name not in set(table["method"]):
            raise ValueError(f"no rows of {name!r}; the table has {list(set(table['method']))}")
    for name in {"dataset", "model"} & set(table.columns):
        if len(set(table[name])) > 1:  # a seed of one is not a seed of the other
            raise ValueError(
                f"the column {name!r} holds {table[name].unique().tolist()}; expected the rows of"
                " one network, as table.groupby(['dataset', 'model']) gives them"
            )
    seeds = [set(table["seed"][table["method"] == name]) for name in (method, other)]
    if seeds[0].isdisjoint(seeds[1]):
        has = " and ".join(
            f"{name!r} has {sorted(own)}" for name, own in zip((method, other), seeds, strict=True)
        )
        raise ValueError(
            f"no seed is shared, so there are no pairs: {has}; run both on the same seeds, or take"
            " `interval` of the two, which does not pair"
        )
    wide = _rounding_undone(table).pivot_table(
        index=["compression", "seed"], columns="method", values="accuracy", aggfunc="mean"
    )
    return (wide[method] - wide[other]).dropna().groupby("compression")


def _rounding_undone(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one compression for those that differ by rounding alone."""
    known, places = np.unique(table["compression"].to_numpy(), return_inverse=True)
    alike = np.diff(known) <= 1e-9 * np.abs(known[:-1])
    if not alike.any():
        return table
    first = np.append(True, ~alike)
    return table.assign(compression=known[first][(first.cumsum() - 1)[places]])


def _require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raises a ValueError that names a column which is missing, or holds text."""
    instance(table, pd.DataFrame, "table")
    for name in columns:
        if name not in table:
            raise ValueError(f"the table lacks the column {name!r}; it has {list(table.columns)}")
        if name not in ("method", "seed") and pd.api.types.is_string_dtype(table[name]):
            raise ValueError(f"the column {name!r} holds text; expected numbers")


def _intervals(groups: SeriesGroupBy, name: str) -> pd.DataFrame:
    mean, seeds = groups.mean(), groups.count()
    half = _half_width(groups.std(), seeds)
    return pd.DataFrame({name: mean, "low": mean - half, "high": mean + half, "seeds": seeds})


def _half_width(spread: pd.Series | float, seeds: pd.Series | int) -> pd.Series | float:
    return stdtrit(np.maximum(seeds - 1, 1), 0.975) * spread / np.sqrt(seeds)
