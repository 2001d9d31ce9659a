"""Layers: the weights left in each (figure 2), where methods collapse, norms, profiles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import gmean

from .style import (
    COMPRESSION,
    DOT,
    MAX_COMPRESSION,
    SEQUENCE,
    WHITE,
    depth_bar,
    key,
    legend,
    log_axis,
    ordered,
    power_of_ten,
    styles,
    subplots,
)
from .tables import require, shares

_CROSS = {"linestyle": "none", "marker": "x", "markersize": 6, "markeredgewidth": 1.8}
_STATES = [  # of a network, which are no methods
    {"color": "#0173b2", "marker": "s", "linestyle": "-"},
    {"color": "#0173b2", "marker": "o", "linestyle": "--", "markerfacecolor": "white"},
    {"color": "#de8f05", "marker": "^", "linestyle": "-"},
    {"color": "#de8f05", "marker": "v", "linestyle": "--", "markerfacecolor": "white"},
]


def layer_fractions(
    table: pd.DataFrame,
    max_compression: float | None = None,
    critical: Mapping[str, float] | None = None,
) -> Figure:
    """Figure 2: the fraction of weights left in each layer, for growing compression.

    Args:
        table: one row per method, compression and layer: method, compression (>= 1), layer
            (number, 1 at the input, or name; names count in order of appearance), density (of the
            layer, 0 where it is empty). Further columns are ignored; give one seed.
        max_compression: rho_max, drawn in all panels.
        critical: critical compression of each method, drawn in its panel.

    Returns:
        One panel per method; a line per layer, coloured by depth, that ends in a cross at the last
        compression before the layer is empty.

    Raises:
        ValueError: two rows for one method, compression and layer.

    >>> table = pd.DataFrame({"method": "random", "compression": [1.0, 10.0] * 2,
    ...                       "layer": [1, 1, 2, 2], "density": [1.0, 0.1, 1.0, 0.0]})
    >>> layer_fractions(table, max_compression=50).axes[0].get_title()
    'Random'
    """
    table = require(table, "method compression layer density", "layer_fractions", ["layer"])
    shares(table, "density", "layer_fractions")
    if table.duplicated(["method", "compression", "layer"]).any():
        raise ValueError(
            "layer_fractions: more than one row for one method, compression and layer; expected "
            "one seed. Select one, or average first."
        )
    if not pd.api.types.is_numeric_dtype(table["layer"]):
        table = table.assign(layer=pd.factorize(table["layer"])[0] + 1)
    look, critical = styles(table["method"]), {} if critical is None else dict(critical)
    depth = Normalize(table["layer"].min(), table["layer"].max())
    floor = table.loc[table["density"] > 0, "density"].min() if table["density"].any() else 1.0
    with subplots(len(look), 5, 3.4, share_x=True, share_y=True) as (figure, axes):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            own = table[table["method"] == method].sort_values("compression")
            for layer, rows in own.groupby("layer"):
                left = rows[rows["density"] > 0].set_index("compression")["density"]
                color = SEQUENCE(depth(layer))
                ax.plot(left, color=color, linewidth=1.5)
                if 0 < len(left) < len(rows):
                    ax.plot(left.tail(1), color=color, zorder=3, **_CROSS)
            ax.set_title(style.label, color=style.color, fontweight="bold")
            if max_compression is not None:
                ax.axvline(max_compression, **MAX_COMPRESSION)
            if method in critical:
                ax.axvline(critical[method], color=style.color, linestyle="--", linewidth=1.4)
                # Low at the left is the one corner where no layer can be.
                label = r"$\rho_{cr}$ = " + power_of_ten(critical[method])
                ax.text(0.05, 0.04, label, transform=ax.transAxes, bbox=WHITE)
        log_axis(axes[0].xaxis, ticks=5)
        log_axis(axes[0].yaxis)
        axes[0].set_ylim(floor / 2, 1.6)
        figure.supxlabel(COMPRESSION)
        figure.supylabel("fraction of weights left in the layer")
        depth_bar(figure, axes, depth, "layer (1: input)", aspect=25)
        grey = {"color": "#333333"}
        entries = [key("last point before the layer is empty", **grey, **_CROSS)]
        if critical:
            entries.append(key(r"critical compression $\rho_{cr}$", linestyle="--", **grey))
        if max_compression is not None:
            label = r"largest possible compression $\rho_{max}$ = " + power_of_ten(max_compression)
            entries.append(key(label, **MAX_COMPRESSION))
        legend(figure, entries)
    return figure


def layers_by_compression(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Figure 2 as in the paper: the fraction left against the layer, a line a compression.

    Args:
        table: one row a method, compression and layer: method, compression, layer (number, 1 at
            the input), density (0 where the layer is empty).
        published: the paper's, in the same form (`paper.figure2()`), drawn as open markers. Its
            rows at other compressions, by more than a tenth, are left out.

    Returns:
        A panel a method. A line stops where a layer is empty; an x at the bottom marks the layer.

    >>> table = pd.DataFrame({"method": "random", "compression": 10.0, "layer": [1, 2],
    ...                       "density": [0.1, 0.0]})
    >>> layers_by_compression(table).axes[0].get_xlabel()
    'layer (1: input)'
    """
    columns = "method compression layer density"
    table = require(table, columns, "layers_by_compression")
    shares(table, "density", "layers_by_compression")
    levels = sorted(table["compression"].unique())
    shades = ordered(levels, power_of_ten, end=0.95)
    sources = [(table, {"linewidth": 1.3, "marker": ".", "markersize": 4})]
    if published is not None:
        published = require(published, columns, "layers_by_compression, published")
        published = published[published["method"].isin(table["method"])]
        open_ = {"linestyle": "none", "marker": "o", "markersize": 5.5, "markerfacecolor": "none"}
        sources.append((_at_levels(published, levels), open_ | {"markeredgewidth": 0.9}))
    left = pd.concat([rows for rows, _ in sources])["density"]
    floor = (left[left > 0].min() if left.any() else 1.0) / 3
    look = styles(table["method"])
    with subplots(len(look), 3, 3.3, share_x=True, share_y=True) as (figure, axes):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            for rows, line in sources:
                for level, own in rows[rows["method"] == method].groupby("compression"):
                    density, color = own.set_index("layer")["density"], shades[level].color
                    ax.plot(density.where(density > 0), **{"linestyle": "-"} | line, color=color)
                    if rows is table:
                        empty = density.index[density == 0]
                        place = floor * 1.35 ** (1 + levels.index(level))
                        ax.plot(empty, [place] * len(empty), color=color, **_CROSS)
            ax.set_title(style.label, color=style.color, fontweight="bold")
            ax.set_xlabel("layer (1: input)")
        log_axis(axes[0].yaxis)
        axes[0].set_ylim(floor, 1.6)
        axes[0].set_xticks([layer for layer in sorted(table["layer"].unique()) if layer % 3 == 1])
        figure.supylabel("fraction of weights left in the layer")
        plain = {"linestyle": "-", "marker": ""}
        shown = [key(**style.kwargs() | plain) for style in shades.values()]
        figure.legend(handles=shown, loc="outside right center", title="compression")
        entries = [key("ours", color="#333333", marker=".")]
        if published is not None:
            entries.append(key("paper", color="#333333", **sources[1][1]))
        legend(figure, [*entries, key("empty (ours)", color="#333333", **_CROSS)])
    return figure


def _at_levels(table: pd.DataFrame, levels: list[float]) -> pd.DataFrame:
    """The rows at one of the levels, to within a tenth, with that level as their compression."""
    near = np.log(table["compression"].to_numpy()[:, None] / np.asarray(levels))
    best = np.abs(near).argmin(axis=1)
    close = np.abs(near[np.arange(len(near)), best]) < 0.1
    return table.assign(compression=np.asarray(levels)[best])[close]


def critical_compressions(
    table: pd.DataFrame, max_compression: float | Mapping[str, float] | None = None
) -> Figure:
    """The critical compression of each method over seeds, against the largest possible one.

    Args:
        table: one row per method and seed: method, seed, critical_compression (>= 1), and `model`
            where there are several networks.
        max_compression: rho_max, or one per model.

    Returns:
        A panel per model; small open points are seeds, the large one is their geometric mean,
        which is also written beside it as a power of ten.

    >>> table = pd.DataFrame({"method": ["snip", "snip"], "seed": [0, 1],
    ...                       "critical_compression": [1e2, 1e4]})
    >>> [text.get_text() for text in critical_compressions(table, 1e6).axes[0].texts]
    ['$10^{3}$']
    """
    table = require(table, "method seed critical_compression", "critical_compressions")
    if "model" not in table:
        table = table.assign(model="")
    look, models = styles(table["method"]), table.groupby("model", sort=False)
    if not isinstance(max_compression, Mapping):
        max_compression = dict.fromkeys(table["model"], max_compression)
    with subplots(len(models), 3, 1.3 + 0.42 * len(look), share_y=True) as (figure, axes):
        for ax, (model, own) in zip(axes, models, strict=True):
            for place, (method, style) in enumerate(look.items()):
                values = own.loc[own["method"] == method, "critical_compression"].to_numpy(float)
                if not values.size:
                    continue
                # Spread by rank, not by chance: seeds that coincide stay apart, always alike.
                offset = 0.28 * (np.arange(values.size) + 0.5) / values.size - 0.14
                point = {"color": style.color, "marker": style.marker, "linestyle": "none"}
                ax.plot(values, place + offset, markerfacecolor="none", markersize=4, **point)
                mean = gmean(values)
                ax.plot(mean, place, markersize=9, markeredgecolor="black", **point)
                above = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
                ax.annotate(power_of_ten(mean), (mean, place), bbox=WHITE, **above)
            limit = max_compression.get(model)
            if limit is not None:
                ax.axvline(limit, **MAX_COMPRESSION)
            log_axis(ax.xaxis)
            ax.set_xlim(left=1, right=(limit or own["critical_compression"].max()) * 4)
            ax.set_title(str(model))
            ax.set_xlabel(COMPRESSION if len(models) < 3 else r"compression $\rho$")
        axes[0].set_yticks(range(len(look)), [style.label for style in look.values()])
        axes[0].set_ylim(len(look) - 0.5, -0.6)
        dot = DOT | {"linestyle": "none"}
        entries = [
            key("one seed", markersize=4, markerfacecolor="none", **dot),
            key("geometric mean", markersize=9, **dot),
        ]
        if any(limit is not None for limit in max_compression.values()):
            entries.append(key(r"largest possible, $\rho_{max}$", **MAX_COMPRESSION))
        legend(figure, entries)
    return figure


def layers_left(table: pd.DataFrame, notes: Mapping[str, str] | None = None) -> Figure:
    """A row a method, a cell a layer, the number of weights left written in it.

    Args:
        table: one row per method and layer, at one compression: method, layer (number, 1 at the
            input), kept (weights left in the layer, 0 where it is empty).
        notes: method -> text to the right of its row.

    Returns:
        One panel; the more weights the darker the cell, empty layers are white and hatched.

    Raises:
        ValueError: two rows for one method and layer, or none.

    >>> table = pd.DataFrame({"method": "random", "layer": [1, 2], "kept": [2500, 0]})
    >>> [text.get_text() for text in layers_left(table, {"random": "no path"}).axes[0].texts]
    ['2.5k', '0', 'no path']
    """
    table = require(table, "method layer kept", "layers_left", ["layer"])
    if table.duplicated(["method", "layer"]).any():
        raise ValueError(
            "layers_left: more than one row for one method and layer; expected one compression"
        )
    look = styles(table["method"])
    grid = table.pivot_table(index="method", columns="layer", values="kept").loc[list(look)]
    kept = grid.to_numpy(float)
    if np.isnan(kept).any():
        raise ValueError("layers_left: a method lacks a layer or its count; expected one for each.")
    rows, columns = kept.shape
    scale, shades = LogNorm(1, max(kept.max(), 10)), SEQUENCE.reversed()
    with subplots(1, 1, 0.9 + 0.5 * rows) as (figure, (ax,)):
        ax.imshow(np.where(kept > 0, kept, np.nan), norm=scale, cmap=shades, aspect="auto")
        for (row, column), count in np.ndenumerate(kept):
            word = {"ha": "center", "va": "center", "color": "black"}
            if count == 0:
                cell = {"facecolor": "white", "edgecolor": "#999999", "hatch": "////", "lw": 0}
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **cell))
                word["bbox"] = WHITE | {"pad": 1.5}
            elif sum(shades(scale(count))[:3]) < 1.5:
                word["color"] = "white"
            ax.text(column, row, _short(count), **word)
        for row, method in enumerate(look):
            if notes and method in notes:
                ax.text(columns - 0.35, row, notes[method], va="center", fontsize=10.5)
        ax.set_xticks(range(columns), [str(layer) for layer in grid.columns])
        ax.set_yticks(range(rows), [style.label for style in look.values()])
        for tick, style in zip(ax.get_yticklabels(), look.values(), strict=True):
            tick.set(color=style.color, fontweight="bold")
        # White lines between the cells.
        ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        ax.grid(False)
        ax.grid(True, which="minor", color="white", linewidth=2)
        ax.set_axisbelow(False)
        ax.tick_params(which="both", length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("layer (1: input)")
        ax.set_title("weights left in each layer (hatched: none)", loc="left")
    return figure


def _short(count: float) -> str:
    """A count in at most four characters."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            digits = ".2g" if count < 10 * size else ".0f"
            return f"{count / size:{digits}}{letter}"
    return f"{count:.0f}"


def layer_profiles(table: pd.DataFrame, quantities: dict[str, str]) -> Figure:
    """Quantities of the layers of networks, a line a state: before and after training.

    Args:
        table: one row a network, state and layer: network, state (a name), layer (from 1), and a
            column for each quantity.
        quantities: column -> label of its axis, not below 0; one panel each.

    Returns:
        A panel a quantity, a line a state and network.

    >>> table = pd.DataFrame({"network": "fc", "state": "untrained", "layer": [1, 2],
    ...                       "rms": [0.1, 0.2]})
    >>> layer_profiles(table, {"rms": "rms"}).axes[0].get_ylabel()
    'rms'
    """
    table = require(table, ["network", "state", "layer", *quantities], "layer_profiles")
    with subplots(len(quantities), len(quantities), 3.6) as (figure, axes):
        entries = []
        for (network, state), rows in table.groupby(["network", "state"], sort=False):
            look = _STATES[len(entries) % len(_STATES)]
            entries.append(key(f"{network}, {state}", **look))
            for ax, quantity in zip(axes, quantities, strict=True):
                ax.plot(rows["layer"], rows[quantity], **look)
        for ax, words in zip(axes, quantities.values(), strict=True):
            ticks = sorted(table["layer"].unique())
            ax.set(xlabel="layer (1: input)", ylabel=words, ylim=(0, None), xticks=ticks)
        legend(figure, entries, most=4)
    return figure


def norm_growth(table: pd.DataFrame) -> Figure:
    """Squared norm of each layer against epoch, and what it has gained since initialization.

    Args:
        table: epoch, layer, squared_norm, of one training (`dynamics.train_watching`).

    >>> table = pd.DataFrame({"epoch": [0, 1], "layer": 1, "squared_norm": [2.0, 3.0]})
    >>> len(norm_growth(table).axes)
    2
    """
    table = require(table, "epoch layer squared_norm", "norm_growth")
    norms = table.pivot_table(index="epoch", columns="layer", values="squared_norm")
    look = ordered(norms, "layer {}".format)
    with subplots(2, 2, 3.5) as (figure, (left, right)):
        for number, (layer, style) in enumerate(look.items()):
            # Markers of different layers at different epochs, as lines come close.
            few = number * max(len(norms) // 20, 1), max(len(norms) // 5, 1)
            left.plot(norms[layer], markevery=few, **style.kwargs())
            right.plot(norms[layer] - norms[layer].iloc[0], markevery=few, **style.kwargs())
        left.set(xlabel="epoch", ylabel=r"$\|W_l\|^2$", title="squared norm")
        right.set(xlabel="epoch", ylabel=r"gain of $\|W_l\|^2$", title="gain since initialization")
        legend(figure, look.values(), most=6)
    return figure
