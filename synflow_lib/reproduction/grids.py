"""The grids behind the accuracy figures, one for each scale: which runs, and how to draw them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd
from torch import nn

from .. import env
from ..data import Dataset
from ..sweeps.run import Run
from ..training.recipes import COLAB, Recipe, paper_recipe
from . import paper

# As they are drawn: label -> what makes the run another one.
VARIANTS = {
    "random": {"method": "random"},
    "magnitude": {"method": "magnitude"},
    "snip": {"method": "snip"},
    "grasp": {"method": "grasp"},
    "synflow": {"method": "synflow"},
    "iterated snip": {"method": "snip", "iterations": 100},
    "iterated grasp": {"method": "grasp", "iterations": 100},
}
FIVE = tuple(VARIANTS)[:5]


@dataclass(frozen=True)
class Panel:
    """One network on one data set, as a figure's panel.

    Attributes:
        dataset, model, recipe, data_options, model_options: as in `Run`.
        alphas: compressions as exponents; compression = 10**alpha.
        methods: labels, of `VARIANTS`.
    """

    dataset: str
    model: str
    recipe: Recipe
    alphas: tuple[float, ...]
    methods: tuple[str, ...] = FIVE
    data_options: dict = field(default_factory=dict)
    model_options: dict = field(default_factory=dict)

    def runs(self, seeds: int) -> Iterator[tuple[str, Run]]:
        """(label, run) of every point. At compression 1 all methods share the dense run.

        >>> panel = Panel("digits", "fc", Recipe(1, 0.1), (0.0, 1.0), ("random", "synflow"))
        >>> [(label, run.method, run.compression) for label, run in panel.runs(seeds=1)]
        ... # doctest: +NORMALIZE_WHITESPACE
        [('random', 'dense', 1.0), ('random', 'random', 10.0),
         ('synflow', 'dense', 1.0), ('synflow', 'synflow', 10.0)]
        """
        for label in self.methods:
            for alpha in self.alphas:
                variant = VARIANTS[label] if alpha else {"method": "dense"}
                for seed in range(seeds):
                    yield label, Run(
                        dataset=self.dataset, model=self.model, compression=10.0**alpha,
                        recipe=self.recipe, seed=seed, data_options=self.data_options,
                        model_options=self.model_options, **variant,
                    )  # fmt: skip

    def network(self, seed: int = 0) -> tuple[nn.Module, Dataset]:
        """The network at initialization, and its data set."""
        run = next(run for _, run in self.runs(seed + 1) if run.seed == seed)
        dataset = run.load_data({})
        return run.make(dataset, {}), dataset


@dataclass(frozen=True)
class Grid:
    """Panels of a figure, and on how many seeds each of their points rests."""

    panels: tuple[Panel, ...]
    seeds: int

    def runs(self) -> list[Run]:
        """Every run once."""
        return list(
            dict.fromkeys(run for panel in self.panels for _, run in panel.runs(self.seeds))
        )

    def table(self, results: pd.DataFrame) -> pd.DataFrame:
        """Results in the form of the figures: one row a point and seed.

        Args:
            results: from `sweep`, holding the runs of this grid.

        Returns:
            dataset, model, method (the label), compression, seed, accuracy (top-1 after the last
            epoch, percent), best (over epochs, as the paper's figure 6), before (before training),
            disconnected (bool; 0, 1 and NaN where the paths of some network cannot be asked),
            empty_layers, kept. Runs that failed are left out.
        """
        by_key = results[results["status"] == "done"].set_index("key")
        rows = [
            {"dataset": run.dataset, "model": run.model, "method": label,
             "compression": run.compression, "seed": run.seed, **_outcome(by_key.loc[run.key])}
            for panel in self.panels
            for label, run in panel.runs(self.seeds)
            if run.key in by_key.index
        ]  # fmt: skip
        table = pd.DataFrame(rows)
        if rows and table["disconnected"].isna().any():  # bool(NaN) would be True
            table["disconnected"] = table["disconnected"].astype(float)
        return table


def _outcome(row: pd.Series) -> dict:
    return {
        "accuracy": row["top1"], "best": row["best_top1"], "before": row["top1_before"],
        "disconnected": row["disconnected"], "empty_layers": int(row["empty_layers"]),
        "kept": int(row["kept"]),
    }  # fmt: skip


def _steps(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(first + i * step for i in range(round((last - first) / step) + 1))


# ------------------------------------------------------------------------------------ the scales

DIGITS_FC = Panel(
    "digits", "fc", Recipe(10, 0.1, 64, weight_decay=1e-4, one_cycle=True),
    (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 3.75, 4.25), tuple(VARIANTS),
    model_options={"batch_norm": True},
)  # fmt: skip
DIGITS_CONV = Panel(
    "digits", "conv", Recipe(6, 0.1, 64, weight_decay=1e-4, one_cycle=True),
    (0.0, 1.0, 1.5, 2.0, 2.5), model_options={"batch_norm": True, "depth": 5, "width": 12},
)  # fmt: skip


def _papers(dataset: str) -> Iterable[Panel]:
    for model in ("vgg11", "vgg16", "resnet18", "wide_resnet18_as_published"):
        recipe = paper_recipe(dataset, "resnet18" if "resnet" in model else model)
        yield Panel(dataset, model, recipe, _steps(0, 3, 0.25))


_FIGURE1 = {
    "classroom": lambda: Grid((DIGITS_FC,), 5),
    "colab": lambda: Grid(
        (Panel("cifar100", "vgg16", COLAB, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0), tuple(VARIANTS)),),
        1,
    ),
    "paper": lambda: Grid(
        (
            Panel(
                "cifar100", "vgg16", paper_recipe("cifar100", "vgg16"), _steps(0, 6, 0.25),
                tuple(VARIANTS),
            ),
        ),
        3,
    ),
}  # fmt: skip
_FIGURE6 = {
    "classroom": lambda: Grid((DIGITS_FC, DIGITS_CONV), 5),
    "colab": lambda: Grid(
        tuple(
            Panel("cifar10", model, COLAB, (0.0, 1.0, 2.0, 3.0)) for model in ("vgg11", "resnet20")
        ),
        1,
    ),
    "paper": lambda: Grid(
        tuple(p for name in ("cifar10", "cifar100", "tiny_imagenet") for p in _papers(name)), 3
    ),
}


# The networks of the paper's files, by the names that they have here.
_NAMES = {"vgg11_bn": "vgg11", "vgg16_bn": "vgg16", "wide_resnet18": "wide_resnet18_as_published"}


def published() -> pd.DataFrame:
    """The paper's accuracies (figures 1 and 6) with data set and model named as in `Grid.table`.

    >>> sorted(published()["model"].unique())
    ['resnet18', 'vgg11', 'vgg16', 'wide_resnet18_as_published']
    """
    columns = ["dataset", "model", "method", "compression", "seed", "accuracy"]
    figure1 = paper.figure1().assign(dataset="cifar100", model="vgg16")
    figure6 = paper.figure6().replace({"model": _NAMES})
    beyond = figure1[figure1["compression"] > figure6["compression"].max()]  # figure 6 has the rest
    return pd.concat([figure6[columns], beyond[columns]], ignore_index=True)


def figure1() -> Grid:
    """The grid of figure 1 at the current scale: one network, to rho_max and beyond.

    >>> len(figure1().panels)
    1
    """
    return _FIGURE1[env.scale()]()


def figure6() -> Grid:
    """The grid of figure 6 at the current scale: several networks, five methods.

    >>> grid = figure6()
    >>> len(grid.runs()) > 100
    True
    """
    return _FIGURE6[env.scale()]()
