"""Copies of a network that share nothing with it, however its modules copy themselves."""

from __future__ import annotations

import contextlib
import copy
import dis
import functools
import inspect
import operator
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..batches import Inputs, call
from .wrappers import unwrapped

_HOLDERS = (dict, list, tuple)
_CACHED = type(functools.cache(len))
_WRAPPERS = (types.MethodType, functools.partial, weakref.ref, _CACHED)
_PARTS = frozenset("_parameters _buffers _modules".split())
_HOLD = (types.FunctionType, *_WRAPPERS, *_HOLDERS)


def _memo(model: nn.Module) -> dict[int, object]:
    """What ``copy.deepcopy`` shall take for parts of ``model``.

    Computed tensors, detached: networks keep features, for Grad-CAM or auxiliary losses, and torch
    refuses to copy what has a ``grad_fn``. And an empty dict, list or set for each: every module
    has a dozen, for hooks, on which ``deepcopy`` would spend most of its time.
    """
    memo: dict[int, object] = {}
    for module in model.modules():
        for key, value in vars(module).items():
            if type(value) in (dict, OrderedDict, list, set) and not value:
                memo[id(value)] = type(value)()
            elif key != "_modules" and isinstance(value, (Tensor, *_HOLDERS)):
                leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
                memo |= {id(leaf): leaf.detach() for leaf in leaves if leaf.grad_fn is not None}
    return memo


def private_copy(model: nn.Module, instead: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A deep copy that shares nothing with ``model``; ValueError where something refuses that.

    ``instead`` is the id of a parameter or buffer -> what stands for it in the copy.
    """
    instead, kind = dict(instead or {}), type(model).__name__
    # Its own __deepcopy__ may make new layers, which draws random numbers; that of graphs does not.
    # Without one the generator is left alone, for another thread may be drawing.
    own = any(
        hasattr(module, "__deepcopy__") and not isinstance(module, fx.GraphModule)
        for module in model.modules()
    )
    try:
        with torch.random.fork_rng(devices=[], enabled=own):
            net = copy.deepcopy(model, _memo(model) | instead)
    except Exception as error:
        raise ValueError(
            f"{kind} cannot be copied ({error}), and no other copy would be private: something"
            " that it holds refuses copy.deepcopy"
        ) from error
    parts, copies = _parts(model), _parts(net)
    for name, part in parts.items():
        found, expected = copies.get(name), instead.get(id(part))
        if found is not None and (found is part if expected is None else found is not expected):
            raise ValueError(
                f"{kind} cannot be copied: a __deepcopy__ in it gives the same {name or kind!r}"
                " again, or leaves out the memo. Let it copy self.__dict__ by"
                " copy.deepcopy(..., memo), or take it away"
            )
    follow_names_(net, {id(part): copies.get(name) for name, part in parts.items()})
    return net


def skeleton(model: nn.Module, device: str = "meta") -> nn.Module:
    """A private copy in evaluation mode whose tensors hold shapes and no numbers.

    Of the network inside its wrappers. On another ``device`` than "meta" its memory is
    uninitialized: the caller fills it.
    """
    model = unwrapped(model)
    instead = {
        id(t): nn.Parameter(empty, False) if isinstance(t, nn.Parameter) else empty
        for t in (*model.parameters(), *model.buffers())
        for empty in [torch.empty_like(t, device=device)]
    }
    return private_copy(model, instead).eval()


def same_beside_tensors(model: nn.Module, other: nn.Module) -> bool:
    """Whether what two networks hold beside parameters and buffers is known to be equal.

    Numbers, words and what both share are compared.
    """

    def same(a: object, b: object) -> bool:
        if a is b:
            return True
        if type(a) is not type(b):
            return False
        if isinstance(a, (tuple, list)):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, (dict, set)):
            return not a and not b
        return isinstance(a, (bool, int, float, str, torch.dtype)) and a == b

    modules, others = (dict(each.named_modules()) for each in (model, other))
    return modules.keys() == others.keys() and all(
        type(module) is type(others[name])
        and vars(module).keys() == vars(others[name]).keys()
        and all(
            key in _PARTS or same(value, vars(others[name])[key])
            for key, value in vars(module).items()
        )
        for name, module in modules.items()
    )


def hooks_change(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a hook of the forward changes what a module is given or gives, on this batch."""
    if not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False
    changes: list[bool] = []

    def watched(hook: Callable) -> Callable:
        def run(module, *args, **kwargs):
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            tensors += module.parameters(recurse=False)  # a hook may prune them
            before = [tensor.clone() for tensor in tensors]  # versions miss writes through .data
            instead = hook(module, *args, **kwargs)
            written = not all(map(torch.equal, before, tensors))
            changes.append(written or instead is not None)
            return instead

        return run

    net = private_copy(model).eval()
    for module in net.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            hooks.update({key: watched(hook) for key, hook in hooks.items()})
    # A forward that fails here is reported where it is needed; random draws are undone.
    with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
        call(net, inputs)
    return any(changes)


def _parts(model: nn.Module) -> dict[str, object]:
    """Modules, parameters and buffers by name, a shared one under all of its names."""
    every = (model.named_modules, model.named_parameters, model.named_buffers)
    return {name: part for named in every for name, part in named(remove_duplicate=False)}


# --------------------------------------------------- functions that name layers from outside
# `copy.deepcopy` does not copy functions: a hook that names a layer would run the original's.


def follow_names_(net: nn.Module, copies: dict[int, Any]) -> None:
    """Replace functions that the copy ``net`` holds and that name parts of the original.

    ValueError where a class names some, for a class has no copy. ``copies`` is the id of a part of
    the original -> the part of ``net``.
    """
    kinds = {type(module): name for name, module in net.named_modules()}
    for kind, name in kinds.items():
        for method in ("forward", "__call__"):
            function = inspect.getattr_static(kind, method)
            if _reaches(function, copies):
                whole = type(net).__name__
                raise ValueError(
                    f"{whole} cannot be copied: {kind.__name__}, the class of {name or whole!r},"
                    " names the network's own layers from outside, so a copy would run the"
                    " original's. Let it find them through self"
                )
    for module in net.modules():
        for key, value in vars(module).items():
            holds = isinstance(value, _HOLD) and value and key not in _PARTS
            new = _renamed(value, copies) if holds else value
            if new is not value and isinstance(value, dict):
                value.update(new)  # of hooks, which torch knows by their place
            elif new is not value:
                vars(module)[key] = new


def _renamed(value: Any, copies: dict[int, Any]) -> Any:
    """``value``, or a new one where it names a part of the original, which names the copy's."""

    def one(leaf: Any) -> Any:
        if id(leaf) not in copies and isinstance(leaf, types.FunctionType):
            return _rebound(leaf, copies) if _reaches(leaf, copies) else leaf
        if old := _wrapped(leaf):
            new = [_renamed(part, copies) for part in old]
            return leaf if all(map(operator.is_, old, new)) else _rewrapped(leaf, new)
        return copies.get(id(leaf), leaf)

    if not isinstance(value, _HOLDERS):
        return one(value)
    leaves = tree_leaves(value)
    return value if all(one(leaf) is leaf for leaf in leaves) else tree_map(one, value)


def _rebound(function: types.FunctionType, copies: dict[int, Any]) -> types.FunctionType:
    known, code, closure = function.__globals__, function.__code__, function.__closure__ or ()
    own = [name for name in _globals(code, known) if _reaches(known[name], copies)]
    cells = [types.CellType() if _reaches(_content(c), copies) else c for c in closure]
    names = dict(known) if own else known
    rebound = types.FunctionType(code, names, function.__name__, None, tuple(cells))
    copies[id(function)] = rebound  # it may call itself
    for cell, old in zip(cells, closure, strict=True):
        if cell is not old:
            cell.cell_contents = _renamed(_content(old), copies)
    names.update({name: _renamed(known[name], copies) for name in own})
    rebound.__defaults__ = _renamed(function.__defaults__, copies)
    rebound.__kwdefaults__ = _renamed(function.__kwdefaults__, copies)
    rebound.__dict__.update(vars(function))
    return rebound


def _reaches(value: Any, copies: Mapping[int, Any], seen: set | None = None) -> bool:
    """Whether ``value`` is or holds a part of the original, or a function that names one."""
    seen = set() if seen is None else seen
    leaves = tree_leaves(value) if isinstance(value, _HOLDERS) else [value]
    leaves += tree_leaves([_wrapped(leaf) for leaf in leaves])
    for leaf in leaves:
        if id(leaf) in copies:
            return True
        if not isinstance(leaf, types.FunctionType) or leaf in seen:
            continue
        seen.add(leaf)
        if _reaches(_named(leaf), copies, seen):
            return True
    return False


def _wrapped(leaf: Any) -> list[Any]:
    """What a bound method, a partial, a weak reference or a cache wraps."""
    if isinstance(leaf, types.MethodType):
        return [leaf.__func__, leaf.__self__]
    if isinstance(leaf, functools.partial):
        return [leaf.func, *leaf.args, *leaf.keywords.values()]
    if isinstance(leaf, _CACHED):
        return [leaf.__wrapped__]
    return [leaf()] if isinstance(leaf, weakref.ref) else []


def _rewrapped(leaf: Any, parts: list[Any]) -> Any:
    """``leaf`` anew, as it would wrap other ``parts`` (see `_wrapped`)."""
    if isinstance(leaf, _CACHED):
        return functools.lru_cache(**leaf.cache_parameters())(*parts)
    if not isinstance(leaf, functools.partial):
        return type(leaf)(*parts)
    first = len(leaf.args) + 1
    return functools.partial(*parts[:first], **dict(zip(leaf.keywords, parts[first:], strict=True)))


def _named(function: types.FunctionType) -> list[Any]:
    """What a function closes over, has as defaults, and reads of its module."""
    known = function.__globals__
    values = [_content(cell) for cell in function.__closure__ or ()]
    if str(known.get("__name__")).partition(".")[0] == "torch":  # such as torch.no_grad()(forward)
        return values
    values += [function.__defaults__, function.__kwdefaults__]
    return values + [known[name] for name in _globals(function.__code__, known)]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _globals(code: types.CodeType, known: Mapping[str, Any]) -> list[str]:
    return [name for name in names_in_code(code, "LOAD_GLOBAL") if name in known]


@functools.lru_cache(4096)
def names_in_code(code: types.CodeType, *operations: str) -> frozenset[str]:
    """The names that these operations of the code name, also inside inner functions."""
    inner = [names_in_code(c, *operations) for c in code.co_consts if isinstance(c, types.CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname in operations}
    return frozenset(own).union(*inner)
