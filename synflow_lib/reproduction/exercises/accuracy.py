"""Notebooks 05 and 06: grids of trainings, paired intervals, what can learn, inputs, magnitudes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from ...collapse import is_collapsed
from ...masks import Masks
from .check import Check, number, numbers, returns, several, truth, whole
from .collapse import reached

# ---------------------------------------------------------------------------------------------- 05

check_trainings = Check(
    number=1,
    kind="a whole number of networks",
    cases=lambda: [(5, 7, 3), (2, 4, 5), (1, 6, 2)],
    observe=returns(whole),
    right=lambda methods, compressions, seeds: seeds * (1 + methods * (compressions - 1)),
    mistakes={
        "the dense network is trained anew for every method; all methods share one per seed":
            lambda m, c, s: m * c * s,
        "the dense networks are missing: one for every seed": lambda m, c, s: m * (c - 1) * s,
        "one dense network for all seeds; every seed has its own":
            lambda m, c, s: 1 + m * (c - 1) * s,
        "compression 1 is one of the compressions: compressions - 1 remain for the methods":
            lambda m, c, s: s * (1 + m * c),
        "this is for one seed": lambda m, c, s: 1 + m * (c - 1),
        "one dense network for every method, but not every seed":
            lambda m, c, s: m * (1 + (c - 1) * s),
        "added where every method meets every compression: multiply":
            lambda m, c, s: s * (1 + m + c - 1),
    },
)  # fmt: skip


def _accuracies() -> Iterator[tuple]:
    """Few seeds, so that Student's t is far from 1.96, and an effect of the seed on both."""
    for n, seed in ((3, 0), (4, 1), (6, 2)):
        random = np.random.default_rng(seed)
        shared = 70 + 10 * random.normal(size=n)
        yield tuple((shared + random.normal(size=n) + shift).tolist() for shift in (2.0, 0.0))


def _half_width(
    differences: np.ndarray,
    quantile: Callable[[int], float] = lambda n: stats.t.ppf(0.975, n - 1),
    root: Callable[[int], float] = np.sqrt,
    freedom: int = 1,
) -> np.ndarray:
    """Half the width of the interval of a mean difference; seeds run along the last axis."""
    n = differences.shape[-1]
    return quantile(n) * differences.std(-1, ddof=freedom) / root(n)


WRONG_WIDTHS = {
    "1.96 is for many seeds; with n of them take Student's t, n - 1 degrees of freedom": {
        "quantile": lambda n: stats.norm.ppf(0.975)
    },
    "two mistakes: 1.96 is for many seeds (take Student's t, n - 1 degrees of freedom), and "
    "the standard deviation of a sample divides by n - 1 (ddof=1)": {
        "quantile": lambda n: stats.norm.ppf(0.975),
        "freedom": 0,
    },
    "the square root is forgotten: the error of a mean is s / sqrt(n), not s / n": {"root": float},
    "this is the spread of one difference; that of their mean is smaller by sqrt(n)": {
        "root": lambda n: 1
    },
    "the standard deviation divides by n; that of a sample divides by n - 1 (ddof=1)": {
        "freedom": 0
    },
    "Student's t has n - 1 degrees of freedom here, not n": {
        "quantile": lambda n: stats.t.ppf(0.975, n)
    },
    "a 90% interval: both ends take 2.5%, so ask t for 0.975": {
        "quantile": lambda n: stats.t.ppf(0.95, n - 1)
    },
}


def _interval(a: list, b: list, **width: object) -> tuple[float, float]:
    differences = np.array(a) - np.array(b)
    middle, half = differences.mean(), _half_width(differences, **width)
    return middle - half, middle + half


def _added(a: list, b: list) -> tuple[float, float]:
    middle, error = np.mean(a) - np.mean(b), np.hypot(stats.sem(a), stats.sem(b))
    half = stats.t.ppf(0.975, len(a) - 1) * error
    return middle - half, middle + half


check_paired_interval = Check(
    number=2,
    kind="two numbers, (low, high)",
    cases=_accuracies,
    observe=returns(several(number, 2)),
    right=_interval,
    rtol=2e-3,  # 1.96 and t's quantiles may be rounded
    mistakes={words: partial(_interval, **wrong) for words, wrong in WRONG_WIDTHS.items()}
    | {
        "this is b - a; asked is a - b": lambda a, b: _interval(b, a),
        "the seeds are not paired: subtract seed by seed before anything else":
            lambda a, b: stats.ttest_ind(a, b).confidence_interval(0.95),
        "the errors of two means are added: subtract seed by seed, and take the error of that":
            _added,
        "the seeds are not paired (this is Welch's interval): subtract seed by seed":
            lambda a, b: stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95),
        "this is the middle and half the width; asked are both ends":
            lambda a, b: (float(np.mean(_interval(a, b))), float(np.ptp(_interval(a, b)) / 2)),
        "the ends are swapped: low comes first": lambda a, b: _interval(a, b)[::-1],
    },
)  # fmt: skip


def _sparse_networks() -> Iterator[tuple]:
    for seed in range(18):
        layers = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
        net = nn.Sequential(*layers)
        net[0].bias.data += 0.4 - 3 * (seed % 2)  # in half of them most units are off
        share = (0.2, 0.2, 0.06)[seed % 3]
        weights = {name: p for name, p in net.named_parameters() if name.endswith("weight")}
        yield net, Masks({name: torch.rand_like(p) < share for name, p in weights.items()})


check_can_learn = Check(
    number=3,
    kind="True or False",
    cases=_sparse_networks,
    observe=returns(truth),
    right=lambda net, masks: reached(masks.values()).any(),
    mistakes={
        "this asks for empty layers; without one a network can be cut too":
            lambda net, masks: not is_collapsed(net, masks, "layer"),
        "the other way round: True where the network is cut":
            lambda net, masks: not reached(masks.values()).any(),
        "tried on inputs: a ReLU that is off there hides a path that training could switch on": (
            lambda net, masks: (
                masks.apply_(copy.deepcopy(net))(torch.randn(256, 6)).std(0).max() > 1e-6
            )
        ),
        "this asks for a path to every output; one is enough":
            lambda net, masks: reached(masks.values()).all(),
        "always True; some are cut, and then biases alone reach the output":
            lambda net, masks: True,
        "always False; some of these networks can learn": lambda net, masks: False,
    },
)  # fmt: skip

# ---------------------------------------------------------------------------------------------- 06


STATISTICS = {  # number of seeds -> t statistics, a few between any two likely limits
    4: (1.7, -1.8, 2.1, 2.5, 2.765, 2.9, -2.95, -3.1, 3.3, -3.5, 4.0, 5.0, -9.0, 12, -15, 400),
    3: (0.5, -1.8, 2.0, 2.2, 3.0, -3.1, 3.2, 3.4, 3.8, 4.1, 4.4, -4.8, 5.5, 8.0, 9.0, 400),
}


def _tables() -> Iterator[tuple]:
    """Tables whose differences have these t statistics."""
    for n, statistics in STATISTICS.items():
        random = np.random.default_rng(n)
        noise = random.normal(size=(len(statistics), n))
        noise -= noise.mean(1, keepdims=True)
        noise /= noise.std(1, ddof=1, keepdims=True)
        differences = noise + np.array(statistics)[:, None] / np.sqrt(n)
        b = 50 + 10 * random.normal(size=(1, n)) + random.normal(size=differences.shape)
        yield b + differences, b


def _clear(a: np.ndarray, b: np.ndarray, size: Callable = np.abs, **width: object) -> int:
    return int((size((a - b).mean(axis=1)) > _half_width(a - b, **width)).sum())


check_clear_differences = Check(
    number=1,
    kind="a whole number of compressions",
    cases=_tables,
    observe=returns(whole),
    right=_clear,
    mistakes={words: partial(_clear, **wrong) for words, wrong in WRONG_WIDTHS.items()}
    | {
        "only where a is better: a clear difference may be negative too, so take its magnitude":
            partial(_clear, size=np.positive),
        "only where b is better: a clear difference may have either sign, so take its magnitude":
            partial(_clear, size=np.negative),
        "these are the compressions whose interval holds zero; count the others":
            lambda a, b: len(a) - _clear(a, b),
        "none is clear, as if mean and spread ran over axis 0; the seeds are axis 1":
            lambda a, b: _clear(a.T, b.T),
        "the seeds are not paired: subtract seed by seed before anything else":
            lambda a, b: int((stats.ttest_ind(a, b, axis=1).pvalue < 0.05).sum()),
    },
)  # fmt: skip


def _dead_inputs() -> Iterator[tuple]:
    for _ in range(3):
        a = torch.rand(5) * (torch.arange(5) != 2)  # one input is dead
        yield torch.randn(5, 5), torch.randn(5, 5), a


def _flows(first: Tensor, second: Tensor, a: Tensor, signs: bool = False, out: int = 0):
    first, second = (first, second) if signs else (first.abs(), second.abs())
    return first * a * second.sum(out)[:, None], second * (first @ a)


check_synflow_from = Check(
    number=2,
    kind="two tensors of scores, those of the first layer and those of the second",
    cases=_dead_inputs,
    observe=returns(several(numbers, 2)),
    right=_flows,
    rtol=1e-4,
    mistakes={
        "signs are left in: SynFlow takes the magnitude of every weight":
            partial(_flows, signs=True),
        "these are SynFlow's own scores, from ones; start from a":
            lambda w, v, a: _flows(w, v, torch.ones_like(a)),
        "the two layers are swapped: the first layer's scores come first":
            lambda w, v, a: _flows(w, v, a)[::-1],
        "the second layer forgets what reaches its units: |first| @ a":
            lambda w, v, a: (_flows(w, v, a)[0], v.abs()),
        "the first layer forgets the inputs: its scores hold a as a factor":
            lambda w, v, a: (w.abs() * v.abs().sum(0)[:, None], _flows(w, v, a)[1]),
        "the first layer forgets what leaves its units: the column sums of |second|":
            lambda w, v, a: (w.abs() * a, _flows(w, v, a)[1]),
        "`second` is [outputs, hidden]: what leaves a hidden unit is the sum of a column":
            partial(_flows, out=1),
        "these are derivatives; a score is the derivative times the weight": lambda w, v, a: (
            (a * v.abs().sum(0)[:, None]).expand_as(w),
            (w.abs() @ a).expand_as(v),
        ),
        "what leaves a unit multiplies its *row* of `first`, not a column":
            lambda w, v, a: (w.abs() * a * v.abs().sum(0), _flows(w, v, a)[1]),
    },
)  # fmt: skip


def _left(
    n1: int,
    s1: float,
    n2: int,
    s2: float,
    last: Callable[[int], float] = lambda n: stats.norm.ppf((1 + 0.5 ** (1 / n)) / 2),
    sides: int = 2,
) -> float:
    return float(n2 * sides * stats.norm.sf(s1 * last(n1) / s2))


check_left_in_second = Check(
    number=3,
    kind="a number of weights",
    cases=lambda: [(3_000, 0.5, 8_000, 1.0), (7_000, 2.0, 5_000, 4.2)],
    observe=returns(number),
    right=_left,
    rtol=0.15,
    mistakes={
        "only one tail: magnitudes are large on both sides of zero": partial(_left, sides=1),
        "the largest of the signed weights: the largest *magnitude* goes last, and is larger":
            partial(_left, last=lambda n: stats.norm.ppf(0.5 ** (1 / n))),
        "these are the weights that go; asked are those left":
            lambda n1, s1, n2, s2: n2 - _left(n1, s1, n2, s2),
        "s1 and s2 are swapped: it is the first layer that is emptied, at s1 times a quantile":
            lambda n1, s1, n2, s2: _left(n1, s2, n2, s1),
        "sqrt(2 log n) is too large for the maximum of a few thousand: use the quantile":
            partial(_left, last=lambda n: math.sqrt(2 * math.log(n))),
        "this is a share; multiply by n2": lambda n1, s1, n2, s2: _left(n1, s1, 1, s2),
        "the share of n1 weights; what is left is a share of the second layer's n2":
            lambda n1, s1, n2, s2: _left(n1, s1, n1, s2),
        "the threshold is not divided by s2: the second layer's weights are that wide":
            lambda n1, s1, n2, s2: _left(n1, s1, n2, 1.0),
        "the threshold is a typical weight; the first layer is empty when its *largest* goes":
            partial(_left, last=lambda n: 1.0),
    },
)  # fmt: skip
