r"""The table of rules: what every kind of layer and operation does to a signal.

SynFlow's R and every question about paths are sums over paths, a path being a product of weights
from one input to one output. A row of the table says what an operation does to such a sum:

=========  ========================================================================================
passes     nothing: activations, dropout, changes of type. A path does not depend on them
moves      numbers are moved, repeated or left out: reshape, transpose, pad
sums       numbers are added with fixed factors that are not negative: average pooling, mean
largest    the largest of some numbers: max-pooling. R takes it; the set of paths holds them all
weighs     a layer: a product with \|W\|
scales     a product with a constant of each channel, by its absolute value: norms
adds       a sum: with the signal of another branch, or with a constant, which lies on no path
joins      several signals side by side
gates      half of the signal, which the other half opens and closes
compares   yes or no: no path runs through it, but what it makes may be a gate
attends    attention: the mean of the values that each position may see
looks up   rows of a table by numbers of tokens: an input of ones, at which paths begin
own        what a user's `rule` says
=========  ========================================================================================

What does not depend on the input is a constant and runs as it is. Where two signals multiply each
other, the one that ends in the more saturating activation is a gate, for which 1 stands; so it does
for the norm of a signal, computed of it without weights, that divides it. A softmax becomes the
mean over its positions (see ``gates``). All else follows from the row: what SynFlow runs
(``operations``), and whether a channel stays a channel (``follow``), which the conservation laws,
cuts and the removal of units need. **An operation without a row is refused by name.** `rule` adds
a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx, nn
from torch.nn.modules import activation

from . import attention, pools, surrogate
from .network import BATCH_NORM, PRUNABLE
from .nodes import downstream, is_source, name_of, reads
from .surrogate import Run, Use, first
from .tracing import LEAVES


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        effect: one of the words above.
        build: makes of a `Use` what runs in its place on \\|W\\|, a function of the same arguments,
            or None where the signal passes as it is.
        units: whether channels stay apart and in their places. Without it scores may be summed over
            paths, but no law holds for single units and none can be taken out.
        several: whether more than one argument may come from the input.
        views: whether what comes out may be the same numbers in memory, under another name.
        same_numbers: whether they stay what they are, but for their type or sign: between an
            activation and a product it leaves the activation a gate.
        gate: of activations, how much a factor that ends in this one looks like a gate: of two
            factors the one with the larger number is the gate (see ``gates``).
    """

    effect: str
    build: Callable[[Use], Run | None]
    units: bool = False
    several: bool = False
    views: bool = False
    same_numbers: bool = False
    gate: int = 0


_NO_ACTIVATIONS = ("GLU", "MultiheadAttention")  # in the same file of torch
_ACTIVATIONS = [getattr(nn, name) for name in activation.__all__ if name not in _NO_ACTIVATIONS]

# Functions of torchvision that its graphs do not look into.
_SWIN, _VIDEO = "torchvision.models.swin_transformer", "torchvision.models.video"
FUNCTIONS: dict[str | Callable, Rule] = {}
MODULES: dict[type[nn.Module], Rule] = {}


def _row(effect: str, build, functions: str = "", modules: Iterable[type] = (), **more) -> None:
    # Of modules outside of torch.nn torch.fx would look into the forward: add them to LEAVES too.
    row = Rule(effect, build, **more)
    FUNCTIONS.update(dict.fromkeys(functions.split(), row))
    MODULES.update(dict.fromkeys(modules, row))


def _of_1_2_3d(*names: str) -> list[type[nn.Module]]:
    return [getattr(nn, f"{name}{n}d") for name in names for n in (1, 2, 3)]


# fmt: off
_row("passes", surrogate.passes,
     "relu leaky_relu elu selu celu prelu rrelu tanhshrink softshrink hardshrink logsigmoid"
     " threshold clamp_min clamp_max", _ACTIVATIONS, units=True)
_row("passes", surrogate.passes, "sigmoid hardsigmoid",
     [nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softmax2d, nn.Softmin], units=True, gate=4)
_row("passes", surrogate.passes, "relu6 hardtanh clamp clip", [nn.ReLU6, nn.Hardtanh], units=True,
     gate=3)
_row("passes", surrogate.passes, "tanh softsign erf", [nn.Tanh, nn.Softsign], units=True, gate=2)
_row("passes", surrogate.passes, "silu gelu mish hardswish softplus",
     [nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Softplus], units=True, gate=1)
_row("passes", surrogate.passes,
     "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout"
     " stochastic_depth neg abs positive nan_to_num clone contiguous detach to type type_as float"
     " double half bfloat16 cuda cpu",
     [nn.Identity, nn.Dropout, *_of_1_2_3d("Dropout"), nn.AlphaDropout, nn.FeatureAlphaDropout],
     units=True, same_numbers=True)
_row("passes", surrogate.passes, "softmax softmin", gate=4)
_row("passes", surrogate.passes, "log_softmax normalize local_response_norm",
     [nn.LocalResponseNorm, nn.CrossMapLRN2d])
_row("compares", surrogate.refused, "gt ge lt le", gate=4)
_row("compares", surrogate.refused, "eq ne isnan isinf isfinite")
_row("moves", first(Use.plain), "reshape flatten squeeze unsqueeze", [nn.Flatten], units=True,
     views=True)
_row("moves", first(surrogate.view), "view", units=True, views=True)
_row("moves", first(Use.plain),
     "view_as reshape_as unflatten ravel permute transpose t swapaxes swapdims movedim moveaxis"
     " expand expand_as broadcast_to getitem select narrow chunk split split_with_sizes"
     " tensor_split unbind unfold diagonal T mT", [nn.Unflatten], views=True)
_row("moves", first(Use.plain),
     "repeat repeat_interleave tile index_select gather take_along_dim roll flip rot90 fold"
     " im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle",
     [nn.Fold, nn.Unfold, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle])
_row("moves", first(surrogate.padded), "pad", units=True)
_row("moves", surrogate.padded, "", _of_1_2_3d("ConstantPad", "ZeroPad"), units=True)
_row("moves", Use.plain, "",
     _of_1_2_3d("ReflectionPad", "ReplicationPad", "CircularPad"), units=True)
_row("moves", first(surrogate.masked), "masked_fill", units=True)
_row("sums", first(Use.plain),
     "sum mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
     " adaptive_avg_pool3d", _of_1_2_3d("AvgPool", "AdaptiveAvgPool"), units=True)
_row("sums", first(Use.plain), "cumsum")
_row("sums", first(surrogate.interpolated), "interpolate upsample",
     [nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d], units=True)
_row("sums", first(Use.plain),  # as torch.export calls them
     "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d"
     " upsample_bilinear2d upsample_trilinear3d", units=True)
_row("sums", first(pools.unpooled), "max_unpool1d max_unpool2d max_unpool3d",
     _of_1_2_3d("MaxUnpool"), several=True)
_row("largest", first(pools.largest),
     " ".join(f"{kind}max_pool{n}d{end}" for kind in ("", "adaptive_") for n in (1, 2, 3)
              for end in ("", "_with_indices")),
     _of_1_2_3d("MaxPool", "AdaptiveMaxPool"), units=True)
_row("largest", pools.maximum, "max maximum minimum", several=True)
_row("largest", pools.maximum, "amax amin", units=True)
_row("largest", pools.topk, "topk")
_row("weighs", Use.plain, "", PRUNABLE, units=True)
_row("weighs", surrogate.product,
     "matmul mm bmm mv addmm linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d"
     " conv_transpose3d einsum")
_row("scales", surrogate.norm, "", BATCH_NORM, units=True)
_row("scales", surrogate.norm, "",
     [nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, *_of_1_2_3d("InstanceNorm")])
_row("scales", first(surrogate.batch_norm), "batch_norm instance_norm")
_row("scales", first(surrogate.layer_norm), "layer_norm rms_norm")
_row("scales", first(surrogate.group_norm), "group_norm")
_row("scales", surrogate.times, "mul div", units=True)
_row("adds", surrogate.adds, "add sub", units=True, several=True)
_row("joins", surrogate.joins, "cat concat concatenate stack hstack vstack dstack", several=True)
_row("joins", surrogate.where, "where", several=True)
_row("gates", first(attention.first_half), "glu", [nn.GLU])
_row("attends", attention.dot_product, "scaled_dot_product_attention", several=True)
_row("attends", attention.multihead, "", [nn.MultiheadAttention], several=True)
_row("attends", attention.encoder, "", [nn.TransformerEncoder, nn.TransformerEncoderLayer])
_row("attends", attention.decoder, "", [nn.TransformerDecoder, nn.TransformerDecoderLayer],
     several=True)
_row("attends", attention.transformer, "", [nn.Transformer], several=True)
_row("attends", attention.windows,
     f"{_SWIN}.shifted_window_attention {_VIDEO}.swin_transformer.shifted_window_attention_3d")
_row("moves", first(Use.plain), f"{_SWIN}._patch_merging_pad")
_row("looks up", surrogate.looked_up, "embedding embedding_bag", [nn.Embedding, nn.EmbeddingBag],
     several=True)
# fmt: on


def reached(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose numbers depend on those of the input; the others are constants."""
    return downstream(filter(is_source, graph.nodes), sources=reads)


def rule_at(node: fx.Node, module: nn.Module | None = None) -> Rule | None:
    """The rule for a node that calls ``module`` or, without one, a function or method."""
    if module is not None:
        return rule_of(module)
    if node.op not in ("call_function", "call_method"):
        return None
    return FUNCTIONS.get(node.target) or FUNCTIONS.get(name_of(node))


def effect_of(node: fx.Node, module: nn.Module | None = None) -> str:
    """What the table says that ``node`` does; "" where it has no row."""
    known = rule_at(node, module)
    return known.effect if known is not None else ""


def rule_of(module: nn.Module) -> Rule | None:
    """The rule for a module; None for one that has another forward than its class in the table."""
    kind = type(module)
    known = next((base for base in kind.__mro__ if base in MODULES), None)
    # A subclass, or a module, with a forward of its own does something else.
    other = "forward" in vars(module) or known and kind.forward is not known.forward
    return MODULES[known] if known and not other else None


def rule(
    kind: type[nn.Module] | Callable | str, effect: str | Callable, *, units: bool | None = None
) -> None:
    """Teach the library an operation that it does not know, or knows differently.

    Args:
        kind: a class of modules, which from now on is one operation and not looked into; a function
            that torch.fx records as one (see ``torch.fx.wrap``); or the name of a function of
            torch or of a method of tensors.
        effect: ``"passes"``, for what acts on each number by itself, like an activation; or the
            linear operation that stands for it in sums over paths, called as ``effect(module, x)``
            for a module and with the same arguments for a function: for a product with a gate,
            ``lambda module, value, gate: value``. It may not give negative
            numbers for weights and inputs that are not negative: every use is checked.
        units: whether channel i of what comes out depends on channel i alone of what goes in. Then
            conservation and cuts follow the channel, else they refuse the network. None means so
            for "passes", which acts on each number by itself, and not for a function.

    Raises:
        TypeError: another kind or effect.

    >>> class Swish(nn.Module):
    ...     def forward(self, x):
    ...         return x * torch.sigmoid(x)
    >>> rule(Swish, "passes")
    >>> from synflow_lib import prune
    >>> prune(nn.Sequential(nn.Linear(4, 4), Swish(), nn.Linear(4, 1)), "synflow", 4).kept
    5
    """
    is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
    odd = isinstance(kind, (type, nn.Module))  # a module can be called; its class has the rule
    if not (is_module or isinstance(kind, str) or callable(kind) and not odd):
        raise TypeError(f"kind={kind!r}; expected a class of modules, a function or a name")
    units = effect == "passes" if units is None else units
    if effect == "passes":
        row = Rule("passes", surrogate.passes, units)
    elif callable(effect):
        row = Rule("own", functools.partial(surrogate.own, effect), units, several=True)
    else:
        raise TypeError(f"effect={effect!r}; expected 'passes' or a function")
    if is_module:
        MODULES[kind] = row
        LEAVES.add(kind)
    else:
        FUNCTIONS[kind] = row
