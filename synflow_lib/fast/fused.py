"""Weight layers whose backward pass writes scores: the arithmetic of fast SynFlow.

Autograd would write a gradient as large as the network, to be read again with the weights. Here
each piece of a layer, some of its output units, becomes scores while it is in cache, and pieces
run on all threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .pieces import PIECE, in_pieces, spans

_LARGE = 1 << 18  # weights, from where pieces cost less than they save
_MANY = 1 << 22  # multiplications, from where they do in a convolution
_PARTS = 4  # at least so many pieces


def fused(module: nn.Module, target: Callable[[], Tensor]) -> Callable[[Tensor], Tensor] | None:
    """The layer ``module``, without its bias, as an operation that writes its scores, or None.

    ``target`` gives the tensor that they are written to. Small layers leave it alone and give
    autograd a gradient, which costs less there.
    """
    if type(module) is not nn.Linear and not is_plain_conv2d(module):
        return None

    kinds: dict[tuple[torch.Size, torch.Size], type[_Product | _Convolution] | None] = {}

    def run(x: Tensor) -> Tensor:
        shapes = x.shape, module.weight.shape
        if shapes not in kinds:
            kinds[shapes] = _kind(module, x)
        kind = kinds[shapes]
        return _Scored.apply(x, module.weight, kind(module, target())) if kind else module(x)

    return run


def _kind(module: nn.Module, x: Tensor) -> type[_Product | _Convolution] | None:
    """How a layer is best run on inputs like ``x``; None: as it is."""
    size = module.weight.numel()
    if type(module) is nn.Linear:
        return _Linear if size >= _LARGE and x.dim() == 2 else None
    if x.dim() != 4:  # what the layer itself says of it is clearer
        return None
    if works_as_product(module, x):
        return _Product if size >= _LARGE else None
    return _Convolution if size * math.prod(map_size(module, x)) >= _MANY else None


def map_size(module: nn.Conv2d, x: Tensor) -> list[int]:
    """Height and width of what a convolution makes of ``x``."""
    return [
        (length + 2 * pad - spread * (kernel - 1) - 1) // step + 1
        for length, pad, spread, kernel, step in zip(
            x.shape[2:], module.padding, module.dilation, module.kernel_size, module.stride,
            strict=True,
        )
    ]  # fmt: skip


def works_as_product(module: nn.Conv2d, x: Tensor) -> bool:
    """Whether a matrix product is faster: one image, a map of few positions, on a CPU.

    There all the work is reading weights, which a convolution copies into a layout of its own.
    """
    few = 64 if x.dtype == torch.float64 else 16
    return len(x) == 1 and x.device.type == "cpu" and math.prod(map_size(module, x)) <= few


def windows(module: nn.Conv2d, x: Tensor) -> Tensor:
    """The windows of images as columns, (images, channels * kernel size, positions)."""
    m = module
    return nn.functional.unfold(x, m.kernel_size, m.dilation, m.padding, m.stride)


def is_plain_conv2d(module: nn.Module) -> bool:
    """Whether a matrix product may stand for ``module``."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


class _Scored(torch.autograd.Function):
    """Runs a layer; the gradient of its weight ends as scores and is not returned."""

    @staticmethod
    def forward(ctx, x, weight, layer):
        ctx.layer, ctx.x = layer, x
        return layer.forward(x)

    @staticmethod
    def backward(ctx, gradient):
        onward = ctx.layer.backward(ctx.x, gradient, ctx.needs_input_grad[0])
        return onward, None, None


class _Product:
    """A convolution of one image as a matrix product with the columns of its windows."""

    def __init__(self, module: nn.Module, scores: Tensor) -> None:
        self.module = module
        self.weight, self.scores = module.weight.detach().flatten(1), scores.flatten(1)

    def columns(self, x: Tensor) -> Tensor:
        return windows(self.module, x)[0]

    def shaped(self, y: Tensor, x: Tensor) -> Tensor:
        return y.view(1, -1, *map_size(self.module, x))

    def folded(self, columns: Tensor, x: Tensor) -> Tensor:
        m = self.module
        return nn.functional.fold(
            columns[None], x.shape[2:], m.kernel_size, m.dilation, m.padding, m.stride
        )

    def forward(self, x: Tensor) -> Tensor:
        self.inflow = self.columns(x)
        (size, positions), outputs = self.inflow.shape, len(self.weight)
        # What fits a cache, unless it were less work than going through a map of that many places.
        rows = max(PIECE // size, 4 * positions)
        self.pieces = spans(outputs, min(rows, -(-outputs // _PARTS)))
        found = in_pieces(lambda piece: self.weight[piece] @ self.inflow, self.pieces)
        return self.shaped(torch.cat(found), x)

    def backward(self, x: Tensor, gradient: Tensor, onward: bool) -> Tensor | None:
        gradient = gradient.reshape(len(self.weight), -1)

        def one(piece: slice) -> Tensor | None:
            weight, outflow = self.weight[piece], gradient[piece]
            torch.mm(outflow, self.inflow.T, out=self.scores[piece]).mul_(weight)
            return outflow.T @ weight if onward else None

        found = in_pieces(one, self.pieces)
        return self.folded(sum(found[1:], found[0]).T, x) if onward else None


class _Linear(_Product):
    """A fully connected layer: one column for each input."""

    def columns(self, x: Tensor) -> Tensor:
        return x.T

    def shaped(self, y: Tensor, x: Tensor) -> Tensor:
        return y.T

    def folded(self, columns: Tensor, x: Tensor) -> Tensor:
        return columns.T

    def backward(self, x: Tensor, gradient: Tensor, onward: bool) -> Tensor | None:
        return super().backward(x, gradient.T, onward)


class _Convolution:
    """A convolution on a large map."""

    def __init__(self, module: nn.Module, scores: Tensor) -> None:
        self.module, self.weight, self.scores = module, module.weight.detach(), scores
        self.how = (module.stride, module.padding, module.dilation)
        # Two, since every piece copies the image into the convolution's layout once more.
        self.pieces = spans(len(self.weight), max(16, (len(self.weight) + 1) // 2))

    def forward(self, x: Tensor) -> Tensor:
        found = in_pieces(
            lambda piece: nn.functional.conv2d(x, self.weight[piece], None, *self.how), self.pieces
        )
        return torch.cat(found, 1)

    def backward(self, x: Tensor, gradient: Tensor, onward: bool) -> Tensor | None:
        def one(piece: slice) -> Tensor | None:
            back, grown, _ = torch.ops.aten.convolution_backward(
                gradient[:, piece], x, self.weight[piece], None, *self.how, False, (0, 0), 1,
                (onward, True, False),
            )  # fmt: skip
            torch.mul(grown, self.weight[piece], out=self.scores[piece])
            return back

        found = in_pieces(one, self.pieces)
        return sum(found[1:], found[0]) if onward else None
