"""Explorers: pictures that follow a slider, each beside a plain figure that needs no kernel.

| in a live notebook | the same as a figure | as an animation, no kernel |
|---|---|---|
| ``collapse()`` | ``collapse_picture()`` | |
| ``steps()`` | ``steps_picture()`` | ``steps_animation()`` |
| ``race()`` | ``race_picture()`` | ``race_animation()`` |

All pictures of one choice are drawn when it is made, so that the slider only picks one. ipywidgets
(7.7 or newer) is needed by the first column only, and imported there.
"""

from .pruned import collapse, collapse_picture, race, race_animation, race_picture
from .stepping import steps, steps_animation, steps_picture

__all__ = [
    "collapse",
    "collapse_picture",
    "race",
    "race_animation",
    "race_picture",
    "steps",
    "steps_animation",
    "steps_picture",
]
