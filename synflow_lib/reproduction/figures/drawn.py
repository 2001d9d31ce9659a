"""A network small enough to see: units as dots, weights as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection


def places(widths: Sequence[int]) -> list[np.ndarray]:
    """Where the units of each layer stand: arrays (units, 2), x from 0, y from -1 to 1.

    >>> places([1, 2])[1].tolist()
    [[1.0, -1.0], [1.0, 1.0]]
    """
    found = []
    for x, width in enumerate(widths):
        y = np.linspace(-1, 1, width) if width > 1 else np.zeros(1)
        found.append(np.column_stack([np.full(width, float(x)), y]))
    return found


def draw_weights(
    ax: Axes, layers: Sequence[np.ndarray], linewidth: float | Sequence[np.ndarray], **line: object
) -> int:
    """Draws a line where the bool arrays (outputs, inputs) of the layers are True; counts them.

    ``linewidth`` is of all lines, or arrays alike; a ValueError tells of layers that do not fit.

    >>> from matplotlib.figure import Figure
    >>> draw_weights(Figure().subplots(), [np.array([[True, False]])], 1.0, color="black")
    1
    """
    at = places(_widths(layers))
    segments, widths = [], []
    for number, mask in enumerate(layers):
        outputs, inputs = np.nonzero(mask)
        segments.extend(np.stack([at[number][inputs], at[number + 1][outputs]], axis=1))
        each = linewidth if np.isscalar(linewidth) else linewidth[number][outputs, inputs]
        widths.extend(np.broadcast_to(each, outputs.shape))
    if segments:
        ax.add_collection(LineCollection(segments, linewidths=widths, zorder=2, **line))
    return len(segments)


def draw_units(ax: Axes, layers: Sequence[np.ndarray], radius: float = 5.0) -> None:
    """Draws units as dots, filled where a weight marked in ``layers`` meets them, and the axes."""
    widths = _widths(layers)
    for number, spots in enumerate(places(widths)):
        read = layers[number].any(0) if number < len(layers) else layers[-1].any(1)
        for used, face in ((True, "#333333"), (False, "white")):
            own = spots[read == used]
            ax.plot(*own.T, "o", color="#333333", markerfacecolor=face, markersize=radius, zorder=3)
    ax.set(xlim=(-0.3, len(widths) - 0.7), ylim=(-1.15, 1.15), yticks=[])
    ax.set_xticks([i + 0.5 for i in range(len(layers))], [str(i + 1) for i in range(len(layers))])
    ax.set_xlabel("layer (1: input)")
    ax.grid(False)
    ax.spines["left"].set_visible(False)


def _widths(layers: Sequence[np.ndarray]) -> list[int]:
    if not len(layers) or any(layer.ndim != 2 for layer in layers):
        raise ValueError("expected at least one layer, each an array (outputs, inputs)")
    for number, (first, second) in enumerate(zip(layers, layers[1:], strict=False), start=1):
        if first.shape[0] != second.shape[1]:
            raise ValueError(
                f"layer {number} has {first.shape[0]} outputs and layer {number + 1}"
                f" {second.shape[1]} inputs; expected equal numbers"
            )
    return [layers[0].shape[1], *(layer.shape[0] for layer in layers)]
