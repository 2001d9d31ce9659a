"""What makes SynFlow faster and changes no mask, put together for `synflow_lib.synflow`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container

import torch
from torch import Tensor, fx, nn

from ..graphs.copies import skeleton
from ..graphs.network import BATCH_NORM, CONV, LINEAR, first_weight
from ..graphs.nodes import calls, module_of
from ..graphs.workspace import Workspace
from ..paths import PathSum
from .borders import narrow
from .compact import Compactor, Take, holders
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
    number, called, found = holders(work.net), calls(work.net.graph), {}
    for name, parameter in zip(work.names, work.parameters, strict=True):
        place, _, attribute = name.rpartition(".")
        if attribute == "weight" and number[id(parameter)] == 1 and called[place] == 1:
            found[work.net.get_submodule(place)] = name
    return found


def fold_norms_(
    net: fx.GraphModule, input_shape: tuple[int, ...], keep: Container[str]
) -> list[str]:
    """Multiply BatchNorm's factor into the weight in front of it; returns the modules folded.

    Exact for scores: theta * dR/dtheta does not change when theta is multiplied by a constant that
    is taken out behind it. Only where nothing else reads the weight's output, and where BatchNorm
    counts in the direction that the weight writes: behind a Linear layer on (batch, tokens,
    features) it counts tokens.
    """
    modules, called, number, folded = dict(net.named_modules()), calls(net.graph), holders(net), []
    flat = functools.cache(lambda: _flat_outputs(net, input_shape))  # seldom asked for
    for node in net.graph.nodes:
        norm = module_of(node, modules)
        if not isinstance(norm, BATCH_NORM) or norm.running_var is None:
            continue
        source = node.args[0]
        layer = module_of(source, modules)
        if (
            not isinstance(layer, LINEAR + CONV)
            or len(source.users) > 1
            or called[str(source.target)] + called[str(node.target)] > 2
            or number[id(layer.weight)] > 1
            or f"{node.target}.weight" in keep
        ):
            continue
        if isinstance(layer, LINEAR) and str(source.target) not in flat():
            continue
        with torch.no_grad():
            scale = torch.rsqrt(norm.running_var + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
        folded.append(str(node.target))
    return folded


def _flat_outputs(net: nn.Module, input_shape: tuple[int, ...]) -> set[str]:
    """Names of the Linear layers that give (batch, features); none where that cannot be told."""
    flat, empty = set(), skeleton(net)
    for name, module in empty.named_modules():
        if isinstance(module, LINEAR):
            module.register_forward_hook(
                lambda _, __, out, name=name: flat.add(name) if out.dim() == 2 else None
            )
    x = torch.empty(1, *input_shape, device="meta", dtype=first_weight(net).dtype)
    try:
        with torch.no_grad():
            empty(x)
    except Exception:  # the user's forward runs: anything can come out of it
        return set()
    return flat
