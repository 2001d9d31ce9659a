"""The network as a system of pipes: non-negative weights, no constants, everything linear.

SynFlow's objective R = 1^T (prod |W|) 1 and the question whether any path of kept weights joins
input to output are the same computation, a sum over paths, on different numbers. `Pipes` runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from .graph import BATCH_NORM, PRUNABLE, fewest_weights, trace

_IDENTITY = (nn.modules.dropout._DropoutNd, nn.Softmax, nn.LogSoftmax)
# Normalizations without stored statistics: what is linear in them is their scale.
_SCALE = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
_ACTIVATION_FUNCTIONS = {
    getattr(nn.functional, name)
    for name in (
        "relu relu6 leaky_relu elu gelu silu mish hardswish hardtanh selu celu softplus tanh"
        " sigmoid hardsigmoid softmax log_softmax dropout dropout2d dropout3d alpha_dropout"
    ).split()
} | {torch.relu, torch.tanh, torch.sigmoid, torch.softmax, torch.log_softmax}
_ACTIVATION_METHODS = {"relu", "relu_", "tanh", "sigmoid", "softmax", "log_softmax"}


class Pipes(nn.Module):
    """Runs a linearized network node by node, so that the caller can rescale on the way.

    Activations, dropout and softmax pass their input through: on non-negative numbers ReLU is the
    identity, and the paths do not depend on the shape of an activation. Where the network cannot
    be traced its own forward runs instead and nothing is rescaled.

    Args:
        net: a linearized working copy (see `linearize_`).
        sum_pools: let max-pooling pass every path, not only that of the largest input. The
            network's function takes the largest; the set of its paths holds them all.
        names: the weights that count for the length of a path, for ``shortest``.
        skip: names of modules that pass their input through (BatchNorm folded into a weight).
        layer: gives what runs in place of a weight layer, or None for the module itself.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        sum_pools: bool = False,
        names: Iterable[str] = (),
        skip: Iterable[str] = (),
        layer: Callable[[nn.Module], Callable[[Tensor], Tensor] | None] = lambda module: None,
    ) -> None:
        super().__init__()
        self.net, self.layer = net, layer
        self.sum_pools = sum_pools
        self.detours: dict[fx.Node, list[fx.Node]] = {}
        self.steps: list[_Step] = []
        try:
            self.graph: fx.Graph | None = trace(net).graph
        except ValueError:
            self.graph = None
            return
        self.modules_by_name = dict(net.named_modules())
        skip = set(skip)
        last_use = {}
        for node in self.graph.nodes:
            last_use[node] = node
            last_use |= dict.fromkeys(node.all_input_nodes, node)
        for node in self.graph.nodes:
            done = [used for used in [*node.all_input_nodes, node] if last_use[used] is node]
            if node.op == "placeholder" and str(node.prev.op) == "placeholder" and not node.args:
                raise ValueError(
                    f"the network takes a second input, {node.target!r}; expected one tensor."
                    " Wrap it in a module with a single input"
                )
            self.steps.append(_Step(node, self._operation(node, skip), list(dict.fromkeys(done))))
        if names:
            used = fewest_weights(self.graph, names)
            for node in used:
                ways = [source for source in node.all_input_nodes if source in used]
                least = min((len(used[way]) for way in ways), default=0)
                longer = [way for way in ways if len(used[way]) > least]
                if longer:
                    self.detours[node] = longer

    def forward(
        self,
        x: Tensor,
        after: Callable[[fx.Node, dict[fx.Node, Tensor]], None] | None = None,
        *,
        shortest: bool = False,
    ) -> Tensor:
        """Total outflow, the sum of all outputs, for inflow ``x`` of shape (1, *input_shape).

        ``after(node, live)`` is called after each node with the values still needed; it may
        replace them. The live values at any time form a cut of the graph: multiplying all of them
        by one number multiplies the outflow by that number. With ``shortest`` only the paths
        through the fewest weights count: where branches meet, longer ones bring nothing.
        """
        if self.graph is None:
            return _total(self.net(x))
        live: dict[fx.Node, Tensor] = {}
        for step in self.steps:
            node = step.node
            if node.op == "output":
                return _total(_fetch(node.args[0], live))
            if node.op == "placeholder":
                live[node] = node.args[0] if str(node.prev.op) == "placeholder" else x
            elif step.run is None:
                live[node] = live[node.all_input_nodes[0]]
            else:
                values = live
                if shortest and node in self.detours:
                    nothing = {way: torch.zeros_like(live[way]) for way in self.detours[node]}
                    values = live | nothing
                args = [_fetch(arg, values) for arg in node.args]
                kwargs = {key: _fetch(arg, values) for key, arg in node.kwargs.items()}
                live[node] = step.run(*args, **kwargs)
            for used in step.done:
                del live[used]
            if after is not None and step.run is not None and node in live:
                after(node, live)
        raise AssertionError("a torch.fx graph ends with its output")

    def _operation(self, node: fx.Node, skip: set[str]) -> Callable | None:
        """What a node computes; None where it passes its (first) input through."""
        if node.op in ("placeholder", "output"):
            return None
        if node.op == "get_attr":
            return lambda: functools.reduce(getattr, str(node.target).split("."), self.net)
        if node.op == "call_method":
            if node.target in _ACTIVATION_METHODS:
                return None
            return lambda tensor, *args, **kw: getattr(tensor, str(node.target))(*args, **kw)
        if node.op == "call_function":
            if self.sum_pools and node.target in _MAX_POOLS:
                return _MAX_POOLS[node.target]
            return None if node.target in _ACTIVATION_FUNCTIONS else node.target
        module = self.modules_by_name[str(node.target)]
        if node.target in skip or isinstance(module, _IDENTITY) or _is_activation(module):
            return None
        if isinstance(module, _SCALE) or _uses_batch_statistics(module):
            return functools.partial(_scaled, module)
        own = self.layer(module) if isinstance(module, PRUNABLE) else None
        return own or (_sum_pool(module) if self.sum_pools else None) or module


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
        return fx.node.map_arg(argument, live.__getitem__)
    return argument


def _total(output) -> Tensor:
    return sum(leaf.sum() for leaf in tree_leaves(output) if isinstance(leaf, Tensor))


def _uses_batch_statistics(module: nn.Module) -> bool:
    return isinstance(module, BATCH_NORM) and module.running_var is None


def _scaled(module: nn.Module, x: Tensor) -> Tensor:
    scale = getattr(module, "weight", None)
    if scale is None:
        return x
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return x * scale
    return x * scale.view(1, -1, *[1] * (x.dim() - 2))


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(
        module, nn.MultiheadAttention
    )


def _sum_pool(module: nn.Module) -> Callable | None:
    for dims in (1, 2, 3):
        if isinstance(module, getattr(nn, f"MaxPool{dims}d")):
            return lambda x, dims=dims: _window_sum(
                dims, x, module.kernel_size, module.stride, module.padding, module.dilation,
                module.ceil_mode,
            )  # fmt: skip
        if isinstance(module, getattr(nn, f"AdaptiveMaxPool{dims}d")):
            pool = getattr(nn.functional, f"adaptive_avg_pool{dims}d")
            return lambda x, pool=pool: pool(x, module.output_size)
    return None


def _window_sum(dims, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **_):
    """Max-pooling as a positive sum over the same windows: positive where any input is."""
    if dilation not in (1, (1,) * dims):
        raise ValueError(f"max-pooling with dilation={dilation} has no sum over the same windows")
    return getattr(nn.functional, f"avg_pool{dims}d")(x, kernel_size, stride, padding, ceil_mode)


_MAX_POOLS = {
    function: (lambda *a, _dims=dims, **k: _window_sum(_dims, *a, **k))
    for dims in (1, 2, 3)
    for function in (
        getattr(nn.functional, f"max_pool{dims}d"),
        getattr(torch, f"max_pool{dims}d"),
    )
}


class _Positive(torch.autograd.Function):
    """1 above a threshold, in both directions: path sums that cannot overflow or round away."""

    @staticmethod
    def forward(ctx, x, threshold):
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return (gradient > 0).to(gradient.dtype), None


class Signs:
    """An ``after`` for `Pipes`: replaces path sums by whether there is a path at all.

    Behind a weight layer path sums are whole numbers, so one half tells zero from one also where a
    fast convolution algorithm does not return an exact zero.
    """

    def __init__(self, net: nn.Module) -> None:
        self.modules = dict(net.named_modules())

    def __call__(self, node: fx.Node, live: dict[fx.Node, Tensor]) -> None:
        if node.op == "get_attr":
            return
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        threshold = 0.5 if isinstance(module, PRUNABLE) else 0.0
        live[node] = tree_map(
            lambda t: (
                _Positive.apply(t, threshold) if torch.is_tensor(t) and t.is_floating_point() else t
            ),
            live[node],
        )
