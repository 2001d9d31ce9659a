"""Notebook 06: what single layers hold: constants, spreads, signs, and totals of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from ...batches import Batch
from ...collapse import critical_compression
from ...graphs.network import BATCH_NORM, prunable
from ...masks import Masks
from ...scores import score
from .measured import measured
from .widths import structure


@torch.no_grad()
def unsettle_(net: nn.Module, seed: int = 0) -> nn.Module:
    """Gives biases, gamma, beta and running statistics values that no law can overlook, in place.

    Biases, beta and running means come from N(0, 1/4), gamma from N(0, 1) with both signs, running
    variances from 1/2 to 2.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    for module in net.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.copy_(draw(module.bias) / 2)
        if isinstance(module, BATCH_NORM):
            if module.weight is not None:
                module.weight.copy_(draw(module.weight))
            if module.running_mean is not None:
                module.running_mean.copy_(draw(module.running_mean) / 2)
                module.running_var.copy_(2 ** (2 * torch.sigmoid(draw(module.running_var)) - 1))
    return net


def layer_spreads(net: nn.Module) -> pd.DataFrame:
    """Size, fan-in and root mean square of the weights of each layer.

    Returns:
        One row a layer in forward order: layer (from 1), size, fan_in, rms, expected (Kaiming's
        sqrt(2 / fan_in), for ReLU).

    >>> layer_spreads(nn.Linear(8, 2))[["size", "fan_in", "expected"]].values.tolist()
    [[16.0, 8.0, 0.5]]
    """
    rows = []
    for number, weight in enumerate(prunable(net).values(), start=1):
        fan_in = weight[0].numel()
        rms = float(weight.detach().double().square().mean().sqrt())
        rows.append((number, weight.numel(), fan_in, rms, (2 / fan_in) ** 0.5))
    return pd.DataFrame(rows, columns=["layer", "size", "fan_in", "rms", "expected"])


def gaussian_collapse(sizes: Sequence[int], spreads: Sequence[float]) -> float:
    """Critical compression by layer that magnitude must have if all it knows is each layer's std.

    A layer of n weights from N(0, s^2) is about to lose its last one where the threshold passes the
    median of its largest |weight|. At that threshold every other layer keeps a known share.

    Args:
        sizes, spreads: weights of each layer, and their standard deviation, above 0.

    Returns:
        N / kept, where the first layer falls empty.

    >>> round(gaussian_collapse([100, 100], [1.0, 1.0]))  # the layers fall together, at rho_max
    100
    >>> round(gaussian_collapse([100, 100], [1.0, 0.1]), 1)
    2.5
    """
    sizes, spreads = np.asarray(sizes, float), np.asarray(spreads, float)
    # P(all n below t) = 1/2: (2 Phi(t/s) - 1)^n = 1/2.
    lasts = spreads * ndtri((1 + 0.5 ** (1 / sizes)) / 2)
    threshold = lasts.min()
    kept = (sizes * 2 * ndtr(-threshold / spreads)).sum()
    return float(sizes.sum() / max(kept, len(sizes)))  # no more than rho_max


@measured
def magnitude_collapse(net: nn.Module) -> tuple[float, float]:
    """Critical compression of magnitude by layer: `gaussian_collapse` of its layers, and counted.

    >>> predicted, counted = magnitude_collapse(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    >>> counted <= 64 and predicted <= 64
    True
    """
    spreads = layer_spreads(net)
    predicted = gaussian_collapse(spreads["size"], spreads["rms"])
    return predicted, critical_compression(net, "magnitude").compression


def signs_of_scores(net: nn.Module, batch: Batch) -> pd.DataFrame:
    """What cancels in each layer when SNIP's absolute value is taken away.

    Args:
        net, batch: as in `score`; BatchNorm is in evaluation mode.

    Returns:
        One row a layer: layer (from 1), size, signed (sum of dL/dtheta * theta), absolute (sum of
        its absolute values), negative (share of the weights whose score is below zero).
    """
    found = score(net, "signed_snip", batch, mode="eval")
    rows = [
        (number, s.numel(), float(s.sum()), float(s.abs().sum()), float((s < 0).double().mean()))
        for number, s in enumerate(found.values(), start=1)
    ]
    return pd.DataFrame(rows, columns=["layer", "size", "signed", "absolute", "negative"])


def shuffled_scores(scores: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The same scores at random places of the same layer: every layer keeps its total."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = {}
    for name, each in scores.items():
        order = torch.randperm(each.numel(), generator=generator).to(each.device)
        shuffled[name] = each.flatten()[order].view(each.shape)
    return shuffled


def working_part(net: nn.Module, masks: Masks) -> dict[str, int]:
    """How much of a mask can do anything: weights on paths, and the narrowest layer.

    Returns:
        kept; on_path, kept weights that lie on some path from input to output; narrowest, the
        fewest units that carry a path in any layer but the last.
    """
    layers = structure(net, masks)
    counts = {name: int(layers[name].sum()) for name in ("kept", "on_path")}
    inner = layers.iloc[:-1] if len(layers) > 1 else layers
    return {**counts, "narrowest": int(inner["live"].min())}
