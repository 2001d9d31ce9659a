"""Layers through training, and iterative magnitude pruning: figure 5, notebook 03."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...data import Dataset
from ...graph import prunable
from ...models.build import build
from ...training.recipes import Recipe
from ...training.train import Training, train


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
