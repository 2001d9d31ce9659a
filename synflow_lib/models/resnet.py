"""Residual networks (He et al. 2016): the CIFAR family, the ImageNet family, and wide ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from .build import build, check_choice, check_counts


class BasicBlock(nn.Module):
    """relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x)): [n, n_in, h, w] -> [n, width, ...]."""

    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(n_in, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu2(out + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1: [n, n_in, h, w] -> [n, 4 * width, h/stride, w/stride]."""

    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int):
        super().__init__()
        n_out = self.expansion * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = _shortcut(n_in, n_out, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu3(out + shortcut)


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and n_in == n_out:
        return None
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


def layout(
    block: type[BasicBlock | Bottleneck],
    stages: list[tuple[int, int]],
    num_classes: int,
    in_channels: int,
    imagenet_stem: bool,
) -> nn.Sequential:
    """A residual network: stem, stages of blocks, mean over the map, one Linear layer.

    ``stages`` are pairs (width, number of blocks); all but the first begin with stride 2. The stem
    is one 3x3 convolution, or ImageNet's: a 7x7 convolution of stride 2 and max pooling.
    """
    channels = stages[0][0]
    size, stride = (7, 2) if imagenet_stem else (3, 1)
    stem = nn.Conv2d(in_channels, channels, size, stride, padding=size // 2, bias=False)
    parts = {"conv1": stem, "bn1": nn.BatchNorm2d(channels), "relu": nn.ReLU()}
    if imagenet_stem:
        parts["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    for index, (width, repeats) in enumerate(stages):
        blocks = []
        for position in range(repeats):
            stride = 2 if index > 0 and position == 0 else 1
            blocks.append(block(channels, width, stride))
            channels = block.expansion * width
        parts[f"layer{index + 1}"] = nn.Sequential(*blocks)
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, fc=nn.Linear(channels, num_classes)))


@dataclass(frozen=True)
class ResNet:
    """A residual network of the CIFAR family (`resnet20`) or the ImageNet family (`resnet18`).

    Where a block changes the shape its shortcut is a 1x1 convolution with BatchNorm, in both
    families, as in the paper's runs; every other shortcut is the identity. Parameter names are
    torchvision's. Convolutions are initialized with Kaiming's normal, fan_in in the CIFAR family
    and fan_out in the ImageNet family (the paper's runs and torchvision); the classifier with
    Kaiming's normal, fan_in. No BatchNorm gamma starts at zero.

    Attributes:
        block: `BasicBlock` or `Bottleneck`.
        blocks: how many, in each stage.
        width: channels of the first stage; each later one has twice as many.
        input_sizes: height and width that the images may have.
        conv_fan: see `build`.

    >>> model = resnet20(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    270896
    >>> model = resnet18(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    11164352
    """

    block: type[BasicBlock | Bottleneck]
    blocks: tuple[int, ...]
    width: int = 64
    input_sizes: tuple[int, ...] = (32, 64, 224)
    conv_fan: str = "fan_out"

    def __call__(
        self,
        num_classes: int = 10,
        input_size: int = 32,
        in_channels: int = 3,
        seed: int | None = None,
    ) -> nn.Sequential:
        """The network, with new weights.

        Args:
            input_size: height and width of the images. 32 and 64 have a 3x3 stem of stride 1 and no
                max pooling (the paper's Tiny ImageNet networks); 224, in the ImageNet family only,
                has ImageNet's 7x7 stem of stride 2 and a max pooling.
            num_classes, in_channels, seed: as in `VGG`, also what is returned and raised.
        """
        check_choice("input_size", input_size, self.input_sizes)
        check_counts(num_classes=num_classes, in_channels=in_channels)
        stages = [(self.width * 2**index, count) for index, count in enumerate(self.blocks)]
        return build(
            lambda: layout(self.block, stages, num_classes, in_channels, input_size == 224),
            seed,
            (in_channels, input_size, input_size),
            self.conv_fan,
        )


_CIFAR = {"width": 16, "input_sizes": (32, 64), "conv_fan": "fan_in"}

resnet20 = ResNet(BasicBlock, (3, 3, 3), **_CIFAR)
"""ResNet-20 of the CIFAR family. Called as `ResNet` says."""
resnet110 = ResNet(BasicBlock, (18, 18, 18), **_CIFAR)
"""ResNet-110 of the CIFAR family. Called as `ResNet` says."""
resnet18 = ResNet(BasicBlock, (2, 2, 2, 2))
"""ResNet-18. Called as `ResNet` says."""
resnet50 = ResNet(Bottleneck, (3, 4, 6, 3))
"""ResNet-50, with bottleneck blocks. Called as `ResNet` says."""
wide_resnet18_as_published = resnet18
"""The network of the figure 6 panels "WideResNet-18": the parameter shapes of ResNet-18.

Its blocks took a width and did not use it, so the published numbers are those of a ResNet-18.
Use it to compare with those panels, and `wide_resnet18` for a network that is wide.
"""


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
        num_classes, input_size, in_channels, seed: as in `ResNet`.

    >>> [wide_resnet18(width=w, seed=0).fc.in_features for w in (1, 2)]
    [512, 1024]
    """
    check_counts(width=width)
    wide = ResNet(BasicBlock, (2, 2, 2, 2), width=64 * width)
    return wide(num_classes, input_size, in_channels, seed)
