"""What never passes in silence: scores that no method should give, and what they do to a result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .fast.selection import extremes
from .graph import warn

if TYPE_CHECKING:
    from .scores import Method

_NOISE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of a positive sum by a fast convolution


def refuse_unfit(method: Method, *parts: Tensor) -> None:
    """ValueError for scores that are NaN or infinite, or negative where none can be.

    Args:
        parts: flat tensors, together the scores (N,).
    """
    name, (lows, highs) = type(method).__name__, zip(*map(extremes, parts), strict=True)
    if not all(map(math.isfinite, (*lows, *highs))):
        raise ValueError(
            f"{name} gave scores that are NaN or infinite; check the weights and the data"
        )
    if method.positive and min(lows) < -_NOISE.get(parts[0].dtype, 0.0) * max(highs):
        views = method.work.views(torch.cat(parts))
        layers = [n for n, view in views.items() if float(view.min()) < 0]
        raise ValueError(
            f"{name} gave negative scores in {layers}, where a sum over paths has none: some"
            " operation of the network passes its input on with a minus sign or computes a weight"
            " that pruning cannot see. Write it as a module, or leave those layers out with keep="
        )


def warn_of_silence(scores: dict[str, Tensor], alive: dict[str, bool]) -> None:
    """Warns of layers that have weights which are not zero (``alive``) and no score that is not."""
    silent = [name for name, score in scores.items() if alive[name] and not bool(score.any())]
    if silent:
        warn(
            f"every score of {silent} is zero: nothing flows through them, for instance because a"
            " factor on all their paths is zero (zero-initialized BatchNorm or last layer) or the"
            " network does not use them. Among equal scores the first positions stay"
        )
