"""A folder of images, `train/<class>/*.jpg` and `test/<class>/*.jpg`, as a `Dataset`.

Decoding takes a while, so the decoded tensors are kept in one safetensors file, with a fingerprint
of the folder: names and contents of all images, since times and sizes do not tell for certain.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import env
from ..files import replacing
from ..values import whole
from .dataset import DataError, Dataset
from .pictures import picture_suffixes, read_picture, readable_name
from .tensors import channel_statistics

# Lists and notes that lie beside images: left out without a word.
NOTES = (".csv", ".db", ".html", ".ini", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml")
FORMAT = "2"  # part of the fingerprint: raise it when decoding changes
NOTE = "fingerprint and checksum"  # one note: safetensors writes several in any order
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
    Images may have any format that Pillow opens, by their suffix (`.jpg`, `.PNG`, `.tiff`, `.webp`,
    ...). They are read as a viewer shows them: turned as EXIF says, transparent parts on white, 16
    bits scaled to 8, CMYK and palettes as RGB, of an animation the first picture. All are held in
    memory. Hidden files and notes (`.txt`, `.json`, ...) are skipped; whatever else is left out is
    counted in a warning.

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
        ValueError: (`DataError`) no such folder, a class without images, a test class without
            training images, a file that is no readable image, a link to nothing, or images of
            different sizes while `size` is None.

    Example:
        photos = image_folder("photos", size=32)      # decodes, writes .photos-….safetensors
        photos = image_folder("photos", size=32)      # reads that file
    """
    if (channels := whole(channels, "channels")) not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 3 (RGB) or 1 (grey).")
    size = None if size is None else whole(size, "size", 1)
    path = Path(path).expanduser().absolute()
    (train, skipped), (test, skipped_too) = _listing(path / "train"), _listing(path / "test")
    classes = sorted({file.parent.name for file in train})
    if unknown := sorted({file.parent.name for file in test} - set(classes)):
        raise DataError(
            f"{readable_name(path / 'test')} has classes without training images: "
            f"{', '.join(map(readable_name, unknown))}. "
            f"Expected folders named as in {readable_name(path / 'train')}."
        )
    if skipped := skipped + skipped_too:
        warnings.warn(
            f"{readable_name(path)}: left out {_counted(skipped)}, as no images of "
            "train/<class> or test/<class> by their place and suffix. Convert, move or delete "
            "them.",
            stacklevel=2,
        )
    fingerprint = _fingerprint([*train, *test], size, channels)
    place = _cache_file(path, size, channels) if cache is True else cache and Path(cache)
    tensors = read_tensors(place, fingerprint) if place else None
    if tensors is None:
        tensors = {}
        for split, files in (("train", train), ("test", test)):
            labels = [classes.index(file.parent.name) for file in files]
            tensors[f"{split}_x"] = _decode(files, size, channels)
            tensors[f"{split}_y"] = torch.tensor(labels, dtype=torch.int64, device="cpu")
        if place:
            write_tensors(place, fingerprint, tensors)
    found_mean, found_std = channel_statistics(tensors["train_x"])
    return Dataset(
        name=readable_name(path.name) if name is None else name,
        **tensors,
        num_classes=len(classes),
        mean=found_mean if mean is None else mean,
        std=found_std if std is None else std,
        classes=tuple(map(readable_name, classes)),
        padding=padding,
        flip=flip,
    )


def _listing(folder: Path) -> tuple[list[Path], Counter]:
    """All images below `folder`, ordered by class and name; and what was left out, by kind."""
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {readable_name(folder)}. Expected <path>/train/<class>/<image> "
            "and <path>/test/<class>/<image>: unpack the data set there or correct the path."
        )
    images, skipped = [], Counter()
    for entry, kind in _entries(folder):
        if kind != "folder":
            skipped[kind] += 1
            continue
        inside = _entries(entry)
        found = [file for file, kind in inside if kind in picture_suffixes()]
        others = Counter(kind for _, kind in inside if kind not in picture_suffixes())
        # An empty folder in `test` is harmless; in `train` it would shift the labels of others.
        if not found and (others or folder.name == "train"):
            raise _no_images(entry, others)
        images += found
        skipped += others
    if not images:
        raise _no_images(folder, skipped)
    return images, Counter({kind: n for kind, n in skipped.items() if kind not in NOTES})


def _entries(folder: Path) -> list[tuple[Path, str]]:
    """What lies in `folder`, by name, but nothing hidden; each with its kind.

    The kind of a file is its suffix, in lower case; that of other things is what they are.
    """
    found = []
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            if path.name.startswith("."):
                continue
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):
                found.append((path, path.suffix.lower() or "without a suffix"))
            else:
                found.append((path, "folder" if stat.S_ISDIR(mode) else "no file"))
    except OSError as error:
        place = error.filename or folder
        what = "is a link to nothing" if os.path.islink(place) else "cannot be read"
        raise _unreadable(place, what, error) from error
    return found


def _unreadable(place: str | Path, what: str, error: OSError) -> DataError:
    return DataError(
        f"{readable_name(place)} {what} ({error.strerror}). Repair it, or delete it from the data "
        "set."
    )


def _counted(kinds: Counter) -> str:
    return ", ".join(f"{n} x {readable_name(kind)}" for kind, n in sorted(kinds.items()))


def _no_images(folder: Path, skipped: Counter) -> DataError:
    found = f" (left out: {_counted(skipped)})" if skipped else ""
    return DataError(
        f"{readable_name(folder)} holds no images{found}. Expected <class>/<image> with a suffix "
        "that Pillow opens: .jpg, .jpeg, .png, .gif, .tiff, .webp, .bmp, ..."
    )


def _for_each(function: Callable[[Path], object], files: Sequence[Path]) -> list:
    """`function` of every file; in threads where the files are large."""
    if sum(file.stat().st_size for file in files) / len(files) < SMALL:
        return list(map(function, files))
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, files))


def _decode(files: list[Path], size: int | None, channels: int) -> Tensor:
    """uint8 [n, channels, h, w] of all files, in their order."""
    first = read_picture(files[0], size, channels)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    place = {file: index for index, file in enumerate(files)}

    def fill(file: Path) -> None:
        image = read_picture(file, size, channels)
        if image.shape != first.shape:
            (_, height, width), (_, h, w) = first.shape, image.shape
            raise DataError(
                f"{readable_name(file)} is {h}x{w} (height x width) and "
                f"{readable_name(files[0])} {height}x{width}. "
                "Pass size= to resize all images to one size."
            )
        images[place[file]] = image

    _for_each(fill, files)
    return torch.from_numpy(images)


def _fingerprint(files: list[Path], size: int | None, channels: int) -> str:
    """Of all that the decoded tensors depend on, Pillow and whether it is lenient included."""
    import PIL
    from PIL import ImageFile

    def content(path: Path) -> str:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise _unreadable(path, "cannot be read", error) from error
        return json.dumps([*path.parts[-3:], digest])

    how = [FORMAT, PIL.__version__, ImageFile.LOAD_TRUNCATED_IMAGES, size, channels]
    facts = [json.dumps(how), *_for_each(content, files)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _cache_file(path: Path, size: int | None, channels: int) -> Path:
    name = f".{path.name}-{size or 'full'}-{channels}.safetensors"
    if os.access(path.parent, os.W_OK):
        return path.parent / name
    # Elsewhere, folders of one name must not take turns in one file.
    return env.data_dir() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}{name}"


def read_tensors(place: Path, fingerprint: str) -> dict[str, Tensor] | None:
    """The tensors that `write_tensors` kept, if they were made of what has this fingerprint.

    None where there are none, those of something else, or, with a warning, damaged ones.
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
