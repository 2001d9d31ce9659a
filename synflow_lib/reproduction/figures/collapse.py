"""Layer-collapse: the weights left in each layer (figure 2), and where each method collapses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import (
    COMPRESSION,
    MAX_COMPRESSION,
    WHITE,
    key,
    log_axis,
    panels,
    power_of_ten,
    require,
    sequence,
    styles,
)


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
        ValueError: columns missing, or two rows for one method, compression and layer.

    >>> table = pd.DataFrame({"method": "random", "compression": [1.0, 10.0] * 2,
    ...                       "layer": [1, 1, 2, 2], "density": [1.0, 0.1, 1.0, 0.0]})
    >>> layer_fractions(table, max_compression=50).axes[0].get_title()
    'Random'
    """
    require(table, ["method", "compression", "layer", "density"], "layer_fractions")
    keys = ["method", "compression", "layer"]
    if table.duplicated(keys).any():
        raise ValueError(
            "layer_fractions: more than one row for one method, compression and layer; expected "
            "one seed. Select one, or average first."
        )
    if not pd.api.types.is_numeric_dtype(table["layer"]):
        table = table.assign(layer=pd.factorize(table["layer"])[0] + 1)
    look = styles(table["method"])
    depth = Normalize(table["layer"].min(), table["layer"].max())
    floor = table.loc[table["density"] > 0, "density"].min()
    with panels(len(look), 5, 3.4, share_x=True, share_y=True) as (figure, axes, _):
        for ax, (method, style) in zip(axes, look.items(), strict=True):
            own = table[table["method"] == method].sort_values("compression")
            for layer, rows in own.groupby("layer"):
                _fraction_line(ax, rows, sequence()(depth(layer)))
            ax.set_title(style.label, color=style.color, fontweight="bold")
            if max_compression is not None:
                ax.axvline(max_compression, **MAX_COMPRESSION)
            if critical is not None and method in critical:
                ax.axvline(critical[method], color=style.color, linestyle="--", linewidth=1.4)
                # Low at the left is the one corner where no layer can be.
                label = r"$\rho_{cr}$ = " + power_of_ten(critical[method])
                ax.text(0.05, 0.04, label, transform=ax.transAxes, bbox=WHITE)
        log_axis(axes[0].xaxis, ticks=5)
        log_axis(axes[0].yaxis)
        axes[0].set_ylim(floor / 2, 1.6)
        figure.supxlabel(COMPRESSION, fontsize=11.5)
        figure.supylabel("fraction of weights left in the layer", fontsize=11.5)
        bar = figure.colorbar(
            ScalarMappable(depth, sequence()), ax=axes, pad=0.01, aspect=25, fraction=0.03
        )
        bar.set_label("layer (1: input)")
        bar.locator = MaxNLocator(6, integer=True)
        entries = [key("last point before the layer is empty", color="#333333", **_CROSS)]
        if critical is not None:
            entries.append(
                key(r"critical compression $\rho_{cr}$", color="#333333", linestyle="--")
            )
        if max_compression is not None:
            label = r"largest possible compression $\rho_{max}$ = " + power_of_ten(max_compression)
            entries.append(key(label, **MAX_COMPRESSION))
        figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))
    return figure


_CROSS = {"linestyle": "none", "marker": "x", "markersize": 6, "markeredgewidth": 1.8}


def _fraction_line(ax: Axes, rows: pd.DataFrame, color: object) -> None:
    left = rows[rows["density"] > 0]
    ax.plot(left["compression"], left["density"], color=color, linewidth=1.5)
    if 0 < len(left) < len(rows):
        end = left.iloc[-1]
        ax.plot(end["compression"], end["density"], color=color, zorder=3, **_CROSS)


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

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"method": ["snip", "snip"], "seed": [0, 1],
    ...                       "critical_compression": [1e2, 1e4]})
    >>> [text.get_text() for text in critical_compressions(table, 1e6).axes[0].texts]
    ['$10^{3}$']
    """
    require(table, ["method", "seed", "critical_compression"], "critical_compressions")
    if "model" not in table:
        table = table.assign(model="")
    look = styles(table["method"])
    models = list(dict.fromkeys(table["model"]))
    height = 1.3 + 0.42 * len(look)
    with panels(len(models), 3, height, share_y=True) as (figure, axes, _):
        for ax, model in zip(axes, models, strict=True):
            own = table[table["model"] == model]
            limit = (
                max_compression.get(model)
                if isinstance(max_compression, Mapping)
                else (max_compression)
            )
            for place, (method, style) in enumerate(look.items()):
                values = own.loc[own["method"] == method, "critical_compression"].to_numpy(float)
                if not values.size:
                    continue
                # Spread by rank, not by chance: seeds that coincide stay apart, always alike.
                offset = 0.28 * (np.arange(values.size) + 0.5) / values.size - 0.14
                point = {"color": style.color, "marker": style.marker, "linestyle": "none"}
                ax.plot(values, place + offset, markerfacecolor="none", markersize=4, **point)
                mean = 10 ** np.log10(values).mean()
                ax.plot(mean, place, markersize=9, markeredgecolor="black", **point)
                ax.annotate(
                    power_of_ten(mean),
                    (mean, place),
                    xytext=(0, 9),
                    textcoords="offset points",
                    ha="center",
                    bbox=WHITE,
                )
            if limit is not None:
                ax.axvline(limit, **MAX_COMPRESSION)
            log_axis(ax.xaxis)
            ax.set_xlim(left=1, right=(limit or own["critical_compression"].max()) * 4)
            ax.set_title(str(model))
            ax.set_xlabel(COMPRESSION if len(models) < 3 else r"compression $\rho$")
        axes[0].set_yticks(range(len(look)), [style.label for style in look.values()])
        axes[0].set_ylim(len(look) - 0.5, -0.6)
        grey = {"color": "#333333", "marker": "o", "linestyle": "none"}
        entries = [
            key("one seed", markersize=4, markerfacecolor="none", **grey),
            key("geometric mean", markersize=9, **grey),
        ]
        if max_compression is not None:
            entries.append(key(r"largest possible, $\rho_{max}$", **MAX_COMPRESSION))
        figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))
    return figure
