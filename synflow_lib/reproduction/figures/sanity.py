"""Sanity checks: accuracy of changed masks, effective compression, live units, two schedules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synflow_lib.reproduction.intervals import mean_interval

from .style import COMPRESSION, STYLES, Style, key, log_axis, panels, power_of_ten, require, styles

# What notebook 07 draws beside the methods; colours and markers that no method has.
CHANGED = {
    "synflow rewired": Style("SynFlow, rewired", "#8c1c3c", "p", (0, (5, 2))),
    "synflow reinitialized": Style("SynFlow, reinitialized", "#7a7a1f", "h", (0, (2, 1))),
    "synflow shuffled": Style("SynFlow, shuffled", "#5d3a9b", "*", (0, (3, 1))),
    "largest within": Style("largest, SynFlow's quotas", "#20808d", "d", (0, (6, 2, 1, 2))),
    "erk": Style("random, ERK quotas", "#8a5a00", "X", (0, (1, 1))),
    "uniform": Style("random, uniform quotas", "#555555", "8", (0, (1, 2))),
    "synflow cut": Style("SynFlow, cut schedule", "#000000", "s", (0, (4, 2))),
}


def _looks(names: Iterable[str]) -> dict[str, Style]:
    names = list(dict.fromkeys(names))
    mine = {name: style for name, style in CHANGED.items() if name in names}
    return styles(name for name in names if name not in mine) | mine


def changed_masks(table: pd.DataFrame) -> Figure:
    """Accuracy of SynFlow's masks and of what is left when some of their knowledge is taken away.

    Args:
        table: one row a network: method (a label of `CHANGED`, or a method), compression, seed,
            accuracy (percent), effective (effective compression, infinite when disconnected).

    Returns:
        Left accuracy against compression, right the same networks against effective compression
        (geometric mean over seeds, of connected networks). Means and 95% intervals over seeds.

    >>> table = pd.DataFrame({"method": "erk", "compression": [3.0, 10.0], "seed": 0,
    ...                       "accuracy": [93.0, 92.5], "effective": [3.0, 20.0]})
    >>> [ax.get_xlabel() for ax in changed_masks(table).axes][1]
    'effective compression (weights / kept weights on paths)'
    """
    require(table, ["method", "compression", "seed", "accuracy", "effective"], "changed_masks")
    look = _looks(table["method"])
    with panels(2, 2, 5.0, share_y=True) as (figure, (left, right), _):
        for method, style in look.items():
            own = table[table["method"] == method]
            curve = mean_interval(own).set_index("compression")
            # Networks that are cut have no place on this axis.
            alive = own[np.isfinite(own["effective"])]
            place = np.log10(alive["effective"]).groupby(alive["compression"]).mean()
            line = style.kwargs() | {"markersize": 7, "linewidth": 1.5}
            left.plot(curve.index, curve["mean"], **line)
            left.fill_between(
                curve.index, curve["low"], curve["high"], color=style.color, alpha=0.13, lw=0
            )
            connected = mean_interval(alive).set_index("compression")["mean"]
            right.plot(10**place, connected.loc[place.index], **line)
        for ax, label in (
            (left, COMPRESSION),
            (right, "effective compression (weights / kept weights on paths)"),
        ):
            log_axis(ax.xaxis)
            ax.set_xlabel(label)
            ax.set_ylim(0, 103)
        left.set_ylabel("top-1 accuracy (percent)")
        left.set_title("by weights kept")
        right.set_title("by weights that do something")
        entries = [key(**style.kwargs()) for style in look.values()]
        figure.legend(handles=entries, loc="outside upper center", ncols=min(len(entries), 4))
    return figure


def effective_compressions(table: pd.DataFrame) -> Figure:
    """Effective against direct compression, one line a method.

    Args:
        table: one row a network: method, compression, effective (infinite when disconnected), and
            ``network`` where there are several.

    Returns:
        A panel per network. Lines are geometric means over the connected networks of a point; a
        cross marks the first compression at which all are disconnected.

    >>> table = pd.DataFrame({"method": "snip", "compression": [10.0, 100.0],
    ...                       "effective": [11.0, float("inf")]})
    >>> effective_compressions(table).axes[0].get_ylabel()
    'effective compression'
    """
    require(table, ["method", "compression", "effective"], "effective_compressions")
    if "network" not in table:
        table = table.assign(network="")
    networks, look = list(dict.fromkeys(table["network"])), _looks(table["method"])
    finite = table.loc[np.isfinite(table["effective"]), "effective"]
    top = 3 * finite.max()
    with panels(len(networks), 2, 4.6) as (figure, axes, _):
        for ax, network in zip(axes, networks, strict=True):
            here = table[table["network"] == network]
            ends = [here["compression"].min(), here["compression"].max()]
            ax.plot(ends, ends, color="black", linewidth=1, zorder=1)
            for number, (method, style) in enumerate(look.items()):
                own = here[here["method"] == method]
                if own.empty:
                    continue
                alive = own[np.isfinite(own["effective"])]
                mean = np.log10(alive["effective"]).groupby(alive["compression"]).mean()
                line = style.kwargs() | {"markersize": 7, "linewidth": 1.5}
                ax.plot(mean.index, 10**mean, **line)
                dead = sorted(set(own["compression"]) - set(mean.index))
                if dead:  # side by side where several methods end together
                    ax.plot(
                        dead[0] * 1.09 ** (number - len(look) / 2),
                        top,
                        color=style.color,
                        marker="x",
                        markersize=8,
                        markeredgewidth=2,
                    )
            log_axis(ax.xaxis)
            log_axis(ax.yaxis)
            ax.set_ylim(ends[0] / 1.5, 2 * top)
            ax.set_xlabel(COMPRESSION)
            ax.set_title(network)
        axes[0].set_ylabel("effective compression")
        entries = [key(**style.kwargs()) for style in look.values()]
        entries += [
            key("every weight on a path", color="black", linewidth=1),
            key("disconnected from here", color="#333333", marker="x", linestyle="none"),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=4)
    return figure


def live_units(layers: pd.DataFrame, totals: pd.DataFrame) -> Figure:
    """The share of units on some path: layer by layer, and for whole networks.

    Args:
        layers: at one compression, one row a network and layer: method, compression, layer (number,
            1 at the input), units, live.
        totals: method, compression, width (mean share of live units over hidden layers).

    Returns:
        Left the share in every layer, right the mean over layers against compression; means over
        networks where there are several.

    >>> layers = pd.DataFrame({"method": "erk", "compression": 10.0, "layer": [1, 2],
    ...                        "units": 8, "live": [8, 4]})
    >>> totals = pd.DataFrame({"method": "erk", "compression": [10.0, 100.0], "width": [1.0, 0.5]})
    >>> live_units(layers, totals).axes[0].get_title()
    'layer by layer, compression $10^{1}$'
    """
    require(layers, ["method", "compression", "layer", "units", "live"], "live_units, layers")
    require(totals, ["method", "compression", "width"], "live_units, totals")
    compressions = layers["compression"].unique()
    if len(compressions) != 1:
        raise ValueError(f"live_units: layers at {len(compressions)} compressions; expected one")
    look = _looks(totals["method"])
    share = (layers["live"] / layers["units"]).groupby([layers["method"], layers["layer"]]).mean()
    width = totals.groupby(["method", "compression"])["width"].mean()
    with panels(2, 2, 4.8, share_y=True) as (figure, (left, right), _):
        for method, style in look.items():
            line = style.kwargs() | {"markersize": 7, "linewidth": 1.5}
            for ax, source in ((left, share), (right, width)):
                if method in source.index.get_level_values(0):
                    ax.plot(source[method].index, 100 * source[method], **line)
        left.set_xlabel("layer (1: input)")
        left.set_ylabel("live units (percent)")
        left.set_ylim(-3, 103)
        left.set_xticks(sorted(layers["layer"].unique()))
        left.set_title(f"layer by layer, compression {power_of_ten(compressions[0])}")
        log_axis(right.xaxis)
        right.set_xlabel(COMPRESSION)
        right.set_title("mean over hidden layers")
        entries = [key(**style.kwargs()) for style in look.values()]
        figure.legend(handles=entries, loc="outside upper center", ncols=min(len(entries), 4))
    return figure


def two_schedules(overlap: pd.DataFrame, difference: pd.DataFrame) -> Figure:
    """The cut schedule against the paper's: how many weights they share, and what it matters.

    Args:
        overlap: compression, seed, overlap (share of weights, 0 to 1), by_chance.
        difference: compression, difference (accuracy in percent, cut minus fixed), low, high.

    Returns:
        Left the overlap of the masks, a dot a seed, right the paired difference with its interval.

    >>> overlap = pd.DataFrame({"compression": [10.0], "seed": 0, "overlap": 0.8, "by_chance": 0.1})
    >>> gap = pd.DataFrame({"compression": [10.0], "difference": 1.0, "low": -1.0, "high": 3.0})
    >>> len(two_schedules(overlap, gap).axes)
    2
    """
    require(overlap, ["compression", "seed", "overlap", "by_chance"], "two_schedules, overlap")
    require(difference, ["compression", "difference", "low", "high"], "two_schedules, difference")
    style, pale = STYLES["synflow"], STYLES["random"]
    rows: Sequence[tuple[str, Style, str]] = (
        ("overlap", style, "the two schedules"),
        ("by_chance", pale, "by chance, same layer quotas"),
    )
    with panels(2, 2, 3.9) as (figure, (left, right), _):
        for column, look, label in rows:
            _seeds(left, overlap, column, look, label)
        left.set_ylim(-3, 103)
        left.set_ylabel("weights in common (percent)")
        left.legend(loc="best")
        right.axhline(0, color="black", linewidth=1)
        half = [
            difference["difference"] - difference["low"],
            difference["high"] - difference["difference"],
        ]
        right.errorbar(
            difference["compression"],
            difference["difference"],
            yerr=np.array(half),
            color=style.color,
            marker=style.marker,
            linestyle="none",
            capsize=4,
        )
        right.set_ylabel("accuracy, cut - fixed (percent)")
        for ax in (left, right):
            log_axis(ax.xaxis)
            ax.set_xlabel(COMPRESSION)
    return figure


def _seeds(ax: Axes, table: pd.DataFrame, column: str, style: Style, label: str) -> None:
    ax.plot(table["compression"], 100 * table[column], linestyle="none", color=style.color,
            marker=style.marker, markersize=4, alpha=0.5)  # fmt: skip
    mean = 100 * table.groupby("compression")[column].mean()
    ax.plot(mean.index, mean, **style.kwargs() | {"label": label})
