"""How every network of this package is made: checked arguments, one initialization, one seed.

A network is laid out without memory (on the meta device), then given memory and initialized
layer by layer in forward order. So a weight is drawn once, the draws depend only on the layers
and not on what PyTorch's constructors happen to draw, and a network of any size can be counted
without being allocated, under `with torch.device("meta")`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..randomness import normal

__all__ = ["build", "check_choice", "check_count", "check_shape", "initialize_"]


def build(
    layout: Callable[[], nn.Module],
    seed: int | None,
    input_shape: tuple[int, ...],
    conv_fan: str,
    linear_std: float | None = None,
) -> nn.Module:
    """Lays a network out, gives it memory and initializes it.

    Args:
        layout: makes the network; called under the meta device.
        seed: None draws from torch's global generator. An integer draws from a generator of its
            own on the CPU: the same weights on every device, and the global generator untouched.
        input_shape: of one input; the network carries it as an attribute, for methods that need no
            data and so have no batch to tell it.
        conv_fan, linear_std: see `initialize_`.

    Returns:
        The network in train mode, on torch's current default device, in its default dtype.
    """
    generator = None if seed is None else torch.Generator().manual_seed(check_seed(seed))
    target = torch.empty(0).device  # the default device, a surrounding `with` included
    with torch.device("meta"):
        model = layout()
    model.input_shape = tuple(input_shape)
    if target.type == "meta":
        return model
    model.to_empty(device=target if generator is None else "cpu")
    initialize_(model, conv_fan, linear_std, generator)
    return model.to(target)


@torch.no_grad()
def initialize_(
    model: nn.Module,
    conv_fan: str,
    linear_std: float | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Draws every weight anew, in forward order; biases 0; BatchNorm 1, 0 and fresh statistics.

    Residual branches get no zero gamma: it would make the SynFlow score of the whole branch zero.

    Args:
        model: any network of Linear, Conv2d and BatchNorm layers.
        conv_fan: "fan_in" or "fan_out", of Kaiming's normal initialization of convolutions.
        linear_std: standard deviation of Linear weights; None is Kaiming's normal with fan_in.
        generator: where to draw from; None is torch's global generator.
    """
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


def _kaiming(weight: Tensor, fan: str) -> float:
    """Standard deviation of Kaiming's normal initialization in front of ReLU: sqrt(2 / fan)."""
    inputs, outputs = weight.shape[1], weight.shape[0]
    return math.sqrt(2.0) / math.sqrt(
        (inputs if fan == "fan_in" else outputs) * weight[0, 0].numel()
    )


def _normal_(weight: Tensor, std: float, generator: torch.Generator | None) -> None:
    """N(0, std^2), the same on every processor where the numbers come from the CPU's generator."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        weight.copy_(normal(weight.numel(), generator).mul_(std).view_as(weight))
    else:
        weight.normal_(0.0, std, generator=generator)


def check_count(name: str, value: int, minimum: int = 1) -> int:
    """`value`, or ValueError if it is not an integer of at least `minimum`.

    >>> check_count("num_classes", 0)
    Traceback (most recent call last):
    ...
    ValueError: num_classes is 0; expected an integer of at least 1.
    """
    number = _integer(value)
    if number is None or number < minimum:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {minimum}.")
    return number


def _integer(value: object) -> int | None:
    """An integer of Python, numpy or torch as an int; None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def check_choice(name: str, value: object, choices: tuple) -> None:
    """ValueError if `value` is none of `choices`; the error lists them.

    >>> check_choice("input_size", 48, (32, 64))
    Traceback (most recent call last):
    ...
    ValueError: input_size is 48; expected one of 32, 64.
    """
    if value not in choices or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def check_shape(input_shape: tuple[int, ...], dimensions: int | None = None) -> tuple[int, ...]:
    """`input_shape` as a tuple of positive integers, or ValueError."""
    what = "positive integers" if dimensions is None else f"{dimensions} positive integers"
    try:
        shape = tuple(check_count("input_shape", side) for side in input_shape)
    except (TypeError, ValueError):
        shape = ()
    if not shape or (dimensions is not None and len(shape) != dimensions):
        raise ValueError(
            f"input_shape is {input_shape!r}; expected {what} without the batch dimension, "
            "such as (1, 28, 28)."
        )
    return shape


def check_seed(seed: int) -> int:
    """`seed`, or ValueError if torch cannot seed a generator with it."""
    number = _integer(seed)
    if number is None or not 0 <= number < 2**63:
        raise ValueError(f"seed is {seed!r}; expected None or an integer of at least 0.")
    return number
