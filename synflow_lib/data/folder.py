"""A folder of images, `train/<class>/*.jpg` and `test/<class>/*.jpg`, as a `Dataset`.

Decoding takes a while (10,000 small JPEG images take seconds), so the decoded tensors are kept in
one safetensors file, with a fingerprint of the folder: the relative path, size and time of change
of every image. The cache is used only as long as the fingerprint fits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synflow_lib import env
from synflow_lib.data.dataset import DataError, Dataset
from synflow_lib.data.tensors import channel_statistics

__all__ = ["image_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")
# Part of the fingerprint: raise it when decoding changes, so that old caches are not used.
FORMAT = "1"
# Bytes of an image. Pillow decodes without the interpreter's lock, so threads help with large
# images; with CIFAR's (1 kB) taking the lock and giving it back costs a third of the speed.
SMALL = 16_000


def image_folder(
    path: str | Path,
    size: int | None = None,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
    cache: str | Path | bool = True,
    padding: int = 4,
    flip: bool = True,
) -> Dataset:
    """Reads a tree of images: `train/<class>/<image>` and `test/<class>/<image>`.

    The classes are the sorted names of the folders in `train`; `test` has some or all of them.
    Images may be JPEG, PNG, BMP, PPM or WebP; hidden files are skipped. All are held in memory.

    Args:
        path: the folder that holds `train` and `test`.
        size: height and width to which images are resized (bilinear); None requires that all have
            the same size.
        channels: 3 (RGB) or 1 (grey).
        mean, std: of each channel, in units of [0, 1]; None computes them on the training images.
        name: of the data set; None is the name of the folder.
        cache: True keeps the decoded images beside the folder, or in `env.data_dir()` where that
            cannot be written; a path keeps them in that file; False does without.
        padding, flip: augmentation, see `Dataset.augment`.

    Raises:
        ValueError: (`DataError`) no such folder, no images, a test class without training images,
            a file that is no readable image, or images of different sizes while `size` is None.

    Example:
        photos = image_folder("photos", size=32)      # decodes, writes .photos-….safetensors
        photos = image_folder("photos", size=32)      # reads that file
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 3 (RGB) or 1 (grey).")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"size is {size!r}; expected None or an integer of at least 1.")
    path = Path(path).expanduser().absolute()
    files = {split: _listing(path / split) for split in ("train", "test")}
    classes = sorted({file.label for file in files["train"]})
    unknown = sorted({file.label for file in files["test"]} - set(classes))
    if unknown:
        raise DataError(
            f"{path / 'test'} has classes without training images: {', '.join(unknown)}. "
            f"Expected folders named as in {path / 'train'}."
        )
    fingerprint = _fingerprint(path, files, size, channels)
    place = _cache_file(path, size, channels) if cache is True else cache and Path(cache)
    tensors = _read_cache(place, fingerprint) if place else None
    if tensors is None:
        tensors = {}
        for split, listed in files.items():
            tensors[f"{split}_x"] = _decode(listed, size, channels)
            labels = [classes.index(file.label) for file in listed]
            tensors[f"{split}_y"] = torch.tensor(labels, dtype=torch.int64)
        if place:
            _write_cache(place, fingerprint, tensors)
    found_mean, found_std = channel_statistics(tensors["train_x"])
    return Dataset(
        name=path.name if name is None else name,
        **tensors,
        num_classes=len(classes),
        mean=tuple(found_mean if mean is None else mean),
        std=tuple(found_std if std is None else std),
        classes=tuple(classes),
        padding=padding,
        flip=flip,
    )


@dataclass(frozen=True)
class _File:
    path: str
    label: str
    bytes: int
    changed: int


def _listing(folder: Path) -> list[_File]:
    """All images below `folder`, ordered by class and name."""
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}. Expected {folder.parent}/train/<class>/<image> and "
            f"{folder.parent}/test/<class>/<image>: unpack the data set there or correct the path."
        )
    files = []
    for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        if label.startswith("."):
            continue
        for entry in sorted(os.scandir(folder / label), key=lambda entry: entry.name):
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                status = entry.stat()
                files.append(_File(entry.path, label, status.st_size, status.st_mtime_ns))
    if not files:
        raise DataError(
            f"{folder} holds no images. Expected <class>/<image> with one of the endings "
            f"{', '.join(SUFFIXES)}."
        )
    return files


def _decode(files: list[_File], size: int | None, channels: int) -> Tensor:
    """uint8 [n, channels, h, w] of all files, in their order."""
    first = _image(files[0], size, channels)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)

    def fill(index: int) -> None:
        image = _image(files[index], size, channels)
        if image.shape != first.shape:
            (_, height, width), (_, h, w) = first.shape, image.shape
            raise DataError(
                f"{files[index].path} is {h}x{w} (height x width) and {files[0].path} "
                f"{height}x{width}. Pass size= to resize all images to one size."
            )
        images[index] = image

    if sum(file.bytes for file in files) / len(files) < SMALL:
        for index in range(len(files)):
            fill(index)
    else:
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(fill, range(len(files))):
                pass  # going through the results raises what a thread raised
    return torch.from_numpy(images)


def _image(file: _File, size: int | None, channels: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file.path) as image:
            image = image.convert("RGB" if channels == 3 else "L")
            if size is not None and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on damaged files
        raise DataError(
            f"{file.path} is not a readable image ({error}). Copy it again or delete it."
        ) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _fingerprint(path: Path, files: dict[str, list[_File]], size: int | None, channels: int) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, size, channels]).encode())
    for listed in files.values():
        for file in listed:
            place = Path(os.path.relpath(file.path, path)).as_posix()
            digest.update(f"\n{place}\t{file.bytes}\t{file.changed}".encode())
    return digest.hexdigest()


def _cache_file(path: Path, size: int | None, channels: int) -> Path:
    name = f".{path.name}-{size or 'full'}-{channels}.safetensors"
    if os.access(path.parent, os.W_OK):
        return path.parent / name
    # Elsewhere, folders of one name must not take turns in one file.
    return env.data_dir() / f"{hashlib.sha256(str(path).encode()).hexdigest()[:12]}{name}"


def _read_cache(place: Path, fingerprint: str) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError, safe_open

    if not place.is_file():
        return None
    try:
        with safe_open(place, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        warnings.warn(f"{place} is damaged ({error}): decoding the images again.", stacklevel=3)
        return None


def _write_cache(place: Path, fingerprint: str, tensors: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # A file of its own until complete: an interrupted run or a second process leaves no half cache.
    draft = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, draft, metadata={"fingerprint": fingerprint})
        os.replace(draft, place)
    except (SafetensorError, OSError) as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        warnings.warn(
            f"the decoded images cannot be kept in {place} ({error}): the next call decodes again. "
            "Pass cache= a file that can be written, or cache=False.",
            stacklevel=3,
        )
