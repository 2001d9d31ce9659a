"""The notebooks' loops, one module a topic, so that a notebook holds prose, calls and plots.

`collapse` (00, 01, 05, 08), `conservation` (02), `dynamics` and `figure5` (03), `schedules` (04),
`questions`, `scorings`, `dead_inputs`, `layer_laws` and `cost` (06), `sanity` and `widths` (07).
"""

from . import (
    collapse,
    conservation,
    cost,
    dead_inputs,
    dynamics,
    figure5,
    layer_laws,
    questions,
    sanity,
    schedules,
    scorings,
    trained,
    widths,
)

__all__ = [
    "collapse",
    "conservation",
    "cost",
    "dead_inputs",
    "dynamics",
    "figure5",
    "layer_laws",
    "questions",
    "sanity",
    "schedules",
    "scorings",
    "trained",
    "widths",
]
