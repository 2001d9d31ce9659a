"""Schedules and their price: prune and cut sizes (figure 7), iterations, costs, differences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import gmean

from .style import (
    COMPRESSION,
    DOT,
    MAX_COMPRESSION,
    STYLES,
    WHITE,
    key,
    legend,
    lines,
    log_axis,
    ordered,
    power_of_ten,
    styles,
    subplots,
)
from .tables import require

_BOUND = {"color": "black", "linestyle": "--", "linewidth": 1.3}
_CLEAR, _UNCLEAR = "#0173b2", "#666666"
_RHO_MAX = r"$\rho_{max}$"
_CRITICAL = r"critical compression $\rho_{cr}$, by path"


def prune_ratio(ours: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Figure 7: the largest ratio of prune size to cut size of a run, by number of iterations.

    Args:
        ours: one row a run: schedule, compression, iterations, ratio. A ratio of 0 (nothing
            pruned) has no place on a logarithmic axis and is left out.
        published: the paper's, in the same form (`paper.figure7()`): open markers on thin lines.

    Returns:
        A panel per schedule, a line per compression, and the bound of Theorem 3, a ratio of 1.

    Raises:
        ValueError: no ratio above 0.

    >>> table = pd.DataFrame({"schedule": "linear", "compression": 10.0,
    ...                       "iterations": [1, 100], "ratio": [3.3, 0.57]})
    >>> prune_ratio(table).axes[0].get_title()
    'linear schedule'
    """
    columns = "schedule compression iterations ratio"
    parts = [require(ours, columns, "prune_ratio, ours").assign(whose="ours")]
    if published is not None:
        published = require(published, columns, "prune_ratio, published")
        parts.append(published.assign(whose="paper"))
    # Rounded, so that 10**0.5 from two sources is one line with one colour.
    table = pd.concat(parts).assign(level=lambda t: np.log10(t["compression"]).round(6))
    table = table[table["ratio"] > 0]
    if not (table["whose"] == "ours").any():
        raise ValueError("prune_ratio: no ratio is above 0, so nothing was pruned in any run.")
    look = ordered(sorted(table["level"].unique()), lambda level: power_of_ten(10**level))
    paper = {"markersize": 9, "markerfacecolor": "none", "linewidth": 0.8}
    schedules = table.groupby("schedule", sort=False)
    with subplots(len(schedules), 3, 4.0, share_x=True, share_y=True) as (figure, axes):
        own = {"x": "iterations", "by": "level", "linestyle": "-"}
        for ax, (schedule, rows) in zip(axes, schedules, strict=True):
            lines(ax, rows[rows["whose"] == "paper"], "ratio", look, **own, **paper)
            lines(ax, rows[rows["whose"] == "ours"], "ratio", look, markersize=5, **own)
            ax.axhline(1, **_BOUND)
            ax.set_title(f"{schedule} schedule")
        log_axis(axes[0].yaxis)
        axes[0].set_ylabel("largest prune size / cut size")
        figure.supxlabel("pruning iterations")
        levels = [key(**style.kwargs() | {"linestyle": "-"}) for style in look.values()]
        title = "compression\n(weights / kept)"
        figure.legend(handles=levels[::-1], loc="outside right upper", title=title)
        entries = [key("Theorem 3: below this line", **_BOUND)]
        if published is not None:
            entries += [key("ours", markersize=5, **DOT), key("paper", **DOT, **paper)]
        legend(figure, entries)
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
        ValueError: a cut size that is not positive.

    >>> table = pd.DataFrame({"iteration": [1, 2], "kept": [50, 10], "compression": [2.0, 10.0],
    ...                       "prune_size": [0.9, 0.8], "cut_size": [1.0, 1.0]})
    >>> len(cut_trajectory(table, max_compression=10.0).axes)
    2
    """
    history = require(history, "iteration kept compression prune_size cut_size", "cut_trajectory")
    # Weights that were zero from the start go without any scoring, and so without a cut.
    history = history.dropna(subset="cut_size")
    if not (history["cut_size"] > 0).all():
        raise ValueError("cut_trajectory: a cut_size is not positive; the network has collapsed.")
    if "network" not in history:
        history = history.assign(network="")
    look = ordered(history["network"].unique(), end=0.9)
    one = len(look) == 1
    if not isinstance(max_compression, Mapping):
        max_compression = dict.fromkeys(look, max_compression)
    ratio = history["prune_size"] / history["cut_size"]
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    with subplots(2, 2, 3.9) as (figure, (left, right)):
        for network, style in look.items():
            rows = history[history["network"] == network].set_index("iteration").sort_index()
            line = style.kwargs() | {"markersize": 4.5, "linewidth": 1.4}
            line["markevery"] = max(len(rows) // 20, 1)
            limit = max_compression.get(network)
            if limit is not None:
                told = f"{_RHO_MAX} = {power_of_ten(limit)}"
                line["label"] += f", {told}"
                own = {} if one else {"color": style.color, "linestyle": style.linestyle}
                left.axhline(limit, **MAX_COMPRESSION | own)
                if one:
                    left.annotate(told, (0.02, limit), xytext=(0, -15), **beside)
            left.plot(rows["compression"], **line)
            right.plot(rows["prune_size"] / rows["cut_size"], **line)
        log_axis(left.yaxis)
        right.axhline(1, **_BOUND)
        bound = "cut size: beyond it a layer could be emptied (Theorem 3)"
        right.annotate(bound, (0.02, 1), xytext=(0, 3), fontsize=10, **beside)
        right.set_ylim(0, max(1.12, 1.05 * ratio.max()))
        left.set(xlabel="iteration", ylabel=COMPRESSION)
        right.set(xlabel="iteration", ylabel="prune size / cut size")
        if not one:
            left.legend(loc="lower right")
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
    overlap = require(overlap, "compression seed overlap by_chance", "two_schedules, overlap")
    difference = require(difference, "compression difference low high", "two_schedules, difference")
    labels = {"overlap": "the two schedules", "by_chance": "by chance, same layer quotas"}
    style = STYLES["synflow"]
    with subplots(2, 2, 3.9) as (figure, (left, right)):
        for (column, label), look in zip(labels.items(), (style, STYLES["random"]), strict=True):
            shares = overlap.set_index("compression")[column] * 100
            dots = {"linestyle": "none", "markersize": 4, "alpha": 0.5}
            left.plot(shares, **look.kwargs() | dots | {"label": ""})
            left.plot(shares.groupby("compression").mean(), **look.kwargs() | {"label": label})
        left.set(xlabel=COMPRESSION, ylabel="weights in common (percent)", ylim=(-3, 103))
        left.legend(loc="best")
        right.axhline(0, color="black", linewidth=1)
        middle = difference["difference"]
        reach = [middle - difference["low"], difference["high"] - middle]
        dots = {"color": style.color, "marker": style.marker, "linestyle": "none"}
        right.errorbar(difference["compression"], middle, yerr=reach, capsize=4, **dots)
        right.set(xlabel=COMPRESSION, ylabel="accuracy, cut - fixed (percent)")
        log_axis(left.xaxis, right.xaxis)
    return figure


def iteration_collapse(table: pd.DataFrame, limits: dict[str, float]) -> Figure:
    """Critical compression against the number of times a method scores, a panel a network.

    Args:
        table: one row a method, network, number of iterations and seed: method, network,
            iterations, critical_compression.
        limits: network -> rho_max, drawn as a line.

    Returns:
        Lines are geometric means over seeds, thin bars their smallest and largest values.

    >>> table = pd.DataFrame({"method": "snip", "network": "fc", "iterations": [1, 10],
    ...                       "critical_compression": [100.0, 1000.0]})
    >>> iteration_collapse(table, {"fc": 7900.0}).axes[0].get_xlabel()
    'scorings'
    """
    table = require(table, "method network iterations critical_compression", "iteration_collapse")
    look, networks = styles(table["method"]), table.groupby("network", sort=False)
    missing = [name for name in table["network"].unique() if name not in limits]
    if missing:
        raise ValueError(f"iteration_collapse: limits lacks the network {missing[0]!r}")
    with subplots(len(networks), 2, 3.9, share_y=True) as (figure, axes):
        for ax, (network, here) in zip(axes, networks, strict=True):
            for place, (method, style) in enumerate(look.items()):
                aside = 1 + 0.05 * (place - len(look) / 2)  # methods side by side
                own = here[here["method"] == method]
                own = own.assign(iterations=own["iterations"] * aside)
                spread = own.groupby("iterations")["critical_compression"].agg(["min", "max"])
                bars = {"color": style.color, "linewidth": 1.2}
                ax.vlines(spread.index, spread["min"], spread["max"], **bars)
                one = {method: style}
                lines(ax, own, "critical_compression", one, x="iterations", mean=gmean)
            ax.axhline(limits[network], **MAX_COMPRESSION)
            log_axis(ax.xaxis, ax.yaxis)
            ax.set(title=network, xlabel="scorings")
        axes[0].set_ylabel(_CRITICAL)
        legend(figure, [*look.values(), key(_RHO_MAX, **MAX_COMPRESSION)])
    return figure


def pruning_costs(costs: pd.DataFrame, reached: pd.DataFrame, limit: float) -> Figure:
    """The price of scoring in epochs of training: by network, and against what it buys.

    Args:
        costs: one row a network and method: network, method, weights, epochs.
        reached: one row a method and number of iterations: method, iterations, epochs,
            critical_compression.
        limit: rho_max of the network of ``reached``.

    Returns:
        Left, cost against the number of weights; right, critical compression against cost.

    >>> costs = pd.DataFrame({"network": "fc", "method": "snip", "weights": [1e4], "epochs": 0.1})
    >>> reached = pd.DataFrame({"method": ["snip"], "iterations": 1, "epochs": 0.1,
    ...                         "critical_compression": 100.0})
    >>> len(pruning_costs(costs, reached, 1e4).axes)
    2
    """
    costs = require(costs, "network method weights epochs", "pruning_costs, costs")
    columns = "method iterations epochs critical_compression"
    reached = require(reached, columns, "pruning_costs, reached")
    look = styles([*costs["method"], *reached["method"]])
    price = "cost of pruning (epochs of training)"
    low, top = costs["epochs"].min(), costs["epochs"].max()
    with subplots(2, 2, 4.0) as (figure, (left, right)):
        for method, rows in costs.groupby("method", sort=False):  # no lines: networks have no order
            apart = look[method].kwargs() | {"linestyle": "none"}
            left.plot(rows["weights"], rows["epochs"], **apart)
        for method, rows in reached.sort_values("iterations").groupby("method"):
            right.plot(rows["epochs"], rows["critical_compression"], **look[method].kwargs())
        log_axis(left.xaxis, left.yaxis, right.xaxis, right.yaxis)
        for network, weights in costs.groupby("network")["weights"].first().items():
            left.text(weights, top * 4, network, ha="center", fontsize=9.5, bbox=WHITE)
        left.set_ylim(low / 2, top * 10)
        left.margins(x=0.12)
        left.axhline(1, color="black", linewidth=1, linestyle=":")
        right.axhline(limit, **MAX_COMPRESSION)
        left.set(xlabel="prunable weights N", ylabel=price)
        right.set(xlabel=price, ylabel=_CRITICAL)
        legend(figure, [*look.values(), key(_RHO_MAX, **MAX_COMPRESSION)])
    return figure


def savings(latencies: pd.DataFrame, left_over: pd.DataFrame) -> Figure:
    """What compression buys: time of one sparse layer, and tensors that can be made smaller.

    Args:
        latencies: one row a compression and kernel: compression, kernel, ratio (dense time / its
            time).
        left_over: one row a method and compression: method, compression, multiply_adds, smaller
            (shares of the dense network).

    Returns:
        Left, speed of a sparse layer against a dense one; right, filled markers: share of the
        weights that smaller dense tensors still hold, open ones: share of the multiply-adds.

    >>> latencies = pd.DataFrame({"compression": [1.0, 10.0], "kernel": "CSR", "ratio": [0.2, 2.0]})
    >>> rest = pd.DataFrame({"method": ["snip"], "compression": 10.0, "multiply_adds": 0.3,
    ...                      "smaller": 1.0})
    >>> len(savings(latencies, rest).axes)
    2
    """
    latencies = require(latencies, "compression kernel ratio", "savings, latencies")
    left_over = require(left_over, "method compression multiply_adds smaller", "savings, left_over")
    look = styles(left_over["method"])
    percent = left_over.assign(**100 * left_over[["smaller", "multiply_adds"]])
    open_ = {"linestyle": ":", "markerfacecolor": "white"}
    with subplots(2, 2, 3.9) as (figure, (left, right)):
        for number, (kernel, rows) in enumerate(latencies.groupby("kernel", sort=False)):
            line = ("s--", "o-")[number % 2]
            left.plot(rows["compression"], rows["ratio"], line, color="black", label=kernel)
        left.legend(loc="upper left")
        lines(right, percent, "smaller", look)
        lines(right, percent, "multiply_adds", look, **open_)
        reach = np.unique(left_over["compression"])
        right.plot(reach, 100 / reach, color="black", linewidth=1)
        left.set(ylabel="speed against the dense kernel", xlabel=COMPRESSION)
        right.set(ylabel="left of the dense network (percent)", xlabel=COMPRESSION)
        log_axis(left.xaxis, left.yaxis, right.xaxis, right.yaxis)
        entries = [
            *look.values(),
            key("weights held, dead units cut out", **DOT),
            key("multiply-adds", **DOT, **open_),
            key("kept weights", color="black", linewidth=1),
        ]
        legend(figure, entries, most=8)
    return figure


def paired_differences(table: pd.DataFrame, reference: str) -> Figure:
    """Differences of accuracy with their 95% intervals, a row a method, a panel a compression.

    Args:
        table: one row a method and compression: method, compression, difference (percent), low,
            high, clear (whether the interval excludes zero), from `intervals.paired_difference`.
        reference: what was subtracted, for the axis.

    Returns:
        Filled dots where the interval excludes zero, open ones where it does not.

    >>> table = pd.DataFrame({"method": ["snip"], "compression": 10.0, "difference": -2.0,
    ...                       "low": -3.0, "high": -1.0, "clear": True})
    >>> paired_differences(table, "SynFlow").axes[0].get_title()
    'compression $10^{1}$'
    """
    table = require(table, "method compression difference low high clear", "paired_differences")
    names = list(dict.fromkeys(table["method"]))
    labels = [STYLES[name].label if name in STYLES else name for name in names]
    compressions = table.groupby("compression")
    height = 1.3 + 0.33 * len(names)
    with subplots(len(compressions), 4, height, share_y=True) as (figure, axes):
        for ax, (compression, rows) in zip(axes, compressions, strict=True):
            ax.axvline(0, color="black", linewidth=1)
            for row in rows.itertuples():
                place, color = names.index(row.method), _CLEAR if row.clear else _UNCLEAR
                ax.plot([row.low, row.high], [place, place], color=color, linewidth=1.8)
                face = color if row.clear else "white"
                ax.plot(row.difference, place, "o", color=color, markerfacecolor=face)
            ax.set_title(f"compression {power_of_ten(compression)}")
            ax.set_yticks(range(len(names)), labels)
            ax.set_ylim(len(names) - 0.4, -0.6)
        figure.supxlabel(f"accuracy minus that of {reference} (percent)", fontsize=11.5)
        clear = key("interval excludes zero", color=_CLEAR, marker="o")
        unclear = key("it does not", color=_UNCLEAR, marker="o", markerfacecolor="white")
        legend(figure, [clear, unclear])
    return figure
