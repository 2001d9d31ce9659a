"""Numbers as users give them, numpy's among them, made Python's own: equal ones are one value."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
from typing import TypeVar

Kind = TypeVar("Kind")

SEEDS = -(2**63), 2**64 - 1
"""The least and the largest seed that torch's generators take."""


def is_bool(value: object) -> bool:
    """Whether ``value`` is a bool of Python, numpy or torch, which would pass as 0 or 1."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def whole(value: object, name: str, least: float = -math.inf, most: float = math.inf) -> int:
    """``value``, of Python, numpy or torch, as an int from ``least`` to ``most``.

    Else a ValueError that starts with ``name``, as errors do here.

    >>> import numpy as np
    >>> whole(np.int64(3), "epochs", 1)
    3
    """
    span = "" if least == -math.inf else f" from {least}"
    span += "" if most == math.inf else f" to {most}"
    try:  # 3 and numpy's 3, but neither 3.0 nor True
        found = None if is_bool(value) else operator.index(value)
    except TypeError:
        found = None
    if found is None or not least <= found <= most:
        raise ValueError(f"{name}={value!r}; expected a whole number{span}")
    return found


def real(value: object, name: str) -> float:
    """``value``, a finite real number, as a float, and 0.0 for -0.0; else a ValueError.

    >>> import numpy as np
    >>> real(np.float64(0.5), "decay"), real(1, "decay"), real(np.array(2), "decay")
    (0.5, 1.0, 2.0)
    """
    found = math.nan
    with contextlib.suppress(OverflowError, RuntimeError):  # a tensor on meta holds no number
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        if isinstance(number, numbers.Real) and not is_bool(number):
            found = float(number) + 0.0
    if not math.isfinite(found):
        raise ValueError(f"{name}={value!r}; expected a finite number")
    return found


def instance(value: Kind, kind: type[Kind], name: str) -> Kind:
    """``value``, if it is of this ``kind``; else a TypeError.

    >>> instance(3, str, "name")
    Traceback (most recent call last):
    ...
    TypeError: name is a int; expected a str
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a {kind.__name__}")
    return value


def kept_at(total: int, compression: float) -> int:
    """round(N / c) weights, never fewer than one; ValueError or TypeError for a c not in [1, N].

    >>> kept_at(1000, 300)
    3
    """
    if is_bool(compression):
        raise ValueError(f"compression={compression!r} is a bool; expected a number from 1 to N")
    try:
        value = float(compression)
    except RuntimeError:  # a tensor on meta holds no number
        value = math.nan
    except OverflowError:  # a whole number beyond all floats
        value = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"compression={compression!r}; expected a number from 1 to N") from None
    for end in (1, total):  # 10 ** log10(N) may come out an ulp above N
        if math.isclose(value, end):
            value = float(end)
    if math.isnan(value) or not 1 <= value <= total:
        raise ValueError(
            f"compression={compression!r}; expected 1 <= compression <= N = {total}"
            " (compression = N / kept weights; a density d is compression 1 / d)"
        )
    return max(1, round(total / value))


def seeds_of(seeds: object, copies: int) -> list[int]:
    """A seed for each of ``copies``, from one for all or one for each.

    >>> import numpy as np
    >>> seeds_of(7, 2), seeds_of(np.arange(2), 2)
    ([7, 7], [0, 1])
    """
    try:
        return [whole(seed, "seeds") for seed in seeds]
    except TypeError:
        return [whole(seeds, "seeds")] * copies
