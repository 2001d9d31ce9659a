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
from .graphs.nodes import as_list, given_inputs, is_source
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
        """Where branches meet -> the arguments that no path through the fewest weights comes by."""
        fewest, detours = fewest_weights(self.operations, names), {}
        for node, sources in self.operations.carriers.items():
            needs = {source: len(fewest[source][0].names) for source in sources}
            if longer := [source for source in sources if needs[source] > min(needs.values())]:
                detours[node] = longer
        return detours

    def __call__(
        self,
        x: Inputs,
        after: Callable[[fx.Node, dict[fx.Node, Tensor]], None] | None = None,
        *,
        signs: bool = False,
        shortest: bool = False,
        tokens: bool = True,
    ) -> Tensor:
        """Total outflow, the sum of all outputs, for ``x`` (see `batches.inflow`).

        ``after(node, live)`` is called after each node with the values still needed; it may
        replace them. The live values at any time form a cut of the graph: multiplying all of them
        by one number multiplies the outflow by that number. With ``signs`` all are 1 where there is
        a path and 0 where there is none. With ``shortest`` only the paths through the fewest
        weights count: where branches meet, longer ones are zero. Without ``tokens`` no paths begin
        at learned tokens, only at the input.
        """
        given = given_inputs(self.graph, x)
        # Held from the start under the node where it joins, so that the rescaler scales it as well.
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
                    values = values | {n: torch.zeros_like(live[n]) for n in self.detours[node]}
                if signs and node in self.weighted:
                    values = values | self._factors(node, values)
                args = [_fetch(arg, values) for arg in node.args]
                kwargs = {key: _fetch(arg, values) for key, arg in node.kwargs.items()}
                if signs and node in self.weighted and kwargs.get("alpha"):  # of addmm
                    kwargs["alpha"] = 1
                if node in live:
                    kwargs["token"] = live[node]
                (live if on_path else constants)[node] = step.run(*args, **kwargs)
                if signs and on_path:
                    live[node] = self._signs(node, live[node])
            for used in step.done:
                live.pop(used, None)
                constants.pop(used, None)
            if after is not None and step.run is not None and node in live:
                after(node, live)
        raise AssertionError("a torch.fx graph ends with its output")

    def _factors(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """What a signal is weighted with, as 0 and 1, whatever scales it (see `_signs`)."""
        factors = [n for n in node.all_input_nodes if n not in self.operations.carriers[node]]
        return {n: _sign(values[n]) for n in factors if n in values}

    def _signs(self, node: fx.Node, value):
        """Whether there is a path at all, in place of sums over paths.

        Signals and weights are 0 and 1, so that behind a layer sums are whole numbers: one half
        tells zero from one also where a fast convolution does not return an exact zero.
        """
        threshold = 0.5 if node in self.weighted else 0.0
        return tree_map(lambda t: _Positive.apply(t, threshold) if is_numbers(t) else t, value)


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


def _sign(value):
    """1 for each number that is not zero, of tensors of numbers; all else as it is."""
    return tree_map(lambda t: _Positive.apply(t.abs(), 0.0) if is_numbers(t) else t, value)


@dataclass(frozen=True)
class PathWeights:
    """Names of the layer weights that a path runs through; ``reused``, those it meets twice."""

    names: frozenset[str] = frozenset()
    reused: frozenset[str] = frozenset()

    def through(self, weights: frozenset[str]) -> PathWeights:
        """The same path, continued through ``weights``."""
        return PathWeights(self.names | weights, self.reused | self.names & weights)


def fewest_weights(
    operations: Operations, names: Iterable[str]
) -> dict[fx.Node, list[PathWeights]]:
    """For every node on a path, the paths to it that need fewest weights, the best first.

    ``names`` are the parameters that count. A weight used twice counts once, so one path is not
    enough: a longer one may win in the end if it has met a weight that comes again later.
    """
    names, fewest = set(names), {}
    first: dict[int, str] = {}  # where modules share one weight it counts under the first name
    named = operations.net.named_parameters(remove_duplicate=False)
    first_name = {name: first.setdefault(id(weight), name) for name, weight in named}
    weights_at: dict[fx.Node, frozenset[str]] = {}
    for node in operations.on_path:
        beside = operations.signals.effect(node) in ("adds", "joins")  # no factor of the path
        weights = () if beside or is_source(node) else operations.fixed.weights_of[node]
        weights_at[node] = frozenset(first_name.get(name, name) for name in weights) & names
    count = Counter(name for weights in weights_at.values() for name in weights)
    shared = {name for name, uses in count.items() if uses > 1}
    for node in operations.nodes:
        if is_source(node):
            fewest[node] = [PathWeights()]
        elif node in operations.on_path:
            before = (fewest.get(source, ()) for source in operations.carriers[node])
            if paths := [path.through(weights_at[node]) for group in before for path in group]:
                fewest[node] = _unbeaten(paths, shared)
    return fewest


def _unbeaten(paths: list[PathWeights], shared: set[str]) -> list[PathWeights]:
    """The paths that may still need fewest, whichever ``shared`` weights are met after them."""
    best: list[PathWeights] = []
    for path in sorted(paths, key=lambda path: (len(path.names), len(path.reused))):
        if all(len(other.names | path.names & shared) > len(path.names) for other in best):
            best.append(path)
    return best
