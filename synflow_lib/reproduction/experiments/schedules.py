"""SynFlow's schedules, masks and scores under the magnifying glass: what notebook 04 measures."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import nn

from ...fast.pieces import in_pieces, spans
from ...fast.selection import count, kth_smallest, total
from ...graphs.workspace import Context, Workspace
from ...masks import Masks
from ...pruning import SCHEDULES, trajectory
from ...scores import Scores, scoring
from ...synflow import SynFlow
from ...trajectory import Trajectory
from ...values import kept_at
from .measured import measured


@measured
def one_shot_ratios(model: nn.Module, compressions: Iterable[float]) -> pd.DataFrame:
    """Prune size / cut size of SynFlow with a single iteration, from one scoring pass.

    Returns:
        schedule, compression, iterations (1), ratio; each row twice, since with one iteration the
        exponential and the linear schedule are the same.
    """
    with scoring(SynFlow, Workspace(model), Context()) as method:
        scores, cut = method.flat(), float(method.R)

    def removed(kept: int) -> float:
        """The sum of all but the ``kept`` largest scores."""
        if kept >= scores.numel():
            return 0.0
        limit = kth_smallest(scores, scores.numel() - kept + 1)
        return sum(
            in_pieces(lambda p: total(scores[p] * (scores[p] < limit)), spans(scores.numel()))
        )

    rows = [(c, 1, removed(kept_at(scores.numel(), c)) / cut) for c in compressions]
    table = pd.DataFrame(rows, columns=["compression", "iterations", "ratio"])
    both = [table.assign(schedule=schedule) for schedule in SCHEDULES]
    return pd.concat(both, ignore_index=True)[["schedule", *table]]


def score_error(scores: Scores, reference: Scores) -> float:
    """The largest relative difference between SynFlow's scores and a reference, powers of 2 aside.

    Args:
        scores: from `score`, of any floating-point type.
        reference: the same network's in float64; where it is zero the scores must be.
    """
    shift = scores.log2_scale - reference.log2_scale
    largest = 0.0
    for name, true in reference.items():
        mine = torch.ldexp(scores[name].double(), torch.tensor(shift))
        difference = (mine - true).abs() / true.abs()
        largest = max(largest, float(difference[mine != true].max()) if (mine != true).any() else 0)
    return largest


def overlap(masks: Masks, other: Masks) -> float:
    """The share of the weights kept by ``masks`` that ``other`` keeps as well, in [0, 1].

    Two independent random choices would share a fraction equal to the density of ``other``.

    Raises:
        ValueError: masks of different networks, or nothing kept.
    """
    if {n: m.shape for n, m in masks.items()} != {n: m.shape for n, m in other.items()}:
        raise ValueError("the two masks have other parameters or shapes; expected one network's")
    if not masks.kept:
        raise ValueError("the first masks keep nothing; expected at least one weight")
    return sum(count(mask & other[name]) for name, mask in masks.items()) / masks.kept


@measured
def fixed_run(
    model: nn.Module,
    schedule: str,
    iterations: int,
    compression: float,
    cut: Trajectory | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """A run of SynFlow on a fixed schedule, and what the cut schedule keeps of its weights.

    Args:
        schedule: "exponential" or "linear".
        iterations, compression: how often to score, and where the run ends.
        cut: the same network's run on the cut schedule.

    Returns:
        The history of the run (see `Trajectory`), whose column ``ratio``, prune size / cut size,
        Theorem 3 wants below 1; the density of each layer, with columns layer (its name), kept,
        total, density and cut (its density on the cut schedule); the `overlap` of the two masks.
        Both are NaN without a run to compare.
    """
    path = trajectory(
        model, "synflow", schedule=schedule, iterations=iterations, compression=compression
    )
    masks = path.at(compression)
    other = None if cut is None else cut.at(compression)
    density = float("nan") if other is None else other.table()["density"]
    shared = float("nan") if other is None else overlap(masks, other)
    return path.history, masks.table().assign(cut=density), shared
