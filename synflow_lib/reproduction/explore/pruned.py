"""Explorer 1: what pruning leaves of a network, and the runs that other explorers show too."""

from __future__ import annotations

import copy
import functools
import math
import numbers
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from ... import data, models
from ...batches import Batch
from ...collapse import PathProbe, max_compression
from ...conservation import check_conservation
from ...graphs.network import prunable
from ...masks import Masks
from ...pruning import trajectory
from ...scores import score
from ...trajectory import Trajectory
from ..figures.explore import collapse_view
from ..figures.style import STYLES
from ..paper import FIVE
from ..predict import written
from .explorer import Explorer, Task, choose

SCHEDULES = ("exponential", "linear", "cut")


@dataclass(frozen=True)
class Subject:
    """A network to explore, and the images it is scored on; all is made when first asked for."""

    build: Callable[[], nn.Module]  # makes the network, the same each time
    size: int  # side of the square images of digits
    channels: int  # of these images
    steps: int  # slider stops a decade of compression
    iterations: tuple[int, ...]  # how often one may score, as choices
    images: int = 10  # a class, that SNIP and GraSP score on
    dtype: torch.dtype | None = None  # of the scores; None is float64
    drawn: bool = False  # whether it is small enough to draw every weight

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network at its initialization; nobody may change it."""
        return self.build()

    @functools.cached_property
    def batch(self) -> Batch:
        return data.digits(size=self.size, channels=self.channels).scoring_batch(self.images)

    @functools.cached_property
    def probe(self) -> PathProbe:
        return PathProbe(self.network)

    @functools.cached_property
    def stops(self) -> tuple[float, ...]:
        """The compressions of a slider, rising from 1 to rho_max = N / L.

        >>> len(SUBJECTS["small"].stops), SUBJECTS["small"].stops[-1]
        (12, 70.0)
        """
        limit = max_compression(self.network)
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
        size=32, channels=3, steps=2, iterations=(1, 10), images=1, dtype=torch.float32,
    ),
}  # fmt: skip


def subject(name: str) -> Subject:
    """The subject of this name, or a ValueError that lists them."""
    choose("network", name, tuple(SUBJECTS))
    return SUBJECTS[name]


class Verdict(NamedTuple):
    """What became of a network: weights kept, layers without one, whether a path is left."""

    kept: int
    empty: int
    connected: bool

    @property
    def words(self) -> str:
        """Both signs of collapse.

        >>> Verdict(9, 1, False).words
        'collapsed, 1 layer is empty, disconnected'
        """
        return f"{self.layers}, {self.path}"

    @property
    def layers(self) -> str:
        if not self.empty:
            return "no layer is empty"
        return f"collapsed, {self.empty} layer{'s are' if self.empty > 1 else ' is'} empty"

    @property
    def path(self) -> str:
        return "connected" if self.connected else "disconnected"


def verdict_of(masks: Masks, probe: PathProbe) -> Verdict:
    """What masks leave of the network that the probe knows."""
    return Verdict(masks.kept, len(masks.empty_layers()), probe.connected(masks))


@dataclass(frozen=True)
class Family:
    """One run of one method on one network, looked at from every stop of a slider.

    The choices, and errors, are those of `collapse`; the cut schedule takes as many iterations as
    it needs, whatever ``iterations`` says.

    >>> made = Family("small", "synflow", "cut")
    >>> made.verdict(len(made.stops) - 1)
    Verdict(kept=4, empty=0, connected=True)
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
    def subject(self) -> Subject:
        return SUBJECTS[self.name]

    @property
    def stops(self) -> tuple[float, ...]:
        return self.subject.stops

    @property
    def options(self) -> dict:
        """How the method scores this network."""
        mode = "eval" if self.method in ("snip", "grasp") else None
        return {"batch": self.subject.batch, "mode": mode, "dtype": self.subject.dtype}

    @functools.cached_property
    def path(self) -> Trajectory:
        iterations = None if self.schedule == "cut" else self.iterations
        how = {"schedule": self.schedule, "iterations": iterations, "progress": False}
        found = trajectory(self.subject.network, self.method, **self.options, **how)
        return replace(found, zeros=None)  # at a slider nobody reads warnings

    @property
    def layers(self) -> pd.DataFrame:
        """The layers at all stops, as from `layers_at`."""
        return pd.concat([self.layers_at(stop) for stop in range(len(self.stops))])

    @functools.lru_cache(maxsize=2048)  # noqa: B019 -- families stay anyway
    def layers_at(self, stop: int) -> pd.DataFrame:
        """One row a layer: method, compression, layer (a number), kept, total, density."""
        table = self.masks(stop).table().assign(method=self.method, compression=self.stops[stop])
        return table.assign(layer=range(1, len(table) + 1))

    @functools.lru_cache(maxsize=4)  # noqa: B019 -- of all families together; VGG-16's are 15 MB
    def masks(self, stop: int) -> Masks:
        """What is kept at a stop; at the first it is all, and nothing is run for that."""
        if stop:
            return self.path.at(self.stops[stop])
        layers = prunable(self.subject.network)
        return Masks({name: torch.ones(w.shape, dtype=torch.bool) for name, w in layers.items()})

    def verdict(self, stop: int) -> Verdict:
        return verdict_of(self.masks(stop), self.subject.probe)

    def units(self, stop: int) -> pd.DataFrame:
        """Score into and out of each hidden unit of the pruned network, which is scored again."""
        masks = self.masks(stop)
        net = masks.apply_(copy.deepcopy(self.subject.network))
        with warnings.catch_warnings():  # of a network that is cut all scores are zero: it is seen
            warnings.simplefilter("ignore", UserWarning)
            scores = score(net, self.method, **self.options)
        for layer, mask in masks.items():  # a random score knows nothing of what is pruned
            scores[layer] = scores[layer] * mask
        report = check_conservation(net, scores)
        return report.table.assign(max_relative_error=report.max_relative_error)

    @torch.no_grad()
    def drawing(self, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each layer two bool arrays (outputs, inputs): kept, and kept on a path."""
        masks = self.masks(stop)
        alive = self.subject.probe.on_path(masks)
        return [(mask.numpy(), alive[name].numpy()) for name, mask in masks.items()]


family = functools.lru_cache(maxsize=64)(Family)  # a run is kept once computed


def compressions(network: str, **_) -> list[str]:
    """The stops of a slider along compressions, as text."""
    return [written(compression) for compression in subject(network).stops]


def collapse(
    network: str = "small",
    method: str = "magnitude",
    schedule: str = "exponential",
    iterations: int = 1,
):
    """Choose a network, a method and its schedule; watch the pruned network follow the slider.

    Left the weights left in each layer; in the middle the paths that are left (or, where a network
    is too large to draw, all layers along all compressions); right what enters each hidden unit
    against what leaves it. A choice is computed when it is made first: a moment, for "vgg16"
    seconds; its other stops are drawn while the kernel is at rest. Three things to look for stand
    beside the picture, each ticked once it has been found.

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
    number = isinstance(compression, numbers.Real) and not isinstance(compression, bool)
    if not number or not 1 <= compression <= made.stops[-1] * (1 + 1e-9):
        raise ValueError(
            f"compression={compression!r}; expected a number from 1 to N / L = {made.stops[-1]:g}"
        )
    away = [abs(stop / compression - compression / stop) for stop in made.stops]
    chosen = {"network": network, "method": method, "schedule": schedule, "iterations": iterations}
    return _show(away.index(min(away)), **chosen)[0]


def possible(schedule: str, method: str) -> tuple[str, str]:
    """The schedule that a method can take, and a note where it is another one.

    >>> possible("cut", "snip")[0]
    'exponential'
    """
    if schedule == "cut" and method != "synflow":
        label = STYLES[method].label
        return "exponential", f"The cut schedule is SynFlow's; {label} runs exponentially. "
    return schedule, ""


def _chosen(network: str, method: str, schedule: str, iterations: int) -> tuple[Family, str]:
    """What the drop-downs say, with a note where they say the impossible."""
    schedule, note = possible(schedule, method)
    most = SUBJECTS[network].iterations[-1]
    if iterations > most:
        note += f"This network offers at most {most} iterations. "
    return family(network, method, schedule, min(iterations, most)), note


def _show(stop: int, **chosen) -> tuple[Figure, str]:
    """The picture of a stop, and in words how many weights are kept and what became of paths."""
    made, note = _chosen(**chosen)
    verdict, units = made.verdict(stop), made.units(stop)
    label, compression = STYLES[made.method].label, f"compression {written(made.stops[stop])}"
    conserved = "No score is left to conserve."
    if (units[["incoming", "outgoing"]] != 0).any(axis=None):
        error = float(units["max_relative_error"].iloc[0])
        verb = "holds" if error < 1e-4 else "does not hold"
        conserved = f"Conservation {verb}: largest relative error {error:.1g}."
    told = (
        f"{note}{label} keeps {verdict.kept:,} of {made.path.total:,} weights ({compression})."
        f" By layer: {verdict.layers}. By path: input and output are {verdict.path}. {conserved}"
    )
    drawing = made.drawing(stop) if made.subject.drawn else None
    title = f"{label}, {compression}: {verdict.words}"
    return collapse_view(made.layers, stop, units, drawing, title), told


def _missed(stop: int, **chosen) -> bool:
    verdict = _chosen(**chosen)[0].verdict(stop)
    return not verdict.empty and not verdict.connected


def _snip_alone(stop: int, **chosen) -> bool:
    made = _chosen(**chosen)[0]
    if made.method != "snip" or not made.verdict(stop).empty:
        return False
    return not family(made.name, "synflow", "cut", 1).verdict(stop).empty


def _rescued(stop: int, **chosen) -> bool:
    made = _chosen(**chosen)[0]
    if made.iterations == 1 or made.schedule == "cut" or not made.verdict(stop).connected:
        return False
    return not family(made.name, made.method, made.schedule, 1).verdict(stop).connected


COLLAPSE = Explorer(
    "compression",
    {
        "network": tuple(SUBJECTS),
        "method": FIVE,
        "schedule": SCHEDULES,
        "iterations": SUBJECTS["small"].iterations,
    },
    compressions,
    _show,
    (
        Task("a network that is disconnected though no layer is empty", _missed),
        Task("a compression at which SNIP has an empty layer and SynFlow has none", _snip_alone),
        Task("a network that one iteration disconnects, and more iterations do not", _rescued),
    ),
    start=0.5,
)
