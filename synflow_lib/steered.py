"""Weights that only steer, pruned beside those that carry paths: each layer's by magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from .fast.selection import count, keep_largest
from .workspace import Workspace


class Steering:
    """What stays of the gates, queries and keys, whatever paths say.

    Attributes:
        flat: bool (N,), where they are; ``others`` the number of all other weights.
    """

    def __init__(self, work: Workspace, found: dict[str, Tensor]) -> None:
        none = torch.zeros_like(work.flat, dtype=torch.bool)
        views = work.views(none)
        for name, mask in found.items():
            views[name].copy_(mask)
        self.flat, self.work, self.sizes = none, work, work.views(none)
        self.others = none.numel() - count(none)
        self.magnitude = work.flat.abs()  # at the start: a method may change the working copy

    def ordered(self, scores: Tensor) -> Tensor:
        """``scores`` in which these weights, that have none, stand below all in their own order."""
        tiny = 1e-30 * scores.amax() / self.magnitude.amax().clamp(min=1e-30)
        return torch.where(self.flat, self.magnitude * tiny, scores)

    def stay(self, density: float, alive: Tensor) -> Tensor:
        """Of each layer's the largest, to this density and at least one, bool (N,)."""
        views = (self.magnitude, self.flat, alive & self.flat)
        found = torch.zeros_like(self.flat)
        out = self.work.views(found)
        for name, (size, steers, left) in zip(
            out, zip(*(self.work.views(v).values() for v in views), strict=True), strict=True
        ):
            if total := count(steers.flatten()):
                number = min(max(1, round(total * density)), count(left.flatten()))
                kept = keep_largest(size.flatten(), number, left.flatten())
                out[name].copy_(kept.view(size.shape))
        return found
