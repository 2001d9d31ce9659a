"""Makes a private copy of a network linear and non-negative."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from .graph import BATCH_NORM, CONV, LINEAR, PRUNABLE, trace

FOLDABLE = LINEAR + CONV


def linearize_(net: nn.Module, constants: bool = False) -> nn.Module:
    """Make a working copy linear and non-negative, in place.

    Weights become |W|. Biases become zero (|b| with ``constants``). BatchNorm is used in
    evaluation mode with its *stored* variance, so it multiplies by |gamma| / sqrt(var + eps);
    its running mean and beta are constants and go to zero like biases: the absolute value of a
    running mean would be a bias that the network does not have.
    """
    net.eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BATCH_NORM) and module.running_mean is not None:
                module.running_mean.zero_()
            for name, parameter in module.named_parameters(recurse=False):
                if name.endswith("bias") and not constants:
                    parameter.zero_()
                else:
                    parameter.abs_()
    return net


def fold_norms_(net: nn.Module, keep: Iterable[str] = ()) -> list[str]:
    """Multiply BatchNorm's factor into the weight in front of it; returns the modules folded.

    Exact for scores: theta * dR/dtheta does not change when theta is multiplied by a constant that
    is taken out behind it. Only where nothing else reads the weight's output.
    """
    try:
        graph = trace(net).graph
    except ValueError:
        return []
    modules, folded = dict(net.named_modules()), []
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    owners = Counter(id(m.weight) for m in modules.values() if isinstance(m, PRUNABLE))
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, BATCH_NORM) or norm.running_var is None:
            continue
        source = node.args[0]
        layer = modules.get(str(source.target)) if source.op == "call_module" else None
        if (
            not isinstance(layer, FOLDABLE)
            or len(source.users) > 1
            or calls[str(source.target)] + calls[str(node.target)] > 2
            or owners[id(layer.weight)] > 1
            or f"{node.target}.weight" in keep
        ):
            continue
        with torch.no_grad():
            scale = torch.rsqrt(norm.running_var + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
        folded.append(str(node.target))
    return folded
