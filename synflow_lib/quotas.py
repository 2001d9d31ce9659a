"""What to compare masks with: others that keep as many weights in each layer.

A *quota* says how many weights a layer keeps and not which: as many everywhere, Erdos-Renyi's,
another mask's. Masks of equal quotas differ in the weights alone, which tells what a method's
choice of weights is worth beyond its choice of densities (Frankle et al. 2021, Su et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .fast.selection import TIES, keep_largest
from .graphs.network import prunable
from .masks import Masks
from .values import instance, kept_at, whole

Quotas = dict[str, int]


def uniform(model: nn.Module, compression: float, **select) -> Quotas:
    """The same density in every layer, up to rounding.

    Args:
        model: any module.
        compression: N / kept, from 1 to N.
        select: bias, batch_norm, keep as in `synflow_lib.prunable`.

    Returns:
        Parameter name -> weights to keep, in forward order. Their sum is exactly
        ``round(N / compression)``; every layer keeps one weight at least where there are enough.

    Raises:
        TypeError, ValueError: a compression out of range.

    >>> uniform(nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)), compression=100)
    {'0.weight': 2, '1.weight': 1}
    """
    return _apportion(prunable(model, **select), compression, math.prod)


def erk(model: nn.Module, compression: float, **select) -> Quotas:
    """Erdos-Renyi-Kernel: kept weights in proportion to the sum of a layer's dimensions.

    A layer of shape (out, in, height, width) keeps a multiple of out + in + height + width, at most
    all it has; so small layers are denser than large ones (Evci et al. 2020, arXiv 1911.11134).
    Arguments, result and errors are those of `uniform`.

    >>> erk(nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)), compression=5.454545)
    {'0.weight': 30, '1.weight': 25}
    """
    return _apportion(prunable(model, **select), compression, sum)


def of(masks: Masks) -> Quotas:
    """What each layer of ``masks`` keeps.

    >>> of(Masks({"a": torch.tensor([True, False]), "b": torch.tensor([True])}))
    {'a': 1, 'b': 1}
    """
    return {name: int(mask.sum()) for name, mask in instance(masks, Masks, "masks").items()}


def by_score(scores: Mapping[str, Tensor], quotas: Mapping[str, int]) -> Masks:
    """The largest scores of every layer, as many as its quota; ties go by position.

    Args:
        scores: parameter name -> scores, from `synflow_lib.score` or your own; of any shape.
        quotas: parameter name -> weights to keep, 0 to the layer's size.

    Raises:
        ValueError: other names in the two, a quota out of range, scores that are NaN.

    >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([9.0, 8.0])}
    >>> by_score(scores, {"a": 2, "b": 1})["a"]
    tensor([ True, False,  True])
    """
    for name, score in instance(scores, Mapping, "scores").items():
        score = instance(score, Tensor, f"scores[{name!r}]")
        if score.layout != torch.strided or score.is_meta or score.is_complex():
            raise ValueError(
                f"the scores of {name!r} are sparse, complex or on meta; expected none"
            )
    if set(scores) != set(instance(quotas, Mapping, "quotas")):
        raise ValueError(
            f"scores for {list(scores)} and quotas for {list(quotas)}; expected the same layers"
        )
    masks = {}
    for name, score in scores.items():
        quota = whole(quotas[name], f"quotas[{name!r}]", 0, score.numel())
        if torch.isnan(score).any():
            raise ValueError(f"the scores of {name!r} hold NaN; check the weights and the data")
        within = TIES if score.dtype == torch.float64 else 0.0
        masks[name] = keep_largest(score.flatten(), quota, within=within).view(score.shape)
    return Masks(masks)


def random(model: nn.Module, quotas: Mapping[str, int], generator: torch.Generator | int) -> Masks:
    """Masks with given quotas whose weights are drawn at random within each layer.

    Args:
        model: the network, of which only names and shapes matter.
        quotas: parameter name -> weights to keep; layers that are not named stay dense and are not
            in the masks.
        generator: of random numbers, or a seed.

    Raises:
        TypeError, ValueError: a name the model does not have, a quota out of range, no generator.

    >>> net = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5))
    >>> of(random(net, erk(net, 10), generator=0)) == erk(net, 10)
    True
    """
    instance(quotas, Mapping, "quotas")
    instance(model, nn.Module, "model")
    shapes = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    if unknown := [name for name in quotas if name not in shapes]:
        raise ValueError(f"quotas for {unknown}, which the model does not have")
    first = {}
    for name, quota in quotas.items():
        numbers = torch.arange(shapes[name].numel(), device="cpu").view(shapes[name])
        first[name] = numbers < whole(quota, f"quotas[{name!r}]", 0, numbers.numel())
    return Masks(first).shuffled(generator)


def _apportion(
    weights: Mapping[str, nn.Parameter], compression: float, share_of: Callable[[torch.Size], int]
) -> Quotas:
    """Whole numbers as near to multiples of shares as layer sizes and the exact sum allow."""
    size = np.array([p.numel() for p in weights.values()], dtype=np.int64)
    share = np.array([float(share_of(p.shape)) for p in weights.values()])
    kept = kept_at(int(size.sum()), compression)
    least = np.full(len(size), int(kept >= len(size)))
    # The factor at which the layers, each within its bounds, would keep `kept` in all: it only
    # rises with the factor, so halving finds it.
    low, high = 0.0, float((size / share).max())
    for _ in range(100):
        middle = (low + high) / 2
        enough = np.clip(middle * share, least, size).sum() >= kept
        low, high = (low, middle) if enough else (middle, high)
    ideal = np.clip(high * share, least, size)
    counts = np.clip(np.floor(ideal).astype(np.int64), least, size)
    while (missing := kept - int(counts.sum())) != 0:  # the largest remainders get the rest
        step = 1 if missing > 0 else -1
        room = counts < size if step > 0 else counts > least
        order = np.argsort(-step * (ideal - counts), kind="stable")
        counts[order[room[order]][: abs(missing)]] += step
    return {name: int(count) for name, count in zip(weights, counts, strict=True)}
