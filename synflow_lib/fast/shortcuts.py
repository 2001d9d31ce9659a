"""What makes SynFlow faster and changes no mask, put together for `synflow_lib.synflow`."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

from torch import Tensor, nn

from ..graphs.nodes import calls
from ..graphs.workspace import Workspace
from ..paths import PathSum
from .borders import narrow
from .compact import Compactor, Take
from .folding import fold_norms_
from .fused import fused


class Shortcuts:
    """The parts of the fast path for one workspace whose network is linearized.

    First `folded` and `layer` make a `PathSum`; `prepare` changes it; `shrink` follows scorings.

    Args:
        work: its network is changed where BatchNorm is folded into weights.
        shape: of one input.
        target: gives the tensor that the scores of a weight, by name, are written to.
    """

    def __init__(
        self, work: Workspace, shape: tuple[int, ...], target: Callable[[str], Tensor]
    ) -> None:
        self.work, self.shape, self.target = work, shape, target
        self.folded = fold_norms_(work.net, shape, keep=work.names)
        on_cpu = work.flat.device.type == "cpu"  # a GPU has its own way of working in pieces
        self.names = weight_layers(work) if on_cpu else {}
        self.gated = False

    def layer(self, module: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What runs in place of a layer and writes its scores; None: the layer itself."""
        name = self.names.get(module)
        return None if name is None else fused(module, lambda: self.target(name))

    def prepare(self, paths: PathSum) -> tuple[int, ...]:
        """Lets ``paths`` run on small maps; the shape of input to give."""
        self.gated = paths.operations.gated
        return narrow(paths, self.shape)

    def shrink(self, scores: Tensor, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Leaves dead units out of the workspace (see `Compactor.shrink`); None: not now."""
        return self.compactor.shrink(scores, alive) if self.compactor else None

    @functools.cached_property  # made when first needed: many runs score once
    def compactor(self) -> Compactor | None:
        """What leaves dead units out; None where it cannot, or where units of no score steer."""
        return None if self.gated else Compactor.of(self.work, self.shape)


def weight_layers(work: Workspace) -> dict[nn.Module, str]:
    """Modules that own a prunable weight alone and run once a pass -> the weight's name."""
    named, owners = dict(work.net.named_modules()), Counter()
    for module in named.values():
        owners.update(id(p) for p in module.parameters(recurse=False))
    called, found = calls(work.net.graph), {}
    for name, parameter in zip(work.names, work.parameters, strict=True):
        place, _, attribute = name.rpartition(".")
        if attribute == "weight" and owners[id(parameter)] == 1 and called[place] == 1:
            found[named[place]] = name
    return found
