"""A training's state in a file: whole, of this very run, or not taken up."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import replacing
from ..values import real

_FORMAT = b"synflow_lib.checkpoint.5\n"  # raise it with what training computes


class ForeignCheckpointError(ValueError):
    """A checkpoint that is whole, but of another run."""


class Checkpoint:
    """The file from which one run resumes; it outlives crashes, and no run dies of it.

    The file is a line that names the format, the SHA-256 of what follows, and what ``torch.save``
    wrote. It holds an *identity*: what must agree for the run to go on.

    Args:
        path: of the file, or None: nothing is saved.
        identity: name -> plain values, or a `sketch`.
        save_every: seconds between two savings, at least.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.pt"
    >>> Checkpoint(path, {"seed": 1}, save_every=0).save(lambda: {"step": 5})
    >>> Checkpoint(path, {"seed": 1}, save_every=0).load("cpu")["step"]
    5
    >>> Checkpoint(path, {"seed": 2}, save_every=0).load("cpu")
    Traceback (most recent call last):
    ...
    synflow_lib...ForeignCheckpointError: the checkpoint ... another run: seed ...
    """

    def __init__(self, path: str | Path | None, identity: dict, save_every: float) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.identity, self.save_every = identity, real(save_every, "save_every")
        self.saved, self.complained = time.perf_counter(), False

    def load(self, device: torch.device | str) -> dict | None:
        """What `save` wrote, its tensors on ``device``; None where there is nothing to take up.

        A file that is damaged, or of another version of the library, is renamed to
        ``*.damaged``, with a warning.

        Raises:
            ForeignCheckpointError: the file is of another run; it stays as it is.
            ValueError: a folder or a device lies there.
        """
        if self.path is None or not self.path.exists():
            return None
        if not self.path.is_file():
            raise ValueError(f"the checkpoint {self.path} is no file; name another place")
        content = _read(self.path.read_bytes(), device)
        if content is None:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            warnings.warn(
                f"the checkpoint {self.path} is damaged or of another version of the library; it"
                f" is set aside as {aside.name}, and the run starts from its beginning",
                stacklevel=2,
            )
            with self._forgiven("set aside"):
                self.path.replace(aside)
            return None
        identity = content.pop("identity")
        for key in self.identity | identity:
            theirs, ours = identity.get(key), self.identity.get(key)
            if not agree(theirs, ours):
                there, here = (
                    f"{len(each)} tensors" if isinstance(each, dict) else repr(each)
                    for each in (theirs, ours)
                )
                raise ForeignCheckpointError(
                    f"the checkpoint {self.path} belongs to another run: {key} is {there} there"
                    f" and {here} here. Delete it, name another file, or start from what that run"
                    " started from"
                )
        return content

    def save(self, content: Callable[[], dict]) -> None:
        """Write ``content()``, if the last time is ``save_every`` seconds ago.

        Where that fails, for instance because the disk is full, a warning says so, once; the file
        stays as it was.
        """
        if self.path is None or time.perf_counter() - self.saved < self.save_every:
            return
        buffer = io.BytesIO()
        torch.save(content() | {"identity": self.identity}, buffer)
        body = buffer.getbuffer()
        with self._forgiven("written"), replacing(self.path) as part, part.open("wb") as file:
            file.writelines((_FORMAT, hashlib.sha256(body).digest(), body))
        self.saved = time.perf_counter()

    def remove(self) -> None:
        """Delete the file, at the end of the run."""
        if self.path is not None:
            with self._forgiven("deleted"):
                self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _forgiven(self, what: str) -> Iterator[None]:
        """A warning, the first time, in place of an error of the disk."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not self.complained:
                warnings.warn(
                    f"the checkpoint {self.path} cannot be {what} ({error}); training goes on, but"
                    " would not resume from here",
                    stacklevel=4,
                )
            self.complained = True


def _read(whole: bytes, device: torch.device | str) -> dict | None:
    start = len(_FORMAT) + hashlib.sha256().digest_size
    body = memoryview(whole)[start:]
    # Nothing is interpreted before its checksum is right.
    if whole[:start] != _FORMAT + hashlib.sha256(body).digest():
        return None
    try:  # weights_only: a file cannot run code
        return torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError):  # of a newer torch, perhaps
        return None


@torch.no_grad()
def sketch(tensors: Mapping[str, Tensor], alike: float = 1e-4) -> dict[str, list]:
    """Names, shapes and two projections of each tensor: what initial weights are known by.

    No digest: another processor draws the same random numbers only to within rounding, and a run
    may move there. Compared to one part in ten thousand of the tensor's norm, or to ``alike``.

    >>> found = sketch({"w": torch.tensor([3.0, 4.0])})
    >>> found["w"][:2]
    [[2], 5.0]
    """
    found = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().to("cpu", torch.float64).flatten().nan_to_num(0, 0, 0)
        places = torch.arange(1, len(flat) + 1, dtype=torch.float64, device="cpu")
        parts = float(flat.norm()), float(flat @ places.cos()), float(flat @ places.sin())
        found[name] = [list(tensor.shape), *parts, alike]
    return found


def agree(a: object, b: object) -> bool:
    """Whether two values are equal, or two `sketch` of the same tensors up to rounding.

    >>> agree(sketch({"w": torch.ones(2)}), sketch({"w": torch.ones(2) + 1e-7}))
    True
    """
    if not isinstance(a, dict) or not isinstance(b, dict):
        return a == b
    return list(a) == list(b) and all(
        a[name][0] == shape and np.allclose(a[name][1:-1], parts, 0, alike * parts[0])
        for name, (shape, *parts, alike) in b.items()
    )
