"""The network as a system of pipes: non-negative weights, no constants, everything linear.

SynFlow's objective R = 1^T (prod |W|) 1 and the question whether any path of kept weights joins
input to output are the same computation, a sum over paths, on different numbers. `Pipes` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
        "relu relu6 leaky_relu elu gelu silu mish hardswish hardtanh selu celu softplus tanh sigmoid"
        " hardsigmoid softmax log_softmax dropout dropout2d dropout3d alpha_dropout"
    ).split()
} | {torch.relu, torch.tanh, torch.sigmoid, torch.softmax, torch.log_softmax}
_ACTIVATION_METHODS = {"relu", "relu_", "tanh", "sigmoid", "softmax", "log_softmax"}


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
    """

    def __init__(
        self, net: nn.Module, *, sum_pools: bool = False, names: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.net = net
        try:
            self.graph: fx.Graph | None = trace(net).graph
        except ValueError:
            self.graph = None
        self.sum_pools = sum_pools
        self.detours: dict[fx.Node, list[fx.Node]] = {}
        if self.graph is not None and names:
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
        waiting = {node: len(node.users) for node in self.graph.nodes}
        live: dict[fx.Node, Tensor] = {}
        modules = dict(self.net.named_modules())
        for node in self.graph.nodes:
            if node.op == "output":
                return _total(fx.node.map_arg(node.args[0], live.__getitem__))
            values = live
            if shortest and node in self.detours:
                values = live | {way: torch.zeros_like(live[way]) for way in self.detours[node]}
            live[node] = self._run(node, values, modules, x)
            for used in node.all_input_nodes:
                waiting[used] -= 1
                if not waiting[used]:
                    del live[used]
            if after is not None:
                after(node, live)
        raise AssertionError("a torch.fx graph ends with its output")

    def _run(self, node: fx.Node, live: dict, modules: dict[str, nn.Module], x: Tensor):
        args = fx.node.map_arg(node.args, live.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, live.__getitem__)
        if node.op == "placeholder":
            if str(node.prev.op) == "placeholder":  # a second input
                if node.args:
                    return node.args[0]  # has a default
                raise ValueError(
                    f"the network takes a second input, {node.target!r}; expected one tensor."
                    " Wrap it in a module with a single input"
                )
            return x
        if node.op == "get_attr":
            value = self.net
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value
        if node.op == "call_module":
            module = modules[str(node.target)]
            if isinstance(module, _IDENTITY) or _is_activation(module):
                return args[0]
            if isinstance(module, _SCALE) or _uses_batch_statistics(module):
                return _scaled(module, args[0])
            if self.sum_pools:
                pooled = _sum_pool(module, args[0])
                if pooled is not None:
                    return pooled
            return module(*args, **kwargs)
        if node.op == "call_method":
            if node.target in _ACTIVATION_METHODS:
                return args[0]
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.target in _ACTIVATION_FUNCTIONS:
            return args[0]
        if self.sum_pools and node.target in _MAX_POOLS:
            return _MAX_POOLS[node.target](*args, **kwargs)
        return node.target(*args, **kwargs)


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


def _sum_pool(module: nn.Module, x: Tensor) -> Tensor | None:
    for dims in (1, 2, 3):
        if isinstance(module, getattr(nn, f"MaxPool{dims}d")):
            return _window_sum(
                dims, x, module.kernel_size, module.stride, module.padding, module.dilation,
                module.ceil_mode,
            )  # fmt: skip
        if isinstance(module, getattr(nn, f"AdaptiveMaxPool{dims}d")):
            return getattr(nn.functional, f"adaptive_avg_pool{dims}d")(x, module.output_size)
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


class Rescaler:
    """Keeps activations near 1 by exact powers of two, and remembers their product.

    Called after each weight layer, it divides every live value by the same power of two. The live
    values are a cut, so all paths, and with them all scores, are scaled alike: the order of the
    scores is that of the unscaled network while R of ResNet-1202 would overflow float64. Nothing
    here waits for the device.
    """

    def __init__(self, net: nn.Module) -> None:
        self.modules = dict(net.named_modules())
        self.log2_scale: Tensor | int = 0

    def __call__(self, node: fx.Node, live: dict[fx.Node, Tensor]) -> None:
        if node.op != "call_module" or not isinstance(self.modules[str(node.target)], PRUNABLE):
            return
        _, exponent = torch.frexp(live[node].detach().amax())
        factor = torch.ldexp(torch.ones_like(exponent, dtype=live[node].dtype), -exponent)
        for key, value in live.items():
            if key.op != "get_attr":
                live[key] = tree_map(lambda t: t * factor if torch.is_tensor(t) else t, value)
        self.log2_scale = self.log2_scale + exponent


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
