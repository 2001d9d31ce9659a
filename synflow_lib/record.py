"""What a pruning loop writes down on its way, to become a trajectory."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from .fast.compact import Take
from .fast.pieces import in_pieces, spans
from .fast.selection import arrays, total
from .guards import ZeroScores
from .trajectory import COLUMNS, SURVIVED, Trajectory


class Record:
    """Which iteration removed what, at which score.

    It counts how many iterations each weight survived and adds up what it scored where it went:
    sums over everything, which are several times faster than writing to places among millions.
    Places are those of the loop; where it leaves dead units out, `move` follows.
    """

    def __init__(self, total: int, like: Tensor) -> None:
        self.total, self.cut, self.within = total, float("nan"), 0.0
        with torch.inference_mode(False):  # they are written to later, outside of it
            self.iteration = torch.zeros_like(like, dtype=torch.int32)
            self.score = torch.zeros_like(like)
        self.survived, self.last, self.origin = self.iteration, self.score, None
        self.counts: list[int] = [total]
        self.rows: list[tuple] = []

    def add(self, scores: Tensor, alive: Tensor, stay: Tensor, kept: int) -> None:
        """One iteration: of what was ``alive`` the ``kept`` that ``stay`` marks are left."""
        exact = torch.promote_types(self.score.dtype, scores.dtype)
        if self.score.dtype != exact:  # a scorer of the user's may be more precise
            with torch.inference_mode(False):
                self.score, self.last = self.score.to(exact), self.last.to(exact)
                if self.origin is None:
                    self.last = self.score

        scores = scores.to(exact)
        scores, alive, stay, survived, last = arrays(scores, alive, stay, self.survived, self.last)

        def one(piece: slice) -> float:
            survived[piece] += stay[piece]
            gone = scores[piece] * (alive[piece] ^ stay[piece])
            last[piece] += gone
            return total(gone)

        size = sum(in_pieces(one, spans(len(scores))))
        self.counts.append(kept)
        ratio = size / self.cut if self.cut else float("nan")  # nothing flows any more
        number = len(self.rows) + 1
        self.rows.append((number, kept, self.total / max(kept, 1), size, self.cut, ratio))

    def move(self, take: Take, origin: Tensor) -> None:
        """Follow the loop to fewer places; ``origin`` says which weight stands where there."""
        self._write_back()
        self.survived, self.last, self.origin = take(self.survived), take(self.last), origin

    def _write_back(self) -> None:
        if self.origin is None:
            return

        def one(piece: slice) -> None:
            where = self.origin[piece].long()
            self.iteration.index_copy_(0, where, self.survived[piece])
            self.score.index_copy_(0, where, self.last[piece])

        in_pieces(one, spans(self.origin.numel()))

    def trajectory(
        self, layout: dict[str, torch.Size], zeros: ZeroScores | None = None
    ) -> Trajectory:
        """All of it, once the loop has ended."""
        self._write_back()
        left = self.iteration == len(self.rows)
        self.iteration.add_(1).masked_fill_(left, SURVIVED)
        self.score.masked_fill_(left, torch.inf)
        history = pd.DataFrame(self.rows, columns=COLUMNS)
        return Trajectory(
            layout, self.iteration, self.score, self.counts, history, self.within, zeros
        )
