r"""Conservation of synaptic saliency, checked on any network (theorems 1 and 2).

**The law.** For scores dR/dtheta * theta, R a function of the network's output, every hidden unit
behind homogeneous activations (ReLU, leaky ReLU, linear) satisfies

    incoming weights + constants = outgoing weights,

where the *constants* are the scores c * dR/dc of whatever is added to the unit's input:

========================  =====================================================================
biases                    score of the bias
BatchNorm, eval           score of beta and of the stored running mean; gamma needs no term, it is
                          a factor. Exact at any time, not only at initialization
BatchNorm, train          the loss does not change when the unit's incoming weights are scaled, so
                          their score is *zero* up to eps (exactly: eps / (var + eps) times the
                          score of gamma), and gamma and beta are the unit's incoming score
residual stream           the sum over all branches that write = the sum over all that read
max and average pooling,  pass the score on: they are homogeneous and keep channels apart
flatten, dropout in eval
sequences                 a unit is a feature, summed over all tokens; what mixes tokens, or places
                          of a map, mixes no units
chunks, shuffles, slices  units go where their numbers go
other norms, gates,       pass on a sum over paths, R, where they are constants: `SynFlow` alone.
attention                 Scores of a loss are refused behind them
parameters of one's own,  have no score: all units that they mix count as one
packed projections
========================  =====================================================================

Theorem 2 is the sum over units: all *cuts* of the network carry the same total, once constants
behind the cut are counted. **SNIP** breaks the law by its absolute value. **GraSP** is not of the
form dR/dtheta * theta for a function R of the output: differentiating the law of dL/dtheta * theta
along the gradient g shows that ``theta * (H g) + g * g`` is what is conserved. `score` returns
g * g as ``scores.correction`` and the check applies it (``corrected=False`` does not).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .graphs.follow import wiring
from .graphs.network import find_input_shape, is_bias, warn
from .graphs.units import Wiring, sums_of_units
from .values import instance, real

LEVELS = ("unit", "layer", "cut")


@dataclass(frozen=True)
class ConservationReport:
    """How well scores are conserved at one level.

    Attributes:
        level: "unit", "layer" or "cut".
        table: tidy; one row a unit (``layer, unit, incoming, outgoing, difference``), a region
            between layers (the same without ``unit``) or a cut (``cut, size, constants, total,
            difference``, against the last cut).
        max_relative_error: largest |difference| relative to the largest score sum at this level;
            0 where there is no law at all, NaN where all scores are zero.
    """

    level: str
    table: pd.DataFrame
    max_relative_error: float

    def holds(self, tolerance: float = 1e-10) -> bool:
        """Whether the law holds to ``tolerance``, relative to the largest score sum.

        False, with a warning, where there was nothing to check.
        """
        tolerance = real(tolerance, "tolerance")
        if self.table.empty or math.isnan(self.max_relative_error):
            warn(f"nothing to check: {self}")
            return False
        return self.max_relative_error <= tolerance

    def __str__(self) -> str:
        if self.table.empty:
            unit, cut = "no unit lies between two layers", "no cut lies between input and output"
            return f"{self.level} level: no laws, since {cut if self.level == 'cut' else unit}"
        if math.isnan(self.max_relative_error):
            return f"{self.level} level: {len(self.table)} laws, but all scores are zero"
        return (
            f"{self.level} level: {len(self.table)} laws,"
            f" largest relative error {self.max_relative_error:.1e}"
        )


def check_conservation(
    model: nn.Module,
    scores: dict[str, Tensor],
    level: str = "unit",
    *,
    input_shape: Iterable[int] | None = None,
    corrected: bool = True,
) -> ConservationReport:
    """Check the conservation law of synaptic saliency on any traceable network.

    Args:
        model: the network that was scored.
        scores: parameter name -> tensor, all prunable weights. From `score` they bring the scores
            of the constants with them; in a plain dict these can stand under their own names
            (``"0.bias"``, ``"1.running_mean"``), and what is missing counts as zero.
        level: ``"unit"`` (theorem 1), ``"layer"`` (its sum over the units between two layers) or
            ``"cut"`` (theorem 2).
        input_shape: of one input, where the network does not tell it.
        corrected: add ``scores.correction`` (GraSP's squared gradient).

    Returns:
        A `ConservationReport`.

    Raises:
        ValueError: unknown level, missing or unfit scores, a network that cannot be traced or an
            operation without a law.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    >>> from synflow_lib.scores import score
    >>> check_conservation(net, score(net, "synflow"), level="unit").holds(1e-12)
    True
    >>> check_conservation(net, score(net, "magnitude"), level="unit").holds(1e-3)
    False
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}; expected one of {LEVELS}")
    known = dict(getattr(scores, "constants", {})) | dict(instance(scores, Mapping, "scores"))
    batch_statistics = frozenset(n.removesuffix(".eps") for n in known if n.endswith(".eps"))
    # A law needs no unit that could be taken out alone: units whose numbers mix are one, joined.
    wires = wiring(model, find_input_shape(model, input_shape), batch_statistics, joined=True)
    lawful = np.ones(wires.units, bool)  # units with both sides: no input or output of the network
    lawful[wires.inputs] = lawful[wires.outputs] = False
    added = [name for name, units in wires.added if lawful[units].any()]
    if (wires.only_paths or added) and getattr(scores, "of_output", False):
        raise ValueError(
            f"behind {wires.only_paths or added[0]} only sums over paths are conserved, such as"
            " SynFlow's: to scores of a loss what it divides by, or steers with, is no constant,"
            " and what it adds has no score"
        )
    if getattr(scores, "of_output", False):
        _refuse_layers_of_training(model, wires, scores)
    correction = getattr(scores, "correction", {}) if corrected else {}
    ledger = _Ledger(wires, lawful, known, correction)
    return {"unit": ledger.units, "layer": ledger.regions, "cut": ledger.cuts}[level]()


def _refuse_layers_of_training(
    model: nn.Module, wires: Wiring, scores: Mapping[str, Tensor]
) -> None:
    """ValueError for scores of layers that run in train mode alone, such as auxiliary heads."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    lawful = {id(parameters[layer.weight]) for layer in wires.layers if layer.weight in parameters}
    for name, score in scores.items():
        other = name in parameters and id(parameters[name]) not in lawful and not is_bias(name)
        if other and isinstance(score, Tensor) and bool((score != 0).any()):
            raise ValueError(
                f"{name!r} has scores, but the network does not use it in evaluation mode, of which"
                " the law is checked: score with mode='eval'"
            )


class _Ledger:
    """Books every score as incoming to one unit and outgoing of another."""

    def __init__(
        self, wires: Wiring, lawful: np.ndarray, known: dict[str, Tensor], correction: dict
    ) -> None:
        self.wires, self.lawful, self.known, self.correction = wires, lawful, known, correction
        self.into, self.constant, self.out = (np.zeros(wires.units) for _ in range(3))
        self.total: dict[str, float] = {}
        self.booked: set[str] = set()  # names of constants
        self.writer = np.full(wires.units, "", dtype=object)
        for layer in wires.layers:
            weight = self._read(layer.weight, layer.module.weight.shape)
            written, read = sums_of_units(layer, weight)
            np.add.at(self.into, layer.writes, written)
            np.add.at(self.out, layer.reads, read)
            self.total[layer.name] = float(weight.double().sum())
            self._add(self.constant, layer.writes, f"{layer.name}.bias".removeprefix("."))
            fresh = layer.writes[self.writer[layer.writes] == ""]
            self.writer[fresh] = layer.name
        for norm in wires.norms:
            self._add(self.constant, norm.writes, f"{norm.name}.bias")
            if f"{norm.name}.eps" in known:
                self._add(self.constant, norm.writes, f"{norm.name}.weight")
                self._add(self.out, norm.reads, f"{norm.name}.eps")
                self.writer[norm.writes] = norm.name
            else:
                self._add(self.constant, norm.writes, f"{norm.name}.running_mean")

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The scores of one parameter, corrected."""
        if name not in self.known:
            raise ValueError(f"scores hold no {name!r}; conservation needs every prunable weight")
        score = instance(self.known[name], Tensor, f"scores[{name!r}]").detach()
        if score.layout != torch.strided or score.is_meta:
            raise ValueError(f"scores[{name!r}] is sparse or on meta; expected a dense tensor")
        if score.is_complex() or not torch.isfinite(score).all():
            raise ValueError(f"scores[{name!r}] holds NaN or infinite values, or complex ones")
        if score.shape != shape:
            raise ValueError(
                f"scores[{name!r}] has shape {tuple(score.shape)}; expected {tuple(shape)}"
            )
        return score.double() + self.correction.get(name, 0.0)

    def _add(self, book: np.ndarray, units: np.ndarray, name: str) -> None:
        """Book the scores of a constant, one a unit; one that is not known counts as zero."""
        if name not in self.known:
            return
        scores = self._read(name, (len(units),)).cpu().numpy()
        if name in self.booked and scores.any():
            raise ValueError(
                f"{name} is used at several places; it has one score, of all of them together, and"
                " the law needs that of each. Give every place a layer of its own"
            )
        self.booked.add(name)
        np.add.at(book, units, scores)

    def units(self) -> ConservationReport:
        unit = np.flatnonzero(self.lawful)
        layer = self.writer[unit]
        table = pd.DataFrame(
            {
                "layer": layer,
                "unit": pd.Series(layer).groupby(layer).cumcount().to_numpy(),
                "incoming": (self.into + self.constant)[unit],
                "outgoing": self.out[unit],
            }
        )
        return _report("unit", table, ["incoming", "outgoing"])

    def regions(self) -> ConservationReport:
        region, rows = self.wires.region, []
        for number in range(int(region.max()) + 1):
            members = np.flatnonzero(region == number)
            if self.lawful[members].all():
                name = " + ".join(dict.fromkeys(self.writer[members]))
                incoming_sum = float((self.into + self.constant)[members].sum())
                rows.append((name, incoming_sum, float(self.out[members].sum())))
        table = pd.DataFrame(rows, columns=["layer", "incoming", "outgoing"])
        return _report("layer", table, ["incoming", "outgoing"])

    def cuts(self) -> ConservationReport:
        rows = []
        for names, behind in self.wires.cuts():
            inside = np.isin(self.wires.region, list(behind))
            # What is read behind the cut and by no layer: what BatchNorm's eps lets through.
            leak = self.out[inside].sum() - sum(
                self.total[layer.name]
                for layer in self.wires.layers
                if self.wires.region[layer.reads[0]] in behind
            )
            constants = float(self.constant[inside].sum() - leak)
            size = sum(self.total[name] for name in names)
            rows.append((" + ".join(names) or "weight", size, constants))
        table = pd.DataFrame(rows, columns=["cut", "size", "constants"])
        table["total"] = table["size"] + table["constants"]
        table["difference"] = table["total"] - table["total"].iloc[-1:].sum()  # none, if no cut is
        return _report("cut", table, ["total"])


def _report(level: str, table: pd.DataFrame, sums: list[str]) -> ConservationReport:
    """The report, whose error is relative to the largest number in the columns ``sums``."""
    if level != "cut":
        table["difference"] = table["incoming"] - table["outgoing"]
    error, largest = 0.0, table[sums].abs().to_numpy().max(initial=0.0)
    if not table.empty:
        error = float(table["difference"].abs().max() / largest) if largest else math.nan
    return ConservationReport(level, table, error)
