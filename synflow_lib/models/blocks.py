"""Residual blocks (He et al. 2016) and the network that stages of them make."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["BasicBlock", "Bottleneck", "layout"]


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
        """Images to images; see the class."""
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
        """Images to images; see the class."""
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

    Args:
        block: class of the blocks.
        stages: (width, number of blocks) of each; every stage but the first begins with stride 2.
        num_classes: outputs.
        in_channels: channels of the images.
        imagenet_stem: 7x7 convolution of stride 2 and max pooling, or else one 3x3 convolution.
    """
    channels = stages[0][0]
    if imagenet_stem:
        stem = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
    else:
        stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    parts: list[tuple[str, nn.Module]] = [
        ("conv1", stem),
        ("bn1", nn.BatchNorm2d(channels)),
        ("relu", nn.ReLU()),
    ]
    if imagenet_stem:
        parts.append(("maxpool", nn.MaxPool2d(3, stride=2, padding=1)))
    for index, (width, repeats) in enumerate(stages):
        blocks: list[nn.Module] = []
        for position in range(repeats):
            stride = 2 if index > 0 and position == 0 else 1
            blocks.append(block(channels, width, stride))
            channels = block.expansion * width
        parts.append((f"layer{index + 1}", nn.Sequential(*blocks)))
    parts += [
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(channels, num_classes)),
    ]
    return nn.Sequential(OrderedDict(parts))
