"""Prune size against cut size by schedule (figure 7, Theorem 3), and the cut schedule's path."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import (
    COMPRESSION,
    MAX_COMPRESSION,
    key,
    log_axis,
    panels,
    power_of_ten,
    require,
    sequence,
)

_BOUND = {"color": "black", "linestyle": "--", "linewidth": 1.3}
_MARKERS = "osD^vP*Xph"


def prune_ratio(ours: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Figure 7: the largest ratio of prune size to cut size of a run, by number of iterations.

    Args:
        ours: one row a run: schedule, compression, iterations, ratio. A ratio of 0 (nothing
            pruned) has no place on a logarithmic axis and is left out.
        published: the paper's, in the same form (`paper.figure7()`): open markers on thin lines.

    Returns:
        A panel per schedule, a line per compression, and the bound of Theorem 3, a ratio of 1.

    Raises:
        ValueError: columns missing, or no ratio above 0.

    >>> table = pd.DataFrame({"schedule": "linear", "compression": 10.0,
    ...                       "iterations": [1, 100], "ratio": [3.3, 0.57]})
    >>> prune_ratio(table).axes[0].get_title()
    'linear schedule'
    """
    columns = ["schedule", "compression", "iterations", "ratio"]
    sources = [(require(ours, columns, "prune_ratio, ours"), True)]
    if published is not None:
        sources.insert(0, (require(published, columns, "prune_ratio, published"), False))
    sources = [(table[table["ratio"] > 0], mine) for table, mine in sources]
    if sources[-1][0].empty:
        raise ValueError("prune_ratio: no ratio is above 0, so nothing was pruned in any run.")
    schedules = list(
        dict.fromkeys(name for table, _ in sources[::-1] for name in table["schedule"])
    )
    # Rounded, so that 10**0.5 from two sources is one line with one colour.
    levels = sorted({round(a, 6) for t, _ in sources for a in np.log10(t["compression"])})
    shade = dict(zip(levels, sequence()(np.linspace(0, 1, len(levels))), strict=True))
    marker = {level: _MARKERS[i % len(_MARKERS)] for i, level in enumerate(levels)}
    with panels(len(schedules), 3, 4.0, share_x=True, share_y=True) as (figure, axes, _):
        for ax, schedule in zip(axes, schedules, strict=True):
            for table, mine in sources:
                own = table[table["schedule"] == schedule].sort_values("iterations")
                for level, rows in own.groupby(np.log10(own["compression"]).round(6)):
                    ax.plot(
                        rows["iterations"],
                        rows["ratio"],
                        color=shade[level],
                        marker=marker[level],
                        linewidth=1.8 if mine else 0.8,
                        markersize=5 if mine else 9,
                        markerfacecolor=shade[level] if mine else "none",
                    )
            ax.axhline(1, **_BOUND)
            ax.set_title(f"{schedule} schedule")
        log_axis(axes[0].yaxis)
        axes[0].set_ylabel("largest prune size / cut size")
        figure.supxlabel("pruning iterations", fontsize=11.5)
        entries = [
            key(power_of_ten(10**level), color=shade[level], marker=marker[level])
            for level in levels[::-1]
        ]
        title = "compression\n(weights / kept)"
        figure.legend(handles=entries, loc="outside right upper", title=title)
        whose = [key("Theorem 3: below this line", **_BOUND)]
        if published is not None:
            dot = {"color": "#333333", "marker": "o"}
            whose += [
                key("ours", markersize=5, **dot),
                key("paper", markersize=9, markerfacecolor="none", linewidth=0.8, **dot),
            ]
        figure.legend(handles=whose, loc="outside upper center", ncols=len(whose))
    return figure


def cut_trajectory(
    history: pd.DataFrame, max_compression: float | Mapping[str, float] | None = None
) -> Figure:
    """The path of the cut schedule: compression, and prune size over cut size, by iteration.

    Args:
        history: one row per iteration: iteration, kept, compression, prune_size, cut_size, and
            `network` where there are several.
        max_compression: rho_max, or one per network.

    Returns:
        Left the compression after each iteration, right the share of the cut that was removed,
        which Theorem 3 keeps below 1.

    Raises:
        ValueError: columns missing, or a cut size that is not positive.

    >>> table = pd.DataFrame({"iteration": [1, 2], "kept": [50, 10], "compression": [2.0, 10.0],
    ...                       "prune_size": [0.9, 0.8], "cut_size": [1.0, 1.0]})
    >>> len(cut_trajectory(table, max_compression=10.0).axes)
    2
    """
    columns = ["iteration", "kept", "compression", "prune_size", "cut_size"]
    require(history, columns, "cut_trajectory")
    # Weights that were zero from the start go without any scoring, and so without a cut.
    history = history.dropna(subset="cut_size")
    if not (history["cut_size"] > 0).all():
        raise ValueError("cut_trajectory: a cut_size is not positive; the network has collapsed.")
    if "network" not in history:
        history = history.assign(network="")
    networks = list(dict.fromkeys(history["network"]))
    one = len(networks) == 1
    if isinstance(max_compression, Mapping):
        limits = {i: max_compression[n] for i, n in enumerate(networks) if n in max_compression}
    else:
        limits = {} if max_compression is None else {0: max_compression}
    shades = sequence()(np.linspace(0, 0.9, len(networks)))
    with panels(2, 2, 3.9) as (figure, (left, right), _):
        for i, (network, shade) in enumerate(zip(networks, shades, strict=True)):
            rows = history[history["network"] == network].sort_values("iteration")
            line = {
                "color": shade,
                "marker": _MARKERS[i % len(_MARKERS)],
                "linestyle": ("-", "--", "-.", ":")[i % 4],
                "markersize": 4.5,
                "markevery": max(len(rows) // 20, 1),
                "linewidth": 1.4,
            }
            label = str(network)
            if i in limits:
                label += r", $\rho_{max}$ = " + power_of_ten(limits[i])
            left.plot(rows["iteration"], rows["compression"], label=label, **line)
            right.plot(rows["iteration"], rows["prune_size"] / rows["cut_size"], **line)
            if i in limits:
                own = {} if one else {"color": shade, "linestyle": line["linestyle"]}
                left.axhline(limits[i], **MAX_COMPRESSION | own)
        if one and limits:
            left.annotate(
                r"$\rho_{max}$ = " + power_of_ten(limits[0]),
                (0.02, limits[0]),
                xycoords=("axes fraction", "data"),
                xytext=(0, -15),
                textcoords="offset points",
            )
        log_axis(left.yaxis)
        left.set_ylabel(COMPRESSION)
        right.axhline(1, **_BOUND)
        right.annotate(
            "cut size: beyond it a layer could be emptied (Theorem 3)",
            (0.02, 1),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=10,
        )
        ratio = history["prune_size"] / history["cut_size"]
        right.set_ylim(0, max(1.12, 1.05 * ratio.max()))
        right.set_ylabel("prune size / cut size")
        for ax in (left, right):
            ax.set_xlabel("iteration")
        if not one:
            left.legend(loc="lower right")
    return figure
