"""Which unit writes to which: the hidden units of a network and the layers between them.

A *unit* is a neuron or a feature map. Operations without weights (ReLU, pooling, flatten, sums)
only pass units on, so a unit is a connected set of channels between the layers that write it and
the layers that read it. On a residual stream a unit has many writers and many readers.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import torch
from torch import fx, nn

from .batches import one_input
from .graph import argument, is_addition, is_shape, name_of
from .layers import Rule, row_of
from .network import BATCH_NORM, CONV_TRANSPOSED, PRUNABLE, skeleton, trace
from .operations import Operations


@dataclass
class Layer:
    """A weight and the units it joins: ``reads`` (inputs,) and ``writes`` (outputs,), unit ids."""

    name: str
    module: nn.Module
    reads: np.ndarray
    writes: np.ndarray


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
        outputs = set(self.region[self.outputs].tolist())
        for component in order:
            behind = behind - members[component]
            if not outputs <= behind:
                break
            crossing = [
                layer.name
                for layer in self.layers
                if self.region[layer.reads[0]] not in behind
                and self.region[layer.writes[0]] in behind
            ]
            if crossing:
                found.append((crossing, behind))
        return found


def wiring(
    model: nn.Module,
    input_shape: tuple[int, ...],
    batch_statistics: frozenset[str] = frozenset(),
    *,
    gates: bool = False,
) -> Wiring:
    """Trace which units every layer reads and writes.

    Args:
        model: a traceable network of one input.
        input_shape: without the batch dimension.
        batch_statistics: names of the BatchNorm modules that use batch statistics.
        gates: take what a gate opens as it is: the gate's layers are not in the wiring. Without,
            a network with gates is refused: a unit could not be taken out.

    Raises:
        ValueError: an operation that conservation has no law for; its name is in the message.
    """
    shape = one_input(input_shape, "what follows single units")
    traced = trace(model, shape)
    if traced.meta.get("exported"):
        raise ValueError(
            f"{type(model).__name__} can be traced by torch.export only, whose graph holds no"
            " layers; what follows single units needs one of torch.fx: write the forward without"
            " branches or loops on values of tensors"
        )
    net = skeleton(traced)
    wirer = _Wirer(net, shape, batch_statistics)
    if not gates:
        wirer.refuse_gates()
    return wirer.run()


class _Shapes(fx.passes.shape_prop.ShapeProp):
    """Shapes alone; most of the time went into what changes none."""

    def call_module(self, target, args, kwargs):
        if isinstance(self.fetch_attr(target), (*BATCH_NORM, nn.ReLU)):
            return args[0]
        return super().call_module(target, args, kwargs)


class _Wirer:
    def __init__(self, net: fx.GraphModule, input_shape: tuple[int, ...], batch_statistics) -> None:
        self.net, self.batch_statistics = net, batch_statistics  # a graph's module
        self.module = dict(net.named_modules())
        self.parameters = {name for name, _ in net.named_parameters(remove_duplicate=False)}
        self.operations = Operations(net.graph, self.module)
        self.whole_constants = True  # whether constants of several numbers may take part
        self.flows = self.operations.flows
        dtype = next(net.parameters()).dtype
        self.example = torch.empty(2, *input_shape, device="meta", dtype=dtype)
        self.wiring = Wiring()
        self.unions: list[tuple[np.ndarray, np.ndarray]] = []
        self.groups: list[np.ndarray] = []  # ids that share a tensor
        self.seen: dict[str, Layer] = {}

    def new(self, count: int) -> np.ndarray:
        start = self.wiring.units
        self.wiring.units += count
        return np.arange(start, start + count)

    def refuse_gates(self) -> None:
        self.whole_constants = False
        for node in self.operations.carriers:
            if gates := self.operations.gates(node):
                raise ValueError(
                    f"no conservation law for {node.op} {name_of(node)} (node {node.name!r}), where"
                    f" {gates[0].name!r} steers what another signal brings"
                )

    def run(self) -> Wiring:
        shapes = _Shapes(self.net)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # torch.fx prints its own traceback
                shapes.propagate(self.example)
        except Exception as error:  # the user's forward runs: anything can come out of it
            raise ValueError(
                f"the network cannot run on an input of shape {tuple(self.example.shape[1:])}"
            ) from error
        ids: dict[fx.Node, np.ndarray] = {}
        for node in self.net.graph.nodes:
            if node.op == "output":
                ends = [ids[n] for n in node.all_input_nodes if n in ids]
                if not ends:
                    raise ValueError("the network's output does not depend on its input")
                self.wiring.outputs = np.concatenate(ends)
                continue
            if node not in self.flows:
                continue
            meta = node.meta.get("tensor_meta")
            if not hasattr(meta, "shape"):
                if not is_shape(node) and any(n in ids for n in node.all_input_nodes):
                    raise ValueError(
                        f"no conservation law for {name_of(node)} (node {node.name!r}), which gives"
                        " several tensors"
                    )
                continue  # a size, a number: nothing flows through it
            value = self.ids_of(node, meta.shape, ids)
            if value is not None:
                ids[node] = value
                self.groups.append(value)
        return self.merged()

    def ids_of(self, node: fx.Node, shape: torch.Size, ids: dict) -> np.ndarray | None:
        if node.op == "placeholder":
            self.wiring.inputs = self.new(shape[1])
            return self.wiring.inputs
        sources = [ids[n] for n in self.operations.carriers[node] if n in ids]
        if not sources:
            return None
        for used in node.all_input_nodes:
            if used.op == "get_attr" and str(used.target) in self.parameters:
                advice = "call the layer instead of its functional form"
                if "." not in str(used.target):  # a layer that is the whole network
                    advice = "put a layer of its own into torch.nn.Sequential"
                raise ValueError(
                    f"{used.target} is an argument of a function ({node.name}); conservation and"
                    f" cuts follow layers only: {advice}"
                )
            constant = used.meta.get("tensor_meta") if used not in self.operations.reached else None
            if not self.whole_constants and math.prod(getattr(constant, "shape", ())) > 1:
                raise ValueError(
                    f"no unit can be taken out of {used.name}, a constant of shape"
                    f" {tuple(constant.shape)} that {name_of(node)} (node {node.name!r}) is given"
                )
        source, name = sources[0], str(node.target)
        module = self.module[name] if node.op == "call_module" else None
        if isinstance(module, PRUNABLE):
            if isinstance(module, nn.Linear) and len(shape) != 2:
                raise ValueError(
                    f"{name}: conservation is defined for Linear on (batch, features), here its"
                    f" output has shape {tuple(shape)}"
                )
            return self.layer(name, module, source)
        if isinstance(module, BATCH_NORM):
            writes = self.new(len(source)) if name in self.batch_statistics else source
            self.wiring.norms.append(Norm(name, source, writes))
            return writes
        if is_addition(node):
            if len(sources) == 2:
                if len(source) != len(sources[1]):
                    raise ValueError(
                        f"no conservation law for {name_of(node)} (node {node.name!r}), which adds"
                        f" {len(source)} to {len(sources[1])} channels: one is spread over several"
                    )
                self.unions.append((source, sources[1]))
            return source
        if node.target is torch.cat or node.target is torch.concat:
            if argument(node, "dim", 1, 0) != 1:
                raise ValueError("no conservation law for torch.cat outside the channel dimension")
            return np.concatenate(sources)
        row = row_of(node, module)
        if len(sources) > 1 or row is None or not row.units:
            what = f"{node.op} {name_of(node)}"
            if module is not None:
                what = f"{name}, a {type(module).__name__}"
            raise ValueError(
                f"no conservation law for {what}: channels must stay apart, and be joined by sums"
                " or concatenation only"
            )
        before = (
            next(n for n in self.operations.carriers[node] if n in ids).meta["tensor_meta"].shape
        )
        if _keeps_channels(node, row, module, before, shape):
            if shape[1] == len(source):
                return source
            if len(shape) == 2 and shape[1] % len(source) == 0:  # flatten: a map, many inputs
                return np.repeat(source, shape[1] // len(source))
        raise ValueError(
            f"{node.name} turns {len(source)} channels into shape {tuple(shape)}; conservation"
            " follows channels through flatten, pooling and element-wise operations only"
        )

    def layer(self, name: str, module: nn.Module, source: np.ndarray) -> np.ndarray:
        if name in self.seen:  # a shared module: one score for all its uses joins their units
            again = self.seen[name]
            self.unions += [(again.reads, source)]
            return again.writes
        out = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        self.seen[name] = Layer(name, module, source, self.new(out))
        self.wiring.layers.append(self.seen[name])
        return self.seen[name].writes

    def merged(self) -> Wiring:
        wiring = self.wiring
        unit = _components(wiring.units, self.unions)
        for part in [*wiring.layers, *wiring.norms]:
            part.reads, part.writes = unit[part.reads], unit[part.writes]
        wiring.inputs, wiring.outputs = unit[wiring.inputs], unit[wiring.outputs]
        wiring.units = int(unit.max()) + 1
        groups = [unit[group] for group in self.groups]
        wiring.region = _components(wiring.units, [(g[:-1], g[1:]) for g in groups])
        return wiring


def _keeps_channels(
    node: fx.Node, row: Rule, module: nn.Module | None, before: torch.Size, shape: torch.Size
) -> bool:
    """Whether the directions of images and channels are still those, not only as long."""
    if len(shape) < 2 or shape[0] != before[0]:
        return False
    name = name_of(node) if module is None else type(module).__name__
    if row.effect == "scales" and len(before) != len(shape):
        return False  # a factor with more directions
    if row.effect in ("moves", "sums", "largest") and (dims := re.search(r"(\d)d", name)):
        return len(before) == int(dims[1]) + 2  # else one of them is taken for a side of the map
    if name == "pad":
        return len(argument(node, "pad", 1, ())) <= 2 * (len(before) - 2)
    if name in ("sum", "mean", "amax"):
        over = argument(node, "dim", 1, node.kwargs.get("axis"))
        over = (over,) if isinstance(over, int) else over
        return bool(over) and all(int(dim) % len(before) > 1 for dim in over)
    return True


def _components(count: int, unions: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Component number of each id, numbered by first appearance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left = np.concatenate([a for a, _ in unions]) if unions else np.zeros(0, int)
    right = np.concatenate([b for _, b in unions]) if unions else np.zeros(0, int)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


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
