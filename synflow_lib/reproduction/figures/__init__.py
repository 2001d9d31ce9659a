"""One pure function per figure: tables in, matplotlib Figure out; nothing is shown or saved.

Axes carry units, compression is on a logarithmic axis, and methods keep one colour, marker and
linestyle throughout (`STYLES`). `save` writes a figure with the numbers behind it. All raise a
TypeError where a table is no DataFrame, and a ValueError that names the columns it lacks.
"""

# ruff: noqa: F401 -- imported to be called as figures.accuracy_curves, ...

from ..paper import FIVE
from .conservation import conservation_scatter, layer_scores, norm_paths, unit_scores
from .course import (
    fixed_schedule,
    grasp_correction,
    inference_times,
    random_collapse,
    residual_cuts,
    schedule_densities,
    weight_histograms,
)
from .curves import (
    accuracy_curves,
    changed_masks,
    dead_inputs,
    effective_compressions,
    imp_curves,
    live_units,
)
from .explore import collapse_view, race_view, step_view, training_view
from .layers import (
    critical_compressions,
    layer_fractions,
    layer_profiles,
    layers_by_compression,
    layers_left,
    norm_growth,
)
from .schedules import (
    cut_trajectory,
    iteration_collapse,
    paired_differences,
    prune_ratio,
    pruning_costs,
    savings,
    two_schedules,
)
from .style import STYLES, Style, save, styles, theme
