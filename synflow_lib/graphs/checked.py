"""Checks of a traced graph: the forward runs once more, and what it runs is compared with it."""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..batches import Inputs, call
from .copies import hollow, private_copy
from .nodes import calls, name_of
from .tracing import is_draw

_SMALL = 3 * 64 * 64  # numbers of an input


def other_layers(
    traced: fx.GraphModule, net: nn.Module, example: Inputs, kinds: tuple[type[nn.Module], ...]
) -> str:
    """Names of layers, of these kinds, that a graph runs more or less often than the forward.

    While torch.fx traces, a value is a Proxy and no Tensor, so ``isinstance(h, torch.Tensor)``
    takes the other branch. An empty text where no difference is seen.
    """
    pools = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
    drawn = any(is_draw(name_of(node)) for node in traced.graph.nodes)
    if traced.meta["drew"] or drawn or any(isinstance(m, pools) for m in net.modules()):
        return ""  # running it would draw random numbers, which are the caller's
    leaves, ran = calls(traced.graph), Counter()
    small = sum(leaf.numel() for leaf in tree_leaves(example)) <= _SMALL
    net = net if small else hollow(net)  # without numbers: slower on small images, not on large

    def looked_at(name: str, module: nn.Module) -> bool:
        inside = any(name.startswith(f"{leaf}.") for leaf in leaves)
        plain = type(module) in kinds and "weight" in module._parameters
        return plain and not inside and "forward" not in vars(module)

    watched = {name: module for name, module in net.named_modules() if looked_at(name, module)}
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.update([name]))
        for name, module in watched.items()
    ]
    try:
        with torch.no_grad():
            call(net, example if small else tree_map(lambda leaf: leaf.to("meta"), example))
    except Exception:  # the user's forward: what it raises is reported where it is run for real
        return ""
    finally:
        for hook in hooks:
            hook.remove()
    return ", ".join(name for name in watched if ran[name] != leaves[name])


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
