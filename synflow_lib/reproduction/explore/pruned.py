"""Explorers 1 and 3: what pruning leaves of a network, by one method, and by five in a race."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from ... import data, models
from ...batches import Batch
from ...collapse import PathProbe
from ...conservation import check_conservation
from ...masks import Masks
from ...network import prunable
from ...pruning import trajectory
from ...scores import score
from ...trajectory import Trajectory
from ..experiments.collapse import collapse_verdicts, layer_densities
from ..figures.explore import collapse_view, race_view
from ..figures.style import STYLES
from ..paper import FIVE
from .explorer import Explorer, choose

if TYPE_CHECKING:
    from IPython.display import HTML

SCHEDULES = ("exponential", "linear", "cut")


@dataclass(frozen=True)
class Subject:
    """A network to explore, and the images it is scored on; all is made when first asked for."""

    build: Callable[[], nn.Module]  # makes the network, the same each time
    size: int  # side of the square images of digits
    channels: int  # of these images
    steps: int  # slider stops a decade of compression
    iterations: tuple[int, ...]  # how often one may score, as choices
    drawn: bool = False  # whether it is small enough to draw every weight

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network at its initialization; nobody may change it."""
        return self.build()

    @functools.cached_property
    def batch(self) -> Batch:
        """Ten digits a class, in the size of the network."""
        return data.digits(size=self.size, channels=self.channels).scoring_batch(10)

    @functools.cached_property
    def probe(self) -> PathProbe:
        """Says which kept weights lie on a path."""
        return PathProbe(self.network)

    @functools.cached_property
    def stops(self) -> tuple[float, ...]:
        """The compressions of a slider, rising from 1 to rho_max = N / L.

        >>> len(SUBJECTS["small"].stops), SUBJECTS["small"].stops[-1]
        (12, 70.0)
        """
        layers = prunable(self.network).values()
        limit = sum(layer.numel() for layer in layers) / len(layers)
        # A stop just below the limit would be the same network.
        count = math.ceil((math.log10(limit) - 0.02) * self.steps)
        return (*(10 ** (i / self.steps) for i in range(count)), limit)


SUBJECTS = {
    "small": Subject(  # 4 layers of 8 units on 3x3 digits
        lambda: models.fc((1, 3, 3), depth=4, width=8, seed=0),
        size=3, channels=1, steps=6, iterations=(1, 10, 100), drawn=True,
    ),
    "perceptron": Subject(  # 6 layers of 100 units on 8x8 digits
        lambda: models.fc((1, 8, 8), seed=0),
        size=8, channels=1, steps=4, iterations=(1, 10, 100),
    ),
    "vgg16": Subject(  # VGG-16 with BatchNorm, 100 classes
        lambda: models.vgg16(num_classes=100, seed=0),
        size=32, channels=3, steps=2, iterations=(1, 10),
    ),
}  # fmt: skip


def subject(name: str) -> Subject:
    """The subject of this name, or a ValueError that lists them."""
    choose("network", name, tuple(SUBJECTS))
    return SUBJECTS[name]


@dataclass(frozen=True)
class Family:
    """One run of one method on one network, looked at from every stop of a slider.

    The choices, and errors, are those of `collapse`; the cut schedule takes as many iterations as
    it needs, whatever ``iterations`` says.

    >>> made = Family("small", "synflow", "cut")
    >>> int(made.verdicts["empty_layers"].max()), bool(made.verdicts["connected"].all())
    (0, True)
    """

    name: str
    method: str
    schedule: str = "exponential"
    iterations: int = 1

    def __post_init__(self):
        choices = subject(self.name).iterations
        choose("method", self.method, FIVE)
        choose("schedule", self.schedule, SCHEDULES if self.method == "synflow" else SCHEDULES[:2])
        choose("iterations", self.iterations, choices)

    @property
    def stops(self) -> tuple[float, ...]:
        """Compressions."""
        return SUBJECTS[self.name].stops

    @functools.cached_property
    def path(self) -> Trajectory:
        """The run."""
        how: dict = {"schedule": self.schedule}
        if self.schedule != "cut" and self.iterations > 1:
            how["iterations"] = self.iterations
        elif self.schedule != "cut":
            how = {"iterations": 1}  # one score orders all weights
        one = SUBJECTS[self.name]
        mode = _mode(self.method)
        found = trajectory(one.network, self.method, one.batch, mode=mode, progress=False, **how)
        return replace(found, zeros=None)  # at a slider nobody reads warnings

    @functools.cached_property
    def layers(self) -> pd.DataFrame:
        """One row a compression and layer, from `experiments.collapse.layer_densities`."""
        return layer_densities({self.method: self.path}, self.stops)

    @functools.cached_property
    def verdicts(self) -> pd.DataFrame:
        """One row a compression: kept, empty_layers, connected."""
        return collapse_verdicts(SUBJECTS[self.name].network, {self.method: self.path}, self.stops)

    def masks(self, stop: int) -> Masks:
        """What is kept at a stop."""
        return self.path.at(self.stops[stop])

    def units(self, stop: int) -> pd.DataFrame:
        """Score that enters and leaves each hidden unit of the pruned network, scored again.

        Returns:
            ``layer, unit, incoming, outgoing``, and ``max_relative_error``.
        """
        one, masks = SUBJECTS[self.name], self.masks(stop)
        net = one.build()
        masks.apply_(net)
        with warnings.catch_warnings():  # of a network that is cut all scores are zero: it is seen
            warnings.simplefilter("ignore", UserWarning)
            scores = score(net, self.method, one.batch, mode=_mode(self.method))
        for layer, mask in masks.items():  # a random score knows nothing of what is pruned
            scores[layer] = scores[layer] * mask
        report = check_conservation(net, scores)
        return report.table.assign(max_relative_error=report.max_relative_error)

    @torch.no_grad()
    def drawing(self, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each layer two bool arrays (outputs, inputs): kept, and kept on a path."""
        masks = self.masks(stop)
        alive = SUBJECTS[self.name].probe.on_path(masks)
        return [(mask.numpy(), alive[name].numpy()) for name, mask in masks.items()]


family = functools.lru_cache(maxsize=64)(Family)  # a run is kept once computed


def _mode(method: str) -> str | None:
    return "eval" if method in ("snip", "grasp") else None


def _compressions(network: str, **_) -> list[str]:
    return [f"{compression:.3g}" for compression in subject(network).stops]


# One method at one compression.


def collapse(
    network: str = "small",
    method: str = "magnitude",
    schedule: str = "exponential",
    iterations: int = 1,
):
    """Choose a network, a method and its schedule; watch the pruned network follow the slider.

    Left the weights left in each layer; in the middle the paths that are left (or, where a network
    is too large to draw, all layers along all compressions); right what enters each hidden unit
    against what leaves it. A choice is computed and drawn when it is made first: moments, for
    "vgg16" half a minute on two cores; then the slider answers at once.

    Args:
        network: "small", "perceptron" or "vgg16", to begin with.
        method: one of the paper's five.
        schedule: "exponential", "linear", or "cut" (SynFlow only).
        iterations: 1, 10 or 100 (vgg16: 1 or 10).

    Returns:
        A widget to display; see `Explorer.widget` for its parts.

    Raises:
        ValueError: not one of the choices; ImportError: no ipywidgets.

    Paper: sections 3 and 4, figures 2 and 3.

    >>> box = collapse(method="synflow", schedule="cut")
    >>> sorted(box.controls)
    ['iterations', 'method', 'network', 'schedule', 'stop']
    """
    Family(network, method, schedule, iterations)  # refuses what is no choice
    return COLLAPSE.widget(network=network, method=method, schedule=schedule, iterations=iterations)


def collapse_picture(
    network: str = "small",
    method: str = "magnitude",
    compression: float = 10.0,
    schedule: str = "exponential",
    iterations: int = 1,
) -> Figure:
    """What `collapse` shows at the slider stop nearest to a compression; needs no widgets.

    Args:
        compression: at least 1; the nearest stop by ratio is shown.
        (others): as in `collapse`.

    Raises:
        ValueError: not one of the choices, or a compression beyond rho_max.

    >>> collapse_picture(compression=10).axes[0].get_xlabel()
    'layer (1: input); cross: empty'
    """
    made = family(network, method, schedule, iterations)
    number = isinstance(compression, (int, float)) and not isinstance(compression, bool)
    if not number or not 1 <= compression <= made.stops[-1] * (1 + 1e-9):
        raise ValueError(
            f"compression={compression!r}; expected a number from 1 to N / L = {made.stops[-1]:g}"
        )
    away = [abs(stop / compression - compression / stop) for stop in made.stops]
    return _show_family(away.index(min(away)), made)[0]


def _show_choice(
    stop: int, network: str, method: str, schedule: str, iterations: int
) -> tuple[Figure, str]:
    """A picture for whatever the drop-downs say, with a note where they say the impossible."""
    note = ""
    if schedule == "cut" and method != "synflow":
        note = f"The cut schedule is SynFlow's; {STYLES[method].label} runs exponentially. "
        schedule = "exponential"
    most = SUBJECTS[network].iterations[-1]
    if iterations > most:
        note += f"This network offers at most {most} iterations. "
        iterations = most
    figure, told = _show_family(stop, family(network, method, schedule, iterations))
    return figure, note + told


def _show_family(stop: int, made: Family) -> tuple[Figure, str]:
    """The picture of a stop, and in words how many weights are kept and what became of paths."""
    row, units = made.verdicts.iloc[stop], made.units(stop)
    label, compression = STYLES[made.method].label, f"compression {made.stops[stop]:.3g}"
    empty = int(row["empty_layers"])
    connected = "connected" if row["connected"] else "disconnected"
    layers = "no layer is empty"
    if empty:
        layers = f"collapsed, {empty} layer{'s are' if empty > 1 else ' is'} empty"
    conserved = "No score is left to conserve."
    if (units[["incoming", "outgoing"]] != 0).any(axis=None):
        error = float(units["max_relative_error"].iloc[0])
        verb = "holds" if error < 1e-4 else "does not hold"
        conserved = f"Conservation {verb}: largest relative error {error:.1g}."
    told = (
        f"{label} keeps {int(row['kept']):,} of {made.path.total:,} weights ({compression})."
        f" By layer: {layers}. By path: input and output are {connected}. {conserved}"
    )
    drawing = made.drawing(stop) if SUBJECTS[made.name].drawn else None
    verdict = f"{label}, {compression}: {layers}, {connected}"
    return collapse_view(made.layers, stop, units, drawing, verdict), told


COLLAPSE = Explorer(
    "compression",
    {
        "network": tuple(SUBJECTS),
        "method": FIVE,
        "schedule": SCHEDULES,
        "iterations": SUBJECTS["small"].iterations,
    },
    _compressions,
    _show_choice,
    start=0.5,
)


# Five methods in a race.


def race(network: str = "perceptron"):
    """Five methods lose weights together; a cross marks where a layer of one is empty.

    Random, magnitude, SNIP and GraSP score once, as in the paper's figure 2; SynFlow runs on the
    cut schedule. "vgg16" takes half a minute before it starts, on two cores.

    Args:
        network: "small", "perceptron" or "vgg16", to begin with.

    Returns:
        A widget to display; see `Explorer.widget` for its parts.

    Raises:
        ValueError: no such network; ImportError: no ipywidgets.

    Paper: section 3, figure 2.

    >>> race("small").controls["stop"].description
    'compression'
    """
    subject(network)
    return RACE.widget(network=network)


def race_picture(network: str = "perceptron", stop: int | None = None) -> Figure:
    """What `race` shows at a slider stop, the last one by default; needs no widgets.

    Args:
        network: "small", "perceptron" or "vgg16".
        stop: from 0, compression 1, to the last, rho_max.

    Raises:
        ValueError: no such network or stop.

    >>> race_picture("small").axes[0].get_ylabel()
    'weights in the emptiest layer'
    """
    last = len(subject(network).stops) - 1
    return _show_race(last if stop is None else stop, network)[0]


def race_animation(network: str = "perceptron") -> HTML:
    """The race as an animation with buttons, in HTML that needs no kernel (below 300 kB).

    Args and errors: as in `race_picture`.

    >>> len(race_animation("small").data) < 300_000
    True
    """
    stops = range(len(subject(network).stops))
    alt = "Five methods lose weights together: " + race_words(network, stops[-1])
    return RACE.animation(stops, 2, alt, network=network)


@functools.cache
def runners(network: str) -> pd.DataFrame:
    """The layers of all runners at all stops: the table behind `race`.

    >>> runners("small")["method"].unique().tolist()
    ['random', 'magnitude', 'snip', 'grasp', 'synflow']
    """
    schedules = dict.fromkeys(FIVE, "exponential") | {"synflow": "cut"}
    runs = [family(network, method, schedule, 1) for method, schedule in schedules.items()]
    return pd.concat([run.layers for run in runs], ignore_index=True)


def race_words(network: str, stop: int) -> str:
    """The picture of a stop in words: who has an empty layer, and since when.

    >>> race_words("small", 0)
    'Compression 1: all five methods have weights in every layer.'
    """
    now, table = SUBJECTS[network].stops[stop], runners(network)
    empty = table[(table["kept"] == 0) & (table["compression"] <= now)]
    since = empty.groupby("method")["compression"].min().reindex(FIVE)
    broken = since.dropna().sort_values(kind="stable")
    if broken.empty:
        return f"Compression {now:.3g}: all five methods have weights in every layer."
    told = ", ".join(f"{STYLES[m].label} (at {when:.3g})" for m, when in broken.items())
    whole = ", ".join(STYLES[m].label for m in since.index[since.isna()])
    alive = f" Still whole: {whole}." if whole else ""
    return f"Compression {now:.3g}: a layer is empty under {told}.{alive}"


def _show_race(stop: int, network: str) -> tuple[Figure, str]:
    figure = race_view(runners(network), stop, SUBJECTS[network].stops[-1])
    return figure, race_words(network, stop)


RACE = Explorer("compression", {"network": tuple(SUBJECTS)}, _compressions, _show_race)
