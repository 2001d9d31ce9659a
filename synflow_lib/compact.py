"""The fast path of iterative SynFlow: leave out the units that no path runs through any more.

After a few iterations most units of a network carry no flow: their scores are exactly zero and
stay zero. `Compactor` rebuilds the private network without them, so that scoring costs what is
still alive, and says where each remaining weight now lies. Nothing else changes: the same sums
without zero terms. The plain path is the same loop without a compactor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .graph import CONV_TRANSPOSED, PRUNABLE
from .wiring import Layer, Wiring, wiring
from .workspace import Workspace

_WORTH_IT = 0.8  # rebuild when at most this share of the weights would be left


class Compactor:
    """Shrinks the network of a workspace; `shrink` after any scoring pass.

    Attributes:
        work: its ``net``, ``parameters``, ``shapes`` and ``flat`` are replaced by smaller ones.
            The last entry of ``flat`` then is a dummy, the place of weights that left with their
            unit: their score is zero for good.
    """

    def __init__(self, work: Workspace, wires: Wiring) -> None:
        self.work = work
        self.modules = dict(work.net.named_modules())
        by_name = {f"{layer.name}.weight": layer for layer in wires.layers}
        self.layers: list[Layer] = [by_name[name] for name in work.names]
        self.norms = wires.norms
        self.fixed = np.zeros(wires.units, bool)
        self.fixed[wires.inputs] = self.fixed[wires.outputs] = True

    @classmethod
    def of(cls, work: Workspace, input_shape: tuple[int, ...]) -> Compactor | None:
        """A compactor for this network, or None where it would not be exact.

        Grouped and transposed convolutions tie units to positions in a weight, and weights shared
        by two modules or left dense tie layers to each other; such networks run uncompacted.
        """
        layers = [m for m in work.net.modules() if isinstance(m, PRUNABLE)]
        plain = all(
            getattr(m, "groups", 1) == 1 and not isinstance(m, CONV_TRANSPOSED) for m in layers
        )
        own = {id(parameter) for parameter in work.parameters}
        if not plain or len(layers) != len(own) or own != {id(m.weight) for m in layers}:
            return None
        try:
            wires = wiring(work.net, input_shape)
        except ValueError:  # an operation that does not keep channels apart
            return None
        if {f"{layer.name}.weight" for layer in wires.layers} != set(work.names):
            return None
        return cls(work, wires)

    def shrink(self, scores: Tensor) -> Tensor | None:
        """Drop dead units, judged by the scores just computed; None where too few are dead.

        Returns:
            int32, for every place in the old ``work.flat`` its place in the new one.
        """
        views = list(self.work.views(scores).values())
        alive = self.fixed.copy()
        for layer, view in zip(self.layers, views, strict=True):
            alive[layer.writes[(view.flatten(1).sum(1) > 0).cpu().numpy()]] = True
        for layer in self.layers:  # an operation needs a channel, if only one of zeros
            for units in (layer.writes, layer.reads):
                if not alive[units].any():
                    alive[units[0]] = True
        rows = [alive[layer.writes] for layer in self.layers]
        columns = [alive[layer.reads] for layer in self.layers]
        sizes = [
            int(r.sum() * c.sum()) * view[0, 0].numel()
            for r, c, view in zip(rows, columns, views, strict=True)
        ]
        if sum(sizes) > _WORTH_IT * sum(self.work.sizes):
            return None
        return self._rebuild(rows, columns, alive)

    def _rebuild(self, rows: list[np.ndarray], columns: list[np.ndarray], alive) -> Tensor:
        work, device = self.work, self.work.flat.device
        weights, places, start = [], [], 0
        dummy = sum(
            int(r.sum() * c.sum()) * p[0, 0].numel()
            for r, c, p in zip(rows, columns, work.parameters, strict=True)
        )
        for parameter, r, c in zip(work.parameters, rows, columns, strict=True):
            r, c = (torch.from_numpy(x).to(device).nonzero().squeeze(1) for x in (r, c))
            weights.append(parameter.detach().index_select(0, r).index_select(1, c))
            count = weights[-1].numel()
            place = torch.full(parameter.shape, dummy, dtype=torch.int32, device=device)
            inner = torch.arange(start, start + count, dtype=torch.int32, device=device)
            row_places = torch.full_like(place[r], dummy)
            row_places[:, c] = inner.view(weights[-1].shape)
            place[r] = row_places
            places.append(place.view(-1))
            start += count
        for layer, r, c in zip(self.layers, rows, columns, strict=True):
            layer.writes, layer.reads = layer.writes[r], layer.reads[c]
            self._pick(self.modules[layer.name], ["bias"], r)
        for norm in self.norms:
            kept = alive[norm.writes]
            norm.reads, norm.writes = norm.reads[kept], norm.writes[kept]
            names = ["weight", "bias", "running_mean", "running_var"]
            self._pick(self.modules[norm.name], names, kept)
        old = work.flat.numel() - sum(p.numel() for p in work.parameters)
        work.rebind(weights)
        places += [torch.full((old,), dummy, dtype=torch.int32, device=device)]
        return torch.cat(places)

    @staticmethod
    def _pick(module: nn.Module, names: list[str], kept: np.ndarray) -> None:
        chosen = torch.from_numpy(np.flatnonzero(kept))
        for name in names:
            tensor = getattr(module, name, None)
            if tensor is not None:
                tensor.data = tensor.data.index_select(0, chosen.to(tensor.device))
