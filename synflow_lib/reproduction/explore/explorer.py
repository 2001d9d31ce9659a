"""What all explorers share: drawn frames, the controls above them, and players without a kernel."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from IPython.display import HTML
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from PIL import Image

from ..figures.style import theme

_COLORS = 16  # of a player's frame: four bits a pixel make small files
# Of these letters every font has a picture; of those made for players many have none.
_ICONS = {
    "fa-minus": "−",
    "fa-plus": "+",
    "fa-fast-backward": "|◀",
    "fa-step-backward": "‹",
    "fa-play fa-flip-horizontal": "◀",
    "fa-pause": "||",
    "fa-play": "▶",
    "fa-step-forward": "›",
    "fa-fast-forward": "▶|",
}


class Frame(NamedTuple):
    """A drawn picture: ``png`` bytes, and ``words`` that tell it."""

    png: bytes
    words: str


class Task(NamedTuple):
    """Something to look for in an explorer, and whether a state, given as to ``show``, shows it."""

    text: str
    found: Callable[..., bool]


def choose(what: str, value: object, choices: Sequence) -> None:
    """Raises a ValueError that lists the choices, unless ``value`` is one of them.

    >>> choose("method", "sinp", ("snip", "synflow"))
    Traceback (most recent call last):
    ...
    ValueError: method='sinp'; expected one of 'snip', 'synflow'
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if not any(type(plain) is type(choice) and plain == choice for choice in choices):
        raise ValueError(f"{what}={value!r}; expected one of {', '.join(map(repr, choices))}")


@dataclass(eq=False, repr=False)
class Explorer:
    """Pictures that follow a slider, and the drop-downs that choose which pictures."""

    slider: str  # what it moves along
    choices: Mapping[str, Sequence]  # name of a drop-down -> its values
    # Given a value for each choice, the slider's labels, one a stop.
    labels: Callable[..., Sequence[str]]
    # Given a stop (from 0) and a value for each choice, the picture and its words.
    show: Callable[..., tuple[Figure, str]]
    tasks: Sequence[Task]  # each is ticked once a state that was looked at shows it
    start: float = 0.0  # where the slider begins, as a share of its way
    plays: bool = False  # whether it runs through all its stops when a choice is made
    # How many former choices ``show``, ``labels`` and tasks are given as well, as ``past``: a
    # tuple with a value for each drop-down of every one, the latest last.
    memory: int = 0

    def __post_init__(self):
        # A picture is drawn when it is first looked at, or before that in a kernel at rest.
        self.frame = functools.lru_cache(maxsize=512)(self._frame)
        self.found = functools.lru_cache(maxsize=4096)(
            lambda number, stop, **state: self.tasks[number].found(stop, **state)
        )

    def _frame(self, stop: int, **state) -> Frame:
        figure, words = self.show(stop, **state)
        return Frame(png(figure), words)

    def widget(self, **chosen):
        """A drop-down for each choice, the slider, the picture, a line of words and the tasks.

        ``chosen`` are the values to begin with.

        Returns:
            A ``VBox`` with the attributes ``controls`` (name -> widget, the slider as "stop"),
            ``picture``, ``status`` and ``tasks``.

        Raises:
            ImportError: ipywidgets is not installed.
        """
        try:
            import ipywidgets
        except ImportError:
            raise ImportError(
                "the explorers need ipywidgets: install it with `pip install ipywidgets` and"
                " restart the kernel; the functions that end in _picture work without it"
            ) from None

        wide = {"description_width": "90px"}
        controls = {
            name: ipywidgets.Dropdown(options=values, value=chosen[name], description=name,
                                      style=wide, layout={"width": "260px"})
            for name, values in self.choices.items()
        }  # fmt: skip
        past: list[tuple] = []
        found: set[int] = set()  # numbers of tasks
        timers: list[asyncio.TimerHandle] = []  # the next picture to be drawn ahead

        def state() -> dict:
            now = {name: control.value for name, control in controls.items()}
            return now | {"past": tuple(past)} if self.memory else now

        first = _options(self.labels(**state()))
        slider = ipywidgets.SelectionSlider(
            options=first,
            value=min(int(self.start * len(first)), len(first) - 1),
            description=self.slider,
            continuous_update=False,
            style=wide,
            layout={"width": "95%"},
        )
        picture, status = ipywidgets.HTML(), ipywidgets.HTML()
        # Beside the picture where there is room, else below it.
        tasks = ipywidgets.HTML(layout={"flex": "1 1 200px"})
        errors = ipywidgets.Output()  # a traceback in a callback would otherwise only reach a log

        def say(words: str) -> None:
            attributes = 'class="synflow-status" role="status" aria-live="polite"'
            status.value = f"<p {attributes}>{html.escape(words)}</p>"

        def choice_changed(change) -> None:
            say("Computing and drawing this choice ...")
            with errors:
                was = tuple(
                    change["old"] if control is change["owner"] else control.value
                    for control in controls.values()
                )
                now = tuple(control.value for control in controls.values())
                past[:] = [one for one in past if one not in (was, now)] + [was]
                del past[: -self.memory or None]
                options = _options(self.labels(**state()))
                if options != list(slider.options):
                    # Another network has other stops: stay at the same part of the way.
                    share = slider.index / max(1, len(slider.options) - 1)
                    slider.unobserve(update, "index")  # or the first stop would be drawn as well
                    slider.options = options
                    slider.index = round(share * (len(options) - 1))
                    slider.observe(update, "index")
                if self.plays:
                    for index in range(len(options)):
                        slider.index = index
                update()
                draw_ahead()

        def update(_=None) -> None:
            errors.outputs = ()
            with errors:
                now = state()
                frame = self.frame(slider.index, **now)
                picture.value = image(frame)
                say(frame.words)
                found.update(
                    number
                    for number in range(len(self.tasks))
                    if number not in found and self.found(number, slider.index, **now)
                )
                tasks.value = _list(self.tasks, found)

        def draw_ahead() -> None:
            """Draws the other stops one by one, whenever the kernel has nothing else to do."""
            while timers:
                timers.pop().cancel()
            with contextlib.suppress(RuntimeError):  # outside of a kernel there is no loop
                loop, now = asyncio.get_running_loop(), state()
                stops = iter(range(len(slider.options)))

                def draw_next() -> None:
                    stop = next(stops, None)
                    if stop is not None:
                        self.frame(stop, **now)
                        timers[:] = [loop.call_later(0.05, draw_next)]

                timers[:] = [loop.call_later(0.5, draw_next)]

        for control in controls.values():
            control.observe(choice_changed, "value")
        slider.observe(update, "index")
        update()
        draw_ahead()
        wrap = {"flex_flow": "row wrap"}
        row = ipywidgets.HBox(list(controls.values()), layout=wrap)
        side = ipywidgets.HBox([picture, tasks], layout=wrap)
        box = ipywidgets.VBox([row, slider, status, side, errors])
        box.controls, box.picture, box.status = controls | {"stop": slider}, picture, status
        box.tasks = tasks
        return box

    def animation(self, stops: Iterable[int], per_second: int, alt: str, **chosen) -> HTML:
        """The pictures of these stops, ``per_second``, as a player in HTML that needs no kernel."""
        addresses = [_small(self.show(stop, **chosen)[0]) for stop in stops]
        with theme():
            blank = Figure(figsize=(0.1, 0.1))  # matplotlib makes the buttons, the frames are ours
            pause = 1000 / per_second
            movie = FuncAnimation(blank, lambda _: [], frames=len(addresses), interval=pause)
            page = movie.to_jshtml(fps=per_second, default_mode="once")
        following = iter(addresses)
        page = re.sub(r"data:image/png;base64,[^\"]*", lambda _: next(following), page)
        # Icons come from the network and would be missing without it.
        page = re.sub(r"<link[^>]*>", "", page)
        for name, letter in _ICONS.items():
            page = page.replace(f'<i class="fa {name}"></i>', letter)
        page = page.replace("<img ", f'<img alt="{alt}" ', 1)
        # matplotlib names a player at random; by its content, a notebook made twice is the same.
        random = re.search(r"_anim_img([0-9a-f]{32})", page).group(1)
        content = hashlib.sha256(page.replace(random, "").encode())
        return HTML(page.replace(random, content.hexdigest()[:32]))


def png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes each time.

    >>> png(Figure(figsize=(1, 1)))[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    fast = {"compress_level": 1}  # compressing hard would double the time of drawing
    figure.savefig(buffer, format="png", dpi="figure", metadata={"Software": None}, pil_kwargs=fast)
    return buffer.getvalue()


def image(frame: Frame) -> str:
    """HTML of a picture with its words as text alternative.

    >>> image(Frame(b"", "two < three"))
    '<img alt="two &lt; three" style="max-width: 100%" src="data:image/png;base64,">'
    """
    alt = html.escape(frame.words)
    return f'<img alt="{alt}" style="max-width: 100%" src="{_address(frame.png)}">'


def _address(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _small(figure: Figure) -> str:
    """The figure in a few colours, as an address that holds the whole file."""
    few = Image.open(io.BytesIO(png(figure))).convert("RGB")
    buffer = io.BytesIO()
    few.quantize(_COLORS, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return _address(buffer.getvalue())


def _options(labels: Sequence[str]) -> list[tuple[str, int]]:
    return [(label, number) for number, label in enumerate(labels)]


def _list(tasks: Sequence[Task], found: set[int]) -> str:
    """HTML of what to look for, with a tick before what has been found."""
    signs = ("☐ To find:", "☑ <b>Found:</b>")
    items = "".join(
        f"<li>{signs[number in found]} {html.escape(task.text)}</li>"
        for number, task in enumerate(tasks)
    )
    style = 'style="list-style: none; padding-left: 1em; line-height: 1.4"'
    return f'<ul class="synflow-tasks" role="list" aria-live="polite" {style}>{items}</ul>'
