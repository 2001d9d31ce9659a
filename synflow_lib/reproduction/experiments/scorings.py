"""Notebook 06, questions 1 and 2: scores with one thing changed, and scores asked for again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor, nn

from ...batches import Batch
from ...data import Dataset
from ...masks import Masks
from ...methods import Grasp
from ...pruning import trajectory
from ...scores import Method, Scorer
from .collapse import collapse_points
from .measured import measured
from .schedules import overlap


@dataclass(frozen=True)
class Scoring:
    """One way of scoring on data: the method, BatchNorm's mode, images of each class."""

    method: str | Scorer | type[Method]
    mode: str | None = None
    per_class: int = 10


def grasp_variant(temperature: float = 200.0, sign: str = "signed") -> type[Method]:
    """GraSP with another temperature or another reading of its sign.

    Args:
        temperature: divides the outputs before the loss, above 0 (200 in the authors' code).
        sign: "signed", the smallest theta * (H g) go, as the authors have it; "reversed", the
            largest go; "absolute", those nearest to zero go.

    Raises:
        ValueError: another sign, a temperature that is not above 0.
    """
    turn = {"signed": lambda s: s, "reversed": Tensor.neg_, "absolute": Tensor.abs_}
    if sign not in turn:
        raise ValueError(f"sign={sign!r}; expected one of {list(turn)}")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature!r}; expected a number above 0")

    class Variant(Grasp):
        def flat(self) -> Tensor:
            return turn[sign](super().flat())

    Variant.temperature = float(temperature)
    return Variant


def grasp_variants() -> dict[str, Scoring]:
    """GraSP as its authors have it, and with one thing changed at a time."""
    return {
        "as published": Scoring("grasp"),
        "eval mode": Scoring("grasp", mode="eval"),
        "sign reversed": Scoring(grasp_variant(sign="reversed")),
        "absolute value": Scoring(grasp_variant(sign="absolute")),
        "temperature 1": Scoring(grasp_variant(temperature=1.0)),
        "1 image a class": Scoring("grasp", per_class=1),
        "50 images a class": Scoring("grasp", per_class=50),
    }


def compare_scorings(
    net: nn.Module, dataset: Dataset, scorings: Mapping[str, Scoring], kept: int, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, Masks]]:
    """One-shot scores of one network, side by side with the first of them.

    Args:
        net: the network, on the data set's device.
        dataset: scoring images are drawn from its training set by ``seed``.
        scorings: label -> how to score.
        kept: weights to keep where masks are compared, 1 to N.

    Returns:
        A table with one row a scoring: method (the label), zeros (share of scores that are exactly
        zero), overlap (share of the first scoring's survivors that survive here as well), layer and
        path (critical compression by each criterion, exact); and the masks by label.
    """
    rows, masks = [], {}
    for label, how in scorings.items():
        batch = dataset.scoring_batch(how.per_class, seed=seed)
        path = trajectory(net, how.method, batch, mode=how.mode, iterations=1, seed=seed)
        masks[label] = path.keeping(kept)
        shared = overlap(next(iter(masks.values())), masks[label])
        points = collapse_points(net, {label: path}).set_index("criterion")["critical_compression"]
        zeros = float((path.score == 0).double().mean())
        rows.append((label, zeros, shared, points["layer"], points["path"]))
    return pd.DataFrame(rows, columns=["method", "zeros", "overlap", "layer", "path"]), masks


@measured
def scoring_table(
    net: nn.Module, dataset: Dataset, scorings: Mapping[str, Scoring], kept: int, seed: int = 0
) -> pd.DataFrame:
    """The table of `compare_scorings` alone."""
    return compare_scorings(net, dataset, scorings, kept, seed)[0]


@measured
def collapse_of_iterations(
    net: nn.Module, batch: Batch, methods: Iterable[str], counts: Iterable[int], seed: int = 0
) -> pd.DataFrame:
    """Where each method collapses when it scores once, ten times, ..., without any training.

    One run down to rho_max with an exponential schedule, in which no pruned weight returns, holds a
    nested family of masks; its collapse points are exact.

    Returns:
        One row a method, count and criterion: method, iterations (the count), criterion ("layer",
        "path"), kept, critical_compression, seconds (of the whole run).
    """
    tables = []
    for method in methods:
        for count in counts:
            start = time.perf_counter()
            path = trajectory(
                net, method, batch, schedule="exponential", iterations=count, seed=seed
            )
            seconds = time.perf_counter() - start
            points = collapse_points(net, {method: path})
            tables.append(points.assign(iterations=count, seconds=seconds))
    return pd.concat(tables, ignore_index=True)
