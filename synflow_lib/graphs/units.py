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
from torch import Tensor, nn

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
        """Cuts between regions, from input to output: the layers that cross, the regions behind.

        A region is what shares a tensor, such as one layer's output or a whole residual stage. Of
        parallel branches only the cuts in one order of the regions are found.
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
        behind, found = set(graph.nodes), []
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


def sums_of_units(layer: Layer, score: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Total score of the weights that write each output and that read each input, float64."""
    score = score.detach().double()
    rows = score.flatten(1).sum(1)
    # A weight is (out, in / groups, *kernel), or transposed (in, out / groups, *kernel).
    groups = getattr(layer.module, "groups", 1)
    columns = score.reshape(groups, -1, score.shape[1], score[0, 0].numel()).sum((1, 3)).flatten()
    if isinstance(layer.module, CONV_TRANSPOSED):
        rows, columns = columns, rows
    return rows.cpu().numpy(), columns.cpu().numpy()


def spare_one_(stays: np.ndarray, layers: Iterable[Layer]) -> None:
    """Let at least one unit on each side of every layer stay: no operation runs on no channels."""
    for layer in layers:
        for units in (layer.writes, layer.reads):
            if not stays[units].any():
                stays[units[0]] = True


def keep_units_(module: nn.Module, names: Iterable[str], stays: np.ndarray) -> None:
    """Cut tensors with one number a unit down to the units that stay, bool (units,)."""
    chosen = torch.from_numpy(np.flatnonzero(stays))
    for name in names:
        tensor = getattr(module, name, None)
        if tensor is not None:
            tensor.data = tensor.data.index_select(0, chosen.to(tensor.device))


# ------------------------------------------------------------------------------------------- names


class Names:
    """The names that were given, whole numbers, and which of them turned out to be one unit."""

    def __init__(self) -> None:
        self.count = 1  # with that of constants, which is 0
        self.ends: list[np.ndarray] = []  # names of inputs and of constants, which no layer writes
        self.unions: list[tuple[np.ndarray, np.ndarray]] = []  # names that are one, place by place
        self.groups: list[np.ndarray] = []  # names that share a tensor

    def new(self, count: int) -> np.ndarray:
        """``count`` new names."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def spread(self, names: np.ndarray, shape: torch.Size, dim: int) -> Tensor:
        """A tensor with one name for each place along ``dim``."""
        self.groups.append(names)
        sizes = [1] * len(shape)
        sizes[dim] = len(names)
        return torch.from_numpy(names).double().view(sizes).expand(shape)

    def outside(self, shape: torch.Size, dim: int) -> Tensor:
        """New names for an input."""
        self.ends.append(self.new(shape[dim]))
        return self.spread(self.ends[-1], shape, dim)

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Units that stand in the same places are one; beside a constant a unit is itself."""
        left, right = torch.broadcast_tensors(left, right)
        both = _thin(left, right)
        differ = (both[0] > 0) & (both[1] > 0) & (both[0] != both[1])
        self.unions.append(tuple(names[differ].numpy().astype(int) for names in both))
        return torch.maximum(*both).expand(left.shape)

    def gather(self, names: Tensor, dims: Iterable[int]) -> Tensor:
        """What stands along ``dims`` is one unit; they have length one in what is returned."""
        dims = sorted({dim % names.dim() for dim in dims})
        (thin,) = _thin(names)
        top = thin.amax(dims, keepdim=True) if dims else thin
        self.join(thin, top)
        return top.expand([1 if dim in dims else size for dim, size in enumerate(names.shape)])

    def along(self, names: Tensor, dim: int) -> np.ndarray:
        """Units by their place along ``dim``, joined over all others."""
        dim = dim % names.dim()
        units = self.gather(names, (d for d in range(names.dim()) if d != dim))
        units = units.flatten().numpy().astype(int)
        constant = units == 0
        if constant.any():
            units[constant] = self.new(int(constant.sum()))
            self.ends.append(units[constant])
        return units


def _thin(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one shape without the repeats that all of them have."""
    repeats = [not any(strides) for strides in zip(*(t.stride() for t in tensors), strict=True)]
    index = tuple(slice(0, 1) if repeat else slice(None) for repeat in repeats)
    return [tensor[index] for tensor in tensors]


def names_in(names: Tensor) -> np.ndarray:
    """The names in a tensor, each once, without that of constants."""
    found = np.unique(_thin(names)[0].numpy().astype(int))
    return found[found > 0]


def components(count: int, unions: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Component number of each id, numbered by first appearance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left = np.concatenate([a for a, _ in unions]) if unions else np.zeros(0, int)
    right = np.concatenate([b for _, b in unions]) if unions else np.zeros(0, int)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
