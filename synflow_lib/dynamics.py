"""Layers through training, and iterative magnitude pruning: figure 5, notebook 03."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import env, models
from .data import Dataset
from .graph import prunable
from .models.build import build
from .paper import loglog_slope
from .recipes import COLAB, FIGURE_5A, FIGURE_5B, Recipe
from .runs import Run
from .training import Training, train


@dataclass(frozen=True)
class Network:
    """A network of figure 5a: how it is called, made, and pruned (``rewinds`` as in `Run`)."""

    label: str
    model: str
    options: Mapping[str, object] = field(default_factory=dict)
    rounds: tuple[int, ...] = (1, 3, 5)
    rewinds: tuple[int | None, ...] = (0, None)


@dataclass(frozen=True)
class ImpGrid:
    """Figure 5a at one scale: networks, compressions 10**alpha, and seeds behind each point."""

    dataset: str
    recipe: Recipe
    alphas: tuple[float, ...]
    seeds: int
    networks: tuple[Network, ...]

    def labelled(self) -> Iterator[tuple[dict, Run]]:
        """(network, rewound, rounds) and the run of every point; 0 rounds: magnitude, untrained.

        >>> labels, run = next(imp_grid().labelled())
        >>> labels["rounds"], run.method
        (0, 'magnitude')
        """
        for net in self.networks:
            for rewind in net.rewinds:
                for rounds in (0, *net.rounds):
                    how = {"method": "magnitude"}
                    if rounds:
                        how = {"method": "imp", "iterations": rounds, "rewind": rewind}
                    labels = {"network": net.label, "rewound": rewind == 0, "rounds": rounds}
                    for alpha in self.alphas:
                        for seed in range(self.seeds):
                            yield labels, Run(
                                dataset=self.dataset, model=net.model, compression=10.0**alpha,
                                recipe=self.recipe, seed=seed, model_options=net.options, **how,
                            )  # fmt: skip

    def runs(self) -> list[Run]:
        """Every run once."""
        return list(dict.fromkeys(run for _, run in self.labelled()))

    def table(self, results: pd.DataFrame) -> pd.DataFrame:
        """What `sweep` gave for these runs, a row a point and seed; without runs that failed.

        Returns:
            network, rewound, rounds, compression, seed, accuracy (percent, last epoch),
            disconnected, empty_layers, kept.
        """
        outcome = ["key", "compression", "seed", "top1", "disconnected", "empty_layers", "kept"]
        found = results.loc[results["status"] == "done", outcome]
        points = pd.DataFrame([{**labels, "key": run.key} for labels, run in self.labelled()])
        table = points.merge(found, on="key").drop(columns="key")
        table = table.rename(columns={"top1": "accuracy"})
        return table.astype({"disconnected": bool, "empty_layers": int, "kept": int})


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
        shape, classes = dataset.input_shape, dataset.num_classes
        if self.model == "tapered":
            net = tapered(shape, classes, seed=seed, **self.options)
        else:
            net = models.by_name(
                self.model, num_classes=classes, input_size=shape[1], seed=seed, **self.options
            )
        return xavier_(net, gain, seed)


_IMP = {
    "classroom": ImpGrid(
        "digits", Recipe(8, 0.1, weight_decay=1e-4, one_cycle=True),
        (1.0, 1.5, 2.0, 2.5, 3.0, 3.5), 3,
        (
            Network("without BatchNorm", "fc"),
            Network("with BatchNorm", "fc", {"batch_norm": True}, (1, 3), (None,)),
        ),
    ),
    "colab": ImpGrid(
        "cifar10", COLAB, (1.0, 2.0, 2.5, 3.0, 3.5), 1,
        (Network("VGG-11 (BN)", "vgg11", rounds=(1, 3), rewinds=(None,)),),
    ),
    "paper": ImpGrid(
        "cifar10", FIGURE_5A, tuple(step / 10 for step in range(50)), 3,
        (Network("VGG-11 (BN)", "vgg11", rounds=(1, 2, 3, 4, 5)),),
    ),
}  # fmt: skip
_VGG = {"batch_norm": False}
_DRIFT = {
    "classroom": Drift("digits", "tapered", Recipe(40, 0.01, 64), (1.0, 0.5), 3),
    "colab": Drift("cifar10", "vgg19", Recipe(25, 0.001, augment=True), (1.0,), 1, _VGG),
    "paper": Drift("cifar10", "vgg19", FIGURE_5B, (1.0,), 3, _VGG),
}


def imp_grid() -> ImpGrid:
    """The grid of figure 5a at the current scale.

    >>> imp_grid().seeds >= 1
    True
    """
    return _IMP[env.scale()]


def drift() -> Drift:
    """The settings of figure 5b at the current scale.

    >>> drift().gains[0]
    1.0
    """
    return _DRIFT[env.scale()]


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
    """Draw all prunable weights anew, in place: normal, variance gain^2 2 / (fan_in + fan_out).

    >>> small, large = (xavier_(tapered(), gain) for gain in (0.5, 1.0))
    >>> torch.allclose(2 * small[1].weight, large[1].weight)
    True
    """
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
    model: nn.Module, dataset: Dataset, recipe: Recipe, seed: int = 0
) -> tuple[Training, pd.DataFrame]:
    """`train` all weights in place, and `layer_norms` before training and after each epoch.

    Returns:
        The training, and a table like `layer_norms` with a column epoch (0: initialization).

    >>> from synflow_lib import data
    >>> training, table = train_watching(tapered(seed=0), data.digits(), Recipe(1, 0.01))
    >>> table.groupby("epoch").size().to_dict()
    {0: 5, 1: 5}
    """
    seen = []
    training = train(
        model, None, dataset, recipe, seed=seed,
        after_epoch=lambda epoch, net: seen.append(layer_norms(net).assign(epoch=epoch)),
    )  # fmt: skip
    return training, pd.concat(seen, ignore_index=True)


def slope_by_epoch(table: pd.DataFrame, by: Iterable[str] = ()) -> pd.DataFrame:
    """Log-log slope of mean squared weight against inverse layer size; 1 is the conservation line.

    Args:
        table: epoch, layer_size, mean_squared_weight, and the columns ``by`` that tell runs apart.

    >>> from synflow_lib import paper
    >>> slopes = slope_by_epoch(paper.figure5b())
    >>> slopes["slope"].iloc[[0, -1]].round(2).tolist()
    [0.43, 0.59]
    """
    keys = [*by, "epoch"]
    rows = [
        (*key, loglog_slope(g["layer_size"], g["mean_squared_weight"]))
        for key, g in table.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, "slope"])


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

    >>> from synflow_lib import data
    >>> net, batch = xavier_(tapered()), data.digits().scoring_batch(2)
    >>> found = law_error(net, batch, [0.01, 0.005], time=0.2)
    >>> bool(1.8 < found.error[0] / found.error[1] < 2.2)
    True
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
