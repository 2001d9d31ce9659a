"""One pure function per figure: tables in, matplotlib Figure out; nothing is shown or saved.

Axes carry units, compression is on a logarithmic axis, and methods keep one colour, marker and
linestyle throughout (`STYLES`). `save` writes a figure with the numbers behind it.
"""

from .accuracy import accuracy_curves
from .collapse import critical_compressions, layer_fractions
from .conservation import conservation_scatter, layer_scores
from .costs import pruning_costs, savings
from .dynamics import imp_curves, norm_growth, norm_paths
from .explore import collapse_view, race_view, step_view
from .layers import layers_left
from .questions import dead_inputs, iteration_collapse, layer_profiles, paired_differences
from .sanity import changed_masks, effective_compressions, live_units, two_schedules
from .saving import save
from .schedules import cut_trajectory, prune_ratio
from .style import FIVE, STYLES, Style, styles, theme

__all__ = [
    "FIVE",
    "STYLES",
    "Style",
    "accuracy_curves",
    "changed_masks",
    "collapse_view",
    "conservation_scatter",
    "critical_compressions",
    "cut_trajectory",
    "dead_inputs",
    "effective_compressions",
    "imp_curves",
    "iteration_collapse",
    "layer_fractions",
    "layer_profiles",
    "layer_scores",
    "layers_left",
    "live_units",
    "norm_growth",
    "norm_paths",
    "paired_differences",
    "prune_ratio",
    "pruning_costs",
    "race_view",
    "save",
    "savings",
    "step_view",
    "styles",
    "theme",
    "two_schedules",
]
