"""Path sums of deep networks in the range of their type, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from .flow import Pipes
from .graph import PRUNABLE


class Rescaler:
    """Keeps activations near 1 by exact powers of two, and remembers their product.

    Where an activation leaves 2^-24 to 2^24 behind a weight layer, every live value is divided by
    the same power of two. The live values are a cut, so all paths, and with them all scores, are
    scaled alike: the order of the scores is that of the unscaled network while R of ResNet-1202
    would overflow float64. The powers are measured in one pass and used until R has shrunk by
    2^16, so that most passes do not wait for the device.
    """

    room, stale = 24, 2.0**-16

    def __init__(self, pipes: Pipes) -> None:
        self.weighted = {
            step.node
            for step in pipes.steps
            if step.node.op == "call_module"
            and isinstance(pipes.modules_by_name[str(step.node.target)], PRUNABLE)
        }
        self.shifts: dict[fx.Node, int] = {}
        self.outflow = 0.0  # when the powers were measured; 0: not yet
        self.measuring = True

    @property
    def log2_scale(self) -> int:
        """True activations at the output are the rescaled ones times 2 to this."""
        return sum(self.shifts.values())

    def run(self, outflow: Callable[[Rescaler], Tensor]) -> Tensor:
        """``outflow(self)``, a pass with this as its ``after``; measured anew where it must be."""
        total = outflow(self)
        level = float(total.detach())
        if not self.measuring and not level > self.stale * self.outflow:
            self.measuring, self.shifts = True, {}
            total = outflow(self)
            level = float(total.detach())
        if self.measuring:
            self.measuring, self.outflow = False, level
        return total

    def __call__(self, node: fx.Node, live: dict[fx.Node, Tensor]) -> None:
        if node not in self.weighted:
            return
        if self.measuring:
            exponent = int(torch.frexp(live[node].detach().amax())[1])
            if abs(exponent) > self.room:
                self.shifts[node] = exponent
        shift = self.shifts.get(node)
        if not shift:
            return
        # 2**shift itself may be out of range
        parts = [shift] if abs(shift) < 100 else [shift // 2, shift - shift // 2]
        for part in parts:
            for key, value in live.items():
                if key.op != "get_attr":
                    live[key] = _times(value, 2.0**-part)


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, Tensor):  # nearly always; looking for tensors inside takes longer
        return value * factor

    def one(part: Any) -> Any:  # places of a pooling's largest inputs are no part of the flow
        return part * factor if isinstance(part, Tensor) and part.is_floating_point() else part

    return tree_map(one, value)
