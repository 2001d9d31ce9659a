"""How every network of this package is made: checked arguments, one initialization, one seed.

A network is laid out without memory (on the meta device), then given memory and initialized
layer by layer in forward order. So a weight is drawn once, the draws depend only on the layers
and not on what PyTorch's constructors happen to draw, and a network of any size can be counted
without being allocated, under `with torch.device("meta")`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..portable_normal import normal
from ..values import whole


def build(
    layout: Callable[[], nn.Module],
    seed: int | None,
    input_shape: tuple[int, ...],
    conv_fan: str,
    linear_std: float | None = None,
) -> nn.Module:
    """The network of ``layout``, in train mode, on torch's current default device and dtype.

    Biases start at 0, BatchNorm at 1 and 0. Residual branches get no zero gamma: it would make the
    SynFlow score of the whole branch zero.

    Args:
        layout: makes a network of Linear, Conv2d and BatchNorm layers, on the meta device.
        seed: None draws from torch's global generator. An integer draws from a generator of its
            own on the CPU: the same weights on every device, and the global generator untouched.
        input_shape: of one input; an attribute of the network, for methods without data.
        conv_fan: "fan_in" or "fan_out", of Kaiming's normal initialization of convolutions.
        linear_std: standard deviation of Linear weights; None is Kaiming's normal with fan_in.
    """
    generator = None
    if seed is not None:
        generator = torch.Generator().manual_seed(whole(seed, "seed", 0, 2**63 - 1))
    target = torch.empty(0).device  # the default device, a surrounding `with` included
    with torch.device("meta"):
        model = layout()
    model.input_shape = tuple(input_shape)
    if target.type == "meta":
        return model
    model.to_empty(device=target if generator is None else "cpu")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                _normal_(module.weight, _kaiming(module.weight, conv_fan), generator)
            elif isinstance(module, nn.Linear):
                std = _kaiming(module.weight, "fan_in") if linear_std is None else linear_std
                _normal_(module.weight, std, generator)
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.ones_(module.weight)
                module.reset_running_stats()
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
    return model.to(target)


def _kaiming(weight: Tensor, fan: str) -> float:
    """Standard deviation of Kaiming's normal initialization in front of ReLU: sqrt(2 / fan)."""
    units = weight.shape[1] if fan == "fan_in" else weight.shape[0]
    return math.sqrt(2.0) / math.sqrt(units * weight[0, 0].numel())


def _normal_(weight: Tensor, std: float, generator: torch.Generator | None) -> None:
    """N(0, std^2), the same on every processor where the numbers come from the CPU's generator."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        weight.copy_(normal(weight.numel(), generator).mul_(std).view_as(weight))
    else:
        weight.normal_(0.0, std, generator=generator)


def check_counts(**counts: int) -> None:
    """ValueError if one of them is not an integer of at least 1."""
    for name, value in counts.items():
        whole(value, name, 1)


def check_choice(name: str, value: object, choices: tuple) -> None:
    """ValueError if `value` is none of `choices`; the error lists them."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def check_shape(input_shape: tuple[int, ...], dimensions: int | None = None) -> tuple[int, ...]:
    """`input_shape` as a tuple of positive integers, or ValueError."""
    try:
        shape = tuple(whole(side, "input_shape", 1) for side in input_shape)
    except (TypeError, ValueError):
        shape = ()
    if not shape or len(shape) != (dimensions or len(shape)):
        raise ValueError(
            f"input_shape is {input_shape!r}; expected {dimensions or 'some'} positive integers "
            "without the batch dimension, such as (1, 28, 28)."
        )
    return shape
