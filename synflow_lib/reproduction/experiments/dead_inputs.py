"""Notebook 06, question 4: images on an empty canvas, and a SynFlow that looks at its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from ... import models
from ...data import Dataset
from ...graphs.workspace import Context, Workspace
from ...masks import Masks
from ...pruning import prune
from ...scores import Method
from ...synflow import SynFlow
from ...training.recipes import Recipe
from .measured import measured
from .questions import train_masks


def canvas(dataset: Dataset, size: int, noise: bool = False) -> Dataset:
    """Each image in the middle of a larger canvas that says nothing: black, or fresh noise.

    Args:
        dataset: square images.
        size: height and width of the canvas, in pixels; not below the images'.
        noise: fill the rest with grey values drawn evenly from 0 to 255, new ones for each image.

    Returns:
        A data set whose `normalize` only divides, by the root mean square of the original pixels:
        black stays exactly zero, and the images are the same numbers on every canvas.

    Raises:
        ValueError: a canvas smaller than the images.
    """
    channels, height, width = dataset.input_shape
    if size < max(height, width):
        raise ValueError(f"size={size!r}; expected at least the images' {max(height, width)}")
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for name in ("train_x", "test_x"):
        images = getattr(dataset, name)
        shape = (len(images), channels, size, size)
        blank = torch.zeros(shape, dtype=torch.uint8)
        if noise:
            blank = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        blank[:, :, window(dataset, size)] = images.cpu().flatten(2)
        parts[name] = blank.to(images.device)
    scale = float((dataset.train_x.double() / 255).square().mean().sqrt())
    label = f"{dataset.name} on {'noise' if noise else 'black'}, {size}x{size}"
    return dataclasses.replace(
        dataset, name=label, mean=(0.0,) * channels, std=(scale,) * channels, **parts
    )


def window(dataset: Dataset, size: int) -> Tensor:
    """Where on the canvas the image lies: bool, [height, width].

    >>> from synflow_lib import data
    >>> int(window(data.digits(), 16).sum())
    64
    """
    _, height, width = dataset.input_shape
    top, left = (size - height) // 2, (size - width) // 2
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    return inside


class RealInputSynFlow(SynFlow):
    """SynFlow whose R starts from the mean |x| of real images instead of ones.

    It needs images but no labels. R is as homogeneous as before, so all that the paper proves of
    SynFlow holds; inputs that are always zero carry nothing.
    """

    needs_data = True

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        if context.batch is None:
            raise ValueError("this method reads real inputs: pass batch=(x, y)")
        x = context.batch[0]
        self.inflow = self._from(x.to(self.inflow)).unsqueeze(0)

    @staticmethod
    def _from(x: Tensor) -> Tensor:
        return x.abs().mean(0)


class LiveInputSynFlow(RealInputSynFlow):
    """SynFlow with ones at inputs that change from image to image, and zeros elsewhere."""

    @staticmethod
    def _from(x: Tensor) -> Tensor:
        return (x.amax(0) > x.amin(0)).to(x)


def share_inside(masks: Masks, inside: Tensor) -> float:
    """Share of the first layer's kept weights that read a pixel of the image, not of the canvas.

    Args:
        masks: of a fully connected network.
        inside: bool, [height, width], from `window`; all channels alike.

    Returns:
        A share from 0 to 1; NaN where the first layer has lost all its weights.
    """
    kept = next(iter(masks.values())).sum(0).view(-1, inside.numel()).sum(0)
    return float(kept[inside.flatten().to(kept.device)].sum() / kept.sum())


@measured
def trial(
    dataset: Dataset,
    size: int,
    noise: bool,
    methods: Mapping[str, str | type[Method]],
    kept: int,
    recipe: Recipe,
    seeds: Iterable[int],
) -> pd.DataFrame:
    """Prune and train the six-layer perceptron with BatchNorm on one canvas, by several methods.

    Args:
        dataset, size, noise: as in `canvas`.
        methods: label -> method.
        kept: weights to keep, whatever the size of the canvas.
        recipe: of the training.
        seeds: of weights, scoring images and training.

    Returns:
        One row a method and seed: method (the label), seed, fill ("black", "noise"), dead (share of
        the pixels around the image), kept, compression, inside (see `share_inside`), first (weights
        kept in the first layer), accuracy.
    """
    wide, inside = canvas(dataset, size, noise), window(dataset, size)

    def make(seed: int) -> nn.Module:
        return models.fc(wide.input_shape, wide.num_classes, batch_norm=True, seed=seed)

    chosen, shares, first = [], [], []
    for seed in seeds:
        net, batch = make(seed).to(wide.device), wide.scoring_batch(seed=seed)
        total = Masks.ones(net).total
        for label, method in methods.items():
            masks = prune(net, method, total / kept, batch, seed=seed, progress=False)
            chosen.append((label, seed, masks))
            shares.append(share_inside(masks, inside))
            first.append(int(next(iter(masks.values())).sum()))
    dead = 1 - float(inside.double().mean())
    return train_masks(make, chosen, wide, recipe).assign(
        fill="noise" if noise else "black", dead=dead, inside=shares, first=first
    )
