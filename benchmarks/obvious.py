"""SynFlow as one would write it first: the implementation that speed is compared with.

Masks as buffers, the absolute value and the sign of the whole state dict around every scoring
pass, one `kthvalue` over the concatenated scores. Nothing here is slow on purpose.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PRUNABLE = (nn.Linear, nn.Conv2d)


def prunable(model: nn.Module) -> list[nn.Module]:
    """The layers whose weights are pruned."""
    return [module for module in model.modules() if isinstance(module, PRUNABLE)]


@torch.no_grad()
def linearize(model: nn.Module) -> dict[str, Tensor]:
    """Absolute values in place; returns the signs."""
    signs = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            signs[name] = torch.sign(tensor)
            tensor.abs_()
    return signs


@torch.no_grad()
def restore(model: nn.Module, signs: dict[str, Tensor]) -> None:
    """Undoes `linearize`."""
    for name, tensor in model.state_dict().items():
        if name in signs:
            tensor.mul_(signs[name])


def scores(model: nn.Module, input_shape: tuple[int, ...]) -> list[Tensor]:
    """SynFlow scores |theta * dR/dtheta| of all layers under the current masks."""
    signs = linearize(model)
    model.zero_grad()
    weight = next(model.parameters())
    ones = torch.ones(1, *input_shape, dtype=weight.dtype, device=weight.device)
    model(ones).sum().backward()
    found = [(layer.weight.grad * layer.weight).detach().abs() for layer in prunable(model)]
    restore(model, signs)
    return found


@torch.no_grad()
def apply(model: nn.Module) -> None:
    """Zeros where the masks are zero."""
    for layer in prunable(model):
        layer.weight.mul_(layer.mask)


@torch.no_grad()
def threshold(model: nn.Module, found: list[Tensor], density: float) -> None:
    """Rewrites the masks: what is not above the k-th smallest score goes."""
    flat = torch.cat([score.flatten() for score in found])
    k = flat.numel() - max(1, round(density * flat.numel()))
    if k < 1:
        return
    limit = torch.kthvalue(flat, k).values
    for layer, score in zip(prunable(model), found, strict=True):
        layer.mask.copy_((score > limit).to(layer.mask.dtype))


def synflow(
    model: nn.Module, compression: float, iterations: int, input_shape: tuple[int, ...], steps=None
) -> list[Tensor]:
    """Prunes ``model`` in place; returns the masks. ``steps`` stops early, for timing."""
    model.eval()
    for layer in prunable(model):
        layer.register_buffer("mask", torch.ones_like(layer.weight))
    for step in range(1, (steps or iterations) + 1):
        apply(model)
        threshold(model, scores(model, input_shape), (1 / compression) ** (step / iterations))
    apply(model)
    return [layer.mask for layer in prunable(model)]
