"""Checks of a traced graph: the forward runs once more, and what it runs is compared with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..batches import Inputs, call
from .copies import private_copy, skeleton
from .nodes import calls
from .tracing import graph_of, plain_output

_SMALL = 3 * 64 * 64  # numbers of an input
State = list[tuple[dict[str, Tensor | None], str, Tensor, Tensor]]


def checked_graph(
    net: nn.Module, inputs: Inputs, example: Inputs, kinds: tuple[type, ...]
) -> fx.GraphModule:
    """What `graph_of` gives; ValueError where the forward runs ``kinds`` of layers otherwise.

    Or gives something else on ``example``. While torch.fx traces, a value is a Proxy and no Tensor,
    so ``isinstance(h, torch.Tensor)`` takes the other branch.
    """
    start = _state(net)
    traced = graph_of(net, inputs)
    if otherwise := _difference(traced, net, start, example, kinds):
        raise ValueError(otherwise)
    return traced


def _difference(
    traced: fx.GraphModule, net: nn.Module, start: State, example: Inputs, kinds: tuple[type, ...]
) -> str:
    """What the graph does otherwise than the forward of ``net``, which runs from its ``start``."""
    pools = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
    if traced.meta["drew"] or any(isinstance(m, pools) for m in net.modules()):
        return ""  # running it would draw random numbers, which are the caller's
    leaves, ran, graph = calls(traced.graph), Counter(), traced
    if sum(leaf.numel() for leaf in tree_leaves(example)) <= _SMALL:
        end = _state(traced)
    else:  # without numbers: slower on small images, not on large ones
        net, graph, start, end = skeleton(net), skeleton(traced), [], []
        example = tree_map(lambda leaf: leaf.to("meta"), example)

    def outputs(run: Callable, state: State) -> list[Tensor]:
        _put_back(state)
        try:
            return _outputs(run, example)
        finally:
            _put_back(end)

    def looked_at(name: str, module: nn.Module) -> bool:
        inside = any(name.startswith(f"{leaf}.") for leaf in leaves)
        plain = type(module) in kinds and "weight" in module._parameters
        return bool(name) and plain and not inside and "forward" not in vars(module)

    watched = {name: module for name, module in net.named_modules() if looked_at(name, module)}
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.update([name]))
        for name, module in watched.items()
    ]
    try:
        expected = outputs(net, start)
    except Exception:  # the user's forward: what it raises is reported where it is run for real
        return ""
    finally:
        for hook in hooks:
            hook.remove()
    if other := [name for name in watched if ran[name] != leaves[name]]:
        return f"it runs {', '.join(other)} more or less often than the forward"
    if any(node.meta.get("in_place") for node in traced.graph.nodes):
        return ""  # recorded as if they were not; refused by name where that matters
    try:
        otherwise = "it gives something else than the forward"
        if _alike(outputs(graph.forward, end), expected):
            return ""
    except Exception as error:
        otherwise = f"it does not run as the forward does ({str(error).partition(chr(10))[0]})"
    try:
        return otherwise if _alike(outputs(net, start), expected) else ""
    except Exception:  # it remembers its calls, as one does that gives something else
        return ""


def _state(net: nn.Module) -> State:
    """The buffers of a network and what they hold, which is put back after every run."""
    return [
        (module._buffers, name, buffer, buffer.clone())
        for module in net.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer) and buffer.layout == torch.strided
    ]


@torch.no_grad()
def _put_back(state: State) -> None:
    for buffers, name, buffer, value in state:
        buffers[name] = buffer
        if 0 not in buffer.stride():  # torch lets no one write into an expanded one
            buffer.resize_(value.shape).copy_(value)


@torch.no_grad()
def _outputs(net: Callable, example: Inputs) -> list[Tensor]:
    leaves = tree_leaves(plain_output(call(net, tree_map(Tensor.clone, example))))
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor)]  # it may be a buffer


def _alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    return [t.shape for t in found] == [t.shape for t in expected] and all(
        one.is_meta or _close(one, other) for one, other in zip(found, expected, strict=True)
    )


def _close(one: Tensor, other: Tensor) -> bool:
    """Up to rounding: torch's fused layers and their parts round otherwise."""
    if other.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if not other.is_floating_point():
        return torch.equal(one, other)
    if other.element_size() < 2:
        return True  # of eight bits too little is left to compare
    room = 1e-3 if other.element_size() > 2 else 0.05
    largest = float(other.abs().nan_to_num(0, 0, 0).max()) if other.numel() else 0.0
    return torch.allclose(one.to(other), other, room, room * largest, equal_nan=True)


class _NameRecorder(TorchFunctionMode):
    """Records the names of the functions of torch that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.add(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def steps(net: nn.Module, batch: Inputs) -> set[str]:
    """Which layers and functions a forward runs; none if it fails, of which export will tell."""
    net, recorder = private_copy(net), _NameRecorder()
    for name, module in net.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: recorder.names.add(name))
    try:
        with recorder, torch.no_grad(), torch.random.fork_rng(devices=[]):
            call(net, batch)
    except Exception:  # the user's forward runs: anything can come out of it
        return set()
    return recorder.names
