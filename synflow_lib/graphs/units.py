"""Which unit writes to which: the hidden units of a network and the layers between them.

A *unit* is a neuron or a feature map. Operations without weights (ReLU, pooling, flatten, sums)
only pass units on, so a unit is a connected set of channels between the layers that write it and
the layers that read it. On a residual stream a unit has many writers and many readers; on a
sequence it is a feature at all places. `synflow_lib.graphs.follow` finds them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import torch
from torch import nn

from .network import CONV_TRANSPOSED

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")  # one number a unit


@dataclass
class Layer:
    """A weight and the units it joins: ``reads`` (inputs,) and ``writes`` (outputs,), unit ids."""

    name: str
    module: nn.Module
    reads: np.ndarray
    writes: np.ndarray

    @property
    def weight(self) -> str:
        """The name of its weight; a network may be a single layer, whose own name is empty."""
        return f"{self.name}.weight".removeprefix(".")


@dataclass
class Norm:
    """A BatchNorm. With batch statistics it ends its input's units and starts new ones."""

    name: str
    reads: np.ndarray
    writes: np.ndarray


@dataclass
class Wiring:
    """Units of a network: ``inputs`` and ``outputs`` are the ids that have no law."""

    layers: list[Layer] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    inputs: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    outputs: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    units: int = 0
    region: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # unit -> region
    only_paths: str = ""  # what keeps sums over paths alone: a norm, a gate, attention
    added: list[tuple[str, np.ndarray]] = field(default_factory=list)  # constants without a score

    def cuts(self) -> list[tuple[list[str], set[int]]]:
        """Cuts of the network between its regions, from input to output, each behind the last.

        A region is what shares a tensor, such as one layer's output or a whole residual stage. A
        cut is given by the layers that cross it and the regions behind it. Of parallel branches
        not all cuts are found: only those in one order of the regions.
        """
        graph = nx.DiGraph()
        graph.add_nodes_from(range(int(self.region.max()) + 1))
        for edge in [*self.layers, *self.norms]:
            source, target = self.region[edge.reads[0]], self.region[edge.writes[0]]
            graph.add_edge(int(source), int(target))
        # Regions on a cycle (a residual stream and its blocks) stay on one side together.
        condensed = nx.condensation(graph)
        members = condensed.nodes(data="members")
        order = nx.lexicographical_topological_sort(condensed, key=lambda n: min(members[n]))
        behind = set(graph.nodes)
        found = []
        inputs, outputs = (set(self.region[u].tolist()) for u in (self.inputs, self.outputs))
        for component in order:
            behind = behind - members[component]
            if not outputs <= behind:
                break
            if inputs & behind:  # some of the flow begins there, at a token or another input
                continue
            crossing = [
                layer.name
                for layer in self.layers
                if self.region[layer.reads[0]] not in behind
                and self.region[layer.writes[0]] in behind
            ]
            if crossing:
                found.append((crossing, behind))
        return found


def sums_of_units(layer: Layer, score: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Total score of the weights that write each output and that read each input, float64."""
    score = score.detach().double()
    rows = score.flatten(1).sum(1)
    # A weight is (out, in / groups, *kernel), or transposed (in, out / groups, *kernel).
    groups = getattr(layer.module, "groups", 1)
    columns = score.reshape(groups, -1, score.shape[1], score[0, 0].numel()).sum((1, 3)).flatten()
    if isinstance(layer.module, CONV_TRANSPOSED):
        rows, columns = columns, rows
    return rows.cpu().numpy(), columns.cpu().numpy()


def spare_one(stays: np.ndarray, layers: Iterable[Layer]) -> None:
    """Let a unit on each side of every layer stay: an operation needs a channel, if of zeros."""
    for layer in layers:
        for units in (layer.writes, layer.reads):
            if not stays[units].any():
                stays[units[0]] = True


def pick(module: nn.Module, names: Iterable[str], stays: np.ndarray) -> None:
    """Cut tensors with one number a unit down to the units that stay, bool (units,)."""
    chosen = torch.from_numpy(np.flatnonzero(stays))
    for name in names:
        tensor = getattr(module, name, None)
        if tensor is not None:
            tensor.data = tensor.data.index_select(0, chosen.to(tensor.device))
