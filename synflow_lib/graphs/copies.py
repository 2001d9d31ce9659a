"""Copies of a network that share nothing with it, however its modules copy themselves."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ..batches import Inputs, call
from .closures import follow_names_


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
        with _unnoticed(model):
            net = copy.deepcopy(model, own_tensors(model) | instead)
    except Exception as error:
        raise ValueError(
            f"{kind} cannot be copied ({error}), and no other copy would be private: something"
            " that it holds refuses copy.deepcopy"
        ) from error
    copies = _parts(net)
    for name, part in _parts(model).items():
        found, expected = copies.get(name), instead.get(id(part))
        if found is not None and (found is part if expected is None else found is not expected):
            raise ValueError(
                f"{kind} cannot be copied: a __deepcopy__ in it gives the same {name or kind!r}"
                " again, or leaves out the memo. Let it copy self.__dict__ by"
                " copy.deepcopy(..., memo), or take it away"
            )
    follow_names_(net, {id(part): copies.get(name) for name, part in _parts(model).items()})
    return net


@contextlib.contextmanager
def _unnoticed(model: nn.Module) -> Iterator[None]:
    """Puts torch's generator back, which a ``__deepcopy__`` that makes new layers draws from.

    Only where there is one, for another thread may be drawing; that of graphs draws nothing.
    """
    own = any(
        hasattr(module, "__deepcopy__") and not isinstance(module, fx.GraphModule)
        for module in model.modules()
    )
    with torch.random.fork_rng(devices=[], enabled=own):
        yield


def hooks_change(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a hook of the forward changes what a module is given or gives; most only look.

    Args:
        inputs: one batch, as the forward takes it.
    """
    if not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False
    changes: list[bool] = []

    def watched(hook: Callable) -> Callable:
        def run(module, *args, **kwargs):
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            tensors += module.parameters(recurse=False)  # a hook may prune them
            before = [tensor.clone() for tensor in tensors]  # .data tells nobody that it is written
            instead = hook(module, *args, **kwargs)
            written = not all(map(torch.equal, before, tensors))
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


def _parts(model: nn.Module) -> dict[str, object]:
    """Modules, parameters and buffers by name, a shared one under all of its names."""
    every = (model.named_modules, model.named_parameters, model.named_buffers)
    return {name: part for named in every for name, part in named(remove_duplicate=False)}
