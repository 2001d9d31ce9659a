"""Explorers: pictures that follow a slider, each beside a plain figure that needs no kernel.

| in a live notebook | the same as a figure | as an animation, no kernel |
|---|---|---|
| ``collapse()`` | ``collapse_picture()`` | |
| ``race()`` | ``race_picture()`` | ``race_animation()`` |
| ``steps()`` | ``steps_picture()`` | ``steps_animation()`` |
| ``training()`` | ``training_picture()`` | |

A picture is drawn when it is first looked at; a kernel at rest draws the others ahead, so that the
slider only picks one. Each explorer names three things to look for, and ticks what has been found.
ipywidgets (7.7 or newer) is needed by the first column only, and imported there.
"""

# ruff: noqa: F401 -- imported to be called as explore.collapse, ...

from .learning import training, training_picture
from .pruned import collapse, collapse_picture
from .racing import race, race_animation, race_picture
from .stepping import steps, steps_animation, steps_picture
