"""Exact thresholds among millions of scores, found by sampling and proved by counting.

Conservation makes exact ties: a unit with one weight in and one out gives both the same score. In
floating point they come out an ulp apart, one way on one processor and the other way on another.
So scores that rounding cannot tell apart count as equal, and position decides: put in order, each
score whose distance to its neighbour is at most ``within`` times its size is in the same group of
ties. The groups do not depend on how many weights are to stay, so masks of all sizes are nested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .pieces import in_pieces, spans

_SAMPLES = 1 << 17  # at most, and at most one score in 32
_FEW = 1 << 16  # below so many scores plain sorting is faster than sampling
_SPARSE = 6  # with candidates fewer than one in six, select in a packed copy of them

TIES = 1e-12
"""The ``within`` of scores that are computed in float64.

Rounding moves such a score by 1e-15 to 1e-14 of its size, and the scores of a hundred million
weights lie 1e-8 apart. Between the two, float32 has no room: there ties are exact ones.

Another width must be told to `Method.within`, `quotas.by_score` and `guards.ZeroScores`; another
rule than "the first positions stay" to `_above`, `_by_sorting` and the ranks of `Trajectory`.
"""


def keep_largest(
    scores: Tensor, kept: int, among: Tensor | None = None, *, within: float = 0.0
) -> Tensor:
    """Mark exactly ``kept`` of the scores, the largest; among equal ones the first positions.

    A sorted sample brackets the threshold, counts prove that the bracket holds it, and only the
    scores inside are sorted. A bracket that fails the proof costs time, never exactness: then all
    scores are sorted.

    Args:
        scores: (N,), no NaN.
        kept: 0 to N, an integer, so that no rounding of a density can over- or under-prune.
        among: bool (N,), the scores that may be kept, ``kept`` or more of them; all if None.
        within: relative distance up to which neighbours in the order count as equal.

    Returns:
        bool (N,) with ``kept`` True.

    >>> keep_largest(torch.tensor([1.0, 2.0, 1.0, 1.0]), 3)
    tensor([ True,  True,  True, False])
    >>> keep_largest(torch.tensor([1.0, 1.0 + 2**-52], dtype=torch.float64), 1, within=1e-12)
    tensor([ True, False])
    """
    if not _numpy_knows(scores):
        return _by_sorting(scores, kept, among, within)
    number = scores.numel() if among is None else count(among)
    if number < scores.numel() // _SPARSE:
        return _among(keep_largest, scores, kept, among, within)
    sample = _sorted_sample(scores, among) if 0 < kept < number else None
    if sample is not None:
        found = _split(scores, _bracket(sample, (number - kept) / number, within), among)
        if _settle(found, scores, kept - found.larger, within):
            return found.mask
    return _best(scores, kept, among, within)


def keep_cut(
    scores: Tensor, limit: float, among: Tensor | None = None, *, within: float = 0.0
) -> Tensor:
    """Mark all but the smallest scores whose sum stays strictly under ``limit``.

    The longest prefix of the sorted non-negative scores goes, summed in float64: Theorem 3's
    condition on one iteration, prune size under cut size. Of equal scores the first stay, as in
    `keep_largest`, which also says what ``among`` and ``within`` are.

    >>> keep_cut(torch.tensor([3.0, 1.0, 2.0, 1.0]), 4.5)
    tensor([ True, False, False, False])
    >>> keep_cut(torch.tensor([3.0, 1.0, 2.0, 1.0]), 1.5)
    tensor([ True,  True,  True, False])
    """
    if not _numpy_knows(scores):
        able = scores if among is None else scores.masked_fill(~among, 0)
        stay = (able.sort().values.double().cumsum(0) >= limit).sum()
        stay = stay if among is None else torch.minimum(stay, among.sum())
        return _by_sorting(scores, stay, among, within)
    number = scores.numel() if among is None else count(among)
    if number < scores.numel() // _SPARSE:
        return _among(keep_cut, scores, limit, among, within)
    sample = _sorted_sample(scores, among)
    if sample is not None:
        share = _prefix(sample, limit * sample.numel() / number) / sample.numel()
        found = _split(scores, _bracket(sample, share, within), among, sums=True)
        inside = scores.index_select(0, found.between)
        going = _prefix(inside, limit, found.below)
        if found.below < limit and _settle(found, scores, inside.numel() - going, within):
            return found.mask
    able = scores if among is None else pick(scores, among)
    return _best(scores, able.numel() - _prefix(able, limit), among, within)


def kth_smallest(scores: Tensor, rank: int) -> Tensor:
    """The ``rank``-th smallest score, 1 <= rank <= N; like ``torch.kthvalue``, faster on millions.

    >>> kth_smallest(torch.tensor([3.0, 1.0, 2.0]), 2)
    tensor(2.)
    """
    return pick(scores, keep_largest(scores, scores.numel() - rank + 1)).min()


def tied(scores: Tensor, value: float, within: float) -> tuple[float, float]:
    """The lowest and the highest score of the group that ties with ``value``, itself a score.

    >>> tied(torch.tensor([8.0, 9.0, 10.0, 30.0]), 8.0, within=0.2)
    (8.0, 10.0)
    """
    if not within or not value or math.isinf(value):
        return value, value
    (values,) = arrays(scores)
    reach = 8 * within
    while True:
        floor, ceiling = value - reach * abs(value), value + reach * abs(value)

        def near(piece: slice, floor: float = floor, ceiling: float = ceiling) -> Tensor:
            part = values[piece]
            return torch.as_tensor(part[(part >= floor) & (part <= ceiling)], device="cpu")

        ordered = _sorted(torch.cat(in_pieces(near, spans(len(values)))))
        low, high = _group(ordered, int(torch.searchsorted(ordered, value)), within)
        room = within * max(abs(low), abs(high))
        if reach > 1e300 or (low - room > floor and high + room < ceiling):
            return low, high
        reach *= 1000


# ------------------------------------------------------------------------------ on all scores


def _among(
    keep: Callable[..., Tensor], scores: Tensor, limit: float, among: Tensor, within: float
) -> Tensor:
    """``keep`` on a packed copy of the few scores in ``among``, in which ties keep their order."""
    where = places(among)
    chosen = keep(scores.index_select(0, where), limit, within=within)
    mask = torch.zeros_like(among)
    mask[pick(where, chosen)] = True
    return mask


def _best(scores: Tensor, kept: int, among: Tensor | None, within: float) -> Tensor:
    if not kept:
        return torch.zeros_like(scores, dtype=torch.bool)
    able = scores if among is None else pick(scores, among)
    mask = torch.ones_like(able, dtype=torch.bool)
    if kept < able.numel():
        low, high = _group(_sorted(able), able.numel() - kept, within)
        mask = _above(able, low, high, kept)
    return mask if among is None else among.masked_scatter(among, mask)


def _above(scores: Tensor, low: float, high: float, kept: int) -> Tensor:
    """The ``kept`` largest: all above ``high``, and the first of those that tie with it."""
    mask = scores >= low
    surplus = count(mask) - kept
    if surplus:
        ties = places(mask & (scores <= high))
        mask[ties[ties.numel() - surplus :]] = False
    return mask


def _by_sorting(scores: Tensor, kept: int | Tensor, among: Tensor | None, within: float) -> Tensor:
    """`keep_largest` by torch alone, so that no GPU is waited for: ``kept`` may be a tensor."""
    if among is not None:
        scores = scores.masked_fill(~among, -torch.inf)
    if not scores.numel():
        return torch.zeros_like(scores, dtype=torch.bool)
    number = torch.full((1,), scores.numel(), device=scores.device)
    place = (number - kept).clamp(max=scores.numel() - 1)
    low, high = _group_there(scores.sort().values, place, within)
    mask, ties = scores > high, (scores >= low) & (scores <= high)
    return mask | (ties & (ties.cumsum(0) <= kept - mask.sum()))


def _group_there(ordered: Tensor, place: Tensor, within: float) -> tuple[Tensor, Tensor]:
    """The least and the largest score of the group of ties at a place of the ordered scores."""
    if not within:
        return (ordered.index_select(0, place),) * 2
    below, above = ordered[:-1], ordered[1:]
    gap = above - below
    near = gap.isfinite() & (gap <= within * torch.minimum(below.abs(), above.abs()))
    starts = ~(near | (above == below))
    group = nn.functional.pad(starts.cumsum(0), (1, 0))
    own = group.index_select(0, place)
    first, behind = torch.searchsorted(group, own), torch.searchsorted(group, own, right=True)
    return ordered.index_select(0, first), ordered.index_select(0, behind - 1)


def _group(ordered: Tensor, place: int, within: float) -> tuple[float, float]:
    low, high = _group_there(ordered, torch.tensor([place], device=ordered.device), within)
    return low.item(), high.item()


def _prefix(scores: Tensor, limit: float, base: float = 0.0) -> int:
    """How many of the scores, smallest first, sum with ``base`` to less than ``limit``."""
    return count(base + _sorted(scores).double().cumsum(0) < limit)


# ------------------------------------------------------------------------------ by a sample


def _sorted_sample(scores: Tensor, among: Tensor | None = None) -> Tensor | None:
    if scores.numel() < _FEW:
        return None
    stride = max(32, scores.numel() // _SAMPLES)
    # A stride that shares a factor with the size of a kernel would see one tap only.
    while any(stride % factor == 0 for factor in (2, 3, 5, 7)):
        stride += 1
    sample = scores[::stride]
    if among is not None:
        sample = pick(sample, among[::stride])
    return _sorted(sample) if sample.numel() else None


def _bracket(sample: Tensor, share: float, within: float) -> tuple[float, float]:
    """Values that enclose the quantile ``share`` with six standard deviations to either side."""
    number = sample.numel()
    margin = 6 * (number * share * (1 - share)) ** 0.5 + 6
    low, high = int(share * number - margin), int(share * number + margin)
    floor = sample[low].item() if low >= 0 else -math.inf
    ceiling = sample[high].item() if high < number else math.inf
    if within:  # and what may tie with them
        floor, ceiling = floor - 8 * within * abs(floor), ceiling + 8 * within * abs(ceiling)
    return floor, ceiling


@dataclass
class _Split:
    """Scores parted by a bracket (low, high]."""

    bounds: tuple[float, float]
    mask: Tensor  # of the scores above the bracket
    larger: int  # how many those are
    between: Tensor  # where the scores inside the bracket stand
    below: float  # what the scores under the bracket sum to, in float64; NaN if not asked for


def _split(
    scores: Tensor, bounds: tuple[float, float], among: Tensor | None, sums: bool = False
) -> _Split:
    # Strictly above the low bound: that is often zero, the score of millions pruned before.
    values = scores.numpy()
    mask = torch.empty(scores.shape, dtype=torch.bool, device="cpu")
    marks, may = mask.numpy(), None if among is None else among.numpy()

    def one(piece: slice) -> tuple[int, np.ndarray, float]:
        part, mark = values[piece], marks[piece]
        over = np.greater(part, bounds[0])
        np.greater(part, bounds[1], out=mark)
        if may is not None:
            over &= may[piece]
            mark &= may[piece]
        between = np.flatnonzero(over ^ mark)
        between += piece.start
        below = math.nan
        if sums:
            under = ~over if may is None else np.greater(may[piece], over)
            below = total(part * under)
        return np.count_nonzero(mark), between, below

    larger, between, below = zip(*in_pieces(one, spans(values.size)), strict=True)
    return _Split(bounds, mask, sum(larger), torch.from_numpy(np.concatenate(between)), sum(below))


def _settle(found: _Split, scores: Tensor, missing: int, within: float) -> bool:
    """Mark the ``missing`` best in a bracket, if it proves to hold all that is in question."""
    if not 0 < missing <= found.between.numel():
        return False
    inside = scores.index_select(0, found.between)
    low, high = _group(_sorted(inside), inside.numel() - missing, within)
    (floor, ceiling), room = found.bounds, within * max(abs(low), abs(high))
    if not (low - room > floor and high + room <= ceiling):  # equal ones may lie outside
        return False
    found.mask[found.between[_above(inside, low, high, missing)]] = True
    return True


# ------------------------------------------------------------------------------ small tools
# On a CPU numpy does the following several times faster than torch, in one thread.


def _numpy_knows(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16


def arrays(*tensors: Tensor) -> list[np.ndarray | Tensor]:
    """The same numbers as numpy arrays where numpy knows them all; both have the same operators."""
    if all(_numpy_knows(tensor) for tensor in tensors):
        return [tensor.numpy() for tensor in tensors]
    return list(tensors)


def count(mask: Tensor) -> int:
    """How many are True."""
    return int(np.count_nonzero(mask.numpy())) if _numpy_knows(mask) else int(mask.sum())


def places(mask: Tensor) -> Tensor:
    """Where a flat mask is True, int64."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


def pick(tensor: Tensor, mask: Tensor) -> Tensor:
    """``tensor[mask]``, both flat."""
    return tensor.index_select(0, places(mask))


def total(values: np.ndarray | Tensor) -> float:
    """Their sum in float64."""
    return float(values.sum(dtype=torch.float64 if isinstance(values, Tensor) else np.float64))


def extremes(scores: Tensor) -> tuple[float, float]:
    """The least and the largest score; NaN if any is."""
    ends = in_pieces(lambda piece: torch.stack(scores[piece].aminmax()), spans(scores.numel()))
    low, high = torch.stack(ends).unbind(1)
    return float(low.amin()), float(high.amax())


def count_above(scores: Tensor, bound: float, *, or_equal: bool = False) -> int:
    """How many scores are larger than ``bound``, or at least as large."""
    (values,) = arrays(scores)

    def one(piece: slice) -> int:
        larger = values[piece] >= bound if or_equal else values[piece] > bound
        return count(torch.as_tensor(larger, device="cpu"))

    return sum(in_pieces(one, spans(len(values))))


def erase(tensor: Tensor, stay: Tensor) -> None:
    """Make zero, in place, what ``stay`` does not mark."""
    values, marks = arrays(tensor, stay)

    def one(piece: slice) -> None:
        values[piece] *= marks[piece]

    in_pieces(one, spans(len(values)))


def _sorted(scores: Tensor) -> Tensor:
    if _numpy_knows(scores):
        return torch.from_numpy(np.sort(scores.numpy()))
    return scores.sort().values
