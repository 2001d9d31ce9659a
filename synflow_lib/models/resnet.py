"""Residual networks (He et al. 2016): the CIFAR family, the ImageNet family, and wide ones.

Where a block changes the shape its shortcut is a 1x1 convolution with BatchNorm, in both families,
as in the paper's runs; every other shortcut is the identity. Parameter names are torchvision's.
Convolutions are initialized with Kaiming's normal, fan_in in the CIFAR family and fan_out in the
ImageNet family (the paper's runs and torchvision); the classifier with Kaiming's normal, fan_in.
No BatchNorm gamma starts at zero.
"""

from __future__ import annotations

from torch import nn

from synflow_lib.models.blocks import BasicBlock, Bottleneck, layout
from synflow_lib.models.build import build, check_choice, check_count

__all__ = [
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "wide_resnet18",
    "wide_resnet18_as_published",
]

CIFAR_SIZES = (32, 64)
SIZES = (32, 64, 224)


def _cifar(
    depth: int, num_classes: int, input_size: int, in_channels: int, seed: int | None
) -> nn.Sequential:
    check_choice("input_size", input_size, CIFAR_SIZES)
    check_count("num_classes", num_classes)
    check_count("in_channels", in_channels)
    blocks = (depth - 2) // 6
    stages = [(16, blocks), (32, blocks), (64, blocks)]
    return build(
        lambda: layout(BasicBlock, stages, num_classes, in_channels, imagenet_stem=False),
        seed,
        (in_channels, input_size, input_size),
        conv_fan="fan_in",
    )


def _imagenet(
    block: type[BasicBlock | Bottleneck],
    repeats: tuple[int, ...],
    num_classes: int,
    input_size: int,
    in_channels: int,
    seed: int | None,
    width: int = 1,
) -> nn.Sequential:
    check_choice("input_size", input_size, SIZES)
    check_count("num_classes", num_classes)
    check_count("in_channels", in_channels)
    check_count("width", width)
    stages = [(64 * width * 2**index, count) for index, count in enumerate(repeats)]
    return build(
        lambda: layout(block, stages, num_classes, in_channels, imagenet_stem=input_size == 224),
        seed,
        (in_channels, input_size, input_size),
        conv_fan="fan_out",
    )


def resnet20(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-20 of the CIFAR family: three stages of 16, 32 and 64 channels, three blocks each.

    Args:
        num_classes: outputs.
        input_size: height and width of the images: 32 or 64.
        in_channels: channels of the images.
        seed: of the weights; None draws from torch's global generator.

    Returns:
        A `nn.Sequential` that maps [n, in_channels, input_size, input_size] to logits
        [n, num_classes].

    Raises:
        ValueError: another input size, or a count below 1.

    >>> model = resnet20(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    270896
    """
    return _cifar(20, num_classes, input_size, in_channels, seed)


def resnet32(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-32 of the CIFAR family: five blocks a stage. Arguments as in `resnet20`.

    >>> len(resnet32(seed=0).layer1)
    5
    """
    return _cifar(32, num_classes, input_size, in_channels, seed)


def resnet44(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-44 of the CIFAR family: seven blocks a stage. Arguments as in `resnet20`.

    >>> len(resnet44(seed=0).layer1)
    7
    """
    return _cifar(44, num_classes, input_size, in_channels, seed)


def resnet56(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-56 of the CIFAR family: nine blocks a stage. Arguments as in `resnet20`.

    >>> len(resnet56(seed=0).layer1)
    9
    """
    return _cifar(56, num_classes, input_size, in_channels, seed)


def resnet110(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-110 of the CIFAR family: eighteen blocks a stage. Arguments as in `resnet20`.

    >>> len(resnet110(seed=0).layer1)
    18
    """
    return _cifar(110, num_classes, input_size, in_channels, seed)


def resnet18(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-18: four stages of 64, 128, 256 and 512 channels, two basic blocks each.

    Args:
        num_classes: outputs.
        input_size: height and width of the images. 32 and 64 have a 3x3 stem of stride 1 and no
            max pooling (the paper's Tiny ImageNet networks); 224 has ImageNet's 7x7 stem of stride
            2 and a max pooling.
        in_channels: channels of the images.
        seed: of the weights; None draws from torch's global generator.

    Returns:
        A `nn.Sequential` that maps [n, in_channels, input_size, input_size] to logits
        [n, num_classes].

    Raises:
        ValueError: another input size, or a count below 1.

    >>> model = resnet18(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    11164352
    """
    return _imagenet(BasicBlock, (2, 2, 2, 2), num_classes, input_size, in_channels, seed)


def resnet34(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-34: 3, 4, 6 and 3 basic blocks. Arguments as in `resnet18`.

    >>> [len(stage) for name, stage in resnet34(seed=0).named_children() if "layer" in name]
    [3, 4, 6, 3]
    """
    return _imagenet(BasicBlock, (3, 4, 6, 3), num_classes, input_size, in_channels, seed)


def resnet50(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet-50: 3, 4, 6 and 3 bottleneck blocks. Arguments as in `resnet18`.

    >>> [len(stage) for name, stage in resnet50(seed=0).named_children() if "layer" in name]
    [3, 4, 6, 3]
    """
    return _imagenet(Bottleneck, (3, 4, 6, 3), num_classes, input_size, in_channels, seed)


def wide_resnet18(
    num_classes: int = 10,
    input_size: int = 32,
    width: int = 2,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """WideResNet-18: ResNet-18 with every stage (and the stem) `width` times as wide.

    Args:
        width: factor on all channel counts, at least 1; 1 is ResNet-18.
        num_classes, input_size, in_channels, seed: as in `resnet18`.

    >>> [wide_resnet18(width=w, seed=0).fc.in_features for w in (1, 2)]
    [512, 1024]
    """
    return _imagenet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes,
        input_size,
        in_channels,
        seed,
        width=width,
    )


def wide_resnet18_as_published(
    num_classes: int = 10,
    input_size: int = 32,
    in_channels: int = 3,
    seed: int | None = None,
) -> nn.Sequential:
    """The network of the figure 6 panels "WideResNet-18": the parameter shapes of ResNet-18.

    Its blocks took a width and did not use it, so the published numbers are those of a ResNet-18.
    Use it to compare with those panels, and `wide_resnet18` for a network that is wide. Arguments
    as in `resnet18`.

    >>> wide_resnet18_as_published(seed=0).fc.in_features
    512
    """
    return resnet18(num_classes, input_size, in_channels, seed)
