"""Copies of a network that share nothing with it, however its modules copy themselves."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..batches import Inputs, call


def own_tensors(model: nn.Module) -> dict[int, Tensor]:
    """A memo for ``copy.deepcopy``: what autograd computed and a module remembers, by itself.

    Networks keep features, for Grad-CAM, attention maps or auxiliary losses. torch does not copy
    such a tensor together with the computation behind it.
    """
    return {
        id(leaf): leaf.detach()
        for module in model.modules()
        for leaf in tree_leaves({**vars(module), "_modules": None})
        if isinstance(leaf, Tensor) and leaf.grad_fn is not None
    }


def private_copy(model: nn.Module, instead: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A deep copy that shares nothing with ``model`` but what ``instead`` says.

    Args:
        instead: id of a parameter or buffer -> what stands for it in the copy.

    Raises:
        ValueError: something in the model refuses to be copied, or copies itself in another way.
    """
    instead, kind = dict(instead or {}), type(model).__name__
    try:
        net = copy.deepcopy(model, own_tensors(model) | instead)
    except Exception as error:
        raise ValueError(
            f"{kind} cannot be copied ({error}), and no other copy would be private: something"
            " that it holds refuses copy.deepcopy"
        ) from error
    theirs = set(model.modules())
    for name, module in net.named_modules():
        forward = vars(module).get("forward")
        if inspect.isfunction(forward):
            read = inspect.getclosurevars(forward)
            if theirs.intersection(_modules((*read.nonlocals.values(), *read.globals.values()))):
                raise ValueError(
                    f"{kind} cannot be copied: the forward of {name or kind!r} is a function that"
                    " names the network itself, so a copy would run the original's layers. Write"
                    " it in a class, or set types.MethodType(function, module)"
                )
    copies = _parts(net)
    for name, part in _parts(model).items():
        found, expected = copies.get(name), instead.get(id(part))
        if found is not None and (found is part if expected is None else found is not expected):
            raise ValueError(
                f"{kind} cannot be copied: a __deepcopy__ in it gives the same {name or kind!r}"
                " again, or leaves out the memo. Let it copy self.__dict__ by"
                " copy.deepcopy(..., memo), or take it away"
            )
    return net


def hooks_change(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a hook of the forward changes what a module is given or gives; most only look.

    Args:
        inputs: one batch, as the forward takes it.
    """
    if not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False
    changes: list[bool] = []

    def watched(hook: Callable) -> Callable:
        def run(*args, **kwargs):
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            before = [tensor._version for tensor in tensors]
            instead = hook(*args, **kwargs)
            written = before != [tensor._version for tensor in tensors]
            changes.append(written or instead is not None)
            return instead

        return run

    net = private_copy(model).eval()
    for module in net.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            hooks.update({key: watched(hook) for key, hook in hooks.items()})
    # What the forward raises, whoever needs it will say; what hooks draw, nobody misses.
    with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
        call(net, inputs)
    return any(changes)


def _modules(values: Iterable) -> list[nn.Module]:
    return [value for value in values if isinstance(value, nn.Module)]


def _parts(model: nn.Module) -> dict[str, object]:
    """Modules, parameters and buffers by name, a shared one under all of its names."""
    every = (model.named_modules, model.named_parameters, model.named_buffers)
    return {name: part for named in every for name, part in named(remove_duplicate=False)}
