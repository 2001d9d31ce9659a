"""What to compare masks with: others with the same weights a layer, and scores turned upside down.

A *quota* says how many weights a layer keeps and not which: as many everywhere, Erdos-Renyi's,
another mask's. Masks of equal quotas differ in the weights alone, which tells what a method's
choice of weights is worth beyond its choice of densities (Frankle et al. 2021, Su et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .fast.selection import TIES, keep_largest
from .masks import Masks
from .network import prunable
from .scores import Method, Scorer, Scores, comparable, resolve
from .trajectory import kept_at
from .values import whole
from .workspace import Context, Workspace

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
    return _apportion(prunable(model, **select), compression, lambda shape: shape.numel())


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
    return {name: int(mask.sum()) for name, mask in masks.items()}


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
    if set(scores) != set(quotas):
        raise ValueError(
            f"scores for {list(scores)} and quotas for {list(quotas)}; expected the same layers"
        )
    masks = {}
    for name, score in scores.items():
        quota = whole(quotas[name], f"quotas[{name!r}]", 0, score.numel())
        if torch.isnan(score).any():
            raise ValueError(f"the scores of {name!r} hold NaN; check the weights and the data")
        within = TIES if score.dtype == torch.float64 else 0.0
        flat = keep_largest(score.flatten(), quota, within=within)
        masks[name] = flat.view(score.shape)
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
    shapes = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    if unknown := [name for name in quotas if name not in shapes]:
        raise ValueError(f"quotas for {unknown}, which the model does not have")
    first = {}
    for name, quota in quotas.items():
        size = shapes[name].numel()
        flat = torch.arange(size) < whole(quota, f"quotas[{name!r}]", 0, size)
        first[name] = flat.view(shapes[name])
    return Masks(first).shuffled(generator)


def _apportion(
    found: Mapping[str, nn.Parameter], compression: float, share_of: Callable[[torch.Size], int]
) -> Quotas:
    """Whole numbers as near to multiples of shares as layer sizes and the exact sum allow."""
    size = np.array([p.numel() for p in found.values()], dtype=np.int64)
    share = np.array([float(share_of(p.shape)) for p in found.values()])
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
    return {name: int(count) for name, count in zip(found, counts, strict=True)}


class Inverted(Method):
    """Minus the scores of ``inner``; below all of them for weights that are zero already."""

    inner: type[Method]

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.method = type(self).inner(work, context)

    def flat(self) -> Tensor:
        return self._inverted(self.method.flat())

    @property
    def within(self) -> float:
        return self.method.within

    def scores(self) -> Scores:
        found = self.method.scores()
        flat = self._inverted(self.work.flatten({n: comparable(n, s) for n, s in found.items()}))
        return Scores(self.work.views(flat), log2_scale=getattr(found, "log2_scale", 0))

    def _inverted(self, flat: Tensor) -> Tensor:
        pruned = self.work.flat == 0
        flat = -flat
        if pruned.any():
            worst = flat.amin()
            # Strictly below the others, for scores of any size.
            below = worst - worst.abs() / 8 - 1e-30
            flat = flat.masked_fill(pruned, below.clamp(min=torch.finfo(flat.dtype).min))
        return flat


def inverted(method: str | Scorer | type[Method]) -> type[Method]:
    """The method that keeps what another method would prune first, and prunes what it would keep.

    Scored again and again, as SynFlow is, the order of those that are left is reversed each time;
    a weight that is zero, such as one pruned before, scores lowest and never returns.

    Args:
        method: a name, a function ``(model, batch) -> scores`` or a method class, as in `score`.

    Returns:
        A method for `score`, `prune` and `register`, with the data, the mode and the number of
        iterations of the original. Its scores are negative: Theorem 3, ``schedule="cut"``, has
        nothing to say about them.

    Raises:
        TypeError, ValueError: no such method.

    Paper: the inversion test of Frankle et al. 2021, arXiv 2009.08576.

    >>> from synflow_lib.pruning import prune
    >>> layer = torch.nn.Linear(3, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 1.0, 2.0]]))
    >>> prune(layer, inverted("magnitude"), 3)["weight"]
    tensor([[False,  True, False]])
    """
    inner = resolve(method)
    return type(
        f"Inverted{inner.__name__}",
        (Inverted,),
        {
            "inner": inner, "needs_data": inner.needs_data, "iterations": inner.iterations,
            "mode": inner.mode, "draws": inner.draws, "own_type": inner.own_type,
            "__doc__": f"{inner.__name__}, its order reversed.",
        },
    )  # fmt: skip
