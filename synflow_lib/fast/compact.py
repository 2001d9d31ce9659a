"""The fast path of iterative SynFlow: leave out the units that no path runs through any more.

After a few iterations the scores of most units are exactly zero and stay so. Without these units
scoring costs what is still alive, and gives the same sums without zero terms.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..graphs.follow import wiring
from ..graphs.layers import MODULES
from ..graphs.network import CONV_TRANSPOSED, PRUNABLE, named_views
from ..graphs.nodes import calls
from ..graphs.units import NORM_TENSORS, Layer, Wiring, keep_units_, spare_one_
from ..graphs.workspace import Workspace
from .pieces import PIECE, in_pieces, spans
from .selection import count

_WORTH_IT = 0.65  # rebuild when at most this share of the weights would be left


def _held(module: nn.Module) -> set[int]:
    return {id(tensor) for tensor in (*module.parameters(False), *module.buffers(False))}


def holders(net: nn.Module) -> Counter[int]:
    """The id of a tensor -> how many modules of ``net`` hold it."""
    return Counter(held for module in net.modules() for held in _held(module))


def _shared(net: fx.GraphModule) -> bool:
    """Whether two modules hold one tensor, or one that holds a tensor runs twice in a pass."""
    twice = [net.get_submodule(name) for name, often in calls(net.graph).items() if often > 1]
    return max(holders(net).values()) > 1 or any(map(_held, twice))


class Compactor:
    """Shrinks the network of a workspace; `shrink` after any scoring pass.

    The workspace's ``net``, ``parameters``, ``layout`` and ``flat`` are replaced by smaller ones.
    """

    def __init__(self, work: Workspace, wires: Wiring) -> None:
        self.work = work
        self.modules = dict(work.net.named_modules())
        by_name = {layer.weight: layer for layer in wires.layers}
        self.layers: list[Layer] = [by_name[name] for name in work.names]
        self.norms = wires.norms
        self.fixed = np.zeros(wires.units, bool)
        self.fixed[wires.inputs] = self.fixed[wires.outputs] = True

    @classmethod
    def of(cls, work: Workspace, input_shape: tuple[int, ...]) -> Compactor | None:
        """A compactor for this network, or None where it would not be exact.

        Grouped and transposed convolutions tie units to positions in a weight; tensors shared by
        two modules, modules used twice and weights left dense tie layers to each other; what a
        user's rule multiplies with (see `synflow_lib.graphs.layers.rule`) is not known.
        """
        rules = (MODULES.get(type(module)) for module in work.net.modules())
        ruled = any(rule is not None and rule.effect == "own" for rule in rules)
        layers = [m for m in work.net.modules() if isinstance(m, PRUNABLE)]
        tied = any(getattr(m, "groups", 1) > 1 or isinstance(m, CONV_TRANSPOSED) for m in layers)
        all_pruned = {id(p) for p in work.parameters} == {id(m.weight) for m in layers}
        if ruled or tied or not all_pruned or _shared(work.net):
            return None
        try:
            wires = wiring(work.net, input_shape)
        except ValueError:  # an operation that does not keep channels apart
            return None
        if {layer.weight for layer in wires.layers} != set(work.names):
            return None
        return cls(work, wires)

    def shrink(self, scores: Tensor, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Drop dead units, judged by the scores just computed; None where too few are dead.

        ``alive`` marks what is not pruned; of that nothing is dropped: a survivor whose score is
        zero keeps everything as it is. Returned are what takes the rest of any tensor laid out like
        ``work.flat``, and the rest of ``alive``.
        """
        views = list(self.work.views(scores).values())
        units = self.fixed.copy()
        for layer, view in zip(self.layers, views, strict=True):
            units[layer.writes[(view.flatten(1).sum(1) > 0).cpu().numpy()]] = True
        spare_one_(units, self.layers)
        sides = [(units[layer.writes], units[layer.reads]) for layer in self.layers]
        sizes = [
            int(rows.sum() * columns.sum()) * view[0, 0].numel()
            for (rows, columns), view in zip(sides, views, strict=True)
        ]
        if sum(sizes) > _WORTH_IT * self.work.flat.numel():
            return None
        inner = [
            [torch.from_numpy(np.flatnonzero(side)).to(scores.device) for side in pair]
            for pair in sides
        ]
        layout = {
            name: torch.Size((*map(len, pair), *shape[2:]))
            for pair, (name, shape) in zip(inner, self.work.layout.items(), strict=True)
        }
        take = Take(self.work.layout, layout, inner)
        left = take(alive)
        if count(left) != count(alive):
            return None
        self.work.rebind(take(self.work.flat), layout)
        for layer, (rows, columns) in zip(self.layers, sides, strict=True):
            layer.writes, layer.reads = layer.writes[rows], layer.reads[columns]
            keep_units_(self.modules[layer.name], ["bias"], rows)
        for norm in self.norms:
            kept = units[norm.writes]
            norm.reads, norm.writes = norm.reads[kept], norm.writes[kept]
            keep_units_(self.modules[norm.name], NORM_TENSORS, kept)
        return take, left


@dataclass
class Take:
    """Copies what is left of a tensor laid out like the old ``work.flat`` into the new layout."""

    old: dict[str, torch.Size]
    new: dict[str, torch.Size]
    inner: list[list[Tensor]]  # of each layer the rows and the columns that stay

    def __call__(self, flat: Tensor) -> Tensor:
        found = flat.new_empty(sum(shape.numel() for shape in self.new.values()))
        views = (named_views(flat, self.old), named_views(found, self.new))
        layers = zip(*(view.values() for view in views), self.inner, strict=True)
        jobs = [
            (old, new, rows, columns, piece)
            for old, new, (rows, columns) in layers
            for piece in spans(len(rows), max(1, PIECE // old[0].numel()))
        ]

        def one(job: tuple) -> None:
            old, new, rows, columns, piece = job
            torch.index_select(old.index_select(0, rows[piece]), 1, columns, out=new[piece])

        in_pieces(one, jobs)
        return found

    def places(self) -> Tensor:
        """For each weight of the new layout its index in the old one, int32."""
        found, start = [], 0
        for shape, (rows, columns) in zip(self.old.values(), self.inner, strict=True):
            taps = math.prod(shape[2:])
            rows, columns = rows.int() * (shape[1] * taps) + start, columns.int() * taps
            tap = torch.arange(taps, dtype=torch.int32, device=rows.device)
            found.append((rows[:, None, None] + columns[:, None] + tap).flatten())
            start += shape.numel()
        return torch.cat(found)
