"""Whether the units of a network stay apart, so that one of them can be taken out.

`follow` checks it at every node, unless units may be joined.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, fx, nn

from .layers import Rule, effect_of, rule_at
from .network import BATCH_NORM, PRUNABLE
from .nodes import argument, is_addition, name_of, reduced
from .operations import Operations


def no_law(node: fx.Node, module: nn.Module | None, why: str = "") -> ValueError:
    """The error for an operation that units cannot be followed through."""
    what = f"{node.op} {name_of(node)} (node {node.name!r})"
    what = f"{node.target}, a {type(module).__name__}" if module is not None else what
    why = why or (
        "units are followed through layers, norms, activations, pooling, sums, concatenation,"
        " attention and what moves numbers by fixed places"
    )
    return ValueError(f"no conservation law for {what}: {why}")


def refuse_joined(
    operations: Operations, node: fx.Node, module: nn.Module | None, carriers: list[fx.Node]
) -> None:
    """ValueError where a unit could not be taken out: mixed with others, or known by its position.

    ``carriers`` are the arguments of ``node`` that paths run through.
    """
    value, before = node.meta["value"], carriers[0].meta["value"].shape
    if gates := operations.gates(node):
        why = f"{gates[0].name!r} steers there what another signal brings"
        raise no_law(node, module, why)
    if not isinstance(value, Tensor):
        raise no_law(node, module, "it gives several tensors")
    _refuse_constants(operations, node)
    if isinstance(module, (*PRUNABLE, *BATCH_NORM)):
        if isinstance(module, nn.Linear) and value.dim() != 2:
            raise ValueError(
                f"{node.target}: units are taken out of Linear on (batch, features), here its"
                f" output has shape {tuple(value.shape)}"
            )
        return
    if is_addition(node):
        counts = [n.meta["value"].shape[1] for n in carriers]
        if len(set(counts)) > 1:
            why = f"it adds {counts[0]} to {counts[1]} channels: one is spread over several"
            raise no_law(node, module, why)
        return
    if effect_of(node, module) == "joins" and name_of(node) in ("cat", "concat"):
        if argument(node, "dim", 1, 0) != 1:
            raise no_law(node, module, "torch.cat outside the channel dimension")
        return
    rule = rule_at(node, module)
    if len(carriers) > 1 or rule is None or not rule.units:
        why = "channels must stay apart, and be joined by sums or concatenation only"
        raise no_law(node, module, why)
    shape, channels = value.shape, before[1]
    flat = len(shape) == 2 and shape[1] % channels == 0  # a map, many inputs
    kept = _keeps_channels(node, rule, module, before, shape)
    if not kept or not (shape[1] == channels or flat):
        raise ValueError(
            f"{node.name} turns {channels} channels into shape {tuple(shape)}; units are taken out"
            " behind flatten, pooling and element-wise operations only"
        )


def _refuse_constants(operations: Operations, node: fx.Node) -> None:
    for used in node.all_input_nodes:
        constant = None if used in operations.reached else used.meta["value"]
        if used.op == "get_attr" and isinstance(constant, nn.Parameter):
            advice = "call the layer instead of its functional form"
            if "." not in str(used.target):  # a layer that is the whole network
                advice = "put a layer of its own into torch.nn.Sequential"
            raise ValueError(
                f"{used.target} is an argument of a function ({node.name}); units are taken out of"
                f" layers only: {advice}"
            )
        if isinstance(constant, Tensor) and constant.numel() > 1:
            raise ValueError(
                f"no unit can be taken out of {used.name}, a constant of shape"
                f" {tuple(constant.shape)} that {name_of(node)} (node {node.name!r}) is given"
            )


def _keeps_channels(
    node: fx.Node, rule: Rule, module: nn.Module | None, before: torch.Size, shape: torch.Size
) -> bool:
    """Whether the first two dimensions are still images and channels, not others of that size."""
    if len(shape) < 2 or shape[0] != before[0]:
        return False
    name = name_of(node, module)
    if rule.effect == "scales" and len(before) != len(shape):
        return False  # a factor with more dimensions
    if rule.effect in ("moves", "sums", "largest") and (dims := re.search(r"(\d)d", name)):
        return len(before) == int(dims[1]) + 2  # else channels are pooled as a side of the map
    if name == "pad":
        return len(argument(node, "pad", 1, ())) <= 2 * (len(before) - 2)
    if module is None and name in ("sum", "mean", "amax", "amin"):
        return min(reduced(node, len(before))) > 1
    return True
