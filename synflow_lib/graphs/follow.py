"""Units followed through a graph: every number of a tensor carries the name of its unit.

A tensor of names runs through the graph in place of the signal. What moves numbers moves names;
where numbers are added up, or mixed by what has no score, their units become one. A law of the sum
of some units holds as soon as theirs do, so to join too many can hide a law and never make one up.
Read `units` first, then `layers`: for each of its effects a method says where names go.
"""

from __future__ import annotations

import contextlib
import io
import re

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.padding import _ConstantPadNd
from torch.utils._pytree import tree_leaves

from ..batches import Inputs, inflow, is_plain
from .apart import no_law, refuse_joined
from .copies import skeleton
from .layers import rule_at
from .network import BATCH_NORM, PRUNABLE, layer_weights, trace, unwrapped
from .nodes import argument, as_list, given_inputs, is_shape, module_of, name_of, reduced, upstream
from .operations import Operations
from .units import Layer, Names, Norm, Wiring, components, names_in
from .workspace import explained_errors
from .zeros import value_of

_LAWS_FOR_ANY_R = frozenset("moves joins sums largest adds weighs own".split())
# Functions that add an argument to the signal, or put it in its place, and which one that is.
_ADDED = {
    **dict.fromkeys(("add", "sub"), ((0, "input"), (1, "other"))),
    **dict.fromkeys(
        ["linear", *(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3))],
        ((2, "bias"),),
    ),
    "addmm": ((0, "input"),),
    "where": ((1, "input"), (2, "other")),
    "masked_fill": ((2, "value"),),
    "pad": ((3, "value"),),
}


def wiring(
    model: nn.Module,
    input_shape: Inputs,
    batch_statistics: frozenset[str] = frozenset(),
    *,
    joined: bool = False,
) -> Wiring:
    """Trace which units every layer reads and writes.

    Args:
        batch_statistics: names of the BatchNorm modules that use batch statistics.
        joined: follow units through gates, and make one unit of those whose numbers are mixed: all
            that laws need. Else both are refused, and constants that hold a number for each unit,
            so that every unit can be taken out.

    Raises:
        ValueError: an operation that conservation has no law for; its name is in the message.
    """
    if not (joined or is_plain(input_shape)):
        raise ValueError(
            "what follows single units needs a network of one tensor of numbers as its input, not"
            " of tokens or of several inputs; score, prune and questions about paths take those"
        )
    traced = trace(model, input_shape)
    if traced.meta.get("exported") and not joined:
        raise ValueError(
            f"{type(model).__name__} can be traced by torch.export only, whose graph holds no"
            " layers; what follows single units needs one of torch.fx: write the forward without"
            " branches or loops on values of tensors"
        )
    return _Follower(model, traced, input_shape, batch_statistics, joined).run()


class _Values(fx.Interpreter):
    """Writes into every node its value, without numbers; skips layers that change no shape."""

    def run_node(self, node: fx.Node) -> object:
        node.meta["value"] = super().run_node(node)
        return node.meta["value"]

    def fetch_args_kwargs_from_env(self, node: fx.Node):
        args, kwargs = super().fetch_args_kwargs_from_env(node)
        args = tuple("meta" if isinstance(arg, torch.device) else as_list(arg) for arg in args)
        return args, kwargs | {"device": "meta"} if "device" in kwargs else kwargs

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if isinstance(module, (*BATCH_NORM, nn.ReLU)):
            return args[0]
        if isinstance(module, nn.Transformer):  # which reads its masks
            return args[1] if len(args) > 1 else kwargs["tgt"]
        return super().call_module(target, args, kwargs)


class _Follower:
    """One run of `wiring` on one graph."""

    def __init__(
        self,
        model: nn.Module,
        traced: fx.GraphModule,
        shape: Inputs,
        batch_statistics: frozenset[str],
        joined: bool,
    ) -> None:
        self.owner, self.traced, self.net = unwrapped(model), traced, skeleton(traced)
        self.shape, self.joined, self.batch_statistics = shape, joined, batch_statistics
        self.weights, self.operations = layer_weights(self.net), Operations(self.net)
        self.wiring, self.units = Wiring(), Names()
        self.names: dict[fx.Node, object] = {}
        self.seen: dict[int, Layer] = {}  # id of a weight -> its layer

    def run(self) -> Wiring:
        graph = self.net.graph
        like = next(self.net.parameters())
        count = 1 if self.net.meta.get("exported") else 2  # an exported graph is of a batch of one
        given = given_inputs(graph, inflow(self.shape, like, count))
        inputs = [given[node] for node in graph.nodes if node in given]
        silent = contextlib.redirect_stderr(io.StringIO())  # torch.fx prints its own traceback
        with torch.device("meta"), silent, explained_errors(self.shape, Exception):
            _Values(self.net).run(*inputs)
        for node in graph.nodes:
            if node in self.operations.on_path and (found := self.follow(node)) is not None:
                self.names[node] = found
        output = next(reversed(graph.nodes))
        ends = [self.names[n] for n in output.all_input_nodes if n in self.names]
        if not ends:
            raise ValueError("the network's output does not depend on its input")
        self.wiring.outputs = np.concatenate([names_in(names) for names in tree_leaves(ends)])
        return self.merged()

    def merged(self) -> Wiring:
        """The wiring with one number for all names that turned out to be one unit."""
        wiring = self.wiring
        unit = components(self.units.count, self.units.unions) - 1  # without that of constants
        for part in [*wiring.layers, *wiring.norms]:
            part.reads, part.writes = unit[part.reads], unit[part.writes]
        wiring.inputs, wiring.outputs = unit[np.concatenate(self.units.ends)], unit[wiring.outputs]
        wiring.added = [(name, unit[found]) for name, found in wiring.added]
        wiring.units = int(unit.max()) + 1
        groups = [unit[group] for group in self.units.groups]
        wiring.region = components(wiring.units, [(g[:-1], g[1:]) for g in groups])
        return wiring

    def follow(self, node: fx.Node) -> object:
        """Names of what a node on a path gives; None for what no path runs through."""
        value, name = node.meta["value"], str(node.target)
        if node.meta.get("looks_up"):
            return self.units.outside(value.shape, -1)
        if node.op == "placeholder":
            return self.units.outside(value.shape, 1)
        carriers = [n for n in self.operations.carriers.get(node, ()) if n in self.names]
        if node.op == "output" or not carriers or is_shape(node):
            return None
        module = module_of(node, self.operations.modules)
        if not self.joined:
            refuse_joined(self.operations, node, module, carriers)
        names = self.names[carriers[0]]
        if isinstance(module, PRUNABLE):
            return self.layer(f"{name}.weight", module, names, value.shape)
        if isinstance(module, BATCH_NORM):
            return self.norm(name, module, names, value.shape)
        rule, found = rule_at(node, module), None
        attends = rule is not None and rule.effect == "attends"
        if module is None and self.weights & self.operations.fixed.weights_of[node] and not attends:
            return self.function(node, names, value.shape)
        try:
            self.operations.build(node)
        except ValueError as error:  # what sums over paths refuse has no law
            raise no_law(node, module, str(error)) from error
        # Places that depend on the numbers of the input cannot be followed.
        with contextlib.suppress(RuntimeError, NotImplementedError):
            found = getattr(self, f"_{rule.effect}")(node, module, carriers)
        if found is None or _shapes(found) != _shapes(value):
            raise no_law(node, module)
        linear = rule.units or rule.effect in _LAWS_FOR_ANY_R
        steered = not linear or bool(self.operations.gates(node))
        if steered and not self.wiring.only_paths:
            self.wiring.only_paths = name_of(node) if module is None else name
        if self.adds_constant(node, module):
            self.wiring.added.append((node.name, names_in(found)))
        return found

    def adds_constant(self, node: fx.Node, module: nn.Module | None, bias: str = "") -> bool:
        """Whether numbers without a score come in beside the signal; those of ``bias`` have one."""
        given = [argument(node, key, place) for place, key in _ADDED.get(name_of(node), ())]
        if module is not None:
            given = [getattr(module, "value", 0)] if isinstance(module, _ConstantPadNd) else []
        reached = self.operations.reached
        return any(
            one not in reached and str(one.target) != bias if isinstance(one, fx.Node) else one
            for one in given
        )

    def layer(self, weight: str, module: nn.Module, names: Tensor, shape: torch.Size) -> Tensor:
        dim = -1 if isinstance(module, nn.Linear) else 1
        found = self.units.along(names, dim)
        parameter = id(self.owner.get_parameter(weight))  # tied weights are one
        known = self.seen.get(parameter)
        if known is None:
            known = Layer(weight.rpartition(".")[0], module, found, self.units.new(shape[dim]))
            self.seen[parameter] = known
            self.wiring.layers.append(known)
        self.units.unions.append((known.reads, found))  # used twice, a weight has one score
        return self.units.spread(known.writes, shape, dim)

    def norm(self, name: str, module: nn.Module, names: Tensor, shape: torch.Size) -> Tensor:
        found = self.units.along(names, 1)
        writes = self.units.new(len(found)) if name in self.batch_statistics else found
        self.wiring.norms.append(Norm(name, found, writes))
        return self.units.spread(writes, shape, 1)

    def function(self, node: fx.Node, names: Tensor, shape: torch.Size) -> Tensor:
        """A layer's weight that a function is given, as it is or scaled."""
        weight, *others = sorted(self.operations.fixed.weights_of[node] & self.weights)
        owner = self.owner.get_submodule(weight.rpartition(".")[0])
        given, changed = argument(node, "weight", 1), self.operations.fixed.normalized
        made = upstream([given], lambda n: changed.get(n, [])) if isinstance(given, fx.Node) else {}
        rules = [rule_at(n) for n in made if n.op != "get_attr"]
        moved = any(rule is None or rule.effect == "moves" for rule in rules)
        whole = not rules or given in changed
        layer = name_of(node) == "linear" or name_of(node).startswith("conv")
        fits = made and given.meta["value"].shape == getattr(owner, "weight", names).shape
        transposed = "transpose" in name_of(node)
        alike = argument(node, "groups", 6) or 1, transposed
        fits = fits and alike == (getattr(owner, "groups", 1), getattr(owner, "transposed", False))
        if others or moved or not (whole and layer and fits and isinstance(owner, PRUNABLE)):
            why = f"it is given {weight} and does not use it as its layer does"
            raise no_law(node, None, why)
        found = self.layer(weight, owner, names, shape)
        if self.adds_constant(node, None, f"{weight.removesuffix('weight')}bias"):
            self.wiring.added.append((node.name, names_in(found)))
        return found

    # One method for each effect of the table (`layers`) that may lie on a path. It gives the names
    # of the result, or None where units cannot be followed.

    def _passes(self, node, module, carriers) -> Tensor:
        return self.names[carriers[0]]

    def _scales(self, node, module, carriers) -> Tensor:
        return self.names[carriers[0]].expand(node.meta["value"].shape)

    def _adds(self, node, module, carriers) -> Tensor:
        first, *others = (self.names[n].expand(node.meta["value"].shape) for n in carriers)
        for other in others:
            first = self.units.join(first, other)
        return first

    def _moves(self, node, module, carriers) -> object:
        if name_of(node) == "masked_fill":
            return self.names[carriers[0]]
        if name_of(node) in ("fold", "col2im") or isinstance(module, nn.Fold):  # it adds up as well
            return None
        return self.build(node)

    _gates = _moves  # the half that is gated goes on

    def build(self, node: fx.Node, run=None) -> object:
        def value(n: fx.Node) -> object:
            held = self.names.get(n, n.meta["value"])
            if not isinstance(held, Tensor) or not held.is_meta:
                return held
            if held.is_floating_point():
                return torch.zeros(held.shape, dtype=torch.float64, device="cpu")
            found = value_of(n, self.traced, {})  # an index, which has to have its numbers
            if found is None:
                raise NotImplementedError
            return found.cpu()

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        return (run or self.operations.build(node))(*args, **kwargs)

    def _joins(self, node, module, carriers) -> Tensor:
        if name_of(node) == "where":
            return self._adds(node, module, carriers)
        tokens = self.operations.fixed.learned.intersection(node.all_input_nodes)
        for token in tokens:  # paths begin there
            self.names[token] = self.units.outside(token.meta["value"].shape, -1)
        found = self.build(node, node.target)
        for token in tokens:
            del self.names[token]
        self.units.groups.append(names_in(found))
        return found

    def _sums(self, node, module, carriers) -> object:
        names, value, kind = self.names[carriers[0]], node.meta["value"], name_of(node, module)
        if module is None and kind in ("sum", "mean", "amax", "amin", "max", "cumsum", "topk"):
            over = reduced(node, names.dim(), 2 if kind == "topk" else 1)
        elif "pool" in kind and "unpool" not in kind:
            over = range(-int(re.search(r"(\d)d", kind)[1]), 0)
        else:
            over = range(2, names.dim())
        several, over = not isinstance(value, Tensor), [dim % names.dim() for dim in over]
        shape, found = (value[0] if several else value).shape, self.units.gather(names, over)
        found = found if found.dim() == len(shape) else found.squeeze(over)
        return (found.expand(shape), *value[1:]) if several else found.expand(shape)

    def _largest(self, node, module, carriers) -> object:
        two = name_of(node) in ("maximum", "minimum") or isinstance(
            argument(node, "other", 1), fx.Node
        )
        return (self._adds if two else self._sums)(node, module, carriers)

    def _weighs(self, node, module, carriers) -> Tensor:
        names, shape = self.names[carriers[0]], node.meta["value"].shape
        if name_of(node) in ("matmul", "bmm", "mm") and self.operations.gates(node):  # attention
            return self.units.gather(names, [-1 if node.args[0] is carriers[0] else -2]).expand(
                shape
            )
        return self.units.gather(names, range(names.dim())).flatten()[0].expand(shape)

    def _attends(self, node, module, carriers) -> object:
        names, value = self.names[carriers[0]], node.meta["value"]
        if name_of(node) == "scaled_dot_product_attention":
            found = self.units.gather(names, [-2])
            if found.dim() > 2:  # several queries may share a value
                found = found.repeat_interleave(value.shape[-3] // found.shape[-3], -3)
            return found.expand(value.shape)
        if isinstance(module, nn.MultiheadAttention):
            return (self.heads(str(node.target), module, names, value[0].shape), *value[1:])
        if isinstance(module, nn.Transformer):
            memory = self.stack(f"{node.target}.encoder", module.encoder, names)
            names = self.names[carriers[1]]
            return self.stack(f"{node.target}.decoder", module.decoder, names, memory)
        if module is None:  # torchvision's windows
            both = [str(n.target) for n in node.args[1:3]]
            inner, outer = (self.owner.get_submodule(name.rpartition(".")[0]) for name in both)
            packed = torch.Size([*names.shape[:-1], inner.out_features])
            made = self.layer(both[0], inner, names, packed)[..., -outer.in_features :]
            return self.layer(both[1], outer, made, value.shape)
        return self.stack(str(node.target), module, *(self.names[n] for n in carriers))

    def heads(self, name: str, module: nn.Module, names: Tensor, shape: torch.Size) -> Tensor:
        # Packed projections have no scores.
        one = self.units.gather(names, range(names.dim())).expand(shape)
        return self.layer(f"{name}.out_proj.weight", module.out_proj, one, shape)

    def stack(
        self, name: str, module: nn.Module, names: Tensor, memory: Tensor | None = None
    ) -> Tensor:
        """An encoder, a decoder with its ``memory``, or a layer of one."""
        if not hasattr(module, "self_attn"):
            for number, layer in enumerate(module.layers):
                names = self.stack(f"{name}.layers.{number}", layer, names, memory)
            return names
        for part, source in (("self_attn", names), ("multihead_attn", memory)):
            if source is not None:
                found = self.heads(f"{name}.{part}", getattr(module, part), source, names.shape)
                names = self.units.join(names, found)
        hidden = torch.Size([*names.shape[:-1], module.linear1.out_features])
        inner = self.layer(f"{name}.linear1.weight", module.linear1, names, hidden)
        found = self.layer(f"{name}.linear2.weight", module.linear2, inner, names.shape)
        return self.units.join(names, found)

    def _own(self, node, module, carriers) -> Tensor | None:
        """A user's rule; with ``units`` channel i is made of channel i alone."""
        if not rule_at(node, module).units or len(carriers) > 1:
            return None
        names, shape = self.units.along(self.names[carriers[0]], 1), node.meta["value"].shape
        return self.units.spread(names, shape, 1) if shape[1] == len(names) else None


def _shapes(value: object) -> list[torch.Size]:
    return [leaf.shape for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
