"""Decoded images kept in a file, under a checksum: damaged or made of other files, not used."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor

from synflow_lib.files import replacing

__all__ = ["read_tensors", "write_tensors"]

# One note for both sums: safetensors writes several in any order, and equal content should make
# equal files.
NOTE = "fingerprint and checksum"


def read_tensors(place: Path, fingerprint: str) -> dict[str, Tensor] | None:
    """The tensors kept at `place`, if they were made of what has this fingerprint.

    Args:
        place: a file of `write_tensors`.
        fingerprint: of all that the tensors depend on.

    Returns:
        The tensors by name; None where there are none, others, or, with a warning, damaged ones.
    """
    from safetensors import safe_open

    if not place.is_file():
        return None
    try:
        with safe_open(place, framework="pt") as file:
            made_of, _, checksum = (file.metadata() or {}).get(NOTE, "").partition(" ")
            if made_of != fingerprint:
                return None
            # Copies: the tensors of safetensors are the file itself, mapped into memory.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        if checksum != _checksum(tensors):
            raise ValueError("its checksum does not fit")
    except Exception as error:  # what a parser lets through on damage has many types
        warnings.warn(f"{place} is damaged ({error}): decoding the images again.", stacklevel=3)
        return None
    return tensors


def write_tensors(place: Path, fingerprint: str, tensors: dict[str, Tensor]) -> None:
    """Keeps tensors at `place`, whole or not at all; warns where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(place) as part:
            save_file(tensors, part, metadata={NOTE: f"{fingerprint} {_checksum(tensors)}"})
    except (SafetensorError, OSError) as error:
        warnings.warn(
            f"the decoded images cannot be kept in {place} ({error}): the next call decodes again. "
            "Pass cache= a file that can be written, or cache=False.",
            stacklevel=3,
        )


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
