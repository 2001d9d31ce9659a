"""Figure 5 at each scale: the grid of 5a, the networks of 5b."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd
from torch import nn

from ... import env, models
from ...data import Dataset
from ...sweeps.run import Run
from ...training.recipes import COLAB, FIGURE_5A, FIGURE_5B, Recipe
from .dynamics import tapered, xavier_


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
