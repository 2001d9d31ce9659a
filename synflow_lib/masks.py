"""Which weights stay: `Masks`, a bool tensor for each prunable parameter.

Nothing has to be read before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .fast.selection import count
from .files import replacing
from .graphs.network import is_bias, named_views, prunable, refuse_lazy
from .graphs.wrappers import OwnNames, unwrapped
from .values import SEEDS, instance, whole

_FORMAT = "synflow_lib.masks.2"
_WITHOUT_CHECKSUM = "synflow_lib.masks.1"


class Masks(Mapping):
    """Parameter name -> bool tensor, True where the weight stays; in forward order.

    >>> first, second = torch.tensor([[True, False]]), torch.tensor([[True]])
    >>> masks = Masks({"0.weight": first, "1.weight": second})
    >>> masks.kept, masks.total, masks.compression
    (2, 3, 1.5)
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        if not masks:
            raise ValueError("no masks given; expected at least one parameter name -> bool tensor")
        for name, mask in instance(masks, Mapping, "masks").items():
            if not isinstance(name, str):
                raise TypeError(f"masks of {name!r}; expected the name of a parameter, a str")
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                raise TypeError(
                    f"mask {name!r} is {getattr(mask, 'dtype', type(mask).__name__)};"
                    " expected a bool tensor"
                )
        self._masks = dict(masks)

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other) -> bool:
        return (
            isinstance(other, Masks)
            and list(self) == list(other)
            and all(torch.equal(self[name], other[name]) for name in self)
        )

    __hash__ = None

    def __repr__(self) -> str:
        return (
            f"Masks({len(self)} layers, kept {self.kept:,} of {self.total:,},"
            f" compression {self.compression:.4g})"
        )

    @classmethod
    def from_model(cls, model: nn.Module, **select) -> Masks:
        """Read masks back from the zeros of a model; ``select`` as in `synflow_lib.prunable`.

        >>> Masks.from_model(nn.Linear(3, 2)).kept
        6
        """
        found = prunable(model, **select)
        if meta := [name for name, parameter in found.items() if parameter.is_meta]:
            raise ValueError(f"{meta[0]} lies on meta, without numbers; load or make its weights")
        return cls({name: parameter.detach() != 0 for name, parameter in found.items()})

    @classmethod
    def from_flat(cls, flat: Tensor, layout: Mapping[str, torch.Size]) -> Masks:
        """The masks in a flat bool tensor (N,); ``layout``: parameter name -> shape, in order.

        Raises:
            ValueError: another number of values than ``layout`` has places.
        """
        total = sum(torch.Size(shape).numel() for shape in layout.values())
        if flat.shape != (total,):
            raise ValueError(
                f"flat has shape {tuple(flat.shape)}; expected ({total},), a value for each weight"
                " of the layout"
            )
        return cls({name: view.clone() for name, view in named_views(flat, layout).items()})

    @property
    def kept(self) -> int:
        """Number of weights that stay."""
        return sum(map(count, self.values()))

    @property
    def total(self) -> int:
        """N, the number of prunable weights."""
        return sum(mask.numel() for mask in self.values())

    @property
    def density(self) -> float:
        """kept / N, in [0, 1]."""
        return self.kept / self.total if self.total else 0.0

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    @property
    def compression(self) -> float:
        """rho = N / kept; infinite where nothing stays."""
        return self.total / self.kept if self.kept else float("inf")

    @property
    def digest(self) -> str:
        """SHA-256 of names, shapes and values, in this order: the same on every machine.

        >>> one, other = torch.tensor([True, False]), torch.tensor([False, True])
        >>> Masks({"w": one}).digest == Masks({"w": other}).digest
        False
        """
        found = hashlib.sha256()
        for name, mask in self.items():
            found.update(repr((name, tuple(mask.shape))).encode())
            found.update(mask.cpu().contiguous().numpy().data)
        return found.hexdigest()

    def table(self) -> pd.DataFrame:
        """One row a layer in forward order: ``layer, kept, total, density``."""
        rows = [(name, count(mask), mask.numel()) for name, mask in self.items()]
        table = pd.DataFrame(rows, columns=["layer", "kept", "total"])
        table["density"] = table["kept"] / table["total"]
        return table

    def empty_layers(self) -> list[str]:
        """Names of the layers with no weight left: the paper's sign of layer-collapse.

        Biases, where they are pruned, are no weights: a layer without them is not empty.
        """
        return [name for name, mask in self.items() if not (is_bias(name) or mask.any())]

    def shuffled(self, generator: torch.Generator | int, within: str = "layer") -> Masks:
        """Masks that keep as many weights, at random positions: a control for the choice of them.

        Args:
            generator: of random numbers, or a seed.
            within: ``"layer"``, each layer keeps its number of weights; ``"network"``, only the
                number in all is kept.

        Raises:
            TypeError, ValueError: no generator or seed; another ``within``.

        Paper: Frankle et al. 2021 and Su et al. 2020, arXiv 2009.08576 and 2009.11094.

        >>> masks = Masks({"a": torch.arange(8) < 2, "b": torch.arange(8) < 5})
        >>> masks.shuffled(0).table()["kept"].tolist()
        [2, 5]
        """
        if within not in ("layer", "network"):
            raise ValueError(f"within={within!r}; expected 'layer' or 'network'")
        if not isinstance(generator, torch.Generator):
            try:
                seed = whole(generator, "generator", *SEEDS)
            except ValueError:
                raise TypeError(
                    f"generator={generator!r}; expected a torch.Generator or a seed"
                ) from None
            generator = torch.Generator().manual_seed(seed)

        def shuffle(flat: Tensor) -> Tensor:
            order = torch.randperm(flat.numel(), generator=generator, device=generator.device)
            return flat[order.to(flat.device)]

        flat = [mask.flatten() for mask in self.values()]
        if within == "layer":
            flat = [shuffle(part) for part in flat]
        else:
            flat = shuffle(torch.cat(flat)).split([part.numel() for part in flat])
        return Masks({n: part.view(self[n].shape) for n, part in zip(self, flat, strict=True)})

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> nn.Module:
        """Write zeros into the pruned weights of ``model`` and return it.

        Raises:
            ValueError: a parameter is missing or has another shape; nothing is written then.
        """
        for name, parameter in self.parameters_of(model):
            # Not a product: that leaves minus zeros, and NaN where a weight is infinite.
            with torch.inference_mode() if parameter.is_inference() else torch.no_grad():
                parameter.masked_fill_(~self[name].to(parameter.device), 0.0)
        return model

    def to_torch_prune(self, model: nn.Module) -> nn.Module:
        """Hand the masks to ``torch.nn.utils.prune`` (``custom_from_mask``) and return ``model``.

        >>> layer = nn.Linear(2, 1)
        >>> _ = Masks({"weight": torch.tensor([[True, False]])}).to_torch_prune(layer)
        >>> torch.nn.utils.prune.is_pruned(layer)
        True
        """
        from torch.nn.utils import prune as torch_prune

        attention = [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
        if hidden := [name for name in self if name.removesuffix(".out_proj.weight") in attention]:
            raise ValueError(
                f"{hidden[0]!r} is used through the weight alone, where torch.nn.utils.prune does"
                " not reach it; write the zeros with masks.apply_(model), or prune with keep="
                " naming the attention"
            )
        for name, parameter in self.parameters_of(model):
            mask = self[name].to(parameter.device)
            for module in model.modules():  # all that share the weight
                for attribute, held in list(module.named_parameters(recurse=False)):
                    if held is parameter:
                        torch_prune.custom_from_mask(module, attribute, mask)
        return model

    def parameters_of(self, model: nn.Module | Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """(name here, parameter of ``model`` or of those given by name), one for each mask.

        Names are the model's own; where a wrapper put its name into them (``DataParallel``,
        ``torch.compile``, ``AveragedModel``), on either side, they are compared without.

        Raises:
            ValueError: a parameter is missing or has another shape, or it may be one of several.
        """
        own, outer = model, {}
        if not isinstance(model, Mapping):
            refuse_lazy(model := instance(model, nn.Module, "model"))
            own = dict(unwrapped(model).named_parameters(remove_duplicate=False))
            outer = dict(model.named_parameters(remove_duplicate=False))
        names, pairs, of = OwnNames(own, outer), [], {}
        for name, mask in self.items():
            if (found := names.find(name)) is None:
                raise ValueError(
                    f"the masks' {name!r} does not fit the model: {_missing(name, [*outer, *own])}"
                )
            parameter = own[found]
            if parameter.shape != mask.shape:
                raise ValueError(
                    f"the masks' {name!r} does not fit the model: {name!r} has shape"
                    f" {tuple(parameter.shape)} in the model and {tuple(mask.shape)} in the masks"
                )
            first = of.setdefault(id(parameter), name)
            if first != name and not torch.equal(mask, self[first].to(mask.device)):
                raise ValueError(
                    f"the masks' {first!r} and {name!r} are one parameter in the model, and their"
                    " masks differ; these masks are of a network where they are two"
                )
            pairs.append((name, parameter))
        return pairs

    def to(self, device: torch.device | str) -> Masks:
        """The same masks on another device."""
        return Masks({name: mask.to(device) for name, mask in self.items()})

    def save(self, path: str | os.PathLike) -> None:
        """Write to ``path`` in the safetensors format, which cannot run code; all or nothing.

        With a checksum (SHA-256 of names, shapes and values), which `load` verifies.

        Raises:
            ValueError: a name that such a file cannot hold.
        """
        path = Path(path).expanduser()
        if unfit := [name for name in self if "\n" in name or name == "__metadata__"]:
            raise ValueError(
                f"{path}: a file of masks cannot hold the name {unfit[0]!r}; rename it"
            )
        tensors = {name: mask.to("cpu", torch.uint8).contiguous() for name, mask in self.items()}
        metadata = {"format": _FORMAT, "order": "\n".join(self), "sha256": self.digest}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Masks:
        """Read what `save` wrote.

        Files of earlier versions have no checksum: of those only the types and the values, 0 and
        1, are verified, so a flipped bit may pass. Saved again they have one.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged, or not a file of masks.
        """
        path = Path(path).expanduser()
        again = "Write it again with masks.save(path)"
        if not path.exists():
            raise FileNotFoundError(f"no file of masks at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                names, kind = metadata.get("order", "").split("\n"), metadata.get("format")
                known = kind == _WITHOUT_CHECKSUM or kind == _FORMAT and "sha256" in metadata
                if not known or set(names) != set(file.keys()):
                    raise ValueError(
                        f"{path} is a safetensors file but holds no masks of this library"
                        f" (format {kind!r}, expected {_FORMAT!r})"
                    )
                masks = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is not a readable file of masks ({error}); it may be truncated. {again}"
            ) from error
        old = kind == _WITHOUT_CHECKSUM
        for name, mask in masks.items():
            if mask.dtype != torch.uint8 or (mask > 1).any() or (old and not mask.numel()):
                raise ValueError(
                    f"{path} is damaged: {name!r} is {mask.dtype} {tuple(mask.shape)} or holds"
                    f" other values than 0 and 1. {again}"
                )
        loaded = cls({name: mask.bool() for name, mask in masks.items()})
        if not old and metadata["sha256"] != loaded.digest:
            raise ValueError(f"{path} is damaged: it does not match its checksum. {again}")
        return loaded

    @classmethod
    def ones(cls, model: nn.Module, **select) -> Masks:
        """Nothing pruned; ``select`` as in `synflow_lib.prunable`."""
        found = prunable(model, **select)
        return cls({name: torch.ones_like(p, dtype=torch.bool) for name, p in found.items()})


def _missing(name: str, named: Iterable[str]) -> str:
    """Why a model that has the parameters ``named`` has none of this name."""
    module, _, attribute = name.rpartition(".")
    computed = f"{module}.parametrizations.{attribute}.".removeprefix(".")
    if held := [one for one in named if one == f"{name}_orig" or one.startswith(computed)]:
        return (
            f"there it is computed of {held[0]!r}; take that away first, by"
            " torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations"
        )
    return f"no parameter {name!r}; these masks are not its own"
