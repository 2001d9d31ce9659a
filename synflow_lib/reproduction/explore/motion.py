"""The race and the steps as animations that play without a kernel."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from PIL import Image

from ..figures.style import theme
from .panel import png
from .racing import race_picture, stops
from .racing import words as race_words
from .stepping import steps_picture, walk

if TYPE_CHECKING:
    from IPython.display import HTML

_COLORS = 16  # of a frame: four bits a pixel make small files
_ICONS = {
    "fa-minus": "−",
    "fa-plus": "+",
    "fa-fast-backward": "⏮",
    "fa-step-backward": "⏴|",
    "fa-play fa-flip-horizontal": "◀",
    "fa-pause": "⏸",
    "fa-play": "▶",
    "fa-step-forward": "|⏵",
    "fa-fast-forward": "⏭",
}


def race_animation(network: str = "perceptron") -> HTML:
    """The race as an animation with buttons, in HTML that needs no kernel (below 300 kB).

    Args:
        network: "small", "perceptron" or "vgg16".

    Raises:
        ValueError: no such network.

    >>> len(race_animation("small").data) < 300_000
    True
    """
    alt = "Five methods lose weights together: " + race_words(network, len(stops(network)) - 1)
    return _player(range(len(stops(network))), lambda stop: race_picture(network, stop), 2, alt)


def steps_animation(schedule: str = "cut", iterations: int = 3) -> HTML:
    """SynFlow step by step as an animation, in HTML that needs no kernel (below 300 kB).

    Args:
        schedule: "cut", "exponential" or "linear".
        iterations: 1, 3 or 6; not looked at by "cut".

    Raises:
        ValueError: not one of the choices.

    >>> len(steps_animation().data) < 300_000
    True
    """
    # The order of the scores is seen again in the phase that cuts.
    numbers = range(1, len(walk(schedule, iterations)) + 1)
    moments = [(number, phase) for number in numbers for phase in ("score", "cut", "prune")]
    alt = f"SynFlow scores, cuts and prunes a drawn network, {len(numbers)} times"
    return _player(moments, lambda at: steps_picture(*at, schedule, iterations), 1, alt)


def _player(moments: Sequence, picture: Callable[..., Figure], fps: int, alt: str) -> HTML:
    from IPython.display import HTML

    frames = iter([_file(picture(moment)) for moment in moments])
    with theme():
        blank = Figure(figsize=(0.1, 0.1))  # matplotlib makes the buttons, the frames are ours
        movie = FuncAnimation(blank, lambda _: [], frames=len(moments), interval=1000 / fps)
        page = movie.to_jshtml(fps=fps, default_mode="once")
    page = re.sub(r"data:image/png;base64,[^\"]*", lambda _: next(frames), page)
    # Icons come from the network and would be missing without it.
    page = re.sub(r"<link[^>]*>", "", page)
    for name, letter in _ICONS.items():
        page = page.replace(f'<i class="fa {name}"></i>', letter)
    return HTML(_named_by_content(page.replace("<img ", f'<img alt="{alt}" ', 1)))


def _named_by_content(page: str) -> str:
    """matplotlib names a player at random; by its content, a notebook made twice is the same."""
    random = re.search(r"_anim_img([0-9a-f]{32})", page).group(1)
    content = hashlib.sha256(page.replace(random, "").encode())
    return page.replace(random, content.hexdigest()[:32])


def _file(figure: Figure) -> str:
    """The figure in a few colours, as an address that holds the whole file."""
    few = Image.open(io.BytesIO(png(figure))).convert("RGB")
    buffer = io.BytesIO()
    few.quantize(_COLORS, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
