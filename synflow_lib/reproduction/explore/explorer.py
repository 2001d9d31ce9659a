"""What all explorers share: drawn frames, the controls above them, and players without a kernel."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from PIL import Image

from ..figures.style import theme

if TYPE_CHECKING:
    from IPython.display import HTML

_COLORS = 16  # of a player's frame: four bits a pixel make small files
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


@dataclass(frozen=True)
class Frame:
    """A drawn picture: ``png`` bytes, its ``label`` on the slider, and ``words`` that tell it."""

    png: bytes
    label: str
    words: str


def choose(what: str, value: object, choices: Sequence) -> None:
    """Raises a ValueError that lists the choices, unless ``value`` is one of them.

    >>> choose("method", "sinp", ("snip", "synflow"))
    Traceback (most recent call last):
    ...
    ValueError: method='sinp'; expected one of 'snip', 'synflow'
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{what}={value!r}; expected one of {', '.join(map(repr, choices))}")


class Explorer:
    """Pictures that follow a slider, and the drop-downs that choose which pictures.

    Args:
        slider: what the slider moves along.
        choices: name of a drop-down -> its values.
        labels: given a value for each choice, the slider's labels, one a stop.
        show: given a stop (a number, from 0) and a value for each choice, the picture of the stop
            and its words.
        start: where the slider begins, as a share of its way.
    """

    def __init__(
        self,
        slider: str,
        choices: Mapping[str, Sequence],
        labels: Callable[..., Sequence[str]],
        show: Callable[..., tuple[Figure, str]],
        start: float = 0.0,
    ):
        self.slider, self.choices, self.start = slider, choices, start
        self.labels, self.show = labels, show
        # All pictures of a choice are drawn at once, so that the slider only picks one.
        self.frames = functools.lru_cache(maxsize=32)(self._frames)

    def _frames(self, **chosen) -> list[Frame]:
        frames = []
        for stop, label in enumerate(self.labels(**chosen)):
            figure, words = self.show(stop, **chosen)
            frames.append(Frame(png(figure), label, words))
        return frames

    def widget(self, **chosen):
        """A drop-down for each choice, the slider, the picture and a line of words.

        ``chosen`` are the values to begin with.

        Returns:
            A ``VBox`` with the attributes ``controls`` (name -> widget, the slider as "stop"),
            ``picture`` and ``status``.

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
            name: ipywidgets.Dropdown(
                options=list(values),
                value=chosen[name],
                description=name,
                style=wide,
                layout=ipywidgets.Layout(width="260px"),
            )
            for name, values in self.choices.items()
        }
        first = self.frames(**chosen)
        slider = ipywidgets.SelectionSlider(
            options=_options(first),
            value=int(self.start * len(first)),
            description=self.slider,
            continuous_update=False,
            style=wide,
            layout=ipywidgets.Layout(width="95%"),
        )
        picture, status = ipywidgets.HTML(), ipywidgets.HTML()
        errors = ipywidgets.Output()  # a traceback in a callback would otherwise only reach a log

        def say(words: str) -> None:
            attributes = 'class="synflow-status" role="status" aria-live="polite"'
            status.value = f"<p {attributes}>{html.escape(words)}</p>"

        def frames() -> list[Frame]:
            return self.frames(**{name: controls[name].value for name in self.choices})

        def choice_changed(_) -> None:
            say("Computing and drawing all stops of this choice ...")
            with errors:
                options = _options(frames())
                if options != list(slider.options):
                    # Another network has other stops: stay at the same part of the way.
                    share = slider.index / max(1, len(slider.options) - 1)
                    slider.options = options
                    slider.index = round(share * (len(options) - 1))

        def update(_=None) -> None:
            errors.outputs = ()
            with errors:
                drawn = frames()
                frame = drawn[min(slider.value, len(drawn) - 1)]
                picture.value = image(frame)
                say(frame.words)

        for control in controls.values():
            control.observe(choice_changed, "value")
            control.observe(update, "value")
        slider.observe(update, "value")
        update()
        row = ipywidgets.HBox(
            list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap")
        )
        box = ipywidgets.VBox([row, slider, status, picture, errors])
        box.controls, box.picture, box.status = controls | {"stop": slider}, picture, status
        return box

    def animation(self, stops: Iterable[int], per_second: int, alt: str, **chosen) -> HTML:
        """The pictures of these stops, ``per_second``, as a player in HTML that needs no kernel."""
        from IPython.display import HTML

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
    # Drawing takes its time; compressing hard would double it.
    fast = {"compress_level": 1}
    figure.savefig(
        buffer, format="png", dpi=figure.dpi, metadata={"Software": None}, pil_kwargs=fast
    )
    return buffer.getvalue()


def image(frame: Frame) -> str:
    """HTML of a picture with its words as text alternative.

    >>> image(Frame(b"", "1", "two < three"))
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


def _options(frames: Sequence[Frame]) -> list[tuple[str, int]]:
    return [(frame.label, number) for number, frame in enumerate(frames)]
