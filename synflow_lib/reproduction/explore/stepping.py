"""Explorer 3: SynFlow one phase at a time, on a network small enough to see."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass

import numpy as np
import torch
from IPython.display import HTML
from matplotlib.figure import Figure

from ... import models
from ...collapse import max_compression
from ...masks import Masks
from ...pruning import trajectory
from ...scores import score
from ...values import whole
from ..figures.explore import PHASES, step_view
from .explorer import Explorer, Task, choose
from .pruned import SCHEDULES

ITERATIONS = (1, 3, 6)


def steps(schedule: str = "cut", iterations: int = 3):
    """Step through SynFlow: score, sort, cut, prune, and again, down to one weight a layer.

    The bars at the right are Theorem 3: as long as the prune size stays below the cut size, some
    path is left. The schedule "cut" keeps to it; with few iterations of the others it is broken.

    Args:
        schedule: "cut", "exponential" or "linear", to begin with.
        iterations: 1, 3 or 6; not looked at by "cut".

    Returns:
        A widget to display; see `Explorer.widget` for its parts.

    Raises:
        ValueError: not one of the choices; ImportError: no ipywidgets.

    Paper: section 4, algorithm 1, theorem 3.

    >>> steps("exponential", 1).controls["stop"].options[1][0]
    'iteration 1: sort'
    """
    walk(schedule, iterations)
    return STEPS.widget(schedule=schedule, iterations=iterations)


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
    last = len(walk(schedule, iterations))
    stop = len(PHASES) * (whole(iteration, "iteration", 1, last) - 1) + PHASES.index(phase)
    return _show(stop, schedule, iterations)[0]


def steps_animation(schedule: str = "cut", iterations: int = 3) -> HTML:
    """SynFlow step by step as an animation, in HTML that needs no kernel (below 300 kB).

    Args and errors: as in `steps`.

    >>> len(steps_animation().data) < 300_000
    True
    """
    last = len(walk(schedule, iterations))
    # The order of the scores is seen again in the phase that cuts.
    stops = [i for i in range(len(PHASES) * last) if PHASES[i % len(PHASES)] != "sort"]
    alt = f"SynFlow scores, cuts and prunes a drawn network, {last} times"
    return STEPS.animation(stops, 1, alt, schedule=schedule, iterations=iterations)


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

    @property
    def left(self) -> list[np.ndarray]:
        """The weights that stay."""
        return [w & ~g for w, g in zip(self.weights, self.going, strict=True)]

    @property
    def joined(self) -> bool:
        """Whether some path is left."""
        return bool(functools.reduce(lambda first, then: then @ first, self.left).any())


@functools.cache
def walk(schedule: str = "cut", iterations: int = 3) -> list[Step]:
    """The iterations of SynFlow on a network of 3 layers and 44 weights, in float64.

    Raises:
        ValueError: not one of the choices.

    >>> all(step.removed < step.cut for step in walk("cut"))
    True
    """
    choose("schedule", schedule, SCHEDULES)
    choose("iterations", iterations, ITERATIONS)
    net = models.fc((1, 2, 2), num_classes=3, depth=3, width=4, seed=0).double()
    how: dict = {"schedule": schedule}
    if schedule != "cut":
        how |= {"iterations": iterations, "compression": max_compression(net)}
    path = trajectory(net, "synflow", progress=False, **how)
    found = []
    for row in path.history.itertuples():
        alive = Masks.from_flat(path.iteration >= row.iteration, path.layout)
        going = Masks.from_flat(path.iteration == row.iteration, path.layout)
        scores = score(alive.apply_(copy.deepcopy(net)), "synflow")
        true = torch.tensor(scores.log2_scale)  # scores may come divided by a power of two
        found.append(
            Step(
                [mask.numpy() for mask in alive.values()],
                [torch.ldexp(scores[name].detach(), true).numpy() for name in alive],
                [mask.numpy() for mask in going.values()],
                float(row.cut_size),
            )
        )
    return found


def words(step: Step, number: int, phase: str) -> str:
    """A phase of an iteration in words.

    >>> words(walk("cut")[0], 1, "score")
    'Iteration 1, score: 44 weights are scored; every layer carries the same total, the cut size.'
    """
    kept = sum(int(w.sum()) for w in step.weights)
    leaving = sum(int(g.sum()) for g in step.going)
    promise = ": Theorem 3 no longer promises a path."
    if step.removed < step.cut:
        promise = ", so a path is left."
    told = {
        "score": f"{kept} weights are scored; every layer carries the same total, the cut size.",
        "sort": f"the {kept} scores in order, smallest first.",
        "cut": f"{leaving} weights are to go; the prune size is {_share(step)} of the cut size"
        f"{promise}",
        "prune": f"{kept - leaving} weights are left.",
    }
    return f"Iteration {number}, {phase}: {told[phase]}"


def _share(step: Step) -> str:
    return f"{step.removed / step.cut:.2f}" if step.cut else "an undefined share"


def _show(stop: int, schedule: str, iterations: int) -> tuple[Figure, str]:
    number, (step, phase) = stop // len(PHASES) + 1, _at(stop, schedule, iterations)
    told = words(step, number, phase)
    title = told.partition(";")[0]
    if phase == "cut":
        title = f"Iteration {number}, cut: prune size is {_share(step)} of the cut size"
    return step_view(step.weights, step.scores, step.going, phase, step.cut, title), told


def _labels(schedule: str, iterations: int) -> list[str]:
    numbers = range(1, len(walk(schedule, iterations)) + 1)
    return [f"iteration {number}: {phase}" for number in numbers for phase in PHASES]


def _at(stop: int, schedule: str, iterations: int) -> tuple[Step, str]:
    number, phase = divmod(stop, len(PHASES))
    return walk(schedule, iterations)[number], PHASES[phase]


def _unsafe(stop: int, **chosen) -> bool:
    step, phase = _at(stop, **chosen)
    return phase == "cut" and step.removed >= step.cut


def _lucky(stop: int, **chosen) -> bool:
    step, phase = _at(stop, **chosen)
    return phase == "prune" and step.removed >= step.cut and step.joined


def _bare(stop: int, **chosen) -> bool:
    step, phase = _at(stop, **chosen)
    return phase == "prune" and all(layer.sum() == 1 for layer in step.left)


STEPS = Explorer(
    "step",
    {"schedule": SCHEDULES, "iterations": ITERATIONS},
    _labels,
    _show,
    (
        Task("a cut at which the prune size is not below the cut size", _unsafe),
        Task("a step that Theorem 3 says nothing of, and yet some path is left", _lucky),
        Task("one weight left in every layer", _bare),
    ),
)
