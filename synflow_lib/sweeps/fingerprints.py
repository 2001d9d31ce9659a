"""What a run depends on beside its names: fingerprints of code and of networks.

A `Run` calls its method, network and data set by name. A name may stand for other code tomorrow;
the fingerprint in a record tells whether its numbers still belong to what the name stands for.
"""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import inspect
import math
import random
import sys
import textwrap
import threading
import types
from ast import parse, unparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..graphs.copies import names_in_code
from ..graphs.network import first_weight
from ..graphs.workspace import isolated, working_copy
from ..training.checkpoints import agree, sketch

PARTS = {  # what a run depends on beside its names, in words
    "version": "this library",
    "data": "the data set",
    "network": "the network",
    "method": "the method",
}

_RULE = 2  # of `_Walk`: digests by another rule cannot be compared; raise it with what is hashed
_PYTHON = "{}.{}".format(*sys.version_info)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_CALLED = (
    type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType,
    types.WrapperDescriptorType,
)  # fmt: skip
_RUNNING = (  # where these stand says nothing about the code
    random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState,
    torch.Generator, threading.Thread,
)  # fmt: skip
_WRAPPED = ("__wrapped__", "__func__", "__self__", "fget", "fset")  # by caches, methods, properties


def of_code(thing: object, *, content: bool = True) -> dict[str, object]:
    """A fingerprint of a function, class or callable object, with all of the user's code behind it.

    The rule: text, constants, defaults, closures, and what is reached by global names (functions,
    classes, values) count. What is installed (this library, torch, ...) counts by its name only;
    global and nonlocal names that a function assigns itself, locks, files and random number
    generators do not count. A memo or a counter in a dict, a list or an object does count: fill it,
    and the fingerprint changes until the process ends.

    Args:
        thing: what is called.
        content: whether tensors and arrays count by their numbers, or only by shape and type.

    Returns:
        rule and python (versions), bytecode and source: digests. Bytecode is what runs, but differs
        between versions of Python; there `same` compares sources. None where there is no source.
        left_out: the types of objects that nothing is known of, such as locks.

    >>> double, triple = (lambda x: 2 * x), (lambda x: 3 * x)
    >>> of_code(double) == of_code(double), of_code(double) == of_code(triple)
    (True, False)
    """
    found: dict[str, object] = {"rule": _RULE, "python": _PYTHON}
    for kind, text_of in (("bytecode", lambda function: function.__code__), ("source", _source)):
        walk = _Walk(text_of, content)
        try:
            found[kind] = hashlib.sha256(repr(walk.describe(thing)).encode()).hexdigest()[:16]
        except Exception:  # no source, or an object that cannot be looked into
            found[kind] = None
    return found | {"left_out": sorted(walk.left_out)}


def of_network(net: nn.Module, input_shape: tuple[int, ...] | None = None) -> dict[str, object]:
    """A fingerprint of a network at initialization; nothing of the network changes.

    Args:
        net: the network.
        input_shape: of one image; None leaves the outputs out.

    Returns:
        layers: digest of the modules, of their settings, of the user's code in them, and of the
        shapes of all parameters and buffers. weights: one number, the sum of all absolute values
        with weights that depend on their place; machines differ in its last digits. code: of each
        class of the user's. attributes: of settings that are functions, lists, dicts, tensors, ...
        outputs: a `checkpoints.sketch` of what the network says of two fixed images in evaluation
        mode, for all that is written nowhere else; not there if it cannot run on them.

    >>> of_network(nn.Linear(2, 3))["layers"] == of_network(nn.Linear(2, 3))["layers"]
    True
    """
    digest, total = hashlib.sha256(), 0.0
    classes, others = {}, {}
    for name, module in net.named_modules():
        own = {k: v for k, v in vars(module).items() if k != "training" and not k.startswith("_")}
        settings = sorted((key, value) for key, value in own.items() if _plain(value))
        others |= {(name, key): value for key, value in own.items() if not _plain(value)}
        digest.update(repr((name, type(module).__qualname__, settings)).encode())
        classes[type(module).__qualname__] = type(module)
    for name, value in net.state_dict().items():
        digest.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
        numbers = value.detach().cpu().double().abs().flatten()
        places = torch.linspace(1, 2, len(numbers) or 1, dtype=torch.float64, device="cpu")
        total += float(numbers @ places[: numbers.numel()])
    found = {
        "layers": digest.hexdigest()[:16],
        "weights": total,
        "code": {name: of_code(kind) for name, kind in classes.items() if not _installed(kind)},
        # Tensors show in the outputs: another processor draws them with other last digits.
        "attributes": of_code(others, content=False),
    }
    if input_shape is not None:
        images = np.random.default_rng(0).uniform(-2, 2, (2, *input_shape))
        with contextlib.suppress(Exception):  # the run itself will say what is wrong
            copy = working_copy(net).cpu().eval()
            with isolated(torch.device("cpu"), seed=0):
                logits = copy(torch.from_numpy(images).to(first_weight(copy).dtype)).detach()
            found["outputs"] = sketch({"logits": logits})
    return found


def same(a: object, b: object) -> bool:
    """Whether two fingerprints speak of the same; numbers up to rounding.

    What only one of the two knows, such as a record of an older version, does not count.

    >>> same({"weights": 1.0}, {"weights": 1.0 + 1e-9}), same({"layers": "a"}, {"layers": "b"})
    (True, False)
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if "bytecode" in a and "bytecode" in b:
            if a.get("rule") != b.get("rule"):  # of an older version: nobody knows
                return True
            if a.get("python") == b.get("python"):
                return a["bytecode"] == b["bytecode"]
            return a.get("source") is not None and a.get("source") == b.get("source")
        return all(
            agree(a[key], b[key]) if key == "outputs" else same(a[key], b[key])
            for key in a.keys() & b.keys()
        )
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
    return all(map(_plain, value)) if isinstance(value, tuple) else isinstance(value, _PLAIN)


def _installed(thing: object) -> bool:
    """Whether it is found by its name in an installed module, whose code is not the user's."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "builtins")
    found = module
    for part in (getattr(thing, "__qualname__", None) or "?").split("."):
        found = getattr(found, part, None)
    if found is not thing:  # such as a class that an installed function made of the user's code
        return not isinstance(thing, (type, types.FunctionType))
    return _installed_module(module)


def _installed_module(module: types.ModuleType | None) -> bool:
    package = getattr(module, "__name__", "__main__").partition(".")[0]
    if package == "__main__":
        return False
    file = Path(getattr(module, "__file__", None) or "")
    places = {"site-packages", "dist-packages"}
    return package in (*sys.stdlib_module_names, "synflow_lib") or bool(places & {*file.parts})


class _Walk:
    """A walk through code and the values it uses, told as nested tuples of texts."""

    def __init__(self, text_of: Callable[[types.FunctionType], object], content: bool) -> None:
        self.text_of, self.content = text_of, content  # of a function; as in `of_code`
        self.seen: dict[int, int] = {}  # id -> number, in the order of the walk
        self.kept: list[object] = []  # so that no other object gets the id of one that was seen
        self.left_out: set[str] = set()

    def describe(self, thing: object) -> object:
        kind = type(thing)
        if kind in _PLAIN:
            return kind.__name__, repr(thing)
        if kind is types.CodeType:  # what runs, without file names and line numbers
            names = thing.co_names, thing.co_varnames, thing.co_freevars
            return thing.co_code.hex(), self.describe(thing.co_consts), names
        if kind is tuple:  # equal constants may be one object or several, so it is never "seen"
            return "tuple", [self.describe(each) for each in thing]
        if kind is frozenset:
            return "frozenset", self.in_order(thing)
        if id(thing) in self.seen:  # a circle, or something used twice
            return "seen", self.seen[id(thing)]
        self.seen[id(thing)] = len(self.seen)
        self.kept.append(thing)
        if isinstance(thing, types.ModuleType):
            return "module", thing.__name__
        if isinstance(thing, _CALLED):
            if _installed(thing):
                return "installed", getattr(thing, "__module__", None), thing.__qualname__
            return self.of_class(thing) if isinstance(thing, type) else self.of_function(thing)
        return "object", self.describe(kind), self.of_state(thing)

    def in_order(self, things: Iterable) -> list:
        """Of a set, whose order depends on the seed of hashes."""
        before, found = dict(self.seen), []
        for thing in things:
            self.seen = dict(before)
            found.append(self.describe(thing))
        self.seen = before
        return sorted(found, key=repr)

    def of_function(self, thing: types.FunctionType) -> object:
        code, names = thing.__code__, thing.__globals__
        assigned = names_in_code(code, "STORE_DEREF")
        closure = [
            (name, self.describe(cell.cell_contents))
            for name, cell in zip(code.co_freevars, thing.__closure__ or (), strict=True)
            if name not in assigned
        ]
        inside = closure, self.describe((thing.__defaults__, thing.__kwdefaults__))
        home = sys.modules.get(names.get("__name__"))
        if home and vars(home) is names and _installed_module(home):
            return "function", code.co_name, inside  # a decorator around the user's code
        reached = [(name, self.describe(each)) for name, each in _reached(code, names)]
        return "function", self.describe(self.text_of(thing)), inside, reached

    def of_class(self, thing: type) -> object:
        own = [
            (name, self.describe(value))
            for name, value in sorted(vars(thing).items())
            if callable(value) or not name.startswith(("__", "_abc"))
        ]
        return "class", thing.__qualname__, self.describe(thing.__bases__), own

    def of_state(self, thing: object) -> object:
        """What it wraps, or else what pickle would keep of it; nothing of a lock or a file."""
        if isinstance(thing, _RUNNING):
            return None
        if isinstance(thing, (Tensor, np.ndarray)) and not self.content:
            return str(thing.dtype), tuple(thing.shape)
        if isinstance(thing, Tensor):
            dense = thing.detach() if thing.layout == torch.strided else thing.detach().to_dense()
            content = dense.cpu().contiguous().flatten().view(torch.uint8).numpy()
            return str(thing.dtype), tuple(thing.shape), hashlib.sha256(content).hexdigest()
        if isinstance(thing, (set, frozenset)):
            return self.in_order(thing)
        wrapped = [getattr(thing, name) for name in _WRAPPED if hasattr(thing, name)]
        if wrapped:
            return [self.describe(each) for each in wrapped]
        reduce = copyreg.dispatch_table.get(type(thing), lambda each: each.__reduce_ex__(2))
        try:
            found = reduce(thing)
        except Exception:
            self.left_out.add(type(thing).__qualname__)
            return None
        if isinstance(found, str):  # a global name
            return found
        # How to make it, its attributes, its entries if it is a list or a dict.
        parts = (tuple(part) if isinstance(part, Iterator) else part for part in found)
        return [self.describe(part) for part in parts]


def _reached(code: types.CodeType, space: Mapping[str, object]) -> list[tuple[str, object]]:
    """What code loads by global names and does not assign itself, also from the user's modules."""
    loaded = names_in_code(code, "LOAD_GLOBAL", "LOAD_NAME") - names_in_code(code, "STORE_GLOBAL")
    asked = names_in_code(code, "LOAD_ATTR", "LOAD_METHOD")
    found, modules = [], []
    waiting = [(name, space[name]) for name in loaded & space.keys()]
    for path, value in waiting:
        if not isinstance(value, types.ModuleType) or _installed_module(value):
            found.append((path, value))
        elif value not in modules:
            modules.append(value)
            inside = vars(value)
            waiting += [(f"{path}.{name}", inside[name]) for name in asked & inside.keys()]
    return sorted(found, key=lambda each: each[0])


def _source(thing: types.FunctionType) -> str:
    """Its text; without comments and layout, where it can be parsed by itself."""
    text = textwrap.dedent(inspect.getsource(thing))
    try:
        return unparse(parse(text))
    except SyntaxError:  # a lambda in the middle of a call
        return text
