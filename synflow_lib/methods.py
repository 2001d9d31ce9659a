"""What a method is, and those that look at nothing but the weights: random, magnitude.

A method is one small class with one job: write the scores of all prunable parameters, as one flat
tensor, from the current weights of a `Workspace`. Lowest scores are pruned first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .fast.compact import Take
from .fast.selection import TIES
from .normal import normal
from .workspace import Context, Scores, Workspace


class Method:
    """One way of scoring, bound to a workspace. Subclasses write `flat`."""

    needs_data = False
    iterations = 1  # the paper's default
    mode = "eval"
    own_type = False  # whether it sees the network in its own type, instead of in float64
    positive = False  # whether a negative score is a sign of something not understood
    zero_scores_zero = False  # whether a weight that is zero always scores zero
    rounds = True  # whether its scores carry errors of rounding, so that ties come out uneven
    through: Tensor | None = None  # what every cut of the network carries, where that is known

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        """Whether scoring may draw from the generators that all of a process's threads share."""
        return True

    def __init__(self, work: Workspace, context: Context) -> None:
        self.work, self.context = work, context

    def flat(self) -> Tensor:
        """Scores of all prunable parameters under the current weights, shape (N,)."""
        raise NotImplementedError

    @property
    def within(self) -> float:
        """Relative distance up to which its scores tie (see `synflow_lib.fast.selection`)."""
        return TIES if self.rounds and self.work.flat.dtype == torch.float64 else 0.0

    def compact(self, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Make `flat` shorter if that is free, keeping all that is alive (see `Compactor`)."""
        return None

    def scores(self) -> Scores:
        """The same, by name, with the notes that `Scores` describes."""
        return Scores(self.work.views(self.flat()))


class Random(Method):
    """|N(0, 1)|, drawn anew at every scoring."""

    rounds = False

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.generator = torch.Generator().manual_seed(context.seed)

    def flat(self) -> Tensor:
        return normal(self.work.flat.numel(), self.generator).abs_().to(self.work.flat)


class Magnitude(Method):
    """|theta|."""

    rounds = False
    zero_scores_zero = True

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False

    def flat(self) -> Tensor:
        return self.work.flat.abs()
