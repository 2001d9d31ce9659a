"""Tiny ImageNet: the archive fetched, checked and unpacked into one folder a class."""

from __future__ import annotations

import hashlib
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

__all__ = ["tiny_imagenet"]

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ARCHIVE = "tiny-imagenet-200.zip"
FOLDER = "tiny-imagenet-200-by-class"

TRAIN = re.compile(r"tiny-imagenet-200/train/(n\d+)/images/(\w+\.JPEG)")
VAL = re.compile(r"tiny-imagenet-200/val/images/(\w+\.JPEG)")
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
    return image_folder(folder, size=64, name="tiny_imagenet")


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
    draft = archive.with_name(f"{archive.name}.{os.getpid()}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(URL, timeout=60) as source, draft.open("wb") as target:
            shutil.copyfileobj(source, target, length=1 << 20)
        found = _md5(draft)
        if found != MD5:
            raise DataError(
                f"{state} The download from {URL} is damaged too (MD5 {found}). Try again later, "
                f"or get it elsewhere: {advice}."
            )
        os.replace(draft, archive)
    except OSError as error:  # urllib's errors are OSErrors
        raise DataError(f"{state} The download failed ({error}). {advice}.") from error
    finally:
        draft.unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path) -> None:
    """Writes `train/<class>/<image>` and `test/<class>/<image>` of the archive below `folder`."""
    # Renamed into place when complete, so that an interrupted run starts over.
    with tempfile.TemporaryDirectory(dir=archive.parent) as draft:
        tree = Path(draft) / "tree"
        try:
            with zipfile.ZipFile(archive) as source:
                lines = source.read(LABELS).decode().splitlines()
                label_of = dict(line.split("\t")[:2] for line in lines if line)
                for member in source.namelist():
                    # Only names of the known form are written, so none can leave the folder.
                    if match := TRAIN.fullmatch(member):
                        target = tree / "train" / match[1] / match[2]
                    elif match := VAL.fullmatch(member):
                        target = tree / "test" / label_of[match[1]] / match[1]
                    else:
                        continue
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(source.read(member))
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
            raise DataError(
                f"{archive} cannot be unpacked ({error}). Expected Tiny ImageNet's archive with "
                f"train/<class>/images/*.JPEG and {LABELS}; delete it and download {URL} again."
            ) from error
        if not tree.is_dir():
            raise DataError(f"{archive} holds no image of Tiny ImageNet. Download {URL} again.")
        os.replace(tree, folder)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
