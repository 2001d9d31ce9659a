"""Notebook 09, the course lab: what it trains, times and counts, its checks and its rubric."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ... import env
from ...collapse import is_collapsed
from ...masks import Masks
from ...network import prunable
from ...pruning import prune
from ...surgery import flops, without_dead_units
from ...training.recipes import COLAB, Recipe, paper_recipe
from ..grids import DIGITS_FC, Grid, Panel
from ..paper import FIVE

ALPHAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # densities 10^-0.05 ... 10^-2

_DIGITS_CONV = Panel(
    "digits", "conv", Recipe(3, 0.1, 64, weight_decay=1e-4, one_cycle=True), (0.0, *ALPHAS),
    model_options={"batch_norm": True, "depth": 4, "width": 8},
)  # fmt: skip
_CIFAR_VGG = Panel("cifar10", "vgg16", replace(COLAB, epochs=10), (0.0, *ALPHAS))
_MNIST_FC = Panel("mnist", "fc", Recipe(5, 0.1, 512, weight_decay=1e-4, one_cycle=True), (0.0, 1.0))
# The convolutional network over all densities, the perceptron, and seeds at a tenth of the weights.
_SCALES = {
    "classroom": (_DIGITS_CONV, replace(DIGITS_FC, alphas=(0.0, 1.0), methods=FIVE), 3),
    "colab": (_CIFAR_VGG, _MNIST_FC, 1),
    "panel": (_CIFAR_VGG, _MNIST_FC, 3),
    "paper": (replace(_CIFAR_VGG, recipe=paper_recipe("cifar10", "vgg16")), _MNIST_FC, 3),
}


def at_ten_percent() -> Grid:
    """Both networks of the current scale, dense and with a tenth of their weights.

    >>> [panel.model for panel in at_ten_percent().panels]
    ['conv', 'fc']
    """
    network, perceptron, seeds = _SCALES[env.scale()]
    return Grid((replace(network, alphas=(0.0, 1.0)), perceptron), seeds)


def over_densities() -> Grid:
    """The convolutional network of the current scale over all densities, one seed.

    >>> len(over_densities().runs())
    31
    """
    return Grid((_SCALES[env.scale()][0],), 1)


def masks_of(panel: Panel) -> dict[tuple[Hashable, float], Masks]:
    """(method, compression) -> the masks that the runs of a panel with seed 0 train under."""
    net, data = panel.network()
    return {
        (run.method, run.compression): prune(
            net, run.method, run.compression, data.scoring_batch(), progress=False
        )
        for _, _, run in panel.points(1)
        if run.method != "dense"
    }


def density_table(masks: Mapping[tuple[str, float], Masks]) -> pd.DataFrame:
    """The density of every layer, the input of `figures.layer_fractions`.

    Args:
        masks: (method, compression) -> masks.

    Returns:
        One row a mask and layer: method, compression, layer (its number, 1 at the input), name,
        kept, total, density.
    """
    tables = []
    for (method, compression), each in masks.items():
        found = each.table().rename(columns={"layer": "name"})
        found.insert(0, "layer", range(1, len(found) + 1))
        tables.append(found.assign(method=method, compression=compression))
    return pd.concat(tables, ignore_index=True)


# ------------------------------------------------------------------------------------ time, weights


def inference_times(
    net: nn.Module,
    masks: Mapping[tuple[str, float], Masks],
    images: Tensor,
    repeats: int = 41,
) -> pd.DataFrame:
    """Time of a forward pass: dense, with masks written in as zeros, and with dead units cut out.

    The three take turns, so that whatever slows the machine down slows all of them; one turn before
    is not counted. Compare the fastest calls: other work can only add time. The quartiles tell how
    much it added.

    Args:
        net: the network in evaluation mode; it is left as it is.
        masks: (method, compression) -> masks.
        images: [n, channels, height, width], on the network's device.
        repeats: turns, at least 1.

    Returns:
        One row a mask and network: method, compression, network ("dense", "masked", "cut"),
        fastest, low, median and high (milliseconds: of all turns the fastest, and the quartiles),
        executed (multiply-adds of one image that the network carries out, those with zeros
        included), counted (those with kept weights) and disconnected (whether no path is left: the
        network is a constant).

    Raises:
        ValueError: repeats below 1, or a network whose units cannot be cut out.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}; expected a whole number from 1")
    rows = []
    for (method, compression), each in masks.items():
        networks = {
            "dense": net,
            "masked": each.apply_(copy.deepcopy(net)),
            "cut": without_dead_units(net, each),
        }
        dense, counted = flops(net, each)[["dense", "pruned"]].sum().tolist()
        small = int(flops(networks["cut"], None, images.shape[1:])["dense"].sum())
        dead = is_collapsed(net, each, criterion="path", input_shape=images.shape[1:])
        for name, times in _in_turns(networks, images, repeats).items():
            milliseconds = np.quantile(times, (0, 0.25, 0.5, 0.75)) * 1e3
            executed = small if name == "cut" else dense  # zeros are multiplied like any number
            rows.append((method, compression, name, *milliseconds, executed, counted, dead))
    columns = ["method", "compression", "network", "fastest", "low", "median", "high"]
    return pd.DataFrame(rows, columns=[*columns, "executed", "counted", "disconnected"])


def _in_turns(
    networks: Mapping[str, nn.Module], images: Tensor, repeats: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in networks}
    with torch.no_grad():
        for _ in range(repeats + 1):
            for name, each in networks.items():
                start = time.perf_counter()
                each(images).cpu()  # on a GPU the copy waits for the result
                times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def weight_histograms(
    net: nn.Module, masks: Mapping[Hashable, Masks], bins: int = 24
) -> pd.DataFrame:
    """How often a weight of each size stands in each layer, before pruning and among those kept.

    Args:
        net: the network, its weights as they are to be shown.
        masks: method -> masks.
        bins: of equal width, at least 1, from -4 to 4 standard deviations of the layer's weights
            before pruning; what lies beyond is counted in the outermost.

    Returns:
        One row a method, layer and bin: method ("dense": before pruning), layer (its number, 1 at
        the input), name, left and right (edges, in standard deviations), weights (a count).

    >>> from synflow_lib import models
    >>> net = models.fc((1, 8, 8), depth=2, seed=0)
    >>> table = weight_histograms(net, {"magnitude": prune(net, "magnitude", 10)}, bins=8)
    >>> table.groupby("method")["weights"].sum().to_dict()
    {'dense': 7400, 'magnitude': 740}
    """
    edges = np.linspace(-4, 4, bins + 1)
    rows = []
    for method, each in {"dense": Masks.ones(net), **masks}.items():
        for layer, (name, weight) in enumerate(prunable(net).items(), 1):
            scaled = weight.detach() / weight.detach().std()
            kept = scaled[each[name].to(scaled.device)].clamp(-4, 4).cpu().numpy()
            counts, _ = np.histogram(kept, edges)
            bounds = zip(edges[:-1], edges[1:], counts, strict=True)
            rows += [(method, layer, name, *each_bin) for each_bin in bounds]
    return pd.DataFrame(rows, columns=["method", "layer", "name", "left", "right", "weights"])


# ------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True)
class Check:
    """What an exercise asks, as a check that calls an answer and says what it saw.

    Attributes:
        number: of the exercise.
        cases: makes a few tuples of arguments, random ones.
        right: the wanted value.
        mistakes: what to say -> what the mistake computes; arguments as for ``right``.
        read: a value as plain numbers (None where it is not of the kind expected).
        kind: what is expected, in words.
        points: what a right answer earns.
    """

    number: int
    cases: Callable[[np.random.Generator], Iterator[tuple]]
    right: Callable
    mistakes: Mapping[str, Callable]
    read: Callable[[object], object]
    kind: str
    points: int = 8

    def __call__(self, answer: object) -> str:
        """``exercise N: solved``, or ``exercise N: not yet, ...``; it never raises."""
        said = self._fault(answer)
        return f"exercise {self.number}: " + (f"not yet, {said}" if said else "solved")

    def _fault(self, answer: object) -> str | None:
        if not callable(answer):
            return f"expected a function, got {type(answer).__name__}"
        for case in self.cases(np.random.default_rng()):
            try:
                value = answer(*copy.deepcopy(case))
                found = self.read(value)
            except Exception as error:  # whatever a student's code raises
                return f"it raises {type(error).__name__}: {error}"
            if value is None:
                return f"it returns nothing; expected {self.kind}"
            if found is None:
                return f"it returns {_named(value)}; expected {self.kind}"
            if _same(found, self.read(self.right(*case))):
                continue
            for words, wrong in self.mistakes.items():
                if _same(found, self.read(wrong(*case))):
                    return words
            return f"other values than expected; expected is {self.kind}"
        return None


def _named(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")


def _numbers(value: object) -> np.ndarray | None:
    """Numbers of Python, numpy or torch as an array; None for anything else, texts included."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    elif isinstance(value, (list, tuple)):
        value = [each.item() if isinstance(each, Tensor) else each for each in value]
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal length
        return None
    return array.astype(float) if array.dtype.kind in "iuf" else None


def _one(value: object) -> np.ndarray | None:
    found = _numbers(value)
    return found.reshape(()) if found is not None and found.size == 1 else None


def _many(value: object) -> np.ndarray | None:
    found = _numbers(value)
    return np.sort(found.ravel()) if found is not None and found.ndim else None


def _three(value: object) -> np.ndarray | None:
    found = _numbers(value)
    return found if found is not None and found.shape == (3,) else None


def _by_name(value: object) -> dict | None:
    if not isinstance(value, (Mapping, pd.Series)):
        return None
    found = {name: _one(each) for name, each in value.items()}
    return None if any(each is None for each in found.values()) else found


def _frame(value: object) -> dict | None:
    if not isinstance(value, pd.DataFrame):
        return None
    cells = {(row, name): _one(value.loc[row, name]) for row in value.index for name in value}
    return None if any(each is None for each in cells.values()) else cells


def _same(found: object, wanted: object) -> bool:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[k], wanted[k]) for k in wanted)
    if not isinstance(found, np.ndarray) or not isinstance(wanted, np.ndarray):
        return False
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-5, atol=1e-8)


def _layers(random: np.random.Generator) -> Iterator[tuple]:
    for _ in range(3):
        rows, columns = random.integers(4, 9, 2)
        weight = torch.from_numpy(random.normal(size=(rows, columns)))
        mask = torch.from_numpy(random.random((rows, columns)) < 0.4)
        mask[0, :3] = True
        mask[1, :2] = False
        weight[0, 0] = 0.0  # a kept weight may be zero
        yield weight, mask


def _mask_sets(random: np.random.Generator) -> Iterator[tuple]:
    for _ in range(3):
        sizes = {"conv.weight": (4, 3, 3, 3), "fc.weight": (5, int(random.integers(6, 12)))}
        masks = {
            name: torch.from_numpy(random.random(size) < share)
            for (name, size), share in zip(sizes.items(), (0.6, 0.2), strict=True)
        }
        masks["fc.weight"][0, :2] = True
        yield (Masks(masks),)


def _kernels(random: np.random.Generator) -> Iterator[tuple]:
    for _ in range(3):
        mask = torch.from_numpy(random.random((5, 4, 3, 3)) < 0.3)
        mask[0, 0, 0, 0] = True
        yield mask, int(random.integers(5, 9)), int(random.integers(10, 15))


def _clocks(random: np.random.Generator) -> Iterator[tuple]:
    for _ in range(3):
        later = random.lognormal(1, 0.6, int(random.integers(8, 15)))
        yield ([float(later.max() * 5), *later.tolist()],)


def _tables(random: np.random.Generator) -> Iterator[tuple]:
    points = [
        (m, d, c, s) for m in ("conv", "fc") for d in FIVE for c in (1.0, 10.0) for s in (0, 1)
    ]
    for _ in range(2):
        table = pd.DataFrame(points, columns=["model", "method", "compression", "seed"])
        table["accuracy"] = random.uniform(10, 90, len(table))
        yield (table.assign(best=table["accuracy"] + random.uniform(1, 9, len(table))),)


def _pivot(table: pd.DataFrame, values: str = "accuracy", how: str = "mean") -> pd.DataFrame:
    return table.pivot_table(index="method", columns="model", values=values, aggfunc=how)


def _pruned(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["compression"] == 10]


def _quartiles(times: Iterable[float]) -> tuple[float, ...]:
    return tuple(np.quantile(times, (0.5, 0.25, 0.75)))


def _share(masks: Masks, of: Callable[[Tensor], float]) -> dict[str, float]:
    return {name: float(of(mask.double())) for name, mask in masks.items()}


check_kept_weights = Check(
    1,
    _layers,
    lambda w, m: w[m],
    {
        "the pruned weights are among them, as zeros": lambda w, m: w * m,
        "these are the weights that were pruned": lambda w, m: w[~m],
        "signs are lost: these are absolute values": lambda w, m: w[m].abs(),
        "a kept weight that happens to be zero is missing: ask the mask": lambda w, m: w[
            w * m != 0
        ],
        "these are all weights, pruned ones included": lambda w, m: w,
        "this is the mask, not the weights under it": lambda w, m: m.double(),
    },
    _many,
    "a tensor of the kept weights",
)
check_layer_densities = Check(
    2,
    _mask_sets,
    lambda m: _share(m, Tensor.mean),
    {
        "this is the sparsity, 1 - density": lambda m: _share(m, lambda x: 1 - x.mean()),
        "these are counts; divide by the layer's size": lambda m: _share(m, Tensor.sum),
        "this is the compression, 1 / density": lambda m: _share(m, lambda x: 1 / x.mean()),
        "these are percent; a density lies from 0 to 1": lambda m: _share(
            m, lambda x: 100 * x.mean()
        ),
        "every layer has the density of the network": lambda m: dict.fromkeys(m, m.density),
        "this is a layer's share of all kept weights": lambda m: _share(
            m, lambda x: x.sum() / m.kept
        ),
        "divided by the size of the network instead of the layer's": lambda m: _share(
            m, lambda x: x.sum() / m.total
        ),
    },
    _by_name,
    "a dict of layer name -> density",
)
check_conv_multiply_adds = Check(
    3,
    _kernels,
    lambda m, h, w: m.sum() * h * w,
    {
        "every kept weight is used once at every place of the output map; "
        "this counts one place": lambda m, h, w: m.sum(),
        "this is the dense layer's count: only kept weights are multiplied": lambda m, h, w: (
            m.numel() * h * w
        ),
        "twice too much: a multiply-add is one here": lambda m, h, w: 2 * m.sum() * h * w,
        "the map is taken as square; it is height x width": lambda m, h, w: m.sum() * h * h,
        "output channels are counted twice: the mask holds them already": lambda m, h, w: (
            m.sum() * h * w * len(m)
        ),
        "biases are counted; additions of biases are no multiply-adds": lambda m, h, w: (
            (m.sum() + len(m)) * h * w
        ),
    },
    _one,
    "a number",
)
check_middle_half = Check(
    4,
    _clocks,
    lambda t: _quartiles(t[1:]),
    {
        "the first call is in it; it warms up and does not count": _quartiles,
        "a mean and standard deviations: one slow call moves both": lambda t: (
            float(np.mean(t[1:])),
            float(np.mean(t[1:]) - statistics.stdev(t[1:])),
            float(np.mean(t[1:]) + statistics.stdev(t[1:])),
        ),
        "the mean instead of the median: one slow call moves it": lambda t: (
            float(np.mean(t[1:])),
            *_quartiles(t[1:])[1:],
        ),
        "smallest and largest instead of the quartiles": lambda t: (
            statistics.median(t[1:]),
            min(t[1:]),
            max(t[1:]),
        ),
        "the order is median, lower quartile, upper quartile": lambda t: tuple(
            sorted(_quartiles(t[1:]))
        ),
        "quartiles swapped: the lower comes first": lambda t: (
            *_quartiles(t[1:])[:1],
            *_quartiles(t[1:])[:0:-1],
        ),
    },
    _three,
    "three numbers: median, lower and upper quartile",
)
check_ten_percent = Check(
    5,
    _tables,
    lambda t: _pivot(_pruned(t)),
    {
        "the dense networks are averaged in: choose compression 10": _pivot,
        "these are the dense networks, compression 1": lambda t: _pivot(t[t["compression"] == 1]),
        "the best seed instead of the mean over seeds": lambda t: _pivot(_pruned(t), how="max"),
        "one seed instead of the mean over seeds": lambda t: _pivot(_pruned(t), how="first"),
        "the best epoch on the test set: that chooses with the test set": lambda t: _pivot(
            _pruned(t), "best"
        ),
        "methods are the rows and networks the columns": lambda t: _pivot(_pruned(t)).T,
        "a fraction; accuracy is in percent": lambda t: _pivot(_pruned(t)) / 100,
    },
    _frame,
    "a DataFrame of numbers, a row a method, a column a model",
)
CHECKS = (
    check_kept_weights,
    check_layer_densities,
    check_conv_multiply_adds,
    check_middle_half,
    check_ten_percent,
)
REPORT = {  # part -> points
    "a tenth of the weights": 12,
    "from nearly dense to one percent": 12,
    "multiply-adds and milliseconds": 12,
    "where the weights go": 12,
    "advice": 12,
}


def rubric(answers: Iterable[object]) -> pd.DataFrame:
    """The points of the lab: exercises as their checks find them, the report for a reader.

    Args:
        answers: the functions of the exercises, in order.

    Returns:
        One row a part: part, graded ("check" or "reader"), points (NaN until a reader gives
        them), of; the last row is the total so far.

    >>> print(rubric([None] * 5).tail(1).to_string(index=False, header=False))
    together 0.0 100
    """
    rows = [
        (f"exercise {check.number}", "check", check.points * check(each).endswith(": solved"))
        for check, each in zip(CHECKS, answers, strict=True)
    ]
    rows += [(f"report: {part}", "reader", np.nan) for part in REPORT]
    table = pd.DataFrame(rows, columns=["part", "graded", "points"])
    table["of"] = [*(check.points for check in CHECKS), *REPORT.values()]
    table.loc[len(table)] = ["together", "", float(table["points"].sum()), int(table["of"].sum())]
    return table
