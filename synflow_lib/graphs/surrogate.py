"""What runs in place of an operation, so that sums over paths come out: the rules of `layers`.

Each rule takes a `Use`, a node of the graph that the input reaches, and gives the function that
runs instead of it, with the same arguments, on |W| and an input that is not negative.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from .network import BATCH_NORM, along_channels
from .nodes import argument, name_of, reads, upstream

Run = Callable[..., Any]


@dataclass
class Use:
    """One node of a graph that the input reaches, as rules see it."""

    node: fx.Node
    signals: list[fx.Node]  # the arguments that come from the input
    module: nn.Module | None = None
    sum_pools: bool = False  # of max-pooling, every path
    biases: bool = False  # whether biases that functions are given count
    computed: Container[fx.Node] = field(default_factory=set)  # weights changed before their use
    learned: Container[fx.Node] = field(default_factory=set)  # constants made of parameters
    still: Container[fx.Node] = field(default_factory=set)  # what only steers

    @property
    def place(self) -> int | None:
        """Of the first argument that comes from the input."""
        return next((i for i, arg in enumerate(self.node.args) if arg in self.signals), None)

    @property
    def alone(self) -> bool:
        return len(self.signals) == 1

    def plain(self) -> Run:
        """The operation as it is."""
        if self.module is not None:
            return self.module
        if self.node.op == "call_method":
            return lambda tensor, *args, **kw: getattr(tensor, str(self.node.target))(*args, **kw)
        return self.node.target

    def argument(self, name: str, place: int, default: object = None) -> object:
        return argument(self.node, name, place, default)

    def refusal(self, what: str | None = None, teach: str = "") -> ValueError:
        """The error that says what is not known, where it stands, and how to teach it."""
        node, kind = self.node, type(self.module).__name__
        what = what or (f"{node.target}, a {kind}" if self.module is not None else name_of(node))
        if len(self.signals) > 1:
            what += f" of {len(self.signals)} values of the input"
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        name, owner = stack[-1] if stack else ("", None)
        inside = self.module is None and owner is not None and name
        where = f" in {name}, a {getattr(owner, '__name__', owner)}" if inside else ""
        own = kind if self.module is not None else repr(name_of(node))
        say = "say so"
        if name_of(node) in _PRODUCTS:  # a rule would be for every product
            own, say = "ItsClass", "give it a module of its own and say so"
        teach = teach or (
            f"if it passes its input on like an activation, {say}:"
            f' synflow_lib.layers.rule({own}, "passes")'
        )
        gate = (
            " Of two factors the gate is the one that ends in an activation (sigmoid or softmax"
            " before tanh before SiLU, GELU) while the other does not: here nobody can tell. Give"
            " the product a module of its own, and synflow_lib.layers.rule(ItsClass, lambda module,"
            " value, gate: value)."
            if len(self.signals) > 1 and name_of(node) in ("mul", "matmul", "bmm", "einsum")
            else ""
        )
        return ValueError(
            f"SynFlow and questions about paths do not know {what}{where} (node {node.name!r} of"
            " the graph): refused, since sums over paths would come out wrong. Write it with"
            " layers, activations, pooling, sums or concatenation of torch.nn; or,"
            f" {teach}.{gate}"
            " Scores on data (snip, grasp), magnitude and criterion='layer' do without paths"
        )


_PRODUCTS = frozenset("mul div matmul bmm mm einsum".split())


def passes(use: Use) -> None:
    """The rule of activations. None stands for: the input goes on as it is."""
    return None


def refused(use: Use) -> Run:
    """The rule of comparisons: allowed where they make a gate, an error on a path."""
    raise use.refusal(
        teach="if what it chooses is an activation of one signal, give that a module of its own:"
        ' synflow_lib.layers.rule(ItsClass, "passes")'
    )


def first(run: Callable[[Use], Run | None]) -> Callable[[Use], Run | None]:
    """The rule ``run``, with an error where the signal is not the function's first argument."""

    def checked(use: Use) -> Run | None:
        if use.module is None and use.place != 0:
            raise use.refusal()
        return run(use)

    return checked


def own(effect: Callable, use: Use) -> Run:
    """A user's rule (see `synflow_lib.layers.rule`): nothing negative may come out."""
    run = functools.partial(effect, use.module) if use.module is not None else effect

    def checked(*args, **kwargs):
        found = run(*args, **kwargs)
        if found is None:
            raise ValueError(f"the rule for {use.node.target} returned None; expected a tensor")
        if is_numbers(found) and bool((found < 0).any()):
            raise ValueError(
                f"the rule for {use.node.target} gives negative numbers on |W| and an input that is"
                " not negative, so it is no sum over paths; expected a linear operation that keeps"
                " the sign (see synflow_lib.layers.rule)"
            )
        return found

    return checked


def is_numbers(value: object) -> bool:
    """Whether ``value`` is a tensor of floating-point numbers: no mask, index or token."""
    return isinstance(value, Tensor) and value.is_floating_point()


def in_type(values, dtype: torch.dtype):
    """Any structure with its tensors of numbers in ``dtype``."""
    return tree_map(lambda value: value.to(dtype) if is_numbers(value) else value, values)


def ones(run: Run, *args, **kwargs):
    """What ``run`` gives, with ones in place of its numbers."""
    found = run(*args, **kwargs)
    return torch.ones_like(found) if is_numbers(found) else found


def alike(*values):
    """The same values, numbers in their widest type: a forward may make float32 ones of its own."""
    types = {value.dtype for value in tree_leaves(values) if is_numbers(value)}
    return in_type(values, functools.reduce(torch.promote_types, types, torch.bfloat16))


def of_one_type(run: Run, *args, **kwargs):
    """``run`` with its arguments in one type (see `alike`)."""
    args, kwargs = alike(args, kwargs)
    return run(*args, **kwargs)


def in_its_type(module: nn.Module, *args, **kwargs):
    """``module`` with its arguments in the type of its weights."""
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    if like is not None:
        args, kwargs = in_type((args, kwargs), like.dtype)
    return module(*args, **kwargs)


def of_absolutes(run: Run, *args, **kwargs):
    """``run`` with absolute values in place of its arguments."""
    args, kwargs = tree_map_only(Tensor, _absolute, alike(args, kwargs))
    return run(*args, **kwargs)


def _absolute(value):
    if isinstance(value, Tensor):
        return value if value.dtype == torch.bool else value.abs()
    return abs(value) if isinstance(value, (int, float)) else value


def view(use: Use) -> Run:
    """``view`` as ``reshape``: what runs here may have other strides than in the network."""
    return lambda x, *shape: x.reshape(*shape)


def adds(use: Use) -> Run:
    """A sum; of a difference as well, since paths count by absolute values."""
    place = use.place if use.alone else None
    scaled = 0 if "rsub" in str(use.node.target) else 1  # what alpha multiplies

    def run(*values, alpha=1, **_) -> Tensor:
        values = list(values[:2])
        if alpha != 1 and place in (None, scaled):
            values[scaled] = abs(alpha) * values[scaled]
        if place is None:
            return values[0] + values[1]
        x, constant = values[place], values[1 - place]
        if not isinstance(constant, Tensor):
            return x
        # A constant lies on no path: it can only broadcast the signal to a larger shape.
        return x.expand(torch.broadcast_shapes(x.shape, constant.shape))

    return run


def _no_computed_weight(use: Use) -> None:
    """An error for a factor that is computed of a weight other than by scaling or centring it."""
    for source in use.node.all_input_nodes:
        if source not in use.computed:
            continue
        layer = next(filter(None, map(_layer_at, upstream([source], reads))), None)
        if layer is not None:
            teach = f"leave the product out where {layer} runs on constants, as on a first state"
            raise use.refusal(f"a factor that layer {layer} makes of constants", teach)
        raise use.refusal(f"a weight that {name_of(source)} has changed before its use")


def _layer_at(node: fx.Node) -> str | None:
    """The name of the linear or convolutional layer that runs at ``node``, if one does."""
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    weighs = name_of(node) == "linear" or name_of(node).startswith("conv")
    return stack[-1][0] if stack and weighs else None


def times(use: Use) -> Run:
    """A product with, or a quotient by, a constant: its absolute value."""
    name, place = name_of(use.node), use.place
    if name == "div" and place != 0:
        raise use.refusal()
    _no_computed_weight(use)
    operation = torch.mul if name == "mul" else torch.div
    return lambda *values, **_: operation(
        *(v if i == place else _absolute(v) for i, v in enumerate(values[:2]))
    )


def product(use: Use) -> Run:
    """A product with constants, by their absolute values; a signal is never negative."""
    _no_computed_weight(use)
    plain, name = use.plain(), name_of(use.node)
    if name == "addmm":
        if use.place != 1:
            raise use.refusal()
        return lambda bias, x, weight, alpha=1, **_: abs(alpha) * (x @ weight.abs())
    layer = name == "linear" or name.startswith("conv")
    if layer and use.argument("bias", 2) in use.signals:
        raise use.refusal(f"{name} whose bias comes from the input")
    without = layer and not use.biases

    def run(*args, **kwargs) -> Tensor:
        if without:
            args = [None if i == 2 else arg for i, arg in enumerate(args)]
            kwargs = {key: value for key, value in kwargs.items() if key != "bias"}
        return of_absolutes(plain, *args, **kwargs)

    return run


def joins(use: Use) -> Run:
    """Signals side by side. A learned token (ViT's class token) beside them is one more input.

    Its value is ``token``. With ``sum_pools``, where the question is what joins input to output,
    it is none: it does not depend on the input.
    """
    plain, parts = use.plain(), use.argument("tensors", 0)
    carry = None if isinstance(parts, fx.Node) else [part in use.signals for part in parts]
    tokens = [] if carry is None or use.sum_pools else [part in use.learned for part in parts]

    def run(tensors, *args, token: Tensor | float = 0.0, **kwargs) -> Tensor:
        if carry is not None:  # constants beside the signal lie on no path
            kept = zip(tensors, carry, strict=True)
            tensors = [part if flow else torch.zeros_like(part) for part, flow in kept]
        for place, learned in enumerate(tokens):
            if learned:
                tensors[place] = tensors[place] + token
        return plain(tensors, *args, **kwargs)

    run.takes_token = any(tokens)
    return run


def where(use: Use) -> Run:
    """``torch.where`` with a constant mask: at each place the signal of one of two branches.

    Where the signal itself chooses it is an activation, ``where(h > 0, h, a * h)``: h passes.
    """
    order = (0, 1, 2) if use.node.op == "call_function" else (1, 0, 2)
    args, place = use.node.args, use.place
    if len(args) != 3 or args[order[0]] in use.signals:
        raise use.refusal()
    if args[order[0]] in use.still:
        return lambda *values: values[place].expand(
            torch.broadcast_shapes(*(v.shape for v in values if isinstance(v, Tensor)))
        )
    carry = [args[i] in use.signals for i in order[1:]]

    def run(*values) -> Tensor:
        mask, *parts = (values[i] for i in order)
        left, right = (v if flow else 0.0 for v, flow in zip(parts, carry, strict=True))
        return torch.where(mask, left, right)

    return run


def masked(use: Use) -> Run:
    """Zeros where the mask is, whatever is filled in: a constant."""
    return lambda x, mask, value: x.masked_fill(mask, 0)


def padded(use: Use) -> Run:
    """Zeros around the signal, whatever the constant is."""
    if use.module is not None:
        return lambda x: F.pad(x, use.module.padding)
    return lambda x, pad, mode="constant", value=None: F.pad(x, pad, mode)


def interpolated(use: Use) -> Run:
    """Interpolation whose factors are not negative (bicubic ones are)."""
    mode = use.argument("mode", 3, "nearest") if use.module is None else use.module.mode
    if mode not in ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area"):
        what = name_of(use.node) if use.module is None else f"{use.node.target}, an Upsample"
        raise use.refusal(f"{what} with mode={mode!r}")
    return use.plain()


def looked_up(use: Use) -> Run:
    """Ones in place of what tokens look up: paths begin there."""
    if not use.node.meta.get("looks_up"):
        raise use.refusal()
    plain = use.plain()

    def run(*args, token: Tensor | float = 1.0, **kwargs) -> Tensor:
        found = plain(*args, **kwargs)
        # torch.embedding_bag gives counts beside what it looks up.
        found, *beside = found if isinstance(found, tuple) else (found,)
        found = torch.ones_like(found) * token
        return (found, *beside) if beside else found

    run.takes_token = True
    return run


def _scaled(x: Tensor, weight: Tensor | None, variance: Tensor | None, eps: float) -> Tensor:
    """``x`` by each channel's |weight| / sqrt(variance + eps), without what is None."""
    if variance is not None:
        x = x * along_channels(torch.rsqrt(variance + eps), x)
    return x if weight is None else x * along_channels(weight.abs(), x)


def gain(module: nn.Module | None) -> Run:
    """The scale of a norm along the last directions of its input, if it has one."""
    weight = getattr(module, "weight", None)
    return lambda x: x if weight is None else x * weight


def norm(use: Use) -> Run:
    """A norm as a module: its scale, and what it divides by where that is stored."""
    module = use.module  # linearized: without mean and beta, its weight not negative
    if isinstance(module, BATCH_NORM) and module.running_var is not None:
        return module
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return gain(module)
    weight, variance = getattr(module, "weight", None), getattr(module, "running_var", None)
    return lambda x: _scaled(x, weight, variance, module.eps)


def batch_norm(use: Use) -> Run:
    """BatchNorm and InstanceNorm as functions: scale, and variance where that is stored."""
    batch = "use_input_stats" if name_of(use.node) == "instance_norm" else "training"
    stored, learned = ("running_mean", "running_var"), ("weight", "bias")
    # torch.batch_norm takes in another order what torch.nn.functional.batch_norm takes.
    order = learned + stored if inspect.isbuiltin(use.node.target) else stored + learned

    def run(x: Tensor, *args, **how) -> Tensor:
        given = dict(zip((*order, batch, "momentum", "eps"), args, strict=False)) | how
        of_batch = given.get(batch, batch == "use_input_stats")
        variance = None if of_batch else given.get("running_var")
        return _scaled(x, given.get("weight"), variance, given.get("eps", 1e-5))

    return run


def layer_norm(use: Use) -> Run:
    """LayerNorm and RMSNorm as functions: their scale alone, for what they divide by is data."""
    return lambda x, shape, weight=None, *_, **__: x if weight is None else x * weight.abs()


def group_norm(use: Use) -> Run:
    """GroupNorm as a function: the scale of each channel alone."""
    return lambda x, groups, weight=None, *_, **__: _scaled(x, weight, None, 0.0)
