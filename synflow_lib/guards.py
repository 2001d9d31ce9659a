"""Errors and warnings about scores: NaN, negative where none can be, all zero, tied at zero.

Read `scores` and `masks` first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .fast.selection import TIES, count, extremes
from .graphs.network import warn
from .masks import Masks

if TYPE_CHECKING:
    from .scores import Method

# How far, relative to the largest, a fast convolution may round a positive sum below zero.
_NOISE = {torch.float64: 1e-12, torch.float32: 1e-5}


def refuse_unfit(method: Method, *parts: Tensor) -> None:
    """ValueError for scores that are NaN or infinite, or negative where none can be.

    ``parts`` are flat, together the scores (N,).
    """
    name, (lows, highs) = type(method).__name__, zip(*map(extremes, parts), strict=True)
    if not all(map(math.isfinite, (*lows, *highs))):
        raise ValueError(
            f"{name} gave scores that are NaN or infinite; check the weights and the data"
        )
    if method.nonnegative and min(lows) < -_NOISE.get(parts[0].dtype, 0.0) * max(highs):
        views = method.work.views(torch.cat(parts))
        layers = [n for n, view in views.items() if float(view.min()) < 0]
        raise ValueError(
            f"{name} gave negative scores in {layers}, where a sum over paths has none: some"
            " operation of the network passes its input on with a minus sign or computes a weight"
            " that pruning cannot see. Write it as a module, or leave those layers out with keep="
        )


def warn_of_silence(scores: dict[str, Tensor], nonzero: dict[str, bool]) -> None:
    """Warns of layers whose scores are all zero though their weights (``nonzero``) are not."""
    silent = [name for name, score in scores.items() if nonzero[name] and not bool(score.any())]
    if silent:
        warn(
            f"every score of {silent} is zero: nothing flows through them. They only steer (a gate,"
            " a query, a key), a factor on all their paths is zero, or the network does not use"
            " them. Among equal scores the first positions stay"
        )


@dataclass
class ZeroScores:
    """Which weights scored zero at first: where only some of them stay, position chose which.

    Attributes:
        method: its name.
        places: parameter name -> bool tensor of its shape; only layers with such weights.
    """

    method: str
    places: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        method: Method,
        scores: dict[str, Tensor],
        start: dict[str, Tensor],
        nonzero: dict[str, bool],
    ) -> ZeroScores:
        """Those among the weights of ``start``; layers that `warn_of_silence` names are left out.

        A gradient that should be zero may come out as rounding left it. Where scores have signs
        zero is a value like any other: those below it are pruned before.
        """
        found = cls(type(method).__name__, {})
        if any(score.numel() and float(score.min()) < 0 for score in scores.values()):
            return found
        for name, score in scores.items():
            if not nonzero[name] or not bool(score.any()):
                continue
            largest_zero = TIES * score.amax() if method.needs_data else 0.0
            zero = (score <= largest_zero) & start[name]
            if bool(zero.any()):
                found.places[name] = zero
        return found

    def warn(self, masks: Masks, scope: str = "global") -> None:
        """Warns where ``masks`` keep some of these weights and prune others.

        Weights compete with all others, or with scope "local" within their layer.
        """
        total = {name: count(zero) for name, zero in self.places.items()}
        kept = {name: count(zero & masks[name]) for name, zero in self.places.items()}
        chosen = [name for name in kept if kept[name]]
        if scope == "local":
            chosen = [name for name in chosen if kept[name] < total[name]]
        if chosen and kept != total:
            warn(
                f"{self.method}: {sum(kept[name] for name in chosen)} weights that stay in {chosen}"
                " scored zero, as others did that are pruned; among equal scores the first"
                " positions stay"
            )
