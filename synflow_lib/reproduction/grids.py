"""The grids behind the accuracy figures, one for each scale: which runs, and how to draw them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from torch import nn

from .. import env
from ..data import Dataset
from ..sweeps.run import Run
from ..sweeps.store import Store
from ..sweeps.sweep import sweep
from ..training.recipes import COLAB, Recipe, paper_recipe
from ..training.train import train
from ..values import whole
from . import paper

# As they are drawn: label -> what makes the run another one.
VARIANTS = {
    **{method: {"method": method} for method in paper.FIVE},
    "iterated snip": {"method": "snip", "iterations": 100},
    "iterated grasp": {"method": "grasp", "iterations": 100},
}
DENSE = {"method": "dense"}


@dataclass(frozen=True)
class Panel:
    """One network on one data set, as a figure's panel.

    Attributes:
        dataset, model, recipe, data_options, model_options: as in `Run`.
        alphas: compressions as exponents; compression = 10**alpha.
        methods: labels of ``variants`` that name a method; others are a ValueError.
        variants: label -> fields of `Run` that make it: method, iterations, mode, rewind, ...
        title: what a figure calls the network.
        one_dense: whether all methods share the dense run at compression 1.
    """

    dataset: str
    model: str
    recipe: Recipe
    alphas: tuple[float, ...]
    methods: tuple[Hashable, ...] = paper.FIVE
    data_options: Mapping = field(default_factory=dict)
    model_options: Mapping = field(default_factory=dict)
    variants: Mapping[Hashable, Mapping] = field(default_factory=lambda: VARIANTS)
    title: str = ""
    one_dense: bool = True

    def __post_init__(self) -> None:
        odd = [label for label in self.methods if "method" not in self.variants.get(label, {})]
        if odd:
            raise ValueError(f"no variant {odd[0]!r} that names a method, in {self.variants}")

    def points(self, seeds: int) -> Iterator[tuple[Hashable, float, Run]]:
        """(label, alpha, run) of every point. A dense run has compression 1 at every alpha.

        >>> panel = Panel("digits", "fc", Recipe(1, 0.1), (0.0, 1.0), ("random", "synflow"))
        >>> [(label, run.method, run.compression) for label, _, run in panel.points(seeds=1)]
        ... # doctest: +NORMALIZE_WHITESPACE
        [('random', 'dense', 1.0), ('random', 'random', 10.0),
         ('synflow', 'dense', 1.0), ('synflow', 'synflow', 10.0)]
        """
        for label in self.methods:
            for alpha in self.alphas:
                how = DENSE if self.one_dense and not alpha else self.variants[label]
                for seed in range(whole(seeds, "seeds", 1)):
                    yield label, alpha, self._run(how, alpha, seed)

    def runs(self, seeds: int) -> list[Run]:
        """Every run once."""
        return list(dict.fromkeys(run for *_, run in self.points(seeds)))

    def _run(self, how: Mapping, alpha: float, seed: int) -> Run:
        return Run(
            dataset=self.dataset, model=self.model, recipe=self.recipe, seed=seed,
            compression=1.0 if how["method"] == "dense" else 10.0**alpha,
            data_options=self.data_options, model_options=self.model_options, **how,
        )  # fmt: skip

    def network(self, seed: int = 0, dataset: Dataset | None = None) -> tuple[nn.Module, Dataset]:
        """The network at initialization, and its data set (loaded, if it is not given)."""
        run = self._run(DENSE, 0.0, seed)
        dataset = run.load_data({}) if dataset is None else dataset
        return run.make(dataset, {}), dataset


@dataclass(frozen=True)
class Grid:
    """Panels of a figure, and on how many seeds (0 to seeds - 1) each of their points rests."""

    panels: tuple[Panel, ...]
    seeds: int

    @property
    def panel(self) -> Panel:
        """The first panel, of a grid that is about one network."""
        return self.panels[0]

    def points(self) -> Iterator[tuple[Panel, Hashable, float, Run]]:
        """(panel, label, alpha, run) of every point."""
        return ((panel, *point) for panel in self.panels for point in panel.points(self.seeds))

    def runs(self) -> list[Run]:
        """Every run once."""
        return list(dict.fromkeys(run for *_, run in self.points()))

    def results(self, store: str | Path | None = None) -> pd.DataFrame:
        """What `sweep` gives for the runs, of those that are done when it is interrupted.

        Outside of the classroom they are done seed by seed and method by method, and a table of
        accuracies grows below the cell. Called again, it goes on where it was.

        Args:
            store: the folder of runs, default `env.runs_dir()`.

        Raises:
            KeyboardInterrupt: interrupted before the first of those groups was complete.
        """
        store = store or env.runs_dir()
        if env.scale() == "classroom":  # copies are trained together
            return sweep(self.runs(), store, progress=False)
        found, show = pd.DataFrame(), _display()
        groups: dict[tuple, list[Run]] = {}
        for panel, label, _, run in self.points():
            groups.setdefault((run.seed, self.panels.index(panel), label), []).append(run)
        try:
            for _, runs in sorted(groups.items(), key=lambda item: item[0][:2]):
                table = sweep(runs, store)
                found = pd.concat([found, table]).drop_duplicates("key", ignore_index=True)
                show(self._accuracies(found))
        except KeyboardInterrupt:
            if found.empty:
                raise
            print(
                f"interrupted with {len(found)} of {len(self.runs())} networks, which are what the"
                " cells below draw. Run this cell again to go on."
            )
        return found

    def _accuracies(self, results: pd.DataFrame) -> pd.DataFrame:
        """Means over seeds: a row a method, a column a compression, of each panel."""
        index = ["dataset", "model", "method"]
        table = self.table(results)
        table["method"] = table["method"].astype(str)  # may be a tuple
        table["compression"] = table["compression"].round(1)
        return table.pivot_table("accuracy", index, "compression", sort=False).round(1)

    def plan(self, store: str | Path | None = None) -> str:
        """What is to be trained; beyond the classroom also how long, by a measurement of seconds.

        Args:
            store: the folder of runs, default `env.runs_dir()`: what it holds takes no time.

        >>> figure1().plan()
        'fc on digits; 5 seeds, 285 networks to train'
        """
        names = ", ".join(f"{panel.model} on {panel.dataset}" for panel in self.panels)
        runs = self.runs()
        text = f"{names}; {self.seeds} seed{'s' * (self.seeds > 1)}, {len(runs)} networks to train"
        if env.scale() == "classroom":
            return text
        done = Store(store or env.runs_dir()).records([run.key for run in runs], history=False)
        left = [
            (panel, sum(epochs_of(run) for run in panel.runs(self.seeds) if run.key not in done))
            for panel in self.panels
        ]
        return f"{text}, {len(done)} of them done; about {duration(left)} on {env.device()}"

    def varied(self, variants: Mapping[Hashable, Mapping], alphas: Iterable[float]) -> Grid:
        """The same networks and seeds with other variants (as in `Panel`) and compressions.

        >>> grid = figure1().varied({"SNIP, eval": {"method": "snip", "mode": "eval"}}, [1])
        >>> grid.runs()[0].mode, grid.runs()[0].compression
        ('eval', 10.0)
        """
        other = {"alphas": tuple(alphas), "methods": tuple(variants), "variants": variants}
        return replace(self, panels=tuple(replace(panel, **other) for panel in self.panels))

    def table(self, results: pd.DataFrame) -> pd.DataFrame:
        """Results in the form of the figures: one row a point and seed.

        Args:
            results: from `sweep`, holding the runs of this grid.

        Returns:
            dataset, model, method (the label), compression (asked for, also beside a dense run),
            seed, accuracy (top-1 after the last epoch, percent), best (over epochs, as the paper's
            figure 6), before (before training), disconnected (bool; 0, 1 and NaN where the paths of
            some network cannot be asked), empty_layers, kept. Runs that failed are left out, and a
            run that is said twice counts once.

        Raises:
            ValueError: a column is missing.
        """
        rows = [
            (run.key, panel.dataset, panel.model, label, 10.0**alpha, run.seed)
            for panel, label, alpha, run in self.points()
        ]
        names = ["key", "dataset", "model", "method", "compression", "seed"]
        outcome = {"top1": "accuracy", "best_top1": "best", "top1_before": "before"}
        counts = ["empty_layers", "kept"]
        needed = ["key", "status", *outcome, "disconnected", *counts]
        if missing := [name for name in needed if name not in results]:
            raise ValueError(f"results lacks the column {missing[0]!r}; expected what sweep gives")
        done = results[results["status"] == "done"].drop_duplicates("key").set_index("key")
        found = done[[*outcome, "disconnected", *counts]].rename(columns=outcome)
        table = pd.DataFrame(rows, columns=names).join(found, on="key", how="inner")
        known = table["disconnected"].notna().all()  # bool(None) would be False, bool(NaN) True
        types = {"disconnected": bool if known else float, **dict.fromkeys(counts, int)}
        return table.drop(columns="key").astype(types).reset_index(drop=True)

    def accuracies(
        self,
        variants: Mapping[Hashable, Mapping],
        alphas: Iterable[float],
        store: str | Path | None = None,
    ) -> pd.DataFrame:
        """Prune, train and test other variants, or read what was done before.

        Args:
            variants, alphas: as in `varied`.
            store: folder of runs, default ``questions`` in `env.runs_dir()`: copies are trained
                together and round by the company they are in, so that a store shared with other
                grids would make results depend on what ran before.

        Returns:
            One row a variant, compression and seed: method (the label), compression, seed,
            accuracy, disconnected, kept (as in `table`), epochs (all trainings of a run together).

        Raises:
            RuntimeError: a run failed; the store holds its error.
        """
        grid = self.varied(variants, alphas)
        results = sweep(grid.runs(), store or env.runs_dir() / "questions", progress=False)
        failed = results[results["status"] != "done"]
        if len(failed):
            raise RuntimeError(f"the run {failed['key'].iloc[0]} failed: {failed['error'].iloc[0]}")
        columns = ["method", "compression", "seed", "accuracy", "disconnected", "kept"]
        runs = [run for *_, run in grid.points()]
        return grid.table(results)[columns].assign(epochs=list(map(epochs_of, runs)))


def epochs_of(run: Run) -> int:
    """Epochs of all trainings of a run."""
    return run.recipe.epochs * (1 + (run.iterations or 3) * (run.method == "imp"))


def seconds_an_image(net: nn.Module, dataset: Dataset, recipe: Recipe, span: float = 1.0) -> float:
    """How long training takes for each image and epoch on `env.device()`.

    Trains on as many images as take ``span`` seconds, the first batch before that to warm up.
    """
    batch = min(recipe.batch_size, 64 if env.device().type == "cpu" else recipe.batch_size)
    short = replace(recipe, epochs=1, batch_size=batch, milestones=())
    net, dataset = net.to(env.device()), dataset.to(env.device())

    def seconds(n: int) -> float:
        part, start = dataset.subset(n, dataset.num_classes), time.perf_counter()
        train(net, None, part, short)
        return time.perf_counter() - start

    n = min(batch, len(dataset.train_y))
    spent = seconds(n) and seconds(n)
    while spent < span and 2 * n <= len(dataset.train_y):
        n *= 2
        spent = seconds(n)
    return spent / n


def duration(epochs: Iterable[tuple[Panel, int]]) -> str:
    """How long so many epochs of each panel's network take, in words such as "28 hours"."""
    seconds = 0.0
    for panel, count in epochs:
        if count:
            net, data = panel.network()
            seconds += count * len(data.train_y) * seconds_an_image(net, data, panel.recipe)
    count, unit = (seconds / 60, "minute") if seconds < 2 * 3600 else (seconds / 3600, "hour")
    return f"{max(1, round(count))} {unit}{'s' * (round(count) > 1)}"


def _display() -> Callable[[object], None]:
    """Shows a thing in place of the former one, in a notebook."""
    from IPython import display, get_ipython

    if get_ipython() is None:
        return lambda thing: None
    handle = display.DisplayHandle()
    handle.display(None)
    return handle.update


def _steps(last: float, step: float) -> tuple[float, ...]:
    return tuple(i * step for i in range(round(last / step) + 1))


# ------------------------------------------------------------------------------------ the scales

DIGITS_FC = Panel(
    "digits", "fc", Recipe(10, 0.1, 64, weight_decay=1e-4, one_cycle=True),
    (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.75, 4.25), tuple(VARIANTS),
    model_options={"batch_norm": True},
)  # fmt: skip
DIGITS_CONV = Panel(
    "digits", "conv", Recipe(4, 0.1, 64, weight_decay=1e-4, one_cycle=True),
    (0.0, 1.0, 2.0, 2.5), model_options={"batch_norm": True, "depth": 5, "width": 12},
)  # fmt: skip


def _papers(
    datasets: Iterable[str], models: Iterable[str], last: float, methods: tuple = paper.FIVE
) -> tuple[Panel, ...]:
    """The paper's panels, from compression 1 in quarters of a decade."""
    pairs = [(d, m, "resnet18" if "resnet" in m else m) for d in datasets for m in models]
    alphas = _steps(last, 0.25)
    return tuple(Panel(d, m, paper_recipe(d, like), alphas, methods) for d, m, like in pairs)


_DATASETS = "cifar10", "cifar100", "tiny_imagenet"
_MODELS = "vgg11", "vgg16", "resnet18", "wide_resnet18_as_published"
_ALL = tuple(VARIANTS)
_DECADES = (0.0, 1.0, 2.0, 3.0)
_BEYOND = (4.0, 5.0, 6.0)  # further than figure 6 goes
_FIGURE1 = {
    "classroom": Grid((DIGITS_FC,), 5),
    "colab": Grid((Panel("cifar100", "vgg16", COLAB, _DECADES + _BEYOND, _ALL),), 1),
    "panel": Grid((Panel("cifar10", "vgg11", COLAB, _steps(3, 0.5) + _BEYOND, _ALL),), 3),
    "paper": Grid(_papers(["cifar100"], ["vgg16"], 6, _ALL), 3),
}
_FIGURE6 = {
    "classroom": Grid((DIGITS_FC, DIGITS_CONV), 5),
    "colab": Grid(tuple(Panel("cifar10", m, COLAB, _DECADES) for m in ("vgg11", "resnet20")), 1),
    "panel": Grid((Panel("cifar10", "vgg11", COLAB, _steps(3, 0.25)),), 3),
    "paper": Grid(_papers(_DATASETS, _MODELS, 3), 3),
}


def figure1() -> Grid:
    """The grid of figure 1 at the current scale: one network, to rho_max and beyond.

    >>> len(figure1().panels)
    1
    """
    return _FIGURE1[env.scale()]


def figure6() -> Grid:
    """The grid of figure 6 at the current scale: several networks, five methods.

    >>> len(figure6().runs()) > 100
    True
    """
    return _FIGURE6[env.scale()]


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
