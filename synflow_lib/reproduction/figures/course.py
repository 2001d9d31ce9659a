"""Figures of one notebook each: 01's odds, 02's GraSP, 04's two schedules, 09's weights, times."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COMPRESSION, DOT, STYLES, key, legend, lines, log_axis, styles, subplots
from .tables import require, require_all

_CUT = {"linestyle": "none", "marker": "x", "markersize": 7, "markeredgewidth": 1.8}
_GREY = {"color": "#d9d9d9", "linewidth": 0}


def random_collapse(
    odds: pd.Series, ours: pd.Series, theirs: pd.Series, smallest: int, seeds: int
) -> Figure:
    """How often random pruning leaves a layer of VGG-16 empty.

    Args:
        odds: compression (index) -> probability by the formula, a line.
        ours, theirs: compression -> share of runs with an empty layer, dots.
        smallest: weights of the smallest layer, a vertical line.
        seeds: how many runs are ours.
    """
    with subplots(1, 1, 3.6) as (figure, (ax,)):
        ax.plot(odds, color="black", label="formula")
        dots = {"color": STYLES["random"].color, "linestyle": "none", "marker": "o"}
        ax.plot(ours, label=f"ours, {seeds} seeds", **dots)
        ax.plot(theirs, markersize=10, fillstyle="none", label="paper, 3 runs", **dots)
        ax.axvline(smallest, color="black", linestyle=":", label="size of the smallest layer")
        log_axis(ax.xaxis)
        ax.set(xlabel=COMPRESSION, ylabel="share with an empty layer")
        ax.set_title("Random pruning of VGG-16")
        ax.legend(loc="upper left")
    return figure


def grasp_correction(layers: pd.DataFrame) -> Figure:
    """What each layer's GraSP score and its g*g carry, relative to the sum of all g*g.

    Args:
        layers: one row a layer: layer, raw, squares.

    >>> table = pd.DataFrame({"layer": [1, 2], "raw": [3.0, 1.0], "squares": [1.0, 3.0]})
    >>> grasp_correction(table).axes[0].get_ylabel()
    'score of the layer / G'
    """
    layers = require(layers, "layer raw squares", "grasp_correction")
    number = layers["layer"]
    raw, squares = (layers[name] / layers["squares"].sum() for name in ("raw", "squares"))
    with subplots(1, 1, 3.4) as (figure, (ax,)):
        ax.bar(number, raw, color=STYLES["grasp"].color, label=r"GraSP, $\theta\,(Hg)$")
        ax.bar(number, squares, bottom=raw, color="#555555", hatch="//", label=r"$g^2$")
        ax.axhline(1, color="black", linewidth=1)
        ax.set(xlabel="layer (1: input)", ylabel="score of the layer / G", ylim=(0, 1.25))
        ax.set_xticks(number)
        ax.legend(loc="upper center", ncols=2)
    return figure


def residual_cuts(cuts: pd.DataFrame) -> Figure:
    """What weights across a cut and constants behind it carry, and their sum.

    Args:
        cuts: one row a cut, from input to output: cut, size, constants, total.
    """
    cuts = require(cuts, "cut size constants total", "residual_cuts")
    place = np.arange(len(cuts))
    with subplots(1, 1, 4.4) as (figure, (ax,)):
        ax.barh(place - 0.2, cuts["size"], 0.38, label="weights across the cut")
        ax.barh(place + 0.2, cuts["constants"], 0.38, label="constants behind the cut")
        total = {"color": "black", "linewidth": 1.2, "label": "their sum, in every cut"}
        ax.axvline(cuts["total"].iloc[-1], **total)
        ax.set_yticks(place, cuts["cut"].astype(str).str.replace(" + ", "\n+ "))
        ax.invert_yaxis()
        ax.set_xlabel("signed SNIP score")
        ax.legend(loc="best")
    return figure


def fixed_schedule(
    fixed: Mapping[int, pd.DataFrame], lost: Mapping[int, bool], cut: pd.DataFrame
) -> Figure:
    """Prune size over cut size along runs to rho_max: a hundred exponential steps, and the cut's.

    Args:
        fixed: seed -> history of its run: compression, ratio.
        lost: seed -> whether that run has lost a layer.
        cut: history of the cut schedule.
    """
    cut = require(cut, "compression ratio", "fixed_schedule, cut")
    fixed = require_all(fixed, "compression ratio", "fixed_schedule")
    missing = [seed for seed in fixed if seed not in lost]
    if missing:
        raise ValueError(f"fixed_schedule: lost lacks the seed {missing[0]!r}")
    with subplots(1, 1, 4.0) as (figure, (ax,)):
        looks = {True: {"color": STYLES["synflow"].color, "linewidth": 2.0, "zorder": 3}}
        looks[False] = {"color": "#999999", "linewidth": 1.0}
        labels = {True: "100 steps, loses a layer", False: "100 steps, survives"}
        for seed, run in fixed.items():
            label = labels.pop(lost[seed], None)
            ax.plot(run["compression"], run["ratio"], label=label, **looks[lost[seed]])
        dashed = {"color": STYLES["magnitude"].color, "label": "cut"}
        ax.plot(cut["compression"], cut["ratio"], ".--", **dashed)
        ax.axhline(1, color="black", linestyle="--", linewidth=1.3)
        log_axis(ax.xaxis)
        ax.set(xlabel=COMPRESSION, ylabel="prune size / cut size", ylim=(0, None))
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9))
    return figure


def schedule_densities(densities: pd.DataFrame) -> Figure:
    """The density of each layer under the fixed and the cut schedule, a panel a compression.

    Args:
        densities: one row a compression, schedule ("fixed", "cut") and layer, in the order of the
            network: compression, schedule, density.
    """
    densities = require(densities, "compression schedule density", "schedule_densities")
    odd = set(densities["schedule"]) - {"fixed", "cut"}
    if odd:
        raise ValueError(f"schedule_densities: schedules {sorted(odd)}; expected 'fixed' and 'cut'")
    looks = {
        "fixed": ("100 steps", {"color": "#333333", "marker": "o", "markerfacecolor": "none"}),
        "cut": ("cut", {"color": STYLES["synflow"].color, "marker": "D", "linestyle": "--"}),
    }
    panels = list(densities.groupby("compression"))
    with subplots(len(panels), 2, 3.8, share_y=True) as (figure, axes):
        for ax, (compression, own) in zip(axes, panels, strict=True):
            for schedule, (label, look) in looks.items():
                density = own.loc[own["schedule"] == schedule, "density"].to_numpy()
                ax.plot(range(1, len(density) + 1), density, label=label, **look)
            ax.axhline(1 / compression, color="#999999", linestyle=":", linewidth=1.2)
            log_axis(ax.yaxis)
            ax.set(title=f"compression {compression:,.0f}", xlabel="layer (1: input)")
        axes[0].set_ylabel("density of the layer")
        axes[0].legend()
    return figure


def weight_histograms(table: pd.DataFrame) -> Figure:
    """The sizes of the weights of every layer: all of them, and those that each method keeps.

    Args:
        table: one row a method, layer and bin: method ("dense": before pruning), layer (number),
            left, right (edges, in standard deviations of the layer), weights (a count).

    Returns:
        A panel a layer; filled: all weights, lines: those kept, on a logarithmic axis.

    >>> table = pd.DataFrame({"method": ["dense", "snip"], "layer": 1, "left": -1.0, "right": 1.0,
    ...                       "weights": [10, 3]})
    >>> weight_histograms(table).axes[0].get_title()
    'layer 1'
    """
    table = require(table, "method layer left right weights", "weight_histograms")
    look = {n: s for n, s in styles(table["method"]).items() if n != "dense"}
    layers = table.groupby("layer")
    columns = min(math.isqrt(len(layers) - 1) + 1, 4)  # about as many rows as columns
    with subplots(len(layers), columns, 2.8, share_x=True) as (figure, axes):
        for ax, (layer, rows) in zip(axes, layers, strict=True):
            for method, own in rows.groupby("method"):
                edges = [*own["left"], own["right"].iloc[-1]]
                if method == "dense":
                    ax.stairs(own["weights"], edges, fill=True, baseline=0.5, **_GREY)
                else:
                    line = {"color": look[method].color, "linestyle": look[method].linestyle}
                    counts = own["weights"].clip(lower=0.5)
                    ax.stairs(counts, edges, baseline=None, linewidth=1.4, **line)
            ax.set_title(f"layer {layer}")
            log_axis(ax.yaxis, ticks=5)
            ax.set_ylim(0.5, rows["weights"].max() * 1.6)
        figure.supxlabel("weight / standard deviation of the layer before pruning")
        figure.supylabel("weights per bin")
        kept = [key(s.label, color=s.color, linestyle=s.linestyle) for s in look.values()]
        legend(figure, [key("before pruning", color=_GREY["color"], linewidth=7), *kept])
    return figure


def inference_times(table: pd.DataFrame) -> Figure:
    """Speed of a forward pass, and its multiply-adds, against the dense network's.

    Args:
        table: one row a method, compression and network ("dense", "masked", "cut"): those, and
            fastest (milliseconds), executed, counted, disconnected.

    Returns:
        Left: dense time / time of the fastest calls, with dead units cut out (filled, lines) and
        under masks alone (open, dotted). Right: multiply-adds in percent, those that the
        cut network executes (filled) and those with kept weights (open). A network that is cut in
        two is a cross: fast, and a constant.

    >>> names = {"dense": 2.0, "masked": 2.0, "cut": 1.0}
    >>> table = pd.DataFrame({"method": "snip", "compression": 10.0, "network": list(names),
    ...                       "fastest": names.values(), "executed": 9, "counted": 3,
    ...                       "disconnected": False})
    >>> len(inference_times(table).axes)
    2
    """
    columns = "method compression network fastest executed counted disconnected"
    table = require(table, columns, "inference_times")
    look, where = styles(table["method"]), ["method", "compression"]
    names = ["dense", "cut", "masked"]
    counts = table.pivot_table(index=where, columns="network", aggfunc="size")
    if not (counts.reindex(columns=names) == 1).all(axis=None):
        raise ValueError(
            "inference_times: expected one row for each of the networks 'dense', 'masked' and"
            " 'cut' at every method and compression"
        )
    dense, cut, masked = (table[table["network"] == name].set_index(where) for name in names)
    open_ = {"linestyle": ":", "markerfacecolor": "white"}
    shown = pd.DataFrame(
        {
            "cut": dense["fastest"] / cut["fastest"],
            "masked": dense["fastest"] / masked["fastest"],
            "executed": 100 * cut["executed"] / dense["executed"],
            "counted": 100 * cut["counted"] / dense["executed"],
            "disconnected": cut["disconnected"],
        }
    ).reset_index()
    with subplots(2, 2, 4.0) as (figure, (left, right)):
        alive = shown[~shown["disconnected"]]
        for ax, small, other in ((left, "cut", "masked"), (right, "executed", "counted")):
            lines(ax, shown, other, look, **open_)
            lines(ax, alive, small, look)
            for method, style in look.items():
                own = shown[shown["disconnected"] & (shown["method"] == method)]
                ax.plot(own["compression"], own[small], color=style.color, **_CUT)
        left.axhline(1, color=STYLES["dense"].color, linewidth=1)
        reach = np.unique(shown["compression"])
        right.plot(reach, 100 / reach, color="black", linewidth=1)
        left.set(ylabel="speed against the dense network", xlabel=COMPRESSION)
        right.set(ylabel="multiply-adds (percent of dense)", xlabel=COMPRESSION)
        log_axis(left.xaxis, right.xaxis, right.yaxis)
        left.set_ylim(bottom=0)
        entries = [
            key("dead units cut out", **DOT),
            key("masks alone; kept weights", **DOT, **open_),
            key("no path left", color=DOT["color"], **_CUT),
            key("density", color="black", linewidth=1),
        ]
        legend(figure, [*look.values(), *entries], most=5)
    return figure
