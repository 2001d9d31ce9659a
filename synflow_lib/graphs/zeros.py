"""What starts at zero: the last norm of a residual block, a layer scale, a head.

As a factor it would close all paths through it, though training opens it at once. So it counts as
one: the structure of a network counts, not where it starts.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from .layers import effect_of, reached, rule_of
from .network import PRUNABLE, is_bias, layer_weights, lies_in
from .nodes import LIKE, calls, name_of, reads, upstream
from .surrogate import Use, is_numbers
from .tracing import is_draw
from .workspace import pruned_before


@torch.no_grad()
def ones_for_zeros_(net: fx.GraphModule) -> list[str]:
    """Make ones of weights, gains and factors that are all zero, in place; returns their names.

    Where zeros stand among other weights too, a whole layer of them was pruned.
    """
    return list(dict.fromkeys([*_open_parameters(net), *_open_factors(net)]))


def _open_parameters(net: fx.GraphModule) -> list[str]:
    """Weights and gains of zeros only become ones."""
    called = calls(net.graph).keys()
    found = [
        f"{name}.weight".removeprefix(".")
        for name, module in net.named_modules()
        if (isinstance(module, PRUNABLE) or (rule := rule_of(module)) and rule.effect == "scales")
        and lies_in(name, called)
    ]
    weights = layer_weights(net)
    named = dict(net.named_parameters(remove_duplicate=False))
    read = [str(node.target) for node in net.graph.nodes if node.op == "get_attr"]
    found += [name for name in read if name in weights]
    if pruned_before(named[name] for name in weights if name in named):
        found = [name for name in found if name not in weights]
    zeros = [name for name in dict.fromkeys(found) if name in named and _is_zero(named[name])]
    for name in zeros:
        named[name].fill_(1.0)
    return zeros


def _open_factors(net: fx.GraphModule) -> list[str]:
    """Learned constants of zeros only that multiply a signal or a weight become ones."""
    named, opened = dict(net.named_parameters(remove_duplicate=False)), []
    known: dict[fx.Node, Any] = {}
    for factor, user in _factors(net):
        if not _is_zero(value_of(factor, net, known)):
            continue
        sources = [str(n.target) for n in upstream([factor], reads) if n.op == "get_attr"]
        learned = [name for name in sources if name in named]
        if all(map(is_bias, learned)):
            continue
        uses = [n for n in net.graph.nodes if named.get(str(n.target)) is named[learned[0]]]
        if factor.op == "get_attr" and len([n for n in uses if n.users]) == len(factor.users) == 1:
            named[learned[0]].fill_(1.0)  # it may have a score of its own
        else:  # what else is made of the parameter stays as it is
            with net.graph.inserting_after(factor):
                ones = net.graph.call_function(torch.ones_like, (factor,))
            user.replace_input_with(factor, ones)
        opened += learned
    return opened


def _is_zero(value: Any) -> bool:
    return is_numbers(value) and value.numel() > 0 and not bool(value.any())


def _factors(net: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """The constants that multiply a signal or a weight of a layer, each with the product."""
    flows, weights, pairs = reached(net.graph), layer_weights(net), []
    for node in net.graph.nodes:
        sources = reads(node)
        if node.op == "get_attr" and str(node.target) in weights or not flows.isdisjoint(sources):
            flows.add(node)
        if node in flows and effect_of(node) in ("scales", "weighs"):
            pairs += [(factor, node) for factor in sources if factor not in flows]
    return pairs


def value_of(node: fx.Node, net: fx.GraphModule, known: dict[fx.Node, Any]) -> Any:
    """The value of a constant; None if that takes an input.

    Where a signal's shape is needed to move it, it is the value before: zeros stay zeros.
    """
    if node.op == "get_attr":
        found = operator.attrgetter(str(node.target))(net)
        return found.clone() if isinstance(found, Tensor) else found  # what runs may write to it
    if node.op == "placeholder" or is_draw(name_of(node)):
        return None
    for source in node.all_input_nodes:
        if source not in known:
            known[source] = value_of(source, net, known)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
    try:
        if node.op == "call_module":
            return net.get_submodule(str(node.target))(*args, **kwargs)
        return Use(node, []).plain()(*args, **kwargs)
    except Exception:  # for want of an input's shape
        moves = effect_of(node) == "moves" or name_of(node) in LIKE
        return args[0] if moves and args else None
