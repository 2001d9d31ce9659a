"""Predict, then run: what a student expects, kept beside what a later cell measures.

`Number`, `Choice` and `Curve` ask. In a notebook with a kernel they show a slider, a list or
several sliders; anywhere else the answer is written as ``mine=...``. No answer, None, is always
allowed, so that notebooks run unattended. `compare` sets what was written by hand beside what the
library gives.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence, Set

import numpy as np
import torch

from ..values import is_bool, real

_HOW = "Move the control that a running kernel shows below, or write mine=... above."


def _real(value: object, name: str) -> float:
    """A number of Python, numpy or torch, also one in an array of one element."""
    if not is_bool(value) and hasattr(value, "item") and torch.as_tensor(value).numel() == 1:
        value = value.item()
    return real(value, name)


def written(value: float | str) -> str:
    """A number as people write it; a text as it is.

    >>> written(3.1623), written(3162.3)
    ('3.16', '3,162')
    """
    return value if isinstance(value, str) else f"{value:{',.0f' if abs(value) >= 100 else '.3g'}}"


class Guess:
    """A question and its answer so far, ``value``; None until one is given.

    Each kind says how an answer is ``checked`` and ``told``, how far it lies ``apart`` from a
    measured one, and how controls are made (``build``) and ``read``.
    """

    def __init__(self, question: str, span: str, mine: object) -> None:
        self.question, self.span, self.value = question, span, mine

    @property
    def value(self) -> object:
        """The answer; setting it refuses what is none."""
        return self._value

    @value.setter
    def value(self, value: object) -> None:
        self._value = None if value is None else self.checked(value)

    def beside(self, measured: object) -> str:
        """The guess, the measured value and how far they are apart, as text to print."""
        measured = self.checked(measured, "measured")
        if self.value is None:
            return f"{self.question}\n  measured: {self.told(measured)} (no guess was made)"
        return (
            f"{self.question}\n  your guess: {self.told(self.value)}\n"
            f"  measured:   {self.told(measured)}\n  apart:      {self.apart(measured)}"
        )

    def widget(self):
        """The controls and a line of text, a ``VBox`` with the attribute ``controls``."""
        import ipywidgets

        controls, status = self.build(ipywidgets), ipywidgets.HTML()

        def say() -> None:
            told = "no guess yet" if self.value is None else f"your guess: {self.told(self.value)}"
            status.value = f'<p role="status" aria-live="polite">{html.escape(told)}</p>'

        def changed(_) -> None:
            self.value = self.read(controls)
            say()

        for control in controls:
            control.observe(changed, "value")
        say()
        row = ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"})
        box = ipywidgets.VBox([row, status])
        box.controls = controls
        return box

    def __repr__(self) -> str:
        state = _HOW if self.value is None else f"Your guess: {self.told(self.value)}"
        return f"Predict: {self.question} ({self.span})\n{state}"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        print(self)  # this is kept where there is no kernel
        try:
            controls = self.widget()
        except ImportError:  # without ipywidgets there is mine=...
            return
        display(controls)


class Number(Guess):
    """Asks for a number.

    Args:
        question: in words.
        low, high: the range of answers; what is measured may lie outside.
        unit: such as "percent".
        log: a logarithmic slider, and distances as factors.
        step: of the slider, such as 1 where something is counted; None is a hundredth of its way.
        mine: the answer, of Python, numpy or torch; None where the slider asks.

    Raises:
        ValueError: ``mine`` is no such number, or there is none from ``low`` to ``high``.

    >>> guess = Number("How much of the first layer stays?", 0, 100, "percent", mine=50)
    >>> print(guess.beside(80.5))
    How much of the first layer stays?
      your guess: 50 percent
      measured:   80.5 percent
      apart:      30.5 percent
    """

    def __init__(self, question, low, high, unit="", *, log=False, step=None, mine=None):
        if not _real(low, "low") < _real(high, "high") or (log and low <= 0):
            above = ", and low above 0 for a logarithmic slider" if log else ""
            raise ValueError(f"low={low!r}, high={high!r}; expected low below high{above}")
        self.low, self.high, self.unit, self.log, self.step = low, high, unit, log, step
        super().__init__(question, self.told(low).split()[0] + f" to {self.told(high)}", mine)

    def checked(self, value, name="mine"):
        value = _real(value, name)
        if name == "mine" and not self.low <= value <= self.high:
            raise ValueError(f"mine={value:g}; expected a number, {self.span}, or None")
        return value

    def told(self, value):
        return f"{written(value)} {self.unit}".strip()

    def apart(self, measured, value=None):
        value = self.value if value is None else value
        if self.log and measured > 0:
            return f"a factor of {max(value / measured, measured / value):.3g}"
        return self.told(abs(value - measured))

    def build(self, w, **look):
        kind, low, high = w.FloatSlider, self.low, self.high
        value = low if self.value is None else self.value
        if self.log:
            kind, low, high = w.FloatLogSlider, *torch.tensor([low, high]).double().log10().tolist()
        look = {"description": "guess", "value": value, "layout": {"width": "95%"}} | look
        return [kind(min=low, max=high, step=self.step or (high - low) / 100, readout_format=".3g",
                     style={"description_width": "initial"}, continuous_update=False,
                     **look)]  # fmt: skip

    def read(self, controls):
        return min(max(controls[0].value, self.low), self.high)  # 10 ** log10 is off by an ulp

    def draw(self, ax, axis: str = "x") -> None:
        """A line across ``ax`` at the guess, if there is one, which lies on this ``axis``."""
        if self.value is not None:
            line = ax.axvline if axis == "x" else ax.axhline
            line(self.value, color="black", linestyle=":", linewidth=2)
            at = (self.value, 0.5) if axis == "x" else (0.5, self.value)
            where = ax.get_xaxis_transform() if axis == "x" else ax.get_yaxis_transform()
            ax.text(*at, " your guess", transform=where, rotation=90 if axis == "x" else 0)


class Choice(Guess):
    """Asks for one of ``options``, which are shown as text.

    >>> print(Choice("Which layer is empty first?", ["first", "last"]).beside("first"))
    Which layer is empty first?
      measured: first (no guess was made)
    """

    def __init__(self, question, options: Sequence, *, mine=None):
        self.options = tuple(map(str, options))
        super().__init__(question, "; ".join(self.options), mine)

    def checked(self, value, name="mine"):
        if str(value) not in self.options:
            raise ValueError(f"{name}={value!r}; expected one of: {self.span}")
        return str(value)

    def told(self, value):
        return value

    def apart(self, measured):
        return "not at all" if self.value == measured else "you chose another one"

    def build(self, w):
        options = [("choose", None), *((option, option) for option in self.options)]
        return [w.Dropdown(options=options, value=self.value, description="guess",
                           style={"description_width": "initial"},
                           layout={"width": "95%"})]  # fmt: skip

    def read(self, controls):
        return controls[0].value


class Curve(Guess):
    """Asks for a number at each place ``x``, the sketch of a curve; the rest is as in `Number`.

    >>> Curve("How accurate?", [10, 100], 0, 100, "percent", mine=[90, 20])
    Predict: How accurate? (0 to 100 percent each, at 10, 100)
    Your guess: 90 (at 10), 20 (at 100)
    """

    def __init__(
        self, question, x: Sequence, low, high, unit="", *, log=False, step=None, mine=None
    ):
        self.x, self.one = tuple(x), Number(question, low, high, unit, log=log, step=step)
        span = f"{self.one.span} each, at {', '.join(map(written, self.x))}"
        super().__init__(question, span, mine)

    def checked(self, value, name="mine"):
        by_place = value.to_dict() if hasattr(value, "to_dict") else value  # of a Series
        if isinstance(by_place, Mapping) and set(by_place) == set(self.x):
            value = [by_place[place] for place in self.x]
        unfit = isinstance(value, (str, Mapping, Set)) or not hasattr(value, "__len__")
        values = [] if unfit else [*value]
        if len(values) != len(self.x):
            raise ValueError(f"{name}={value!r}; expected {len(self.x)} numbers, {self.span}")
        return [self.one.checked(each, name) for each in values]

    def told(self, value):
        pairs = zip(self.x, value, strict=True)
        return ", ".join(
            f"{written(each)} ({x if isinstance(x, str) else f'at {written(x)}'})"
            for x, each in pairs
        )

    def apart(self, measured):
        pairs = zip(measured, self.value, strict=True)
        return "; ".join(self.one.apart(each, value) for each, value in pairs)

    def build(self, w):
        one, look = self.one, {"orientation": "vertical", "layout": {"height": "180px"}}
        middle = (one.low * one.high) ** 0.5 if one.log else (one.low + one.high) / 2
        values = [middle] * len(self.x) if self.value is None else self.value
        pairs = zip(self.x, values, strict=True)
        return [one.build(w, description=written(x), value=y, **look)[0] for x, y in pairs]

    def read(self, controls):
        return [self.one.read([control]) for control in controls]

    def draw(self, ax) -> None:
        """The curve that was guessed, if one was, over numbers ``x``."""
        if self.value is not None:
            ax.plot(self.x, self.value, ":o", color="black", linewidth=2)
            ax.annotate(
                "your guess", (self.x[0], self.value[0]), (0, 6), textcoords="offset points",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=5,
            )  # fmt: skip


def _tensor(value: object) -> torch.Tensor:
    """Raises a TypeError that shows what is no number, such as the None of a missing return."""
    try:
        value = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{value!r} cannot be compared; expected numbers or a tensor") from None
    value = value.detach().cpu()
    # Whole numbers stay what they are: beyond 2 ** 53 doubles are too few.
    if value.is_complex():
        return value
    return value.double() if value.is_floating_point() else value.long()


def compare(name: str, mine: object, library: object) -> None:
    """Prints whether both are equal to the last bit, nearly equal, and their largest difference.

    Args:
        name: what is compared.
        mine, library: numbers, tensors, or mappings of names to tensors, as masks and scores are.

    Raises:
        TypeError: what holds no numbers.

    >>> compare("scores", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    scores: exact False, approximate False, largest difference 0.5
    """
    both = []
    for each in (mine, library):
        each = each if isinstance(each, Mapping) else {"": each}
        both.append({key: _tensor(value) for key, value in each.items()})
    here, there = ({key: tuple(t.shape) for key, t in each.items()} for each in both)
    if here != there:
        print(f"{name}: cannot be compared, shapes {here} here and {there} in the library")
        return
    pairs = [(both[0][key], both[1][key]) for key in there]
    exact = all(bool((a == b).all()) for a, b in pairs)
    wide = torch.complex128 if any(t.is_complex() for pair in pairs for t in pair) else torch.double
    pairs = [(a.to(wide), b.to(wide)) for a, b in pairs]
    sizes = [float(b.abs().max()) if b.numel() else 0.0 for _, b in pairs]
    rooms = [1e-8 * (size if 0 < size < 1 else 1.0) for size in sizes]  # scores may be small
    close = all(torch.allclose(a, b, 1e-5, r) for (a, b), r in zip(pairs, rooms, strict=True))
    apart = (torch.where(a == b, 0.0, (a - b).abs()) for a, b in pairs if a.numel())  # inf is inf
    largest = max((float(each.max()) for each in apart), default=0.0)
    print(f"{name}: exact {exact}, approximate {close}, largest difference {largest:.3g}")
