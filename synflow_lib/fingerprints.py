"""What a run depends on beside its names: fingerprints of code and of networks.

A `Run` calls its method, network and data set by name. A name may stand for other code tomorrow;
the fingerprint in a record tells whether its numbers still belong to what the name stands for.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import math
import sys
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor, nn

PARTS = {
    "version": "this library",
    "data": "the data set",
    "network": "the network",
    "method": "the method",
}
"""What a run depends on beside its names, in words."""

_PYTHON = "{}.{}".format(*sys.version_info)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_BY_TEXT = (*_PLAIN, range, slice, PurePath, torch.dtype, torch.device)
_CALLED = (
    type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType,
    types.WrapperDescriptorType,
)  # fmt: skip


def of_code(thing: object) -> dict[str, str | None]:
    """A fingerprint of a function, class or callable object, with all of the user's code behind it.

    Closures, defaults, and the functions, classes and plain values that it reaches by global names
    count; what is installed (this library, torch, ...) counts by its name only.

    Returns:
        python (version), bytecode and source: bytecode is what runs, but differs between versions
        of Python; there `same` compares sources. None where there is no source.

    >>> double, triple = (lambda x: 2 * x), (lambda x: 3 * x)
    >>> of_code(double) == of_code(double), of_code(double) == of_code(triple)
    (True, False)
    """
    found = {"python": _PYTHON}
    for kind in ("bytecode", "source"):
        try:
            found[kind] = _Digest(kind).of(thing)
        except Exception:  # no source, or objects that cannot be looked into
            found[kind] = None
    return found


def of_network(net: nn.Module) -> dict[str, object]:
    """A fingerprint of a network at initialization.

    Returns:
        layers: digest of the modules, of their settings, of the user's code in them, and of the
        shapes of all parameters and buffers. weights: one number, the sum of all absolute values
        with weights that depend on their place; machines differ in its last digits.

    >>> of_network(nn.Linear(2, 3))["layers"] == of_network(nn.Linear(2, 3))["layers"]
    True
    """
    digest, classes = hashlib.sha256(), {}
    for name, module in net.named_modules():
        settings = sorted(
            (key, value)
            for key, value in vars(module).items()
            if not key.startswith("_") and key != "training" and _plain(value)
        )
        digest.update(repr((name, type(module).__qualname__, settings)).encode())
        classes[type(module)] = None
    total, entries = 0.0, net.state_dict()
    for name, value in entries.items():
        digest.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
        numbers = value.detach().cpu().double().abs().flatten()
        places = torch.linspace(1, 2, max(numbers.numel(), 1), dtype=torch.float64)
        total += float(numbers @ places[: numbers.numel()])
    code = {kind.__qualname__: of_code(kind) for kind in classes if not _installed(kind)}
    return {"layers": digest.hexdigest()[:16], "weights": total, "code": code}


def same(a: object, b: object) -> bool:
    """Whether two fingerprints speak of the same; numbers up to rounding.

    >>> same({"weights": 1.0}, {"weights": 1.0 + 1e-9}), same({"layers": "a"}, {"layers": "b"})
    (True, False)
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if "bytecode" in a and "bytecode" in b:
            if a.get("python") == b.get("python"):
                return a["bytecode"] == b["bytecode"]
            return a.get("source") is not None and a.get("source") == b.get("source")
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isclose(a, b, rel_tol=1e-6) or (math.isnan(a) and math.isnan(b))
    return a == b


def changes(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Which of `PARTS` differ; what one of the two does not know (None) counts as equal.

    >>> changes({"version": 1, "data": "a"}, {"version": 2, "data": "a", "network": None})
    ['version']
    """
    return [
        part
        for part in PARTS
        if None not in (old.get(part), new.get(part)) and not same(old[part], new[part])
    ]


def _plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return isinstance(value, _PLAIN)


def _installed(thing: object) -> bool:
    """Whether it is found by its name in an installed module, whose code is not the user's."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "builtins")
    found = module
    for part in (getattr(thing, "__qualname__", None) or "?").split("."):
        found = getattr(found, part, None)
    if found is not thing:  # such as a class that an installed function made of the user's code
        return not isinstance(thing, (type, types.FunctionType))
    package = module.__name__.partition(".")[0]
    if package == "__main__":
        return False
    file = Path(getattr(module, "__file__", None) or "")
    places = {"site-packages", "dist-packages"}
    return package in (*sys.stdlib_module_names, "synflow_lib") or bool(places & {*file.parts})


class _Digest:
    """A walk through code and the values it uses; ``kind`` is "bytecode" or "source"."""

    def __init__(self, kind: str) -> None:
        self.kind, self.seen, self.kept = kind, {}, []

    def of(self, thing: object) -> str:
        return hashlib.sha256(repr(self.describe(thing)).encode()).hexdigest()[:16]

    def describe(self, thing: object) -> object:
        if isinstance(thing, _BY_TEXT):
            return type(thing).__name__, repr(thing)
        if id(thing) in self.seen:  # a circle, or something used twice
            return "seen", self.seen[id(thing)]
        self.seen[id(thing)] = len(self.seen)
        self.kept.append(thing)  # so that no other object gets its id
        if isinstance(thing, (tuple, list)):
            return type(thing).__name__, [self.describe(each) for each in thing]
        if isinstance(thing, (set, frozenset)):  # their order changes from process to process
            return "set", sorted(repr(each) for each in thing)
        if isinstance(thing, Mapping):
            return "mapping", [(repr(key), self.describe(value)) for key, value in thing.items()]
        if isinstance(thing, (Tensor, np.ndarray, np.generic)):
            array = thing.detach().cpu().numpy() if isinstance(thing, Tensor) else np.asarray(thing)
            content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            return "array", array.shape, str(array.dtype), content
        if isinstance(thing, types.ModuleType):
            return "module", thing.__name__
        if isinstance(thing, functools.partial):
            return "partial", [self.describe(e) for e in (thing.func, thing.args, thing.keywords)]
        if isinstance(thing, (staticmethod, classmethod, types.MethodType)):
            owner = getattr(thing, "__self__", None)
            return "method", self.describe(owner), self.describe(thing.__func__)
        if isinstance(thing, property):
            return "property", [self.describe(e) for e in (thing.fget, thing.fset) if e]
        if isinstance(thing, _CALLED):
            if _installed(thing):
                return "installed", getattr(thing, "__module__", None), thing.__qualname__
            return self.of_class(thing) if isinstance(thing, type) else self.of_function(thing)
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        state = {name: getattr(thing, name, None) for name in slots if name != "__dict__"}
        state |= getattr(thing, "__dict__", {})
        name = getattr(thing, "__name__", None)  # such as numpy's functions
        return "object", self.describe(type(thing)), name, self.describe(state)

    def of_class(self, thing: type) -> object:
        own = [
            (name, self.describe(value))
            for name, value in sorted(vars(thing).items())
            if not (name.startswith("__") and not callable(value)) and not name.startswith("_abc")
        ]
        return "class", thing.__qualname__, [self.describe(base) for base in thing.__bases__], own

    def of_function(self, thing: types.FunctionType) -> object:
        code = thing.__code__
        text = _source(thing) if self.kind == "source" else _bytecode(code)
        cells = zip(code.co_freevars, thing.__closure__ or (), strict=True)
        closure = [(name, self.describe(_content(cell))) for name, cell in cells]
        names = sorted(_global_names(code) & thing.__globals__.keys())
        reached = [(name, self.describe(thing.__globals__[name])) for name in names]
        defaults = self.describe((thing.__defaults__, thing.__kwdefaults__))
        return "function", text, closure, defaults, reached


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _global_names(code: types.CodeType) -> set[str]:
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*map(_global_names, inner))


def _bytecode(code: types.CodeType) -> object:
    """What runs, without file names and line numbers."""
    constants = [
        _bytecode(each)
        if isinstance(each, types.CodeType)
        else sorted(map(repr, each))
        if isinstance(each, frozenset)
        else repr(each)
        for each in code.co_consts
    ]
    return code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars


def _source(thing: types.FunctionType) -> str:
    """Its text; without comments and layout, where it can be parsed by itself."""
    text = textwrap.dedent(inspect.getsource(thing))
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:  # a lambda in the middle of a call
        return text
