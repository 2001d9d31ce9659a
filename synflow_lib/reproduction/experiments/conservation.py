"""Conservation laws and layer means: notebook 02 (the laws also in 06)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count, islice

import pandas as pd
import torch
from torch import nn

from ...conservation import LEVELS, check_conservation
from ...data import Dataset
from ...graphs.network import is_bias
from ...scores import Scores, score
from ...values import whole
from ..paper import loglog_slope
from .measured import measured

ROUNDING = 1e-14  # relative errors in float64 below this tell about the machine, not the law


def train_steps(
    model: nn.Module,
    dataset: Dataset,
    steps: int,
    *,
    batch_size: int = 20,
    learning_rate: float = 0.02,
    seed: int = 0,
) -> list[float]:
    """A few steps of SGD (momentum 0.9) in place, so that a network is no longer as initialized.

    Afterwards biases and BatchNorm's gamma, beta and running statistics hold numbers that mean
    something. It is no way to train a network well.

    Args:
        model: any classifier; its train/eval mode does not change.
        dataset: its training images are used, in the floating-point type of the model.
        steps: number of batches, at least 1.
        batch_size, learning_rate, seed: images a step, rate of SGD, and seed of the images' order.

    Returns:
        The cross-entropy of each step's batch, before the step.

    >>> from synflow_lib import data, models
    >>> losses = train_steps(models.fc((1, 8, 8), seed=0), data.digits(), steps=20)
    >>> losses[-1] < losses[0]
    True
    """
    steps = whole(steps, "steps", 1)
    generator = torch.Generator().manual_seed(seed)
    epochs = (dataset.batches("train", batch_size, generator, drop_last=True) for _ in count())
    like = next(model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
    mode, losses = model.training, []
    model.train()
    try:
        for x, y in islice(chain.from_iterable(epochs), steps):
            loss = nn.functional.cross_entropy(model(x.to(like)), y.to(like.device))
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        optimizer.zero_grad()
        model.train(mode)
    return losses


def conservation_units(model: nn.Module, scores: Mapping[str, Scores]) -> pd.DataFrame:
    """Incoming and outgoing score of every hidden unit, for several methods: figure 3.

    Scores (label -> from `score`) are taken as they are; GraSP's correction is not applied.

    Returns:
        One row a method and unit: method, layer, unit, incoming, outgoing, and the method's
        max_relative_error, at least `ROUNDING`; the input of `figures.conservation_scatter`.
    """
    tables = {}
    for method, found in scores.items():
        report = check_conservation(model, found, "unit", corrected=False)
        error = max(report.max_relative_error, ROUNDING)
        tables[method] = report.table.drop(columns="difference").assign(max_relative_error=error)
    return pd.concat(tables, names=["method"]).droplevel(1).reset_index()


def conservation_table(cases: Mapping[str, tuple], *, corrected: bool = True) -> pd.DataFrame:
    """How well each case is conserved, level by level, as text that every machine prints alike.

    Args:
        cases: label -> (model, scores).
        corrected: as in `check_conservation`.

    Returns:
        One row a case with the columns unit, layer, cut: the largest relative error with two
        digits, or ``"< 1e-10"``, since what lies below is rounding and differs between machines.

    >>> from synflow_lib import models, score
    >>> net = models.fc((1, 8, 8), depth=2, seed=0).double()
    >>> conservation_table({"SynFlow": (net, score(net, "synflow"))}).loc["SynFlow"].tolist()
    ['< 1e-10', '< 1e-10', '< 1e-10']
    """
    rows = {}
    for label, (model, scores) in cases.items():
        reports = [check_conservation(model, scores, at, corrected=corrected) for at in LEVELS]
        errors = [report.max_relative_error for report in reports]
        rows[label] = [f"{e:.2g}" if e > 1e-10 else "< 1e-10" for e in errors]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(LEVELS))


def with_and_without_constants(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], mode: str | None = None
) -> pd.DataFrame:
    """`conservation_table` of signed SNIP, GraSP and SynFlow, twice.

    Args:
        model, batch, mode: as in `score`.

    Returns:
        One row a method under "weights only", and again under "+ constants", where the scores of
        biases and of BatchNorm's constants are counted.
    """
    table = _with_and_without(model, batch, mode)
    return table.set_index(["counted", "method"]).rename_axis([None, None])


@measured
def _with_and_without(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], mode: str | None
) -> pd.DataFrame:
    names = {"signed SNIP": "signed_snip", "GraSP": "grasp", "SynFlow": "synflow"}
    found = {label: score(model, name, batch, mode=mode) for label, name in names.items()}
    bare = {label: Scores(each, correction=each.correction) for label, each in found.items()}
    tables = [
        conservation_table({label: (model, each) for label, each in scores.items()})
        .rename_axis("method")
        .reset_index()
        .assign(counted=counted)
        for counted, scores in (("weights only", bare), ("+ constants", found))
    ]
    return pd.concat(tables, ignore_index=True)


def layer_means(
    model: nn.Module, scores: Mapping[str, torch.Tensor], *, biases: bool = False
) -> pd.DataFrame:
    """Size and mean score of every layer: figure 4.

    Args:
        scores: parameter name -> scores, from `score`.
        biases: count biases into size and mean, as the paper's figure does, with the scores that
            stand in ``scores`` or its ``constants``, else with zero (which is the score of a bias
            that is zero, for every method but random).

    Returns:
        One row a layer: layer (from 1, in forward order), layer_size (parameters), mean_score (its
        sign is kept); the input of `figures.layer_scores` once a column ``method`` is added.

    >>> net, scores = nn.Linear(4, 2), {"weight": torch.full((2, 4), 5.0)}
    >>> [layer_means(net, scores, biases=b).iloc[0].tolist() for b in (False, True)]
    [[1.0, 8.0, 5.0], [1.0, 10.0, 4.0]]
    """
    parameters = dict(model.named_parameters())
    known = dict(getattr(scores, "constants", {})) | dict(scores)
    rows = []
    for name in (name for name in scores if not is_bias(name)):
        size, total = scores[name].numel(), float(scores[name].sum(dtype=torch.float64))
        bias = name.removesuffix("weight") + "bias"
        if biases and bias in parameters:
            size += parameters[bias].numel()
            total += float(known[bias].sum(dtype=torch.float64)) if bias in known else 0.0
        rows.append((len(rows) + 1, size, total / size))
    return pd.DataFrame(rows, columns=["layer", "layer_size", "mean_score"])


def slopes(table: pd.DataFrame) -> pd.Series:
    """The log-log slope of mean score against inverse layer size, for each method (figure 4).

    Args:
        table: method, layer_size, mean_score; one row a method and layer.
    """
    groups = table.groupby("method")
    return pd.Series({name: loglog_slope(g["layer_size"], g["mean_score"]) for name, g in groups})
