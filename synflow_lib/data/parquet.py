"""CIFAR from a second source: the parquet files that the `datasets` library downloads.

CIFAR's own host is slow at times, and no other archive has its checksum. These files hold the same
images as PNG, so what is compared is the sum of their decoded pixels.
"""

from __future__ import annotations

import http.client
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import DataError

URL = "https://huggingface.co/datasets/uoft-cs/{name}/resolve/main/{folder}/{file}"
FILE = "{split}-00000-of-00001.parquet"
FOLDERS = {"cifar10": "plain_text", "cifar100": "cifar100"}  # at that address
LABELS = {"cifar10": "label", "cifar100": "fine_label"}  # names of columns
# Of (name, split): the images of each class, and the sum of red, green and blue over all images.
# Whole numbers, known from the published means: 6415714204 / (50000 * 1024 * 255) = 0.4913996786...
SUMS = {
    ("cifar10", "train"): (5000, (6415714204, 6295060180, 5829907619)),
    ("cifar10", "test"): (1000, (1290492328, 1266775083, 1176108223)),
    ("cifar100", "train"): (500, (6620373279, 6352382090, 5756623363)),
    ("cifar100", "test"): (100, (1328830313, 1272680636, 1153999502)),
}


def readable() -> bool:
    """Whether parquet files can be read: pyarrow is there (on Colab it is)."""
    return importlib.util.find_spec("pyarrow") is not None


def files(name: str, root: Path) -> dict[str, Path]:
    """Where the files of "cifar10" or "cifar100" lie, by split.

    >>> files("cifar10", Path("data"))["test"].as_posix()
    'data/cifar10-parquet/test-00000-of-00001.parquet'
    """
    folder = root / f"{name}-parquet"
    return {split: folder / FILE.format(split=split) for split in ("train", "test")}


def fetch(name: str, root: Path) -> None:
    """Downloads those files that are missing (together 140 MB), each whole or not at all.

    Raises:
        ValueError: (`DataError`) a file cannot be downloaded; says from where it was tried.
    """
    for file in files(name, root).values():
        if file.is_file():
            continue
        url = URL.format(name=name, folder=FOLDERS[name], file=file.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file))
        except (OSError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
            raise DataError(f"{url} cannot be downloaded ({error})") from error


def tensors(name: str, root: Path) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Images and labels of the training and the test set, decoded and compared with their sums.

    They are uint8 [n, 3, 32, 32] and int64 [n], training first; and the names of the classes, as
    far as the files tell them.

    Raises:
        ValueError: (`DataError`) pyarrow is missing, or a file is not CIFAR; says which and what to
            do.
    """
    if not readable():
        raise DataError(
            f"{files(name, root)['train'].parent} holds parquet files, and pyarrow, which reads"
            " them, is not installed: `pip install pyarrow`"
        )
    found: list[Tensor] = []
    names: tuple[str, ...] = ()
    for split, file in files(name, root).items():
        try:
            x, y, names = _decoded(file, LABELS[name])
            _check(x, y, *SUMS[name, split])
        except Exception as error:  # whatever a damaged file makes pyarrow and Pillow raise
            raise DataError(
                f"{file} does not hold the {split} images of {name} ({type(error).__name__}:"
                f" {error}). Delete it and call again with download=True"
            ) from error
        found += [x, y]
    return tuple(found), names


def _decoded(file: Path, label: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    import pyarrow.parquet
    from PIL import Image

    table = pyarrow.parquet.read_table(file, columns=["img", label])
    images = [
        np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        for row in table["img"].to_pylist()
    ]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    # What the library `datasets` notes of its columns.
    notes = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = notes.get("info", {}).get("features", {}).get(label, {}).get("names", ())
    return x, torch.tensor(table[label].to_pylist(), dtype=torch.int64, device="cpu"), tuple(names)


def _check(x: Tensor, y: Tensor, of_each: int, sums: tuple[int, int, int]) -> None:
    counts, pixels = y.bincount(), tuple(x.sum((0, 2, 3), dtype=torch.int64).tolist())
    if not (counts == of_each).all():
        raise ValueError(
            f"classes of {counts.min()} to {counts.max()} images; expected {of_each} of each"
        )
    if pixels != sums:
        raise ValueError(f"its pixels sum up to {pixels}; expected {sums}")
