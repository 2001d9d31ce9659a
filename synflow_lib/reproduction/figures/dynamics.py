"""Iterative magnitude pruning (figure 5a), and layers moving through training (figure 5b)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..intervals import mean_interval
from ..paper import loglog_slope, slope_by_epoch
from .style import COMPRESSION, key, log_axis, panels, require, sequence

_MARKERS = "XosD^v"
_LINES = [(0, (2, 2)), "-", "--", "-.", (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2))]


def imp_curves(table: pd.DataFrame) -> Figure:
    """Figure 5a: accuracy, and layers that are empty, against compression, by number of rounds.

    Args:
        table: one row a network: panel, rounds (of pruning and training; 0 for magnitude pruning
            before training), compression, seed, accuracy (percent), empty_layers, and disconnected
            where it is known.

    Returns:
        For each panel accuracy above (mean over seeds, 95% interval where there are three or more)
        and empty layers below (mean). A cross marks points whose networks are all disconnected, an
        open marker those where some are.

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"panel": "a", "rounds": 1, "compression": [1.0, 10.0], "seed": 0,
    ...                       "accuracy": [90.0, 10.0], "empty_layers": [0, 1]})
    >>> len(imp_curves(table).axes)
    2
    """
    columns = ["panel", "rounds", "compression", "seed", "accuracy", "empty_layers"]
    require(table, columns, "imp_curves")
    if "disconnected" not in table:
        table = table.assign(disconnected=np.nan)
    shown = list(dict.fromkeys(table["panel"]))
    rounds = sorted(table["rounds"].unique())
    with panels(2 * len(shown), len(shown), 3.0, share_x=True) as (figure, axes, _):
        for column, panel in enumerate(shown):
            above, below = axes[column], axes[column + len(shown)]
            own = table[table["panel"] == panel]
            for number, rows in own.groupby("rounds"):
                cut = rows.groupby("compression")["disconnected"].mean().to_numpy(float)
                look = _look(number, rounds)
                curve = mean_interval(rows)
                if curve["seeds"].min() > 2:
                    band = {"color": look["color"], "alpha": 0.15, "lw": 0}
                    above.fill_between(curve["compression"], curve["low"], curve["high"], **band)
                _marked(above, curve["compression"], curve["mean"], cut, look)
                empty = rows.groupby("compression")["empty_layers"].mean()
                _marked(below, empty.index, empty, cut, look)
            above.set_title(panel)
            above.set_ylim(0, 104)
            below.set_ylim(-0.3, 1.05 * table["empty_layers"].max() + 0.5)
        log_axis(axes[0].xaxis, ticks=6)
        axes[0].set_ylabel("top-1 accuracy (percent)")
        axes[len(shown)].set_ylabel("empty layers")
        figure.supxlabel(COMPRESSION, fontsize=11.5)
        entries = [key(_rounds(number), **_look(number, rounds)) for number in rounds]
        dot = {"color": "#333333", "linestyle": "none"}
        if table["disconnected"].notna().any():
            entries += [
                key("some disconnected", marker="o", markerfacecolor="white", **dot),
                key("all disconnected", marker="x", markersize=6, **dot),
            ]
        width = len(entries) if len(entries) < 6 else -(-len(entries) // 2)
        figure.legend(handles=entries, loc="outside upper center", ncols=width)
    return figure


def _rounds(number: int) -> str:
    if number == 0:
        return "pruned before training"
    return f"{number} iteration{'s' if number > 1 else ''}"


def _look(number: int, rounds: list[int]) -> dict[str, object]:
    color = "#777777" if number == 0 else sequence()((number - 1) / max(max(rounds) - 1, 1))
    style = number % len(_MARKERS)
    return {"color": color, "marker": _MARKERS[style], "linestyle": _LINES[style]}


def _marked(ax: Axes, x, y, cut: np.ndarray, look: Mapping[str, object]) -> None:
    """A line whose markers say how many of the networks behind them are disconnected."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    ax.plot(x, y, color=look["color"], linestyle=look["linestyle"], linewidth=1.5)
    dot = {"color": look["color"], "linestyle": "none", "markersize": 5}
    for chosen, marker, face in (
        (~(cut > 0), look["marker"], look["color"]),
        ((cut > 0) & (cut < 1), look["marker"], "white"),
        (cut == 1, "x", look["color"]),
    ):
        ax.plot(x[chosen], y[chosen], marker=marker, markerfacecolor=face, **dot)


def norm_paths(sources: Mapping[str, pd.DataFrame]) -> Figure:
    """Figure 5b: mean squared weight of each layer against inverse layer size, through training.

    Args:
        sources: title -> table of epoch, layer, layer_size, mean_squared_weight, and seed where
            there are several (`dynamics.train_watching`, `paper.figure5b()`); titles that begin
            with "paper" are drawn in grey.

    Returns:
        A panel for each source, layers before training (open) and after it (filled) with the
        lines fitted to them and a line of slope 1; and a panel of slope against epoch.

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"epoch": [0, 0, 1, 1], "layer": [1, 2, 1, 2],
    ...     "layer_size": [10, 100, 10, 100], "mean_squared_weight": [0.2, 0.1, 0.3, 0.1]})
    >>> len(norm_paths({"a": table}).axes)
    2
    """
    for table in sources.values():
        require(table, ["epoch", "layer", "layer_size", "mean_squared_weight"], "norm_paths")
    shades = list(sequence()(np.linspace(0, 0.9, len(sources))))
    shades = [
        "#555555" if title.startswith("paper") else shade
        for title, shade in zip(sources, shades, strict=True)
    ]
    with panels(len(sources) + 1, 2, 3.6) as (figure, axes, _):
        last = axes[-1]
        for number, (title, table) in enumerate(sources.items()):
            look = {"color": shades[number], "marker": _MARKERS[number + 1]}
            _layers(axes[number], table, look)
            axes[number].set_title(title)
            seeds = table if "seed" in table else table.assign(seed=0)
            slopes = slope_by_epoch(seeds, ["seed"])
            for seed, rows in slopes.groupby("seed"):
                style = {"color": shades[number], "linestyle": _LINES[number + 1]}
                label = title if seed == slopes["seed"].iloc[0] else None
                last.plot(rows["epoch"], rows["slope"], label=label, linewidth=1.6, **style)
        last.axhline(1, color="black", linewidth=1.0)
        last.set(xlabel="epoch", ylabel="log-log slope", ylim=(0.35, 1.04))
        last.set_title("1: the conservation line")
        last.legend(loc="upper right", bbox_to_anchor=(1, 0.93), fontsize=9.5)
    return figure


def _layers(ax: Axes, table: pd.DataFrame, look: Mapping[str, object]) -> None:
    """The layers of one source before and after training; geometric means over seeds."""
    logs = table.assign(y=np.log(table["mean_squared_weight"]))
    mean = np.exp(logs.pivot_table(index="epoch", columns="layer", values="y"))
    size = table.groupby("layer")["layer_size"].first().to_numpy(float)
    x, ends = 1 / size, np.array([1 / size.max(), 1 / size.min()])
    states = (
        (mean.index[0], "white", ":", "before"),
        (mean.index[-1], look["color"], "-", "after"),
    )
    for epoch, face, line, when in states:
        y = mean.loc[epoch].to_numpy(float)
        slope = loglog_slope(size, y)
        fit = np.exp(np.log(y).mean() + slope * (np.log(ends) - np.log(x).mean()))
        ax.plot(ends, fit, color=look["color"], linestyle=line, linewidth=1.3)
        dot = {"color": look["color"], "marker": look["marker"], "markerfacecolor": face}
        ax.plot(x, y, linestyle="none", label=f"{when}: slope {slope:.2f}", **dot)
    middle = np.exp(np.log(y).mean() + np.log(ends) - np.log(x).mean())
    ax.plot(ends, middle, color="black", linewidth=0.9, label="slope 1")
    log_axis(ax.xaxis)
    log_axis(ax.yaxis)
    ax.set(xlabel="1 / layer size (1 / parameters)", ylabel="mean squared weight")
    ax.legend(loc="upper left", fontsize=9.5)


def norm_growth(table: pd.DataFrame) -> Figure:
    """Squared norm of each layer against epoch, and what it has gained since initialization.

    Args:
        table: epoch, layer, squared_norm, of one training (`dynamics.train_watching`).

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"epoch": [0, 1], "layer": 1, "squared_norm": [2.0, 3.0]})
    >>> len(norm_growth(table).axes)
    2
    """
    require(table, ["epoch", "layer", "squared_norm"], "norm_growth")
    wide = table.pivot_table(index="epoch", columns="layer", values="squared_norm")
    shades = sequence()(np.linspace(0, 1, wide.shape[1]))
    with panels(2, 2, 3.5) as (figure, (left, right), _):
        for number, layer in enumerate(wide):
            style = {
                "color": shades[number],
                "marker": _MARKERS[1 + number % 5],
                "markevery": (number * max(len(wide) // 20, 1), max(len(wide) // 5, 1)),
                "linestyle": _LINES[1 + number % 5],
            }
            left.plot(wide.index, wide[layer], label=f"layer {layer}", **style)
            right.plot(wide.index, wide[layer] - wide[layer].iloc[0], **style)
        left.set(xlabel="epoch", ylabel=r"$\|W_l\|^2$", title="squared norm")
        right.set(xlabel="epoch", ylabel=r"gain of $\|W_l\|^2$", title="gain since initialization")
        figure.legend(loc="outside upper center", ncols=min(wide.shape[1], 6))
    return figure
