"""VGG-11/13/16/19 (Simonyan and Zisserman 2015, configurations A, B, D, E) at three input sizes.

| input_size | body                                        | classifier                           |
|------------|---------------------------------------------|--------------------------------------|
| 32, 64     | 5 stages, max pooling between them          | mean over the map, 1 Linear layer    |
| 224        | 5 stages, max pooling after each            | 7x7 pool, 3 Linear layers, dropout   |

The paper's Tiny ImageNet runs (64x64) had three Linear layers, 2048-1024-1024-classes, on the
2x2 map behind a fifth max pooling; `head="mlp"` makes that network. Weights are initialized as in
the runs that the paper published: Kaiming's normal with fan_in at 32x32, convolutions with fan_out
at 64x64 and 224x224, Linear layers of the three-layer head normal with standard deviation 0.01.
The parameter names at 224x224 are torchvision's, so its pretrained weights (of the networks
without BatchNorm) load.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from synflow_lib.models.build import build, check_choice, check_count

__all__ = ["vgg11", "vgg13", "vgg16", "vgg19"]

SIZES = (32, 64, 224)
WIDTHS = (64, 128, 256, 512, 512)
# Convolutions in each of the five stages.
STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def _vgg(
    depth: int,
    num_classes: int,
    input_size: int,
    batch_norm: bool,
    in_channels: int,
    head: str | None,
    seed: int | None,
) -> nn.Sequential:
    check_choice("input_size", input_size, SIZES)
    check_count("num_classes", num_classes)
    check_count("in_channels", in_channels)
    head = ("mlp" if input_size == 224 else "linear") if head is None else head
    # A 32x32 image leaves a 1x1 map behind five max poolings: no room for a three-layer head.
    check_choice("head", head, ("linear",) if input_size == 32 else ("linear", "mlp"))

    def layout() -> nn.Sequential:
        features = _features(STAGES[depth], in_channels, batch_norm, last_pool=head == "mlp")
        parts: list[tuple[str, nn.Module]] = [("features", features)]
        if head == "linear":
            parts.append(("avgpool", nn.AdaptiveAvgPool2d(1)))
            classifier: nn.Module = nn.Linear(WIDTHS[-1], num_classes)
        elif input_size == 224:
            parts.append(("avgpool", nn.AdaptiveAvgPool2d(7)))
            classifier = _mlp(WIDTHS[-1] * 7 * 7, 4096, num_classes)
        else:
            classifier = _mlp(WIDTHS[-1] * 2 * 2, 1024, num_classes)
        parts += [("flatten", nn.Flatten()), ("classifier", classifier)]
        return nn.Sequential(OrderedDict(parts))

    return build(
        layout,
        seed,
        (in_channels, input_size, input_size),
        conv_fan="fan_in" if input_size == 32 else "fan_out",
        linear_std=0.01 if head == "mlp" else None,
    )


def _features(
    stages: tuple[int, ...], channels: int, batch_norm: bool, last_pool: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for stage, (width, repeats) in enumerate(zip(WIDTHS, stages, strict=True)):
        for _ in range(repeats):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU())
            channels = width
        if stage < len(stages) - 1 or last_pool:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _mlp(n_in: int, width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(n_in, width), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(width, width), nn.ReLU(), nn.Dropout()),
        nn.Linear(width, num_classes),
    )


def vgg11(
    num_classes: int = 10,
    input_size: int = 32,
    batch_norm: bool = True,
    in_channels: int = 3,
    head: str | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """VGG-11: 8 convolutions and the classifier; L = 9, N = 9,222,848 at 32x32 with 10 classes.

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

    >>> model = vgg11(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    9222848
    """
    return _vgg(11, num_classes, input_size, batch_norm, in_channels, head, seed)


def vgg13(
    num_classes: int = 10,
    input_size: int = 32,
    batch_norm: bool = True,
    in_channels: int = 3,
    head: str | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """VGG-13: 10 convolutions and the classifier; L = 11 at 32x32. Arguments as in `vgg11`.

    >>> model = vgg13(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    9407168
    """
    return _vgg(13, num_classes, input_size, batch_norm, in_channels, head, seed)


def vgg16(
    num_classes: int = 10,
    input_size: int = 32,
    batch_norm: bool = True,
    in_channels: int = 3,
    head: str | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """VGG-16: 13 convolutions and the classifier; L = 14 at 32x32. Arguments as in `vgg11`.

    N = 14,715,584 with 10 classes (CIFAR-10) and 14,761,664 with 100 (CIFAR-100, figure 1).

    >>> model = vgg16(seed=0)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    14715584
    """
    return _vgg(16, num_classes, input_size, batch_norm, in_channels, head, seed)


def vgg19(
    num_classes: int = 10,
    input_size: int = 32,
    batch_norm: bool = True,
    in_channels: int = 3,
    head: str | None = None,
    seed: int | None = None,
) -> nn.Sequential:
    """VGG-19: 16 convolutions and the classifier. Arguments as in `vgg11`.

    L = 17 at 32x32. At 224x224 with 1,000 classes L = 19 and N = 143,652,544 (figures 4 and 7,
    without BatchNorm).

    >>> import torch
    >>> with torch.device("meta"):  # count without allocating half a gigabyte
    ...     model = vgg19(num_classes=1000, input_size=224, batch_norm=False)
    >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
    143652544
    """
    return _vgg(19, num_classes, input_size, batch_norm, in_channels, head, seed)
