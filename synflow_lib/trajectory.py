"""One nested family of masks: every weight's place in the order of removal."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from .fast.pieces import fixed_order, in_pieces
from .fast.selection import count_above, keep_largest, tied
from .guards import ZeroScores
from .masks import Masks

SURVIVED = torch.iinfo(torch.int32).max
COLUMNS = ["iteration", "kept", "compression", "prune_size", "cut_size", "ratio"]


def kept_at(total: int, compression: float) -> int:
    """round(N / c) weights, never fewer than one.

    Raises:
        TypeError: not a number.
        ValueError: a bool, NaN, below 1 or above N.

    >>> kept_at(1000, 300)
    3
    """
    if isinstance(compression, bool) or str(getattr(compression, "dtype", "")).endswith("bool"):
        raise ValueError(f"compression={compression!r} is a bool; expected a number from 1 to N")
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
        iteration: int32 (N,), the iteration that removed a weight, from 1; `SURVIVED` if none.
        score: (N,), its score at that time, which orders the weights within one iteration.
        within: relative distance up to which scores tie (see `synflow_lib.fast.selection`).
        zeros: which weights scored zero at first; masks that keep some and prune others warn.
    """

    layout: dict[str, torch.Size]
    iteration: Tensor
    score: Tensor
    counts: list[int]
    history: pd.DataFrame = field(repr=False)
    within: float = 0.0
    zeros: ZeroScores | None = field(default=None, repr=False)

    @classmethod
    def ranked(
        cls,
        layout: dict[str, torch.Size],
        score: Tensor,
        cut: float = float("nan"),
        within: float = 0.0,
        start: Tensor | None = None,
    ) -> Trajectory:
        """What a single scoring makes: one iteration that removes everything, in its order.

        Args:
            cut: the score of the smallest cut, where it is known.
            start: bool (N,); what it does not mark goes in an iteration before.
        """
        total, size = score.numel(), float(score.sum(dtype=torch.float64))
        iteration = torch.ones((), dtype=torch.int32, device=score.device).expand(total)
        rows, counts = [], [total]
        if start is not None and not bool(start.all()):
            iteration = iteration + start
            counts.append(int(start.sum()))
            rows.append((1, counts[-1], total / counts[-1], 0.0, float("nan"), float("nan")))
        ratio = size / cut if cut else float("nan")
        rows.append((len(counts), 0, float(total), size, cut, ratio))
        history = pd.DataFrame(rows, columns=COLUMNS)
        return cls(layout, iteration, score, [*counts, 0], history, within)

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

    def keeping(self, kept: int, *, quiet: bool = False) -> Masks:
        """The masks that keep exactly ``kept`` weights; ``quiet`` leaves warnings out."""
        number = next((t for t, count in enumerate(self.counts) if count <= kept), None)
        if number is None or kept > self.total:
            raise ValueError(
                f"kept={kept} weights asked for (compression {self.total / max(kept, 1):.6g});"
                f" this run holds {self.counts[-1]} to {self.total}: it ended at compression"
                f" {self.max_compression:.6g}"
            )
        if number == 0:
            flat = torch.ones_like(self.iteration, dtype=torch.bool)
        else:
            left = kept - self.counts[number]
            flat = keep_largest(self.scores_of(number), left, within=self.within)
            if self.counts[number]:
                flat |= self.iteration > number
        masks = Masks.cut(flat, self.layout)
        if self.zeros and not quiet:
            self.zeros.warn(masks)
        return masks

    def scores_of(self, number: int) -> Tensor:
        """The scores (N,) of what one iteration removed, minus infinity elsewhere."""
        if self.counts[number - 1] - self.counts[number] == self.total:
            return self.score
        return self.score.masked_fill(self.iteration != number, -torch.inf)

    def rank(self, place: int) -> int:
        """The smallest number of kept weights that has the one at a flat ``place`` among them."""
        number, own = int(self.iteration[place]), float(self.score[place])
        if number == SURVIVED:
            return self.counts[-1]
        scores = self.scores_of(number)
        low, high = tied(scores, own, self.within)
        # Of equal scores the first stay longest.
        before = count_above(scores[: place + 1], low, or_equal=True)
        return self.counts[number] + before + count_above(scores[place + 1 :], high)

    def _tops(self) -> list[tuple[int, float, slice]]:
        """Of each layer its last iteration, the largest score there, and where the layer lies."""
        ends = list(itertools.accumulate(shape.numel() for shape in self.layout.values()))
        at_once = self.counts == [self.total, 0]

        def top(layer: slice) -> tuple[int, float, slice]:
            scores, number = self.score[layer], 1
            if not at_once:
                when = self.iteration[layer]
                number = int(when.max())
                scores = scores.masked_fill(when != number, -torch.inf)
            return number, float(scores.max()), layer

        return in_pieces(top, [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)])

    def _first(self, layer: slice, number: int, bound: float) -> int:
        """The first flat place in a layer that one iteration removed at ``bound`` or above."""
        able = (self.score[layer] >= bound) & (self.iteration[layer] == number)
        return layer.start + int(able.byte().argmax())

    def lasts(self) -> list[int]:
        """The flat place of the last weight of each layer, in forward order."""

        def bound(number: int, top: float) -> float:
            survived = number == SURVIVED
            return top if survived else tied(self.scores_of(number), top, self.within)[0]

        return [
            self._first(layer, number, bound(number, top)) for number, top, layer in self._tops()
        ]

    def last_of_each_layer(self) -> int:
        """The smallest number of kept weights at which no layer is empty yet, counted exactly.

        The layer whose last weight goes first decides: whatever ranks above that weight is kept
        with it. No search over compressions.
        """
        with fixed_order():
            tops = self._tops()
            number, least = min((number, top) for number, top, _ in tops)
            if number == SURVIVED:
                return self.counts[-1]
            low, high = tied(self.scores_of(number), least, self.within)
            # Of layers that end with equal scores, the one that lies furthest back ends first.
            last = [layer for n, top, layer in tops if n == number and top <= high][-1]
            return self.rank(self._first(last, number, low))
