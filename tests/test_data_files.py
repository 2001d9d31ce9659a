"""Data sets read from files: torchvision's formats, image folders, Tiny ImageNet's archive."""

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import synflow_lib.data as package
from synflow_lib import data
from synflow_lib.data import folder as folder_module
from synflow_lib.data import tiny

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


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": 1.5}, {"channels": 2}])
def test_bad_folder_arguments(tree, arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is"):
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
