"""Exact thresholds among millions of scores, found by sampling and proved by counting."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .pieces import in_pieces, spans

_SAMPLES = 1 << 15  # at most, and at most one score in 32
_FEW = 1 << 16  # scores, from where a detour over samples pays


def keep_largest(scores: Tensor, kept: int) -> Tensor:
    """Mark exactly ``kept`` of the scores, the largest; among equal ones the first positions.

    Args:
        scores: (N,), no NaN.
        kept: 0 to N, an integer, so that no rounding of a density can over- or under-prune.

    Returns:
        bool (N,) with ``kept`` True.

    >>> keep_largest(torch.tensor([1.0, 2.0, 1.0, 1.0]), 3)
    tensor([ True,  True,  True, False])
    """
    total = scores.numel()
    sample = _sorted_sample(scores) if 0 < kept < total else None
    if sample is not None:
        low, high = _bracket(sample, (total - kept) / total)
        mask, larger, between = _split(scores, low, high)
        missing = kept - larger
        if 0 <= missing <= between.numel():  # the bracket is proved: only they are in question
            mask[between[_best(scores.index_select(0, between), missing)]] = True
            return mask
    return _best(scores, kept)


def _split(scores: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, int, Tensor]:
    """Mark the scores above ``high``; how many; and the places of those in (low, high].

    Strictly above ``low``: what was pruned before scores zero, in millions, and is often the bound.
    """
    if not _numpy_knows(scores):
        mask = scores > high
        return mask, count(mask), places((scores > low) ^ mask)
    values, marks, (low, high) = (
        scores.numpy(),
        np.empty(scores.numel(), bool),
        (low.item(), high.item()),
    )

    def one(piece: slice) -> tuple[int, np.ndarray]:
        part, mark = values[piece], marks[piece]
        np.greater(part, high, out=mark)
        between = np.flatnonzero(np.greater(part, low) ^ mark)
        between += piece.start
        return np.count_nonzero(mark), between

    larger, between = zip(*in_pieces(one, spans(values.size)), strict=True)
    return torch.from_numpy(marks), sum(larger), torch.from_numpy(np.concatenate(between))


def _best(scores: Tensor, kept: int) -> Tensor:
    total = scores.numel()
    if kept <= 0 or kept >= total:
        return torch.full_like(scores, kept > 0, dtype=torch.bool)
    return _above(scores, _kth(scores, total - kept + 1), kept)


def _kth(scores: Tensor, rank: int) -> Tensor:
    if _numpy_knows(scores):
        # numpy's partition takes ten times longer where most scores tie, as pruned ones do.
        values, place = scores.numpy(), rank - 1
        order = np.sort(values) if values.size < _FEW else np.partition(values, place)
        return torch.from_numpy(order)[place]
    return torch.kthvalue(scores, rank).values


def _above(scores: Tensor, threshold: Tensor, kept: int) -> Tensor:
    mask = scores >= threshold
    surplus = count(mask) - kept
    if surplus:
        ties = places(scores == threshold)
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
        low, high = _bracket(sample, rank / scores.numel())
        below = count(scores < low)
        inside = pick(scores, (scores >= low) & (scores <= high))
        if below < rank <= below + inside.numel():
            return _kth(inside, rank - below)
    return _kth(scores, rank)


def keep_cut(scores: Tensor, limit: float) -> Tensor:
    """Mark all but the smallest scores whose sum stays strictly under ``limit``.

    The longest prefix of the sorted non-negative scores goes, summed in float64: Theorem 3's
    condition on one iteration, prune size under cut size. Of equal scores the first stay, as in
    `keep_largest`.

    >>> keep_cut(torch.tensor([3.0, 1.0, 2.0, 1.0]), 4.5)
    tensor([ True, False, False, False])
    >>> keep_cut(torch.tensor([3.0, 1.0, 2.0, 1.0]), 1.5)
    tensor([ True,  True,  True, False])
    """
    sample = _sorted_sample(scores)
    if sample is not None:
        stride = scores.numel() / sample.numel()
        share = _prefix(sample, limit / stride) / sample.numel()
        low, high = _bracket(sample, share)
        mask, larger, between = _split(scores, low, high)
        base = _sum_up_to(scores, low, larger + between.numel())
        inside = scores.index_select(0, between)
        going = _prefix(inside, limit, base)
        if base < limit and going < inside.numel():  # the bracket is proved
            mask[between[_best(inside, inside.numel() - going)]] = True
            return mask
    return _best(scores, scores.numel() - _prefix(scores, limit))


def _prefix(scores: Tensor, limit: float, base: float = 0.0) -> int:
    """How many of the scores, smallest first, sum with ``base`` to less than ``limit``."""
    return count(base + _sorted(scores).double().cumsum(0) < limit)


def _sum_up_to(scores: Tensor, bound: Tensor, larger: int) -> float:
    """Sum in float64 of the scores that are not above ``bound``, ``larger`` being above it.

    What is above is cut down to it and taken off again: several times faster than leaving it out.
    """
    limit = float(bound)
    if limit == -math.inf:
        return 0.0

    def one(piece: slice) -> Tensor:
        return scores[piece].clamp(max=limit).sum(dtype=torch.float64)

    total = torch.stack(in_pieces(one, spans(scores.numel()))).sum()
    return float(total) - larger * limit


# On a CPU numpy does the following several times faster than torch, in one thread.


def count(mask: Tensor) -> int:
    """How many are True."""
    return int(np.count_nonzero(mask.numpy())) if _numpy_knows(mask) else int(mask.sum())


def count_above(scores: Tensor, bound: Tensor, *, or_equal: bool = False) -> int:
    """How many scores are larger than ``bound``, or at least as large."""
    if not _numpy_knows(scores):
        return count(scores >= bound if or_equal else scores > bound)
    values, number = scores.numpy(), bound.item()
    larger = np.greater_equal if or_equal else np.greater
    return sum(
        in_pieces(lambda p: int(np.count_nonzero(larger(values[p], number))), spans(values.size))
    )


def first_largest(scores: Tensor) -> int:
    """Where the largest score stands; of equal ones the first."""
    return int(scores.numpy().argmax() if _numpy_knows(scores) else scores.argmax())


def subset(mask: Tensor, other: Tensor) -> bool:
    """Whether ``other`` marks all that ``mask`` marks."""
    if mask.device.type == "cpu":
        marks, others = mask.numpy(), other.numpy()
        pieces = spans(marks.size)
        return not any(in_pieces(lambda p: np.greater(marks[p], others[p]).any(), pieces))
    return not bool((mask & ~other).any())


def removed(before: Tensor, after: Tensor) -> Tensor:
    """Places that a mask ``before`` marks and ``after`` does not."""
    if before.device.type == "cpu":
        was, stays = before.numpy(), after.numpy()

        def one(piece: slice) -> np.ndarray:
            gone = np.flatnonzero(np.greater(was[piece], stays[piece]))
            gone += piece.start
            return gone

        return torch.from_numpy(np.concatenate(in_pieces(one, spans(was.size))))
    return places(before & ~after)


def _sorted(scores: Tensor) -> Tensor:
    if _numpy_knows(scores):
        return torch.from_numpy(np.sort(scores.numpy()))
    return scores.sort().values


def _numpy_knows(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16


def finite(scores: Tensor) -> bool:
    """Whether no score is NaN or infinite; a sum shows it, unless the sum itself overflows."""
    sums = in_pieces(lambda piece: scores[piece].sum(), spans(scores.numel(), 1 << 20))
    return bool(torch.isfinite(torch.stack(sums)).all()) or bool(torch.isfinite(scores).all())


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


def _sorted_sample(scores: Tensor) -> Tensor | None:
    if scores.numel() < _FEW:
        return None
    stride = max(32, scores.numel() // _SAMPLES)
    # A stride that shares a factor with the size of a kernel would see one tap only.
    while any(stride % factor == 0 for factor in (2, 3, 5, 7)):
        stride += 1
    return _sorted(scores[::stride])


def _bracket(sample: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Values that enclose the quantile ``share`` with six standard deviations to either side."""
    count = sample.numel()
    margin = 6 * (count * share * (1 - share)) ** 0.5 + 6
    low, high = int(share * count - margin), int(share * count + margin)
    floor = sample.new_full((), -torch.inf)
    return (
        sample[low] if low >= 0 else floor,
        sample[high] if high < count else sample.new_full((), torch.inf),
    )
