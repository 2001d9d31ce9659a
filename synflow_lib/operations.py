"""What the operations of a network do to sums over paths; what is not listed is refused.

A path is a product of weights from one input to one output. Activations pass it on, sums join
paths, and what the input does not reach is a constant: added, it lies on no path; as a factor it
counts by its absolute value, for signs are no part of SynFlow's objective. Two values of the input
that multiply each other, a gate or attention, make no such paths.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Container
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .graph import BATCH_NORM, PRUNABLE, is_shape, layer_weights, warn
from .tracing import DRAWS

Run = Callable[..., Any]

# The second value gives a shape, a type or a device, and none of its numbers.
_LIKE = frozenset("view_as reshape_as expand_as type_as to".split())
# What comes out is what came in: paths do not depend on the shape of an activation.
PASSED = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardtanh softplus tanh sigmoid"
    " hardsigmoid softmax log_softmax softmin prelu rrelu softsign tanhshrink softshrink hardshrink"
    " logsigmoid threshold clamp clip clamp_min clamp_max normalize local_response_norm dropout"
    " dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout stochastic_depth neg abs"
    " positive clone to type type_as float double half bfloat16 cuda cpu detach".split()
)
# Numbers that are moved, repeated or left out.
MOVED = frozenset(
    "view view_as reshape reshape_as flatten unflatten ravel permute transpose t swapaxes swapdims"
    " movedim moveaxis squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave"
    " tile getitem index_select select narrow chunk split tensor_split unbind roll flip rot90"
    " unfold fold diagonal contiguous T mT pixel_shuffle pixel_unshuffle channel_shuffle".split()
)
# Sums with weights that are not negative, and places that the input's order decides.
SUMMED = frozenset(
    "sum mean cumsum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
    " adaptive_avg_pool3d max_unpool1d max_unpool2d max_unpool3d".split()
)
JOINED = frozenset("cat concat concatenate stack hstack vstack dstack".split())
PRODUCTS = frozenset(
    "matmul mm bmm mv linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d"
    " conv_transpose3d einsum".split()
)
MAX_POOLS = frozenset(
    f"{kind}max_pool{dims}d{end}"
    for kind in ("", "adaptive_")
    for dims in (1, 2, 3)
    for end in ("", "_with_indices")
)
_INTERPOLATIONS = {"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area"}
_ROOMS = {"torch", "torch.nn.functional", "torch._C._nn", "torch.functional", "_operator"}
_SYNONYMS = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "imatmul": "matmul",
    "truediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "rsub": "sub",
    "subtract": "sub", "pos": "positive", "negative": "neg", "absolute": "abs",
}  # fmt: skip
_MOVED_MODULES = (
    nn.Flatten, nn.Unflatten, nn.Fold, nn.Unfold, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ChannelShuffle, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.padding._ReflectionPadNd, nn.modules.padding._ReplicationPadNd,
    nn.modules.padding._CircularPadNd, nn.modules.pooling._MaxUnpoolNd,
)  # fmt: skip
_PASSED_MODULES = (
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.LocalResponseNorm,
    nn.CrossMapLRN2d,
)
_MAX_POOL_MODULES = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)
# Normalizations without stored statistics: what is linear in them is their scale.
_SCALES = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)


def name_of(node: fx.Node) -> str:
    """The operation's usual name, one for function, method, operator and in-place form."""
    if node.op == "call_method":
        name = str(node.target)
    elif node.target is getattr:
        name = str(node.args[1])
    else:
        name = getattr(node.target, "__name__", str(node.target))
        room = getattr(node.target, "__module__", "") or ""
        if room not in _ROOMS and name != "stochastic_depth":
            return f"{room}.{name}"
    return _SYNONYMS.get(name.removesuffix("_"), name.removesuffix("_"))


def uses(node: fx.Node, of: Container[fx.Node]) -> list[fx.Node]:
    """The arguments of ``node`` that are in ``of``, in order, each as often as it is used."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n) if n in of else None)
    return found


def reached(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose numbers depend on those of the input; the others are constants."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.op == "placeholder":
            found.update([node] if str(node.prev.op) != "placeholder" else [])
        elif node.op == "call_method" and str(node.target).endswith("_as"):  # only the shape
            found.update([node] if node.args[0] in found else [])
        elif found.intersection(sources) and not is_shape(node):
            found.add(node)
    return found


class Operations:
    """What runs in place of the nodes of a graph, so that sums over paths come out.

    Args:
        graph, modules: of a linearized network (see `synflow_lib.linear`).
        every: let max-pooling pass every path, not only that of the largest input. The network's
            function takes the largest; the set of its paths holds them all.
        biases: keep biases that functions are given.
    """

    def __init__(
        self,
        graph: fx.Graph,
        modules: dict[str, nn.Module],
        *,
        every: bool = False,
        biases: bool = False,
    ) -> None:
        self.modules, self.every, self.biases = modules, every, biases
        self.flows = reached(graph)
        weights = layer_weights(modules[""])
        parameters = {n for n, _ in modules[""].named_parameters(remove_duplicate=False)}
        self.learned: set[fx.Node] = set()  # constants made of parameters that are no weights
        self.computed: dict[fx.Node, bool] = {}  # constants made of weights: not only moved?
        for node in graph.nodes:
            if node in self.flows or is_shape(node):
                continue
            made = [self.computed[n] for n in node.all_input_nodes if n in self.computed]
            if node.op == "get_attr" and str(node.target) in weights:
                self.computed[node] = False
            elif node.op == "call_module" and f"{node.target}.weight" in weights:
                self.computed[node] = True
            elif made:
                moves = node.op != "call_module" and name_of(node) in MOVED | {"to"}
                self.computed[node] = any(made) or not moves
            elif (
                self.learned.intersection(node.all_input_nodes)
                or node.op == "get_attr"
                and str(node.target) in parameters
                or node.op == "call_module"
            ):
                self.learned.add(node)

    def run(self, node: fx.Node) -> Run | None:
        """What ``node`` computes of its arguments; None where it passes on the one it is given.

        Raises:
            ValueError: nobody knows.
        """
        if node.op in ("placeholder", "output"):
            return None
        flows = uses(node, self.flows)
        if node.op == "call_module":
            return self._module(node, self.modules[str(node.target)], flows)
        name, plain, one = name_of(node), _plain(node), len(flows) == 1
        if name in _LIKE and node.args and node.args[0] in self.flows:
            one = True  # of the second value only its shape or type is used
        if str(node.target).endswith("_") and not node.users:
            raise _refusal(node, f"{node.target}, whose result is read from its argument later")
        place = next((i for i, arg in enumerate(node.args) if arg in self.flows), None)
        if name in PASSED and one:
            return None
        if name == "view" and place == 0 and one:
            return lambda x, *shape: x.reshape(*shape)  # strides are not those of the network
        if place == 0 and (name in MOVED and one or name in SUMMED):
            return plain
        if name in ("add", "sub"):
            return functools.partial(_unshifted, place) if one else _sum
        if name in ("mul", "div") and one and (place == 0 or name == "mul"):
            self._check_weights(node)
            return functools.partial(_times, torch.mul if name == "mul" else torch.div, place)
        if name in PRODUCTS and one:
            self._check_weights(node)
            return functools.partial(_product, plain, name, self.biases)
        if name == "addmm" and place == 1 and one:
            self._check_weights(node)
            return lambda bias, x, weight, **_: x @ weight.abs()
        if name in JOINED:
            parts = node.args[0] if node.args else node.kwargs.get("tensors")
            carry = None if isinstance(parts, fx.Node) else [p in self.flows for p in parts]
            return functools.partial(_joined, plain, carry)
        if name in _NORMS and place == 0 and one:
            return _NORMS[name]
        if name == "masked_fill" and place == 0 and one:
            return lambda x, mask, value: x.masked_fill(mask, 0)
        if name == "where" and len(node.args) == 3:
            order = (0, 1, 2) if node.op == "call_function" else (1, 0, 2)
            if node.args[order[0]] not in self.flows:
                carry = [node.args[i] in self.flows for i in order[1:]]
                return functools.partial(_where, order, carry)
        if name == "pad" and place == 0:
            return _padded
        if name in ("interpolate", "upsample") and place == 0:
            mode = node.kwargs.get("mode", node.args[3] if len(node.args) > 3 else "nearest")
            if mode in _INTERPOLATIONS:
                return plain
            name = f"{name} with mode={mode!r}"
        if name in MAX_POOLS and place == 0:
            return functools.partial(_every_pool, plain, name) if self.every else plain
        if name in ("max", "amax", "maximum") and place is not None:
            if name == "maximum" or len(node.args) > 1 and isinstance(node.args[1], fx.Node):
                if one:
                    return functools.partial(_unshifted, place)
                return _sum if self.every else plain
            return functools.partial(_every_max, name) if self.every else plain
        raise _refusal(node, name if one else f"{name} of {len(flows)} values of the input")

    def _module(self, node: fx.Node, module: nn.Module, flows: list[fx.Node]) -> Run | None:
        kind = type(module)
        what = f"{node.target}, a {kind.__name__}"
        if not kind.__module__.startswith("torch.") and not isinstance(module, fx.GraphModule):
            warn(
                f"SynFlow and questions about paths cannot look into {what}: its own forward runs"
                " on |W|, which is right where it is made of layers, ReLU and sums"
            )
            return functools.partial(_positive, what, module)
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            raise ValueError(
                f"{what}, looks up numbers of tokens: no path of weights leads from them to the"
                " output. Ask the part of the network behind it, which takes what it gives, with"
                " input_shape=(tokens, features)"
            )
        if len(flows) > 1 and not isinstance(module, nn.modules.pooling._MaxUnpoolNd):
            raise _refusal(node, f"{what}, of {len(flows)} values of the input")
        gate = isinstance(module, (nn.GLU, nn.MultiheadAttention))
        if isinstance(module, _PASSED_MODULES) or _is_activation(module) and not gate:
            return None
        if isinstance(module, _SCALES):
            return functools.partial(_scaled, module)
        if isinstance(module, BATCH_NORM):
            return functools.partial(_scaled, module) if module.running_var is None else module
        if isinstance(module, _MAX_POOL_MODULES):
            return functools.partial(_every_window, module) if self.every else module
        if isinstance(module, nn.modules.padding._ConstantPadNd):
            return lambda x: F.pad(x, module.padding)
        if isinstance(module, nn.modules.pooling._MaxUnpoolNd) and self.every:
            return functools.partial(_every_place, module)
        if isinstance(module, nn.Upsample) and module.mode not in _INTERPOLATIONS:
            raise _refusal(node, f"{what} with mode={module.mode!r}")
        if isinstance(module, (*PRUNABLE, *_MOVED_MODULES, nn.Upsample)):
            return module
        raise _refusal(node, what)

    def _check_weights(self, node: fx.Node) -> None:
        """A weight that is centred or scaled before it is used is no factor of its paths."""
        for source in node.all_input_nodes:
            if self.computed.get(source):
                raise _refusal(node, f"a weight that {name_of(source)} has changed before its use")

    def constant(self, node: fx.Node, net: nn.Module) -> Run | None:
        """What computes a value that the input does not reach: the operation as it is.

        Whether a learned factor is zero at the moment does not decide about paths, so among all of
        them it counts as one.
        """
        if node.op in ("placeholder", "output"):
            return None
        if node.op == "get_attr":
            run = functools.partial(operator.attrgetter(str(node.target)), net)
        elif node.op == "call_module":
            run = self.modules[str(node.target)]
        else:
            if name_of(node) in DRAWS and "dropout" not in name_of(node):
                raise _refusal(node, f"{name_of(node)}, random numbers that differ in every pass,")
            run = _plain(node) if "dropout" not in name_of(node) else _first
        return functools.partial(_ones, run) if self.every and node in self.learned else run


def check(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """ValueError if `Operations` does not know all that the input reaches."""
    known = Operations(graph, modules)
    for node in graph.nodes:
        if node in known.flows:
            known.run(node)
        else:
            known.constant(node, modules[""])


def _refusal(node: fx.Node, what: str) -> ValueError:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name, kind = stack[-1] if stack else ("", None)
    inside = node.op != "call_module" and kind is not None
    where = f" in {name}, a {getattr(kind, '__name__', kind)}" if inside else ""
    return ValueError(
        f"SynFlow and questions about paths do not know {what}{where} (node {node.name!r} of the"
        " graph): refused, since sums over paths would come out wrong. Write it with layers,"
        " activations, pooling, sums or concatenation of torch.nn; scores on data (snip, grasp),"
        " magnitude and criterion='layer' do without paths"
    )


def _plain(node: fx.Node) -> Run:
    if node.op == "call_method":
        return lambda tensor, *args, **kw: getattr(tensor, str(node.target))(*args, **kw)
    return node.target


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation"


def _first(x, *_, **__):
    return x


def _ones(run: Run, *args, **kwargs):
    found = run(*args, **kwargs)
    numbers = isinstance(found, Tensor) and found.is_floating_point()
    return torch.ones_like(found) if numbers else found


def _absolute(value):
    if isinstance(value, Tensor):
        return value if value.dtype == torch.bool else value.abs()
    return abs(value) if isinstance(value, (int, float)) else value


def _unshifted(place: int, *values, **_) -> Tensor:
    """A sum with a constant, which lies on no path: only its shape tells."""
    x, constant = values[place], values[1 - place]
    if not isinstance(constant, Tensor):
        return x
    return x.expand(torch.broadcast_shapes(x.shape, constant.shape))


def _sum(left: Tensor, right: Tensor, *, alpha: float = 1) -> Tensor:
    """A difference too: signs are no part of the paths."""
    return left + (right if alpha == 1 else abs(alpha) * right)


def _times(operation: Run, place: int, *values, **_) -> Tensor:
    return operation(*(v if i == place else _absolute(v) for i, v in enumerate(values[:2])))


def _product(plain: Run, name: str, biases: bool, *args, **kwargs) -> Tensor:
    """A product with constants; the input's own numbers are not negative already."""
    if not biases and (name == "linear" or name.startswith("conv")):
        args = [None if i == 2 else arg for i, arg in enumerate(args)]
        kwargs = {key: value for key, value in kwargs.items() if key != "bias"}
    tensors = {k: _absolute(v) if isinstance(v, Tensor) else v for k, v in kwargs.items()}
    return plain(*(_absolute(a) if isinstance(a, Tensor) else a for a in args), **tensors)


def _joined(plain: Run, carry: list[bool] | None, parts, *args, **kwargs) -> Tensor:
    if carry is not None:
        kept = zip(parts, carry, strict=True)
        parts = [part if flow else torch.zeros_like(part) for part, flow in kept]
    return plain(parts, *args, **kwargs)


def _where(order: tuple[int, ...], carry: list[bool], *args) -> Tensor:
    mask, *values = (args[i] for i in order)
    left, right = (v if flow else 0.0 for v, flow in zip(values, carry, strict=True))
    return torch.where(mask, left, right)


def _padded(x: Tensor, pad, mode: str = "constant", value=None) -> Tensor:
    return F.pad(x, pad, mode)


def _scaled(module: nn.Module, x: Tensor) -> Tensor:
    variance = getattr(module, "running_var", None)
    if variance is not None:  # InstanceNorm with stored statistics
        x = x * _by_channel(torch.rsqrt(variance + module.eps), x)
    scale = getattr(module, "weight", None)
    if scale is None:
        return x
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return x * scale
    return x * _by_channel(scale, x)


def _by_channel(scale: Tensor, x: Tensor) -> Tensor:
    return scale.abs().view(1, -1, *[1] * (x.dim() - 2))


def _layer_norm(x, shape, weight=None, *_, **__) -> Tensor:
    return x if weight is None else x * weight.abs()


def _group_norm(x, groups, weight=None, *_, **__) -> Tensor:
    return x if weight is None else x * _by_channel(weight, x)


def _batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if variance is not None and not training:
        x = x * _by_channel(torch.rsqrt(variance + eps), x)
    return x if weight is None else x * _by_channel(weight, x)


def _instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
    momentum=0.1, eps=1e-5,
):  # fmt: skip
    return _batch_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


_NORMS = {
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
}


def _every_window(module: nn.Module, x: Tensor):
    """Max-pooling as a positive sum over the same windows: positive where any input is."""
    dims = int(type(module).__name__[-2])
    if isinstance(module, nn.modules.pooling._AdaptiveMaxPoolNd):
        pool = getattr(F, f"adaptive_avg_pool{dims}d")
        total = pool(x, module.output_size)
    else:
        total = _window_sum(
            dims, x, module.kernel_size, module.stride, module.padding, module.dilation,
            module.ceil_mode,
        )  # fmt: skip
    return (total, module(x)[1]) if module.return_indices else total


def _every_pool(plain: Run, name: str, x: Tensor, *args, **kwargs):
    dims = int(name.split("pool")[1][0])
    indices = kwargs.pop("return_indices", False) or name.endswith("_with_indices")
    if name.startswith("adaptive"):
        total = getattr(F, f"adaptive_avg_pool{dims}d")(x, *args, **kwargs)
    else:
        total = _window_sum(dims, x, *args, **kwargs)
    return (total, plain(x, *args, **kwargs, return_indices=True)[1]) if indices else total


def _window_sum(dims, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    if dilation in (1, (1,) * dims):
        pool = getattr(F, f"avg_pool{dims}d")
        return pool(x, kernel_size, stride, padding, ceil_mode)
    # With gaps between its rows a window is a kernel of ones.
    kernel, step, around, gap = (
        (value,) * dims if isinstance(value, int) else tuple(value)
        for value in (kernel_size, stride or kernel_size, padding, dilation)
    )
    largest = getattr(F, f"max_pool{dims}d")
    with torch.no_grad():
        shape = largest(x, kernel, step, around, gap, ceil_mode).shape[-dims:]
    beyond = [  # where ceil_mode lets the last window reach over the border
        max(0, (n - 1) * s + g * (k - 1) + 1 - length - 2 * p)
        for n, s, g, k, p, length in zip(
            shape, step, gap, kernel, around, x.shape[-dims:], strict=True
        )
    ]
    pads = [p for a, b in zip(around[::-1], beyond[::-1], strict=True) for p in (a, a + b)]
    ones = x.new_ones(x.shape[1], 1, *kernel)
    convolve = getattr(F, f"conv{dims}d")
    return convolve(F.pad(x, pads), ones, stride=step, dilation=gap, groups=x.shape[1])


def _every_max(name: str, x: Tensor, dim=None, keepdim: bool = False):
    if dim is None or dim == ():
        return x.sum()
    total = x.sum(dim, keepdim)
    return total if name == "amax" else (total, torch.zeros_like(total, dtype=torch.long))


def _every_place(module: nn.Module, x: Tensor, indices: Tensor, output_size=None) -> Tensor:
    """Unpooling to all places of a window, any of which may have been its largest."""
    size = module(x, indices, output_size).shape[2:]
    return F.interpolate(x, size, mode="nearest")


def _positive(what: str, module: nn.Module, *args, **kwargs):
    found = module(*args, **kwargs)
    if isinstance(found, Tensor) and found.is_floating_point() and bool((found < 0).any()):
        raise ValueError(
            f"{what}, gives negative numbers on |W| and an input of ones, so it is no sum over"
            " paths. Let torch.fx trace into it, or use another method"
        )
    return found
