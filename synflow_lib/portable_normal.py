"""Normal random numbers, the same on any processor.

``torch.Tensor.normal_`` computes logarithm, sine and cosine with the instructions of the machine,
so float32 draws differ by an ulp between AVX2 and none, and weights and masks with them. The
uniform numbers underneath are the same everywhere. `normal` makes normal ones of them by additions,
multiplications, divisions and square roots, which IEEE 754 defines to the bit. In torch's own
order: the numbers are torch's up to its rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PIECE = 1 << 15  # a multiple of 16 that fits a cache
_HALF_STEP = 2.0**-25  # torch's uniform float32 numbers are multiples of 2**-24
# Taylor series, as long as float32 asks for.
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]
_COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(7)]
_ARTANH = [1 / (2 * k + 1) for k in range(7)]


def normal(size: int, generator: torch.Generator | None = None) -> Tensor:
    """``size`` draws of N(0, 1), float32 on the CPU.

    Args:
        generator: of the CPU; None is torch's global one.

    >>> draw = lambda: torch.Generator().manual_seed(0)
    >>> torch.allclose(normal(100, draw()), torch.randn(100, generator=draw()), atol=1e-6)
    True
    """
    if size < 16:  # there torch computes in float64 by the C library and rounds
        return torch.empty(size, device="cpu").normal_(generator=generator)
    uniform = torch.rand(size, generator=generator, dtype=torch.float32, device="cpu")
    _box_muller_(uniform[: size - size % 16])
    if size % 16:  # torch draws the last sixteen anew
        last = torch.rand(16, generator=generator, dtype=torch.float32, device="cpu")
        uniform[-16:] = _box_muller_(last)
    return uniform


def _box_muller_(uniform: Tensor) -> Tensor:
    """Of each sixteen the first eight give the radius, the last eight the angle; in place."""
    for piece in uniform.split(_PIECE):
        radius, angle = piece.double().view(-1, 2, 8).unbind(1)
        # Half a step of the uniform numbers aside: a weight of exactly zero would count as pruned.
        radius = (-2.0 * _log((1.0 - radius).clamp(max=1.0 - _HALF_STEP))).sqrt()
        cosine, sine = _on_circle(angle + _HALF_STEP)
        pairs = piece.view(-1, 2, 8)
        pairs[:, 0], pairs[:, 1] = radius * cosine, radius * sine
    return uniform


def _series(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total.mul_(x).add_(coefficient)
    return total


def _log(x: Tensor) -> Tensor:
    """Natural logarithm of numbers in (0, 1]."""
    mantissa, exponent = torch.frexp(x)  # 0.5 to 1
    small = (mantissa < 0.5**0.5).double()
    mantissa, exponent = mantissa + mantissa * small, exponent.double() - small
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    return 2.0 * ratio * _series(_ARTANH, ratio * ratio) + exponent * math.log(2.0)


def _on_circle(part: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a part of a full turn, in [0, 1)."""
    quarter = (4.0 * part).round()
    angle = (part - quarter / 4.0) * (2.0 * math.pi)  # an eighth of a turn at most
    square = angle * angle
    cosine, sine = _series(_COSINE, square), angle * _series(_SINE, square)
    # Then on by 0 to 4 quarters, whose cosine and sine are 0, 1 or -1: these products are exact.
    left = 2.0 - quarter
    across, up = left.abs() - 1.0, left * (2.0 - left.abs())
    return cosine * across - sine * up, sine * across + cosine * up
