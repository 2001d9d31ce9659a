"""Means over seeds with their 95% confidence intervals, single and paired."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit


def mean_interval(table: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over seeds at each compression, with its 95% confidence interval.

    Student's t with n - 1 degrees of freedom, held inside 0 to 100 percent; with one seed there is
    no interval (NaN).

    Args:
        table: compression, accuracy (percent); one row per seed.

    Returns:
        compression, mean, low, high, seeds; compression rising.

    >>> table = pd.DataFrame({"compression": [10.0] * 3, "accuracy": [90.0, 91.0, 92.0]})
    >>> mean_interval(table).round(2).to_numpy().tolist()
    [[10.0, 91.0, 88.52, 93.48, 3.0]]
    """
    groups = table.groupby("compression")["accuracy"]
    mean, seeds, half = groups.mean(), groups.size(), _half_width(groups.std(), groups.size())
    return pd.DataFrame(
        {
            "mean": mean,
            "low": (mean - half).clip(0, 100),
            "high": (mean + half).clip(0, 100),
            "seeds": seeds,
        }
    ).reset_index()


def paired_difference(table: pd.DataFrame, method: str, other: str) -> pd.DataFrame:
    """Accuracy of one method minus another's on the same seed, with its 95% interval.

    Both start from the same weights and see the same batches, so what a seed does to both cancels.

    Args:
        table: method, compression, seed, accuracy (percent).
        method, other: names in the column ``method``.

    Returns:
        compression, difference (mean over seeds), low, high, seeds, clear (whether the interval
        excludes zero); compressions that both have, rising. No interval with one seed.

    Raises:
        ValueError: a method that is not in the table.

    >>> rows = [("a", 10.0, s, 90.0 + s + s % 2) for s in range(4)]
    >>> rows += [("b", 10.0, s, 80.0 + s) for s in range(4)]
    >>> table = pd.DataFrame(rows, columns=["method", "compression", "seed", "accuracy"])
    >>> paired_difference(table, "a", "b").round(2).to_numpy().tolist()
    [[10.0, 10.5, 9.58, 11.42, 4, True]]
    """
    for name in (method, other):
        if name not in set(table["method"]):
            raise ValueError(f"no rows of {name!r}; the table has {sorted(set(table['method']))}")
    wide = table.pivot_table(
        index=["compression", "seed"], columns="method", values="accuracy", aggfunc="mean"
    )
    groups = (wide[method] - wide[other]).dropna().groupby("compression")
    mean, seeds, half = groups.mean(), groups.size(), _half_width(groups.std(), groups.size())
    found = pd.DataFrame(
        {"difference": mean, "low": mean - half, "high": mean + half, "seeds": seeds}
    )
    return found.assign(clear=(found["low"] > 0) | (found["high"] < 0)).reset_index()


def _half_width(spread: pd.Series, seeds: pd.Series) -> pd.Series:
    return stdtrit(np.maximum(seeds - 1, 1), 0.975) * spread / np.sqrt(seeds)
