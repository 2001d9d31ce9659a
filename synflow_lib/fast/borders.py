"""The fast path of SynFlow on images: maps without the rows and columns that repeat.

SynFlow's input is all ones, so a feature map is the same everywhere but near its borders, as far
as the zeros of the padding reach. Each part of a network, from one stride to the next, runs on the
smallest maps that still hold one row of the interior, and where the next part needs more of them
that row is repeated. R is the same polynomial of the weights, so autograd gives the same scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import networkx as nx
import torch
from torch import Tensor, fx, nn

from ..graphs.network import BATCH_NORM, CONV
from ..graphs.nodes import is_addition, module_of
from ..paths import PathSum

_POOLS = tuple(getattr(nn, f"{kind}Pool{n}d") for kind in ("Max", "Avg") for n in (1, 2, 3))


@dataclass(frozen=True)
class Axis:
    """One direction of a map: ``length`` rows that are all equal but ``first`` and ``last`` ones.

    >>> Axis(32, 0, 0).behind(kernel=3, stride=1, padding=1, dilation=1)
    Axis(length=32, first=1, last=1)
    """

    length: int
    first: int = 0
    last: int = 0

    @property
    def spare(self) -> int:
        """How many rows can be left out."""
        return max(0, self.length - self.first - self.last - 1)

    def behind(self, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
        """The same direction behind a convolution or pooling."""
        reach = dilation * (kernel - 1)
        length = (self.length + 2 * padding - reach - 1) // stride + 1
        first = -(-(self.first + padding) // stride)
        end = (self.length - 1 - self.last + padding - reach) // stride  # the last inner window
        return Axis(length, min(first, length), min(length - 1 - end, length))

    def rows(self, have: int, want: int) -> list[int]:
        """Where the rows of a map without ``want`` rows stand in one without ``have``."""
        size, missing = self.length - want, have - want
        if not missing:
            return list(range(size))
        inner = range(self.first, size - self.last)
        return [self.first if i in inner else i - missing * (i >= inner.stop) for i in range(size)]


def narrow(paths: PathSum, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Change the steps of ``paths`` to run on smaller maps; the shape of input to give instead.

    Exact for an input of equal numbers and no other; ``shape`` is that of one input.
    """
    maps = _maps(paths, shape)
    if not maps:
        return shape
    alike = nx.Graph()
    alike.add_nodes_from(maps)
    for node in maps:
        for source in node.all_input_nodes:
            if source in maps and max(_strides(paths, node)) == 1:
                alike.add_edge(source, node)
    left_out = {}
    for part in nx.connected_components(alike):
        left_out |= dict.fromkeys(part, _left_out(maps, part))
    for place, step in enumerate(paths.steps):
        strides = _strides(paths, step.node)
        if step.node in maps and max(strides) > 1:
            source = step.node.all_input_nodes[0]
            want = [gone * s for gone, s in zip(left_out[step.node], strides, strict=True)]
            device = next(paths.net.parameters()).device
            run = _widened(step.run, maps[source], left_out[source], want, device)
            paths.steps[place] = replace(step, run=run)
    image = next(node for node in maps if node.op == "placeholder")
    sizes = [a.length - gone for a, gone in zip(maps[image], left_out[image], strict=True)]
    return (shape[0], *sizes)


def _maps(paths: PathSum, shape: tuple[int, ...]) -> dict[fx.Node, list[Axis]]:
    """The nodes whose rows are known to be equal, from the input as far as that can be told."""
    maps: dict[fx.Node, list[Axis]] = {}
    if len(shape) < 2:
        return maps
    for step in paths.steps:
        node = step.node
        if node.op == "placeholder":
            maps[node] = [Axis(length) for length in shape[1:]]
        if not node.all_input_nodes or any(n not in maps for n in node.all_input_nodes):
            continue
        first, *others = (maps[n] for n in node.all_input_nodes)
        module = module_of(node, paths.operations.modules)
        if step.run is None or isinstance(module, BATCH_NORM):
            maps[node] = first
        elif _windows(module) and len(_windows(module)) == len(first):
            axes = [a.behind(*how) for a, how in zip(first, _windows(module), strict=True)]
            if all(axis.length > 0 for axis in axes):
                maps[node] = axes
        elif is_addition(node) and all(
            [a.length for a in first] == [a.length for a in other] for other in others
        ):
            maps[node] = [
                Axis(a[0].length, max(x.first for x in a), max(x.last for x in a))
                for a in zip(first, *others, strict=True)
            ]
    return {node: axes for node, axes in maps.items() if node.op != "output"}


def _left_out(maps: dict[fx.Node, list[Axis]], part: set[fx.Node]) -> list[int]:
    """How many rows and columns all of ``part``, maps of one resolution, can do without."""
    if any(user not in maps for node in part for user in node.users):
        return [0] * len(maps[next(iter(part))])  # what reads it may not see equal rows
    return [min(axis.spare for axis in axes) for axes in zip(*(maps[n] for n in part), strict=True)]


def _windows(module: nn.Module | None) -> list[tuple[int, int, int, int]]:
    """Kernel size, stride, padding and dilation for each direction of a layer; [] if unknown."""
    if type(module) in CONV:
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            return []
    elif type(module) not in _POOLS or module.ceil_mode or getattr(module, "return_indices", False):
        return []
    directions = int(type(module).__name__[-2])
    given = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
    full = [g if isinstance(g, tuple) else (g,) * directions for g in given]
    return list(zip(*full, strict=True))


def _strides(paths: PathSum, node: fx.Node) -> list[int]:
    windows = _windows(module_of(node, paths.operations.modules))
    return [stride for _, stride, _, _ in windows] or [1]


def _widened(
    run: Callable, axes: list[Axis], have: list[int], want: list[int], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """``run`` on a map whose interior is repeated, or left out, until ``want`` rows are missing."""
    picks = [
        (2 + i, torch.tensor(axis.rows(h, w), device=device))
        for i, (axis, h, w) in enumerate(zip(axes, have, want, strict=True))
        if h != w
    ]

    def widened(x: Tensor) -> Tensor:
        for direction, rows in picks:
            x = x.index_select(direction, rows)
        return run(x)

    return widened
