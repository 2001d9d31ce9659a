"""Tiny ImageNet: the archive fetched, checked and unpacked into one folder a class."""

from __future__ import annotations

import http.client
import os
import re
import tempfile
import zipfile
import zlib
from pathlib import Path

import torch

from .. import env
from .dataset import DataError, Dataset
from .folder import image_folder
from .sources import import_torchvision

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
    found, counts = f"{len(dataset.train_y)} {len(dataset.test_y)}", folder / COUNTS
    if counts.is_file() and found != counts.read_text():
        raise DataError(
            f"{folder} holds {found} images for training and testing; expected "
            f"{counts.read_text()}, as many as were unpacked. Delete the folder and call again."
        )
    return dataset


def _fetch(archive: Path, download: bool) -> None:
    """Leaves the intact archive at `archive`, or raises."""
    check_integrity = import_torchvision("torchvision.datasets.utils").check_integrity
    if check_integrity(archive, MD5):
        return
    state = f"{archive} is {'damaged' if archive.is_file() else 'missing'}."
    advice = f"Download {URL} (MD5 {MD5}) and put it at {archive}"
    if not download:
        raise DataError(f"{state} {advice}, or call again with download=True.")
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(URL, str(archive))  # whole or not at all
    except (OSError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
        raise DataError(f"{state} The download failed ({error}). {advice}.") from error
    if not check_integrity(archive, MD5):
        archive.unlink()
        raise DataError(
            f"{state} The download from {URL} is damaged too. Try again later, or get it "
            f"elsewhere: {advice}."
        )


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

    Names are of the known form and of classes that exist: none can lead out of the folder.
    """
    members = archive.namelist()
    train = {member: match for member in members if (match := TRAIN.fullmatch(member))}
    val = {member: match[1] for member in members if (match := VAL.fullmatch(member))}
    classes = {match[1] for match in train.values()}
    # A line is: name of the image, class, a box in four numbers; tabs between them.
    lines = archive.read(LABELS).decode().splitlines()
    labels = [(line + "\t").split("\t")[:2] for line in lines]
    label_of = dict(labels)
    if not train or sorted(image for image, _ in labels) != sorted(val.values()):
        raise ValueError(
            f"{len(train)} training images, {len(val)} validation images and {len(labels)} labels "
            "do not fit each other"
        )
    if unknown := sorted({*label_of.values()} - classes):
        raise ValueError(f"{LABELS} names the class {unknown[0]!r}, of which train has no images")
    places = {member: f"train/{match[1]}/{match[2]}" for member, match in train.items()}
    return places | {member: f"test/{label_of[image]}/{image}" for member, image in val.items()}
