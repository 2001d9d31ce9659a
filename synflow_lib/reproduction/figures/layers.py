"""How many weights each layer has left, for several methods at one compression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import panels, require, sequence, styles


def layers_left(table: pd.DataFrame, notes: Mapping[str, str] | None = None) -> Figure:
    """A row a method, a cell a layer, the number of weights left written in it.

    Args:
        table: one row per method and layer, at one compression: method, layer (number, 1 at the
            input), kept (weights left in the layer, 0 where it is empty).
        notes: method -> text to the right of its row.

    Returns:
        One panel; the more weights the darker the cell, empty layers are white and hatched.

    Raises:
        ValueError: columns missing, or two rows for one method and layer.

    >>> table = pd.DataFrame({"method": "random", "layer": [1, 2], "kept": [2500, 0]})
    >>> [text.get_text() for text in layers_left(table, {"random": "no path"}).axes[0].texts]
    ['2.5k', '0', 'no path']
    """
    require(table, ["method", "layer", "kept"], "layers_left")
    if table.duplicated(["method", "layer"]).any():
        raise ValueError(
            "layers_left: more than one row for one method and layer; expected one compression"
        )
    look = styles(table["method"])
    grid = table.pivot_table(index="method", columns="layer", values="kept").loc[list(look)]
    kept = grid.to_numpy(float)
    scale = LogNorm(1, max(kept.max(), 10))
    shades = sequence().reversed()
    with panels(1, 1, 0.9 + 0.5 * len(look)) as (figure, (ax,), _):
        ax.grid(False)
        ax.imshow(np.where(kept > 0, kept, np.nan), norm=scale, cmap=shades, aspect="auto")
        for (row, column), count in np.ndenumerate(kept):
            empty = count == 0
            if empty:
                corner = column - 0.5, row - 0.5
                cell = {"facecolor": "white", "edgecolor": "#999999", "hatch": "////", "lw": 0}
                ax.add_patch(Rectangle(corner, 1, 1, **cell))
            dark = not empty and sum(shades(scale(count))[:3]) < 1.5
            background = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if empty else None
            ax.text(
                column,
                row,
                _short(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
                bbox=background,
            )
        for row, method in enumerate(look):
            if notes and method in notes:
                right = kept.shape[1] - 0.35
                ax.text(right, row, notes[method], va="center", fontsize=10.5)
        ax.set_xticks(range(kept.shape[1]), [str(layer) for layer in grid.columns])
        ax.set_yticks(range(len(look)), [style.label for style in look.values()])
        for tick, style in zip(ax.get_yticklabels(), look.values(), strict=True):
            tick.set(color=style.color, fontweight="bold")
        ax.set_xticks(np.arange(kept.shape[1] + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(len(look) + 1) - 0.5, minor=True)
        ax.grid(True, which="minor", color="white", linewidth=2)
        ax.tick_params(which="both", length=0)
        ax.spines[:].set_visible(False)
        ax.set_axisbelow(False)
        ax.set_xlabel("layer (1: input)")
        ax.set_title("weights left in each layer (hatched: none)", loc="left")
    return figure


def _short(count: float) -> str:
    """A count in at most four characters."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return (
                f"{count / size:.2g}{letter}"
                if count < 10 * size
                else f"{count / size:.0f}{letter}"
            )
    return f"{count:.0f}"
