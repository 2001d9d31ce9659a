"""Curves against compression, a line a method: accuracy, effective compression, live units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gmean

from .style import (
    ACCURACY,
    COMPRESSION,
    DOT,
    Style,
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

_LABELS = {
    "fc": "fully connected",
    "conv": "convolutional",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny ImageNet",
    "vgg11_bn": "VGG-11 (BN)",
    "vgg16_bn": "VGG-16 (BN)",
    "resnet18": "ResNet-18",
    "wide_resnet18": "WideResNet-18",
}

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
_CHANGED_LINE = {"markersize": 7, "linewidth": 1.5}


def accuracy_curves(
    table: pd.DataFrame,
    published: pd.DataFrame | None = None,
    critical: Mapping[str, float] | None = None,
) -> Figure:
    """Figures 1 and 6: top-1 accuracy against compression, one line per method.

    Args:
        table: one row a run: method, compression, seed, accuracy (percent), and `dataset` and/or
            `model` where there are several panels.
        published: the paper's, in the same form (`paper.figure1()`, `paper.figure6()`): open
            markers on thin lines. Rows whose panel is not in `table` are left out; if it has no
            such column it is drawn in every panel.
        critical: critical compression of each method, drawn as a vertical line.

    Returns:
        A panel per data set and model; lines are means over seeds, bands 95% confidence intervals
        (Student's t; none with one seed).

    >>> table = pd.DataFrame({"method": "snip", "compression": [1.0, 10.0], "seed": 0,
    ...                       "accuracy": [93.0, 92.5]})
    >>> accuracy_curves(table).axes[0].get_ylabel()
    'top-1 accuracy (percent)'
    """
    columns = "method compression seed accuracy"
    table = require(table, columns, "accuracy_curves")
    places = ["dataset", "model"]
    table = table.assign(**{name: "" for name in places if name not in table})
    if published is not None:
        published = require(published, columns, "accuracy_curves, published")
        published = _in_the_panels_of(table, published)
    ours = dict(list(table.groupby(places, sort=False)))
    theirs = dict(list(published.groupby(places))) if published is not None else {}
    # One height for all panels of a data set; from means, for intervals can be very wide.
    point = [*places, "method", "compression"]
    means = [t.groupby(point)["accuracy"].mean() for t in (table, published) if t is not None]
    top = 1.07 * pd.concat(means).groupby("dataset").max()
    look = styles(table["method"])
    critical = {} if critical is None else dict(critical)
    models = list(dict.fromkeys(model for _, model in ours))
    grid = [(dataset, model) for dataset in dict.fromkeys(table["dataset"]) for model in models]
    rows = list(ours) == grid and 1 < len(models) <= 4  # a row a data set
    across = len(models) if rows else 3
    many = len(ours) > 3
    line = {"linewidth": 1.5 if many else 2.0, "markersize": 4 if many else 6}
    open_line = {"linewidth": 0.8, "markersize": 6 if many else 8, "markerfacecolor": "none"}
    height = {1: 4.6, 2: 4.0}.get(len(ours), 3.0)
    with subplots(len(ours), across, height, share_x=True) as (figure, axes):
        for number, (ax, (place, own)) in enumerate(zip(axes, ours.items(), strict=True)):
            if place in theirs:
                lines(ax, theirs[place], "accuracy", look, **open_line)
            lines(ax, own, "accuracy", look, band=0.18, **line)
            for method, style in look.items():
                if method in critical:
                    ax.axvline(critical[method], color=style.color, linestyle=":", linewidth=1.3)
            dataset, model = (_LABELS.get(name, str(name)) for name in place)
            title, label = [dataset, model], [ACCURACY]
            if rows:
                title, label = [model], [dataset, ACCURACY]
            ax.set_title(("\n" if many else ", ").join(filter(None, title)))
            if number % across == 0:
                ax.set_ylabel("\n".join(filter(None, label)))
            ax.set_ylim(0, top[place[0]])
        log_axis(axes[0].xaxis)
        figure.supxlabel(COMPRESSION)
        entries = list(look.values())
        if theirs:
            paper = {"markersize": 8, "markerfacecolor": "none", "linewidth": 0.8}
            entries += [key("ours", **DOT), key("paper", **DOT, **paper)]
        if critical:
            entries.append(key("critical", color="#333333", linestyle=":"))
        legend(figure, entries, columnspacing=1.3, handlelength=2.3)
    return figure


def _in_the_panels_of(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The published rows of panels and methods in ``table``, once for each such panel."""
    shown = table[["dataset", "model"]].drop_duplicates()
    same = [name for name in shown if name in published and shown[name].any()]
    chosen = published[published["method"].isin(table["method"])]
    chosen = chosen.drop(columns=[name for name in shown if name not in same], errors="ignore")
    return chosen.merge(shown, on=same) if same else chosen.merge(shown, how="cross")


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

    >>> table = pd.DataFrame({"panel": "a", "rounds": 1, "compression": [1.0, 10.0], "seed": 0,
    ...                       "accuracy": [90.0, 10.0], "empty_layers": [0, 1]})
    >>> len(imp_curves(table).axes)
    2
    """
    table = require(table, "panel rounds compression seed accuracy empty_layers", "imp_curves")
    known = table.get("disconnected", pd.Series(np.nan, table.index))
    table = table.assign(disconnected=known.astype(float))
    counts = range(1, table["rounds"].max() + 1)
    look = ordered(counts, lambda n: f"{n} iteration{'s' if n > 1 else ''}")
    look |= {0: Style("pruned before training", "#777777", "X", (0, (2, 2)))}
    look = {number: look[number] for number in sorted(table["rounds"].unique())}
    panels = dict(list(table.groupby("panel", sort=False)))
    with subplots(2 * len(panels), len(panels), 3.0, share_x=True) as (figure, axes):
        above, below = axes[: len(panels)], axes[len(panels) :]
        for high, low, (panel, own) in zip(above, below, panels.items(), strict=True):
            for number, rows in own.groupby("rounds"):
                band = 0.15 if rows.groupby("compression").size().min() > 2 else 0.0
                _rounds(high, rows, "accuracy", look[number], band)
                _rounds(low, rows, "empty_layers", look[number])
            high.set(title=panel, ylim=(0, 104))
            low.set_ylim(-0.3, 1.05 * table["empty_layers"].max() + 0.5)
        log_axis(axes[0].xaxis, ticks=6 if len(panels) < 5 else 4)
        above[0].set_ylabel(ACCURACY)
        below[0].set_ylabel("empty layers")
        figure.supxlabel(COMPRESSION)
        entries = list(look.values())
        if table["disconnected"].notna().any():
            dot = DOT | {"linestyle": "none"}
            entries.append(key("some disconnected", **dot | {"markerfacecolor": "white"}))
            entries.append(key("all disconnected", **dot | {"marker": "x", "markersize": 6}))
        legend(figure, entries, most=5)
    return figure


def _rounds(ax: Axes, rows: pd.DataFrame, quantity: str, style: Style, band: float = 0.0) -> None:
    """A line whose markers say how many of the networks behind them are disconnected."""
    plain = {"marker": "none", "linewidth": 1.5, "label": ""}
    number = rows["rounds"].iloc[0]
    lines(ax, rows, quantity, {number: style}, by="rounds", band=band, **plain)
    points = rows.groupby("compression")[[quantity, "disconnected"]].mean()
    cut = points["disconnected"]
    for chosen, marker, face in (
        (~(cut > 0), style.marker, style.color),
        ((cut > 0) & (cut < 1), style.marker, "white"),
        (cut == 1, "x", style.color),
    ):
        dot = {"color": style.color, "linestyle": "none", "markersize": 5}
        ax.plot(points[quantity][chosen], marker=marker, markerfacecolor=face, **dot)


def dead_inputs(table: pd.DataFrame) -> Figure:
    """What an empty or noisy canvas around the images does: kept inputs above, accuracy below.

    Args:
        table: one row a method, fill, canvas and seed: method, fill ("black", "noise"), dead
            (share of the pixels around the image), inside (share of the first layer's kept weights
            that read the image), accuracy (percent).

    Returns:
        A column a fill; means over seeds, bands 95% confidence intervals.

    >>> table = pd.DataFrame({"method": "snip", "fill": "black", "dead": [0.0, 0.9, 0.0, 0.9],
    ...                       "inside": [1.0, 0.9, 1.0, 0.8], "accuracy": 90.0})
    >>> dead_inputs(table).axes[0].get_title()
    'black'
    """
    table = require(table, "method fill dead inside accuracy", "dead_inputs")
    table = table.assign(inside=100 * table["inside"], dead=100 * table["dead"])
    look = styles(table["method"])
    fills = dict(list(table.groupby("fill", sort=False)))
    lowest = table.groupby(["method", "fill", "dead"])["accuracy"].mean().min()
    with subplots(2 * len(fills), len(fills), 2.6) as (figure, axes):
        above, below = axes[: len(fills)], axes[len(fills) :]
        for high, low, (fill, rows) in zip(above, below, fills.items(), strict=True):
            lines(high, rows, "inside", look, x="dead", band=0.15)
            lines(low, rows, "accuracy", look, x="dead", band=0.15)
            high.set(title=fill, ylim=(0, 105))
            low.set(ylim=(lowest - 6, 101), xlabel="pixels around the image (percent of all)")
        above[0].set_ylabel("first-layer weights that\nread the image (percent)")
        below[0].set_ylabel(ACCURACY)
        legend(figure, look.values())
    return figure


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
    table = require(table, "method compression seed accuracy effective", "changed_masks")
    look = _with_changed(table["method"])
    # Networks that are cut have no place on the right axis.
    alive = table[np.isfinite(table["effective"])].groupby(["method", "compression"])
    alive = alive.agg({"effective": gmean, "accuracy": "mean"}).reset_index()
    with subplots(2, 2, 5.0, share_y=True) as (figure, (left, right)):
        lines(left, table, "accuracy", look, band=0.13, **_CHANGED_LINE)
        lines(right, alive, "accuracy", look, x="effective", **_CHANGED_LINE)
        log_axis(left.xaxis, right.xaxis)
        left.set(xlabel=COMPRESSION, ylabel=ACCURACY, ylim=(0, 103), title="by weights kept")
        right.set_xlabel("effective compression (weights / kept weights on paths)")
        right.set_title("by weights that do something")
        legend(figure, look.values(), most=4)
    return figure


def _with_changed(names: Iterable[str]) -> dict[str, Style]:
    """Styles of methods, and after them of changed masks."""
    names = list(dict.fromkeys(names))
    changed = {name: style for name, style in CHANGED.items() if name in names}
    return styles(name for name in names if name not in changed) | changed


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
    table = require(table, "method compression effective", "effective_compressions")
    if "network" not in table:
        table = table.assign(network="")
    table = table[table["effective"].notna()]  # of these nobody knows
    table = table.assign(alive=np.isfinite(table["effective"]))
    look, networks = _with_changed(table["method"]), table.groupby("network", sort=False)
    top = 3 * table.loc[table["alive"], "effective"].max()
    top = top if table["alive"].any() else table["compression"].max()
    with subplots(len(networks), 2, 4.6) as (figure, axes):
        for ax, (network, here) in zip(axes, networks, strict=True):
            ends = [here["compression"].min(), here["compression"].max()]
            ax.plot(ends, ends, color="black", linewidth=1, zorder=1)
            lines(ax, here[here["alive"]], "effective", look, mean=gmean, **_CHANGED_LINE)
            points = here.groupby(["method", "compression"], as_index=False)["alive"].any()
            dead = points[~points["alive"]].groupby("method")["compression"].min()
            for number, (method, style) in enumerate(look.items()):
                if method in dead:  # side by side where several methods end together
                    place = dead[method] * 1.09 ** (number - len(look) / 2)
                    cross = {"marker": "x", "markersize": 8, "markeredgewidth": 2}
                    ax.plot(place, top, color=style.color, **cross)
            log_axis(ax.xaxis, ax.yaxis)
            ax.set(xlabel=COMPRESSION, title=network, ylim=(ends[0] / 1.5, 2 * top))
        axes[0].set_ylabel("effective compression")
        entries = [
            *look.values(),
            key("every weight on a path", color="black", linewidth=1),
            key("disconnected from here", color="#333333", marker="x", linestyle="none"),
        ]
        legend(figure, entries, most=4)
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

    Raises:
        ValueError: layers at several compressions.

    >>> layers = pd.DataFrame({"method": "erk", "compression": 10.0, "layer": [1, 2],
    ...                        "units": 8, "live": [8, 4]})
    >>> totals = pd.DataFrame({"method": "erk", "compression": [10.0, 100.0], "width": [1.0, 0.5]})
    >>> live_units(layers, totals).axes[0].get_title()
    'layer by layer, compression $10^{1}$'
    """
    layers = require(layers, "method compression layer units live", "live_units, layers")
    totals = require(totals, "method compression width", "live_units, totals")
    compressions = layers["compression"].unique()
    if len(compressions) != 1:
        raise ValueError(f"live_units: layers at {len(compressions)} compressions; expected one")
    look = _with_changed(totals["method"])
    layers = layers.assign(share=100 * layers["live"] / layers["units"])
    totals = totals.assign(share=100 * totals["width"])
    with subplots(2, 2, 4.8, share_y=True) as (figure, (left, right)):
        lines(left, layers, "share", look, x="layer", **_CHANGED_LINE)
        lines(right, totals, "share", look, **_CHANGED_LINE)
        left.set(xlabel="layer (1: input)", ylabel="live units (percent)", ylim=(-3, 103))
        left.set_xticks(sorted(layers["layer"].unique()))
        left.set_title(f"layer by layer, compression {power_of_ten(compressions[0])}")
        log_axis(right.xaxis)
        right.set(xlabel=COMPRESSION, title="mean over hidden layers")
        legend(figure, look.values(), most=4)
    return figure
