"""Data sets that come with scikit-learn (digits) or through torchvision (MNIST, CIFAR)."""

from __future__ import annotations

import importlib
import math
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from .. import env
from . import parquet
from .dataset import DataError, Dataset
from .tensors import channel_statistics, stratified_order

# Sums of the unpacked files; torchvision knows those of the archives.
RAW_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


def digits(size: int = 8, channels: int = 1, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels that come with scikit-learn: nothing to download.

    Args:
        size: height and width in pixels; anything but 8 is resized (bilinear).
        channels: 1, or the grey image repeated so often.
        test_fraction: share of the images in the test set, in (0, 1), the same for every class up
            to rounding.
        seed: fixes which images those are.

    Raises:
        ValueError: a size or count below 1, or a fraction that leaves a set empty.

    >>> digits(size=32, channels=3)
    Dataset(digits: 1,438 train and 359 test images of 3x32x32, 10 classes, cpu)
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    # Grey values are whole numbers from 0 to 16.
    x = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8))[:, None]
    y = torch.from_numpy(raw.target).to(torch.int64)
    n_test = round(test_fraction * len(y)) if 0 < test_fraction < 1 else 0
    if not 0 < n_test < len(y):
        raise ValueError(
            f"test_fraction is {test_fraction!r}; expected a number between 0 and 1 that leaves "
            f"images in both sets, such as 0.2."
        )
    order = stratified_order(y, seed)
    test, train = order[:n_test], order[n_test:]
    tensors, names = (x[train], y[train], x[test], y[test]), tuple("0123456789")
    statistics = channel_statistics(x[train])
    # The border is an eighth of the image, as 4 of 32 pixels; a mirrored digit is another sign.
    dataset = Dataset("digits", *tensors, 10, *statistics, classes=names, padding=1, flip=False)
    return dataset.resized(size, channels)


def mnist(root: str | Path | None = None, download: bool = True) -> Dataset:
    """MNIST (LeCun et al.): 60,000 + 10,000 handwritten digits, 1x28x28. See `cifar10`.

    Files of another number of images are read as well, if every one of them is whole: the length
    must be the one that its head promises. Files as large as the published ones must have their
    MD5 sums.
    """
    return _torchvision_dataset("mnist", "MNIST", root, download, padding=0, flip=False)


def fashion_mnist(root: str | Path | None = None, download: bool = True) -> Dataset:
    """FashionMNIST (Xiao et al. 2017): 60,000 + 10,000 articles, 1x28x28. See `mnist`."""
    return _torchvision_dataset("fashion_mnist", "FashionMNIST", root, download)


def cifar10(root: str | Path | None = None, download: bool = True) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs, 3x32x32, 10 classes.

    Read through torchvision, which checks the MD5 sums of what it downloads; or, where its files
    are not there and pyarrow is, from the parquet files of the `datasets` library, which come from
    a faster host: the same images, perhaps in another order (see `parquet`).

    Args:
        root: folder that holds the files of torchvision, or in its folder ``cifar10-parquet`` the
            others; None is `env.data_dir()`.
        download: fetches what is missing; False reads what is there.

    Raises:
        ValueError: (`DataError`) a file is missing or damaged, or cannot be downloaded; says
            which file, where it was expected and how to get it.
    """
    return _cifar("cifar10", "CIFAR10", root, download)


def cifar100(root: str | Path | None = None, download: bool = True) -> Dataset:
    """CIFAR-100: as CIFAR-10, with 100 classes. See `cifar10`."""
    return _cifar("cifar100", "CIFAR100", root, download)


def _cifar(name: str, kind: str, root: str | Path | None, download: bool) -> Dataset:
    root = env.data_dir() if root is None else Path(root).expanduser()
    source = getattr(import_torchvision("torchvision.datasets"), kind)
    listed, others = _expected_files(source, root)[0], parquet.files(name, root).values()
    failed = ""
    if not any(path.is_file() for path, _ in listed):
        if download and parquet.readable():
            try:
                parquet.fetch(name, root)
            except DataError as error:
                failed = f" Before that: {error}."
        if all(path.is_file() for path in others):
            tensors, names = parquet.tensors(name, root)
            count = int(name.removeprefix("cifar"))
            return Dataset(name, *tensors, count, *channel_statistics(tensors[0]), classes=names)
    try:
        return _torchvision_dataset(name, kind, root, download)
    except DataError as error:
        raise DataError(f"{error}{failed}") from error


def _torchvision_dataset(
    name: str, kind: str, root: str | Path | None, download: bool, **augmentation
) -> Dataset:
    root = env.data_dir() if root is None else Path(root).expanduser()
    source = getattr(import_torchvision("torchvision.datasets"), kind)
    files, archives, folder = _expected_files(source, root)
    try:
        if (old := root / kind / "processed").is_dir():
            raise ValueError(f"{old} is of an old torchvision and would be read first; delete it")
        train, test = (source(str(root), train=train, download=download) for train in (True, False))
        if not all(_intact(path, md5) for path, md5 in files):
            raise ValueError("a file is not what its name and its head promise")
    except Exception as error:
        # Whatever a missing or truncated file or a failed download raises: torchvision lets the
        # errors of urllib, pickle, gzip, struct and its own assertions through.
        damaged = [str(path) for path, md5 in files if path.is_file() and not _intact(path, md5)]
        missing = [str(path) for path, _ in files if not path.is_file()]
        found = f" Damaged: {', '.join(damaged)}." if damaged else ""
        found += f" Missing: {', '.join(missing)}." if missing else ""
        action = "" if download else "call again with download=True, or "
        reason = (str(error).splitlines() or [""])[0] or "no message"
        raise DataError(
            f"{name} could not be read from {root} ({type(error).__name__}: {reason}).{found} "
            f"To get it, {action}download {', '.join(archives)} and put it into {folder}; "
            "delete a damaged file first."
        ) from error
    tensors, classes = (*_tensors(train), *_tensors(test)), tuple(train.classes)
    statistics = channel_statistics(tensors[0])
    return Dataset(name, *tensors, len(classes), *statistics, classes=classes, **augmentation)


def _tensors(part) -> tuple[Tensor, Tensor]:
    """uint8 [n, c, h, w] and int64 [n] of MNIST's [n, h, w] or CIFAR's [n, h, w, 3]."""
    x = torch.as_tensor(part.data, device="cpu")
    x = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)
    return x.contiguous(), torch.as_tensor(part.targets, device="cpu")


def _expected_files(source: type, root: Path) -> tuple[list[tuple[Path, str]], list[str], Path]:
    """The files that torchvision reads with their MD5 sums, what to download, and where to."""
    if source.__name__ in RAW_MD5:  # four gzipped files, read unpacked
        folder = root / source.__name__ / "raw"
        archives = [source.mirrors[0] + file for file, _ in source.resources]
        listed, place = RAW_MD5[source.__name__].items(), folder
    else:  # CIFAR: an archive with a folder of pickles
        folder = root / source.base_folder
        meta = (source.meta["filename"], source.meta["md5"])
        archives, listed, place = [source.url], [*source.train_list, *source.test_list, meta], root
    return [(folder / file, md5) for file, md5 in listed], archives, place


def _intact(path: Path, md5: str) -> bool:
    """Whether a file is the published one; of MNIST's format, also a whole one of other length."""
    same = import_torchvision("torchvision.datasets.utils").check_integrity(path, md5)
    if same or not path.is_file() or not path.name.endswith("-ubyte"):
        return same
    content = path.read_bytes()
    # MNIST's format: magic number, number of images, their height and width; then the bytes.
    n = int.from_bytes(content[4:8], "big")
    magic, shape = (0x803, (28, 28)) if "-images-" in path.name else (0x801, ())
    head = struct.pack(f">{2 + len(shape)}I", magic, n, *shape)
    whole = content.startswith(head) and len(content) == len(head) + n * math.prod(shape)
    return whole and n != (60_000 if path.name.startswith("train") else 10_000)


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """Imports torchvision, also where its compiled operators do not fit this torch.

    The torchvision of PyPI is built for CUDA. Beside a torch without CUDA its operator library
    does not load, and the import fails where it registers fake versions of two of them. Their
    schemas are declared here first, in that case only; data sets, transforms and models then work.

    Args:
        module: "torchvision" or a module inside it, which is returned.

    Raises:
        ValueError: (`DataError`) torchvision is not installed.

    >>> import_torchvision("torchvision.datasets").CIFAR10.__name__
    'CIFAR10'
    """
    try:
        importlib.import_module("torchvision")
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise DataError(
            "torchvision is not installed, and this data set is read through it. Install it with "
            "`pip install torchvision`, or use `digits()`, which needs no download."
        ) from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the halves that the failed import left behind
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
    return importlib.import_module(module)
