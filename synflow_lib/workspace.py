"""The private copy of a network that scoring and pruning work on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batches import Batch
from .network import name_left_out, prunable, working_copy, working_type
from .randomness import own_random_numbers
from .values import whole


class Workspace:
    """A private copy of a network whose N prunable parameters lie in one flat tensor.

    ``flat`` (N,) shares memory with the parameters of ``net``; ``views(t)`` cuts any flat tensor
    into tensors of the parameters' shapes.
    """

    @torch.inference_mode(False)  # tensors made under inference mode can have no gradient
    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None, **select) -> None:
        found, own_type = prunable(model, **select), working_type(model)
        dtype = dtype or own_type
        name_left_out(model, found, select.get("keep", ()))
        self.names, weights = list(found), list(found.values())
        self.training = model.training
        self.flat = torch.cat([weight.detach().reshape(-1).to(dtype) for weight in weights])
        parts = self.flat.split([weight.numel() for weight in weights])
        self.parameters = [
            nn.Parameter(part.view(weight.shape), requires_grad=False)
            for part, weight in zip(parts, weights, strict=True)
        ]
        own = zip(map(id, weights), self.parameters, strict=True)
        self.net = working_copy(model, dict(own), dtype).requires_grad_(False)
        self._describe()

    def _describe(self) -> None:
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.sizes = [parameter.numel() for parameter in self.parameters]

    def rebind(self, flat: Tensor, shapes: list[tuple[int, ...]]) -> None:
        """Put parameters of other shapes, cut from ``flat``, in the place of the parameters."""
        self.flat = flat
        self.parameters = [nn.Parameter(flat.new_empty(s), requires_grad=False) for s in shapes]
        self._describe()
        views = self.views(self.flat).values()
        for name, parameter, view in zip(self.names, self.parameters, views, strict=True):
            parameter.data = view
            path, _, attribute = name.rpartition(".")
            setattr(self.net.get_submodule(path), attribute, parameter)

    def cutter(self) -> Callable[[Tensor], dict[str, Tensor]]:
        """`views` of the layout as it is now, also after the next `rebind`."""
        names, sizes, shapes = self.names, self.sizes, self.shapes

        def cut(flat: Tensor) -> dict[str, Tensor]:
            parts = flat.split(sizes)
            return {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}

        return cut

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """``flat`` (N,) cut into tensors of the parameters' shapes, by name."""
        return self.cutter()(flat)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        return torch.cat([tensors[name].reshape(-1) for name in self.names])


@dataclass
class Context:
    """What a run gives to its method: data, options, and the seed."""

    batch: Batch | Iterable[Batch] | None = None
    mode: str | None = None
    seed: int = 0
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    input_shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    fast: bool = True  # False: the plain path, which the tests compare with

    def __post_init__(self) -> None:
        if self.mode not in (None, "train", "eval"):
            raise ValueError(f"mode={self.mode!r}; expected 'train', 'eval' or None")
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(
                f"dtype={self.dtype!r}; expected torch.float32, torch.float64 or None (float64)"
            )
        self.seed = whole(self.seed, "seed")


@contextlib.contextmanager
def no_trace(device: torch.device, seed: int, draws: bool = True) -> Iterator[None]:
    """Random numbers fixed by ``seed``, gradients on, autocast off inside; all as before after.

    Where nothing ``draws``, the generators are left alone: another thread may be using them.
    """
    if device.type == "cuda":
        torch.cuda.init()  # its generators must exist to be put aside
    numbers = own_random_numbers(seed) if draws else contextlib.nullcontext()
    full_precision = torch.autocast(device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), full_precision, numbers:
        yield


_SHAPES = " Check the batch, or pass input_shape= (without the batch dimension)"
_TYPES = (
    " Scores are computed in float64: if something in the network or in the loss asks for float32,"
    " pass dtype=torch.float32"
)


@contextlib.contextmanager
def clear_errors(shape: Iterable[int]) -> Iterator[None]:
    """Says which input a network rejected, where torch says which kernel did."""
    try:
        yield
    except (RuntimeError, IndexError, AssertionError) as error:
        raise ValueError(
            f"the network cannot run on an input of shape {tuple(shape)}: {error}."
            + (_TYPES if "type" in str(error) else _SHAPES)
        ) from error


@contextlib.contextmanager
def clear_types() -> Iterator[None]:
    """Says what to do where a function of the user's does not go with float64."""
    try:
        yield
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        raise ValueError(f"the loss failed: {error}.{_TYPES}") from error
