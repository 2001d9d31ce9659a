"""Conservation: what flows into a unit against what leaves it (figure 3), and layers (figure 4)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..paper import loglog_slope
from .style import Style, key, log_axis, panels, readable, require, sequence, styles

_MANY = 2000  # points above which a vector image is larger and slower than a bitmap


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
        ValueError: columns missing, or a method without any unit that could be drawn.

    >>> table = pd.DataFrame({"method": "synflow", "layer": 1, "unit": range(3),
    ...                       "incoming": [1.0, 20.0, 300.0], "outgoing": [1.0, 20.0, 300.0]})
    >>> conservation_scatter(table).axes[0].get_title()
    'SynFlow'
    """
    require(table, ["method", "layer", "unit", "incoming", "outgoing"], "conservation_scatter")
    look = styles(table["method"])
    place = {layer: i for i, layer in enumerate(dict.fromkeys(table["layer"]), start=1)}
    depth = Normalize(1, max(len(place), 2))
    lines = max(len(_notes(own)) for _, own in table.groupby("method"))
    with panels(len(look), 3, 3.8) as (figure, axes, spare):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            own = table[table["method"] == method]
            zeros = _zeros(own)
            if zeros.all():
                raise ValueError(f"conservation_scatter: all units of {method!r} have a zero sum.")
            drawn = own[~zeros]
            _scatter(ax, drawn, drawn["layer"].map(place).to_numpy(), depth)
            notes = _notes(own)
            ax.text(0.5, 1.02, "\n".join(notes), transform=ax.transAxes, ha="center", fontsize=10)
            pad = 6 + 13 * lines
            ax.set_title(style.label, color=style.color, fontweight="bold", pad=pad)
            ax.set_xlabel("|incoming score|")
            ax.set_ylabel("|outgoing score|")
        if len(place) > 1:
            bar = figure.colorbar(
                ScalarMappable(depth, sequence()), ax=axes + spare, fraction=0.03, pad=0.01
            )
            bar.set_label("hidden layer (1: nearest to the input)")
            bar.locator = MaxNLocator(6, integer=True)
        dot = {"color": "#333333", "marker": "o", "linestyle": "none", "markersize": 6}
        entries = [
            key("both sums positive", **dot),
            key("a sum is negative", markerfacecolor="none", **dot),
            key("incoming = outgoing", color="black", linewidth=1.0),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=3)
    return figure


def _zeros(units: pd.DataFrame) -> pd.Series:
    return (units["incoming"] == 0) | (units["outgoing"] == 0)


def _notes(units: pd.DataFrame) -> list[str]:
    lines = []
    if "max_relative_error" in units:
        lines.append("max. relative error " + readable(units["max_relative_error"].max()))
    negative = int(((units["incoming"] < 0) | (units["outgoing"] < 0)).sum())
    zero = int(_zeros(units).sum())
    counts = [f"{n:,} {sign}" for n, sign in ((negative, "negative"), (zero, "zero")) if n]
    if counts:
        lines.append(f"{' and '.join(counts)} of {len(units):,} units")
    return lines


def _scatter(ax: Axes, units: pd.DataFrame, layer: np.ndarray, depth: Normalize) -> None:
    incoming, outgoing = (units[name].to_numpy(float) for name in ("incoming", "outgoing"))
    colors = sequence()(depth(layer))
    negative = (incoming < 0) | (outgoing < 0)
    x, y = np.abs(incoming), np.abs(outgoing)
    bitmap = x.size > _MANY
    ax.scatter(
        x[~negative], y[~negative], s=14, c=colors[~negative], linewidths=0, rasterized=bitmap
    )
    ax.scatter(
        x[negative],
        y[negative],
        s=14,
        facecolors="none",
        edgecolors=colors[negative],
        linewidths=0.8,
        rasterized=bitmap,
    )
    both = np.concatenate([x, y])
    low, high = both.min(), both.max()
    margin = (high / low) ** 0.06 * 1.3
    limits = (low / margin, high * margin)
    ax.plot(limits, limits, color="black", linewidth=1.0, zorder=3)
    for axis in (ax.xaxis, ax.yaxis):
        log_axis(axis, ticks=5)
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
        ValueError: columns missing, or sizes or scores without a logarithm.

    >>> table = pd.DataFrame({"method": "synflow", "layer": [1, 2], "layer_size": [100, 1000],
    ...                       "mean_score": [0.1, 0.01]})
    >>> layer_scores(table).axes[0].get_legend().get_texts()[0].get_text()
    'ours: slope 1.000'
    """
    columns = ["method", "layer", "layer_size", "mean_score"]
    require(ours, columns, "layer_scores, ours")
    if published is not None:
        require(published, columns, "layer_scores, published")
    look = styles(ours["method"])
    with panels(len(look), 3, 3.1) as (figure, axes, _):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            if published is not None:
                for name, rows in _states(published, method, "paper"):
                    _layers(ax, rows, style, name, ours=False)
            for state, (name, rows) in enumerate(_states(ours, method, "ours")):
                _layers(ax, rows, style, name, ours=True, other=state > 0)
            log_axis(ax.xaxis)
            log_axis(ax.yaxis)
            ax.set_title(style.label, color=style.color, fontweight="bold")
            ax.set_xlabel("1 / layer size (1 / parameters)")
            ax.set_ylabel("|mean score of a layer|")
            # Ours is drawn last, to lie on top, but is named first.
            handles = sorted(ax.get_legend_handles_labels()[0], key=_theirs)
            _room(ax, entries=len(handles))
            ax.legend(
                handles=handles,
                loc="upper left",
                handletextpad=0.2,
                borderpad=0.1,
                fontsize=10.5 if len(handles) < 3 else 9.5,
            )
    return figure


def _states(table: pd.DataFrame, method: str, whose: str) -> list[tuple[str, pd.DataFrame]]:
    rows = table[table["method"] == method]
    if "weights" not in rows or rows["weights"].nunique() < 2:
        return [(whose, rows)] if len(rows) else []
    prefix = "" if whose == "ours" else f"{whose}, "
    return [(prefix + str(state), own) for state, own in rows.groupby("weights", sort=False)]


def _layers(
    ax: Axes, rows: pd.DataFrame, style: Style, name: str, ours: bool, other: bool = False
) -> None:
    x = 1 / rows["layer_size"].to_numpy(float)
    y = np.abs(rows["mean_score"].to_numpy(float))
    slope = loglog_slope(rows["layer_size"], y)
    color = style.color if ours else "#555555"
    ends = np.array([x.min(), x.max()])
    centre = np.log(y).mean() - slope * np.log(x).mean()
    ax.plot(
        ends,
        np.exp(centre) * ends**slope,
        color=color,
        linewidth=1.2,
        linestyle="-" if ours else ":",
        zorder=2,
    )
    ax.plot(
        x,
        y,
        color=color,
        marker="*" if other else style.marker,
        linestyle="none",
        markersize=(8 if other else 5) if ours else 10,
        markerfacecolor=color if ours else "none",
        markeredgewidth=0.5 if ours else 1.0,
        zorder=3 if ours else 2.5,
        label=f"{name}: slope {slope + 0.0:.3f}",
    )


def _theirs(line: Line2D) -> bool:
    return str(line.get_label()).startswith("paper")


def _room(ax: Axes, entries: int) -> None:
    """Two decades at least, so that a flat line looks flat; and a place for the legend on top."""
    low, high = np.log10(ax.get_ylim())
    less = max(2 - (high - low), 0) / 2
    low, high = low - less, high + less
    ax.set_ylim(10**low, 10 ** (high + 0.15 * entries * (high - low)))
