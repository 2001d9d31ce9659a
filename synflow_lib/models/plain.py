"""Networks without shortcuts: a perceptron, a small convolutional network, and VGG."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from ..values import whole
from .build import build, check_choice, check_counts, check_shape


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
    check_counts(num_classes=num_classes, depth=depth, width=width)
    check_choice("batch_norm", batch_norm, (True, False))
    sizes = [math.prod(shape)] + [width] * (depth - 1)

    def layout() -> nn.Sequential:
        layers = [nn.Flatten()]
        for n_in, n_out in itertools.pairwise(sizes):
            layers.append(nn.Linear(n_in, n_out, bias=not batch_norm))
            layers += [nn.BatchNorm1d(n_out)] if batch_norm else []
            layers.append(nn.ReLU())
        return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))

    return build(layout, seed, shape, conv_fan="fan_in")


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
        depth: prunable layers, the classifier included, at least 2; L = depth.
        width: channels of each convolution.
        num_classes, batch_norm, seed: as in `fc`, also what is returned and raised.

    >>> model = conv(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    260384
    """
    channels, height, across = shape = check_shape(input_shape, 3)
    check_counts(num_classes=num_classes, width=width)
    check_choice("batch_norm", batch_norm, (True, False))
    whole(depth, "depth", 2)

    def layout() -> nn.Sequential:
        layers = _convolutions(channels, [width] * (depth - 1), batch_norm)
        classifier = nn.Linear(width * height * across, num_classes)
        return nn.Sequential(*layers, nn.Flatten(), classifier)

    return build(layout, seed, shape, conv_fan="fan_in")


def _convolutions(channels: int, widths: list[int], batch_norm: bool) -> list[nn.Module]:
    """3x3 convolutions of these widths, each with BatchNorm (or else a bias) and ReLU."""
    layers = []
    for n_in, n_out in itertools.pairwise([channels, *widths]):
        layers.append(nn.Conv2d(n_in, n_out, 3, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(n_out)] if batch_norm else []
        layers.append(nn.ReLU())
    return layers


WIDTHS = (64, 128, 256, 512, 512)  # channels of VGG's five stages


@dataclass(frozen=True)
class VGG:
    """VGG (Simonyan and Zisserman 2015, configurations A, B, D, E) at three input sizes.

    | input_size | body                               | classifier                         |
    |------------|------------------------------------|------------------------------------|
    | 32, 64     | 5 stages, max pooling between them | mean over the map, 1 Linear layer  |
    | 224        | 5 stages, max pooling after each   | 7x7 pool, 3 Linear layers, dropout |

    The paper's Tiny ImageNet runs (64x64) had three Linear layers, 2048-1024-1024-classes, on the
    2x2 map behind a fifth max pooling; `head="mlp"` makes that network. Weights are initialized as
    in the runs that the paper published: Kaiming's normal with fan_in at 32x32, convolutions with
    fan_out at 64x64 and 224x224, Linear layers of the three-layer head normal with standard
    deviation 0.01. The parameter names at 224x224 are torchvision's, so its pretrained weights (of
    the networks without BatchNorm) load.

    Attributes:
        stages: convolutions in each of the five stages, of 64, 128, 256, 512 and 512 channels.

    >>> model = vgg16(num_classes=100, seed=0)  # figure 1, CIFAR-100
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    14761664
    >>> import torch
    >>> with torch.device("meta"):  # figures 4 and 7; counted without allocating half a gigabyte
    ...     model = vgg19(num_classes=1000, input_size=224, batch_norm=False)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    143652544
    """

    stages: tuple[int, int, int, int, int]

    def __call__(
        self,
        num_classes: int = 10,
        input_size: int = 32,
        batch_norm: bool = True,
        in_channels: int = 3,
        head: str | None = None,
        seed: int | None = None,
    ) -> nn.Sequential:
        """The network, with new weights.

        Args:
            num_classes: outputs.
            input_size: height and width of the images: 32, 64 or 224.
            batch_norm: BatchNorm before each ReLU of the convolutions, which then have no bias.
            in_channels: channels of the images.
            head: "linear" (one Linear layer on the averaged map) or "mlp" (three Linear layers with
                dropout); None is "mlp" at 224 and "linear" at 32 and 64.
            seed: of the weights; None draws from torch's global generator.

        Returns:
            A `nn.Sequential` that maps [n, in_channels, input_size, input_size] to logits
            [n, num_classes].

        Raises:
            ValueError: an input size or head that does not exist, or a count below 1.
        """
        check_choice("input_size", input_size, (32, 64, 224))
        check_counts(num_classes=num_classes, in_channels=in_channels)
        check_choice("batch_norm", batch_norm, (True, False))
        head = ("mlp" if input_size == 224 else "linear") if head is None else head
        # A 32x32 image leaves a 1x1 map behind five max poolings: no room for a three-layer head.
        check_choice("head", head, ("linear",) if input_size == 32 else ("linear", "mlp"))

        def layout() -> nn.Sequential:
            features, channels, pool = [], in_channels, {}
            for width, repeats in zip(WIDTHS, self.stages, strict=True):
                features += _convolutions(channels, [width] * repeats, batch_norm)
                features.append(nn.MaxPool2d(2))
                channels = width
            if head == "linear":
                del features[-1]
                pool = {"avgpool": nn.AdaptiveAvgPool2d(1)}
                classifier = nn.Linear(channels, num_classes)
            elif input_size == 224:
                pool = {"avgpool": nn.AdaptiveAvgPool2d(7)}
                classifier = _mlp(channels * 7 * 7, 4096, num_classes)
            else:
                classifier = _mlp(channels * 2 * 2, 1024, num_classes)
            parts = {"features": nn.Sequential(*features), **pool, "flatten": nn.Flatten()}
            return nn.Sequential(OrderedDict(parts, classifier=classifier))

        shape = (in_channels, input_size, input_size)
        fan = "fan_in" if input_size == 32 else "fan_out"
        return build(layout, seed, shape, fan, linear_std=0.01 if head == "mlp" else None)


def _mlp(n_in: int, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(n_in, width), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(width, width), nn.ReLU(), nn.Dropout()),
        nn.Linear(width, num_classes),
    )


# L prunable layers and N weights, at 32x32 with 10 classes.
vgg11 = VGG((1, 1, 2, 2, 2))
"""VGG-11: 8 convolutions and the classifier; L = 9, N = 9,222,848. Called as `VGG` says."""
vgg13 = VGG((2, 2, 2, 2, 2))
"""VGG-13: 10 convolutions and the classifier; L = 11, N = 9,407,168. Called as `VGG` says."""
vgg16 = VGG((2, 2, 3, 3, 3))
"""VGG-16: 13 convolutions and the classifier; L = 14, N = 14,715,584. Called as `VGG` says."""
vgg19 = VGG((2, 2, 4, 4, 4))
"""VGG-19: 16 convolutions and the classifier; L = 17, N = 20,024,000. Called as `VGG` says."""
