"""Data sets read from files: torchvision's formats, image folders, Tiny ImageNet's archive."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from anything import ANYTHING, moderate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import synflow_lib.data as package
from synflow_lib import data
from synflow_lib.data import folder as folder_module
from synflow_lib.data import parquet, sources, tiny
from synflow_lib.data.folder import read_tensors, write_tensors
from synflow_lib.data.pictures import read_picture

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# -- torchvision's formats ------------------------------------------------------------------------


def write_cifar(monkeypatch, root, name):
    """Four images a file in CIFAR's format; torchvision's list of sums is made to fit."""
    source = getattr(data.import_torchvision("torchvision.datasets"), name.upper())
    base = root / source.base_folder
    base.mkdir(parents=True)
    labels = "labels" if name == "cifar10" else "fine_labels"
    written = {}

    def write(file, content):
        (base / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((base / file).read_bytes()).hexdigest()]

    for split in ("train_list", "test_list"):
        listed = []
        for file, _ in getattr(source, split):
            written[file] = pixels(4, 3072)
            listed.append(write(file, {"data": written[file], labels: [0, 1, 2, 3]}))
        monkeypatch.setattr(source, split, listed)
    names = [f"class {i}" for i in range(10 if name == "cifar10" else 100)]
    file, md5 = write(source.meta["filename"], {source.meta["key"]: names})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})
    return source, base, written


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(monkeypatch, tmp_path, name):
    source, _, written = write_cifar(monkeypatch, tmp_path, name)
    dataset = getattr(data, name)(tmp_path, download=False)
    assert dataset.name == name
    assert dataset.num_classes == len(dataset.classes) == (10 if name == "cifar10" else 100)
    expected = np.concatenate([written[file] for file, _ in source.train_list])
    assert np.array_equal(dataset.train_x.flatten(1).numpy(), expected)
    assert dataset.train_y.tolist() == [0, 1, 2, 3] * len(source.train_list)
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.train_x.is_contiguous()
    assert (dataset.padding, dataset.flip) == (4, True)


def test_root_defaults_to_the_data_folder(monkeypatch, tmp_path):
    write_cifar(monkeypatch, tmp_path, "cifar10")
    monkeypatch.setenv("SYNFLOW_DATA", str(tmp_path))
    assert len(data.by_name("cifar10").train_y) == 20


def test_damaged_cifar_names_the_file_and_the_remedy(monkeypatch, tmp_path):
    source, base, _ = write_cifar(monkeypatch, tmp_path, "cifar10")
    file = base / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(data.DataError) as caught:
        data.cifar10(tmp_path, download=False)
    message = str(caught.value)
    assert f"Damaged: {file}." in message
    assert "Missing" not in message
    assert "download=True" in message
    assert source.url in message


def test_missing_cifar_and_a_failing_download(monkeypatch, tmp_path):
    source, base, _ = write_cifar(monkeypatch, tmp_path, "cifar100")
    (base / "test").unlink()
    with pytest.raises(ValueError, match=f"Missing: {base / 'test'}.*download=True"):
        data.cifar100(tmp_path, download=False)
    monkeypatch.setattr(source, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(ValueError, match=r"absent\.tar\.gz and put it into") as caught:
        data.cifar100(tmp_path)
    assert "download=True" not in str(caught.value)


# -- CIFAR as parquet ----------------------------------------------------------------------------


def write_parquet(monkeypatch, root, name, each=2):
    """Some random images of each class as the `datasets` library writes them; sums made to fit."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
    import pyarrow.parquet as pq

    classes, label, written = int(name[5:]), parquet.LABELS[name], {}
    names = [f"class {i}" for i in range(classes)]
    notes = json.dumps({"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}})
    for split, file in parquet.files(name, root).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        x, y = pixels(classes * each, 3, 32, 32), [i % classes for i in range(classes * each)]
        encoded = []
        for image in x.transpose(0, 2, 3, 1):
            Image.fromarray(image).save(stream := io.BytesIO(), "PNG")
            encoded.append({"bytes": stream.getvalue(), "path": None})
        columns = {"img": encoded, label: y}
        columns |= {"coarse_label": y} if name == "cifar100" else {}
        table = pyarrow.table(columns)
        pq.write_table(table.replace_schema_metadata({"huggingface": notes}), file)
        written[split] = file, x, y
        sums = tuple(int(channel) for channel in x.sum((0, 2, 3), dtype=np.int64))
        monkeypatch.setitem(parquet.SUMS, (name, split), (each, sums))
    return written


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_parquet(monkeypatch, tmp_path, name):
    written = write_parquet(monkeypatch, tmp_path, name)
    dataset = getattr(data, name)(tmp_path, download=False)
    assert np.array_equal(dataset.train_x.numpy(), written["train"][1])
    assert np.array_equal(dataset.test_x.numpy(), written["test"][1])
    assert dataset.test_y.tolist() == written["test"][2]
    assert dataset.classes[3] == "class 3" and len(dataset.classes) == dataset.num_classes
    assert (dataset.name, dataset.padding, dataset.flip) == (name, 4, True)
    # Where torchvision's files are, these are read.
    _, _, pickled = write_cifar(monkeypatch, tmp_path, name)
    first = getattr(data, name)(tmp_path, download=False).train_x[:4].flatten(1)
    assert np.array_equal(first.numpy(), next(iter(pickled.values())))


def test_parquet_is_fetched_where_nothing_is(monkeypatch, tmp_path):
    written = write_parquet(monkeypatch, tmp_path / "host", "cifar10")
    monkeypatch.setattr(parquet, "URL", (tmp_path / "host").as_uri() + "/{name}-parquet/{file}")
    dataset = data.cifar10(tmp_path / "here")
    assert np.array_equal(dataset.train_x.numpy(), written["train"][1])
    assert data.cifar10(tmp_path / "here", download=False).fingerprint == dataset.fingerprint


def test_other_images_are_not_cifar(monkeypatch, tmp_path):
    file, x, _ = write_parquet(monkeypatch, tmp_path, "cifar10")["test"]
    right = parquet.SUMS["cifar10", "test"]
    wrong = (2, (right[1][0] + 1, *right[1][1:]))
    monkeypatch.setitem(parquet.SUMS, ("cifar10", "test"), wrong)
    with pytest.raises(data.DataError, match=rf"{file} does not hold .*sum up to.*Delete it"):
        data.cifar10(tmp_path, download=False)
    monkeypatch.setitem(parquet.SUMS, ("cifar10", "test"), (3, right[1]))
    with pytest.raises(data.DataError, match="classes of 2 to 2 images; expected 3 of each"):
        data.cifar10(tmp_path, download=False)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(data.DataError, match=rf"{file} does not hold the test images of cifar10"):
        data.cifar10(tmp_path, download=False)


def test_both_hosts_are_named_when_neither_answers(monkeypatch, tmp_path):
    source = data.import_torchvision("torchvision.datasets").CIFAR10
    monkeypatch.setattr(parquet, "readable", lambda: True)
    monkeypatch.setattr(parquet, "URL", (tmp_path / "absent").as_uri() + "/{file}")
    monkeypatch.setattr(source, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(data.DataError) as caught:
        data.cifar10(tmp_path)
    assert "absent/train-00000-of-00001.parquet cannot be downloaded" in str(caught.value)
    assert "absent.tar.gz and put it into" in str(caught.value)


def test_parquet_without_pyarrow(monkeypatch, tmp_path):
    for file in parquet.files("cifar10", tmp_path).values():
        file.parent.mkdir(exist_ok=True)
        file.touch()
    monkeypatch.setattr(parquet, "readable", lambda: False)
    with pytest.raises(data.DataError, match="pip install pyarrow"):
        data.cifar10(tmp_path, download=False)


def test_the_sums_are_those_of_the_published_means():
    sums = [total for (name, split), (_, total) in parquet.SUMS.items() if split == "train"]
    means = [[channel / (50_000 * 1024 * 255) for channel in total] for total in sums]
    assert np.allclose(means[0], [0.49139968, 0.48215841, 0.44653091], rtol=0, atol=5e-9)
    assert np.allclose(means[1], [0.50707516, 0.48654887, 0.44091784], rtol=0, atol=5e-9)


# -- MNIST ----------------------------------------------------------------------------------------


def write_mnist(root, name, n=6):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    written = {}
    for split in ("train", "t10k"):
        written[split] = pixels(n, 28, 28)
        head = struct.pack(">iiii", 0x803, n, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + written[split].tobytes())
        labels = bytes(range(n))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, n) + labels)
    return raw, written


@pytest.mark.parametrize(
    ("name", "kind", "flip"), [("mnist", "MNIST", False), ("fashion_mnist", "FashionMNIST", True)]
)
def test_mnist(tmp_path, name, kind, flip):
    raw, written = write_mnist(tmp_path, kind)
    dataset = getattr(data, name)(tmp_path, download=False)
    assert dataset.input_shape == (1, 28, 28)
    assert np.array_equal(dataset.train_x[:, 0].numpy(), written["train"])
    assert np.array_equal(dataset.test_x[:, 0].numpy(), written["t10k"])
    assert dataset.test_y.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.num_classes == 10
    assert dataset.flip is flip
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(data.DataError, match=f"{name} could not be read from {tmp_path}"):
        getattr(data, name)(tmp_path, download=False)
    file.unlink()
    with pytest.raises(data.DataError, match=f"Missing: {file}.*train-images-idx3-ubyte.gz"):
        getattr(data, name)(tmp_path, download=False)


# -- importing torchvision ------------------------------------------------------------------------


def run_with_fake_torchvision(tmp_path, source):
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text(source)
    root = Path(package.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    code = (
        "from synflow_lib.data import import_torchvision as f\n"
        "first = f(); print(first.answer, f() is first)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )


def test_import_where_the_operators_are_missing(tmp_path):
    """A package that fails as torchvision's does beside a torch it was not built for."""
    source = (
        "import torch\n"
        "@torch.library.register_fake('torchvision::nms')\n"
        "def fake(dets, scores, iou_threshold): ...\n"
        "answer = 42\n"
    )
    done = run_with_fake_torchvision(tmp_path, source)
    assert done.stdout == "42 True\n", done.stderr


def test_other_import_errors_are_not_hidden(tmp_path):
    done = run_with_fake_torchvision(tmp_path, "raise RuntimeError('something else')")
    assert done.returncode != 0
    assert "RuntimeError: something else" in done.stderr


def test_without_torchvision(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(data.DataError, match="pip install torchvision"):
        data.cifar10(download=False)


# -- folders of images ----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Two classes, 3 + 2 images each of 8x10 pixels; lossless, so pixels can be compared."""
    root = tmp_path / "photos"
    for split, n in (("train", 3), ("test", 2)):
        for label in ("cat", "ant"):
            (root / split / label).mkdir(parents=True)
            for index in range(n):
                Image.fromarray(pixels(8, 10, 3)).save(root / split / label / f"{index}.png")
    (root / "train" / "cat" / ".hidden.png").touch()
    (root / "train" / "cat" / "notes.txt").touch()
    return root


def test_image_folder(tree):
    dataset = data.image_folder(tree, cache=False)
    assert dataset.classes == ("ant", "cat")
    assert dataset.name == "photos"
    assert dataset.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_y.tolist() == [0, 0, 1, 1]
    assert dataset.input_shape == (3, 8, 10)
    with Image.open(tree / "train" / "cat" / "1.png") as image:
        assert np.array_equal(dataset.train_x[4].permute(1, 2, 0).numpy(), np.asarray(image))
    assert [p.name for p in tree.parent.iterdir()] == ["photos"]


def test_image_folder_options(tree):
    dataset = data.image_folder(
        *(tree, 4, 1), mean=[0.5], std=[0.25], name="mine", cache=False, padding=1, flip=False
    )
    assert dataset.input_shape == (1, 4, 4)
    assert (dataset.mean, dataset.std) == ((0.5,), (0.25,))
    assert (dataset.name, dataset.padding, dataset.flip) == ("mine", 1, False)


def test_image_folder_decodes_large_images_in_threads_alike(tree, monkeypatch):
    plain = data.image_folder(tree, cache=False)
    monkeypatch.setattr(folder_module, "SMALL", 0)
    assert torch.equal(data.image_folder(tree, cache=False).train_x, plain.train_x)
    (tree / "test" / "ant" / "1.png").write_bytes(b"no image")
    with pytest.raises(data.DataError, match="1.png is not a readable image"):
        data.image_folder(tree, cache=False)


def same(a, b):
    parts = ("train_x", "train_y", "test_x", "test_y")
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in parts)


def test_cache_is_used_as_long_as_it_fits_the_folder(tree, monkeypatch):
    first = data.image_folder(tree)
    (cache,) = tree.parent.glob(".photos*.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_decode", None)  # reading the cache decodes nothing
        assert same(data.image_folder(tree), first)
    # other arguments have another file
    assert data.image_folder(tree, size=4).input_shape == (3, 4, 4)
    # a changed image, a new one, and one that moved to another class: decoded again
    file = tree / "train" / "ant" / "0.png"
    Image.fromarray(pixels(8, 10, 3)).save(file)
    changed = data.image_folder(tree)
    assert not torch.equal(changed.train_x[0], first.train_x[0])
    Image.fromarray(pixels(8, 10, 3)).save(tree / "test" / "cat" / "9.png")
    assert len(data.image_folder(tree).test_y) == 5
    file.rename(tree / "train" / "cat" / "7.png")
    assert data.image_folder(tree).train_y.tolist() == [0, 0, 1, 1, 1, 1]
    assert same(data.image_folder(tree), data.image_folder(tree, cache=False))
    assert cache.exists()


def test_damaged_cache_is_made_again(tree):
    first = data.image_folder(tree)
    (cache,) = tree.parent.glob(".photos*.safetensors")
    whole = cache.read_bytes()
    for damage in (b"", b"junk", whole[:-40]):
        cache.write_bytes(damage)
        with pytest.warns(UserWarning, match="damaged"):
            again = data.image_folder(tree)
        assert same(again, first)
        assert cache.read_bytes() == whole


def test_cache_in_a_file_of_ones_own(tree, tmp_path):
    first = data.image_folder(tree, cache=tmp_path / "deep" / "own.safetensors")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["own.safetensors"]
    assert not list(tree.parent.glob(".photos*"))
    assert same(data.image_folder(tree, cache=tmp_path / "deep" / "own.safetensors"), first)


def test_cache_beside_a_folder_that_cannot_be_written(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module.os, "access", lambda *_: False)
    monkeypatch.setenv("SYNFLOW_DATA", str(tmp_path / "elsewhere"))
    data.image_folder(tree)
    assert len(list((tmp_path / "elsewhere").glob("*photos*.safetensors"))) == 1
    assert not list(tree.parent.glob(".photos*"))


def test_cache_that_cannot_be_written_warns(tree, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be kept"):
        dataset = data.image_folder(tree, cache=tmp_path / "file" / "own.safetensors")
    assert len(dataset.train_y) == 6


def test_missing_folders_and_images(tree, tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*absent.train"):
        data.image_folder(tmp_path / "absent")
    (tmp_path / "bare" / "train" / "ant").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no images.*.jpg, .jpeg"):
        data.image_folder(tmp_path / "bare")
    (tree / "test" / "bee").mkdir()
    Image.fromarray(pixels(8, 10, 3)).save(tree / "test" / "bee" / "0.png")
    with pytest.raises(ValueError, match="classes without training images: bee"):
        data.image_folder(tree)


def test_damaged_image_and_images_of_two_sizes(tree):
    file = tree / "train" / "cat" / "2.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{file} is not a readable image"):
        data.image_folder(tree)
    Image.fromarray(pixels(9, 10, 3)).save(file)
    with pytest.raises(ValueError, match="2.png is 9x10 .*0.png 8x10. Pass size="):
        data.image_folder(tree)
    assert data.image_folder(tree, size=8).input_shape == (3, 8, 8)
    assert not list(tree.parent.glob(".photos-full*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 0}, "^size=0;"),
        ({"size": 1.5}, "^size=1.5;"),
        ({"channels": 2}, "^channels is 2;"),
    ],
)
def test_bad_folder_arguments(tree, arguments, said):
    with pytest.raises(ValueError, match=said):
        data.image_folder(tree, **arguments)


# -- Tiny ImageNet --------------------------------------------------------------------------------


def jpeg():
    buffer = io.BytesIO()
    Image.fromarray(pixels(64, 64, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A zip of Tiny ImageNet's layout: 2 classes, 3 training and 2 validation images each."""
    file = tmp_path / "server" / "tiny.zip"
    file.parent.mkdir()
    top = "tiny-imagenet-200"
    with zipfile.ZipFile(file, "w") as target:
        lines = []
        for number, label in enumerate(("n02", "n01")):
            target.writestr(f"{top}/train/{label}/{label}_boxes.txt", "")
            for index in range(3):
                target.writestr(f"{top}/train/{label}/images/{label}_{index}.JPEG", jpeg())
            for index in range(2):
                name = f"val_{2 * index + number}.JPEG"
                target.writestr(f"{top}/val/images/{name}", jpeg())
                lines.append(f"{name}\t{label}\t0\t32\t44\t62\n")
        target.writestr(f"{top}/val/val_annotations.txt", "".join(lines))
        target.writestr(f"{top}/test/images/test_0.JPEG", jpeg())
        target.writestr(f"{top}/train/n02/images/../../../../../escaped.JPEG", jpeg())
    monkeypatch.setattr(tiny, "URL", file.as_uri())
    monkeypatch.setattr(tiny, "MD5", hashlib.md5(file.read_bytes()).hexdigest())
    return file


def test_tiny_imagenet(archive, tmp_path, monkeypatch):
    root = tmp_path / "root"
    dataset = data.tiny_imagenet(root)
    assert dataset.classes == ("n01", "n02")
    assert dataset.input_shape == (3, 64, 64)
    assert dataset.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_y.tolist() == [0, 0, 1, 1]
    moved = sorted(p.name for p in (root / tiny.FOLDER / "test" / "n01").iterdir())
    assert moved == ["val_1.JPEG", "val_3.JPEG"]
    assert not list(tmp_path.rglob("*escaped*"))
    # once unpacked, neither the archive nor the server is needed
    archive.unlink()
    (root / tiny.ARCHIVE).unlink()
    assert same(data.tiny_imagenet(root, download=False), dataset)
    monkeypatch.setenv("SYNFLOW_DATA", str(root))
    assert same(data.tiny_imagenet(download=False), dataset)


def test_tiny_imagenet_from_an_archive_put_there_by_hand(archive, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    archive.rename(root / tiny.ARCHIVE)
    assert len(data.tiny_imagenet(root, download=False).train_y) == 6


def test_tiny_imagenet_missing_or_damaged(archive, tmp_path):
    root = tmp_path / "root"
    place = root / tiny.ARCHIVE
    with pytest.raises(data.DataError, match=f"{place} is missing.*{tiny.MD5}.*download=True"):
        data.tiny_imagenet(root, download=False)
    root.mkdir()
    place.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(data.DataError, match=f"{place} is damaged.*put it at {place}"):
        data.tiny_imagenet(root, download=False)
    # with permission the damaged file is replaced
    assert len(data.tiny_imagenet(root).train_y) == 6


def test_tiny_imagenet_failing_downloads_leave_nothing(archive, tmp_path, monkeypatch):
    root = tmp_path / "root"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(data.DataError, match="is damaged too"):
        data.tiny_imagenet(root)
    monkeypatch.setattr(tiny, "URL", archive.with_name("absent").as_uri())
    with pytest.raises(data.DataError, match="The download failed"):
        data.tiny_imagenet(root)
    assert list(root.iterdir()) == []


def test_tiny_imagenet_archive_of_another_layout(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    for content in (b"not a zip", None):
        place = root / tiny.ARCHIVE
        if content is None:
            with zipfile.ZipFile(place, "w") as target:
                target.writestr("readme.txt", "something else")
        else:
            place.write_bytes(content)
        monkeypatch.setattr(tiny, "MD5", hashlib.md5(place.read_bytes()).hexdigest())
        with pytest.raises(data.DataError, match="cannot be unpacked.*delete it and download"):
            data.tiny_imagenet(root)
        assert [p.name for p in root.iterdir()] == [tiny.ARCHIVE]


def test_no_warning_in_the_usual_case(tree):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.image_folder(tree)
        data.image_folder(tree)


# -- what an image file holds ---------------------------------------------------------------------

SHOWN = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = np.array([[0, 257, 128 * 257, 65535, 300, 40_000]] * 4, dtype=np.uint16)


def read(tmp_path, suffix, content, channels=3, **options):
    """What `read_picture` makes of a Pillow image or of bytes, as [height, width, channels]."""
    file = tmp_path / f"picture{suffix}"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content.save(file, **options)
    return read_picture(str(file), None, channels).transpose(1, 2, 0)


def png(width, height, depth, kind, rows, *chunks):
    """A PNG file written by hand, for what Pillow cannot write."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts
    )


def tiff(bits, photometric, width, content):
    """A TIFF file of one row of grey pixels, written by hand."""
    pairs = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 200)]
    pairs += [(277, 1), (278, 1), (279, len(content))]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in pairs)
    head = b"II*\0" + struct.pack("<IH", 8, len(pairs)) + entries + bytes(4)
    return head.ljust(200, b"\0") + content


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        *((suffix, GREY) for suffix in (".png", ".tiff", ".jp2", ".PNG")),
        (".tif", GREY.astype(">u2")),
        (".pgm", GREY.astype(np.int32)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_become_8(tmp_path, suffix, values, channels):
    expected = np.rint(GREY / 257)
    found = read(tmp_path, suffix, Image.fromarray(values), channels)
    assert found.shape == (4, 6, channels)
    assert (found == expected[:, :, None]).all()


def test_bits_that_are_not_8_by_hand(tmp_path):
    wide = struct.pack("<3H", 0, 65535, 257 * 100)
    assert read(tmp_path, ".tif", tiff(16, 1, 3, wide), 1).ravel().tolist() == [0, 255, 100]
    # "white is zero": the same values mean the opposite
    assert read(tmp_path, ".tif", tiff(16, 0, 3, wide), 1).ravel().tolist() == [255, 0, 155]
    twelve = bytes([0xFF, 0xF0, 0x00])  # two pixels in three bytes: 4095 and 0
    assert read(tmp_path, ".tif", tiff(12, 1, 2, twelve), 1).ravel().tolist() == [255, 0]
    color = struct.pack(">6H", 65535, 0, 257 * 100, 0, 65535, 257 * 7)
    found = read(tmp_path, ".png", png(2, 1, 16, 2, [color]))
    assert found.tolist() == [[[255, 0, 100], [0, 255, 7]]]
    # a grey value or a colour of 16 bits is the transparent one
    chunk = (b"tRNS", struct.pack(">H", 300))
    rows = [struct.pack(">3H", 300, 301, 65535)]
    assert read(tmp_path, ".png", png(3, 1, 16, 0, rows, chunk), 1).ravel().tolist() == [
        255,
        1,
        255,
    ]
    chunk = (b"tRNS", struct.pack(">3H", 65535, 0, 25700))
    with pytest.raises(data.DataError, match=r"picture\.png .*save it with 8 bits"):
        read(tmp_path, ".png", png(2, 1, 16, 2, [color], chunk))
    for depth, row in ((4, b"\x5f"), (2, b"\x70")):  # grey of few bits: 1/3 and white
        found = read(tmp_path, ".png", png(2, 1, depth, 0, [row]), 1)
        assert found.ravel().tolist() == [85, 255]
        chunk = (b"tRNS", struct.pack(">H", row[0] >> 8 - depth))
        with pytest.raises(data.DataError, match="save it with 8 bits"):
            read(tmp_path, ".png", png(2, 1, depth, 0, [row], chunk))
    chunk = (b"tRNS", struct.pack(">H", 0))
    found = read(tmp_path, ".png", png(2, 1, 1, 0, [b"\x40"], chunk), 1)  # one bit: black is clear
    assert found.ravel().tolist() == [255, 255]
    assert read(tmp_path, ".png", png(2, 1, 1, 0, [b"\x40"]), 1).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_values_without_a_known_white_are_refused(tmp_path, kind):
    with pytest.raises(data.DataError, match=r"picture\.tiff .*does not say which value is white"):
        read(tmp_path, ".tiff", Image.fromarray(GREY.astype(kind)))


def transparent(kind):
    """An image whose left half is opaque red and whose right half hides green; and options."""
    if kind in ("RGBA", "LA"):
        alpha = np.zeros((4, 6), np.uint8)
        alpha[:, :3] = 255
        color = Image.new("RGB", (6, 4), "green")
        color.paste((255, 0, 0), (0, 0, 3, 4))
        color.putalpha(Image.fromarray(alpha))
        return color.convert(kind), {}
    indices = np.zeros((4, 6), np.uint8)
    indices[:, 3:] = 1
    if kind.startswith("P"):
        image = Image.fromarray(indices).convert("P")
        image.putpalette([255, 0, 0, 0, 128, 0])
        return image, {"transparency": 1 if kind == "P" else bytes([255, 0])}
    if kind == "L":
        return Image.fromarray(indices * 50 + 76), {"transparency": 126}
    image = Image.new("RGB", (6, 4), (255, 0, 0))
    image.paste((0, 128, 0), (3, 0, 6, 4))
    return image, {"transparency": (0, 128, 0)}


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((".png", kind) for kind in ("RGBA", "LA", "P", "P with bytes", "L", "RGB")),
        *((".webp", "RGBA"), (".tiff", "RGBA"), (".gif", "P"), (".gif", "RGBA")),
        *((".ico", "RGBA"), (".tga", "RGBA"), (".jp2", "RGBA"), (".dds", "RGBA")),
    ],
)
def test_transparent_parts_are_white(tmp_path, suffix, kind):
    image, options = transparent(kind)
    if suffix == ".webp":
        options["lossless"] = True
    if suffix == ".ico":
        options["sizes"] = [(6, 4)]
    found = read(tmp_path, suffix, image, **options)
    left = [76, 76, 76] if kind in ("L", "LA") else [255, 0, 0]
    assert found[0].tolist() == [left] * 3 + [[255, 255, 255]] * 3
    assert read(tmp_path, suffix, image, 1, **options)[0].ravel().tolist() == [76] * 3 + [255] * 3


def test_half_transparent_colors_are_mixed_with_white(tmp_path):
    image = Image.new("RGBA", (6, 4), (200, 100, 0, 51))
    assert read(tmp_path, ".png", image)[0, 0].tolist() == [244, 224, 204]


def test_cmyk(tmp_path):
    inks = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    inks[0, 0], inks[0, 1] = (0, 255, 255, 0), (0, 0, 0, 255)
    image = Image.frombytes("CMYK", (6, 4), inks.tobytes())
    light = 255 - inks.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    found = read(tmp_path, ".tiff", image)
    assert np.abs(found - expected).max() <= 1
    assert found[0, :2].tolist() == [[255, 0, 0], [0, 0, 0]]
    luma = found @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(tmp_path, ".tiff", image, 1)[..., 0] - luma).max() <= 1
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(read(tmp_path, ".jpg", red, quality=95)[5, 5] - np.array([255, 0, 0])).max() <= 3


@pytest.mark.parametrize(
    ("suffix", "n"), [(".png", 200), (".gif", 200), (".bmp", 200), (".png", 2)]
)
def test_palettes(tmp_path, suffix, n):
    palette = RNG.integers(0, 256, (n, 3), dtype=np.uint8)
    indices = RNG.integers(0, n, (4, 6), dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(read(tmp_path, suffix, image), palette[indices])


TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".jpg"])
@pytest.mark.parametrize("turn", TURNS)
def test_images_are_turned_as_exif_says(tmp_path, suffix, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if suffix == ".webp" else {}
    kinds = [Image.fromarray(SHOWN)]
    if suffix != ".jpg":
        kinds += [kinds[0].convert("P"), kinds[0].convert("RGBA")]
    if suffix in (".png", ".tiff"):
        kinds += [Image.fromarray(GREY), kinds[0].convert("L")]
    if suffix == ".tiff":  # not every kind of which Pillow turns by itself
        kinds += [kinds[0].convert("CMYK")]
    for image in kinds:
        plain = read(tmp_path, suffix, image, **options)
        found = read(tmp_path, suffix, image, exif=exif, **options)
        assert np.array_equal(found, TURNS[turn](plain))


def test_of_an_animation_the_first_picture(tmp_path):
    frames = [Image.fromarray(SHOWN), Image.new("RGB", (6, 4))]
    for suffix in (".tiff", ".png", ".gif"):
        found = read(tmp_path, suffix, frames[0], save_all=True, append_images=frames[1:])
        assert np.abs(found.astype(int) - SHOWN).max() <= (60 if suffix == ".gif" else 0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tiff", ".webp", ".ppm"])
def test_every_truncation_gives_the_whole_picture_or_an_error_with_the_name(tmp_path, suffix):
    plain = read(tmp_path, suffix, Image.fromarray(SHOWN)).transpose(2, 0, 1)
    file = tmp_path / f"picture{suffix}"
    size, refused = file.stat().st_size, 0
    for length in reversed(range(size)):
        os.truncate(file, length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about what it finds in TIFF
            try:
                assert np.array_equal(read_picture(str(file), None, 3), plain)
            except data.DataError as error:
                refused += 1
                assert f"picture{suffix} is not a readable image" in str(error)
    print(f"{suffix}: {refused} of {size} truncations refused, the others lost no pixel")
    assert refused > size / 2


def test_decompression_bombs(tmp_path, monkeypatch):
    bomb = png(50_000, 50_000, 1, 0, [b""])  # 2,500 megapixels in 70 bytes
    with pytest.raises(data.DataError, match=r"picture\.png is not a readable image"):
        read(tmp_path, ".png", bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # where Pillow itself only warns
    with (
        warnings.catch_warnings(),
        pytest.raises(data.DataError, match=r"6x4 pixels are more than PIL\.Image\.MAX_IMAGE_PIX"),
    ):
        warnings.simplefilter("ignore")
        read(tmp_path, ".png", Image.fromarray(SHOWN))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert np.array_equal(read(tmp_path, ".png", Image.fromarray(SHOWN)), SHOWN)


# -- what a folder holds --------------------------------------------------------------------------


def add(tree, label, name, content=b"?"):
    for split in ("train", "test"):
        folder = tree / split / label
        folder.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            content.save(folder / name)


def test_no_suffix_that_pillow_knows_makes_a_class_vanish(tree):
    """Of what Pillow reads the class is there; of anything else the error names its folder."""
    small = shutil.copytree(tree, tree.parent / "small")
    classes, others = {"ant", "cat"}, []
    for number, suffix in enumerate(sorted(Image.registered_extensions())):
        label, name = f"d{number}", f"x{suffix}" if number % 2 else f"X{suffix.upper()}"
        folder = tree / "train" / label
        folder.mkdir()
        try:
            Image.fromarray(pixels(16, 16, 3)).save(folder / name)
            with Image.open(folder / name) as image:
                image.load()
            classes.add(label)
        except Exception:  # a format that Pillow writes or reads only with other programs
            (folder / name).touch()
            others.append(folder.rename(tree.parent / label))
    assert set(data.image_folder(tree, size=8, cache=False).classes) == classes
    for folder in others:
        there = folder.rename(small / "train" / folder.name)
        with pytest.raises(data.DataError, match=str(there)):
            data.image_folder(small, size=8, cache=False)
        there.rename(folder)
    print(f"{len(classes) - 2} suffixes became a class, {len(others)} were refused by name")
    assert len(classes) > 30


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["a.heic", "a", "a.jpg.bak", "a.txt", "a.zip", "a.eps"])
def test_a_class_without_images_is_an_error(tree, split, name):
    folder = tree / split / "bee"
    folder.mkdir()
    (folder / name).touch()
    kind = Path(name).suffix or "without a suffix"
    with pytest.raises(data.DataError, match=f"{folder} holds no images .left out: 1 x {kind}"):
        data.image_folder(tree)


def test_a_class_of_empty_or_nested_folders(tree):
    (tree / "test" / "bee").mkdir()  # tests no class: as good as no folder
    assert data.image_folder(tree).classes == ("ant", "cat")
    (tree / "train" / "bee").mkdir()
    with pytest.raises(data.DataError, match=f"{tree}/train/bee holds no images. Expected"):
        data.image_folder(tree)
    (tree / "train" / "bee" / "more.png").mkdir()
    with pytest.raises(data.DataError, match=f"{tree}/train/bee holds no images .*1 x folder"):
        data.image_folder(tree)


def test_what_is_left_out_is_counted(tree):
    (tree / "train" / "loose.png").touch()
    for name in ("a.heic", "b.HEIC", "c"):
        (tree / "train" / "cat" / name).touch()
    (tree / "test" / "ant" / "deeper").mkdir()
    counted = "left out 2 x .heic, 1 x .png, 1 x folder, 1 x without a suffix, as no images"
    for _ in range(2):  # from the cache as well
        with pytest.warns(UserWarning, match=f"{tree}: {counted}") as caught:
            assert len(data.image_folder(tree).train_y) == 6
        assert caught[0].filename == __file__


def test_links_pipes_and_folders_that_cannot_be_read(tree, tmp_path):
    link = tree / "train" / "cat" / "9.png"
    for target in (tmp_path / "absent", link):  # to nothing, and to itself
        link.symlink_to(target)
        with pytest.raises(data.DataError, match=f"{link} is a link to nothing"):
            data.image_folder(tree)
        link.unlink()
    (tree / "train" / "bee").symlink_to(tmp_path / "absent")
    with pytest.raises(data.DataError, match=r"train/bee is a link to nothing"):
        data.image_folder(tree)
    (tree / "train" / "bee").unlink()
    link.symlink_to(tree / "train" / "cat" / "1.png")  # a good link is a good image
    assert len(data.image_folder(tree).train_y) == 7
    os.mkfifo(tree / "train" / "cat" / "pipe.png")  # reading it would wait for ever
    with pytest.warns(UserWarning, match="left out 1 x no file"):
        assert len(data.image_folder(tree).train_y) == 7
    if os.geteuid() == 0:
        return  # who may read everything
    (tree / "train" / "cat").chmod(0)
    with pytest.raises(data.DataError, match="cannot be read"):
        data.image_folder(tree)
    (tree / "train" / "cat").chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tree):
    for label in (b"caf\xe9", b"tab\t\n"):
        for split in ("train", "test"):
            folder = os.path.join(os.fsencode(tree / split), label)
            os.mkdir(folder)
            Image.fromarray(pixels(8, 10, 3)).save(os.fsdecode(os.path.join(folder, b"\xff.png")))
    for _ in range(2):
        dataset = data.image_folder(tree)
        assert dataset.classes == ("ant", "caf\\xe9", "cat", "tab\t\n")
        assert dataset.train_y.bincount().tolist() == [3, 1, 3, 1]
        str(dataset.classes).encode()
    broken = os.path.join(os.fsencode(tree), b"train", b"caf\xe9", b"\xff.png")
    Path(os.fsdecode(broken)).write_bytes(b"no image")
    with pytest.raises(data.DataError, match=r"caf.xe9/.xff.png is not a readable") as caught:
        data.image_folder(tree)
    str(caught.value).encode()
    odd = Path(os.fsdecode(os.path.join(os.fsencode(tree.parent), b"odd\xe9")))
    tree.rename(odd)
    Path(os.fsdecode(os.path.join(os.fsencode(odd), b"train", b"caf\xe9", b"\xff.png"))).unlink()
    with pytest.raises(data.DataError) as caught:
        data.image_folder(odd)
    str(caught.value).encode()


# -- the cache of decoded images ------------------------------------------------------------------


def bmp(tree, color):
    """A folder whose images all have the same size in bytes, and fixed times."""
    for split in ("train", "test"):
        for label in ("ant", "cat"):
            (tree / split / label).mkdir(parents=True, exist_ok=True)
            file = tree / split / label / "0.bmp"
            if file.exists():  # in place: the inode stays
                buffer = io.BytesIO()
                Image.new("RGB", (4, 4), color).save(buffer, "BMP")
                with file.open("r+b") as target:
                    target.write(buffer.getvalue())
            else:
                Image.new("RGB", (4, 4), color).save(file)
            os.utime(file, ns=(10**18, 10**18))
    return tree


@pytest.mark.parametrize("how", ["own cache file", "another folder in its place", "in place"])
def test_equal_names_sizes_and_times_are_not_taken_for_equal_images(tmp_path, how):
    cache = tmp_path / "cache.safetensors" if how == "own cache file" else True
    first, second = bmp(tmp_path / "a", "red"), bmp(tmp_path / "b", "blue")
    assert data.image_folder(first, cache=cache).train_x[0, :, 0, 0].tolist() == [255, 0, 0]
    if how == "another folder in its place":
        first.rename(tmp_path / "old")
        second = second.rename(first)
    elif how == "in place":
        second = bmp(first, "blue")
    assert data.image_folder(second, cache=cache).train_x[0, :, 0, 0].tolist() == [0, 0, 255]


def test_the_cache_follows_its_contents_and_pillow(tree, monkeypatch):
    first = data.image_folder(tree)
    for file in tree.rglob("*.png"):
        os.utime(file)  # touched, not changed
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_decode", None)
        assert same(data.image_folder(tree), first)
    others = {"PIL.__version__": "another", "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": True}
    for name, value in others.items():  # which decode otherwise
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            patch.setattr(folder_module, "_decode", None)
            with pytest.raises(TypeError):
                data.image_folder(tree)


def test_every_truncation_and_every_flipped_bit_of_the_cache_is_seen(tmp_path):
    place = tmp_path / "cache.safetensors"
    tensors = {"train_x": torch.arange(12, dtype=torch.uint8), "train_y": torch.arange(2)}
    write_tensors(place, "fingerprint", tensors)
    whole = place.read_bytes()
    tried = unseen = 0
    with warnings.catch_warnings(), place.open("r+b", buffering=0) as file:
        warnings.simplefilter("ignore")

        def is_seen():
            nonlocal tried, unseen
            tried += 1
            unseen += read_tensors(place, "fingerprint") is not None

        for bit in range(8 * len(whole)):
            byte = whole[bit // 8]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)
            is_seen()
            os.pwrite(file.fileno(), bytes([byte]), bit // 8)
        os.pwrite(file.fileno(), b"\0", len(whole))
        is_seen()
        for length in reversed(range(len(whole))):
            file.truncate(length)
            is_seen()
    print(f"{tried} damaged caches, {unseen} of them unseen")
    assert unseen == 0
    assert tried == 9 * len(whole) + 1
    place.write_bytes(whole)
    found = read_tensors(place, "fingerprint")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert read_tensors(place, "another") is None


def test_a_flipped_pixel_in_the_cache_is_decoded_again(tree):
    first = data.image_folder(tree)
    (cache,) = tree.parent.glob(".photos*.safetensors")
    whole = cache.read_bytes()
    for place in (-1, -100, -500):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        cache.write_bytes(flipped)
        with pytest.warns(UserWarning, match="its checksum does not fit"):
            assert same(data.image_folder(tree), first)
        assert cache.read_bytes() == whole


# -- damage in MNIST's files and Tiny ImageNet's archive -------------------------------------------


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_mnist_damage_in_the_head_and_in_the_length(tmp_path, file):
    raw, _ = write_mnist(tmp_path, "MNIST")
    whole = (raw / file).read_bytes()
    head = 16 if "images" in file else 8
    tried = [whole[:-1], whole[:head], b"", whole + b"\0", whole[: head - 1]]
    for bit in range(8 * head):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        tried.append(bytes(flipped))
    for content in tried:
        (raw / file).write_bytes(content)
        with pytest.raises(data.DataError, match=f"Damaged: {raw / file}"):
            data.mnist(tmp_path, download=False)
    print(f"{len(tried)} damaged files, all refused")


def test_mnist_as_an_old_torchvision_kept_it_is_not_read_unchecked(tmp_path):
    write_mnist(tmp_path, "MNIST")
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for file in ("training.pt", "test.pt"):
        other = torch.zeros(6, 28, 28, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64)
        torch.save(other, processed / file)
    with pytest.raises(data.DataError, match=f"{processed} is of an old torchvision"):
        data.mnist(tmp_path, download=False)


def test_mnist_files_of_the_published_size_must_be_the_published_ones(tmp_path, monkeypatch):
    raw, _ = write_mnist(tmp_path, "FashionMNIST")
    content = struct.pack(">ii", 0x801, 10_000) + bytes(10_000)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(content)
    images = struct.pack(">iiii", 0x803, 10_000, 28, 28) + bytes(10_000 * 784)
    (raw / "t10k-images-idx3-ubyte").write_bytes(images)
    with pytest.raises(data.DataError, match="Damaged: .*t10k-images.*t10k-labels") as caught:
        data.fashion_mnist(tmp_path, download=False)
    assert "train-" not in str(caught.value).split("Damaged: ")[1].split(". ")[0]
    for name, held in (("t10k-labels-idx1-ubyte", content), ("t10k-images-idx3-ubyte", images)):
        md5 = hashlib.md5(held).hexdigest()
        monkeypatch.setitem(sources.RAW_MD5["FashionMNIST"], name, md5)
    assert len(data.fashion_mnist(tmp_path, download=False).test_y) == 10_000


LABELS = b"val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n"


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.replace(b"n01", b"../../../../escaped"),
        LABELS.replace(b"n01", b"/tmp/escaped"),
        LABELS.replace(b"n01", b"n03"),
        LABELS.replace(b"n01", b""),
        LABELS.replace(b"\tn01\t", b" n01 "),
        LABELS.replace(b"n01", b"n0\xff"),
        LABELS.replace(b"val_1", b"val_2"),
        LABELS.replace(b"val_1", b"../val_1"),
        LABELS + b"val_1.JPEG\tn02\n",
        LABELS + b"val_2.JPEG\tn02\n",
        LABELS[: len(LABELS) // 2],
        b"",
    ],
)
def test_tiny_imagenet_labels_that_do_not_fit(tmp_path, monkeypatch, labels):
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    with zipfile.ZipFile(root / tiny.ARCHIVE, "w") as target:
        for label in ("n01", "n02"):
            target.writestr(f"tiny-imagenet-200/train/{label}/images/{label}_0.JPEG", jpeg())
        for number in range(2):
            target.writestr(f"tiny-imagenet-200/val/images/val_{number}.JPEG", jpeg())
        target.writestr(tiny.LABELS, labels)
    monkeypatch.setattr(tiny, "MD5", hashlib.md5((root / tiny.ARCHIVE).read_bytes()).hexdigest())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(data.DataError, match="cannot be unpacked"):
        data.tiny_imagenet(root, download=False)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped").exists()


def test_tiny_imagenet_with_a_missing_image(archive, tmp_path):
    root = tmp_path / "root"
    data.tiny_imagenet(root)
    (root / tiny.FOLDER / "train" / "n01" / "n01_0.JPEG").unlink()
    with pytest.raises(data.DataError, match="holds 5 4 images .*expected 6 4"):
        data.tiny_imagenet(root, download=False)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "size": ANYTHING.filter(moderate),
        "channels": ANYTHING,
        "mean": ANYTHING,
        "std": ANYTHING,
        "padding": ANYTHING.filter(moderate),
        "flip": ANYTHING,
    },
)


@given(options=OPTIONS)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_option_of_a_folder_is_taken_or_refused_by_name(tree, options):
    try:
        dataset = data.image_folder(tree, cache=False, **options)
    except ValueError as error:
        assert re.search("|".join(options), str(error)), error
        return
    assert len(dataset.train_y) == 6
    x, _ = next(dataset.batches("test", 9))
    assert x.isfinite().all()
    assert x.shape[1:] == dataset.input_shape
