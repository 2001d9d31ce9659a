"""What stands around a network, or a part of it, and puts its own name into their names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim.swa_utils import AveragedModel

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_NAMES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``torch.compile`` and the like, whose names it keeps.

    >>> layer = nn.Linear(2, 1)
    >>> unwrapped(nn.DataParallel(layer)) is layer
    True
    """
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif isinstance(model, nn.Module) and "_orig_mod" in model._modules:  # torch.compile
            model = model._modules["_orig_mod"]
        else:
            return model


def bare(name: str) -> str:
    """A name without what wrappers put into it.

    >>> bare("module.layers.0._orig_mod.weight")
    'layers.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _NAMES)


def meant(name: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that ``name`` stands for: itself, else all that are it without wrappers.

    >>> meant("module.0", ["0", "1"]), meant("0", ["_orig_mod.0", "0"])
    (['0'], ['0'])
    """
    names = list(names)
    return [name] if name in names else [n for n in names if bare(n) == bare(name) != ""]
