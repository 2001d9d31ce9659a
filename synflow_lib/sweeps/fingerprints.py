"""What a run depends on beside its names: fingerprints of code and of networks.

A `Run` calls its method, network and data set by name. A name may stand for other code tomorrow;
the fingerprint in a record tells whether its numbers still belong to what the name stands for.
"""

from __future__ import annotations

import ast
import copyreg
import dis
import hashlib
import inspect
import math
import random
import sys
import textwrap
import threading
import types
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..graph import working_copy
from ..training.checkpoints import agree, sketch
from ..workspace import no_trace

PARTS = {
    "version": "this library",
    "data": "the data set",
    "network": "the network",
    "method": "the method",
}
"""What a run depends on beside its names, in words."""

_PYTHON = "{}.{}".format(*sys.version_info)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_CALLED = (
    type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType,
    types.WrapperDescriptorType,
)  # fmt: skip
_RANDOM = (
    random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState,
    torch.Generator,
)  # fmt: skip
_FILLING = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
    "remove", "setdefault", "update",
}  # fmt: skip


def of_code(thing: object) -> dict[str, str | None]:
    """A fingerprint of a function, class or callable object, with all of the user's code behind it.

    Closures, defaults, and the functions, classes and values that it reaches by global names count;
    what is installed (this library, torch, ...) counts by its name only. What it fills or counts
    while it runs does not: caches, loggers, random number generators, globals that it assigns.

    Returns:
        python (version), bytecode and source: bytecode is what runs, but differs between versions
        of Python; there `same` compares sources. None where there is no source.

    >>> double, triple = (lambda x: 2 * x), (lambda x: 3 * x)
    >>> of_code(double) == of_code(double), of_code(double) == of_code(triple)
    (True, False)
    """
    return _of_code(thing, content=True)


def _of_code(thing: object, content: bool) -> dict[str, str | None]:
    found = {"python": _PYTHON}
    for kind in ("bytecode", "source"):
        try:
            found[kind] = _Digest(kind, content).of(thing)
        except Exception:  # no source, or objects that cannot be looked into
            found[kind] = None
    return found


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
    digest, classes, others = hashlib.sha256(), {}, {}
    for name, module in net.named_modules():
        public = {
            key: value
            for key, value in vars(module).items()
            if not key.startswith("_") and key != "training"
        }
        settings = sorted((key, value) for key, value in public.items() if _plain(value))
        rest = {key: value for key, value in public.items() if not _plain(value)}
        others |= {name: rest} if rest else {}
        digest.update(repr((name, type(module).__qualname__, settings)).encode())
        classes[type(module)] = None
    total, entries = 0.0, net.state_dict()
    for name, value in entries.items():
        digest.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
        numbers = value.detach().cpu().double().abs().flatten()
        places = torch.linspace(1, 2, max(numbers.numel(), 1), dtype=torch.float64)
        total += float(numbers @ places[: numbers.numel()])
    code = {kind.__qualname__: of_code(kind) for kind in classes if not _installed(kind)}
    found = {"layers": digest.hexdigest()[:16], "weights": total, "code": code}
    # Tensors show in the outputs: another processor draws them with other last digits.
    found["attributes"] = _of_code(others, content=False)
    outputs = None if input_shape is None else _outputs(net, input_shape)
    return found if outputs is None else found | {"outputs": sketch({"logits": outputs})}


def _outputs(net: nn.Module, input_shape: tuple[int, ...]) -> Tensor | None:
    """What the network says of two images that are the same on every machine."""
    images = np.random.default_rng(0).uniform(-2, 2, (2, *input_shape))
    try:
        copy = working_copy(net).cpu().eval()
        with no_trace(torch.device("cpu"), seed=0):
            return copy(torch.from_numpy(images).to(next(copy.parameters()).dtype)).detach()
    except Exception:  # the run itself will say what is wrong
        return None


def same(a: object, b: object) -> bool:
    """Whether two fingerprints speak of the same; numbers up to rounding.

    What only one of the two knows, such as a record of an older version, does not count.

    >>> same({"weights": 1.0}, {"weights": 1.0 + 1e-9}), same({"layers": "a"}, {"layers": "b"})
    (True, False)
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if "bytecode" in a and "bytecode" in b:
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
    return _installed_module(module)


def _installed_module(module: types.ModuleType | None) -> bool:
    package = getattr(module, "__name__", "__main__").partition(".")[0]
    if package == "__main__":
        return False
    file = Path(getattr(module, "__file__", None) or "")
    places = {"site-packages", "dist-packages"}
    return package in (*sys.stdlib_module_names, "synflow_lib") or bool(places & {*file.parts})


class _Digest:
    """A walk through code and the values it uses; ``kind`` is "bytecode" or "source".

    Tensors and arrays count by their numbers, or without ``content`` by shape and type.

    What the code itself writes into (a memo, a counter, a network made at the first call) is no
    part of what the code says: `written` holds the ids of such containers, and (id, name) of such
    attributes and globals. They are found by a first walk and left out by a second.
    """

    def __init__(self, kind: str, content: bool) -> None:
        self.kind, self.content = kind, content
        self.seen, self.kept, self.written = {}, [], set()

    def of(self, thing: object) -> str:
        self.describe(thing)
        self.seen = {}
        return hashlib.sha256(repr(self.describe(thing)).encode()).hexdigest()[:16]

    def describe(self, thing: object) -> object:
        if type(thing) in _PLAIN:
            return type(thing).__name__, repr(thing)
        if isinstance(thing, types.CodeType):
            return self.of_code(thing)
        if type(thing) in (tuple, frozenset):  # equal constants may be one object or several
            parts = thing if type(thing) is tuple else self.sorted(thing)
            return type(thing).__name__, [self.describe(each) for each in parts]
        if id(thing) in self.written:
            return "written", type(thing).__qualname__
        if id(thing) in self.seen:  # a circle, or something used twice
            return "seen", self.seen[id(thing)]
        self.seen[id(thing)] = len(self.seen)
        self.kept.append(thing)  # so that no other object gets its id
        if isinstance(thing, types.ModuleType):
            return "module", thing.__name__
        if isinstance(thing, (staticmethod, classmethod, types.MethodType)):
            owner = getattr(thing, "__self__", None)
            self.note_writes(thing.__func__, owner)
            return "method", self.describe(owner), self.describe(thing.__func__)
        if isinstance(thing, property):
            return "property", [self.describe(e) for e in (thing.fget, thing.fset) if e]
        if isinstance(thing, _CALLED):
            if _installed(thing):
                return "installed", getattr(thing, "__module__", None), thing.__qualname__
            return self.of_class(thing) if isinstance(thing, type) else self.of_function(thing)
        kind = self.describe(type(thing))
        if isinstance(thing, (*_RANDOM, threading.Thread)):  # where it stands is run-time state
            return "object", kind
        if isinstance(thing, (tuple, list)):
            return "sequence", kind, [self.describe(each) for each in thing]
        if isinstance(thing, Set):
            return "set", kind, [self.describe(each) for each in self.sorted(thing)]
        if isinstance(thing, Mapping):
            keys = self.sorted(thing)
            return "mapping", kind, [(self.describe(k), self.describe(thing[k])) for k in keys]
        if isinstance(thing, (Tensor, np.ndarray, np.generic)):
            return "array", kind, self.of_array(thing)
        if hasattr(thing, "__wrapped__"):  # functools.cache
            return "wrapper", kind, self.describe(thing.__wrapped__)
        return "object", kind, self.of_state(thing)

    def sorted(self, things: Iterable) -> list:
        """In an order that depends neither on insertion nor on the seed of hashes."""

        def order(thing: object) -> str:
            seen = dict(self.seen)
            try:
                return repr(self.describe(thing))
            finally:
                self.seen = seen

        return sorted(things, key=order)

    def of_array(self, thing: Tensor | np.ndarray | np.generic) -> object:
        shape = tuple(thing.shape), str(thing.dtype)
        if not self.content or getattr(thing, "is_meta", False):
            return shape
        if isinstance(thing, Tensor):
            flat = thing.detach().to_dense() if thing.layout != torch.strided else thing.detach()
            thing = flat.cpu().contiguous().flatten().view(torch.uint8).numpy()
        if thing.dtype.hasobject:  # bytes of addresses
            return shape, self.describe(thing.tolist())
        return shape, hashlib.sha256(thing.tobytes()).hexdigest()

    def of_state(self, thing: object) -> object:
        """What pickle would keep of it; nothing of a lock, a file, a weak reference."""
        try:
            reduce = copyreg.dispatch_table.get(type(thing), lambda each: each.__reduce_ex__(2))
            found = reduce(thing)
        except Exception:
            return None
        if isinstance(found, str):  # a global name
            return found
        call = inspect.getattr_static(type(thing), "__call__", None)
        if isinstance(call, types.FunctionType):
            self.note_writes(call, thing)
        arguments, state, *entries = (*found[1:], None, None)[:4]
        parts = state if isinstance(state, tuple) else (state,)  # a dict, and one of its slots
        state = [
            {key: each for key, each in part.items() if (id(thing), key) not in self.written}
            if isinstance(part, dict)
            else part
            for part in parts
        ]
        entries = [list(each) for each in entries if each is not None]
        return [self.describe(each) for each in (found[0], arguments, *state, *entries)]

    def of_class(self, thing: type) -> object:
        own = [
            (name, self.describe(value))
            for name, value in sorted(vars(thing).items())
            if not (name.startswith("__") and not callable(value))
            and not name.startswith("_abc")
            and (id(thing), name) not in self.written
        ]
        return "class", thing.__qualname__, [self.describe(base) for base in thing.__bases__], own

    def of_function(self, thing: types.FunctionType) -> object:
        self.note_writes(thing)
        code, names = thing.__code__, thing.__globals__
        closure = [
            (name, None if id(cell) in self.written else self.describe(_content(cell)))
            for name, cell in _cells(thing)
        ]
        defaults = self.describe(
            (thing.__defaults__, thing.__kwdefaults__ and {**thing.__kwdefaults__})
        )
        home = sys.modules.get(names.get("__name__"))
        if getattr(home, "__dict__", None) is names and _installed_module(home):
            # An installed decorator, around the user's code
            return "function", code.co_name, closure, defaults
        text = _source(thing) if self.kind == "source" else self.of_code(code)
        reached = [
            (path, self.describe(value))
            for path, value in sorted(self.reached(code, names).items())
        ]
        return "function", text, closure, defaults, reached

    def of_code(self, code: types.CodeType) -> object:
        """What runs, without file names and line numbers."""
        constants = [self.describe(each) for each in code.co_consts]
        return code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars

    def reached(self, code: types.CodeType, names: dict[str, object]) -> dict[str, object]:
        """What code loads by global names, also from modules of the user's: path -> value."""
        found = {}
        for path in _global_paths(code):
            space = names
            for depth, name in enumerate(path, 1):
                if name not in space or (id(space), name) in self.written:
                    break
                value = space[name]
                if isinstance(value, types.ModuleType) and not _installed_module(value):
                    space = vars(value)
                    if depth < len(path):
                        continue
                found[".".join(path[:depth])] = value
                break
        return found

    def note_writes(self, thing: object, owner: object = None) -> None:
        """Find what a function writes into beside its own local names."""
        if not isinstance(thing, types.FunctionType):
            return
        code, cells = thing.__code__, dict(_cells(thing))
        arguments = code.co_varnames[: code.co_argcount]
        defaults = dict(zip(reversed(arguments), reversed(thing.__defaults__ or ()), strict=False))
        known = {**defaults, **(thing.__kwdefaults__ or {})}
        if owner is not None and arguments:
            known[arguments[0]] = owner
        for name, attribute in _writes(thing):
            if name is None:  # declared global or nonlocal
                inside = id(cells[attribute]) if attribute in cells else None
                self.written.add(inside or (id(thing.__globals__), attribute))
                continue
            if name in known:
                value = known[name]
            elif name in cells:
                value = _content(cells[name])
            elif name in code.co_varnames or name in code.co_cellvars:
                continue
            else:
                value = thing.__globals__.get(name)
            if isinstance(value, types.ModuleType):
                value = vars(value)
            if attribute is not None:
                self.written.add((id(value), attribute))
            elif not isinstance(value, (*_PLAIN, *_CALLED)):
                self.written.add(id(value))
            self.kept.append(value)


def _cells(thing: types.FunctionType) -> list[tuple[str, types.CellType]]:
    return [*zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)]


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _global_paths(code: types.CodeType) -> set[tuple[str, ...]]:
    """Global names that code loads, with what it asks of them: ("torch", "nn", "Linear")."""
    found: list[list[str]] = []
    path = None
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            path = [step.argval]
            found.append(path)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path.append(step.argval)
        elif step.opname not in ("EXTENDED_ARG", "CACHE"):
            path = None
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(map(tuple, found)).union(*map(_global_paths, inner))


def _writes(thing: types.FunctionType) -> set[tuple[str | None, str | None]]:
    """(name, attribute) that its text assigns to; (name, None) what it fills, in place.

    (None, name) for names declared global or nonlocal. Nothing where there is no source.
    """
    try:
        tree = ast.parse(_source(thing))
    except (OSError, TypeError, SyntaxError):
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            found |= {(None, name) for name in node.names}
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if call and node.func.attr in _FILLING:
            target = node.func.value
        elif isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
            target = node.value if isinstance(node, ast.Subscript) else node
        else:
            continue
        attribute = None
        while isinstance(target, (ast.Attribute, ast.Subscript)):
            attribute = getattr(target, "attr", None)
            target = target.value
        if isinstance(target, ast.Name) and target is not node:
            found.add((target.id, attribute))
    return found


def _source(thing: types.FunctionType) -> str:
    """Its text; without comments and layout, where it can be parsed by itself."""
    text = textwrap.dedent(inspect.getsource(thing))
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:  # a lambda in the middle of a call
        return text
