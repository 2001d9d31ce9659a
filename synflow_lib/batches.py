"""Scoring data: one ``(x, y)`` or an iterable of them, checked and cut into equal chunks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
CHUNK = 256  # images per pass, as in the paper; bounds the memory however many images are given


def as_batches(
    batch: Batch | Iterable[Batch], device: torch.device, dtype: torch.dtype
) -> list[Batch]:
    """All scoring data as a list of chunks of at most 256 images.

    A list, so that every pass over it sees the same images: the two passes of GraSP, and every
    iteration of a run. Images, and labels that are no integers, get the network's type.

    Raises:
        ValueError: no data, wrong device, wrong shapes, or numbers that are not finite.
        TypeError: something that is not a pair of tensors.

    >>> x, y = torch.zeros(300, 2), torch.zeros(300, dtype=torch.long)
    >>> [len(y) for _, y in as_batches((x, y), x.device, x.dtype)]
    [150, 150]
    """
    try:
        pairs = [batch] if _is_pair(batch) else list(batch)
    except TypeError:
        raise TypeError(
            f"batch is a {type(batch).__name__}; expected (x, y) or an iterable of (x, y)"
        ) from None
    if not pairs:
        raise ValueError("batch is empty; expected at least one (x, y). Was it already consumed?")
    chunks: list[Batch] = []
    for pair in pairs:
        _check(pair, device)
        x, y = (t.clone() if t.is_inference() else t for t in pair)  # autograd cannot use those
        x, y = (t.to(dtype) if t.is_floating_point() else t for t in (x, y))
        if not y.is_floating_point() and y.dtype != torch.bool:
            y = y.long()  # cross-entropy knows no other whole numbers
        parts = -(-len(y) // CHUNK)
        chunks += zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
    return chunks


def first_input(batch) -> Tensor | None:
    """Some x of ``batch``, for its shape, where that can be had without using it up."""
    for _ in range(2):  # of (x, y), or of the first pair of several
        batch = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
    return batch if isinstance(batch, Tensor) else None


def _is_pair(value) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(isinstance(part, Tensor) for part in value)


def _check(pair, device: torch.device) -> None:
    if not _is_pair(pair):
        raise TypeError(
            f"a batch is a {type(pair).__name__}; expected a pair (x, y) of two tensors"
        )
    x, y = pair
    for name, tensor in (("x", x), ("y", y)):
        if tensor.device != device:
            raise ValueError(
                f"batch {name} lies on {tensor.device}, the model on {device};"
                f" move it with {name}.to({str(device)!r})"
            )
    if x.dim() < 2 or y.dim() < 1 or len(x) != len(y) or not len(y):
        raise ValueError(
            f"batch x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected (n, ...) and"
            " (n,) with the same n >= 1"
        )
    if x.is_floating_point() and not torch.isfinite(x).all():
        raise ValueError("batch x holds NaN or infinite values; expected finite numbers")


def check_output(output: object) -> Tensor:
    """``output`` of a network, if it is one tensor.

    Raises:
        TypeError: a dict, a tuple, ...; the message says what to do.
    """
    if isinstance(output, Tensor):
        return output
    keys = [*output] if isinstance(output, dict) else []
    names, key = (f" with {keys}", repr(keys[0])) if keys else ("", "0")
    raise TypeError(
        f"the network's output is a {type(output).__name__}{names}, no tensor; expected one tensor"
        " of logits (batch, classes). Wrap the network in a module whose forward returns the one"
        f" that counts, for instance self.net(x)[{key}]; in scoring loss= may take such an output"
    )


def check_labels(output: Tensor, y: Tensor) -> None:
    """Raise ValueError unless ``y`` (n,) holds class numbers that ``output`` (n, classes) has."""
    check_output(output)
    if output.dim() != 2 or y.dim() != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(
            f"the network's output has shape {tuple(output.shape)} and y shape {tuple(y.shape)} of"
            f" {y.dtype}; cross-entropy expects (n, classes) and n integers. Pass loss= for"
            " another objective"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= output.shape[1]:
        raise ValueError(
            f"labels run from {low} to {high}; expected 0 to {output.shape[1] - 1}, since the"
            f" network has {output.shape[1]} outputs"
        )
