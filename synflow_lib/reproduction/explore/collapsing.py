"""Explorer 1: one method at one compression, on a network small enough to draw or not."""

from __future__ import annotations

import functools

from matplotlib.figure import Figure

from ..figures.explore import collapse_view
from ..figures.style import METHODS, STYLES
from .families import SCHEDULES, SUBJECTS, Family, choose, drawn_weights, family, stops
from .panel import Frame, panel, png


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
        A widget to display; see `panel.panel` for its parts.

    Raises:
        ValueError: not one of the choices; ImportError: no ipywidgets.

    Paper: sections 3 and 4, figures 2 and 3.

    >>> box = collapse(method="synflow", schedule="cut")
    >>> sorted(box.controls)
    ['iterations', 'method', 'network', 'schedule', 'stop']
    """
    _check(network, method, schedule, iterations)
    choices = {
        "network": (tuple(SUBJECTS), network),
        "method": (METHODS, method),
        "schedule": (SCHEDULES, schedule),
        "iterations": (SUBJECTS["small"].iterations, iterations),
    }
    return panel(choices, _frames, "compression", lambda drawn: len(drawn) // 2)


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
    _check(network, method, schedule, iterations)
    return _draw(family(network, method, schedule, iterations), _nearest(network, compression))


def _nearest(network: str, compression: float) -> int:
    at = stops(network)
    number = isinstance(compression, (int, float)) and not isinstance(compression, bool)
    if not number or not 1 <= compression <= at[-1] * (1 + 1e-9):
        raise ValueError(
            f"compression={compression!r}; expected a number from 1 to N / L = {at[-1]:g}"
        )
    return min(range(len(at)), key=lambda i: abs(at[i] / compression - compression / at[i]))


def _check(network: str, method: str, schedule: str, iterations: int) -> None:
    choose("network", network, tuple(SUBJECTS))
    choose("method", method, METHODS)
    choose("schedule", schedule, SCHEDULES if method == "synflow" else SCHEDULES[:2])
    choose("iterations", iterations, SUBJECTS[network].iterations)


@functools.lru_cache(maxsize=32)
def _frames(network: str, method: str, schedule: str, iterations: int) -> list[Frame]:
    note = ""
    if schedule == "cut" and method != "synflow":
        note = f"The cut schedule is SynFlow's; {STYLES[method].label} runs exponentially. "
        schedule = "exponential"
    most = SUBJECTS[network].iterations[-1]
    if iterations > most:
        note += f"This network offers at most {most} iterations. "
        iterations = most
    made = family(network, method, schedule, iterations)
    return [
        Frame(png(_draw(made, stop)), f"{compression:.3g}", note + words(made, stop))
        for stop, compression in enumerate(made.stops)
    ]


def words(made: Family, stop: int) -> str:
    """The picture of a stop in words: how many weights are kept, and the verdict by layer and path.

    >>> words(family("small", "synflow", "cut"), 11)
    'SynFlow keeps 4 of 280 weights (compression 70). By layer: no layer is empty. By path: input
    and output are connected. Conservation holds: largest relative error ...'
    """
    row = made.verdicts.iloc[stop]
    style = STYLES[made.method].label
    error = float(made.units(stop)["max_relative_error"].iloc[0])
    empty = int(row["empty_layers"])
    verb = "holds" if error < 1e-4 else "does not hold"
    flows = bool((made.units(stop)[["incoming", "outgoing"]] != 0).any(axis=None))
    conserved = f"Conservation {verb}: largest relative error {error:.1g}."
    return (
        f"{style} keeps {int(row['kept']):,} of {made.path.total:,} weights"
        f" (compression {made.stops[stop]:.3g}). By layer: {_layers(empty)}. By path: input and"
        f" output are {'connected' if row['connected'] else 'disconnected'}."
        f" {conserved if flows else 'No score is left to conserve.'}"
    )


def _layers(empty: int) -> str:
    if not empty:
        return "no layer is empty"
    return f"collapsed, {empty} layer{'s are' if empty > 1 else ' is'} empty"


def _draw(made: Family, stop: int) -> Figure:
    drawing = None
    if SUBJECTS[made.name].drawn:
        drawing = [(kept.numpy(), alive.numpy()) for kept, alive in drawn_weights(made, stop)]
    row = made.verdicts.iloc[stop]
    verdict = (
        f"{STYLES[made.method].label}, compression {made.stops[stop]:.3g}:"
        f" {_layers(int(row['empty_layers']))},"
        f" {'connected' if row['connected'] else 'disconnected'}"
    )
    return collapse_view(made.layers, stop, made.units(stop), drawing, verdict)
