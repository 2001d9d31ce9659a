"""SynFlow's R and its scores from the definition, in float64, written apart from the library.

The forward pass runs once as it is, whatever Python does in it, while every ATen operation is
written on a tape. The tape is then played again on |W| and an input of ones, by a short table that
is independent of the library's: no torch.fx, other names, one place for all spellings, for torch
has taken modules, functions and attention apart by then.

Two values of the input that multiply each other are a gate and what it lets pass; the gate counts
as a constant: 1, or the mean over its positions for a softmax.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten


class Unknown(Exception):
    """The oracle has no answer: an operation, or a product, that it does not know."""


@dataclass
class Signal:
    """What flows, and what stands for it where it is a gate."""

    value: Tensor
    gate: Tensor | None = None
    rank: int = 0  # of two that multiply, the higher is the gate; 5 for statistics
    masked: Tensor | None = None  # of scores of attention, what a mask removes
    centre: int | None = None  # id of what this is the mean of
    power: int = 0  # of the signal: 2 for variances and products of queries and keys
    shifted: bool = False  # a number was added: a clamp behind it is a sigmoid
    origin: int | None = None  # id of the tensor whose every number makes one number of this
    opening: float = 1.0  # what a gate of numbers and that tensor alone reaches


# Of two signals that multiply the one that saturates more is the gate.
RANKS = {
    **dict.fromkeys("sigmoid hardsigmoid".split(), 4),
    **dict.fromkeys("hardtanh clamp clamp_min clamp_max relu6".split(), 3),
    **dict.fromkeys("tanh softsign".split(), 2),
    **dict.fromkeys("gelu silu mish hardswish softplus".split(), 1),
}
ACTIVATED = set(
    "relu elu leaky_relu selu celu threshold _prelu_kernel prelu rrelu rrelu_with_noise log_sigmoid"
    " log_sigmoid_forward softshrink hardshrink exp".split()
)
PASSING = set("clone detach alias _to_copy neg abs lift_fresh dropout copy sqrt sin cos".split())
MOVING = set(
    "view _unsafe_view _reshape_alias expand permute t transpose slice select split"
    " split_with_sizes unbind squeeze unsqueeze index roll flip reflection_pad1d reflection_pad2d"
    " reflection_pad3d replication_pad1d replication_pad2d replication_pad3d pixel_shuffle"
    " pixel_unshuffle im2col col2im repeat narrow as_strided unfold channel_shuffle"
    " native_channel_shuffle diagonal gather index_select avg_pool1d avg_pool2d avg_pool3d"
    " _adaptive_avg_pool2d _adaptive_avg_pool3d mean sum upsample_nearest1d upsample_nearest2d"
    " upsample_nearest3d upsample_bilinear2d upsample_linear1d upsample_trilinear3d cumsum"
    " constant_pad_nd reshape unsafe_split chunk movedim _adaptive_avg_pool1d".split()
)
SHAPES = set(
    "sym_size sym_numel zeros_like ones_like full_like empty_like new_zeros new_ones new_full"
    " new_empty rand_like randn_like eq ne isfinite argmax new_empty_strided"
    " is_same_size _local_scalar_dense bitwise_not logical_not any all".split()
)
ELEMENTWISE = PASSING | ACTIVATED | set(RANKS) | set("pow mul multiply div add sub rsub".split())


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.steps.append((function, args, kwargs or {}, out))
        return out


def call(net, inputs):
    if isinstance(inputs, dict):
        return net(**inputs)
    return net(*inputs) if isinstance(inputs, tuple) else net(inputs)


def numbers(output) -> list[Tensor]:
    """All tensors of numbers in an output of any structure."""
    if isinstance(output, dict):
        output = list(output.values())
    elif dataclasses.is_dataclass(output):
        output = list(vars(output).values())
    leaves = [output] if isinstance(output, Tensor) else tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


class Oracle:
    """R of a network, by the definition.

    Args:
        inputs: one batch of one, as the forward takes it: a tensor, a tuple or a dict.
        every_path: ones for all weights and factors, sums for largest values: is there a path?
    """

    def __init__(self, net: nn.Module, inputs, masks=None, *, every_path: bool = False) -> None:
        net = copy.deepcopy(net).double().eval()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if masks is not None and name in masks:
                    parameter.mul_(masks[name])
        inputs = tree_map(
            lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs
        )
        self.every_path = every_path
        self.names = {n: id(p) for n, p in net.named_parameters(remove_duplicate=False)}
        self.leaves, self.zeros = {}, {}
        for name, parameter in net.named_parameters():
            value = parameter.detach().clone()
            if not bool(value.any()) and not name.endswith("bias") and masks is None:
                if not name.endswith("weight"):  # what is made of it is still made of zeros
                    self.zeros[id(parameter)] = value
                value = torch.ones_like(value)
            if every_path:
                kept = masks[name] if masks and name in masks else torch.ones_like(value)
                value = kept.to(value)  # whatever a kept weight is, zero among them
            self.leaves[id(parameter)] = value.requires_grad_()
        self.flows: dict[int, Signal] = {}
        self.constants: dict[int, Tensor] = dict(self.leaves)
        tape = _Tape()
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            plain = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
            with torch.no_grad(), plain[0], plain[1], tape:
                output = call(net, inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        self.ids = set()
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                if leaf.is_floating_point():
                    self.put(leaf, Signal(torch.ones_like(leaf)), False)
                else:
                    self.ids.add(id(leaf))
        self.keep = tape.steps  # no id is used twice
        self.views, self.statistics, self.largest = {}, set(), {}
        for step in tape.steps:
            self.play(*step)
        ends = [self.flows[id(leaf)] for leaf in numbers(output) if id(leaf) in self.flows]
        parts = [end.value.sum() for end in ends]
        self.total = sum(parts)

    def scores(self) -> dict[str, Tensor]:
        """theta * dR / dtheta by name, zero for what no path uses."""
        if not isinstance(self.total, Tensor) or not self.total.requires_grad:
            raise Unknown("the output does not depend on the input")
        leaves = list(self.leaves.values())
        slopes = torch.autograd.grad(self.total, leaves, allow_unused=True)
        found = {
            key: torch.zeros_like(leaf) if slope is None else (leaf * slope).detach()
            for (key, leaf), slope in zip(self.leaves.items(), slopes, strict=True)
        }
        return {name: found[key] for name, key in self.names.items()}

    # ------------------------------------------------------------------ the table

    def constant(self, x):
        """A constant as it is, of parameters with their gradient; in questions of paths ones."""
        return self.constants.get(id(x), x) if isinstance(x, Tensor) else x

    def factor(self, x):
        made = id(x) in self.constants and id(x) not in self.leaves
        x = self.constant(x)
        if made and not self.every_path and x.numel() and not bool(x.any()):
            return torch.ones_like(x)  # zero in the product, whatever made it so
        if not isinstance(x, Tensor):
            return abs(x) if not self.every_path or not x else 1.0
        if x.dtype == torch.bool:
            return x
        return x.abs()

    def play(self, function, args, kwargs, out) -> None:
        name = function._schema.name.split("::")[1]
        inplace = name.endswith("_") and not name.endswith("__")
        name = name.removesuffix("_")
        if name == "_to_cop":
            name = "_to_copy"
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if function.is_view and outs and leaves:
            for number, one in enumerate(outs):
                self.views[id(one)] = (args[0], function, args, kwargs, number)
        if "embedding" in name and id(args[1]) in self.ids:
            self.put(outs[0], Signal(torch.ones_like(outs[0])), False)
            return
        self.out = out
        if any(id(leaf) in self.flows for leaf in leaves) and name not in SHAPES:
            found = self.rule(name, function, args, kwargs)
        elif any(id(leaf) in self.constants for leaf in leaves):
            found = self.functional(name, function, args, kwargs)
        else:
            # Of a comparison, such as `ids != padding`, a place is known and no token.
            numbered = outs and not outs[0].is_floating_point() and outs[0].dtype != torch.bool
            if numbered and any(id(leaf) in self.ids for leaf in leaves):
                self.ids.update(map(id, outs))
            return
        if isinstance(found, Signal) and name in ELEMENTWISE:
            self.by_hand(found, name, args)
        found = found if isinstance(found, (list, tuple)) else [found]
        if inplace:
            outs = outs[:1]
        for one, value in zip(outs, found, strict=False):
            self.put(one, value, inplace)

    def by_hand(self, signal, name, args) -> None:
        """What an activation written out, ``0.5 * x * (1 + tanh(x))``, multiplies ``x`` with."""
        given = [self.flows[id(a)] for a in args if id(a) in self.flows]
        if len({one.origin for one in given}) != 1:
            return
        signal.origin = given[0].origin
        numbers = [abs(float(a)) for a in args[:2] if isinstance(a, (int, float))]
        if name in RANKS:
            signal.opening = 1.0 if signal.gate is None else float(signal.gate.flatten()[0])
        elif len(given) == 1:
            signal.opening = given[0].opening
            if numbers and name in ("mul", "multiply"):
                signal.opening *= numbers[0]
            elif numbers and name == "div":
                signal.opening /= numbers[0]
            elif numbers and name in ("add", "sub", "rsub"):
                signal.opening += numbers[0]

    def put(self, tensor, value, inplace) -> None:
        if value is None:
            return
        where = self.flows if isinstance(value, Signal) else self.constants
        if isinstance(value, Tensor) and not value.is_floating_point():
            return
        where[id(tensor)] = value
        if isinstance(value, Signal) and value.origin is None:
            value.origin = id(tensor)
        if isinstance(value, Signal) and self.every_path:  # sums of paths would pass 1e308
            value.value = value.value / value.value.detach().masked_fill(value.value == 0, 1)
        if inplace and id(tensor) in self.views:
            base, function, args, kwargs, number = self.views[id(tensor)]
            places = torch.arange(base.numel()).view(base.shape)
            places = tree_leaves(function(places, *args[1:], **kwargs))[number]
            old = self.flows.get(id(base))
            old = torch.zeros_like(base) if old is None else old.value
            new = value.value if isinstance(value, Signal) else value
            new = new.expand(places.shape).reshape(-1)
            filled = old.reshape(-1).index_put((places.reshape(-1),), new).view(base.shape)
            self.put(base, Signal(filled), True)

    def functional(self, name, function, args, kwargs):
        """A function of constants alone."""
        given = args
        zeros = {} if self.every_path else self.zeros
        args, kwargs = tree_map(lambda x: zeros.get(id(x), self.constant(x)), (args, kwargs))
        if name in ("mean", "std", "var", "std_mean", "var_mean", "linalg_vector_norm", "norm"):
            if args[0].dim() > 1:
                self.statistics.update(map(id, tree_leaves(self.out)))
        elif name in ("add sqrt rsqrt reciprocal clamp clamp_min mul div sub expand").split():
            of = [id(one) in self.statistics for one in given[:2]]
            if of[0] and not (len(of) > 1 and isinstance(given[1], Tensor) and not of[1]):
                self.statistics.update(map(id, tree_leaves(self.out)))
            elif len(of) > 1 and of[1] and name in ("sub", "div", "mul"):
                return args[0]  # a standardized weight: what it is divided by is no factor
        if name == "native_batch_norm" and args[5]:  # a standardized weight: its gain
            side = (1, -1, *[1] * (args[0].dim() - 2))
            return args[0] if args[1] is None else args[0] * self.factor(given[1]).view(side)
        functional = {"copy": lambda a, b, *_: b.expand(a.shape), "view": torch.reshape}.get(name)
        if functional is None:
            packet = getattr(aten, name)
            overload = function._overloadname
            functional = getattr(packet, overload, function)
        return list(tree_leaves(functional(*args, **kwargs)))

    def rule(self, name, function, args, kwargs):
        f, flow = self.flows, [id(a) in self.flows for a in args]
        signal = lambda i: f[id(args[i])]  # noqa: E731
        first = signal(0) if flow and flow[0] else None
        if name in PASSING or name in ACTIVATED or name in RANKS or name in ("pow", "reciprocal"):
            if name == "copy":
                x = f.get(id(args[1]))
                return Signal(
                    torch.zeros_like(args[0]) if x is None else x.value.expand(args[0].shape)
                )
            rank = 0 if name in ACTIVATED else RANKS.get(name, first.rank)
            gate = torch.ones_like(first.value) if rank and first.gate is None else first.gate
            clamps = name in ("hardtanh", "clamp") and first.shifted
            if clamps and len(args) > 2 and args[2]:  # open at its most
                gate = torch.full_like(first.value, float(args[2]))
            power = first.power
            if name == "pow":
                if not isinstance(args[1], (int, float)):
                    raise Unknown("pow")
                power = 2 if args[1] == 2 else power
            if name == "sqrt":
                power = 1
            return Signal(first.value, gate, rank, first.masked, power=power)
        if name in (
            "rsqrt",
            "std",
            "var",
            "std_mean",
            "var_mean",
            "linalg_vector_norm",
            "norm",
            "log",
        ):
            ones = torch.ones_like(first.value)
            if name == "rsqrt":
                return Signal(ones, ones, 5)
            out = function(first.value, *args[1:], **kwargs)
            if name in ("std_mean", "var_mean"):
                one = torch.ones_like(out[0])
                return [Signal(one, one, 5, power=2), Signal(out[1], centre=id(args[0]))]
            one = torch.ones_like(out)
            return Signal(one, one, 5, power=2)
        if name in ("gt", "ge", "lt", "le"):  # yes or no: nothing flows, and it may be a gate
            nothing = torch.zeros(args[0].shape, dtype=torch.float64)
            return Signal(nothing, torch.ones_like(nothing), 4)
        if name in MOVING:
            move = lambda x: function(x, *args[1:], **kwargs)  # noqa: E731
            if name in ("view", "_unsafe_view"):  # strides are not those of the network
                move = lambda x: x.reshape(args[1])  # noqa: E731
            if name == "constant_pad_nd":
                move = lambda x: function(x, args[1], 0)  # noqa: E731
            if name in ("index", "gather", "index_select") and not flow[0]:
                raise Unknown(name)
            if not flow[0] or name == "cumsum" and first.rank:
                raise Unknown(name)
            values = tree_leaves(move(first.value))
            gates = (
                tree_leaves(move(first.gate)) if first.gate is not None else [None] * len(values)
            )
            if first.gate is not None and name in ("sum", "mean") and first.rank < 5:
                gates = [torch.ones_like(v) for v in values]
            masks = [None] * len(values)
            if first.masked is not None:
                masks = tree_leaves(move(first.masked))
            centre = id(args[0]) if name == "mean" else None
            return [
                Signal(v, g, first.rank, m, centre, first.power)
                for v, g, m in zip(values, gates, masks, strict=True)
            ]
        if name == "convolution":
            if not flow[0] or len(flow) > 1 and flow[1]:
                raise Unknown("a convolution by a signal")
            return Signal(function(first.value, self.factor(args[1]), None, *args[3:]))
        if name in ("mm", "bmm", "matmul", "dot", "mv", "addmm", "baddbmm", "addbmm"):
            if name in ("addmm", "baddbmm"):
                args, flow = args[1:], flow[1:]
            return self.product(torch.matmul, args, flow)
        if name in ("mul", "multiply"):
            return self.product(torch.mul, args[:2], flow[:2])
        if name == "div":
            if not flow[0]:
                raise Unknown("division by a signal")
            if flow[1]:
                x = first.value.expand(torch.broadcast_shapes(first.value.shape, args[1].shape))
                return Signal(x, first.gate, first.rank)
            divisor = self.factor(args[1])
            return Signal(first.value / divisor, self.scaled(first), first.rank, first.masked)
        if name in ("add", "sub", "rsub"):
            return self.sum(name, args, kwargs, flow)
        if name in ("_softmax", "_safe_softmax", "_log_softmax"):
            if name == "_log_softmax":
                return Signal(first.value)
            masked = first.masked
            allowed = torch.ones_like(first.value)
            if masked is not None:
                allowed = (~masked).to(first.value).expand(first.value.shape)
            gate = allowed / allowed.sum(args[1], keepdim=True).clamp(min=1)
            return Signal(first.value, gate, 4)
        if name == "masked_fill":
            mask = args[1].expand(first.value.shape)
            old = first.masked
            value = args[2]
            if float(value) < -1e3:
                return Signal(first.value, None, 0, mask if old is None else mask | old)
            return Signal(first.value.masked_fill(mask, 0), first.gate, first.rank)
        if name == "where":
            mask, parts = args[0], []
            if id(mask) in f:
                raise Unknown("where by a signal")
            shape = torch.broadcast_shapes(*[getattr(a, "shape", ()) for a in args])
            for one in args[1:3]:
                parts.append(f[id(one)].value if id(one) in f else torch.zeros(shape).double())
            other = [a for a in args[1:3] if id(a) not in f]
            if other and float(torch.as_tensor(other[0]).max()) < -1e3:
                x = f[id(args[1])] if id(args[1]) in f else f[id(args[2])]
                masked = mask if id(args[2]) in f else ~mask
                return Signal(x.value.expand(shape), masked=masked.expand(shape))
            return Signal(torch.where(mask, *parts))
        if name in (
            "native_batch_norm",
            "_native_batch_norm_legit_no_training",
            "_native_batch_norm_legit",
            "_batch_norm_no_update",
            "cudnn_batch_norm",
        ):
            weight, variance, eps = args[1], args[4], args[-1]
            side = (1, -1, *[1] * (first.value.dim() - 2))
            x = first.value
            if variance is not None and not self.every_path:
                x = x * torch.rsqrt(variance + eps).view(side)
            if weight is not None:
                x = x * self.factor(weight).view(side)
            return [Signal(x), None, None]
        if name in ("native_layer_norm", "_fused_rms_norm"):
            weight = args[2]
            x = first.value
            return [Signal(x if weight is None else x * self.factor(weight)), None, None]
        if name == "native_group_norm":
            weight = args[1]
            side = (1, -1, *[1] * (first.value.dim() - 2))
            x = first.value
            return [Signal(x if weight is None else x * self.factor(weight).view(side)), None, None]
        if name in (
            "max_pool2d_with_indices",
            "max_pool3d_with_indices",
            "max_pool2d",
            "max_pool1d",
        ):
            dims = int(name[8])
            pool = self.pooled if self.every_path else getattr(nn.functional, f"max_pool{dims}d")
            given = dict(
                zip(
                    ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
                    args[1:],
                    strict=False,
                )
            )
            given["stride"] = given.get("stride") or given["kernel_size"]
            if not self.every_path and name.endswith("indices"):  # where an unpooling puts them
                value, places = pool(first.value, **given, return_indices=True)
                self.largest[id(self.out[1])] = places
                return [Signal(value), None]
            return [Signal(pool(first.value, **given)), None]
        if name == "max_unpool2d":
            if self.every_path:  # any place of a window may have been its largest
                return Signal(nn.functional.interpolate(first.value, args[2], mode="nearest"))
            return Signal(function(first.value, self.largest[id(args[1])], *args[2:]))
        if name in ("maximum", "minimum") or name == "max" and isinstance(args[-1], Tensor):
            parts = [f[id(one)].value for one in args[:2] if id(one) in f]
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            if self.every_path or len(parts) == 1:
                return Signal(sum(parts).expand(shape))
            return Signal(torch.maximum(*parts))  # min(a, b) = -max(-a, -b), and signs are no part
        if name == "topk":
            if not self.every_path:
                return [Signal(function(first.value, *args[1:], **kwargs)[0]), None]
            dim = args[2] if len(args) > 2 else -1
            shape = list(first.value.shape)
            shape[dim] = args[1]
            return [Signal(first.value.sum(dim, keepdim=True).expand(shape)), None]
        if name == "addcmul":
            product = self.rule("mul", function, args[1:], {})
            factor = abs(kwargs.get("value", args[3] if len(args) > 3 else 1))
            value = product.value * factor if isinstance(product, Signal) else 0.0
            return Signal(value + first.value if first is not None else value)
        if name in ("amax", "amin", "max"):
            if self.every_path:
                over = args[1] if len(args) > 1 else tuple(range(first.value.dim()))
                keep = args[2] if len(args) > 2 else False
                return [Signal(first.value.sum(over, keep)), None]
            largest = aten.amax if name == "amin" else function
            return [Signal(tree_leaves(largest(first.value, *args[1:], **kwargs))[0]), None]
        if name in ("adaptive_max_pool2d",):
            if self.every_path:
                return [Signal(nn.functional.adaptive_avg_pool2d(first.value, args[1])), None]
            return [Signal(function(first.value, *args[1:])[0]), None]
        if name in ("cat", "stack"):
            parts = []
            for one in args[0]:
                if id(one) in f:
                    parts.append(f[id(one)].value)
                else:
                    learned = id(one) in self.constants and not self.every_path
                    parts.append(torch.ones_like(one) if learned else torch.zeros_like(one))
            bounded = [f[id(one)].rank for one in args[0] if id(one) in f]
            joined = function(parts, *args[1:], **kwargs)
            rank = min(bounded) if len(bounded) == len(parts) else 0
            return Signal(joined, torch.ones_like(joined) if rank else None, rank)
        if name == "glu":
            return Signal(first.value.chunk(2, args[1] if len(args) > 1 else -1)[0])
        if name in ("index_put", "fill", "zero", "scatter") and name in ("fill", "zero"):
            return Signal(torch.zeros_like(first.value))
        raise Unknown(name)

    def pooled(self, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        """A path through every place of a window: copies of it, shifted and added."""
        dims = x.dim() - 2

        def each(v):
            return tuple(v) * (dims // len(v)) if isinstance(v, (list, tuple)) else (v,) * dims

        kernel, stride, padding, dilation = map(each, (kernel_size, stride, padding, dilation))
        shape = getattr(nn.functional, f"max_pool{dims}d")(
            x.detach(), kernel, stride, padding, dilation, ceil_mode
        ).shape[2:]
        pads = []
        for n, s, d, k, p, size in list(
            zip(shape, stride, dilation, kernel, padding, x.shape[2:], strict=True)
        )[::-1]:
            pads += [p, max(0, (n - 1) * s + d * (k - 1) + 1 - size - p)]
        weight = torch.ones(x.shape[1], 1, *kernel, dtype=x.dtype)
        convolve = getattr(nn.functional, f"conv{dims}d")
        out = convolve(nn.functional.pad(x, pads), weight, None, stride, 0, dilation, x.shape[1])
        return out[(slice(None), slice(None), *(slice(n) for n in shape))]

    def product(self, times, args, flow):
        a, b = args[:2]
        if not all(flow[:2]):
            x = self.flows[id(a if flow[0] else b)]
            other = self.factor(b if flow[0] else a)
            if (
                isinstance(other, Tensor)
                and other.dtype != torch.bool
                and other.is_floating_point()
            ):
                other = other.to(x.value)
            value = times(x.value, other) if flow[0] else times(other, x.value)
            if times is torch.mul:
                gate = None if x.gate is None else self.scaled(x).expand(value.shape)
                masked = None if x.masked is None else x.masked.expand(value.shape)
                return Signal(value, gate, x.rank, masked)
            if x.rank == 4 and x.gate is not None and not bool((x.gate == 1).all()):
                gate = times(x.gate, other) if flow[0] else times(other, x.gate)
                return Signal(value, gate, 4)
            return Signal(value)
        x, y = self.flows[id(a)], self.flows[id(b)]
        if x.rank == y.rank or max(x.rank, y.rank) < 4 and times is torch.matmul:
            if times is torch.matmul:  # queries and keys
                return Signal(times(x.value, y.value), power=2)
            if a is b or id(a) == id(b):
                return Signal(x.value, power=2)
            raise Unknown("a product of two signals, neither of which is a gate")
        if times is torch.mul and x.origin == y.origin:  # the gate of an activation written by hand
            gate, value = (x, y) if x.rank > y.rank else (y, x)
            return Signal(gate.opening * value.value.expand(gate.value.shape), *self.still(value))
        if x.rank > y.rank:
            return Signal(times(x.gate.to(y.value), y.value), *self.still(y))
        return Signal(times(x.value, y.gate.to(x.value)), *self.still(x))

    def scaled(self, x):
        """The gate of a signal that a constant scales: `relu6(x + 3) / 6` is divided already."""
        return torch.ones_like(x.gate) if x.rank == RANKS["clamp"] else x.gate

    def still(self, x):
        return (None, 0)

    def sum(self, name, args, kwargs, flow):
        if all(flow[:2]):
            x, y = self.flows[id(args[0])], self.flows[id(args[1])]
            if name == "sub" and y.centre == id(args[0]):  # centred: a norm passes its signal on
                return Signal(x.value, x.gate, x.rank)
            if name == "sub" and x.origin == y.origin and y.rank == RANKS["tanh"]:
                return Signal(x.value)  # tanhshrink
            alpha = abs(kwargs.get("alpha", args[2] if len(args) > 2 else 1))
            value = x.value + alpha * y.value
            masked = x.masked if x.masked is not None else y.masked
            rank = min(x.rank, y.rank)
            return Signal(value, torch.ones_like(value) if rank else None, rank, masked)
        x = self.flows[id(args[0] if flow[0] else args[1])]
        other = args[1] if flow[0] else args[0]
        shape = torch.broadcast_shapes(x.value.shape, getattr(other, "shape", ()))
        masked = x.masked
        real = self.constant(other)
        if isinstance(real, Tensor) and real.is_floating_point() and bool((real < -50).any()):
            new = (real < -50).expand(shape)
            masked = new if masked is None else new | masked
        gate = None if x.gate is None else x.gate.expand(shape)
        number = getattr(other, "ndim", 0) == 0
        return Signal(x.value.expand(shape), gate, x.rank, masked, None, x.power, number)
