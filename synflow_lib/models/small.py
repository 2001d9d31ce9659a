"""Two networks small enough to look at whole: a perceptron and a plain convolutional network."""

from __future__ import annotations

import itertools
import math

from torch import nn

from synflow_lib.models.build import build, check_count, check_shape

__all__ = ["conv", "fc"]


def fc(
    input_shape: tuple[int, ...] = (1, 28, 28),
    num_classes: int = 10,
    depth: int = 6,
    width: int = 100,
    batch_norm: bool = False,
    seed: int | None = None,
) -> nn.Sequential:
    """Fully connected ReLU network: Flatten, `depth` Linear layers, ReLU between them.

    Args:
        input_shape: of one example, without the batch dimension.
        num_classes: outputs.
        depth: Linear layers, the classifier included, at least 1; L = depth.
        width: units of each hidden layer.
        batch_norm: BatchNorm1d before each ReLU; the Linear layers before it have no bias.
        seed: of the weights; None draws from torch's global generator.

    Returns:
        A `nn.Sequential` that maps [n, *input_shape] to logits [n, num_classes].

    Raises:
        ValueError: a size that is not a positive integer.

    >>> model = fc(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    119400
    """
    shape = check_shape(input_shape)
    for name, value in (
        ("num_classes", num_classes),
        ("depth", depth),
        ("width", width),
    ):
        check_count(name, value)
    sizes = [math.prod(shape)] + [width] * (depth - 1)

    def layout() -> nn.Sequential:
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in itertools.pairwise(sizes):
            layers.append(nn.Linear(n_in, n_out, bias=not batch_norm))
            layers += [nn.BatchNorm1d(n_out)] if batch_norm else []
            layers.append(nn.ReLU())
        return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))

    return build(layout, seed, input_shape, conv_fan="fan_in")


def conv(
    input_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int = 10,
    depth: int = 3,
    width: int = 32,
    batch_norm: bool = False,
    seed: int | None = None,
) -> nn.Sequential:
    """Convolutional ReLU network without pooling: `depth - 1` 3x3 convolutions, one Linear layer.

    The defaults are the small network of the paper's code: two convolutions of 32 channels.

    Args:
        input_shape: (channels, height, width) of one image.
        num_classes: outputs.
        depth: prunable layers, the classifier included, at least 2; L = depth.
        width: channels of each convolution.
        batch_norm: BatchNorm2d before each ReLU; the convolutions before it have no bias.
        seed: of the weights; None draws from torch's global generator.

    Returns:
        A `nn.Sequential` that maps [n, *input_shape] to logits [n, num_classes].

    Raises:
        ValueError: a size that is not a positive integer.

    >>> model = conv(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    260384
    """
    channels, height, across = check_shape(input_shape, 3)
    check_count("num_classes", num_classes)
    check_count("depth", depth, minimum=2)
    check_count("width", width)
    sizes = [channels] + [width] * (depth - 1)

    def layout() -> nn.Sequential:
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers.append(nn.Conv2d(n_in, n_out, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(n_out)] if batch_norm else []
            layers.append(nn.ReLU())
        classifier = nn.Linear(width * height * across, num_classes)
        return nn.Sequential(*layers, nn.Flatten(), classifier)

    return build(layout, seed, input_shape, conv_fan="fan_in")
