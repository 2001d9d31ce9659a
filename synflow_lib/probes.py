"""Scores of what is not pruned but conserved with the rest: biases and BatchNorm's constants."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .graph import BATCH_NORM


class Constants:
    """Differentiates a method's R also by the constants of the network, while it is entered.

    Biases and beta are parameters. The running mean is no leaf of autograd, so an explicit shift
    in front of BatchNorm stands for it; in train mode an explicit scale in the same place measures
    what BatchNorm's eps lets through (zero if eps were zero).
    """

    def __init__(self, method) -> None:
        self.method = method
        net, own = method.work.net, {id(p) for p in method.work.parameters}
        self.values: dict[str, Tensor] = {}
        self.probes: dict[str, Tensor] = {}
        self.handles = []
        for name, module in net.named_modules():
            dot = f"{name}." if name else ""
            norm = isinstance(module, BATCH_NORM)
            batch_statistics = norm and (module.training or module.running_mean is None)
            for kind in ["bias"] + ["weight"] * bool(batch_statistics):
                parameter = module._parameters.get(kind)
                if parameter is not None and id(parameter) not in own:
                    self.values[dot + kind] = parameter
                    self.probes[dot + kind] = parameter
            if norm:
                probe = next(net.parameters()).new_full(
                    (module.num_features,), float(batch_statistics), requires_grad=True
                )
                kind = "eps" if batch_statistics else "running_mean"
                self.probes[dot + kind] = probe
                self.values[dot + kind] = (
                    torch.ones_like(probe) if batch_statistics else -module.running_mean
                )
                self.handles.append(
                    module.register_forward_pre_hook(_probe(probe, scale=batch_statistics))
                )
                if batch_statistics and module.weight is None:  # affine=False: gamma is 1
                    gamma = torch.ones_like(probe).requires_grad_(True)
                    self.probes[dot + "weight"] = gamma
                    self.values[dot + "weight"] = torch.ones_like(gamma)
                    self.handles.append(module.register_forward_hook(_gamma(gamma)))

    def __enter__(self) -> Constants:
        for probe in self.probes.values():
            probe.requires_grad_(True)
        self.method.extras = list(self.probes.values())
        return self

    def __exit__(self, *error) -> None:
        self.method.extras = []
        for handle in self.handles:
            handle.remove()

    def scores(self, gradients: list[Tensor]) -> dict[str, Tensor]:
        return {
            name: (value.detach() * gradient)
            for (name, value), gradient in zip(self.values.items(), gradients, strict=True)
        }


def _probe(probe: Tensor, scale: bool) -> Callable:
    def hook(module: nn.Module, args: tuple) -> tuple:
        shaped = probe.view(1, -1, *[1] * (args[0].dim() - 2))
        return (args[0] * shaped if scale else args[0] + shaped, *args[1:])

    return hook


def _gamma(probe: Tensor) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output * probe.view(1, -1, *[1] * (output.dim() - 2))

    return hook
