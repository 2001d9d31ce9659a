"""The private copy of a network that scoring and pruning work on.

Read `network` first. A method gets a `Workspace` and a `Context` (see `synflow_lib.scores`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..batches import Batch, Inputs
from ..randomness import own_random_numbers
from ..values import SEEDS, whole
from .copies import private_copy
from .network import joined, named_views, prunable, unwrapped, warn_left_out


def working_type(model: nn.Module) -> torch.dtype:
    """The widest floating-point type in the model, at least ``float32``.

    ValueError where nothing can be computed in it, or it lies on several devices or on ``meta``.
    """
    devices = {tensor.device for tensor in model.parameters()}
    if len(devices) > 1 or any(device.type == "meta" for device in devices):
        raise ValueError(
            f"the model's parameters lie on {sorted(map(str, devices))}; expected one real device."
            " Move it with model.to(device)"
        )
    dtype = torch.float32
    for parameter in model.parameters():
        if parameter.is_complex():
            raise ValueError(
                f"the model has parameters of {parameter.dtype}; expected real numbers, for a score"
                " of complex weights has no meaning here"
            )
        try:
            dtype = torch.promote_types(dtype, parameter.dtype)
        except RuntimeError as error:  # float8
            raise ValueError(
                f"the model has parameters of {parameter.dtype}, in which nothing can be computed;"
                " convert it first, for instance with model.float()"
            ) from error
    return dtype


def working_copy(
    model: nn.Module,
    instead: dict[int, nn.Parameter] | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A `private_copy` on which scorers may do as they like, without gradients.

    ``dtype`` is the type of its numbers; None is `working_type`.
    """
    model = unwrapped(model)
    net = private_copy(model, instead).to(dtype or working_type(model))
    for parameter in net.parameters():
        parameter.grad = None
    return net


class Workspace:
    """A private copy of a network whose N prunable parameters lie in one flat tensor.

    ``flat`` (N,) shares memory with the parameters of ``net``; ``layout`` says which part of it is
    which parameter, name -> shape in order.
    """

    @torch.inference_mode(False)  # tensors made under inference mode can have no gradient
    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None, **select) -> None:
        named, own_type = prunable(model, **select), working_type(model)
        dtype = dtype or own_type
        warn_left_out(model, named, select.get("keep", ()))
        self.names, weights = list(named), list(named.values())
        self.training = model.training
        self.layout = {name: weight.shape for name, weight in named.items()}
        self.flat = joined(weight.detach().to(dtype) for weight in weights)
        views = self.views(self.flat).values()
        self.parameters = [nn.Parameter(view, requires_grad=False) for view in views]
        instead = dict(zip(map(id, weights), self.parameters, strict=True))
        self.net = working_copy(model, instead, dtype).requires_grad_(False)

    def rebind(self, flat: Tensor, layout: dict[str, torch.Size]) -> None:
        """Put parameters of other shapes, views of ``flat``, in the place of the parameters."""
        self.flat, self.layout = flat, layout
        self.parameters = []
        for name, view in self.views(flat).items():
            self.parameters.append(nn.Parameter(flat.new_empty(view.shape), requires_grad=False))
            self.parameters[-1].data = view
            path, _, attribute = name.rpartition(".")
            setattr(self.net.get_submodule(path), attribute, self.parameters[-1])

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Parts of ``flat`` (N,) in the parameters' shapes, by name."""
        return named_views(flat, self.layout)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        return joined(tensors[name] for name in self.names)


@dataclass
class Context:
    """What a run gives to its method: data, options, and the seed."""

    batch: Batch | Iterable[Batch] | None = None
    mode: str | None = None
    seed: int = 0
    loss: Callable[[Any, Any], Tensor] | None = None
    input_shape: Inputs | None = None
    dtype: torch.dtype | None = None
    fast: bool = True  # False: the plain path, which the tests compare with

    def __post_init__(self) -> None:
        if self.mode not in (None, "train", "eval"):
            raise ValueError(f"mode={self.mode!r}; expected 'train', 'eval' or None")
        if not (self.loss is None or callable(self.loss)):
            raise TypeError(f"loss={self.loss!r}; expected a function (output, y) -> scalar")
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(
                f"dtype={self.dtype!r}; expected torch.float32, torch.float64 or None (float64)"
            )
        self.seed = whole(self.seed, "seed", *SEEDS)


@contextlib.contextmanager
def isolated(device: torch.device, seed: int, draws: bool = True) -> Iterator[None]:
    """In the block random numbers follow ``seed``, gradients are on and autocast is off.

    Without ``draws`` the generators are left alone: another thread may be using them.
    """
    if device.type == "cuda":
        torch.cuda.init()  # its generators must exist to be put aside
    numbers = own_random_numbers(seed) if draws else contextlib.nullcontext()
    full_precision = torch.autocast(device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), full_precision, numbers:
        yield


_REJECTED = (RuntimeError, IndexError, AssertionError, TypeError)
UNFIT = (*_REJECTED, ValueError)
"""What torch and Python raise where arguments do not fit."""
_SHAPES = " Check the batch, or pass input_shape= (without the batch dimension)"
_NAMES = (
    " A dict is given to the forward by its names; one that takes the dict itself needs a wrapper"
    " with an argument for each: def forward(self, x): return self.net({'x': x})"
)
_STATISTICS = " BatchNorm has no statistics of one number: pass more images, or mode='eval'"
_TYPES = (
    " Scores are computed in float64: if something in the network or in the loss asks for float32,"
    " pass dtype=torch.float32; images that are whole numbers need x.float()"
)


def _of_types(error: Exception) -> bool:
    return bool(re.search(r"dtype|scalar type|[Ii]nput type", str(error)))


@contextlib.contextmanager
def explained_errors(
    x: Inputs, kinds: type[Exception] | tuple[type[Exception], ...] = _REJECTED
) -> Iterator[None]:
    """Says which input a network rejected, where torch says which kernel did.

    Where nothing but the user's forward runs, ``kinds`` is ``Exception``: it may raise anything.
    """
    shapes = tree_map(lambda t: tuple(t.shape) if isinstance(t, Tensor) else t, x)
    try:
        yield
    except kinds as error:
        why = str(error).partition("\n")[0]
        if re.search(r"register_meta|meta tensor", str(error)):
            raise ValueError(
                f"the forward reads the numbers of a tensor ({why}), and here it runs without any,"
                " for its shapes alone. Let it read plain Python numbers, as an index from a list"
                " instead of a bool buffer"
            ) from error
        alone = "more than 1 value per channel" in why
        hint = _STATISTICS if alone else _TYPES if _of_types(error) else _SHAPES
        if re.search(r"forward\(\) got an unexpected keyword|new\(\).*type 'str'", why):
            hint = _NAMES
        raise ValueError(
            f"the network cannot run on an input of shape {shapes}: {why}.{hint}"
        ) from error


@contextlib.contextmanager
def explained_loss() -> Iterator[None]:
    """Says that it was the loss, a function of the user's, that failed."""
    try:
        yield
    except UNFIT as error:  # errors of the user's own kinds go through
        raise ValueError(
            f"the loss failed on (output, y): {type(error).__name__}: {error}."
            + (_TYPES if _of_types(error) else "")
        ) from error


def pruned_before(weights: Iterable[Tensor]) -> bool:
    """Whether some layer has zeros among other weights, as pruning leaves them.

    A whole layer of zeros may be initialized so, and up to one weight in a thousand be zero by
    chance.

    >>> pruned_before([torch.zeros(3), torch.ones(3)]), pruned_before([torch.tensor([0.0, 1.0])])
    (False, True)
    """
    for weight in weights:
        zeros = weight.numel() - int(weight.detach().count_nonzero())
        if weight.numel() > zeros > weight.numel() / 1000:
            return True
    return False
