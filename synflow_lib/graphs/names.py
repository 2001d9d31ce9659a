"""Names of units: what they are joined by while they are followed through a graph.

A tensor of names stands for a signal: every number in it is the name of the unit that the number
belongs to, a whole number. Name 0 is that of constants, which lie on no path.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


class Names:
    """The names that were given, and which of them turned out to be one unit.

    Attributes:
        count: of names, that of constants among them.
        ends: names of what comes in from outside, or is told by a constant.
        unions: pairs of arrays, whose names are one unit place by place.
        groups: names that share a tensor.
    """

    def __init__(self) -> None:
        self.count = 1
        self.ends: list[np.ndarray] = []
        self.unions: list[tuple[np.ndarray, np.ndarray]] = []
        self.groups: list[np.ndarray] = []

    def new(self, count: int) -> np.ndarray:
        """So many names that were not there before."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def spread(self, names: np.ndarray, shape: torch.Size, dim: int) -> Tensor:
        """A tensor with one name for each place along ``dim``."""
        self.groups.append(names)
        sizes = [1] * len(shape)
        sizes[dim] = len(names)
        return torch.from_numpy(names).double().view(sizes).expand(shape)

    def outside(self, shape: torch.Size, dim: int) -> Tensor:
        """New names of what comes in."""
        self.ends.append(self.new(shape[dim]))
        return self.spread(self.ends[-1], shape, dim)

    def join(self, left: Tensor, right: Tensor) -> Tensor:
        """Units that stand in the same places are one; beside a constant a unit is itself."""
        left, right = torch.broadcast_tensors(left, right)
        both = _thin(left, right)
        differ = (both[0] > 0) & (both[1] > 0) & (both[0] != both[1])
        self.unions.append(tuple(one[differ].numpy().astype(int) for one in both))
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
        found = self.gather(names, (d for d in range(names.dim()) if d != dim))
        found = found.flatten().numpy().astype(int)
        constant = found == 0
        if constant.any():
            found[constant] = self.new(int(constant.sum()))
            self.ends.append(found[constant])
        return found


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
