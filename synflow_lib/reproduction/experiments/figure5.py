"""Figure 5 at each scale: the grid of 5a, the networks of 5b."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from torch import nn

from ... import env, models
from ...data import Dataset
from ...training.recipes import COLAB, FIGURE_5A, FIGURE_5B, Recipe
from ..grids import Grid, Panel
from .dynamics import tapered, xavier_

# (rewound, rounds) -> the run; after 0 rounds of training, magnitude prunes untrained weights.
VARIANTS = {
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
    rounds: Iterable[int] = (1, 3, 5),
    rewound: Iterable[bool] = (True, False),
    **model_options: object,
) -> Panel:
    """A network of figure 5a: untrained and after each number of ``rounds``, rewound and not.

    >>> panel = imp_panel("small", "digits", "fc", Recipe(1, 0.1), (1.0,), [3], [False], depth=2)
    >>> panel.methods
    ((False, 0), (False, 3))
    """
    methods = tuple((each, count) for each in rewound for count in (0, *rounds))
    return Panel(
        dataset, model, recipe, alphas, methods, model_options=model_options, variants=VARIANTS,
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
        shape, classes = dataset.input_shape, dataset.num_classes
        if self.model == "tapered":
            net = tapered(shape, classes, seed=seed, **self.options)
        else:
            net = models.by_name(
                self.model, num_classes=classes, input_size=shape[1], seed=seed, **self.options
            )
        return xavier_(net, gain, seed)


_DIGITS = "digits", "fc", Recipe(8, 0.1, weight_decay=1e-4, one_cycle=True)
_ALPHAS = 1.0, 1.5, 2.0, 2.5, 3.0, 3.5
_VGG11 = "VGG-11 (BN)", "cifar10", "vgg11"
_TENTHS = tuple(step / 10 for step in range(50))
_IMP = {
    "classroom": Grid(
        (
            imp_panel("without BatchNorm", *_DIGITS, _ALPHAS),
            imp_panel("with BatchNorm", *_DIGITS, _ALPHAS, (1, 3), (False,), batch_norm=True),
        ),
        3,
    ),
    "colab": Grid((imp_panel(*_VGG11, COLAB, (1.0, 2.0, 2.5, 3.0, 3.5), (1, 3), (False,)),), 1),
    "paper": Grid((imp_panel(*_VGG11, FIGURE_5A, _TENTHS, (1, 2, 3, 4, 5)),), 3),
}
_VGG = {"batch_norm": False}
_DRIFT = {
    "classroom": Drift("digits", "tapered", Recipe(40, 0.01, 64), (1.0, 0.5), 3),
    "colab": Drift("cifar10", "vgg19", Recipe(25, 0.001, augment=True), (1.0,), 1, _VGG),
    "paper": Drift("cifar10", "vgg19", FIGURE_5B, (1.0,), 3, _VGG),
}


def imp_grid() -> Grid:
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
