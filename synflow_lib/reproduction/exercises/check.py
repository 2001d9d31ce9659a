"""What an exercise asks, as a check that tries an answer and says which mistake it saw.

A check holds a right answer and answers with known mistakes. All of them, and the student's, are
tried on the same few inputs; what they give is compared as plain numbers. Nothing is random: the
same answer is told the same sentence every time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn


class NotOfTheKind(Exception):
    """What an answer gives is not of the kind that was asked for; the message says what it is."""


@contextmanager
def _same_chances() -> Iterator[None]:
    """The same random numbers for every answer, and nobody else's generators moved."""
    before = np.random.get_state()  # noqa: NPY002 -- a student may use it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of one exercise; calling it with an answer says what it saw and never raises.

    Attributes:
        number: of the exercise.
        kind: what is expected, in words.
        cases: makes the inputs, tuples of arguments; torch's random numbers are the same each time.
        right: a right answer.
        mistakes: what to say -> an answer with that mistake.
        observe: (answer, *case) -> what the answer does there, as numbers, arrays, tuples and
            dicts; None for an answer that is still empty. `returns` makes those that look at what
            a function returns.
        rtol: how near numbers must come, relative to the right ones.
    """

    number: int
    kind: str
    cases: Callable[[], Iterable[tuple]]
    right: object
    mistakes: Mapping[str, object]
    observe: Callable
    rtol: float = 1e-5

    def __call__(self, answer: object) -> str:
        """`exercise N: solved`, `... not answered yet`, or `... not yet,` and the mistake."""
        return f"exercise {self.number}: {self._verdict(answer)}"

    def _verdict(self, answer: object) -> str:
        found = []
        for case in self._cases():
            try:
                found.append(self._observed(answer, case))
            except NotOfTheKind as unlike:
                return f"not yet, {unlike}; expected {self.kind}"
            except (Exception, SystemExit, GeneratorExit) as error:  # whatever students raise
                problem = f"{type(error).__name__}{_said(error)} on this input: "
                return f"not yet, your answer raises {problem}{self._input(len(found))}"
        if all(each is None for each in found):
            return f"not answered yet, nothing is returned or changed; expected {self.kind}"
        wanted = self._wanted
        if self._same(found, wanted):
            return "solved"
        for alike, more in ((self._same, ""), (self._partly, " (and something else differs)")):
            for words, seen in self._mistaken.items():
                if alike(found, seen):
                    return f"not yet, {words}{more}"
        first = next(i for i, each in enumerate(found) if not self._same(each, wanted[i]))
        what = _difference(found[first], wanted[first], self._same)
        return f"not yet, {what}, on this input: {self._input(first)}"

    def _input(self, number: int) -> str:
        """One of the inputs as it was given: the answer may have changed it."""
        return _shown(self._cases()[number])

    def _partly(self, found: list, seen: list) -> bool:
        """Whether all that a mistake changes in arrays by name or place is found, beside more."""
        changed = []
        for mine, wrong, right in zip(found, seen, self._wanted, strict=True):
            if not _places(mine) == _places(wrong) == _places(right):
                return False
            parts = ((mine[place], wrong[place], right[place]) for place in _places(right))
            changed += [self._same(m, w) for m, w, r in parts if not self._same(w, r)]
        return bool(changed) and all(changed)

    @_same_chances()
    def _cases(self) -> list[tuple]:
        """New copies of the inputs, since an answer may change them."""
        return list(self.cases())

    @_same_chances()
    def _observed(self, answer: object, case: tuple) -> object:
        return self.observe(answer, *case)

    @cached_property
    def _wanted(self) -> list:
        return self._all_observed(self.right)

    @cached_property
    def _mistaken(self) -> dict[str, list]:
        return {words: self._all_observed(wrong) for words, wrong in self.mistakes.items()}

    def _all_observed(self, answer: object) -> list:
        with np.errstate(all="ignore"):
            return [self._observed(answer, case) for case in self._cases()]

    def _same(self, found: object, wanted: object) -> bool:
        if found is None or wanted is None:
            return found is wanted
        if isinstance(wanted, dict):
            alike = found.keys() == wanted.keys()
            return alike and all(self._same(found[name], wanted[name]) for name in wanted)
        if isinstance(wanted, (list, tuple)):
            return len(found) == len(wanted) and all(map(self._same, found, wanted))
        found, wanted = np.asarray(found, float), np.asarray(wanted, float)
        near = 1e-9 + self.rtol * 1e-2 * np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
        return found.shape == wanted.shape and np.allclose(found, wanted, self.rtol, near, True)


def _difference(found: object, wanted: object, same: Callable) -> str:
    """What differs first, in words."""
    if found is None:
        return "nothing is returned"
    if isinstance(wanted, dict) and found.keys() != wanted.keys():
        return f"the names are {list(found)} where {list(wanted)} are right"
    if isinstance(wanted, tuple) and len(found) != len(wanted):
        return f"{len(found)} values where {len(wanted)} are right"
    for place in _places(wanted):
        if not same(found[place], wanted[place]):
            where = place if isinstance(wanted, dict) else f"value {place + 1} of {len(wanted)}"
            return f"{where}: {_difference(found[place], wanted[place], same)}"
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        return f"the shape {found.shape} where {wanted.shape} is right"
    if found.ndim:
        return "other values than expected"
    return f"{_shown(found.item())} where {_shown(wanted.item())} is right"


def _places(values: object) -> list:
    """The names in a dict, the places in a tuple; an array has none."""
    if isinstance(values, tuple):
        return list(range(len(values)))
    return list(values) if isinstance(values, dict) else []


def _said(error: BaseException) -> str:
    """What an error says, which the student may have written."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f": {text}".rstrip(".") if text else ""


def _shown(value: object) -> str:
    """A short description of an input."""
    if isinstance(value, (Tensor, np.ndarray)) or getattr(value, "ndim", 0):  # pandas' tables too
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return " ".join(str(value).split())[:200]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_shown, value[:6])) + (", ..." if len(value) > 6 else "")
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


# --------------------------------------------------------------------- reading what is returned


def returns(
    read: Callable[[object], object], tell: Callable[..., object] = lambda found, *case: found
) -> Callable:
    """An `observe` that reads what a function returns.

    Args:
        read: a value -> plain numbers; raises NotOfTheKind for a value of another kind.
        tell: (what was read, *case) -> what counts of it; the case is as before the call.

    >>> returns(number)(lambda x: x + 1, np.float32(2))
    array(3.)
    """

    def observe(answer: object, *case: object) -> object:
        before = copy.deepcopy(case)
        value = called(answer, *case)
        return None if value is None else tell(read(value), *before)

    return observe


def called(answer: object, *case: object) -> object:
    """What a function returns; None where there is none yet."""
    if answer is not None and not callable(answer):
        raise NotOfTheKind(f"this is {_named(answer)}, no function")
    return None if answer is None else answer(*case)


def number(value: object, kinds: str = "iuf") -> np.ndarray:
    """One number, of Python, numpy or torch."""
    found = _array(value, kinds)
    if found.size != 1:
        raise NotOfTheKind(f"it returns {_named(value)}")
    return found.reshape(())


def whole(value: object) -> np.ndarray:
    """One whole number; 5.0 is one."""
    found = number(value)
    if found != np.round(found) or not np.isfinite(found):
        raise NotOfTheKind(f"{float(found):.6g} is no whole number")
    return found


def truth(value: object) -> np.ndarray:
    """True or False, of Python, numpy or torch; 1 and 0 are as good."""
    found = number(value, "biuf")
    if found not in (0, 1):
        raise NotOfTheKind(f"it returns {_named(value)}")
    return found == 1


def numbers(value: object) -> np.ndarray:
    """Numbers in a list, tuple, array, Series or tensor, in their shape."""
    found = _array(value, "iuf")
    if not found.ndim:
        raise NotOfTheKind("it returns one number")
    return found


def switches(value: object) -> np.ndarray:
    """A mask: booleans in a list, array or tensor, in their shape."""
    found = _array(value, "b")
    if not found.ndim:
        raise NotOfTheKind("it returns one truth value")
    return found


def several(read: Callable, count: int | None = None) -> Callable[[object], tuple]:
    """A tuple or list (an array: its rows), of `count` values that `read` reads."""

    def read_all(value: object) -> tuple:
        if not isinstance(value, (list, tuple)) and not getattr(value, "ndim", 0):
            raise NotOfTheKind(f"it returns {_named(value)}")
        if count is not None and len(value) != count:
            raise NotOfTheKind(f"it returns {len(value)} values")
        return tuple(map(read, value))

    return read_all


def by_name(read: Callable) -> Callable[[object], dict]:
    """A dict, Series or scores, of values that `read` reads."""

    def read_all(value: object) -> dict:
        if not hasattr(value, "items"):
            raise NotOfTheKind(f"it returns {_named(value)}")
        found = {}
        for name, each in value.items():
            try:
                found[name] = read(each)
            except NotOfTheKind as unlike:
                raise NotOfTheKind(f"under {name!r}, {unlike}") from None
        return found

    return read_all


def like(found: dict[str, np.ndarray], given: Mapping[str, Tensor], what: str) -> None:
    """Refuses scores by name unless they are finite, with the names and shapes of what is given."""
    if found.keys() != given.keys():
        raise NotOfTheKind(f"the names are {list(found)}")
    if any(found[name].shape != tuple(each.shape) for name, each in given.items()):
        raise NotOfTheKind(f"scores have another shape than {what}")
    if not all(np.isfinite(each).all() for each in found.values()):
        raise NotOfTheKind("some scores are not finite")


def _array(value: object, kinds: str) -> np.ndarray:
    if isinstance(value, (list, tuple)):
        parts = [_array(each, kinds) for each in value]
        if len({part.shape for part in parts}) > 1:
            raise NotOfTheKind(f"it returns {_named(value)} of parts of different shapes")
        return np.array(parts)
    plain = value
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        plain = (plain.double() if plain.is_floating_point() else plain).numpy()
    found = np.asarray(plain)
    if found.dtype.kind not in kinds:
        raise NotOfTheKind(f"it returns {_named(value)}")
    # A copy: the answer may give the same array again, with other values.
    return found.astype(bool if found.dtype == bool else float)


def _named(value: object) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"a {type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
