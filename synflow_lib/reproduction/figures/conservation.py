"""Conservation: what flows into a unit against what leaves it (figure 3), and layers (4 and 5b)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import gmean

from ..paper import loglog_slope, slope_by_epoch
from .style import DOT, SEQUENCE, Style, depth_bar, key, legend, log_axis, ordered, styles, subplots
from .tables import require, require_all

_MANY = 2000  # points above which a vector image is larger and slower than a bitmap
_INVERSE_SIZE = "1 / layer size (1 / parameters)"


def conservation_scatter(table: pd.DataFrame) -> Figure:
    """Figure 3: the score that enters each hidden unit against the score that leaves it.

    Args:
        table: one row per method and unit: method, layer (name or number, in forward order), unit,
            incoming, outgoing (sums of scores over the unit's weights, of either sign), and
            `max_relative_error` of the method where it is to be shown.

    Returns:
        A panel per method, both axes logarithmic and equal, with the identity line; filled points
        have two positive sums, open ones at least one negative. Units with a zero sum have no
        place on such axes and are counted in the panel.

    Raises:
        ValueError: a method without any unit that could be drawn.

    >>> table = pd.DataFrame({"method": "synflow", "layer": 1, "unit": range(3),
    ...                       "incoming": [1.0, 20.0, 300.0], "outgoing": [1.0, 20.0, 300.0]})
    >>> conservation_scatter(table).axes[0].get_title()
    'SynFlow'
    """
    table = require(table, "method layer unit incoming outgoing", "conservation_scatter", ["layer"])
    look = styles(table["method"])
    sums = table[["incoming", "outgoing"]]
    table = table.assign(
        depth=pd.factorize(table["layer"])[0] + 1,
        zero=(sums == 0).any(axis=1),
        negative=(sums < 0).any(axis=1),
    )
    layers = table["depth"].max()
    depth = Normalize(1, max(layers, 2))
    notes = {method: _notes(own) for method, own in table.groupby("method")}
    pad = 6 + 13 * max(map(len, notes.values()))
    with subplots(len(look), 3, 3.8) as (figure, axes):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            drawn = table[(table["method"] == method) & ~table["zero"]]
            if drawn.empty:
                raise ValueError(f"conservation_scatter: all units of {method!r} have a zero sum.")
            _scatter(ax, drawn, SEQUENCE(depth(drawn["depth"].to_numpy())))
            place = {"transform": ax.transAxes, "ha": "center", "fontsize": 10}
            ax.text(0.5, 1.02, "\n".join(notes[method]), **place)
            ax.set_title(style.label, color=style.color, fontweight="bold", pad=pad)
            ax.set(xlabel="|incoming score|", ylabel="|outgoing score|")
        if layers > 1:
            depth_bar(figure, figure.axes, depth, "hidden layer (1: nearest to the input)")
        dot = DOT | {"linestyle": "none", "markersize": 6}
        entries = [
            key("both sums positive", **dot),
            key("a sum is negative", markerfacecolor="none", **dot),
            key("incoming = outgoing", color="black", linewidth=1.0),
        ]
        legend(figure, entries)
    return figure


def unit_scores(sources: Mapping[str, pd.DataFrame]) -> Figure:
    """Figure 3 as in the paper: the score into a hidden unit against the one out, linear axes.

    Args:
        sources: title of a row -> table of method, layer (number, 1 at the input), incoming,
            outgoing; one row a unit, the same methods in all.

    Returns:
        A row a source, a panel a method with axes of its own: scores that depend on images have
        no height that two sets of images share. Below each the largest difference between the two
        sums, relative to the largest sum.

    >>> table = pd.DataFrame({"method": "synflow", "layer": 1, "incoming": [1.0, 2.0],
    ...                       "outgoing": [1.0, 2.0]})
    >>> len(unit_scores({"ours": table, "paper": table}).axes)
    3
    """
    sources = require_all(sources, "method layer incoming outgoing", "unit_scores")
    methods = {frozenset(table["method"]) for table in sources.values()}
    if len(methods) != 1:
        raise ValueError(
            f"unit_scores: tables of {len(methods)} sets of methods; expected at least one table,"
            " and the same methods in all"
        )
    look = styles(next(iter(sources.values()))["method"])
    layers = max(table["layer"].max() for table in sources.values())
    depth = Normalize(1, max(layers, 2))
    with subplots(len(look) * len(sources), len(look), 2.35) as (figure, axes):
        pairs = itertools.product(sources.items(), look.items())
        for ax, ((name, table), (method, style)) in zip(axes, pairs, strict=True):
            units = table[table["method"] == method]
            sums = units[["incoming", "outgoing"]].to_numpy(float)
            error = np.abs(sums[:, 0] - sums[:, 1]).max() / np.abs(sums).max()
            power = int(np.floor(np.log10(np.abs(sums).max())))
            power = power if not -2 < power < 4 else 0
            sums, unit = sums / 10.0**power, rf" / $10^{{{power}}}$" if power else ""
            color = SEQUENCE(depth(units["layer"]))
            ax.scatter(*sums.T, c=color, s=5, linewidths=0, rasterized=True)
            low, high = min(sums.min(), 0), max(sums.max(), 0)
            ends = np.array([low, high]) + np.array([-0.05, 0.05]) * (high - low)
            ax.plot(ends, ends, color="black", linewidth=0.9, zorder=3)
            ax.set(xlim=ends, ylim=ends, box_aspect=1)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(MaxNLocator(3))
            ax.tick_params(labelsize=9)
            ax.set_title(f"{style.label}, {name}", color=style.color, fontsize=10.5)
            ax.set_xlabel(f"incoming{unit}\ndiffer by {_readable(error)}", fontsize=9.5)
        for ax in axes[:: len(look)]:
            ax.set_ylabel("outgoing")
        depth_bar(figure, figure.axes, depth, "hidden layer (1: nearest to the input)")
    return figure


def _notes(units: pd.DataFrame) -> list[str]:
    notes = []
    if "max_relative_error" in units:
        notes.append("max. relative error " + _readable(units["max_relative_error"].max()))
    counts = [f"{units[sign].sum():,} {sign}" for sign in ("negative", "zero") if units[sign].any()]
    if counts:
        notes.append(f"{' and '.join(counts)} of {len(units):,} units")
    return notes


def _readable(value: float) -> str:
    """`value` with two digits, small and large ones in mathtext as a multiple of a power of ten."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return rf"${float(digits):g}\times10^{{{int(exponent)}}}$"


def _scatter(ax: Axes, units: pd.DataFrame, colors: np.ndarray) -> None:
    x, y = units[["incoming", "outgoing"]].abs().to_numpy(float).T
    open_ = units["negative"].to_numpy()
    look = {"s": 14, "rasterized": len(units) > _MANY}
    ax.scatter(x[~open_], y[~open_], c=colors[~open_], linewidths=0, **look)
    look |= {"facecolors": "none", "edgecolors": colors[open_], "linewidths": 0.8}
    ax.scatter(x[open_], y[open_], **look)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = (high / low) ** 0.06 * 1.3
    limits = (low / margin, high * margin)
    ax.plot(limits, limits, color="black", linewidth=1.0, zorder=3)
    log_axis(ax.xaxis, ax.yaxis, ticks=5)
    ax.set(xlim=limits, ylim=limits, box_aspect=1)


def layer_scores(ours: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Figure 4: mean score of each layer against the inverse of the layer's size.

    Args:
        ours: one row per method and layer: method, layer, layer_size (parameters), mean_score (the
            sign is dropped, as in the paper), and `weights` where there is more than one state of
            the network ("initialization", "pretrained").
        published: the paper's, in the same form (`paper.figure4("initialization")`), drawn behind.

    Returns:
        A panel per method; the legend gives the fitted slopes. Slope 1 is layer-wise conservation.

    Raises:
        ValueError: sizes or scores without a logarithm.

    >>> table = pd.DataFrame({"method": "synflow", "layer": [1, 2], "layer_size": [100, 1000],
    ...                       "mean_score": [0.1, 0.01]})
    >>> layer_scores(table).axes[0].get_legend().get_texts()[0].get_text()
    'ours: slope 1.000'
    """
    columns = "method layer layer_size mean_score"
    ours = require(ours, columns, "layer_scores, ours", ["layer"])
    if published is not None:
        published = require(published, columns, "layer_scores, published", ["layer"])
    look = styles(ours["method"])
    with subplots(len(look), 3, 3.1) as (figure, axes):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            grey = {"color": "#555555", "marker": style.marker, "markersize": 10, "zorder": 2.5}
            grey |= {"markerfacecolor": "none", "markeredgewidth": 1.0}
            dotted, solid = {"linewidth": 1.2, "linestyle": ":"}, {"linewidth": 1.2}
            theirs = [
                _fitted(ax, rows["layer_size"], rows["mean_score"], name, dotted, **grey)
                for name, rows in _states(published, method, "paper")
            ]
            dot = {"color": style.color, "markeredgewidth": 0.5, "zorder": 3}
            dot |= {"marker": style.marker, "markersize": 5}
            mine = []
            for name, rows in _states(ours, method, "ours"):
                mine.append(_fitted(ax, rows["layer_size"], rows["mean_score"], name, solid, **dot))
                dot |= {"marker": "*", "markersize": 8}  # for another state of the network
            log_axis(ax.xaxis, ax.yaxis)
            ax.set_title(style.label, color=style.color, fontweight="bold")
            ax.set(xlabel=_INVERSE_SIZE, ylabel="|mean score of a layer|")
            handles = mine + theirs  # ours is drawn last, to lie on top, but is named first
            _room(ax, entries=len(handles))
            small = {"handletextpad": 0.2, "borderpad": 0.1}
            size = 10.5 if len(handles) < 3 else 9.5
            ax.legend(handles=handles, loc="upper left", fontsize=size, **small)
    return figure


def _states(table: pd.DataFrame | None, method: str, whose: str) -> list[tuple[str, pd.DataFrame]]:
    """The rows of a method by state of the network, with a name for the legend."""
    if table is None or not (rows := table[table["method"] == method]).size:
        return []
    rows = rows.assign(mean_score=rows["mean_score"].abs())
    if "weights" not in rows or rows["weights"].nunique() < 2:
        return [(whose, rows)]
    prefix = "" if whose == "ours" else f"{whose}, "
    return [(prefix + str(state), own) for state, own in rows.groupby("weights", sort=False)]


def _fitted(
    ax: Axes, size: pd.Series, y: pd.Series, name: str, line: dict, digits: int = 3, **dots: object
) -> Line2D:
    """Layers as dots over 1 / size, and the line fitted to their logarithms; returns the dots."""
    slope = loglog_slope(size, y)
    _line(ax, size, y, slope, zorder=2, color=dots["color"], **line)
    dots = {"markerfacecolor": dots["color"], "linestyle": "none"} | dots
    return ax.plot(1 / size, y, label=f"{name}: slope {slope + 0.0:.{digits}f}", **dots)[0]


def _line(ax: Axes, size: pd.Series, y: pd.Series, slope: float, **line: object) -> None:
    """A line of this slope, on logarithmic axes, through the mean of the points (1 / size, y)."""
    x = 1 / size.to_numpy(float)
    ends = np.array([x.min(), x.max()])
    middle = np.log(y.to_numpy(float)).mean()
    ax.plot(ends, np.exp(middle + slope * (np.log(ends) - np.log(x).mean())), **line)


def _room(ax: Axes, entries: int) -> None:
    """Two decades at least, so that a flat line looks flat; and a place for the legend on top."""
    low, high = np.log10(ax.get_ylim())
    less = max(2 - (high - low), 0) / 2
    low, high = low - less, high + less
    ax.set_ylim(10**low, 10 ** (high + 0.15 * entries * (high - low)))


def norm_paths(sources: Mapping[str, pd.DataFrame]) -> Figure:
    """Figure 5b: mean squared weight of each layer against inverse layer size, through training.

    Args:
        sources: title -> table of epoch, layer, layer_size, mean_squared_weight, and seed where
            there are several (`dynamics.train_watching`, `paper.figure5b()`); titles that begin
            with "paper" are drawn in grey.

    Returns:
        A panel for each source, layers before training (open) and after it (filled) with the
        lines fitted to them and a line of slope 1; and a panel of slope against epoch.

    >>> table = pd.DataFrame({"epoch": [0, 0, 1, 1], "layer": [1, 2, 1, 2],
    ...     "layer_size": [10, 100, 10, 100], "mean_squared_weight": [0.2, 0.1, 0.3, 0.1]})
    >>> len(norm_paths({"a": table}).axes)
    2
    """
    sources = require_all(sources, "epoch layer layer_size mean_squared_weight", "norm_paths")
    look = ordered(sources, end=0.9)
    with subplots(len(sources) + 1, 2, 3.6) as (figure, axes):
        last = axes[-1]
        for ax, (title, table) in zip(axes, sources.items(), strict=False):
            style = look[title]
            if str(title).startswith("paper"):
                style = replace(style, color="#555555")
            _before_and_after(ax, table, style)
            ax.set_title(title)
            seeds = table if "seed" in table else table.assign(seed=0)
            line = style.kwargs() | {"marker": "none", "linewidth": 1.6}
            for _, rows in slope_by_epoch(seeds, ["seed"]).groupby("seed"):
                last.plot(rows["epoch"], rows["slope"], **line)
                line["label"] = ""  # the legend names each source once
        last.axhline(1, color="black", linewidth=1.0)
        last.set(xlabel="epoch", ylabel="log-log slope", ylim=(0.35, 1.04))
        last.set_title("1: the conservation line")
        last.legend(loc="upper right", bbox_to_anchor=(1, 0.93), fontsize=9.5)
    return figure


def _before_and_after(ax: Axes, table: pd.DataFrame, style: Style) -> None:
    """The layers of one source before and after training; geometric means over seeds."""
    norms = table.pivot_table(
        index="epoch", columns="layer", values="mean_squared_weight", aggfunc=gmean
    )
    size = table.groupby("layer")["layer_size"].first()
    dot, line = {"color": style.color, "marker": style.marker}, {"linewidth": 1.3}
    dotted = line | {"linestyle": ":"}
    _fitted(ax, size, norms.iloc[0], "before", dotted, 2, markerfacecolor="white", **dot)
    _fitted(ax, size, norms.iloc[-1], "after", line, 2, **dot)
    _line(ax, size, norms.iloc[-1], 1.0, color="black", linewidth=0.9, label="slope 1")
    log_axis(ax.xaxis, ax.yaxis)
    ax.set(xlabel=_INVERSE_SIZE, ylabel="mean squared weight")
    ax.legend(loc="upper left", fontsize=9.5)
