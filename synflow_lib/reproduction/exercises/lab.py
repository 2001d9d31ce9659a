"""Notebook 09, the course lab: its checks and its rubric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...masks import Masks
from ..paper import FIVE
from .check import Check, NotOfTheKind, by_name, number, numbers, returns, several


def _layers() -> Iterator[tuple]:
    for shape in ((5, 7), (8, 4), (6, 6)):
        weight, mask = torch.randn(shape), torch.rand(shape) < 0.4
        mask[0, :3] = True
        mask[1, :2] = False
        weight[0, 0] = 0.0  # a kept weight may be zero
        yield weight, mask


def _mask_sets() -> Iterator[tuple]:
    for inputs in (7, 11, 6):
        conv, fc = torch.rand(4, 3, 3, 3) < 0.6, torch.rand(5, inputs) < 0.2
        fc[0, :2] = True
        yield (Masks({"conv.weight": conv, "fc.weight": fc}),)


def _kernels() -> Iterator[tuple]:
    for height, width in ((5, 14), (8, 11), (6, 12)):
        mask = torch.rand(5, 4, 3, 3) < 0.3
        mask[0, 0, 0, 0] = True
        yield mask, height, width


def _clocks() -> Iterator[tuple]:
    for calls in (8, 14, 11):
        later = torch.exp(1 + 0.6 * torch.randn(calls)).tolist()
        yield ([5 * max(later), *later],)


def _tables() -> Iterator[tuple]:
    random = np.random.default_rng(0)
    for seeds in ((0, 1), (0, 1, 2)):  # of two the median is the mean
        points = list(product(("conv", "fc"), FIVE, (1.0, 10.0), seeds))
        table = pd.DataFrame(points, columns=["model", "method", "compression", "seed"])
        table["accuracy"] = random.uniform(10, 90, len(table))
        yield (table.assign(best=table["accuracy"] + random.uniform(1, 9, len(table))),)


def _means(
    table: pd.DataFrame, compressions: tuple = (10,), values: str = "accuracy", how: str = "mean"
) -> pd.DataFrame:
    chosen = table[table["compression"].isin(compressions)]
    return chosen.pivot_table(index="method", columns="model", values=values, aggfunc=how)


def _by_model(value: object) -> dict:
    if getattr(value, "ndim", 2) != 2:  # such as a mean over both networks
        raise NotOfTheKind(f"it returns a {type(value).__name__}, which has no columns")
    return by_name(by_name(number))(value)


def _quartiles(times: list[float], at: tuple = (0.5, 0.25, 0.75)) -> tuple[float, ...]:
    return tuple(np.quantile(times, at))


def _share(of: Callable[[Tensor], Tensor]) -> Callable[[Masks], dict[str, Tensor]]:
    return lambda masks: {name: of(mask.double()) for name, mask in masks.items()}


check_kept_weights = Check(
    number=1,
    kind="a tensor of the kept weights",
    cases=_layers,
    observe=returns(lambda value: np.sort(numbers(value).ravel())),
    right=lambda w, m: w[m],
    mistakes={
        "the pruned weights are among them, as zeros": lambda w, m: w * m,
        "these are the weights that were pruned": lambda w, m: w[~m],
        "signs are lost: these are absolute values": lambda w, m: w[m].abs(),
        "a kept weight that happens to be zero is missing: ask the mask":
            lambda w, m: w[w * m != 0],
        "these are all weights, pruned ones included": lambda w, m: w,
        "this is the mask, not the weights under it": lambda w, m: m.double(),
    },
)  # fmt: skip
check_layer_densities = Check(
    number=2,
    kind="a dict of layer name -> density",
    cases=_mask_sets,
    observe=returns(by_name(number)),
    right=_share(Tensor.mean),
    mistakes={
        "this is the sparsity, 1 - density": _share(lambda x: 1 - x.mean()),
        "these are counts; divide by the layer's size": _share(Tensor.sum),
        "this is the compression, 1 / density": _share(lambda x: 1 / x.mean()),
        "these are percent; a density lies from 0 to 1": _share(lambda x: 100 * x.mean()),
        "every layer has the density of the network": lambda m: dict.fromkeys(m, m.density),
        "this is a layer's share of all kept weights":
            lambda m: _share(lambda x: x.sum() / m.kept)(m),
        "divided by the size of the network instead of the layer's":
            lambda m: _share(lambda x: x.sum() / m.total)(m),
    },
)  # fmt: skip
check_conv_multiply_adds = Check(
    number=3,
    kind="a number",
    cases=_kernels,
    observe=returns(number),
    right=lambda m, h, w: m.sum() * h * w,
    mistakes={
        "every kept weight is used once at every place of the output map; "
        "this counts one place": lambda m, h, w: m.sum(),
        "this is the dense layer's count: only kept weights are multiplied":
            lambda m, h, w: m.numel() * h * w,
        "twice too much: a multiply-add is one here": lambda m, h, w: 2 * m.sum() * h * w,
        "the map is taken as square; it is height x width": lambda m, h, w: m.sum() * h * h,
        "output channels are counted twice: the mask holds them already":
            lambda m, h, w: m.sum() * h * w * len(m),
        "biases are counted; additions of biases are no multiply-adds":
            lambda m, h, w: (m.sum() + len(m)) * h * w,
    },
)  # fmt: skip
check_middle_half = Check(
    number=4,
    kind="three numbers: median, lower and upper quartile",
    cases=_clocks,
    observe=returns(several(number, 3)),
    right=lambda t: _quartiles(t[1:]),
    mistakes={
        "the first call is in it; it warms up and does not count": _quartiles,
        "a mean and standard deviations: one slow call moves both":
            lambda t: tuple(np.mean(t[1:]) + np.std(t[1:], ddof=1) * np.array([0, -1, 1])),
        "the mean instead of the median: one slow call moves it":
            lambda t: (np.mean(t[1:]), *_quartiles(t[1:])[1:]),
        "smallest and largest instead of the quartiles": lambda t: _quartiles(t[1:], (0.5, 0, 1)),
        "the order is median, lower quartile, upper quartile":
            lambda t: _quartiles(t[1:], (0.25, 0.5, 0.75)),
        "quartiles swapped: the lower comes first": lambda t: _quartiles(t[1:], (0.5, 0.75, 0.25)),
    },
)  # fmt: skip
check_ten_percent = Check(
    number=5,
    kind="a DataFrame of numbers, a row a method, a column a model",
    cases=_tables,
    observe=returns(_by_model),
    right=_means,
    mistakes={
        "the dense networks are averaged in: choose compression 10":
            partial(_means, compressions=(1, 10)),
        "these are the dense networks, compression 1": partial(_means, compressions=(1,)),
        "the best seed instead of the mean over seeds": partial(_means, how="max"),
        "one seed instead of the mean over seeds": partial(_means, how="first"),
        "the median over seeds instead of the mean": partial(_means, how="median"),
        "the best epoch on the test set: that chooses with the test set":
            partial(_means, values="best"),
        "methods are the rows and networks the columns": lambda t: _means(t).T,
        "a fraction; accuracy is in percent": lambda t: _means(t) / 100,
    },
)  # fmt: skip
CHECKS = (
    check_kept_weights,
    check_layer_densities,
    check_conv_multiply_adds,
    check_middle_half,
    check_ten_percent,
)
ANSWERS = ("kept_weights", "layer_densities", "conv_multiply_adds", "middle_half", "ten_percent")
REPORT = (
    "a tenth of the weights",
    "from nearly dense to one percent",
    "multiply-adds and milliseconds",
    "where the weights go",
    "advice",
)
AN_EXERCISE, A_PART = 8, 12  # points


def rubric(answers: Iterable[object] | Mapping[str, object]) -> pd.DataFrame:
    """The points of the lab: exercises as their checks find them, the report for a reader.

    Args:
        answers: the functions of the exercises, in order; or by name, as ``globals()`` holds them,
            where one that is missing is not answered.

    Returns:
        One row a part: part, graded ("check" or "reader"), points ("" until a reader gives
        them), of; the last row is the total so far.

    >>> print(rubric([None] * 5).tail(1).to_string(index=False, header=False))
    together 0 100
    """
    if isinstance(answers, Mapping):
        answers = [answers.get(name) for name in ANSWERS]
    elif len(answers := list(answers)) != len(CHECKS):
        raise ValueError(f"{len(answers)} answers; expected {len(CHECKS)}: {', '.join(ANSWERS)}")
    rows = [
        (f"exercise {check.number}", "check", AN_EXERCISE * check(each).endswith(": solved"))
        for check, each in zip(CHECKS, answers, strict=True)
    ]
    rows += [(f"report: {part}", "reader", "") for part in REPORT]
    table = pd.DataFrame(rows, columns=["part", "graded", "points"])
    table["of"] = [AN_EXERCISE] * len(CHECKS) + [A_PART] * len(REPORT)
    earned = sum(points for *_, points in rows if points != "")
    table.loc[len(table)] = ["together", "", earned, int(table["of"].sum())]
    return table
