"""Whether what was recorded of a forward is what it does: it runs once more, and is watched."""

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
    traced: fx.GraphModule, own: nn.Module, example: Inputs, kinds: tuple[type[nn.Module], ...]
) -> str:
    """The layers, of these kinds, that a graph runs more or less often than the forward.

    While torch.fx traces, a value is no Tensor: ``isinstance(h, torch.Tensor)`` takes the branch
    for something else. An empty text where the graph may be right.
    """
    pools = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
    drawn = any(is_draw(name_of(node)) for node in traced.graph.nodes)
    if traced.meta["drew"] or drawn or any(isinstance(m, pools) for m in own.modules()):
        return ""  # nobody's random numbers change by a look
    leaves, ran = calls(traced.graph), Counter()
    small = sum(leaf.numel() for leaf in tree_leaves(example)) <= _SMALL
    net = own if small else hollow(own)  # without numbers: slower on small images, not on large

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
    except Exception:  # whatever the forward raises, others will say
        return ""
    finally:
        for hook in hooks:
            hook.remove()
    return ", ".join(name for name in watched if ran[name] != leaves[name])


class _Noting(TorchFunctionMode):
    """Notes the names of the functions of torch that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.add(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def steps(own: nn.Module, batch: Inputs) -> set[str]:
    """Which layers and functions a forward runs; none if it fails, of which export will tell."""
    net, noting = private_copy(own), _Noting()
    for name, module in net.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: noting.names.add(name))
    try:
        with noting, torch.no_grad(), torch.random.fork_rng(devices=[]):
            call(net, batch)
    except Exception:  # the user's forward runs: anything can come out of it
        return set()
    return noting.names
