"""The notebooks' loops, one module a topic, so that a notebook holds prose, calls and plots.

`collapse` (00, 01, 05), `conservation` (02), `dynamics` and `figure5` (03), `schedules` (04).
"""

from . import collapse, conservation, dynamics, figure5, schedules

__all__ = ["collapse", "conservation", "dynamics", "figure5", "schedules"]
