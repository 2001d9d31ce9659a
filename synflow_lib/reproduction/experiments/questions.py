"""Notebook 06, the reviewers' questions: what is trained, and how it is compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import pandas as pd
from torch import nn

from ... import env
from ...data import Dataset
from ...masks import Masks
from ...training.iterative import imp_many
from ...training.recipes import Recipe
from ...training.train import train_many
from .. import grids
from ..intervals import against
from . import trained

__all__ = ["WHY_5", "against", "networks", "study", "tickets", "train_masks", "trained_networks"]

# Measured: the same notebook on two processors moved ends of intervals at compression 100 by 2.3
# percent, by rounding alone. A margin of twice that does not ask which processor it was.
WHY_5 = "the smallest effect that counts here; rounding alone moves ends of intervals by 2 percent"


def study() -> grids.Grid:
    """Figure 1's small network at every scale, with the scale's number of seeds: hundreds of runs.

    >>> study().panel.model
    'fc'
    """
    return grids.Grid((grids.DIGITS_FC,), env.settings().seeds)


def networks() -> dict[str, grids.Panel]:
    """The two small networks whose collapse is measured, by the names that figures show."""
    return {"fully connected": grids.DIGITS_FC, "convolutional": grids.DIGITS_CONV}


def tickets(
    panel: grids.Panel, compression: float, rounds: int, seeds: Iterable[int]
) -> list[Masks]:
    """The masks of iterative magnitude pruning, rewound to initialization, one a seed.

    >>> small = {"n_train": 100, "n_test": 50}
    >>> how = {"data_options": small, "model_options": {"depth": 2}}
    >>> panel = grids.Panel("digits", "fc", Recipe(1, 0.1), (0.0,), ("random",), **how)
    >>> [masks.kept for masks in tickets(panel, 10, 1, [0, 1])]
    [740, 740]
    """
    seeds = list(seeds)
    nets, dataset = _networks(panel, seeds)
    described = [trained.describe(net) for net in nets]
    how = dataset.fingerprint, dataclasses.astuple(panel.recipe), compression, rounds
    file = trained.file_of(trained.key_of(described, seeds, *how))
    places = trained.read(file)  # of the weights that stay
    if places is None:
        found = imp_many(
            nets, dataset, panel.recipe, [compression] * len(seeds),
            rounds=rounds, rewind=0, seeds=seeds,
        )  # fmt: skip
        places = [
            {name: mask.flatten().nonzero().flatten().tolist() for name, mask in last.items()}
            for last in (copies[-1].masks for copies in found)
        ]
        trained.write(file, places)
    masks = [Masks.ones(net) for net in nets]
    for each, kept in zip(masks, places, strict=True):
        for name, mask in each.items():
            mask.zero_().view(-1)[kept[name]] = True
    return masks


def trained_networks(panel: grids.Panel, seeds: Iterable[int]) -> list[nn.Module]:
    """The dense networks of a panel after training, one a seed."""
    seeds = list(seeds)
    nets, dataset = _networks(panel, seeds)
    train_many(nets, [None] * len(nets), dataset, panel.recipe, seeds=seeds)
    return nets


def _networks(panel: grids.Panel, seeds: list[int]) -> tuple[list[nn.Module], Dataset]:
    net, dataset = panel.network(seeds[0])
    return [net, *(panel.network(seed, dataset)[0] for seed in seeds[1:])], dataset


def train_masks(
    make: Callable[[int], nn.Module],
    masks: Iterable[tuple[str, int, Masks]],
    dataset: Dataset,
    recipe: Recipe,
) -> pd.DataFrame:
    """Train any masks, many at once: for masks that no `Run` can describe.

    Args:
        make: seed -> the network at initialization; one architecture.
        masks: (label, seed, masks); the seed is also that of the order of the images.
        dataset, recipe: as in `trained.accuracies`, which remembers them.

    Returns:
        One row a mask, in order: method (the label), seed, kept, compression, accuracy (top-1 after
        the last epoch, percent).
    """
    masks = list(masks)
    starts = [trained.Start(seed, each, seed) for _, seed, each in masks]
    found = trained.accuracies(make, starts, dataset, recipe, apart=True)
    rows = [
        (label, seed, each.kept, each.compression, accuracy)
        for (label, seed, each), accuracy in zip(masks, found, strict=True)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "kept", "compression", "accuracy"])
