"""Convolutions of small maps on the CPU: one matrix product for all images of a batch.

In float64 torch multiplies image by image, each time reading the whole weight. In bfloat16 the
gradient of the weights takes ten times as long as its multiplications need. In float32 nothing is
gained.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .fused import is_plain_conv2d, map_size, windows

# Pixels of a map, up to which one product is the faster way; measured with VGG-16 and VGG-11.
_MATRIX_UNIT = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
_PIXELS = {torch.float64: 64, torch.bfloat16: 16 if _MATRIX_UNIT else 4}


@contextlib.contextmanager
def unfolded(net: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the block the plain ``Conv2d`` layers of ``net``, computing in ``dtype``, run so."""
    layers = unfold_small_maps_(net, dtype)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)  # another thread may share the layer


def unfold_small_maps_(net: nn.Module, dtype: torch.dtype) -> list[nn.Module]:
    """Let the plain ``Conv2d`` layers of a private network, computing in ``dtype``, run that way.

    Returns these layers; none but on the CPU, in float64 or bfloat16.

    >>> layer, x = nn.Conv2d(2, 3, 3, padding=1).double(), torch.rand(4, 2, 5, 5).double()
    >>> expected = layer(x)
    >>> len(unfold_small_maps_(layer, torch.float64))
    1
    >>> torch.allclose(layer(x), expected, rtol=1e-12)
    True
    """
    if dtype not in _PIXELS:
        return []
    layers = [
        module
        for module in net.modules()
        if is_plain_conv2d(module)
        and "forward" not in vars(module)
        and module.weight.device.type == "cpu"
    ]
    for layer in layers:
        layer.forward = functools.partial(_forward, _PIXELS[dtype], layer)
    return layers


def _forward(pixels: int, self: nn.Conv2d, x: Tensor) -> Tensor:
    if x.dim() != 4 or x.shape[2] * x.shape[3] > pixels:
        return nn.Conv2d.forward(self, x)
    columns = windows(self, x).transpose(1, 2).flatten(0, 1)  # (images * pixels, inputs * taps)
    out = nn.functional.linear(columns, self.weight.flatten(1), self.bias)
    return out.view(len(x), *map_size(self, x), len(self.weight)).permute(0, 3, 1, 2)
