"""One nested family of masks: every weight's place in the order of removal, and its record.

`loop` writes it down, `pruning` and `collapse` ask it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from .fast.compact import Take
from .fast.pieces import fixed_order, in_pieces, spans
from .fast.selection import arrays, count_above, keep_largest, tied, total
from .graphs.network import is_bias
from .guards import ZeroScores
from .masks import Masks
from .values import kept_at, whole

SURVIVED = torch.iinfo(torch.int32).max


@dataclass
class Trajectory:
    """The order in which a method removes weights, so that one run holds every compression.

    Attributes:
        layout: parameter name -> shape, in forward order.
        iteration: int32 (N,), the iteration that removed a weight, from 1; `SURVIVED` if none.
        score: (N,), its score at that time, which orders the weights within one iteration alone.
        counts: how many weights are left: N at first, then one number an iteration.
        history: one row an iteration: ``iteration, kept, compression, prune_size, cut_size,
            ratio`` (the score removed, the score of the smallest cut, their quotient). SynFlow's
            scores are in units of that iteration, powers of two against overflow: across
            iterations only ``ratio`` compares.
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

    @property
    def total(self) -> int:
        """N, the number of prunable weights."""
        return self.iteration.numel()

    @property
    def max_compression(self) -> float:
        """The largest compression this run reached; infinite where nothing was left."""
        return self.total / self.counts[-1] if self.counts[-1] else math.inf

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
        kept = whole(kept, "kept")
        if not self.counts[-1] <= kept <= self.total:
            raise ValueError(
                f"kept={kept} weights asked for (compression {self.total / max(kept, 1):.6g});"
                f" this run holds {self.counts[-1]} to {self.total}: it ended at compression"
                f" {self.max_compression:.6g}"
            )
        number = next(t for t, count in enumerate(self.counts) if count <= kept)
        flat, left = self.iteration > number, kept - self.counts[number]
        if left:  # of what this iteration removed, the best
            here = None if self._at_once(number) else self.iteration == number
            flat |= keep_largest(self.score, left, here, within=self.within)
        masks = Masks.from_flat(flat, self.layout)
        if self.zeros and not quiet:
            self.zeros.warn(masks)
        return masks

    def _at_once(self, number: int) -> bool:
        """Whether one iteration removed all N weights."""
        return self.counts[number - 1] - self.counts[number] == self.total

    def _scores_of(self, number: int) -> Tensor:
        """The scores (N,) of what one iteration removed, minus infinity elsewhere."""
        if self._at_once(number):
            return self.score
        return self.score.masked_fill(self.iteration != number, -torch.inf)

    def rank(self, place: int) -> int:
        """The smallest number of kept weights that includes the one at the flat index ``place``."""
        place = whole(place, "place", 0, self.total - 1)
        number, score = int(self.iteration[place]), float(self.score[place])
        if number == SURVIVED:
            return self.counts[-1]
        scores = self._scores_of(number)
        low, high = tied(scores, score, self.within)
        # Of equal scores the first stay longest.
        before = count_above(scores[: place + 1], low, or_equal=True)
        return self.counts[number] + before + count_above(scores[place + 1 :], high)

    def _tops(self) -> list[tuple[int, float, slice]]:
        """For each layer the iteration of its last weight, the largest score there, its slice."""
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

    def _last(self, number: int, top: float, layer: slice) -> int:
        """The flat place of the last weight of a layer: the first that ties with its ``top``."""
        if number != SURVIVED:
            top, _ = tied(self._scores_of(number), top, self.within)
        able = (self.score[layer] >= top) & (self.iteration[layer] == number)
        return layer.start + int(able.byte().argmax())

    def lasts(self) -> list[int]:
        """The flat place of the last weight of each layer, in forward order."""
        return [self._last(*found) for found in self._tops()]

    def last_of_each_layer(self) -> int:
        """The smallest number of kept weights at which no layer is empty yet, counted exactly.

        It is the rank of the first weight to go that is the last of its layer: all that rank above
        it are kept with it. No search over compressions.
        """
        with fixed_order():
            found = zip(self.layout, self._tops(), strict=True)
            tops = [top for name, top in found if not is_bias(name)]  # a bias is no layer
            number, least = min((number, top) for number, top, _ in tops)
            if number == SURVIVED:
                return self.counts[-1]
            _, high = tied(self._scores_of(number), least, self.within)
            # Of layers that end with equal scores, the one that lies furthest back ends first.
            first = [each for each in tops if each[0] == number and each[1] <= high][-1]
            return self.rank(self._last(*first))


class Record:
    """What a pruning loop writes down on its way: which iteration removed what, at which score.

    Attributes:
        iteration: int32, how many iterations each weight survived so far.
        score: what each weight scored when it went; zero before.

    Both tensors are laid out like the loop's scores. Adding up over all of them is several times
    faster than writing to the places of what went, among millions.
    """

    def __init__(self, total: int, like: Tensor) -> None:
        self.total, self.within = total, 0.0
        with torch.inference_mode(False):  # they are written to later, outside of it
            self.iteration = torch.zeros_like(like, dtype=torch.int32)
            self.score = torch.zeros_like(like)
        self.counts: list[int] = [total]
        self.rows: list[tuple] = []
        # Once the loop has left dead units out: the tensors of all N weights; and for each weight
        # that the loop still has its place among the N.
        self.of_all: tuple[Tensor, Tensor] | None = None
        self.origin: Tensor | None = None

    def add(
        self, scores: Tensor, alive: Tensor, stay: Tensor, kept: int, cut: float = math.nan
    ) -> None:
        """One iteration: of what was ``alive`` the ``kept`` that ``stay`` marks are left.

        ``cut`` is the score of the smallest cut, NaN where it is not known.
        """
        exact = torch.promote_types(self.score.dtype, scores.dtype)
        with torch.inference_mode(False):
            self.score = self.score.to(exact)  # a scorer of the user's may be more precise
        score, alive, stay, iteration, gone_at = arrays(
            scores.to(exact), alive, stay, self.iteration, self.score
        )

        def one(piece: slice) -> float:
            iteration[piece] += stay[piece]
            gone = score[piece] * (alive[piece] ^ stay[piece])
            gone_at[piece] += gone
            return total(gone)

        size = sum(in_pieces(one, spans(len(score))))
        ratio = size / cut if cut else math.nan  # nothing flows any more
        self.counts.append(kept)
        self.rows.append((len(self.rows) + 1, kept, self.total / max(kept, 1), size, cut, ratio))

    def move(self, take: Take, origin: Tensor) -> None:
        """Follow the loop to the fewer weights of ``origin``, which ``take`` picks."""
        self.of_all, self.origin = self._of_all(), origin
        self.iteration, self.score = take(self.iteration), take(self.score)

    def _of_all(self) -> tuple[Tensor, Tensor]:
        """Iterations and scores of all N weights."""
        if self.of_all is None:
            return self.iteration, self.score
        iteration, score = self.of_all

        def one(piece: slice) -> None:
            where = self.origin[piece].long()
            iteration.index_copy_(0, where, self.iteration[piece])
            score.index_copy_(0, where, self.score[piece])

        in_pieces(one, spans(self.origin.numel()))
        return iteration, score

    def finished(
        self, layout: dict[str, torch.Size], zeros: ZeroScores | None = None
    ) -> Trajectory:
        """All of it, once the loop has ended."""
        iteration, score = self._of_all()
        left = iteration == len(self.rows)
        iteration.add_(1).masked_fill_(left, SURVIVED)
        score.masked_fill_(left, torch.inf)
        columns = ["iteration", "kept", "compression", "prune_size", "cut_size", "ratio"]
        history = pd.DataFrame(self.rows, columns=columns)
        return Trajectory(layout, iteration, score, self.counts, history, self.within, zeros)
