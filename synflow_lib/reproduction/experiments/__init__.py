"""The notebooks' loops, one module a topic, so that a notebook holds prose, calls and plots.

`collapse` (00, 01, 05, 08), `conservation` (02), `dynamics` (03), `schedules` (04),
`questions`, `scorings`, `dead_inputs`, `layer_laws` and `cost` (06), `sanity` and `widths` (07),
`lab` (09);
`trained` remembers what they train, `measured` what they measure; `real` is a program of its own.
"""

from . import (  # noqa: F401
    collapse,
    conservation,
    cost,
    dead_inputs,
    dynamics,
    lab,
    layer_laws,
    measured,
    questions,
    sanity,
    schedules,
    scorings,
    trained,
    widths,
)
