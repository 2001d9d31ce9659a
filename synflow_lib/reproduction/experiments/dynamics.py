"""Layers through training, and iterative magnitude pruning: figure 5, notebook 03."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ... import env, models
from ...data import Dataset
from ...graphs.network import prunable
from ...models.build import build
from ...training.recipes import COLAB, FIGURE_5A, FIGURE_5B, Recipe
from ..grids import Grid, Panel
from . import trained


def tapered(
    input_shape: Sequence[int] = (1, 8, 8),
    num_classes: int = 10,
    widths: Sequence[int] = (400, 200, 100, 50),
    seed: int | None = None,
) -> nn.Sequential:
    """A ReLU perceptron without biases whose layers have very different sizes.

    >>> [weight.numel() for weight in prunable(tapered(seed=0)).values()]
    [25600, 80000, 20000, 5000, 500]
    """
    sizes = [int(np.prod(input_shape)), *widths, num_classes]

    def layout() -> nn.Sequential:
        layers = [(nn.Linear(a, b, bias=False), nn.ReLU()) for a, b in pairwise(sizes)]
        return nn.Sequential(nn.Flatten(), *[m for pair in layers for m in pair][:-1])

    return build(layout, seed, tuple(input_shape), conv_fan="fan_in")


@torch.no_grad()
def xavier_(model: nn.Module, gain: float = 1.0, seed: int = 0) -> nn.Module:
    """Draw all prunable weights anew, in place: normal, variance gain^2 2 / (fan_in + fan_out)."""
    generator = torch.Generator().manual_seed(seed)
    for weight in prunable(model).values():
        drawn = nn.init.xavier_normal_(torch.empty(weight.shape), gain, generator=generator)
        weight.copy_(drawn)
    return model


def layer_norms(model: nn.Module) -> pd.DataFrame:
    """Size and squared norm of every layer, biases counted as the paper's figure 5b does.

    Returns:
        One row a layer: layer (from 1), layer_size, squared_norm, mean_squared_weight, and
        difference: squared_norm minus the squared weights of the next layer, which gradient flow
        conserves in a ReLU chain without BatchNorm (NaN for the last layer).

    >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    >>> for p in net.parameters(): _ = nn.init.ones_(p)
    >>> layer_norms(net)[["layer_size", "squared_norm", "difference"]].values.tolist()
    [[6.0, 6.0, 3.0], [3.0, 3.0, nan]]
    """
    named = dict(model.named_parameters())
    rows, weights = [], []
    for name, weight in prunable(model).items():
        bias = named.get(name.removesuffix("weight") + "bias")
        parts = [weight] if bias is None else [weight, bias]
        squares = [float(part.detach().double().square().sum()) for part in parts]
        weights.append(squares[0])
        rows.append((len(rows) + 1, sum(part.numel() for part in parts), sum(squares)))
    table = pd.DataFrame(rows, columns=["layer", "layer_size", "squared_norm"])
    following = np.array([*weights[1:], np.nan])
    return table.assign(
        mean_squared_weight=table["squared_norm"] / table["layer_size"],
        difference=table["squared_norm"] - following,
    )


def train_watching(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    seed: int = 0,
    store: str | Path | None = None,
) -> tuple[float, pd.DataFrame]:
    """Train all weights in place, or read what was; `layer_norms` before and after each epoch.

    Returns:
        Top-1 test accuracy at the end, in percent (arguments as in `trained.network`), and a table
        like `layer_norms` with a column epoch (0: initialization).
    """
    accuracy, seen = trained.network(
        model, dataset, recipe, seed, lambda net: layer_norms(net).to_dict("list"), store
    )
    # In a store NaN is a text.
    tables = [pd.DataFrame(norms, dtype=float).assign(epoch=n) for n, norms in enumerate(seen)]
    return accuracy, pd.concat(tables, ignore_index=True).astype({"layer": int})


def law_error(
    model: nn.Module, batch: tuple[Tensor, Tensor], rates: Sequence[float], time: float
) -> pd.DataFrame:
    """Full-batch gradient descent in float64 for one span of time, in steps of several sizes.

    Args:
        model: a ReLU chain without BatchNorm; a copy is trained.
        batch: images and labels.
        rates: learning rates; each takes ``time / rate`` steps.

    Returns:
        One row a rate: learning_rate, steps, loss (at the end), gain (mean growth of a layer's
        squared norm), error (largest change of a difference that gradient flow conserves).
    """
    rows = []
    for rate in rates:
        net, steps = copy.deepcopy(model).double(), round(time / rate)
        x, y, before = batch[0].double(), batch[1], layer_norms(net)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(net(x), y)
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                torch._foreach_add_(list(net.parameters()), gradients, alpha=-rate)
        change = layer_norms(net) - before
        gain, error = change["squared_norm"].mean(), change["difference"].abs().max()
        rows.append((rate, steps, loss.item(), gain, error))
    return pd.DataFrame(rows, columns=["learning_rate", "steps", "loss", "gain", "error"])


# ------------------------------------------------------------------------------------ the scales

# (rewound, rounds) -> the run; after 0 rounds of training, magnitude prunes untrained weights.
IMP_VARIANTS = {
    (rewound, rounds): {"method": "imp", "iterations": rounds, "rewind": 0 if rewound else None}
    for rewound in (True, False)
    for rounds in range(1, 6)
} | dict.fromkeys([(True, 0), (False, 0)], {"method": "magnitude"})


def imp_panel(
    title: str,
    dataset: str,
    model: str,
    recipe: Recipe,
    alphas: tuple[float, ...],
    rounds: Iterable[int] = (1, 2, 3, 5),
    rewound: Iterable[bool] = (True, False),
    **model_options: object,
) -> Panel:
    """A network of figure 5a: untrained and after each number of ``rounds``, rewound and not.

    >>> imp_panel("small", "digits", "fc", Recipe(1, 0.1), (1.0,), [3], [False]).methods
    ((False, 0), (False, 3))
    """
    methods = tuple((each, count) for each in rewound for count in (0, *rounds))
    return Panel(
        dataset, model, recipe, alphas, methods, model_options=model_options, variants=IMP_VARIANTS,
        title=title, one_dense=False,
    )  # fmt: skip


def imp_table(grid: Grid, results: pd.DataFrame) -> pd.DataFrame:
    """What `sweep` gave for a grid of `imp_panel`, a row a point and seed; without failed runs.

    Returns:
        network (its title), rewound, rounds, compression, seed, accuracy (percent, last epoch),
        disconnected, empty_layers, kept.
    """
    tables = []
    for panel in grid.panels:
        table = Grid((panel,), grid.seeds).table(results)
        labels = pd.DataFrame(table["method"].tolist(), columns=["rewound", "rounds"])
        tables.append(table.join(labels).assign(network=panel.title))
    columns = ["network", "rewound", "rounds", "compression", "seed", "accuracy"]
    columns += ["disconnected", "empty_layers", "kept"]
    return pd.concat(tables, ignore_index=True)[columns]


@dataclass(frozen=True)
class Drift:
    """Figure 5b at one scale: no BatchNorm, Xavier's standard deviation times each of ``gains``."""

    dataset: str
    model: str
    recipe: Recipe
    gains: tuple[float, ...]
    seeds: int
    options: Mapping[str, object] = field(default_factory=dict)

    def network(self, dataset: Dataset, gain: float, seed: int) -> nn.Module:
        """The network at initialization."""
        own = {**self.options, "num_classes": dataset.num_classes, "seed": seed}
        if self.model == "tapered":
            net = tapered(dataset.input_shape, **own)
        else:
            net = models.by_name(self.model, input_size=dataset.input_shape[1], **own)
        return xavier_(net, gain, seed)


_DIGITS = "digits", "fc", Recipe(8, 0.1, weight_decay=1e-4, one_cycle=True)
_ALPHAS = 1.0, 1.5, 2.0, 2.5, 3.0, 3.5
_VGG11 = "VGG-11 (BN)", "cifar10", "vgg11"
_TENTHS = tuple(step / 10 for step in range(50))
_SMALL = (
    imp_panel("without BatchNorm", *_DIGITS, _ALPHAS),
    imp_panel("with BatchNorm", *_DIGITS, _ALPHAS, (1, 3), (False,), batch_norm=True),
)
_IMP = {
    "classroom": Grid(_SMALL, 3),
    "colab": Grid((imp_panel(*_VGG11, COLAB, (1.0, 2.0, 2.5, 3.0, 3.5), (1, 3), (False,)),), 1),
    "panel": Grid((imp_panel(*_VGG11, COLAB, _ALPHAS, (1, 2, 3, 5), (False,)),), 1),
    "paper": Grid((imp_panel(*_VGG11, FIGURE_5A, _TENTHS, (1, 2, 3, 4, 5)),), 3),
}
_VGG = {"batch_norm": False}
_DRIFT = {
    "classroom": Drift("digits", "tapered", Recipe(40, 0.01, 64), (1.0, 0.5), 3),
    "colab": Drift("cifar10", "vgg19", Recipe(25, 0.001, augment=True), (1.0,), 1, _VGG),
    "panel": Drift("cifar10", "vgg19", FIGURE_5B, (1.0,), 1, _VGG),
    "paper": Drift("cifar10", "vgg19", FIGURE_5B, (1.0,), 3, _VGG),
}


def imp_grid() -> Grid:
    """The grid of figure 5a at the current scale."""
    return _IMP[env.scale()]


def drift() -> Drift:
    """The settings of figure 5b at the current scale."""
    return _DRIFT[env.scale()]
