"""What an explorer shows, computed before it is asked for: one nested family of masks at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import nn

from ... import data, models
from ...batches import Batch
from ...collapse import PathProbe
from ...conservation import check_conservation
from ...graph import prunable
from ...masks import Masks
from ...pruning import trajectory
from ...scores import score
from ...trajectory import Trajectory
from ..experiments.collapse import collapse_verdicts, layer_densities
from ..figures.style import METHODS

SCHEDULES = ("exponential", "linear", "cut")


@dataclass(frozen=True)
class Subject:
    """A network to explore and the images it is scored on.

    Attributes:
        title: what it is, in a few words.
        build: makes it, the same each time.
        size: side of the square images of digits.
        channels: of these images.
        steps: slider stops a decade of compression.
        iterations: how often one may score, as choices.
        drawn: whether it is small enough to draw every weight.
    """

    title: str
    build: Callable[[], nn.Module]
    size: int
    channels: int
    steps: int
    iterations: tuple[int, ...]
    drawn: bool


SUBJECTS = {
    "small": Subject(
        "4 layers of 8 units on 3x3 digits",
        lambda: models.fc((1, 3, 3), depth=4, width=8, seed=0),
        *(3, 1, 6, (1, 10, 100), True),
    ),
    "perceptron": Subject(
        "6 layers of 100 units on 8x8 digits",
        lambda: models.fc((1, 8, 8), seed=0),
        *(8, 1, 4, (1, 10, 100), False),
    ),
    "vgg16": Subject(
        "VGG-16 with BatchNorm, 100 classes",
        lambda: models.vgg16(num_classes=100, seed=0),
        *(32, 3, 2, (1, 10), False),
    ),
}


def choose(what: str, value: object, choices: tuple) -> None:
    """Raises a ValueError that lists the choices, unless ``value`` is one of them.

    >>> choose("method", "sinp", ("snip", "synflow"))
    Traceback (most recent call last):
    ...
    ValueError: method='sinp'; expected one of 'snip', 'synflow'
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{what}={value!r}; expected one of {', '.join(map(repr, choices))}")


@functools.cache
def network(name: str) -> nn.Module:
    """The network called ``name``, at its initialization; nobody may change it.

    Raises:
        ValueError: no such network; the error lists them.

    >>> network("small")[1]
    Linear(in_features=9, out_features=8, bias=True)
    """
    choose("network", name, tuple(SUBJECTS))
    return SUBJECTS[name].build()


@functools.cache
def batch(name: str) -> Batch:
    """Ten digits a class, in the size of the network called ``name``."""
    choose("network", name, tuple(SUBJECTS))
    subject = SUBJECTS[name]
    return data.digits(size=subject.size, channels=subject.channels).scoring_batch(10)


@functools.cache
def stops(name: str) -> tuple[float, ...]:
    """The compressions of a slider, rising from 1 to rho_max = N / L of the network ``name``.

    >>> len(stops("small")), stops("small")[-1]
    (12, 70.0)
    """
    found = prunable(network(name))
    limit = sum(p.numel() for p in found.values()) / len(found)
    steps = SUBJECTS[name].steps
    # A stop just below the limit would be the same network.
    count = math.ceil((math.log10(limit) - 0.02) * steps)
    return (*(10 ** (i / steps) for i in range(count)), limit)


@dataclass
class Family:
    """One run of one method on one network, looked at from every stop of a slider.

    Attributes:
        name, method, schedule, iterations: which run.
        stops: compressions.
        layers: one row a compression and layer, from `experiments.collapse.layer_densities`.
        verdicts: one row a compression: kept, empty_layers, connected.
        path: the run.
    """

    name: str
    method: str
    schedule: str
    iterations: int
    stops: tuple[float, ...]
    layers: pd.DataFrame
    verdicts: pd.DataFrame
    path: Trajectory = field(repr=False)
    _units: dict[int, pd.DataFrame] = field(default_factory=dict, repr=False)

    def masks(self, stop: int) -> Masks:
        """What is kept at a stop."""
        return self.path.at(self.stops[stop])

    def units(self, stop: int) -> pd.DataFrame:
        """Score that enters and leaves each hidden unit of the pruned network, scored again.

        Returns:
            ``layer, unit, incoming, outgoing``, and ``max_relative_error``.
        """
        if stop not in self._units:
            self._units[stop] = self._conservation(self.masks(stop))
        return self._units[stop]

    def prepare(self) -> Family:
        """Looks at the units at every stop, so that the slider need not wait; returns itself."""
        for stop in range(len(self.stops)):
            self.units(stop)
        return self

    def _conservation(self, masks: Masks) -> pd.DataFrame:
        net = SUBJECTS[self.name].build()
        masks.apply_(net)
        scores = score(net, self.method, batch(self.name), mode=_mode(self.method))
        for layer, mask in masks.items():  # a random score knows nothing of what is pruned
            scores[layer] = scores[layer] * mask
        report = check_conservation(net, scores)
        error = report.max_relative_error
        return report.table.assign(max_relative_error=error)


def _mode(method: str) -> str | None:
    return "eval" if method in ("snip", "grasp") else None


@functools.lru_cache(maxsize=64)
def family(
    name: str, method: str = "synflow", schedule: str = "exponential", iterations: int = 1
) -> Family:
    """A run of a method, with what its pictures need at every stop; kept once computed.

    Args:
        name: of `SUBJECTS`.
        method: one of the paper's five.
        schedule: "exponential", "linear"; or "cut" (Theorem 3), for SynFlow, with as many
            iterations as it needs (``iterations`` is then not looked at).
        iterations: how often to score; a choice of the network's `Subject`.

    Raises:
        ValueError: none of the choices; the error lists them.

    >>> made = family("small", "synflow", "cut")
    >>> int(made.verdicts["empty_layers"].max()), bool(made.verdicts["connected"].all())
    (0, True)
    """
    net = network(name)
    choose("method", method, METHODS)
    choose("schedule", schedule, SCHEDULES if method == "synflow" else SCHEDULES[:2])
    choose("iterations", iterations, SUBJECTS[name].iterations)
    how: dict = {"schedule": schedule}
    if schedule != "cut" and iterations > 1:
        how["iterations"] = iterations
    elif schedule != "cut":
        how = {"iterations": 1}  # one score orders all weights
    path = trajectory(net, method, batch(name), mode=_mode(method), progress=False, **how)
    found = {method: path}
    at = stops(name)
    layers = layer_densities(found, at)
    return Family(
        *(name, method, schedule, iterations, at),
        *(layers, collapse_verdicts(net, found, at), path),
    )


@functools.cache
def probe(name: str) -> PathProbe:
    """Says which kept weights of the network ``name`` lie on a path."""
    return PathProbe(network(name))


@torch.no_grad()
def drawn_weights(made: Family, stop: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer of a drawn network, which weights are kept and which lie on a path.

    Returns:
        Pairs of bool tensors (outputs, inputs), in forward order.
    """
    masks = made.masks(stop)
    alive = probe(made.name).on_path(masks)
    return [(masks[name], alive[name]) for name in masks]
