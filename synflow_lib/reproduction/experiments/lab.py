"""Notebook 09, the course lab: what it trains, times and counts; its checks are exercises."""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ... import env
from ...collapse import is_collapsed
from ...graphs.network import prunable
from ...masks import Masks
from ...pruning import prune
from ...surgery import flops, without_dead_units
from ...training.recipes import COLAB, Recipe, paper_recipe
from ...values import whole
from ..exercises.lab import (  # noqa: F401 -- what notebook 09 calls
    CHECKS,
    check_conv_multiply_adds,
    check_kept_weights,
    check_layer_densities,
    check_middle_half,
    check_ten_percent,
    rubric,
)
from ..grids import DIGITS_FC, Grid, Panel
from ..paper import FIVE
from .collapse import by_layer

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
    table = by_layer({point: each.table() for point, each in masks.items()})
    return table[[*table.columns[2:], "method", "compression"]]


# ------------------------------------------------------------------------------------ time, weights


def inference_times(
    net: nn.Module, masks: Mapping[tuple[str, float], Masks], images: Tensor, repeats: int = 41
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
    repeats, rows = whole(repeats, "repeats", 1), []
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
