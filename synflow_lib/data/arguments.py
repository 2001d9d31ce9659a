"""Whole numbers handed to data sets, checked in one place."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np

__all__ = ["whole_number"]


def whole_number(
    name: str,
    value: SupportsIndex | None,
    low: int = 1,
    high: int | None = None,
    optional: bool = False,
) -> int | None:
    """`value` as an `int`: Python's, numpy's or torch's whole numbers, but no bool and no float.

    Args:
        name: of the argument, for the error.
        value: to be checked.
        low, high: the smallest and the largest value allowed; None is no upper bound.
        optional: allows None, which is returned as it is.

    Raises:
        ValueError: no whole number in that range.

    >>> whole_number("size", np.int64(32))
    32
    """
    if optional and value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    is_bool = isinstance(value, (bool, np.bool_))
    if number is None or is_bool or number < low or (high is not None and number > high):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} is {value!r}; expected {'None or ' * optional}an integer {span}.")
    return number
