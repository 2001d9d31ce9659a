"""The checks of the notebooks' exercises: `sf.exercises.check_may_go(may_go)` says what it saw.

`check` is the mechanism. One module a topic: `collapse` (00, 01), `conservation` (02), `synflow`
(03, 04), `accuracy` (05, 06), `masks` (07, 08), `lab` (09).
"""

from .accuracy import (  # noqa: F401
    check_can_learn,
    check_clear_differences,
    check_left_in_second,
    check_paired_interval,
    check_synflow_from,
    check_trainings,
)
from .check import Check  # noqa: F401
from .collapse import (  # noqa: F401
    check_even_odds,
    check_fair_magnitude,
    check_fewest_weights,
    check_is_connected,
    check_largest_compression,
    check_protect,
)
from .conservation import (  # noqa: F401
    check_conserved_grasp,
    check_objective,
    check_prediction,
    check_rescale,
)
from .lab import (  # noqa: F401
    check_conv_multiply_adds,
    check_kept_weights,
    check_layer_densities,
    check_middle_half,
    check_ten_percent,
)
from .masks import (  # noqa: F401
    check_cut_apart,
    check_equal_fractions,
    check_on_paths,
    check_shuffle,
    check_squared_flow,
)
from .synflow import (  # noqa: F401
    check_imbalance,
    check_log2_flow,
    check_may_go,
    check_predicted_slope,
    check_safe_iterations,
    check_shrinking,
)
