"""What runs in place of max-pooling, maxima and unpooling (read `surrogate` first)."""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .nodes import name_of
from .surrogate import Run, Use, adds


def largest(use: Use) -> Run:
    """Max-pooling; with ``sum_pools``, for all paths, a positive sum over the same windows."""
    if not use.sum_pools:
        return use.plain()
    plain, module = use.plain(), use.module
    name = name_of(use.node, module)
    dims, adaptive = int(name.split("pool")[1][0]), name.startswith("adaptive")
    average = getattr(F, f"adaptive_avg_pool{dims}d")
    keys = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    keys = ("output_size",) if adaptive else keys
    if module is not None:
        indices = module.return_indices
    else:  # torch's own function, unlike torch.nn.functional's, gives them always
        always = adaptive and inspect.isbuiltin(use.node.target) or name.endswith("_with_indices")
        indices = always or use.argument("return_indices", 1 + len(keys), False)

    def run(x: Tensor, *args, **kwargs):
        called = dict(zip(keys, args, strict=False)) | kwargs
        given = called if module is None else vars(module)
        how = {key: given[key] for key in keys if key in given}
        total = average(x, **how) if adaptive else window_sum(dims, x, **how)
        return (total, plain(x, *args, **kwargs)[1]) if indices else total

    return run


def window_sum(dims, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """A positive sum over the windows of a max-pooling."""
    if dilation in (1, (1,) * dims):
        return getattr(F, f"avg_pool{dims}d")(x, kernel_size, stride, padding, ceil_mode)
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


def maximum(use: Use) -> Run:
    """``max`` of one tensor along a direction, or of two tensors.

    A minimum runs as a maximum: min(a, b) = -max(-a, -b), and paths count by absolute values.
    """
    name, args = name_of(use.node), use.node.args
    plain = {"minimum": torch.maximum, "amin": torch.amax}.get(name) or use.plain()
    if use.place is None:
        raise use.refusal()
    if name in ("maximum", "minimum") or len(args) > 1 and isinstance(args[1], fx.Node):
        return adds(use) if use.alone or use.sum_pools else plain
    if not use.sum_pools:
        return plain

    def run(x: Tensor, dim=None, keepdim: bool = False):
        if dim is None or dim == ():
            return x.sum()
        total = x.sum(dim, keepdim)
        places = torch.zeros_like(total, dtype=torch.long)
        return total if name in ("amax", "amin") else (total, places)

    return run


def topk(use: Use) -> Run:
    """The k largest numbers, also where the k smallest are asked for (see `maximum`).

    With ``sum_pools`` each of the k may be any of the numbers, so it is their sum.
    """
    if use.place != 0:
        raise use.refusal()
    if not use.sum_pools:
        return lambda x, k, dim=-1, *_, **__: x.topk(k, dim)

    def run(x: Tensor, k: int, dim: int = -1, *_, **__):
        total = x.sum(dim, keepdim=True)
        total = total.repeat_interleave(k, dim)
        return total, torch.zeros_like(total, dtype=torch.long)

    return run


def unpooled(use: Use) -> Run:
    """Unpooling; with ``sum_pools`` to all places of a window: any may have been its largest."""
    plain, module = use.plain(), use.module
    if not use.sum_pools:
        return plain
    dims = int(name_of(use.node, module).split("pool")[1][0])

    def run(x: Tensor, indices: Tensor, *args, **kwargs) -> Tensor:
        called = dict(zip(("kernel_size", "stride", "padding"), args, strict=False)) | kwargs
        given = called if module is None else vars(module)
        kernel, step, around = (
            (value,) * dims if isinstance(value, int) else tuple(value)
            for value in (
                given["kernel_size"],
                given.get("stride") or given["kernel_size"],
                given.get("padding", 0),
            )
        )
        ones = x.new_ones(x.shape[-dims - 1], 1, *kernel)
        spread = getattr(F, f"conv_transpose{dims}d")(
            x, ones, stride=step, padding=around, groups=len(ones)
        )
        size = plain(x, indices, *args, **kwargs).shape[-dims:]
        beyond = [have - want for have, want in zip(spread.shape[-dims:], size, strict=True)]
        return F.pad(spread, [p for number in beyond[::-1] for p in (0, -number)])

    return run
