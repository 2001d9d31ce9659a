"""One nested family of masks: every weight's place in the order of removal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .masks import Masks
from .selection import keep_largest

SURVIVED = torch.iinfo(torch.int16).max


def kept_at(total: int, compression: float) -> int:
    """round(N / c) weights, never fewer than one.

    Raises:
        TypeError: not a number.
        ValueError: NaN, below 1 or above N.

    >>> kept_at(1000, 300)
    3
    """
    try:
        value = float(compression)
    except (TypeError, ValueError):
        raise TypeError(f"compression={compression!r}; expected a number from 1 to N") from None
    if math.isnan(value) or not 1 <= value <= total:
        raise ValueError(
            f"compression={compression!r}; expected 1 <= compression <= N = {total}"
            " (compression = N / kept weights; a density d is compression 1 / d)"
        )
    return max(1, round(total / value))


@dataclass
class Trajectory:
    """The order in which a method removes weights, so that one run holds every compression.

    Attributes:
        history: one row an iteration: ``iteration, kept, compression, prune_size, cut_size,
            ratio`` (the score removed, the score of the smallest cut, their quotient).
        layout: parameter name -> shape, in forward order.
        iteration: int16 (N,), the iteration that removed a weight, from 1; `SURVIVED` if none.
        score: (N,), its score at that time, which orders the weights within one iteration.
    """

    layout: dict[str, torch.Size]
    iteration: Tensor
    score: Tensor
    counts: list[int]
    history: pd.DataFrame = field(repr=False)

    @property
    def total(self) -> int:
        """N, the number of prunable weights."""
        return self.iteration.numel()

    @property
    def max_compression(self) -> float:
        """The largest compression this run reached."""
        return self.total / self.counts[-1]

    def at(self, compression: float) -> Masks:
        """The masks that keep exactly ``round(N / compression)`` weights.

        Raises:
            ValueError: out of range, or beyond where the run ended.
        """
        kept = kept_at(self.total, compression)
        if kept < self.counts[-1]:
            raise ValueError(
                f"compression={compression!r} would keep {kept} weights; this trajectory ends with"
                f" {self.counts[-1]} (compression {self.max_compression:.6g})"
            )
        return self.keeping(kept)

    def keeping(self, kept: int) -> Masks:
        """The masks that keep exactly ``kept`` weights."""
        number = next((t for t, count in enumerate(self.counts) if count <= kept), None)
        if number is None or kept > self.total:
            raise ValueError(
                f"kept={kept} weights asked for (compression {self.total / max(kept, 1):.6g});"
                f" this run holds {self.counts[-1]} to {self.total}: it ended at compression"
                f" {self.max_compression:.6g}"
            )
        flat = self.iteration > number
        if number:
            going = (self.iteration == number).nonzero().squeeze(1)
            flat[going[keep_largest(self.score[going], kept - self.counts[number])]] = True
        return self.masks(flat)

    def masks(self, flat: Tensor) -> Masks:
        parts = flat.split([shape.numel() for shape in self.layout.values()])
        shapes = self.layout.items()
        return Masks({n: p.view(s).clone() for (n, s), p in zip(shapes, parts, strict=True)})

    def last_of_each_layer(self) -> int:
        """The smallest number of kept weights at which no layer is empty yet, counted exactly.

        The layer whose last weight goes first decides: whatever ranks above that weight is kept
        with it. No search over compressions.
        """
        iterations, scores = self.iteration.cpu().numpy(), self.score.cpu().numpy()
        weakest, start = None, 0
        for size in (shape.numel() for shape in self.layout.values()):
            layer = slice(start, start + size)
            last, values = int(iterations[layer].max()), scores[layer]
            if last != SURVIVED:
                if iterations[layer].min() != last:
                    values = np.where(iterations[layer] == last, values, -np.inf)
                best = int(values.argmax())  # of equal ones the first stays longest
                rank = (last, values[best], -(start + best))
                weakest = rank if weakest is None else min(weakest, rank)
            start += size
        if weakest is None:
            return self.counts[-1]
        last, value, position = weakest[0], weakest[1], -weakest[2]
        same = iterations == last
        above = int(np.count_nonzero(same & (scores > value)))
        before = slice(position + 1)
        ties = int(np.count_nonzero(same[before] & (scores[before] == value)))
        return self.counts[last] + above + ties
