"""What stands around a network, or a part of it, and puts its own name into their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

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


def _bare(name: str) -> str:
    """A name without what wrappers put into it: of "module.layers.0._orig_mod" "layers.0"."""
    return ".".join(part for part in name.split(".") if part not in _NAMES)


class OwnNames:
    """A network's own names of its parts, found by those that wrappers make of them.

    On either side: ``"module.0"`` is ``"0"``, and ``"0"`` may be ``"0._orig_mod"``.

    Args:
        own: part by its own name.
        outer: parts by their names within what stands around the network, if anything does.

    >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> names = OwnNames({"0._orig_mod": first, "1": second}, {})
    >>> names.find("0"), names.find("module.1"), names.find("2")
    ('0._orig_mod', '1', None)
    """

    def __init__(self, own: Mapping[str, object], outer: Mapping[str, object]) -> None:
        self.own, self.alike = own, defaultdict(dict)
        first: dict[int, str] = {}
        for name, part in own.items():
            first.setdefault(id(part), name)
            self.alike[_bare(name)].setdefault(id(part), name)
        self.outer = {name: first.get(id(part)) for name, part in outer.items()}

    def find(self, name: str) -> str | None:
        """The own name that ``name`` stands for: itself, else by the wrappers, else without them.

        ValueError where it may be one of several parts.
        """
        if name in self.own:
            return name
        if found := self.outer.get(name):  # not the network as a whole
            return found
        same = self.alike[_bare(name)].values() if _bare(name) else ()
        # Of a wrapper and what it wraps the wrapper.
        same = [one for one in same if not any(one.startswith(f"{other}.") for other in same)]
        if len(same) > 1:
            raise ValueError(
                f"{name!r} may be of {' or of '.join(same)}; use the model's own names"
            )
        return same[0] if same else None
