"""Explorer 4: a perceptron that is pruned, and trained while one watches."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from ... import data, models
from ...collapse import PathProbe
from ...masks import Masks
from ...pruning import prune
from ...training.recipes import Recipe
from ...training.train import Training, train
from ..figures.explore import training_view
from ..figures.style import STYLES
from ..paper import FIVE
from .explorer import Explorer, Task, choose
from .pruned import Verdict, possible, verdict_of

COMPRESSIONS = (1, 3, 10, 30, 100, 300, 1000)
RECIPE = Recipe(epochs=3, learning_rate=0.1, batch_size=64)
SCHEDULES = {  # name -> how to prune
    "one shot": {"iterations": 1},
    "exponential": {"schedule": "exponential", "iterations": 100},
    "linear": {"schedule": "linear", "iterations": 100},
    "cut": {"schedule": "cut"},
}
MEMORY = 5

Choice = tuple[str, int, str]  # method, compression, schedule


def training(method: str = "synflow", compression: int = 30, schedule: str = "exponential"):
    """Prune a perceptron of 6 layers, train it for three epochs, watch what it learns.

    Left the accuracy after each epoch, beside the last five choices; in the middle the weights left
    in each layer, and whether a path is left; right what all these choices came to. A choice is
    pruned and trained when it is made, in some tenths of a second, and its curve grows by the
    epoch. Three things to look for stand beside the picture.

    Args:
        method: one of the paper's five, to begin with.
        compression: 1, 3, 10, 30, 100, 300 or 1000.
        schedule: "one shot" scores once; "exponential" and "linear" score 100 times; "cut" is
            SynFlow's own.

    Returns:
        A widget to display; see `Explorer.widget` for its parts.

    Raises:
        ValueError: not one of the choices; ImportError: no ipywidgets.

    Paper: figures 1 and 6, on a small scale.

    >>> sorted(training().controls)
    ['compression', 'method', 'schedule', 'stop']
    """
    _check(method, compression, schedule)
    return TRAINING.widget(method=method, compression=compression, schedule=schedule)


def training_picture(
    method: str = "synflow",
    compression: int = 30,
    schedule: str = "exponential",
    *,
    epoch: int = RECIPE.epochs,
    past: Sequence[Choice] = tuple((method, 30, "one shot") for method in FIVE[:4]),
) -> Figure:
    """What `training` shows of one choice; needs no widgets.

    Args:
        epoch: up to which the curve is drawn, 0 (before training) to 3.
        past: former choices, (method, compression, schedule) each, of which the last five are
            drawn; by default the other four methods.
        (others): as in `training`.

    Raises:
        ValueError: not one of the choices, or no such epoch.

    >>> training_picture(epoch=0, past=()).axes[0].get_xlabel()
    'epoch'
    """
    for one in [*past, (method, compression, schedule)]:
        if not isinstance(one, (tuple, list)) or len(one) != 3:
            raise ValueError(f"past has {one!r}; expected (method, compression, schedule)")
        _check(*one)
    choose("epoch", epoch, range(RECIPE.epochs + 1))
    before = tuple(map(tuple, past))[-MEMORY:]
    return _show(epoch, method, compression, schedule, before)[0]


def _check(method: str, compression: int, schedule: str) -> None:
    choose("method", method, FIVE)
    choose("compression", compression, COMPRESSIONS)
    choose("schedule", schedule, [s for s in SCHEDULES if s != "cut" or method == "synflow"])


digits = functools.cache(data.digits)


@functools.lru_cache(maxsize=256)
def trained(method: str, compression: int, schedule: str) -> tuple[Masks, Verdict, Training]:
    """The masks of a choice, what they leave of the network, and how it learns.

    >>> masks, verdict, result = trained("random", 1000, "one shot")
    >>> masks.kept, verdict.connected, len(result.history)
    (47, False, 4)
    """
    net = models.fc(digits().input_shape, batch_norm=True, seed=0)
    how = {"batch": digits().scoring_batch(10)} | SCHEDULES[possible(schedule, method)[0]]
    masks = prune(net, method, compression, progress=False, **how)
    return masks, verdict_of(masks, PathProbe(net)), train(net, masks, digits(), RECIPE)


def accuracy(choice: Choice, epoch: int = -1) -> float:
    """Percent of the test digits that a choice gets right after an epoch, the last by default."""
    return float(trained(*choice)[2].history["test_top1"].iloc[epoch])


def _name(method: str, compression: int, schedule: str) -> str:
    return f"{STYLES[method].label}, {compression:,}, {schedule}"


def _show(
    stop: int, method: str, compression: int, schedule: str, past: tuple[Choice, ...]
) -> tuple[Figure, str]:
    """The picture after an epoch, and in words how much is learned of how many weights."""
    # With the schedules that were run, two choices may have become one.
    *former, now = (
        (m, c, possible(s, m)[0]) for m, c, s in (*past, (method, compression, schedule))
    )
    former = [one for one in dict.fromkeys(former) if one != now]
    masks, verdict, _ = trained(*now)
    told = (
        f"{possible(schedule, method)[1]}{_name(*now)}: {masks.kept:,} of {masks.total:,} weights;"
        f" {verdict.words}; {accuracy(now, stop):.1f} percent right after epoch {stop} of"
        f" {RECIPE.epochs}."
    )
    if former:
        others = "; ".join(f"{_name(*one)}: {accuracy(one):.1f}" for one in reversed(former))
        told += f" Before that: {others}."
    curves = []
    for one in [*former, now]:
        _, left, result = trained(*one)
        about = {"method": one[0], "choice": _name(*one), "connected": left.connected}
        curves.append(result.history.assign(**about))
    layers = masks.table().assign(layer=range(1, len(masks) + 1))
    return training_view(pd.concat(curves), stop, layers, verdict.words), told


def _free(stop: int, method: str, compression: int, schedule: str, past: tuple) -> bool:
    if stop < RECIPE.epochs or compression < 10:
        return False
    whole = accuracy(("random", 1, "one shot"))  # the same for every method
    return accuracy((method, compression, schedule)) >= whole - 1


def _hopeless(stop: int, method: str, compression: int, schedule: str, past: tuple) -> bool:
    return stop == RECIPE.epochs and not trained(method, compression, schedule)[1].connected


def _decisive(stop: int, method: str, compression: int, schedule: str, past: tuple) -> bool:
    now = accuracy((method, compression, schedule))
    rivals = [one for one in past if one[0] != method and one[1] == compression]
    return stop == RECIPE.epochs and any(abs(accuracy(one) - now) >= 20 for one in rivals)


TRAINING = Explorer(
    "epoch",
    {"method": FIVE, "compression": COMPRESSIONS, "schedule": tuple(SCHEDULES)},
    lambda **_: [f"epoch {epoch}" for epoch in range(RECIPE.epochs + 1)],
    _show,
    (
        Task("a tenth of the weights or fewer, within a point of all of them", _free),
        Task("a network without a path: how much can it learn?", _hopeless),
        Task("two methods at one compression, one after the other, 20 points apart", _decisive),
    ),
    start=1.0,
    plays=True,
    memory=MEMORY,
)
