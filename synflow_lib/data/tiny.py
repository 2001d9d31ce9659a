"""Tiny ImageNet: the archive fetched, checked and unpacked into one folder a class."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

from synflow_lib import env
from synflow_lib.data.dataset import DataError, Dataset
from synflow_lib.data.folder import image_folder
from synflow_lib.files import replacing

__all__ = ["tiny_imagenet"]

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ARCHIVE = "tiny-imagenet-200.zip"
FOLDER = "tiny-imagenet-200-by-class"
COUNTS = "counts.txt"  # in the folder: images unpacked for training and testing

TRAIN = re.compile(r"tiny-imagenet-200/train/(n\d+)/images/(\w+\.JPEG)", re.ASCII)
VAL = re.compile(r"tiny-imagenet-200/val/images/(\w+\.JPEG)", re.ASCII)
# What damage inside an archive raises (encryption and unknown compression included).
UNREADABLE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError)
LABELS = "tiny-imagenet-200/val/val_annotations.txt"


def tiny_imagenet(root: str | Path | None = None, download: bool = True) -> Dataset:
    """Tiny ImageNet (Stanford CS231n): 100,000 + 10,000 photographs, 3x64x64, 200 classes.

    The test set is the validation set of the archive (its own test set has no labels), with its
    images moved into one folder a class. The archive (237 MB) is compared with its MD5 sum, and
    unpacked once; the decoded images are kept beside it (see `image_folder`).

    Args:
        root: folder for the archive and what is made of it; None is `env.data_dir()`.
        download: fetches the archive if it is missing or damaged; False reads what is there.

    Raises:
        ValueError: (`DataError`) the archive is missing or damaged, or cannot be downloaded; says
            where it was expected and how to get it.
    """
    root = env.data_dir() if root is None else Path(root).expanduser()
    folder = root / FOLDER
    if not folder.is_dir():
        archive = root / ARCHIVE
        _fetch(archive, download)
        _unpack(archive, folder)
    dataset = image_folder(folder, size=64, name="tiny_imagenet")
    found = f"{len(dataset.train_y)} {len(dataset.test_y)}"
    if (folder / COUNTS).is_file() and found != (folder / COUNTS).read_text():
        raise DataError(
            f"{folder} holds {found} images for training and testing; expected "
            f"{(folder / COUNTS).read_text()}, as many as were unpacked. Delete the folder and "
            "call again."
        )
    return dataset


def _fetch(archive: Path, download: bool) -> None:
    """Leaves the intact archive at `archive`, or raises."""
    advice = f"Download {URL} (MD5 {MD5}) and put it at {archive}"
    if archive.is_file():
        if _md5(archive) == MD5:
            return
        state = f"{archive} is damaged: its MD5 sum is {_md5(archive)}."
    else:
        state = f"{archive} is missing."
    if not download:
        raise DataError(f"{state} {advice}, or call again with download=True.")
    try:
        with replacing(archive) as part:
            with urllib.request.urlopen(URL, timeout=60) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, length=1 << 20)
            found = _md5(part)
            if found != MD5:
                raise DataError(
                    f"{state} The download from {URL} is damaged too (MD5 {found}). Try again "
                    f"later, or get it elsewhere: {advice}."
                )
    except (OSError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
        raise DataError(f"{state} The download failed ({error}). {advice}.") from error


def _unpack(archive: Path, folder: Path) -> None:
    """Writes `train/<class>/<image>` and `test/<class>/<image>` of the archive below `folder`."""
    # Renamed into place when complete, so that an interrupted run starts over.
    with tempfile.TemporaryDirectory(dir=archive.parent) as draft:
        tree = Path(draft) / "tree"
        try:
            with zipfile.ZipFile(archive) as source:
                places = _places(source)
                for member, place in places.items():
                    target = tree / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(source.read(member))
                n_train = sum(place.startswith("train/") for place in places.values())
                (tree / COUNTS).write_text(f"{n_train} {len(places) - n_train}")
        except UNREADABLE as error:
            raise DataError(
                f"{archive} cannot be unpacked ({error}). Expected Tiny ImageNet's archive with "
                f"train/<class>/images/*.JPEG and {LABELS}; delete it and download {URL} again."
            ) from error
        try:
            os.replace(tree, folder)
        except OSError:
            if not folder.is_dir():  # another process has unpacked the same archive meanwhile
                raise


def _places(archive: zipfile.ZipFile) -> dict[str, str]:
    """Where each image of the archive goes: `train/<class>/<image>` or `test/<class>/<image>`.

    Names are taken from those of the known form and from classes that exist, so none of them can
    lead out of the folder.

    Raises:
        ValueError: labels and images of the validation set do not fit each other.
    """
    members = archive.namelist()
    train = {m: match for m in members if (match := TRAIN.fullmatch(m))}
    val = {m: match[1] for m in members if (match := VAL.fullmatch(m))}
    classes = {match[1] for match in train.values()}
    label_of: dict[str, str] = {}
    for number, line in enumerate(archive.read(LABELS).decode().splitlines(), start=1):
        image, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in classes or label_of.setdefault(image, label) != label:
            raise ValueError(
                f"line {number} of {LABELS} gives {image!r} the class {label!r}; expected one "
                "class an image, one of those in train"
            )
    if not train or set(label_of) != set(val.values()):
        odd = sorted(set(label_of) ^ set(val.values()))[:3]
        raise ValueError(
            f"{len(train)} training images, {len(val)} validation images and {len(label_of)} "
            f"labels do not fit each other{': ' * bool(odd)}{', '.join(map(repr, odd))}"
        )
    return {m: f"train/{match[1]}/{match[2]}" for m, match in train.items()} | {
        m: f"test/{label_of[image]}/{image}" for m, image in val.items()
    }


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
