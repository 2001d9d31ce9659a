"""Convolutions of small maps in float64: one matrix product for all images of a batch.

In float32 torch hands convolutions to a library that sees the whole batch. In float64 it multiplies
image by image, and on a map of 2x2 pixels each product reads the whole weight for four columns.
"""

from __future__ import annotations

import types

import torch
from torch import Tensor, nn

_PIXELS = 64  # of a map, up to which one product is the faster way; measured with VGG-16


def unfold_small_maps_(net: nn.Module) -> None:
    """Let the plain ``Conv2d`` layers of a private float64 network on the CPU run that way.

    >>> layer, x = nn.Conv2d(2, 3, 3, padding=1).double(), torch.rand(4, 2, 5, 5).double()
    >>> expected = layer(x)
    >>> unfold_small_maps_(layer)
    >>> torch.allclose(layer(x), expected, rtol=1e-12)
    True
    """
    for module in net.modules():
        if (
            type(module) is nn.Conv2d
            and module.weight.dtype == torch.float64
            and module.weight.device.type == "cpu"
            and module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.forward = types.MethodType(_forward, module)


def _forward(self: nn.Conv2d, x: Tensor) -> Tensor:
    if x.dim() != 4 or x.shape[2] * x.shape[3] > _PIXELS:
        return nn.Conv2d.forward(self, x)
    sizes = zip(
        x.shape[2:], self.kernel_size, self.padding, self.stride, self.dilation, strict=True
    )
    height, width = (
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, padding, stride, dilation in sizes
    )
    columns = nn.functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
    columns = columns.transpose(0, 1).flatten(1)  # (inputs * taps, images * pixels)
    out = (self.weight.flatten(1) @ columns).view(len(self.weight), len(x), height, width)
    out = out.transpose(0, 1)
    return out if self.bias is None else out + self.bias.view(1, -1, 1, 1)
