"""What a figure asks of its table: rows, columns, and numbers where numbers are drawn."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd


def require(
    table: pd.DataFrame, columns: str | Iterable[str], what: str, names: Iterable[str] = ()
) -> pd.DataFrame:
    """The table, if it holds rows and these columns ("one two"), with its rows numbered anew.

    A column of `_NAMES` or ``names`` may hold anything but gaps. Every other one holds numbers, at
    least one of them finite; a column of `_FLAGS` becomes bool. Else a ValueError says what is odd.

    >>> require(pd.DataFrame({"a": [1]}), "a b", "example")
    Traceback (most recent call last):
    ...
    ValueError: example: the table lacks the column 'b'; expected 'a', 'b', got 'a'.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{what}: expected a pandas DataFrame, got {type(table).__name__}.")
    columns = columns.split() if isinstance(columns, str) else list(columns)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{what}: the table lacks the column{'s' * (len(missing) > 1)} {_quoted(missing)}; "
            f"expected {_quoted(columns)}, got {_quoted(table.columns)}."
        )
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{what}: the table has more than one column {_quoted(twice[:1])}.")
    if table.empty:
        raise ValueError(f"{what}: the table has no rows; expected at least one.")
    found = {}
    for column in columns:
        where, values = f"{what}: the column {column!r}", table[column]
        if column in _NAMES or column in names:
            if values.isna().any():
                raise ValueError(f"{where} has gaps; expected a name in every row.")
            if isinstance(values.dtype, pd.CategoricalDtype):  # unused ones would be drawn as well
                found[column] = values.astype(values.cat.categories.dtype)
        else:
            found[column] = _numbers(values, column, where)
    return table.assign(**found).reset_index(drop=True)


def require_all(
    tables: Mapping[object, pd.DataFrame], columns: str, what: str
) -> dict[object, pd.DataFrame]:
    """`require` of several tables, by their names."""
    return {name: require(each, columns, f"{what}, {name}") for name, each in tables.items()}


# Columns whose values name something; a seed and a unit are but told apart.
_NAMES = "method network panel schedule fill kernel state cut choice seed unit".split()
_FLAGS = "clear connected disconnected".split()
_PLACES = (  # where a point lies
    "compression dead epoch iteration iterations layer rounds incoming outgoing left right".split()
)
_INFINITE = "compression effective ratio".split()  # such points are left out
_WITHOUT = "effective high low".split()  # all networks cut, or one seed


def _numbers(values: pd.Series, column: str, where: str) -> pd.Series:
    """A column as numbers, gaps as NaN."""
    if not isinstance(values.dtype, np.dtype) or values.dtype.kind not in "biuf":
        values = values.astype(object)
        for value in values[values.notna()]:
            if not isinstance(value, (numbers.Real, np.bool_)):
                raise ValueError(f"{where} holds {value!r}; expected numbers.")
        values = values.where(values.notna(), np.nan).astype(float)
    if column in _FLAGS:
        if not values.isin([0, 1]).all():
            raise ValueError(f"{where} has other values than True and False.")
        return values.astype(bool)
    finite, gaps = np.isfinite(values), values.isna()
    if not finite.any() and column not in _WITHOUT:
        raise ValueError(f"{where} holds no finite number.")
    if not (finite | gaps).all() and column not in _INFINITE:
        raise ValueError(f"{where} holds an infinite number.")
    if gaps.any() and column in _PLACES:
        raise ValueError(f"{where} has gaps; expected a number in every row.")
    if column in ("compression", "critical_compression") and (values <= 0).any():
        raise ValueError(f"{where} holds {values.min()}; expected N / kept.")
    return values


def shares(table: pd.DataFrame, column: str, what: str) -> None:
    """Raises a ValueError where a column, such as the density, is no share from 0 to 1."""
    odd = table.loc[(table[column] < 0) | (table[column] > 1), column]
    if len(odd):
        raise ValueError(
            f"{what}: the column {column!r} holds {odd.iloc[0]}; expected shares from 0 to 1."
        )


def _quoted(names: Iterable[object]) -> str:
    return ", ".join(repr(str(name)) for name in names)
