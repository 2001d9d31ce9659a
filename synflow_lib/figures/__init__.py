"""One pure function per figure: tables in, matplotlib Figure out; nothing is shown or saved.

Axes carry units, compression is on a logarithmic axis, and methods keep one colour, marker and
linestyle throughout (`STYLES`). `save` writes a figure with the numbers behind it.
"""

from .accuracy import accuracy_curves
from .collapse import critical_compressions, layer_fractions
from .conservation import conservation_scatter, layer_scores
from .dynamics import imp_curves, norm_growth, norm_paths
from .layers import layers_left
from .saving import save
from .schedules import cut_trajectory, prune_ratio
from .style import METHODS, STYLES, Style, styles, theme

__all__ = [
    "METHODS",
    "STYLES",
    "Style",
    "accuracy_curves",
    "conservation_scatter",
    "critical_compressions",
    "cut_trajectory",
    "imp_curves",
    "layer_fractions",
    "layer_scores",
    "layers_left",
    "norm_growth",
    "norm_paths",
    "prune_ratio",
    "save",
    "styles",
    "theme",
]
