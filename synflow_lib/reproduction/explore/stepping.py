"""Explorer 2: SynFlow one phase at a time, on a network small enough to see."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from ... import models
from ...pruning import trajectory
from ...scores import score
from ..figures.explore import step_view
from .families import SCHEDULES, choose
from .panel import Frame, panel, png

PHASES = ("score", "sort", "cut", "prune")
ITERATIONS = (1, 3, 6)


@dataclass(frozen=True)
class Step:
    """One iteration of SynFlow: arrays (outputs, inputs) a layer, and its cut size."""

    weights: list[np.ndarray]
    scores: list[np.ndarray]
    going: list[np.ndarray]
    cut: float

    @property
    def removed(self) -> float:
        """The prune size: the score that goes."""
        pairs = zip(self.scores, self.going, strict=True)
        return sum(float(s[g].sum()) for s, g in pairs)


def steps(schedule: str = "cut", iterations: int = 3):
    """Step through SynFlow: score, sort, cut, prune, and again, down to one weight a layer.

    The bars at the right are Theorem 3: as long as the prune size stays below the cut size, some
    path is left. The schedule "cut" keeps to it; with few iterations of the others it is broken.

    Args:
        schedule: "cut", "exponential" or "linear", to begin with.
        iterations: 1, 3 or 6; not looked at by "cut".

    Returns:
        A widget to display; see `panel.panel` for its parts.

    Raises:
        ValueError: not one of the choices; ImportError: no ipywidgets.

    Paper: section 4, algorithm 1, theorem 3.

    >>> steps("exponential", 1).controls["stop"].options[1][0]
    'iteration 1: sort'
    """
    choose("schedule", schedule, SCHEDULES)
    choose("iterations", iterations, ITERATIONS)
    choices = {"schedule": (SCHEDULES, schedule), "iterations": (ITERATIONS, iterations)}
    return panel(choices, _frames, "step")


def steps_picture(
    iteration: int = 1, phase: str = "cut", schedule: str = "cut", iterations: int = 3
) -> Figure:
    """What `steps` shows at one phase of one iteration; needs no widgets.

    Args:
        iteration: from 1.
        phase: "score", "sort", "cut" or "prune".
        schedule, iterations: as in `steps`.

    Raises:
        ValueError: not one of the choices, or no such iteration.

    >>> steps_picture().axes[2].get_ylabel()
    'score / cut size'
    """
    choose("phase", phase, PHASES)
    way = walk(schedule, iterations)
    whole = isinstance(iteration, int) and not isinstance(iteration, bool)
    if not whole or not 1 <= iteration <= len(way):
        raise ValueError(f"iteration={iteration!r}; expected a whole number from 1 to {len(way)}")
    return _draw(way[iteration - 1], iteration, phase)


@functools.cache
def walk(schedule: str = "cut", iterations: int = 3) -> list[Step]:
    """The iterations of SynFlow on a network of 3 layers and 44 weights, in float64.

    >>> all(step.removed < step.cut for step in walk("cut"))
    True
    """
    choose("schedule", schedule, SCHEDULES)
    choose("iterations", iterations, ITERATIONS)
    net = models.fc((1, 2, 2), num_classes=3, depth=3, width=4, seed=0).double()
    how: dict = {"schedule": schedule}
    if schedule != "cut":
        total = sum(p.numel() for p in net.parameters() if p.dim() > 1)
        how |= {"iterations": iterations, "compression": total / 3}
    path = trajectory(net, "synflow", progress=False, **how)
    return [
        _step(net, path.masks(path.iteration >= row.iteration),
              path.masks(path.iteration == row.iteration), float(row.cut_size))
        for row in path.history.itertuples()
    ]  # fmt: skip


def _step(net: nn.Module, alive, going, cut: float) -> Step:
    pruned = alive.apply_(copy.deepcopy(net))
    scores = score(pruned, "synflow")
    true = torch.tensor(scores.log2_scale)  # scores may come divided by a power of two
    return Step(
        [mask.numpy() for mask in alive.values()],
        [torch.ldexp(scores[name].detach(), true).numpy() for name in alive],
        [mask.numpy() for mask in going.values()],
        cut,
    )


@functools.cache
def _frames(schedule: str, iterations: int) -> list[Frame]:
    return [
        Frame(
            png(_draw(step, number, phase)),
            f"iteration {number}: {phase}",
            words(step, number, phase),
        )
        for number, step in enumerate(walk(schedule, iterations), start=1)
        for phase in PHASES
    ]


def words(step: Step, number: int, phase: str) -> str:
    """A phase of an iteration in words.

    >>> words(walk("cut")[0], 1, "score")
    'Iteration 1, score: 44 weights are scored; every layer carries the same total, the cut size.'
    """
    kept = sum(int(w.sum()) for w in step.weights)
    leaving = sum(int(g.sum()) for g in step.going)
    if phase == "score":
        told = f"{kept} weights are scored; every layer carries the same total, the cut size."
    elif phase == "sort":
        told = f"the {kept} scores in order, smallest first."
    elif phase == "cut":
        safe = step.removed < step.cut
        told = f"{leaving} weights are to go; the prune size is {_share(step)} of the cut size" + (
            ", so a path is left." if safe else ": Theorem 3 no longer promises a path."
        )
    else:
        told = f"{kept - leaving} weights are left."
    return f"Iteration {number}, {phase}: {told}"


def _share(step: Step) -> str:
    return f"{step.removed / step.cut:.2f}" if step.cut else "an undefined share"


def _draw(step: Step, number: int, phase: str) -> Figure:
    title = words(step, number, phase).partition(";")[0] if phase != "cut" else ""
    if phase == "cut":
        title = f"Iteration {number}, cut: prune size is {_share(step)} of the cut size"
    return step_view(step.weights, step.scores, step.going, phase, step.cut, title)
