"""Dataset: splits, normalization, augmentation, batches, scoring batches, subsets."""

import dataclasses
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from anything import ANYTHING, moderate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from synflow_lib import data
from synflow_lib.data.tensors import (
    channel_statistics,
    random_crops,
    resize,
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
    with pytest.raises(ValueError, match="size=0; expected a whole number from 1"):
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
        ({"batch_size": 0}, "batch_size=0; expected"),
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
    with pytest.raises(ValueError, match="per_class=0; expected"):
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
        with pytest.raises(ValueError, match="n_train=.* from 1 to 1438"):
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
    assert torch.equal(x.cpu(), dataset.scoring_batch()[0])
    assert torch.equal(y.cpu(), dataset.scoring_batch()[1])
    one = next(there.batches("train", 64, generator(), augment=True))
    two = next(dataset.batches("train", 64, generator(), augment=True))
    assert torch.equal(one[0].cpu(), two[0])
    assert same(dataset.to("cuda").resized(28), dataset.resized(28))
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


# -- what a data set takes ------------------------------------------------------------------------

WHOLE = (np.int64, np.int32, np.uint8, np.int16, torch.tensor)


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_of_any_kind(kind, tmp_path):
    dataset, three, two = toy(), kind(3), kind(2)
    assert same(dataset.subset(three, two, seed=two), dataset.subset(3, 2, seed=2))
    assert same(dataset.resized(three, channels=kind(1)), dataset.resized(3, channels=1))
    assert torch.equal(dataset.scoring_batch(two, seed=three)[0], dataset.scoring_batch(2, 3)[0])
    assert len(next(dataset.batches(batch_size=three))[1]) == 3
    changed = dataclasses.replace(dataset, num_classes=three, padding=two)
    assert (changed.num_classes, changed.padding) == (3, 2)
    assert type(changed.num_classes) is type(changed.padding) is int
    assert changed.fingerprint == dataclasses.replace(dataset, padding=2).fingerprint
    assert same(data.digits(kind(8), kind(1), seed=two), data.digits(seed=2))
    assert data.by_name("digits", kind(9), three).input_shape == (3, 9, 9)


def same(a, b):
    return a.fingerprint == b.fingerprint and a.input_shape == b.input_shape


NOT_WHOLE = [
    *(True, np.True_, torch.tensor(True)),
    *(1.0, np.float64(1), "1", [1], float("nan"), 1j),
]


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_what_is_no_whole_number(value):
    dataset = toy()
    calls = {
        "n_train": lambda: dataset.subset(value),
        "n_test": lambda: dataset.subset(None, value),
        "seed": lambda: dataset.subset(1, seed=value),
        "size": lambda: dataset.resized(value),
        "channels": lambda: dataset.resized(channels=value),
        "per_class": lambda: dataset.scoring_batch(value),
        "batch_size": lambda: dataset.batches(batch_size=value),
        "padding": lambda: dataclasses.replace(dataset, padding=value),
        "num_classes": lambda: dataclasses.replace(dataset, num_classes=value),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}=.*expected a whole number"):
            call()


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
def test_seeds_that_no_generator_takes(seed):
    with pytest.raises(ValueError, match=f"seed={seed}; expected a whole number from -92"):
        toy().scoring_batch(1, seed)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.uint8, torch.int8, torch.int16, torch.int32),
        *(torch.uint16, torch.uint32, torch.uint64),
    ],
)
def test_labels_of_any_integers_are_taken_as_int64(dtype):
    dataset = toy()
    other = dataclasses.replace(
        dataset, train_y=dataset.train_y.to(dtype), test_y=dataset.test_y.to(dtype)
    )
    assert other.train_y.dtype == other.test_y.dtype == torch.int64
    assert other.fingerprint == dataset.fingerprint
    torch.nn.functional.cross_entropy(torch.zeros(24, 3), other.train_y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64])
def test_other_labels_are_refused(dtype):
    labels = torch.tensor([0, 1] * 12).to(dtype)
    with pytest.raises(data.DataError, match=f"train labels are {dtype}"):
        dataclasses.replace(toy(), train_y=labels)


def test_labels_above_int64_are_no_negative_classes():
    labels = torch.tensor([2**64 - 1] * 6, dtype=torch.uint64)
    with pytest.raises(data.DataError, match="labels run from -1"):
        dataclasses.replace(toy(), test_y=labels)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("mean", (bad, 0.5, 0.5)) for bad in (NAN, INF, -INF, -0.1, 1.1, 125.3, None, "a")),
        *(("std", (0.5, 0.5, bad)) for bad in (NAN, INF, -INF, -0.1, 0, 1e-46, 1e39, None, 1j)),
        *((name, value) for name in ("mean", "std") for value in ((), (0.5,), [0.5] * 4, 0.5)),
        *(("mean", value) for value in ("abc", None, {}, torch.zeros(3, 1, 2), np.float64(0.5))),
    ],
)
def test_statistics_that_are_none(name, value):
    with pytest.raises(data.DataError, match=f"(?s)toy: {name} is .*expected 3 values"):
        dataclasses.replace(toy(), **{name: value})


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda v: iter(list(v))])
def test_statistics_of_any_sequence(kind):
    found = dataclasses.replace(toy(), mean=kind([0.0, 0.5, 1.0]), std=kind([0.5, 1.0, 2.0]))
    assert found.mean == (0.0, 0.5, 1.0)
    assert found.std == (0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": "False"}, "flip is 'False'; expected True or False"),
        ({"flip": 1}, "flip is 1"),
        ({"flip": None}, "flip is None"),
        ({"padding": -1}, "padding=-1; expected"),
        ({"num_classes": 0}, "num_classes=0; expected"),
        ({"classes": None}, "classes is None"),
        ({"classes": (1, 2, 3)}, "classes is .1, 2, 3."),
        ({"classes": "abc"}, "classes is 'abc'; expected 3 names"),
        ({"classes": ("a", "b")}, "expected 3 names, one a class, or none"),
        ({"train_x": np.zeros((24, 3, 6, 6), np.uint8)}, "are a ndarray; .*as_tensor.train_x"),
        ({"test_y": [0] * 6}, "test labels are a list; .*as_tensor.test_y"),
        ({"train_x": torch.zeros(24, 3, 0, 6, dtype=torch.uint8)}, "expected uint8, 4-d"),
        ({"train_x": torch.zeros(24, 6, 6, dtype=torch.uint8)}, "expected uint8, 4-d"),
        ({"train_x": torch.zeros(24, 3, 6, 6, dtype=torch.int8)}, "images are torch.int8"),
    ],
)
def test_other_arguments_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(toy(), **change)


def test_what_a_data_set_hands_out_is_a_copy():
    dataset = toy()
    before = dataset.fingerprint
    still = dataclasses.replace(dataset, padding=0, flip=False)
    handed = [dataset.scoring_batch(2), [dataset.normalize(dataset.train_x)]]
    handed += [[part.augment(part.test_x, generator())] for part in (dataset, still)]
    for split in ("train", "test"):
        handed += dataset.batches(split, 4)
        handed += dataset.batches(split, 4, generator(), augment=True)
    for tensors in handed:
        for tensor in tensors:
            tensor.fill_(7)
    assert dataset.fingerprint == before


def test_the_fingerprint_notices_what_is_written_into_the_tensors():
    dataset = toy()
    before = dataset.fingerprint
    assert dataset.fingerprint == before
    dataset.train_x[9, 1, 2, 2] += 1  # not one of the first, which `toy` shares with its tests
    changed = dataset.fingerprint
    assert changed != before
    copy = pickle.loads(pickle.dumps(dataset))  # what a worker process receives
    assert copy.fingerprint == changed
    copy.train_x[9, 1, 2, 2] -= 1
    assert copy.fingerprint == before
    assert dataset.fingerprint == changed


@pytest.mark.parametrize("size", [5, 7, 9, 12, 13, 28, 32])
@pytest.mark.parametrize("old", [6, 8])
def test_resized_pixels_are_exact(old, size):
    """By fractions, so that no rounding of a processor can have a say; a half goes to the even."""

    scale = Fraction(old, size)
    support = max(scale, Fraction(1))
    centers = [scale * (place + Fraction(1, 2)) for place in range(size)]
    matrix = np.array(
        [[max(1 - abs(k + Fraction(1, 2) - c) / support, 0) for k in range(old)] for c in centers]
    )
    matrix = matrix / matrix.sum(1, keepdims=True)
    x = images(1, channels=1, size=old, seed=size)
    exact = matrix @ x[0, 0].numpy().astype(object) @ matrix.T
    expected = [[round(value) for value in row] for row in exact]
    assert resize(x, (size, size), 1)[0, 0].tolist() == expected
    color = images(20, size=4, seed=size)
    grey = [round(Fraction(int(v), 3)) for v in color.sum(1).flatten()]
    assert resize(color, (4, 4), 1).flatten().tolist() == grey


def test_statistics_do_not_depend_on_the_order_of_summation(monkeypatch):
    x = images(40, size=5)
    mean, std = channel_statistics(x)
    for channel in range(3):
        values = [Fraction(int(v), 255) for v in x[:, channel].flatten()]
        exact = sum(values) / len(values)
        variance = sum((v - exact) ** 2 for v in values) / len(values)
        assert mean[channel] == pytest.approx(float(exact), rel=1e-15)
        assert std[channel] == pytest.approx(float(variance) ** 0.5, rel=1e-15)
    assert channel_statistics(x.flip(0)) == (mean, std)


# -- anything at all ------------------------------------------------------------------------------


@given(
    change=st.dictionaries(
        st.sampled_from([f.name for f in dataclasses.fields(data.Dataset) if f.name != "name"]),
        ANYTHING,
        min_size=1,
        max_size=2,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_argument_is_taken_or_refused_by_name(change):
    """A data set that could be made gives finite batches of the promised types."""
    assume(moderate(change.get("padding")))
    try:
        dataset = dataclasses.replace(toy(), **change)
    except ValueError as error:
        named = "|".join(change).replace("_x", " images").replace("_y", " labels")
        assert re.search(f"{named}|labels run", str(error)), error
        return
    for split in ("train", "test"):
        for x, y in dataset.batches(split, 10, generator(), augment=True):
            assert x.dtype == torch.float32
            assert x.isfinite().all()
            assert y.dtype == torch.int64
            assert 0 <= int(y.min()) <= int(y.max()) < dataset.num_classes
    assert pickle.loads(pickle.dumps(dataset)).fingerprint == dataset.fingerprint


@given(
    options=st.dictionaries(
        st.sampled_from(["n_train", "n_test", "seed", "size", "channels", "per_class"]), ANYTHING
    ),
    batch_size=ANYTHING,
)
@settings(max_examples=100, deadline=None)
def test_any_option_is_taken_or_refused_by_name(options, batch_size):
    def given(*names):
        return {name: options[name] for name in names if name in options}

    assume(moderate(options.get("size")))
    dataset = toy()
    calls = [
        lambda: dataset.subset(**given("n_train", "n_test", "seed")).resized(
            **given("size", "channels")
        ),
        lambda: dataset.scoring_batch(**{"per_class": 2, **given("per_class", "seed")}),
        lambda: next(dataset.batches(batch_size=batch_size)),
    ]
    for call in calls:
        try:
            found = call()
        except ValueError as error:
            assert re.search("|".join([*options, "batch_size"]), str(error)), error
        else:
            x = found.normalize(found.train_x) if isinstance(found, data.Dataset) else found[0]
            assert x.isfinite().all()
