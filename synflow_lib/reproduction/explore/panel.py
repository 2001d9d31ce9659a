"""Controls above a picture: the one place that knows ipywidgets."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Frame:
    """A drawn picture: ``png`` bytes, its ``label`` on the slider, and ``words`` that tell it."""

    png: bytes
    label: str
    words: str


def png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes each time.

    >>> png(Figure(figsize=(1, 1)))[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    # Drawing takes its time; compressing hard would double it.
    figure.savefig(
        buffer,
        format="png",
        dpi=figure.dpi,
        metadata={"Software": None},
        pil_kwargs={"compress_level": 1},
    )
    return buffer.getvalue()


def image(frame: Frame) -> str:
    """HTML of a picture with its words as text alternative.

    >>> image(Frame(b"", "1", "two < three"))
    '<img alt="two &lt; three" style="max-width: 100%" src="data:image/png;base64,">'
    """
    data = base64.b64encode(frame.png).decode()
    alt = html.escape(frame.words)
    return f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def panel(
    choices: Mapping[str, tuple[Sequence, object]],
    frames: Callable[..., Sequence[Frame]],
    slider: str,
    start: Callable[[Sequence[Frame]], int] = lambda drawn: 0,
):
    """A drop-down for each choice, a slider over the frames, the picture and a line of words.

    Args:
        choices: name of the drop-down -> (its values, the one to begin with).
        frames: given a value for each choice, the pictures of the slider; called at each change
            of any control, so it should remember.
        slider: its description.
        start: the frame to begin with.

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
            "the explorers need ipywidgets: install it with `pip install ipywidgets` and restart"
            " the kernel; the functions that end in _picture work without it"
        ) from None

    wide = {"description_width": "90px"}
    controls: dict = {
        name: ipywidgets.Dropdown(
            options=list(values),
            value=value,
            description=name,
            style=wide,
            layout=ipywidgets.Layout(width="260px"),
        )
        for name, (values, value) in choices.items()
    }
    picture = ipywidgets.HTML()
    status = ipywidgets.HTML()

    def say(words: str) -> None:
        status.value = (
            f'<p class="synflow-status" role="status" aria-live="polite">{html.escape(words)}</p>'
        )

    def chosen() -> dict:
        return {name: controls[name].value for name in choices}

    drawn = frames(**chosen())
    stop = ipywidgets.SelectionSlider(
        options=_options(drawn),
        value=start(drawn),
        description=slider,
        continuous_update=False,
        style=wide,
        layout=ipywidgets.Layout(width="95%"),
    )

    def choose(_) -> None:
        say("Computing and drawing all stops of this choice ...")
        with errors:
            options = _options(frames(**chosen()))
            if options != list(stop.options):
                # Another network has other stops: stay at the same part of the way.
                share = stop.index / max(1, len(stop.options) - 1)
                stop.options = options
                stop.index = round(share * (len(options) - 1))

    errors = ipywidgets.Output()  # a traceback in a callback would otherwise only reach a log

    def show(_=None) -> None:
        errors.outputs = ()
        with errors:
            drawn = frames(**chosen())
            frame = drawn[min(stop.value, len(drawn) - 1)]
            picture.value = image(frame)
            say(frame.words)

    for control in controls.values():
        control.observe(choose, "value")
        control.observe(show, "value")
    stop.observe(show, "value")
    controls["stop"] = stop
    show()
    row = ipywidgets.HBox(
        [controls[name] for name in choices], layout=ipywidgets.Layout(flex_flow="row wrap")
    )
    box = ipywidgets.VBox([row, stop, status, picture, errors])
    box.controls, box.picture, box.status = controls, picture, status
    return box


def _options(drawn: Sequence[Frame]) -> list[tuple[str, int]]:
    return [(frame.label, number) for number, frame in enumerate(drawn)]
