"""Notebooks 07 and 08: shuffled masks, weights on paths, masks that join nothing, own scorers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ...graphs.network import prunable
from ...pruning import prune
from ...scores import score
from .check import Check, NotOfTheKind, by_name, like, numbers, returns, several, switches
from .collapse import by_layer, reached

# ---------------------------------------------------------------------------------------------- 07

DRAWS = 200


def _one_mask() -> Iterator[tuple]:
    for shape, kept in (((4, 5), 6), ((3, 2, 4), 8)):
        mask = torch.zeros(shape, dtype=torch.bool)
        mask.view(-1)[:kept] = True
        yield (mask,)


def _shuffled(answer: object, mask: Tensor) -> dict | None:
    """What many draws have in common, yes or no."""
    before, draws, kept = mask.numpy(), [], True
    for _ in range(DRAWS):
        given = mask.clone()  # what one call does to it is not passed on to the next
        found = returns(switches)(answer, given)
        if found is None:
            return None
        draws.append(found)
        kept &= torch.equal(given, mask)
        if found.shape != before.shape:
            raise NotOfTheKind(f"a mask of shape {found.shape} for one of shape {before.shape}")
    seen, share = np.mean(draws, axis=0), before.mean()
    rows = {each.reshape(len(each), -1).sum(1).tobytes() for each in draws}
    columns = {each.reshape(-1, each.shape[-1]).sum(0).tobytes() for each in draws}
    return {
        "the argument is kept": kept,
        "as many": all(each.sum() == before.sum() for each in draws),
        "never more": all(each.sum() <= before.sum() for each in draws),
        "even": np.abs(seen - share).max() < 6 * np.sqrt(share * (1 - share) / DRAWS),
        "other masks": len({each.tobytes() for each in draws}) > 1,
        "rows differ": len(rows) > 1,
        "columns differ": len(columns) > 1,
    }


def _permuted(mask: Tensor) -> Tensor:
    return mask.flatten()[torch.randperm(mask.numel())].view(mask.shape)


check_shuffle = Check(
    number=1,
    kind="a bool tensor of the mask's shape, as many True at random places",
    cases=_one_mask,
    observe=_shuffled,
    right=_permuted,
    mistakes={
        "the argument was changed; work on a copy":
            lambda mask: mask.copy_(_permuted(mask)).clone(),
        "the number of True varies: each place is drawn by itself; permute the places instead":
            lambda mask: torch.rand(mask.shape) < mask.double().mean(),
        "places are drawn with replacement, and some twice: permute them (torch.randperm)": (
            lambda mask: torch.isin(
                torch.arange(mask.numel()), torch.randint(mask.numel(), (int(mask.sum()),))
            ).view(mask.shape)
        ),
        "the same mask comes every time": lambda mask: mask.clone(),
        "only whole rows move: what a row keeps stays together":
            lambda mask: mask[torch.randperm(len(mask))],
        "only columns move: every row keeps as many as before":
            lambda mask: mask[..., torch.randperm(mask.shape[-1])],
        "whole rows and whole columns move: permute all places at once":
            lambda mask: mask[torch.randperm(len(mask))][..., torch.randperm(mask.shape[-1])],
        "every place is True; as many as in the mask should be": torch.ones_like,
    },
)  # fmt: skip


def _sparse_chains() -> Iterator[tuple]:
    for sizes in ((5, 6, 4, 3), (4, 7, 5, 6), (6, 5, 5, 4), (3, 6, 6, 2), (7, 4, 6, 5)):
        yield ([torch.rand(out, inputs) < 0.4 for inputs, out in pairwise(sizes)],)


def _on_paths(masks: list[Tensor], before: int = 9, after: int = 9) -> list[Tensor]:
    """The weights on paths, as far as so many layers before and after theirs tell."""
    found = []
    for i, mask in enumerate(masks):
        later = [each.T for each in reversed(masks[i + 1 : i + 1 + after])]
        found.append(mask & reached(masks[max(0, i - before) : i]) & reached(later).view(-1, 1))
    return found


check_on_paths = Check(
    number=3,
    kind="a list of bool tensors, one for each layer, in the layers' shapes",
    cases=_sparse_chains,
    observe=returns(several(switches)),
    right=_on_paths,
    mistakes={
        "these are the weights that an input reaches; they have to lead to an output too":
            partial(_on_paths, after=0),
        "these are the weights that lead to an output; an input has to reach them too":
            partial(_on_paths, before=0),
        "these are all kept weights; some of them lie on no path": lambda masks: masks,
        "only neighbouring layers are asked; a path may end further on":
            partial(_on_paths, before=1, after=1),
        "these are the kept weights on *no* path": lambda masks: [
            mask & ~found for mask, found in zip(masks, _on_paths(masks), strict=True)
        ],
        "pruned weights between two joined units are marked; ask the mask as well":
            lambda masks: [found.any(0) & found.any(1)[:, None] for found in _on_paths(masks)],
        "the layers are in the wrong order: the first comes first":
            lambda masks: _on_paths(masks)[::-1],
        "the masks are transposed: (outputs, inputs)":
            lambda masks: [found.T for found in _on_paths(masks)],
    },
)  # fmt: skip


def _cut(masks: tuple, inputs: int, hidden: int, outputs: int, first: int, last: int) -> dict:
    """Too many (1), right (0) or too few (-1) weights by layer, and whether any are joined."""
    a, b = masks
    if a.shape != (hidden, inputs) or b.shape != (outputs, hidden):
        raise NotOfTheKind(f"masks of shapes {a.shape} and {b.shape}")
    return {
        "in the first": np.sign(a.sum() - first),
        "in the last": np.sign(b.sum() - last),
        "joined": (a.any(1) & b.any(0)).any(),
    }


def _first_of(count: int, rows: int, columns: int) -> Tensor:
    """A mask whose first rows are full, up to a count."""
    return torch.arange(rows * columns).view(rows, columns) < count


def _apart(inputs: int, hidden: int, outputs: int, first: int, last: int, apart: bool = True):
    into, out = _first_of(first, hidden, inputs), _first_of(last, hidden, outputs)
    return into, (out.flip(0) if apart else out).T


check_cut_apart = Check(
    number=2,
    kind="two masks, (hidden, inputs) and (outputs, hidden), that keep what the quotas say",
    cases=lambda: [(4, 6, 3, 10, 7), (5, 4, 7, 9, 3), (3, 7, 4, 9, 12), (6, 2, 5, 5, 2)],
    observe=returns(several(switches, 2), _cut),
    right=_apart,
    mistakes={
        "a path is left: both layers use the same hidden units; let them use different ones":
            partial(_apart, apart=False),
        "too many weights: half of the units is filled, but the quota is smaller":
            lambda i, h, o, first, last: _apart(i, h, o, h // 2 * i, h // 2 * o),
        "no weights at all: keep exactly as many as the quotas say":
            lambda i, h, o, first, last: _apart(i, h, o, 0, 0),
        "the last layer is empty: keep as many there as its quota says":
            lambda i, h, o, first, last: _apart(i, h, o, first, 0),
        "the first layer is empty: keep as many there as its quota says":
            lambda i, h, o, first, last: _apart(i, h, o, 0, last),
        "the quotas are swapped: `first` counts the first layer's weights":
            lambda i, h, o, first, last: _apart(i, h, o, last, first),
        "one weight too many in each layer (`<=` for `<`?)":
            lambda i, h, o, first, last: _apart(i, h, o, first + 1, last + 1),
    },
)  # fmt: skip

# ---------------------------------------------------------------------------------------------- 08


def _flow(change: Callable[[Tensor, Tensor], Tensor]):
    """The scorer whose scores are change(SynFlow's, weight)."""

    def scorer(net: nn.Module, batch: object) -> dict[str, Tensor]:
        weights = prunable(net)
        return {n: change(s, weights[n].detach()) for n, s in score(net, "synflow").items()}

    return scorer


check_squared_flow = Check(
    number=1,
    kind="a dict: parameter name -> scores, for every prunable weight",
    cases=lambda: [(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)).double(), None)],
    observe=returns(by_name(numbers)),
    right=_flow(lambda s, w: s.square()),
    mistakes={
        "these are SynFlow's scores themselves; square them": _flow(lambda s, w: s),
        "the square root instead of the square": _flow(lambda s, w: s.sqrt()),
        "doubled instead of squared": _flow(lambda s, w: 2 * s),
        "the weights are squared, not their scores": _flow(lambda s, w: w.square()),
        "the derivative is squared; a score is the derivative times the weight":
            _flow(lambda s, w: (s / w).square()),
        "only the weight is squared: score = derivative * weight, square both":
            _flow(lambda s, w: s * w.abs()),
        "squared twice": _flow(lambda s, w: s**4),
        "divided by the layer's sum; the squares themselves are asked for":
            _flow(lambda s, w: s.square() / s.square().sum()),
    },
)  # fmt: skip


def _uneven() -> Iterator[tuple]:
    """Layers of other sizes, scales and shapes of distribution."""
    for width in (9, 16):
        net = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 6))
        net[0].weight.data = 0.1 * torch.randn(width, 10) ** 3
        yield net, None


COMPRESSIONS = (1.5, 3.0)


def _kept_by(found: dict[str, np.ndarray], net: nn.Module, batch: None) -> dict:
    """By compression and layer: how many weights too many, and in which order they went."""
    weights = prunable(net)
    like(found, weights, "the weights")
    scores = {name: torch.from_numpy(each) for name, each in found.items()}
    seen = {}
    for compression in COMPRESSIONS:
        masks = prune(net, lambda *_: scores, compression, progress=False)
        for name, mask in masks.items():
            excess = int(mask.sum()) - mask.numel() * masks.density
            seen[compression, name] = 0 if abs(excess) <= 1 else round(excess)
            if mask.any() and not mask.all():
                seen[compression, name, "order"] = _order(weights[name].detach(), mask)
    return seen


def _order(weight: Tensor, mask: Tensor) -> int:
    """0: the largest magnitudes stay; 1: the smallest; 2: the largest weights; 3: others."""
    orders = weight.abs(), -weight.abs(), weight
    stay = [bool(each[mask].min() >= each[~mask].max()) for each in orders]
    return [*stay, True].index(True)


def _ranks(of: Callable[[Tensor], Tensor], share: bool = True) -> Callable:
    def ranks(weight: Tensor) -> Tensor:
        rank = of(weight).flatten().argsort().argsort() + 0.5
        return (rank / (weight.numel() if share else 1)).view_as(weight)

    return by_layer(ranks)


check_equal_fractions = Check(
    number=2,
    kind="scores by name that keep the same fraction of every layer, its largest magnitudes",
    cases=_uneven,
    observe=returns(by_name(numbers), _kept_by),
    right=_ranks(Tensor.abs),
    mistakes={
        "this is plain magnitude: layers with small weights lose most; use ranks inside a layer":
            by_layer(Tensor.abs),
        "divided by the layer's average magnitude, a layer with a few large weights still keeps "
        "fewer: use ranks": by_layer(lambda w: w.abs() / w.abs().mean()),
        "divided by the layer's largest magnitude: one outlier decides; use ranks":
            by_layer(lambda w: w.abs() / w.abs().max()),
        "divided by the layer's standard deviation: use ranks, which do not see the distribution":
            by_layer(lambda w: w.abs() / w.std()),
        "ranks run to the size of the layer and large layers keep more: divide by it":
            _ranks(Tensor.abs, share=False),
        "signs are left in: large negative weights go first": _ranks(lambda w: w),
        "the order is reversed: the smallest magnitudes stay": _ranks(lambda w: -w.abs()),
        "the fraction is right, the weights are not: the largest magnitudes of a layer stay":
            _ranks(torch.rand_like),
    },
)  # fmt: skip
