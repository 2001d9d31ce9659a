"""Sums over paths: SynFlow's R, and whether any path is left, are one computation.

A path is a product of weights from one input to one output. R = 1^T (prod |W|) 1 adds up all of
them; on zeros and ones the same sum says whether kept weights join input to output. `PathSum` runs
it on weights that are not negative, with what `graphs.layers` (read it first) says in place of
every node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from .batches import Inputs
from .graphs.network import PRUNABLE
from .graphs.nodes import as_list, bound, is_source
from .graphs.operations import Operations
from .graphs.surrogate import is_numbers


class PathSum:
    """Runs a linearized network node by node, so that the caller can rescale on the way.

    Args:
        net: a traced and linearized working copy (see `synflow_lib.synflow.linearize_`).
        sum_pools: let max-pooling pass every path (see `Operations`).
        names: the weights that count for the length of a path, for ``shortest``.
        skip: names of modules that pass their input through (BatchNorm folded into a weight).
        layer: gives what runs in place of a weight layer, or None for the module itself.
        biases: constants count as well, in modules and functions.

    Raises:
        ValueError: an operation that is not known.
    """

    def __init__(
        self,
        net: fx.GraphModule,
        *,
        sum_pools: bool = False,
        names: Iterable[str] = (),
        skip: Iterable[str] = (),
        layer: Callable[[nn.Module], Callable[[Tensor], Tensor] | None] = lambda module: None,
        biases: bool = False,
    ) -> None:
        self.net, self.graph = net, net.graph
        self.operations = operations = Operations(net, sum_pools=sum_pools, biases=biases)
        self.steps: list[_Step] = []
        self.tokens: list[fx.Node] = []  # where a learned token joins, an input of its own
        self.tables: list[fx.Node] = []  # where tokens of the input are looked up
        self.weighted = {  # where the signal meets the weight of a layer
            node for node in operations.on_path if operations.signals.effect(node) == "weighs"
        }
        self.detours = self._detours(names) if names else {}
        skip = set(skip)
        last_use = {}
        for node in operations.nodes:
            last_use[node] = node
            last_use |= dict.fromkeys(node.all_input_nodes, node)
        for node in operations.nodes:
            done = [used for used in [*node.all_input_nodes, node] if last_use[used] is node]
            if node in operations.on_path and node.op == "call_module" and node.target in skip:
                run = None
            else:
                run = operations.run(node)
                if node in operations.on_path and isinstance(run, PRUNABLE):
                    run = layer(run) or run
            self.steps.append(_Step(node, run, list(dict.fromkeys(done))))
            if getattr(run, "takes_token", False):
                (self.tables if is_source(node) else self.tokens).append(node)

    def _detours(self, names: Iterable[str]) -> dict[fx.Node, list[fx.Node]]:
        """Where branches meet, those that bring paths through more weights than the fewest."""
        used, found = fewest_weights(self.operations, names), {}
        for node, ways in self.operations.carriers.items():
            needs = {way: len(used[way][0].names) for way in ways}
            if longer := [way for way in ways if needs[way] > min(needs.values())]:
                found[node] = longer
        return found

    def __call__(
        self,
        x: Inputs,
        after: Callable[[fx.Node, dict[fx.Node, Tensor]], None] | None = None,
        *,
        shortest: bool = False,
        tokens: bool = True,
    ) -> Tensor:
        """Total outflow, the sum of all outputs, for ``x`` (see `batches.inflow`).

        ``after(node, live)`` is called after each node with the values still needed; it may
        replace them. The live values at any time form a cut of the graph: multiplying all of them
        by one number multiplies the outflow by that number. With ``shortest`` only the paths
        through the fewest weights count: where branches meet, longer ones bring nothing. Without
        ``tokens`` only those from the input.
        """
        given = bound(self.graph, x)
        # A token is alive from the start, under the node where it joins: it is rescaled with all.
        like = next(self.net.parameters())
        token = like.new_ones(()) if tokens and not shortest else like.new_zeros(())
        live: dict[fx.Node, Tensor] = dict.fromkeys(self.tokens, token)
        live |= dict.fromkeys(self.tables, like.new_ones(()))
        constants: dict[fx.Node, object] = {}
        for step in self.steps:
            node = step.node
            on_path = node in self.operations.on_path
            if node.op == "output":
                # None stands for a constant, which lies on no path: `_total` leaves it out.
                return _total(_fetch(node.args[0], live | dict.fromkeys(constants)))
            if node.op == "placeholder":
                (live if on_path else constants)[node] = given[node]
            elif step.run is None:
                live[node] = live[self.operations.carriers[node][0]]
            else:
                values = live
                if constants:
                    values = values | constants
                if node in self.operations.still:  # what steers reads no numbers of the signal
                    inputs = {n: live[n] for n in node.all_input_nodes if n in live}
                    values = values | tree_map_only(Tensor, torch.zeros_like, inputs)
                for gate, value in self.operations.gate_values.get(node, {}).items():
                    values = values | {gate: torch.full_like(values[gate], value)}
                if shortest and node in self.detours:
                    nothing = {way: torch.zeros_like(live[way]) for way in self.detours[node]}
                    values = values | nothing
                args = [_fetch(arg, values) for arg in node.args]
                kwargs = {key: _fetch(arg, values) for key, arg in node.kwargs.items()}
                if node in live:
                    kwargs["token"] = live[node]
                (live if on_path else constants)[node] = step.run(*args, **kwargs)
            for used in step.done:
                live.pop(used, None)
                constants.pop(used, None)
            if after is not None and step.run is not None and node in live:
                after(node, live)
        raise AssertionError("a torch.fx graph ends with its output")


@dataclass(frozen=True)
class _Step:
    """One node, what it runs (None: it passes its input on), and the values no one needs after."""

    node: fx.Node
    run: Callable | None
    done: list[fx.Node]


def _fetch(argument, live: dict[fx.Node, Tensor]):
    if isinstance(argument, fx.Node):
        return live[argument]
    if isinstance(argument, (tuple, list, dict, slice)):
        return as_list(fx.node.map_arg(argument, live.__getitem__))
    return argument


def _total(output) -> Tensor:
    parts = [leaf.sum() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if not parts:
        raise ValueError(
            f"the network returns {type(output).__name__} without any tensor that depends on its"
            " input; expected a tensor, or tensors in a dict, list or tuple. Of whole numbers, such"
            " as tokens, paths begin at what torch.nn.Embedding or torch.nn.functional.embedding"
            " looks up, and nowhere else"
        )
    return sum(parts[1:], parts[0])


class _Positive(torch.autograd.Function):
    """1 above a threshold, in both directions: path sums that cannot overflow or round away."""

    @staticmethod
    def forward(ctx, x, threshold):
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return (gradient > 0).to(gradient.dtype), None


class Signs:
    """An ``after`` for `PathSum`: replaces path sums by whether there is a path at all.

    Behind a weight layer path sums are whole numbers, so one half tells zero from one also where a
    fast convolution algorithm does not return an exact zero.
    """

    def __init__(self, paths: PathSum) -> None:
        self.paths = paths

    def __call__(self, node: fx.Node, live: dict[fx.Node, Tensor]) -> None:
        threshold = 0.5 if node in self.paths.weighted else 0.0
        live[node] = tree_map(
            lambda t: _Positive.apply(t, threshold) if is_numbers(t) else t, live[node]
        )


@dataclass(frozen=True)
class Way:
    """The weights on a path, by name, and those that it uses more than once."""

    names: frozenset[str] = frozenset()
    again: frozenset[str] = frozenset()

    def through(self, own: frozenset[str]) -> Way:
        return Way(self.names | own, self.again | self.names & own)


def fewest_weights(operations: Operations, names: Iterable[str]) -> dict[fx.Node, list[Way]]:
    """For every node that a path runs through, the ways that need fewest weights, the best first.

    ``names`` are the parameters that count; a weight used twice counts once, so a longer way may
    still be the better one if it has used what comes later.
    """
    names, used = set(names), {}
    first_name = _first_names(operations.net)
    own: dict[fx.Node, frozenset[str]] = {}
    for node in operations.on_path:
        beside = operations.signals.effect(node) in ("adds", "joins")  # no factor of the path
        weights = () if beside or is_source(node) else operations.fixed.weights_of[node]
        own[node] = frozenset(first_name.get(name, name) for name in weights) & names
    count = Counter(name for weights in own.values() for name in weights)
    shared = {name for name, uses in count.items() if uses > 1}
    for node in operations.nodes:
        if is_source(node):
            used[node] = [Way()]
        elif node in operations.on_path:
            sources = (used.get(source, ()) for source in operations.carriers[node])
            if ways := [way.through(own[node]) for source in sources for way in source]:
                used[node] = _best(ways, shared)
    return used


def _best(ways: list[Way], shared: set[str]) -> list[Way]:
    """The ways that no other beats, whatever weights are used after them."""
    found: list[Way] = []
    for way in sorted(ways, key=lambda way: (len(way.names), len(way.again))):
        if all(len(one.names | way.names & shared) > len(way.names) for one in found):
            found.append(way)
    return found


def _first_names(model: nn.Module) -> dict[str, str]:
    """Name of a parameter -> the first of its names, where modules share one weight."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: first.setdefault(id(parameter), name) for name, parameter in named}
