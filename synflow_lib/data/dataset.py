"""`Dataset`: images as uint8 tensors in memory, normalized and augmented in batch on the device."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..values import whole
from .tensors import channel_statistics, random_crops, resize, shuffled_ranks, stratified_order

FLOAT32 = torch.finfo(torch.float32)  # to which images are normalized: a std must not round to 0
TENSORS = ("train_x", "train_y", "test_x", "test_y")


class DataError(ValueError):
    """A data set is missing, damaged or not what its format promises; says where and what to do."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of a training and a test set, in memory.

    Immutable: `to`, `subset` and `resized` return a new data set. The tensors are kept as they are,
    not copied (they may fill half the memory), and shared with data sets made from this one: do not
    write into them afterwards, or hand in a `clone()`. What `batches`, `scoring_batch`, `normalize`
    and `augment` return are copies.

    Attributes:
        name: of the data set, e.g. "cifar10".
        train_x, test_x: images, uint8, [n, channels, height, width].
        train_y, test_y: labels, [n], in [0, num_classes); any integers, kept as int64.
        num_classes: number of classes.
        mean, std: of each channel, for `normalize`, in units of the full range [0, 1].
        classes: names of the classes, by label; empty if they have none.
        padding: pixels of black border from which `augment` crops (paper, CIFAR: 4); 0 is no crop.
        flip: whether `augment` mirrors images; wrong for digits, so off there.

    Raises:
        ValueError: (`DataError`) tensors of other types or shapes, on two devices or empty, labels
            or statistics out of range, class names that do not fit the number of classes.

    >>> x, y = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    >>> Dataset("black", x, y, x, y, num_classes=2, mean=[0], std=[1])
    Dataset(black: 4 train and 4 test images of 1x2x2, 2 classes, cpu)
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("num_classes", whole(self.num_classes, "num_classes", 1))
        keep("padding", whole(self.padding, "padding", 0))
        flip = self.flip
        self._require(isinstance(flip, (bool, np.bool_)), f"flip is {flip!r}", "True or False")
        keep("flip", bool(flip))
        for split in ("train", "test"):
            keep(f"{split}_y", self._labels(split, *self._split(split)))
        train, test = tuple(self.train_x.shape[1:]), tuple(self.test_x.shape[1:])
        found = f"training images are {train} and test images {test}"
        self._require(train == test, found, "one shape")
        devices = sorted({str(getattr(self, name).device) for name in TENSORS})
        found = f"the tensors lie on {', '.join(devices)}"
        self._require(len(devices) == 1, found, "one device for all")
        keep("mean", self._statistic("mean", 0, 1, "from 0 to 1"))
        keep("std", self._statistic("std", FLOAT32.tiny, FLOAT32.max, "finite and std above 0"))
        keep("classes", self._class_names())

    def _require(self, fits: bool, found: str, expected: str) -> None:
        if not fits:
            raise DataError(f"{self.name}: {found}; expected {expected}.")

    def _labels(self, split: str, x: Tensor, y: Tensor) -> Tensor:
        """The labels as int64, if they and the images are what they should be."""
        for what, letter, tensor in (("images", "x", x), ("labels", "y", y)):
            found = f"{split} {what} are a {type(tensor).__name__}"
            expected = f"a tensor: pass torch.as_tensor({split}_{letter})"
            self._require(isinstance(tensor, Tensor), found, expected)
        fits = x.dtype == torch.uint8 and x.dim() == 4 and 0 not in x.shape[1:]
        found = f"{split} images are {x.dtype} {tuple(x.shape)}"
        self._require(fits, found, "uint8, 4-d: [n, channels, height, width]")
        integers = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
        found = f"{split} labels are {y.dtype} {tuple(y.shape)}"
        self._require(integers and y.shape == x.shape[:1], found, f"int64 [{len(x)}]")
        self._require(len(y) > 0, f"{split} set is empty", "at least one image")
        y, last = y.to(torch.int64), self.num_classes - 1
        low, high = int(y.min()), int(y.max())
        found = f"{split} labels run from {low} to {high}"
        self._require(0 <= low <= high <= last, found, f"0 to {last}")
        return y

    def _statistic(self, name: str, low: float, high: float, within: str) -> tuple[float, ...]:
        """A tuple, so that it can be the key of a cache."""
        given, channels = getattr(self, name), self.train_x.shape[1]
        try:
            values = tuple(float(value) for value in given)
        except (TypeError, ValueError):
            values = ()
        self._require(
            len(values) == channels and all(low <= value <= high for value in values),
            f"{name} is {given}",
            f"{channels} values, one a channel, {within}, in units of the full range "
            "(divide those of pixels by 255)",
        )
        return values

    def _class_names(self) -> tuple[str, ...]:
        try:
            names = tuple(self.classes)
        except TypeError:  # nothing with members
            names = (None,)
        known = all(isinstance(name, str) for name in names) and not isinstance(self.classes, str)
        expected = f"{self.num_classes} names, one a class, or none"
        fits = known and len(names) in (0, self.num_classes)
        self._require(fits, f"classes is {self.classes!r}", expected)
        return names

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}; expected 'train' or 'test'.")
        return getattr(self, f"{split}_x"), getattr(self, f"{split}_y")

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return (
            f"Dataset({self.name}: {len(self.train_y):,} train and {len(self.test_y):,} test "
            f"images of {shape}, {self.num_classes} classes, {self.device})"
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return tuple(self.train_x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.train_x.device

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of all that training sees; not of name and device.

        That is images, labels, normalization and how images may be augmented.

        >>> from synflow_lib import data
        >>> digits = data.digits()
        >>> digits.fingerprint == digits.to("cpu").fingerprint
        True
        >>> digits.subset(500, seed=0).fingerprint == digits.subset(500, seed=7).fingerprint
        False
        """
        tensors = [getattr(self, name) for name in TENSORS]
        # Hashing takes a second for the larger sets, so it is done once; torch counts what is
        # written into a tensor, so a hash of former content is not taken for one of the present.
        versions = tuple(None if t.is_inference() else t._version for t in tensors)
        known, found = self.__dict__.get("_hashed", (None, ""))
        if known != versions:
            rest = (self.num_classes, self.mean, self.std, self.padding, self.flip)
            digest = hashlib.sha256(repr(rest).encode())
            for tensor in tensors:
                digest.update(repr(tuple(tensor.shape)).encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().data)
            found = digest.hexdigest()[:16]
            self.__dict__["_hashed"] = versions, found
        return found

    def __getstate__(self) -> dict[str, object]:
        # For pickle and copy: without the hash, since copies of tensors count from 0 again.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set on `device`; uint8 there as well."""
        return dataclasses.replace(self, **{k: getattr(self, k).to(device) for k in TENSORS})

    def normalize(self, x: Tensor) -> Tensor:
        """float32 images, every channel shifted by `mean` and scaled by `std`.

        Args:
            x: images of this data set, uint8, [n, channels, height, width], on any device.

        Raises:
            ValueError: not uint8 (they may have been normalized already) or another channel count.

        >>> from synflow_lib import data
        >>> digits = data.digits()
        >>> x = digits.normalize(digits.train_x)
        >>> abs(round(x.mean().item(), 4)), round(x.std().item(), 4)
        (0.0, 1.0)
        """
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"images are {x.dtype} {tuple(x.shape)}; expected uint8 "
                f"[n, {len(self.mean)}, height, width], not normalized yet."
            )
        white, mean, std = _statistics(self.mean, self.std, x.device)
        return x.to(torch.float32).div_(white).sub_(mean).div_(std)

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Each image cropped at random out of a black border and mirrored with probability 1/2.

        The width of the border is `padding`; images are mirrored only if `flip`. See
        `tensors.random_crops`.

        Args:
            x: images, uint8: before `normalize`, so that the border is black.
        """
        return random_crops(x, self.padding, self.flip, generator)

    def batches(
        self,
        split: str = "train",
        batch_size: int = 128,
        generator: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split: pairs of normalized images and labels.

        Args:
            split: "train" or "test".
            batch_size: images in a batch; the last one may be smaller.
            generator: shuffles; None keeps the stored order.
            augment: augments the images; needs a generator.
            drop_last: leaves a smaller last batch out.

        Yields:
            (x, y): float32 [b, channels, height, width] and int64 [b], on the data set's device.

        Raises:
            ValueError: unknown split, batch size below 1, or `augment` without a generator.

        >>> from synflow_lib import data
        >>> [len(y) for x, y in data.digits().batches("test", batch_size=200)]
        [200, 159]
        """
        x, y = self._split(split)
        batch_size = whole(batch_size, "batch_size", 1)
        if augment and generator is None:
            raise ValueError("augment=True needs a generator: pass torch.Generator().")
        order = None
        if generator is not None:
            order = torch.randperm(len(y), generator=generator, device=generator.device)
            order = order.to(y.device)
        stop = len(y) - len(y) % batch_size if drop_last else len(y)

        def one_pass() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, stop, batch_size):
                chosen = slice(start, min(start + batch_size, stop))
                if order is not None:
                    chosen = order[chosen]
                images = self.augment(x[chosen], generator) if augment else x[chosen]
                yield self.normalize(images), y[chosen].clone()  # a slice is no copy

        return one_pass()  # `batches` itself is no generator function: errors come at the call

    def scoring_batch(self, per_class: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Training images to score on, equally many of each class, fixed by the seed.

        The classes take turns (0, 1, ..., 0, 1, ...), so any multiple of `num_classes` images from
        the front is balanced as well.

        Args:
            per_class: images of each class (paper, appendix: 10).
            seed: chooses the images, the same ones on every device.

        Returns:
            (x, y): normalized float32 [per_class * num_classes, channels, height, width] and int64
            labels, on the data set's device.

        Raises:
            ValueError: a class has fewer images than that.

        >>> from synflow_lib import data
        >>> x, y = data.digits().scoring_batch()
        >>> tuple(x.shape), y[:12].tolist()
        ((100, 1, 8, 8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
        """
        per_class = whole(per_class, "per_class", 1)
        order, rank = shuffled_ranks(self.train_y, seed)
        labels = self.train_y.cpu()[order]
        for label, count in enumerate(labels.bincount(minlength=self.num_classes).tolist()):
            if count < per_class:
                raise DataError(
                    f"{self.name}: class {label} has {count} training images; scoring with "
                    f"per_class={per_class} needs as many. Use a smaller per_class or a larger "
                    "subset."
                )
        few = rank < per_class
        turn = rank[few] * self.num_classes + labels[few]
        chosen = order[few][turn.argsort()].to(self.device)
        return self.normalize(self.train_x[chosen]), self.train_y[chosen]

    def subset(
        self, n_train: int | None = None, n_test: int | None = None, seed: int = 0
    ) -> Dataset:
        """Fewer images, classes in the proportions of the whole, fixed by the seed.

        Subsets of one seed are nested: a smaller one is the beginning of a larger one. `mean` and
        `std` stay those of the whole data set.

        Args:
            n_train, n_test: images to keep; None keeps all, in their order.

        Raises:
            ValueError: more images than there are, or fewer than 1.

        >>> from synflow_lib import data
        >>> data.digits().subset(500, 100)
        Dataset(digits: 500 train and 100 test images of 1x8x8, 10 classes, cpu)
        """
        kept: dict[str, Tensor] = {}
        for split, count in (("train", n_train), ("test", n_test)):
            if count is not None:
                x, y = self._split(split)
                count = whole(count, f"n_{split}", 1, len(y))
                chosen = stratified_order(y, seed)[:count].to(y.device)
                kept |= {f"{split}_x": x[chosen], f"{split}_y": y[chosen]}
        return dataclasses.replace(self, **kept)

    def resized(self, size: int | None = None, channels: int | None = None) -> Dataset:
        """The images at another size (bilinear) and channel count, normalized by their statistics.

        Args:
            size: height and width in pixels; None keeps both.
            channels: a grey image is repeated, a colour image averaged to 1; None keeps it.

        Raises:
            ValueError: a size or count below 1, or a change between two numbers above 1.

        >>> from synflow_lib import data
        >>> data.digits().resized(32, channels=3).input_shape
        (3, 32, 32)
        """
        old, height, width = self.input_shape
        shape = (height, width) if size is None else (whole(size, "size", 1),) * 2
        new = old if channels is None else whole(channels, "channels", 1)
        if new != old and 1 not in (old, new):
            raise ValueError(f"channels is {new}; expected {old} (as they are) or 1 (grey).")
        if shape == (height, width) and new == old:
            return self
        train_x, test_x = (resize(x, shape, new) for x in (self.train_x, self.test_x))
        mean, std = channel_statistics(train_x)
        return dataclasses.replace(self, train_x=train_x, test_x=test_x, mean=mean, std=std)


@functools.lru_cache(maxsize=64)
def _statistics(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    # Cached because making a tensor out of numbers waits for the GPU, once a batch. 255 as well: a
    # GPU multiplies by the reciprocal of a plain number, with another last digit than the CPU.
    return tuple(
        torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        for values in ((255.0,), mean, std)
    )
