"""The course lab: histograms of the weights that stay, and what a forward pass takes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import COMPRESSION, STYLES, key, legend, lines, log_axis, styles, subplots
from .tables import require

_CUT = {"linestyle": "none", "marker": "x", "markersize": 7, "markeredgewidth": 1.8}
_GREY = {"color": "#d9d9d9", "linewidth": 0}


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
    table = require(table, ["method", "layer", "left", "right", "weights"], "weight_histograms")
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
                    style = look[method]
                    line = {"color": style.color, "linestyle": style.linestyle, "linewidth": 1.4}
                    ax.stairs(own["weights"].clip(lower=0.5), edges, baseline=None, **line)
            ax.set_title(f"layer {layer}")
            log_axis(ax.yaxis, ticks=5)
            ax.set_ylim(0.5, rows["weights"].max() * 1.6)
        figure.supxlabel("weight / standard deviation of the layer before pruning", fontsize=11.5)
        figure.supylabel("weights per bin", fontsize=11.5)
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
    columns = ["method", "compression", "network", "fastest", "executed", "counted", "disconnected"]
    table = require(table, columns, "inference_times")
    look, where = styles(table["method"]), ["method", "compression"]
    names = ["dense", "cut", "masked"]
    counts = table.pivot_table(index=where, columns="network", aggfunc="size").reindex(
        columns=names
    )
    if not (counts == 1).all(axis=None):
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
        dot = {"color": "#333333", "marker": "o"}
        entries = [
            key("dead units cut out", **dot),
            key("masks alone; kept weights", **dot | open_),
            key("no path left", color=dot["color"], **_CUT),
            key("density", color="black", linewidth=1),
        ]
        legend(figure, [*look.values(), *entries], most=5)
    return figure
