"""BatchNorm's factor multiplied into the weight in front of it: one operation less to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import fx, nn

from ..graphs.copies import skeleton
from ..graphs.network import BATCH_NORM, CONV, LINEAR, PRUNABLE, first_weight
from ..graphs.nodes import calls, module_of

FOLDABLE = LINEAR + CONV


def fold_norms_(
    net: fx.GraphModule, input_shape: tuple[int, ...], keep: Iterable[str] = ()
) -> list[str]:
    """Multiply BatchNorm's factor into the weight in front of it; returns the modules folded.

    Exact for scores: theta * dR/dtheta does not change when theta is multiplied by a constant that
    is taken out behind it. Only where nothing else reads the weight's output, and where BatchNorm
    counts in the direction that the weight writes: behind a Linear layer on (batch, tokens,
    features) it counts tokens.
    """
    graph, modules, folded = net.graph, dict(net.named_modules()), []
    called = calls(graph)
    owners = Counter(id(m.weight) for m in modules.values() if isinstance(m, PRUNABLE))
    flat: set[str] | None = None  # known from the first BatchNorm behind a Linear layer on
    for node in graph.nodes:
        norm = module_of(node, modules)
        if not isinstance(norm, BATCH_NORM) or norm.running_var is None:
            continue
        source = node.args[0]
        layer = module_of(source, modules)
        if (
            not isinstance(layer, FOLDABLE)
            or len(source.users) > 1
            or called[str(source.target)] + called[str(node.target)] > 2
            or owners[id(layer.weight)] > 1
            or f"{node.target}.weight" in keep
        ):
            continue
        if isinstance(layer, LINEAR):
            flat = _flat_outputs(net, input_shape) if flat is None else flat
            if str(source.target) not in flat:
                continue
        with torch.no_grad():
            scale = torch.rsqrt(norm.running_var + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
        folded.append(str(node.target))
    return folded


def _flat_outputs(net: nn.Module, input_shape: tuple[int, ...]) -> set[str]:
    """Names of the Linear layers that give (batch, features); none where that cannot be told."""
    flat, empty = set(), skeleton(net)
    for name, module in empty.named_modules():
        if isinstance(module, LINEAR):
            module.register_forward_hook(
                lambda _, __, out, name=name: flat.add(name) if out.dim() == 2 else None
            )
    x = torch.empty(1, *input_shape, device="meta", dtype=first_weight(net).dtype)
    try:
        with torch.no_grad():
            empty(x)
    except Exception:  # the user's forward runs: anything can come out of it
        return set()
    return flat
