"""What the explorers show, one function a picture: tables and masks in, Figure out.

They are drawn again at every move of a slider, so they are small, and their layout is fixed rather
than computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ...values import whole
from .drawn import draw_units, draw_weights
from .style import MAX_COMPRESSION, SEQUENCE, Style, key, styles, theme
from .tables import require

ON_PATH = {"color": "#0173b2", "linestyle": "-"}
DEAD_END = {"color": "#de8f05", "linestyle": (0, (2, 1.5))}
_EMPTY = {"marker": "x", "color": "#d55e00", "markeredgewidth": 2.2, "linestyle": "none"}
_SMALL = {"fontsize": 9.5, "handletextpad": 0.4, "borderaxespad": 0.2}

_COMPRESSION = "compression (weights / kept weights)"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

PHASES = ("score", "sort", "cut", "prune")
Drawing = Sequence[tuple[np.ndarray, np.ndarray]]


def collapse_view(
    layers: pd.DataFrame,
    stop: int,
    units: pd.DataFrame,
    drawing: Drawing | None = None,
    verdict: str = "",
) -> Figure:
    """One method at one compression: weights left by layer, paths that are left, conservation.

    Args:
        layers: one method: compression, layer (number, 1 at the input), total, density; all stops.
        stop: which of the compressions, rising, is shown.
        units: layer, unit, incoming, outgoing, max_relative_error of the pruned network.
        drawing: for each layer two bool arrays (outputs, inputs): kept, and kept on a path. Without
            it the middle panel shows all layers along all compressions.
        verdict: a title, in words.

    Raises:
        ValueError: no such stop.

    >>> layers = pd.DataFrame({"method": "random", "compression": [1.0, 1.0, 4.0, 4.0],
    ...     "layer": [1, 2, 1, 2], "total": 8, "density": [1.0, 1.0, 0.5, 0.0]})
    >>> units = pd.DataFrame({"layer": "a", "unit": [0], "incoming": [2.0], "outgoing": [3.0],
    ...                       "max_relative_error": 0.5})
    >>> collapse_view(layers, 1, units).axes[0].get_ylabel()
    'fraction of weights left'
    """
    layers = require(layers, "method compression layer total density", "collapse_view")
    units = require(units, "layer unit incoming outgoing", "collapse_view, units", ["layer"])
    compression = _compression(layers, stop)
    style = next(iter(styles(layers["method"]).values()))
    now = layers[layers["compression"] == compression]
    with theme():
        figure, (left, middle, right) = _row([1.0, 1.25, 1.0], 0.3, verdict)
        _fractions(left, now, style)
        if drawing is None:
            _lines(middle, layers, compression)
        else:
            _paths(middle, drawing)
        _conservation(right, units, style)
    return figure


def race_view(layers: pd.DataFrame, stop: int, max_compression: float) -> Figure:
    """Several methods lose weights together; a cross marks where a layer is empty.

    Args:
        layers: method, compression, layer (number, 1 at the input), kept, density; the same
            compressions for all methods.
        stop: which of the compressions, rising, has been reached.
        max_compression: rho_max, drawn as a line.

    Raises:
        ValueError: no such stop.

    >>> layers = pd.DataFrame({"method": "random", "compression": [1.0, 1.0, 4.0, 4.0],
    ...     "layer": [1, 2, 1, 2], "kept": [8, 8, 4, 0], "density": [1.0, 1.0, 0.5, 0.0]})
    >>> [ax.get_xlabel() for ax in race_view(layers, 1, 8.0).axes][1]
    'layer (1: input)'
    """
    layers = require(layers, "method compression layer kept density", "race_view")
    compression = _compression(layers, stop)
    look = styles(layers["method"])
    fewest = layers.groupby(["method", "compression"], sort=True)["kept"].min()
    if len(fewest) < len(look) * layers["compression"].nunique():
        raise ValueError("race_view: expected the same compressions for all methods")
    with theme():
        figure, (left, right) = _row([1.25, 1.0], 0.24)
        for method, style in look.items():
            own = fewest[method]
            done = own[own.index <= compression]
            alive = done[done > 0]
            line = style.kwargs() | {"marker": "none"}
            left.plot(alive.index, alive, **line)
            left.plot(alive.index[-1:], alive.iloc[-1:], style.marker, color=style.color)
            if 0 < len(alive) < len(done):
                broken = done.index[len(alive)]
                left.plot([alive.index[-1], broken], [alive.iloc[-1], 0.5], **line | {"label": ""})
                left.plot(broken, 0.5, "x", color=style.color, markeredgewidth=2.5, markersize=9)
        left.axvline(max_compression, **MAX_COMPRESSION)
        _decades(left.xaxis, 0.8, max_compression * 1.6)
        _decades(left.yaxis, 0.35, fewest.max() * 2)
        left.set(xlabel=_COMPRESSION, ylabel="weights in the emptiest layer")
        entries = [key(**style.kwargs()) for style in look.values()]
        entries.append(key("a layer is empty", **_EMPTY | {"color": "#333333"}))
        entries.append(key("largest possible", **MAX_COMPRESSION))
        figure.legend(handles=entries, loc="upper center", ncols=len(entries), columnspacing=1.1,
                      **_SMALL)  # fmt: skip
        _strips(right, layers[layers["compression"] == compression], list(look))
    return figure


def step_view(
    weights: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    going: Sequence[np.ndarray],
    phase: str,
    cut: float,
    title: str = "",
) -> Figure:
    """One phase of one iteration of SynFlow, on a network small enough to see.

    Args:
        weights: bool arrays (outputs, inputs), in forward order: kept before this iteration.
        scores: arrays alike, at least 0; of the weights that are kept.
        going: bool arrays alike: what this iteration removes.
        phase: "score" (lines as wide as their scores), "sort" (scores in order), "cut" (what goes
            is marked, its sum set against the cut) or "prune" (it is gone).
        cut: the cut size, the score of one layer.
        title: in words.

    Raises:
        ValueError: another phase, or layers that do not fit together.

    >>> one = [np.array([[True, True]])]
    >>> figure = step_view(one, [np.array([[1.0, 3.0]])], [np.array([[True, False]])], "cut", 4.0)
    >>> figure.axes[1].get_ylabel()
    'score'
    """
    if phase not in PHASES:
        raise ValueError(f"phase={phase!r}; expected 'score', 'sort', 'cut' or 'prune'")
    weights, going = ([np.asarray(each, bool) for each in both] for both in (weights, going))
    scores = [np.asarray(each, float) for each in scores]
    shapes = [[each.shape for each in three] for three in (weights, scores, going)]
    if not shapes[0] == shapes[1] == shapes[2]:
        raise ValueError(
            f"step_view: weights, scores and going have the shapes {shapes}; expected equal ones"
        )
    kept, value, leaves = (
        np.concatenate([*map(np.ravel, each)]) for each in (weights, scores, going)
    )
    value, leaves = value[kept], leaves[kept]
    marked, gone = phase in ("cut", "prune"), phase == "prune"
    stay = [w & ~(g & marked) for w, g in zip(weights, going, strict=True)]
    width = [0.6 + 4.5 * np.sqrt(np.maximum(s, 0) / (value.max() or 1.0)) for s in scores]
    with theme():
        figure, (left, middle, right) = _row([1.25, 1.25, 0.8], 0.36, title)
        draw_weights(left, stay, width, **ON_PATH)
        if phase == "cut":
            leaving = [w & g for w, g in zip(weights, going, strict=True)]
            draw_weights(left, leaving, width, color="#d55e00", linestyle=(0, (2, 1.2)))
        draw_units(left, stay if gone else weights, radius=8)
        _ranking(middle, value, leaves, phase)
        _budget(right, value[leaves].sum() if marked else 0.0, cut)
    return figure


def training_view(
    curves: pd.DataFrame, epoch: int, layers: pd.DataFrame, verdict: str = ""
) -> Figure:
    """Accuracy by epoch beside what pruning left, and beside former choices.

    Args:
        curves: method, choice (its name), connected, epoch, test_top1 (percent); the last choice is
            the present one.
        epoch: up to which the curve of the present choice is drawn.
        layers: of the present choice: layer (number, 1 at the input), total, density.
        verdict: what is left of the network, in words.

    Raises:
        ValueError: no such epoch.

    >>> curves = pd.DataFrame({"method": "snip", "choice": "SNIP, 2", "connected": True,
    ...                        "epoch": [0, 1], "test_top1": [10.0, 60.0]})
    >>> layers = pd.DataFrame({"layer": [1, 2], "total": 8, "density": [0.5, 0.5]})
    >>> training_view(curves, 1, layers).axes[2].get_xlabel()
    'accuracy (percent)'
    """
    curves = require(curves, "method choice connected epoch test_top1", "training_view")
    layers = require(layers, "layer total density", "training_view")
    epochs = sorted(curves["epoch"].unique())
    if epoch not in epochs:
        raise ValueError(f"epoch={epoch!r}; expected one of {epochs}")
    names = list(dict.fromkeys(curves["choice"]))
    with theme():
        title = f"{names[-1]}: {verdict}"
        figure, (left, middle, right) = _row([1.0, 0.88, 0.9], 0.32, title, 0.36)
        for place, name in enumerate(names):
            own = curves[curves["choice"] == name]
            style, now = next(iter(styles(own["method"]).values())), name == names[-1]
            drawn = own[own["epoch"] <= epoch] if now else own
            faint = {"alpha": 1.0 if now else 0.45, "linewidth": 2.6 if now else 1.2}
            left.plot(drawn["epoch"], drawn["test_top1"], **style.kwargs() | faint)
            # A hollow marker: there is no path, and nothing can be learned.
            face = style.color if own["connected"].iloc[0] else "white"
            right.plot(drawn["test_top1"].iloc[-1], -place, style.marker, color=style.color,
                       markerfacecolor=face, markersize=10 if now else 7)  # fmt: skip
            right.text(1, 0.28 - place, name, fontsize=8.5, weight="bold" if now else "normal")
        left.set(xlim=(-0.15, max(epochs) + 0.15), ylim=(0, 102))
        left.set(xlabel="epoch", ylabel="accuracy (percent)")
        left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _fractions(middle, layers, style)
        right.set(xlim=(0, 102), ylim=(0.6 - max(len(names), 3), 0.6))
        right.set(yticks=[], xlabel="accuracy (percent)")
        right.set_title("last choices (hollow: no path)", fontsize=10.5, pad=3)
    return figure


def _row(
    ratios: Sequence[float], space: float, title: str = "", middle: float = 0.5
) -> tuple[Figure, np.ndarray]:
    """Axes side by side, with a title above whose middle is there."""
    figure = Figure(figsize=(10, 3.5), dpi=80)
    axes = figure.subplots(1, len(ratios), width_ratios=ratios)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.17, top=0.87, wspace=space)
    figure.text(middle, 0.955, title, ha="center", va="center", fontsize=11.5)
    return figure, axes


def _compression(layers: pd.DataFrame, stop: int) -> float:
    known = np.sort(layers["compression"].unique())
    return float(known[whole(stop, "stop", 0, len(known) - 1)])


def _decades(axis: Axis, low: float, high: float, ticks: int = 6) -> None:
    """Logarithmic from low to high; few ticks in plain text, which is what makes drawing fast."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    powers = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1).astype(int)
    powers = powers[:: -(-len(powers) // ticks) or 1]
    axis.set_major_locator(FixedLocator(10.0**powers))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        lambda value, _: "10" + str(round(np.log10(value))).translate(_SUPERSCRIPT)
    )


def _fractions(ax: Axes, now: pd.DataFrame, style: Style) -> None:
    floor = 0.4 / now["total"].max()
    left, empty = now[now["density"] > 0], now[now["density"] == 0]
    ax.vlines(left["layer"], floor, left["density"], color=style.color, linewidth=3, alpha=0.55)
    ax.plot(left["layer"], left["density"], style.marker, color=style.color, markersize=6)
    ax.plot(empty["layer"], [floor * 1.5] * len(empty), markersize=9, clip_on=False, **_EMPTY)
    _decades(ax.yaxis, floor, 2)
    ax.set(xlim=(now["layer"].min() - 0.6, now["layer"].max() + 0.6))
    ax.set(xlabel="layer (1: input); cross: empty", ylabel="fraction of weights left")
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _lines(ax: Axes, layers: pd.DataFrame, compression: float) -> None:
    table = layers.pivot_table(index="compression", columns="layer", values="density")
    colors = SEQUENCE(np.linspace(0, 1, table.shape[1]))
    for color, (_, line) in zip(colors, table.where(table > 0).items(), strict=True):
        ax.plot(line.index, line, color=color, linewidth=1.2)
    ax.axvline(compression, color="#d55e00", linewidth=2)
    _decades(ax.xaxis, 0.8, layers["compression"].max() * 1.3)
    _decades(ax.yaxis, 0.4 / layers["total"].max(), 2)
    ax.set_xlabel(_COMPRESSION)
    ax.set_title("all layers (dark: input), all stops", fontsize=10.5, pad=3)


def _paths(ax: Axes, drawing: Drawing) -> None:
    alive = [on_path for _, on_path in drawing]
    draw_weights(ax, [kept & ~on_path for kept, on_path in drawing], 1.4, **DEAD_END)
    draw_weights(ax, alive, 1.3, **ON_PATH)
    draw_units(ax, alive)
    lines = [key("on a path", **ON_PATH), key("dead end", **DEAD_END)]
    ax.legend(handles=lines, loc="lower center", ncols=2, bbox_to_anchor=(0.5, 0.98), **_SMALL)


def _conservation(ax: Axes, units: pd.DataFrame, style: Style) -> None:
    sums = np.abs(units[["incoming", "outgoing"]].to_numpy(float))
    drawn = sums[(sums > 0).all(1)]
    if len(drawn):
        low, high = np.log10(drawn.min() / 1.2), np.log10(drawn.max() * 1.2)
        ends = 10 ** np.floor(low), 10 ** np.ceil(high)
        ax.plot(ends, ends, color="black", linewidth=1)
        ax.plot(*drawn.T, style.marker, color=style.color, markersize=4, alpha=0.7)
        _decades(ax.xaxis, *ends, ticks=4)
        _decades(ax.yaxis, *ends, ticks=4)
    else:
        ax.set(xticks=[], yticks=[])
    zeros = len(sums) - len(drawn)
    ax.set_title(f"{len(drawn):,} units, {zeros:,} with a zero sum", fontsize=10.5, pad=3)
    ax.set(xlabel="|incoming score| of a unit", ylabel="|outgoing score|")


def _strips(ax: Axes, now: pd.DataFrame, methods: list[str]) -> None:
    grid = now.pivot_table(index="method", columns="layer", values="density").loc[methods]
    shades = np.log10(grid.where(grid > 0)).to_numpy()
    count = grid.shape[1]
    ax.imshow(
        shades, aspect="auto", cmap="Greys", vmin=-6, vmax=0.5, interpolation="nearest",
        extent=(0.5, count + 0.5, len(methods) - 0.5, -0.5),
    )  # fmt: skip
    rows, columns = np.nonzero(grid.to_numpy() == 0)
    ax.plot(columns + 1, rows, markersize=8, **_EMPTY)
    ax.set_yticks(range(len(methods)), [styles(methods)[m].label for m in methods])
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.grid(False)
    ax.set_xlabel("layer (1: input)")
    ax.set_title("dark: full, pale: few left, cross: empty", fontsize=10.5, pad=3)


def _ranking(ax: Axes, value: np.ndarray, leaves: np.ndarray, phase: str) -> None:
    # Sorted ones that leave come first, as ties are broken by position and not by score.
    order = np.arange(len(value)) if phase == "score" else np.lexsort((~leaves, value))
    value, leaves = value[order], leaves[order]
    spots = np.arange(1, len(value) + 1)
    mark = leaves & (phase in ("cut", "prune"))
    if phase != "prune":
        ax.bar(spots[mark], value[mark], color="none", edgecolor="#d55e00", hatch="////", width=0.7)
    ax.bar(spots[~mark], value[~mark], color="#0173b2", width=0.8)
    positive = value[value > 0]
    if len(positive):
        _decades(ax.yaxis, positive.min() / 3, positive.max() * 2)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    order = "weight, in network order" if phase == "score" else "weight, smallest first"
    ax.set(xlim=(0.2, len(value) + 0.8), xlabel=order, ylabel="score")


def _budget(ax: Axes, removed: float, cut: float) -> None:
    unit = cut or 1.0
    ax.bar(["prune size", "cut size"], [removed / unit, 1.0], width=0.6, linewidth=1.4,
           color=["none", "#949494"], edgecolor=["#d55e00", "#333333"],
           hatch=["////", ""])  # fmt: skip
    ax.axhline(1, color="black", linewidth=1)
    ax.set(ylim=(0, max(1.25, 1.15 * removed / unit)), ylabel="score / cut size")
