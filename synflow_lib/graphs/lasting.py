"""Refuses parameters in which zeros would not last: computed ones, and ones that share memory."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def own_parameter(module: nn.Module, kind: str, name: str) -> nn.Parameter | None:
    """The ``kind`` ("weight" or "bias") of a layer, called ``name``; None where it has none.

    ValueError where it is computed from other tensors, or holds no number. It is looked up and not
    read: a computed one would be computed, which may draw random numbers.
    """
    parameter = module._parameters.get(kind)
    if parameter is None:
        held = {**module._buffers, **vars(module)}.get(kind)
        if held is not None or inspect.getattr_static(type(module), kind, None) is not None:
            raise ValueError(
                f"{name} is computed from other tensors, so zeros in it would not last; make"
                f" it a parameter first: {_remedy(name.rpartition('.')[0], module, kind)}"
            )
    elif not parameter.numel():
        raise ValueError(
            f"{name} has the shape {tuple(parameter.shape)}, of a layer without a weight,"
            " which would count as empty before anything is pruned; leave the layer out"
        )
    return parameter


def _remedy(name: str, module: nn.Module, kind: str) -> str:
    """The call that turns a computed weight into a parameter, by what computes it."""
    where = f"(model.get_submodule({name!r}), {kind!r})"
    if parametrize.is_parametrized(module, kind):
        return f"torch.nn.utils.parametrize.remove_parametrizations{where}"
    removes = {WeightNorm: "remove_weight_norm", SpectralNorm: "remove_spectral_norm"}
    for hook in module._forward_pre_hooks.values():
        if type(hook) in removes and hook.name == kind:
            return f"torch.nn.utils.{removes[type(hook)]}{where}"
    if f"{kind}_orig" in module._parameters:
        return f"torch.nn.utils.prune.remove{where}"
    return f"assign torch.nn.Parameter(model.get_submodule({name!r}).{kind}.detach())"


def refuse_shared_memory(parameters: Mapping[str, Tensor], model: nn.Module) -> None:
    """ValueError where some of the model's ``parameters`` have numbers in one place.

    With each other, among their own, or with a tensor that a module holds besides.
    """
    taken: dict[int, list[tuple[str, Tensor]]] = {}  # storage -> by name

    def in_the_way(tensor: Tensor) -> str | None:
        others = taken.get(tensor.untyped_storage()._cdata, ())
        return next((name for name, other in others if _overlap(tensor, other)), None)

    for name, parameter in parameters.items():
        if parameter.layout != torch.strided:
            raise ValueError(
                f"{name} is a tensor of layout {parameter.layout}; expected a dense one, of which"
                " any number may be pruned: assign torch.nn.Parameter of its .to_dense()"
            )
        if 0 in parameter.stride() and parameter.untyped_storage().nbytes() < (
            parameter.numel() * parameter.element_size()
        ):
            raise ValueError(
                f"{name} is expanded: several of its numbers lie in the same memory, so a zero in"
                " one is a zero in all. Give it memory of its own, by .contiguous()"
            )
        if other := in_the_way(parameter):
            raise ValueError(
                f"{other} and {name} are two parameters in the same memory: zeros in one"
                " are zeros in the other. Assign the parameter itself, not its data"
            )
        taken.setdefault(parameter.untyped_storage()._cdata, []).append((name, parameter))
    for owner, module in model.named_modules():
        for key, tensor in {**module._buffers, **vars(module)}.items():
            if not isinstance(tensor, Tensor) or isinstance(tensor, nn.Parameter):
                continue
            if tensor.layout == torch.strided and (name := in_the_way(tensor)):
                raise ValueError(
                    f"{f'{owner}.{key}'.removeprefix('.')} is a view of {name}: it would be"
                    " pruned with it and not be scored. Make the view in the forward, from the"
                    " parameter itself"
                )


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one storage have a number in the same place."""
    try:
        return np.shares_memory(_places(one), _places(other), max_work=10**6)
    except np.exceptions.TooHardError:  # of strides made to be hard
        return True


def _places(tensor: Tensor) -> np.ndarray:
    """An array of the places where the numbers lie; nothing is read there, on any device."""
    size = tensor.element_size()
    array = {
        "version": 3,
        "shape": tuple(tensor.shape),
        "typestr": f"|V{size}",
        "data": (tensor.storage_offset() * size + 4096, True),
        "strides": tuple(stride * size for stride in tensor.stride()),
    }
    return np.asarray(types.SimpleNamespace(__array_interface__=array))
