"""Dataset: splits, normalization, augmentation, batches, scoring batches, subsets."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synflow_lib import data
from synflow_lib.data.tensors import (
    channel_statistics,
    random_crops,
    shuffled_ranks,
    stratified_order,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, channels=3, size=6, seed=0):
    shape = (n, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def toy(labels=(0, 1, 2) * 8, classes=3, **arguments):
    """As many images as labels for training, and the first six for testing."""
    x, y = images(len(labels)), torch.tensor(labels)
    mean, std = channel_statistics(x)
    return data.Dataset("toy", x, y, x[:6], y[:6], classes, mean, std, **arguments)


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def test_digits_split_is_stratified_and_disjoint(digits):
    assert digits.input_shape == (1, 8, 8)
    assert len(digits.train_y) + len(digits.test_y) == 1797
    assert len(digits.test_y) == round(0.2 * 1797)
    together = torch.cat([digits.train_y, digits.test_y]).bincount()
    assert torch.equal(together, torch.tensor([178, 182, 177, 183, 181, 182, 181, 179, 174, 180]))
    assert (digits.test_y.bincount() - 0.2 * together).abs().max() <= 1
    # Both sets together are scikit-learn's images, each once.
    from sklearn.datasets import load_digits

    ours = torch.cat([digits.train_x, digits.test_x]).flatten(1).float() * 16 / 255
    theirs = torch.from_numpy(load_digits().data).float()
    assert sorted(ours.round().tolist()) == sorted(theirs.tolist())


def test_digits_split_is_fixed_by_the_seed(digits):
    again, other = data.digits(), data.digits(seed=1)
    assert torch.equal(again.train_x, digits.train_x)
    assert torch.equal(again.test_y, digits.test_y)
    assert not torch.equal(other.test_x, digits.test_x)


def test_digits_resized_with_channels(digits):
    large = data.digits(size=32, channels=3)
    assert large.input_shape == (3, 32, 32)
    assert large.train_x.dtype == torch.uint8
    assert torch.equal(large.train_x[:, 0], large.train_x[:, 2])
    # Pillow's bilinear filter is an independent one; it rounds twice.
    for index in range(20):
        image = Image.fromarray(digits.train_x[index, 0].numpy())
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), dtype=int)
        assert np.abs(large.train_x[index, 0].numpy() - expected).max() <= 1
    x = large.normalize(large.train_x)
    assert x.mean().abs() < 1e-4
    assert abs(x.std() - 1) < 1e-3


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1e-9, float("nan")])
def test_digits_bad_fraction(fraction):
    with pytest.raises(ValueError, match="test_fraction is"):
        data.digits(test_fraction=fraction)


def test_resized_to_grey_and_back(digits):
    dataset = toy()
    grey = dataset.resized(channels=1)
    expected = dataset.train_x.float().mean(1, keepdim=True)
    assert (grey.train_x.float() - expected).abs().max() <= 0.5
    assert len(grey.mean) == 1
    assert dataset.resized() is dataset
    assert dataset.resized(6, 3) is dataset
    with pytest.raises(ValueError, match="channels is 2; expected 3"):
        dataset.resized(channels=2)
    with pytest.raises(ValueError, match="size is 0"):
        digits.resized(0)


def test_statistics_are_those_of_numpy():
    x = images(5)
    mean, std = channel_statistics(x)
    expected = x.double() / 255
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), expected.mean((0, 2, 3)))
    torch.testing.assert_close(
        torch.tensor(std, dtype=torch.float64), expected.std((0, 2, 3), correction=0)
    )


def test_constant_channel_can_be_normalized():
    assert channel_statistics(torch.full((2, 1, 3, 3), 255, dtype=torch.uint8)) == ((1.0,), (1.0,))


def test_normalize():
    dataset = toy()
    x = dataset.normalize(dataset.train_x)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3))
    for wrong in (x, dataset.train_x[0], dataset.train_x[:, :1]):
        with pytest.raises(ValueError, match="expected uint8"):
            dataset.normalize(wrong)


@given(
    n=st.integers(1, 5),
    size=st.integers(1, 5),
    padding=st.integers(0, 4),
    flip=st.booleans(),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_augmented_image_is_a_crop_of_the_padded_one(n, size, padding, flip, dtype, seed):
    x = images(n, size=size, seed=seed).to(dtype)
    out = random_crops(x, padding, flip, generator(seed))
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert torch.equal(out, random_crops(x, padding, flip, generator(seed)))
    padded = torch.nn.functional.pad(x, [padding] * 4)
    for image, source in zip(out, padded, strict=True):
        crops = source.unfold(1, size, 1).unfold(2, size, 1)  # [c, shifts, shifts, size, size]
        candidates = crops.flatten(1, 2).transpose(0, 1)
        if flip:
            candidates = torch.cat([candidates, candidates.flip(-1)])
        assert (candidates == image).flatten(1).all(1).any()


def test_augment_reaches_every_crop_and_draws_each_image_alone():
    dataset = toy(padding=1)
    x = images(1, size=6).expand(400, -1, -1, -1)
    out = dataset.augment(x, generator())
    assert len({image.numpy().tobytes() for image in out}) == 3 * 3 * 2
    still = dataclasses.replace(dataset, padding=0, flip=False)
    assert torch.equal(still.augment(x, generator()), x)


def test_augment_advances_its_generator_only():
    dataset, source = toy(), generator()
    before = torch.get_rng_state()
    first = dataset.augment(dataset.train_x, source)
    assert not torch.equal(first, dataset.augment(dataset.train_x, source))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_pass_over_everything_once(digits):
    x, y = zip(*digits.batches("train", 100, generator()), strict=True)
    assert [len(part) for part in y] == [100] * 14 + [38]
    stored = digits.normalize(digits.train_x)
    assert not torch.equal(torch.cat(y), digits.train_y)
    assert sorted(torch.cat(x).flatten(1).tolist()) == sorted(stored.flatten(1).tolist())
    in_order = torch.cat([x for x, _ in digits.batches("train", 100)])
    assert torch.equal(in_order, stored)
    assert [len(y) for _, y in digits.batches("train", 100, drop_last=True)] == [100] * 14
    assert list(digits.batches("test", 1000, drop_last=True)) == []


def test_batches_keep_images_and_labels_together():
    dataset = toy()
    label_of = {
        x.numpy().tobytes(): int(y)
        for x, y in zip(dataset.normalize(dataset.train_x), dataset.train_y, strict=True)
    }
    for x, y in dataset.batches("train", 5, generator()):
        assert [label_of[image.numpy().tobytes()] for image in x] == y.tolist()


def test_batches_are_fixed_by_the_generator():
    dataset = toy()
    runs = [list(dataset.batches("train", 7, generator(s), augment=True)) for s in (0, 0, 1)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(runs[0], runs[2], strict=True))
    plain = list(dataset.batches("train", 7, generator()))
    assert not torch.equal(plain[0][0], runs[0][0][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "split is 'validation'; expected 'train' or 'test'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"augment": True}, "needs a generator"),
    ],
)
def test_bad_batches_are_reported_at_the_call(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy().batches(**arguments)


def test_scoring_batch_is_balanced_and_made_of_training_images(digits):
    x, y = digits.scoring_batch(per_class=7, seed=3)
    assert x.shape == (70, 1, 8, 8)
    assert y.view(7, 10).tolist() == [list(range(10))] * 7
    known = {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(digits.normalize(digits.train_x), digits.train_y, strict=True)
    }
    drawn = [(image.numpy().tobytes(), int(label)) for image, label in zip(x, y, strict=True)]
    assert set(drawn) <= known
    assert len(set(drawn)) == 70


def test_scoring_batch_is_fixed_by_the_seed_and_touches_no_global_generator(digits):
    before = torch.get_rng_state()
    first, again, other = (digits.scoring_batch(seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_scoring_batch_of_uneven_classes():
    dataset = toy(labels=(2, 2, 0, 2, 1, 0, 2, 1, 2))
    x, y = dataset.scoring_batch(per_class=2)
    assert y.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(x.flatten(1).unique(dim=0)) == 6
    with pytest.raises(ValueError, match="toy: class 0 has 2 training images.*per_class=3"):
        dataset.scoring_batch(per_class=3)
    with pytest.raises(ValueError, match="class 3 has 0"):
        dataclasses.replace(dataset, num_classes=4).scoring_batch(per_class=1)
    with pytest.raises(ValueError, match="per_class is 0"):
        dataset.scoring_batch(per_class=0)


def test_subset(digits):
    small, larger = digits.subset(100, 50), digits.subset(200, seed=0)
    assert (len(small.train_y), len(small.test_y)) == (100, 50)
    assert small.train_y.bincount().min() >= 9
    assert torch.equal(larger.train_x[:100], small.train_x)
    assert torch.equal(larger.test_x, digits.test_x)
    assert small.mean == digits.mean
    assert not torch.equal(digits.subset(100, seed=1).train_x, small.train_x)
    for count in (0, 1439, 2.0):
        with pytest.raises(ValueError, match="n_train is .* from 1 to 1438"):
            digits.subset(count)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_every_beginning_of_the_stratified_order_is_in_proportion(labels, seed):
    labels = torch.tensor(labels)
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    share = labels.bincount(minlength=5) / len(labels)
    for n in range(1, len(labels) + 1):
        kept = labels[order[:n]].bincount(minlength=5)
        # Rounding of a class by 1/2, of the other four by as much, and the one being added.
        assert ((kept - n * share).abs() <= 1.5 + 2.5 * share).all()


def test_ranks_count_the_examples_of_a_class():
    labels = torch.tensor([3, 0, 3, 3, 0])
    order, rank = shuffled_ranks(labels, seed=2)
    for place, example in enumerate(order):
        earlier = labels[order[:place]]
        assert rank[place] == (earlier == labels[example]).sum()


def test_labels_on_another_device_give_the_same_order():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    dataset = data.digits()
    there = dataset.to("cuda")
    assert there.device.type == "cuda"
    x, y = there.scoring_batch()
    assert x.is_cuda
    torch.testing.assert_close(x.cpu(), dataset.scoring_batch()[0])
    assert torch.equal(y.cpu(), dataset.scoring_batch()[1])
    one = next(there.batches("train", 64, generator(), augment=True))
    two = next(dataset.batches("train", 64, generator(), augment=True))
    torch.testing.assert_close(one[0].cpu(), two[0])
    assert torch.equal(there.subset(50).train_x.cpu(), dataset.subset(50).train_x)
    on_device = torch.Generator("cuda").manual_seed(0)
    assert next(there.batches("train", 64, on_device, augment=True))[0].is_cuda


def test_to_moves_everything_and_keeps_uint8():
    moved = toy().to("cpu")
    assert moved.train_x.dtype == torch.uint8
    assert moved.device == torch.device("cpu")


def test_repr_and_immutability():
    dataset = toy()
    assert repr(dataset) == ("Dataset(toy: 24 train and 6 test images of 3x6x6, 3 classes, cpu)")
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_x": torch.zeros(24, 3, 6, 6)}, "train images are torch.float32"),
        ({"test_x": torch.zeros(6, 3, 5, 6, dtype=torch.uint8)}, "expected one shape"),
        ({"test_y": torch.zeros(5, dtype=torch.int64)}, r"test labels are .* expected int64 \[6\]"),
        ({"train_y": torch.zeros(24)}, "train labels are torch.float32"),
        ({"num_classes": 2}, "labels run from 0 to 2; expected 0 to 1"),
        ({"mean": (0.5,)}, "expected 3 values"),
        ({"std": (0.5, 0.0, 0.5)}, "std above 0"),
    ],
)
def test_inconsistent_tensors(change, message):
    with pytest.raises(data.DataError, match=message):
        dataclasses.replace(toy(), **change)


def test_empty_split():
    empty = {"test_x": images(0), "test_y": torch.zeros(0, dtype=torch.int64)}
    with pytest.raises(ValueError, match="test set is empty"):
        dataclasses.replace(toy(), **empty)


def test_by_name():
    assert data.by_name("digits", size=16, channels=3).input_shape == (3, 16, 16)
    with pytest.raises(ValueError, match="'imagenet'; expected one of digits, mnist"):
        data.by_name("imagenet")
