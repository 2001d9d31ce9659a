"""Explorer 3: five methods lose weights together, and one after the other breaks."""

from __future__ import annotations

import functools

import pandas as pd
from matplotlib.figure import Figure

from ..figures.explore import race_view
from ..figures.style import METHODS, STYLES
from .families import SUBJECTS, choose, family, stops
from .panel import Frame, panel, png


def race(network: str = "perceptron"):
    """Five methods lose weights together; a cross marks where a layer of one is empty.

    Random, magnitude, SNIP and GraSP score once, as in the paper's figure 2; SynFlow runs on the
    cut schedule. "vgg16" takes half a minute before it starts, on two cores.

    Args:
        network: "small", "perceptron" or "vgg16", to begin with.

    Returns:
        A widget to display; see `panel.panel` for its parts.

    Raises:
        ValueError: no such network; ImportError: no ipywidgets.

    Paper: section 3, figure 2.

    >>> race("small").controls["stop"].description
    'compression'
    """
    choose("network", network, tuple(SUBJECTS))
    return panel({"network": (tuple(SUBJECTS), network)}, _frames, "compression")


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
    choose("network", network, tuple(SUBJECTS))
    at = stops(network)
    return race_view(field(network), len(at) - 1 if stop is None else stop, at[-1])


@functools.cache
def field(network: str) -> pd.DataFrame:
    """The layers of all runners at all stops: the table behind `race`.

    >>> field("small")["method"].unique().tolist()
    ['random', 'magnitude', 'snip', 'grasp', 'synflow']
    """
    runs = [family(network, m, "cut" if m == "synflow" else "exponential") for m in METHODS]
    return pd.concat([run.layers for run in runs], ignore_index=True)


@functools.cache
def _frames(network: str) -> list[Frame]:
    return [
        Frame(png(race_picture(network, stop)), f"{compression:.3g}", words(network, stop))
        for stop, compression in enumerate(stops(network))
    ]


def words(network: str, stop: int) -> str:
    """The picture of a stop in words: who has an empty layer, and since when.

    >>> words("small", 0)
    'Compression 1: all five methods have weights in every layer.'
    """
    table, now = field(network), stops(network)[stop]
    fewest = table.pivot_table("kept", index="compression", columns="method", aggfunc="min")
    broken = fewest.eq(0) & (fewest.index.to_numpy()[:, None] <= now)
    when = {m: broken.index[broken[m]][0] for m in METHODS if broken[m].any()}
    if not when:
        return f"Compression {now:.3g}: all five methods have weights in every layer."
    order = sorted(when, key=when.get)
    told = ", ".join(f"{STYLES[m].label} (at {when[m]:.3g})" for m in order)
    left = [STYLES[m].label for m in METHODS if m not in when]
    alive = f" Still whole: {', '.join(left)}." if left else ""
    return f"Compression {now:.3g}: a layer is empty under {told}.{alive}"
