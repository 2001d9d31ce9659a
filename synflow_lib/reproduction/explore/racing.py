"""Explorer 2: five methods in a race."""

from __future__ import annotations

import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from ...values import whole
from ..figures.explore import race_view
from ..figures.style import STYLES
from ..paper import FIVE
from ..predict import written
from .explorer import Explorer, Task
from .pruned import SUBJECTS, compressions, family, subject


def race(network: str = "perceptron"):
    """Five methods lose weights together; a cross marks where a layer of one is empty.

    Random, magnitude, SNIP and GraSP score once, as in the paper's figure 2; SynFlow runs on the
    cut schedule. "vgg16" takes seconds at the first move. Three things to look for stand beside the
    picture, each ticked once it has been found.

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
    return _show(last if stop is None else whole(stop, "stop", 0, last), network)[0]


def race_animation(network: str = "perceptron") -> HTML:
    """The race as an animation with buttons, in HTML that needs no kernel (below 300 kB).

    Args and errors: as in `race_picture`.

    >>> len(race_animation("small").data) < 300_000
    True
    """
    stops = range(len(subject(network).stops))
    alt = "Five methods lose weights together: " + race_words(network, stops[-1])
    return RACE.animation(stops, 2, alt, network=network)


def runners(network: str, stop: int) -> pd.DataFrame:
    """The layers of all runners at the stops up to this one: the table behind `race`.

    >>> runners("small", 0)["method"].unique().tolist()
    ['random', 'magnitude', 'snip', 'grasp', 'synflow']
    """
    schedules = dict.fromkeys(FIVE, "exponential") | {"synflow": "cut"}
    runs = [family(network, method, schedule, 1) for method, schedule in schedules.items()]
    stops = range(stop + 1)
    return pd.concat([run.layers_at(at) for run in runs for at in stops], ignore_index=True)


def race_words(network: str, stop: int) -> str:
    """The picture of a stop in words: who has an empty layer, and since when.

    >>> race_words("small", 0)
    'Compression 1: all five methods have weights in every layer.'
    """
    now, table = SUBJECTS[network].stops[stop], runners(network, stop)
    empty = table[table["kept"] == 0]
    since = empty.groupby("method")["compression"].min().reindex(FIVE)
    broken = since.dropna().sort_values(kind="stable")
    if broken.empty:
        return f"Compression {written(now)}: all five methods have weights in every layer."
    told = ", ".join(f"{STYLES[m].label} (at {written(when)})" for m, when in broken.items())
    others = ", ".join(STYLES[m].label for m in since.index[since.isna()])
    alive = f" Still whole: {others}." if others else ""
    return f"Compression {written(now)}: a layer is empty under {told}.{alive}"


def _show(stop: int, network: str) -> tuple[Figure, str]:
    figure = race_view(runners(network, stop), stop, SUBJECTS[network].stops[-1])
    return figure, race_words(network, stop)


def _kept(stop: int, network: str) -> pd.DataFrame:
    """The weights kept at a stop: one row a method, one column a layer."""
    table = runners(network, stop)
    now = table[table["compression"] == SUBJECTS[network].stops[stop]]
    return now.pivot_table(index="method", columns="layer", values="kept")


def _whole(stop: int, network: str) -> list[str]:
    """The methods that have no empty layer."""
    left = _kept(stop, network)
    return left.index[(left > 0).all(axis=1)].tolist()


RACE = Explorer(
    "compression",
    {"network": tuple(SUBJECTS)},
    compressions,
    _show,
    (
        Task(
            "who is first to have an empty layer, alone",
            lambda stop, network: len(_whole(stop, network)) == len(FIVE) - 1,
        ),
        Task("SynFlow alone is whole", lambda stop, network: _whole(stop, network) == ["synflow"]),
        Task(
            "SynFlow has one weight in every layer",
            lambda stop, network: (_kept(stop, network).loc["synflow"] == 1).all(),
        ),
    ),
)
