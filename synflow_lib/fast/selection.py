"""Exact thresholds among millions of scores, found by sampling and proved by counting.

Conservation makes exact ties: a unit with one weight in and one out gives both the same score. In
floating point they come out an ulp apart, one way on one processor and the other way on another.
So scores that rounding cannot tell apart count as equal, and position decides: put in order, each
score whose distance to its neighbour is at most ``within`` times its size is in the same group of
ties. The groups do not depend on how many weights are to stay, so masks of all sizes are nested.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .pieces import in_pieces, spans

_SAMPLES = 1 << 17  # at most, and at most one score in 32
_FEW = 1 << 16  # scores, from where a detour over samples pays

TIES = 1e-12
"""The ``within`` of scores that are computed in float64.

Rounding moves such a score by 1e-15 to 1e-14 of its size, and the scores of a hundred million
weights lie 1e-8 apart. Between the two, float32 has no room: there ties are exact ones.
"""


def keep_largest(
    scores: Tensor,
    kept: int,
    among: Tensor | None = None,
    *,
    within: float = 0.0,
    out: Tensor | None = None,
) -> Tensor:
    """Mark exactly ``kept`` of the scores, the largest; among equal ones the first positions.

    Args:
        scores: (N,), no NaN.
        kept: 0 to N, an integer, so that no rounding of a density can over- or under-prune.
        among: bool (N,), the scores that may be kept, ``kept`` or more of them; all if None.
        within: relative distance up to which neighbours in the order count as equal.
        out: bool (N,), written to and returned.

    Returns:
        bool (N,) with ``kept`` True.

    >>> keep_largest(torch.tensor([1.0, 2.0, 1.0, 1.0]), 3)
    tensor([ True,  True,  True, False])
    >>> keep_largest(torch.tensor([1.0, 1.0 + 2**-52], dtype=torch.float64), 1, within=1e-12)
    tensor([ True, False])
    """
    if not _numpy_knows(scores):
        return _into(out, _by_sorting(scores, kept, among, within))
    total = scores.numel() if among is None else count(among)
    sample = _sorted_sample(scores, among) if 0 < kept < total else None
    if sample is not None:
        found = _split(scores, _bracket(sample, (total - kept) / total, within), among, out)
        if _settle(found, scores, kept - found.larger, within):
            return found.mask
    return _into(out, _best_among(scores, kept, among, within))


def _settle(found: _Split, scores: Tensor, missing: int, within: float) -> bool:
    """Mark the ``missing`` best in a bracket, if it proves to hold all that is in question."""
    if not 0 < missing <= found.between.numel():
        return False
    inside = scores.index_select(0, found.between)
    low, high = _tied(_sorted(inside), inside.numel() - missing, within)
    (floor, ceiling), room = found.bounds, within * max(abs(low), abs(high))
    if not (low - room > floor and high + room <= ceiling):  # equal ones may lie outside
        return False
    found.mask[found.between[_above(inside, low, high, missing)]] = True
    return True


class _Split(NamedTuple):
    bounds: tuple[float, float]
    mask: Tensor  # of the scores above the bracket
    larger: int  # how many those are
    between: Tensor  # where the scores inside the bracket stand
    below: float  # what the scores under the bracket sum to, in float64; NaN if not asked for


def _split(
    scores: Tensor,
    bounds: tuple[float, float],
    among: Tensor | None,
    out: Tensor | None,
    sums: bool = False,
) -> _Split:
    """Where the scores stand relative to a bracket (low, high].

    Strictly above ``low``: what was pruned before scores zero, in millions, and is often the bound.
    """
    values = scores.numpy()
    mask = torch.empty(scores.shape, dtype=torch.bool) if out is None else out
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


def _by_sorting(scores: Tensor, kept: int | Tensor, among: Tensor | None, within: float) -> Tensor:
    """The same for other devices: nothing here waits for them, so ``kept`` may live there."""
    if among is not None:
        scores = scores.masked_fill(~among, -torch.inf)
    if not scores.numel():
        return torch.zeros_like(scores, dtype=torch.bool)
    total = torch.full((1,), scores.numel(), device=scores.device)
    place = (total - kept).clamp(max=scores.numel() - 1)
    low, high = _tied_there(scores.sort().values, place, within)
    mask, ties = scores > high, (scores >= low) & (scores <= high)
    return mask | (ties & (ties.cumsum(0) <= kept - mask.sum()))


def _tied_there(ordered: Tensor, place: Tensor, within: float) -> tuple[Tensor, Tensor]:
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


def _tied(ordered: Tensor, place: int, within: float) -> tuple[float, float]:
    low, high = _tied_there(ordered, torch.tensor([place], device=ordered.device), within)
    return low.item(), high.item()


def tied(scores: Tensor, value: float, within: float) -> tuple[float, float]:
    """The least and the largest of the scores that count as equal to ``value``, one of them.

    >>> tied(torch.tensor([8.0, 9.0, 10.0, 30.0]), 8.0, within=0.2)
    (8.0, 10.0)
    """
    if not within or not value or math.isinf(value):
        return value, value
    reach = 8 * within
    while True:
        floor, ceiling = value - reach * abs(value), value + reach * abs(value)
        near = _sorted(_between(scores, floor, ceiling))
        low, high = _tied(near, int(torch.searchsorted(near, value)), within)
        room = within * max(abs(low), abs(high))
        if reach > 1e300 or (low - room > floor and high + room < ceiling):
            return low, high
        reach *= 1000


def _between(scores: Tensor, floor: float, ceiling: float) -> Tensor:
    (values,) = arrays(scores)

    def one(piece: slice) -> Tensor:
        part = values[piece]
        found = part[(part >= floor) & (part <= ceiling)]
        return torch.as_tensor(found)

    return torch.cat(in_pieces(one, spans(len(values))))


def _best_among(scores: Tensor, kept: int, among: Tensor | None, within: float) -> Tensor:
    if among is None:
        return _best(scores, kept, within)
    mask, able = torch.zeros_like(among), places(among)
    mask[able[_best(scores.index_select(0, able), kept, within)]] = True
    return mask


def _into(out: Tensor | None, mask: Tensor) -> Tensor:
    return mask if out is None else out.copy_(mask)


def _best(scores: Tensor, kept: int, within: float) -> Tensor:
    total = scores.numel()
    if kept <= 0 or kept >= total:
        return torch.full_like(scores, kept > 0, dtype=torch.bool)
    if within:
        low, high = _tied(_sorted(scores), total - kept, within)
    else:
        low = high = _kth(scores, total - kept + 1).item()
    return _above(scores, low, high, kept)


def _kth(scores: Tensor, rank: int) -> Tensor:
    if _numpy_knows(scores):
        # numpy's partition takes ten times longer where most scores tie, as pruned ones do.
        values, place = scores.numpy(), rank - 1
        order = np.sort(values) if values.size < _FEW else np.partition(values, place)
        return torch.from_numpy(order)[place]
    return torch.kthvalue(scores, rank).values


def _above(scores: Tensor, low: float, high: float, kept: int) -> Tensor:
    """The ``kept`` largest, where those from ``low`` to ``high`` tie and are in question."""
    mask = scores >= low
    surplus = count(mask) - kept
    if surplus:
        ties = places(mask & (scores <= high))
        mask[ties[ties.numel() - surplus :]] = False
    return mask


def kth_smallest(scores: Tensor, rank: int) -> Tensor:
    """The ``rank``-th smallest score, 1 <= rank <= N; like ``torch.kthvalue``, faster on millions.

    A sorted sample brackets the answer, two counts prove that the bracket holds it, and only the
    scores inside the bracket are searched. A bracket that fails the proof costs time, never
    exactness: then all scores are searched.
    """
    sample = _sorted_sample(scores)
    if sample is not None:
        low, high = _bracket(sample, rank / scores.numel(), 0.0)
        below = scores.numel() - count_above(scores, low, or_equal=True)
        inside = _between(scores, low, high)
        if below < rank <= below + inside.numel():
            return _kth(inside, rank - below)
    return _kth(scores, rank)


def keep_cut(
    scores: Tensor,
    limit: float,
    among: Tensor | None = None,
    *,
    within: float = 0.0,
    out: Tensor | None = None,
) -> Tensor:
    """Mark all but the smallest scores whose sum stays strictly under ``limit``.

    The longest prefix of the sorted non-negative scores goes, summed in float64: Theorem 3's
    condition on one iteration, prune size under cut size. Of equal scores the first stay, as in
    `keep_largest`, which also says what ``among``, ``within`` and ``out`` are.

    >>> keep_cut(torch.tensor([3.0, 1.0, 2.0, 1.0]), 4.5)
    tensor([ True, False, False, False])
    >>> keep_cut(torch.tensor([3.0, 1.0, 2.0, 1.0]), 1.5)
    tensor([ True,  True,  True, False])
    """
    if not _numpy_knows(scores):
        able = scores if among is None else scores.masked_fill(~among, 0)
        stay = (able.sort().values.double().cumsum(0) >= limit).sum()
        stay = stay if among is None else torch.minimum(stay, among.sum())
        return _into(out, _by_sorting(scores, stay, among, within))
    sample = _sorted_sample(scores, among)
    if sample is not None:
        total = scores.numel() if among is None else count(among)
        stride = total / sample.numel()
        share = _prefix(sample, limit / stride) / sample.numel()
        found = _split(scores, _bracket(sample, share, within), among, out, sums=True)
        inside = scores.index_select(0, found.between)
        going = _prefix(inside, limit, found.below)
        if found.below < limit and _settle(found, scores, inside.numel() - going, within):
            return found.mask
    able = scores if among is None else pick(scores, among)
    return _into(out, _best_among(scores, able.numel() - _prefix(able, limit), among, within))


def _prefix(scores: Tensor, limit: float, base: float = 0.0) -> int:
    """How many of the scores, smallest first, sum with ``base`` to less than ``limit``."""
    return count(base + _sorted(scores).double().cumsum(0) < limit)


# On a CPU numpy does the following several times faster than torch, in one thread.


def count(mask: Tensor) -> int:
    """How many are True."""
    return int(np.count_nonzero(mask.numpy())) if _numpy_knows(mask) else int(mask.sum())


def count_above(scores: Tensor, bound: float, *, or_equal: bool = False) -> int:
    """How many scores are larger than ``bound``, or at least as large."""
    if not _numpy_knows(scores):
        return count(scores >= bound if or_equal else scores > bound)
    values = scores.numpy()
    larger = np.greater_equal if or_equal else np.greater
    return sum(
        in_pieces(lambda p: int(np.count_nonzero(larger(values[p], bound))), spans(values.size))
    )


def erase(tensor: Tensor, stay: Tensor) -> None:
    """Make zero, in place, what ``stay`` does not mark."""
    values, marks = arrays(tensor, stay)

    def one(piece: slice) -> None:
        values[piece] *= marks[piece]

    in_pieces(one, spans(len(values)))


def arrays(*tensors: Tensor) -> list[np.ndarray | Tensor]:
    """The same numbers as numpy arrays where numpy knows them all; both have the same operators."""
    if all(_numpy_knows(tensor) for tensor in tensors):
        return [tensor.numpy() for tensor in tensors]
    return list(tensors)


def total(values: np.ndarray | Tensor) -> float:
    """Their sum in float64."""
    return float(values.sum(dtype=torch.float64 if isinstance(values, Tensor) else np.float64))


def _sorted(scores: Tensor) -> Tensor:
    if _numpy_knows(scores):
        return torch.from_numpy(np.sort(scores.numpy()))
    return scores.sort().values


def _numpy_knows(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16


def extremes(scores: Tensor) -> tuple[float, float]:
    """The least and the largest score; NaN if any is."""
    ends = in_pieces(lambda piece: torch.stack(scores[piece].aminmax()), spans(scores.numel()))
    low, high = torch.stack(ends).unbind(1)
    return float(low.amin()), float(high.amax())


def pick(tensor: Tensor, mask: Tensor) -> Tensor:
    """``tensor[mask]``."""
    if tensor.device.type == "cpu":
        return torch.from_numpy(np.compress(mask.numpy(), tensor.numpy()))
    return tensor[mask]


def places(mask: Tensor) -> Tensor:
    """Where a flat mask is True, int64."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


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
    count = sample.numel()
    margin = 6 * (count * share * (1 - share)) ** 0.5 + 6
    low, high = int(share * count - margin), int(share * count + margin)
    floor = sample[low].item() if low >= 0 else -math.inf
    ceiling = sample[high].item() if high < count else math.inf
    if within:  # and what may tie with them
        floor, ceiling = floor - 8 * within * abs(floor), ceiling + 8 * within * abs(ceiling)
    return floor, ceiling
