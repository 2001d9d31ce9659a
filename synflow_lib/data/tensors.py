"""What `Dataset` is made of: functions on batches of images and on labels, tensors to tensors."""

from __future__ import annotations

import functools
import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from ..values import SEEDS, whole

# Images converted to float at a time where a whole data set is processed: bounds the memory.
CHUNK = 1024


def random_crops(x: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image cropped at random out of a border of zeros, and mirrored with probability 1/2.

    `x` are images, [n, channels, height, width], of any dtype; so is the result. `padding` is the
    width of the border; `flip`, whether to mirror.

    >>> x = torch.ones(2, 3, 8, 8, dtype=torch.uint8)
    >>> random_crops(x, 4, True, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    n, _, height, width = x.shape
    draw = functools.partial(torch.randint, generator=generator, device=generator.device)
    across = torch.arange(width, device=x.device).expand(n, width)
    if flip:
        mirrored = draw(0, 2, (n, 1)).to(x.device).bool()
        across = torch.where(mirrored, across.flip(1), across)
    down = torch.arange(height, device=x.device).expand(n, height)
    if padding:
        shifts = draw(0, 2 * padding + 1, (2, n, 1)).to(x.device)
        down, across = down + shifts[0], across + shifts[1]
        x = F.pad(x, [padding] * 4)
    image = torch.arange(n, device=x.device)[:, None, None]
    # [n, height, width, channels] from one gather of whole pixels; then back to the usual order
    pixels = x.permute(0, 2, 3, 1)[image, down[:, :, None], across[:, None, :]]
    return pixels.permute(0, 3, 1, 2).contiguous()


def resize(x: Tensor, shape: tuple[int, int], channels: int) -> Tensor:
    """uint8 images [n, old channels, old height, old width] at another size and channel count.

    Bilinear to `shape`, (height, width) in pixels; one channel is repeated, many are averaged to
    one. On the CPU, in float64, so that the pixels are the same on every processor and device.

    >>> resize(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), (32, 32), 3).shape
    torch.Size([2, 3, 32, 32])
    """
    parts = []
    for part in x.split(CHUNK):
        images = part.cpu().double()
        if channels < images.shape[1]:
            images = images.mean(1, keepdim=True)
        if shape != images.shape[2:]:
            images = F.interpolate(images, shape, mode="bilinear", antialias=True)
        # Processors differ in the last digits, which would decide where a half is due: cut them.
        images = images.mul_(2**20).round_().div_(2**20)
        images = images.round_().clamp_(0, 255).to(torch.uint8)
        parts.append(images.expand(-1, channels, -1, -1))
    return torch.cat(parts).to(x.device)


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images, in units of the full range.

    From histograms of the 256 values with exact sums, so the same on every processor and on any
    number of threads. A channel that is constant gets a standard deviation of 1.

    >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
    means, stds = [], []
    for channel in range(x.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64, device="cpu")
        for part in x[:, channel].split(CHUNK):
            counts += torch.bincount(part.flatten(), minlength=256).cpu()
        share = counts / counts.sum()
        mean = math.fsum((share * values).tolist())
        variance = math.fsum((share * (values - mean).square()).tolist())
        means.append(mean)
        stds.append(math.sqrt(variance) if counts.count_nonzero() > 1 else 1.0)
    return tuple(means), tuple(stds)


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """A random order of the examples, every beginning of which has the classes in proportion.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> labels[stratified_order(labels, seed=0)][:3].sort().values.tolist()
    [0, 0, 1]
    """
    order, rank = shuffled_ranks(labels, seed)
    shuffled = labels.cpu()[order]
    place = (rank.double() + 0.5) / torch.bincount(shuffled)[shuffled]
    return order[place.argsort(stable=True)]


def shuffled_ranks(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A shuffle of the examples, and for each its position among those of its class.

    Of `labels`, int64 [n] from 0 on any device, two int64 [n] on the CPU: `order[i]` is an example,
    and `rank[i]` counts the examples of its class before place i. `seed`: from -2^63 to 2^64 - 1.
    """
    seed = whole(seed, "seed", *SEEDS)
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed), device="cpu")
    shuffled = labels[order].numpy()
    rank = pd.Series(shuffled).groupby(shuffled).cumcount()
    return order, torch.from_numpy(rank.to_numpy(np.int64, copy=True))
