"""Constants of a network, biases and BatchNorm's, which conservation counts with the weights.

Read first the law in `conservation`, which books these scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .graphs.network import BATCH_NORM, along_channels
from .graphs.workspace import Workspace


@contextlib.contextmanager
def constants(work: Workspace) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """What R can be differentiated by, inside the block, beside the prunable parameters.

    Yields name -> (value, probe), two tensors of one shape; value * dR/dprobe is the score. Biases,
    BatchNorm's beta and its gamma with batch statistics are parameters, and their own probes. The
    stored mean is no leaf of autograd, so a shift in front of BatchNorm stands for it. With batch
    statistics a scale in the same place, "eps", measures what BatchNorm's eps lets through: zero if
    eps were zero. Where there is no gamma (affine=False), it is a scale of one behind BatchNorm.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = []
    pruned = {id(parameter) for parameter in work.parameters}
    for name, module in work.net.named_modules():
        prefix = f"{name}." if name else ""
        norm = isinstance(module, BATCH_NORM)
        batch_statistics = norm and (module.training or module.running_mean is None)
        for kind in ["bias", "weight"] if batch_statistics else ["bias"]:
            parameter = dict(module.named_parameters(recurse=False)).get(kind)
            if parameter is not None and id(parameter) not in pruned:
                found[prefix + kind] = parameter.detach(), parameter.requires_grad_(True)
        if batch_statistics:
            one = work.flat.new_ones(module.num_features)
            scale = one.clone().requires_grad_(True)
            found[prefix + "eps"] = one, scale
            hooks.append(module.register_forward_pre_hook(_before(torch.mul, scale)))
            if module.weight is None:
                gamma = one.clone().requires_grad_(True)
                found[prefix + "weight"] = one, gamma
                hooks.append(module.register_forward_hook(_behind(torch.mul, gamma)))
        elif norm:
            shift = torch.zeros_like(module.running_mean).requires_grad_(True)
            found[prefix + "running_mean"] = -module.running_mean, shift
            hooks.append(module.register_forward_pre_hook(_before(torch.add, shift)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _before(change, probe: Tensor):
    """A hook that changes a module's input by one number a channel."""
    return lambda module, args: (change(args[0], along_channels(probe, args[0])), *args[1:])


def _behind(change, probe: Tensor):
    """The same for its output."""
    return lambda module, args, output: change(output, along_channels(probe, output))
