"""The figures of notebook 06: differences with their intervals, iterations, dead inputs, layers."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synflow_lib.reproduction.intervals import mean_interval

from .style import (
    MAX_COMPRESSION,
    STYLES,
    Style,
    key,
    log_axis,
    panels,
    power_of_ten,
    require,
    styles,
)

_LINES = [  # of states of a network, which are no methods
    {"color": "#0173b2", "marker": "s", "linestyle": "-"},
    {"color": "#0173b2", "marker": "o", "linestyle": "--", "markerfacecolor": "white"},
    {"color": "#de8f05", "marker": "^", "linestyle": "-"},
    {"color": "#de8f05", "marker": "v", "linestyle": "--", "markerfacecolor": "white"},
]
_CLEAR, _UNCLEAR = "#0173b2", "#666666"


def paired_differences(table: pd.DataFrame, reference: str) -> Figure:
    """Differences of accuracy with their 95% intervals, a row a method, a panel a compression.

    Args:
        table: one row a method and compression: method, compression, difference (percent), low,
            high, clear (whether the interval excludes zero), from `intervals.paired_difference`.
        reference: what was subtracted, for the axis.

    Returns:
        Filled dots where the interval excludes zero, open ones where it does not.

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"method": ["snip"], "compression": 10.0, "difference": -2.0,
    ...                       "low": -3.0, "high": -1.0, "clear": True})
    >>> paired_differences(table, "SynFlow").axes[0].get_title()
    'compression $10^{1}$'
    """
    columns = ["method", "compression", "difference", "low", "high", "clear"]
    require(table, columns, "paired_differences")
    names = list(dict.fromkeys(table["method"]))
    shown = sorted(table["compression"].unique())
    height = 1.3 + 0.33 * len(names)
    with panels(len(shown), 4, height, share_y=True) as (figure, axes, _):
        for ax, compression in zip(axes, shown, strict=True):
            ax.axvline(0, color="black", linewidth=1)
            for row in table[table["compression"] == compression].itertuples():
                place, color = names.index(row.method), _CLEAR if row.clear else _UNCLEAR
                ax.plot([row.low, row.high], [place, place], color=color, linewidth=1.8)
                face = color if row.clear else "white"
                ax.plot(row.difference, place, "o", color=color, markerfacecolor=face)
            ax.set_title(f"compression {power_of_ten(compression)}")
            ax.set_yticks(range(len(names)), [_label(name) for name in names])
            ax.set_ylim(len(names) - 0.4, -0.6)
        figure.supxlabel(f"accuracy minus that of {reference} (percent)", fontsize=11.5)
        entries = [
            key("interval excludes zero", color=_CLEAR, marker="o"),
            key("it does not", color=_UNCLEAR, marker="o", markerfacecolor="white"),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=2)
    return figure


def iteration_collapse(table: pd.DataFrame, limits: dict[str, float]) -> Figure:
    """Critical compression against the number of times a method scores, a panel a network.

    Args:
        table: one row a method, network, number of iterations and seed: method, network,
            iterations, critical_compression.
        limits: network -> rho_max, drawn as a line.

    Returns:
        Lines are geometric means over seeds, thin bars their smallest and largest values.

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"method": "snip", "network": "fc", "iterations": [1, 10],
    ...                       "critical_compression": [100.0, 1000.0]})
    >>> iteration_collapse(table, {"fc": 7900.0}).axes[0].get_xlabel()
    'scorings'
    """
    columns = ["method", "network", "iterations", "critical_compression"]
    require(table, columns, "iteration_collapse")
    look, networks = styles(table["method"]), list(dict.fromkeys(table["network"]))
    with panels(len(networks), 2, 3.9, share_y=True) as (figure, axes, _):
        for ax, network in zip(axes, networks, strict=True):
            for place, (method, style) in enumerate(look.items()):
                rows = table[(table["network"] == network) & (table["method"] == method)]
                values = rows.groupby("iterations")["critical_compression"]
                if rows.empty:
                    continue
                mean = values.apply(lambda v: v.prod() ** (1 / len(v)))
                at = mean.index * (1 + 0.05 * (place - len(look) / 2))  # side by side
                ax.vlines(at, values.min(), values.max(), color=style.color, linewidth=1.2)
                ax.plot(at, mean, **style.kwargs())
            ax.axhline(limits[network], **MAX_COMPRESSION)
            log_axis(ax.xaxis)
            log_axis(ax.yaxis)
            ax.set(title=network, xlabel="scorings")
        axes[0].set_ylabel(r"critical compression $\rho_{cr}$, by path")
        entries = [key(**style.kwargs()) for style in look.values()]
        entries.append(key(r"$\rho_{max}$", **MAX_COMPRESSION))
        figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))
    return figure


def dead_inputs(table: pd.DataFrame) -> Figure:
    """What an empty or noisy canvas around the images does: kept inputs above, accuracy below.

    Args:
        table: one row a method, fill, canvas and seed: method, fill ("black", "noise"), dead
            (share of the pixels around the image), inside (share of the first layer's kept weights
            that read the image), accuracy (percent).

    Returns:
        A column a fill; means over seeds, bands 95% confidence intervals.

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"method": "snip", "fill": "black", "dead": [0.0, 0.9, 0.0, 0.9],
    ...                       "inside": [1.0, 0.9, 1.0, 0.8], "accuracy": 90.0})
    >>> dead_inputs(table).axes[0].get_title()
    'black'
    """
    require(table, ["method", "fill", "dead", "inside", "accuracy"], "dead_inputs")
    table = table.assign(inside=100 * table["inside"], dead=100 * table["dead"])
    look, fills = styles(table["method"]), list(dict.fromkeys(table["fill"]))
    quantities = {
        "inside": "first-layer weights that\nread the image (percent)",
        "accuracy": "top-1 accuracy (percent)",
    }
    with panels(2 * len(fills), len(fills), 2.6) as (figure, axes, _):
        for number, (quantity, words) in enumerate(quantities.items()):
            row = axes[number * len(fills) : (number + 1) * len(fills)]
            low = table["accuracy"].groupby([table["method"], table["fill"], table["dead"]]).mean()
            for ax, fill in zip(row, fills, strict=True):
                for method, style in look.items():
                    own = table[(table["fill"] == fill) & (table["method"] == method)]
                    _band(ax, own, "dead", quantity, style)
                ax.set_ylim((0, 105) if quantity == "inside" else (min(low) - 6, 101))
                if not number:
                    ax.set_title(fill)
                else:
                    ax.set_xlabel("pixels around the image (percent of all)")
            row[0].set_ylabel(words)
        entries = [key(**style.kwargs()) for style in look.values()]
        figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))
    return figure


def layer_profiles(table: pd.DataFrame, quantities: dict[str, str]) -> Figure:
    """Quantities of the layers of networks, a line a state: before and after training.

    Args:
        table: one row a network, state and layer: network, state (a name), layer (from 1), and a
            column for each quantity.
        quantities: column -> label of its axis, not below 0; one panel each.

    Returns:
        A panel a quantity, a line a state and network.

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"network": "fc", "state": "untrained", "layer": [1, 2],
    ...                       "rms": [0.1, 0.2]})
    >>> layer_profiles(table, {"rms": "rms"}).axes[0].get_ylabel()
    'rms'
    """
    require(table, ["network", "state", "layer", *quantities], "layer_profiles")
    lines = list(table.groupby(["network", "state"], sort=False))
    with panels(len(quantities), len(quantities), 3.6) as (figure, axes, _):
        entries = []
        for number, ((network, state), rows) in enumerate(lines):
            look = _LINES[number % len(_LINES)] | {"label": f"{network}, {state}"}
            entries.append(key(**look))
            for ax, quantity in zip(axes, quantities, strict=True):
                ax.plot(rows["layer"], rows[quantity], **look)
        for ax, words in zip(axes, quantities.values(), strict=True):
            ax.set(xlabel="layer (1: input)", ylabel=words)
            ax.set_ylim(bottom=0)
            ax.set_xticks(sorted(table["layer"].unique()))
        figure.legend(handles=entries, loc="outside upper center", ncols=min(4, len(entries)))
    return figure


def _label(name: str) -> str:
    return STYLES[name].label if name in STYLES else name


def _band(ax: Axes, rows: pd.DataFrame, x: str, y: str, style: Style) -> None:
    """A line of means over seeds with a band, where x stands in the place of a compression."""
    if rows.empty:
        return
    curve = mean_interval(pd.DataFrame({"compression": rows[x], "accuracy": rows[y]}))
    ax.fill_between(
        curve["compression"], curve["low"], curve["high"], color=style.color, alpha=0.15, lw=0
    )
    ax.plot(curve["compression"], curve["mean"], **style.kwargs())
