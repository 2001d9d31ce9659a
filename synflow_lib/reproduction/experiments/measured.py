"""Measurements that take long and train nothing, taken from a record by the tests alone.

`make figures` sets SYNFLOW_MEASURED to "write", which records what the functions marked here give;
`make test` sets it to "read". Where it is not set, as for everybody else, they are plain functions.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...data import Dataset
from ...trajectory import Trajectory
from . import trained

FOLDER = "measured"  # inside a store of runs
F = TypeVar("F", bound=Callable)


def measured(function: F) -> F:
    """Mark a function whose answer follows from its arguments and is plain: tables, numbers, texts.

    >>> measured(lambda x: x + 1)(1)
    2
    """

    @functools.wraps(function)
    def call(*args, **options):
        how = os.environ.get("SYNFLOW_MEASURED")
        if how not in ("read", "write"):
            return function(*args, **options)
        parts = [described(value) for value in (args, sorted(options.items()))]
        name = f"{function.__module__}:{function.__qualname__}"
        file = trained.file_of(trained.key_of(name, *parts), folder=FOLDER)
        known = trained.read(file) if how == "read" else None
        if known is not None:
            return unpacked(known["value"])
        value = function(*args, **options)
        if how == "write":
            trained.write(file, {"module": function.__module__, "value": packed(value)})
        return value

    return call


def described(value: object) -> str:
    """A text that is alike for equal arguments, on every machine: last digits are rounding."""
    if isinstance(value, nn.Module):
        return f"{trained.describe(value)} {value.training}"
    if isinstance(value, Dataset):
        return repr(value.fingerprint)
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype} {value.double().norm():.3g}"
    if isinstance(value, Trajectory):
        return f"{value.layout} {list(value.counts)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {described(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple, range)):
        return f"[{', '.join(map(described, value))}]"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if value is None or isinstance(value, (str, int, float, torch.dtype, torch.device)):
        return repr(value)
    raise TypeError(f"{type(value).__name__}: no measurement of this argument can be recorded")


def packed(value: object) -> object:
    """As JSON: tables with the types of their columns, what is not finite as text."""
    if isinstance(value, pd.DataFrame):
        if not isinstance(value.index, pd.RangeIndex):
            raise TypeError("a table with an index of its own; expected rows that are counted")
        columns = [
            [name, str(column.dtype), [packed(each) for each in column.tolist()]]
            for name, column in value.items()
        ]
        return {"table": columns}
    if isinstance(value, Mapping):
        return {"items": [[packed(key), packed(each)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [packed(each) for each in value]}
    if isinstance(value, np.generic):
        return packed(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__}: expected tables, numbers, texts, and lists of them")


def unpacked(value: object) -> object:
    """What `packed` packed."""
    if not isinstance(value, Mapping):
        return value
    [(kind, content)] = value.items()
    if kind == "table":
        columns = {
            name: pd.Series([unpacked(each) for each in column], dtype=dtype)
            for name, dtype, column in content
        }
        return pd.DataFrame(columns)
    if kind == "items":
        return {unpacked(key): unpacked(each) for key, each in content}
    if kind == "float":
        return float(content)
    items: Sequence = [unpacked(each) for each in content]
    return tuple(items) if kind == "tuple" else items
