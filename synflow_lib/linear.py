"""Makes a private copy of a network linear and non-negative."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import fx, nn

from .graph import BATCH_NORM, CONV, LINEAR, PRUNABLE, layer_weights, skeleton, trace
from .layers import reached

FOLDABLE = LINEAR + CONV


def linearize_(net: nn.Module, constants: bool = False) -> nn.Module:
    """Make a working copy linear and non-negative, in place.

    Weights become |W|. Biases become zero (|b| with ``constants``). BatchNorm is used in
    evaluation mode with its *stored* variance, so it multiplies by |gamma| / sqrt(var + eps);
    its running mean and beta are constants and go to zero like biases: the absolute value of a
    running mean would be a bias that the network does not have. What the input does not reach
    (``softmax(alpha)``) keeps its sign: a function of constants is computed as it is.
    """
    net.eval()
    signed = _read_as_constants(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BATCH_NORM) and module.running_mean is not None:
                module.running_mean.zero_()
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in signed:
                    continue
                if name.endswith("bias") and not constants:
                    parameter.zero_()
                else:
                    parameter.abs_()
    return net


def _read_as_constants(net: nn.Module) -> set[int]:
    """Ids of the parameters, other than weights of layers, that stand apart from the input."""
    try:
        graph = trace(net).graph
    except ValueError:
        return set()
    modules, flows = dict(net.named_modules()), reached(graph)
    named = dict(net.named_parameters(remove_duplicate=False))
    weights = {id(named[name]) for name in layer_weights(net) if name in named}
    found = set()
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) in named:
            found.add(id(named[str(node.target)]))
        elif node.op == "call_module" and node not in flows:
            found.update(map(id, modules[str(node.target)].parameters()))
    return found - weights


def fold_norms_(
    net: nn.Module, input_shape: tuple[int, ...], keep: Iterable[str] = ()
) -> list[str]:
    """Multiply BatchNorm's factor into the weight in front of it; returns the modules folded.

    Exact for scores: theta * dR/dtheta does not change when theta is multiplied by a constant that
    is taken out behind it. Only where nothing else reads the weight's output, and where BatchNorm
    counts in the direction that the weight writes: behind a Linear layer on (batch, tokens,
    features) it counts tokens.
    """
    try:
        graph = trace(net).graph
    except ValueError:
        return []
    modules, folded = dict(net.named_modules()), []
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    owners = Counter(id(m.weight) for m in modules.values() if isinstance(m, PRUNABLE))
    pairs = [n for n in graph.nodes if _follows_linear(n, modules)]
    flat = _flat_outputs(net, input_shape) if pairs else set()
    for node in graph.nodes:
        if node in pairs and str(node.args[0].target) not in flat:
            continue
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


def _follows_linear(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    source = node.args[0] if node.op == "call_module" and node.args else None
    return (
        isinstance(source, fx.Node)
        and source.op == "call_module"
        and isinstance(modules[str(node.target)], BATCH_NORM)
        and isinstance(modules[str(source.target)], LINEAR)
    )


def _flat_outputs(net: nn.Module, input_shape: tuple[int, ...]) -> set[str]:
    """Names of the Linear layers that give (batch, features); none where that cannot be told."""
    flat, empty = set(), skeleton(net)
    for name, module in empty.named_modules():
        if isinstance(module, LINEAR):
            module.register_forward_hook(
                lambda _, __, out, name=name: flat.add(name) if out.dim() == 2 else None
            )
    x = torch.empty(1, *input_shape, device="meta", dtype=next(net.parameters()).dtype)
    try:
        with torch.no_grad():
            empty(x)
    except Exception:  # the user's forward runs: anything can come out of it
        return set()
    return flat
