"""Scoring data: one ``(x, y)`` or an iterable of them, checked and cut into equal chunks.

x is what the network takes: a tensor, a tuple of its arguments or a dict of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from .values import whole

Inputs = Any  # a tensor, or a tuple, list or dict of inputs
Batch = tuple[Inputs, Any]
CHUNK = 256  # images per pass, as in the paper; bounds the memory however many images are given


def as_batches(
    batch: Batch | Iterable[Batch], device: torch.device, dtype: torch.dtype
) -> list[Batch]:
    """All scoring data as a list of chunks of at most 256 images.

    A list, so that every pass over it sees the same images: the two passes of GraSP, and every
    iteration of a run. Images, and labels that are no integers, get the network's type. TypeError
    for what is no pair of tensors, ValueError where they are unfit or there are none.

    >>> x, y = torch.zeros(300, 2), torch.zeros(300, dtype=torch.long)
    >>> [len(y) for _, y in as_batches((x, y), x.device, x.dtype)]
    [150, 150]
    """
    try:
        pairs = [batch] if _is_pair(batch) else list(batch)
    except TypeError:
        pairs = None
    if pairs is None or isinstance(batch, Mapping) or (pairs and isinstance(pairs[0], Tensor)):
        size = f" of {len(pairs)}" if pairs else ""
        raise TypeError(
            f"batch is a {type(batch).__name__}{size}; expected (x, y) or an iterable of (x, y),"
            " where x may be a tuple or a dict of what the forward takes"
        )
    if not pairs:
        raise ValueError("batch is empty; expected at least one (x, y). Was it already consumed?")
    chunks: list[Batch] = []
    for pair in pairs:
        count = _check(pair, device)
        pair = tuple(tree_map(lambda t: _fit(t, dtype), part) for part in pair)
        leaves, structure = tree_flatten(pair)
        parts = zip(*(leaf.tensor_split(-(-count // CHUNK)) for leaf in leaves), strict=True)
        chunks += [tree_unflatten(part, structure) for part in parts]
    return chunks


def kept_for_passes(batch: object) -> object:
    """A list of what can be gone through only once, or is shuffled each time; else ``batch``."""
    kept = isinstance(batch, (tuple, list, Mapping, str, Tensor, np.ndarray))
    return batch if kept or not isinstance(batch, Iterable) else list(batch)


def call(net: Callable, x: Inputs):
    """What the network gives for inputs of any structure, of which a dict goes by name."""
    if isinstance(x, dict):
        return net(**x)
    return net(*x) if isinstance(x, (tuple, list)) else net(x)


def count_of(x: Inputs) -> int:
    """The number of inputs in a batch."""
    return len(tree_leaves(x)[0])


def first_input(batch) -> Inputs | None:
    """Some x of ``batch``, for its shape, where that can be had without using it up."""
    if isinstance(batch, (tuple, list)) and len(batch) and not _is_pair(batch):
        batch = batch[0]
    return batch[0] if _is_pair(batch) else None


def _is_pair(value) -> bool:
    """Whether this is (x, y), and not several of them: a list that begins with a pair is."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    # Of several inputs a DataLoader makes a list in a list.
    inputs = (tuple, list) if isinstance(value, tuple) else list
    several = isinstance(value[1], (Tensor, dict)) and isinstance(value[0], inputs)
    return isinstance(value[0], (Tensor, dict)) or several


def _fit(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.is_inference():  # autograd cannot use those
        tensor = tensor.clone()
    if tensor.is_floating_point():
        return tensor.to(dtype)
    # Cross-entropy and embeddings know no other whole numbers.
    return tensor if tensor.dtype == torch.bool else tensor.long()


def _check(pair, device: torch.device) -> int:
    parts = tree_leaves(pair)
    if not _is_pair(pair) or not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(
            f"a batch is a {type(pair).__name__}; expected a pair (x, y) of two tensors, or of"
            " tuples or dicts of tensors for a network with several inputs"
        )
    for name, values in zip("xy", pair, strict=True):
        for tensor in tree_leaves(values):
            if tensor.is_complex() or tensor.layout != torch.strided:
                raise ValueError(
                    f"batch {name} is {tensor.dtype} in the layout {tensor.layout}; expected real"
                    " numbers in a dense tensor"
                )
            if tensor.device != device:
                raise ValueError(
                    f"batch {name} lies on {tensor.device}, the model on {device};"
                    f" move it with {name}.to({str(device)!r})"
                )
    x, y = pair
    lengths = {len(part) if part.dim() else 0 for part in parts}
    if isinstance(x, Tensor) and x.dim() < 2 or len(lengths) != 1 or 0 in lengths:
        shapes = [tuple(part.shape) for part in parts]
        raise ValueError(
            f"batch x has shape {shapes[0]} and y {', '.join(map(str, shapes[1:]))}; expected"
            " (n, ...) and (n,) with the same n >= 1"
        )
    for part in tree_leaves(x):
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise ValueError("batch x holds NaN or infinite values; expected finite numbers")
    return lengths.pop()


def logits_of(output: object):
    """The part named logits of an output with several; as it is where nothing is called so.

    Networks with auxiliary heads, which exist in train mode only, and those of transformers name
    what they give in evaluation mode.
    """
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    return output if named is None or isinstance(output, Tensor) else named


def check_output(output: object) -> Tensor:
    """``output`` of a network, if it is one tensor; else a TypeError that says what to do."""
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


def described(given: Inputs, inside: bool = False) -> Inputs:
    """Shapes, or example tensors, as `synflow_lib.graphs.network.find_input_shape` gives them."""
    if isinstance(given, Tensor) and given.dim() > (0 if inside else 1) and len(given):
        return tuple(given.shape[1:]) if given.is_floating_point() else given[:1]
    if isinstance(given, dict) and given and not inside:
        return {str(name): described(part, True) for name, part in given.items()}
    try:
        given = given.tolist() if isinstance(given, Tensor) else given
        parts = () if isinstance(given, (dict, str)) else tuple(given)
        if parts and not inside and all(isinstance(part, (Tensor, tuple, list)) for part in parts):
            return tuple(described(part, True) for part in parts)
        shape = tuple(whole(size, "input_shape", 1) for size in parts)
    except (TypeError, ValueError):
        shape = ()
    if not shape:
        raise ValueError(
            f"input_shape={given!r}: expected positive integers without the batch dimension, such"
            " as (3, 32, 32); of several inputs a tuple, or a dict by name, of such shapes or of"
            " example tensors"
        )
    return shape


def is_plain(shape: Inputs) -> bool:
    """Whether this is the shape of a single input that holds numbers."""
    return isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)


def inflow(shape: Inputs, like: Tensor, count: int = 1) -> Inputs:
    """A batch of ``count`` times ones of ``shape``, of the type and on the device of ``like``.

    Tokens (see `synflow_lib.graphs.network.find_input_shape`) are as they were.

    >>> inflow({"image": (2,), "words": torch.tensor([[4, 2]])}, torch.ones(0))
    {'image': tensor([[1., 1.]]), 'words': tensor([[4, 2]])}
    """
    if is_plain(shape):
        return like.new_ones(count, *shape)
    if isinstance(shape, Tensor):
        return shape.to(like.device).expand(count, *shape.shape[1:])
    if isinstance(shape, dict):
        return {name: inflow(part, like, count) for name, part in shape.items()}
    return tuple(inflow(part, like, count) for part in shape)
