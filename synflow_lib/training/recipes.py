"""How a network is trained: `Recipe`, the paper's own settings, and smaller ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import nn

from ..values import is_bool, real, whole


def _flag(value: object, name: str) -> bool:
    if not is_bool(value):
        raise TypeError(name)
    return bool(value)


def _epochs(values: Iterable, name: str) -> tuple[int, ...]:
    return tuple(whole(value, name, 1) for value in values)


# For each field of a recipe: what makes Python's own type of it (so that equal recipes are equal in
# JSON too), what must hold then, and how to say so.
_FIELDS = {
    "epochs": (whole, lambda v: v >= 1, "a whole number from 1"),
    "learning_rate": (real, lambda v: v > 0, "a number above 0"),
    "batch_size": (whole, lambda v: v >= 2, "a whole number from 2"),
    "optimizer": (lambda v, _: str(v), lambda v: v in ("sgd", "adam"), "'sgd' or 'adam'"),
    "momentum": (real, lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "weight_decay": (real, lambda v: v >= 0, "a number from 0"),
    "milestones": (_epochs, lambda v: [*v] == sorted({*v}), "rising whole numbers from 1"),
    "decay": (real, lambda v: 0 < v <= 1, "a number in (0, 1]"),
    "one_cycle": (_flag, lambda v: True, "True or False"),
    "augment": (_flag, lambda v: True, "True or False"),
}


@dataclass(frozen=True)
class Recipe:
    """Everything about a training run that is not the network, the data or the seed.

    Attributes:
        epochs: passes over the training set, at least 1.
        learning_rate: at the start; with ``one_cycle`` the largest.
        batch_size: images a step, at least 2 (BatchNorm needs two).
        optimizer: "sgd" (Nesterov momentum where ``momentum`` is not 0) or "adam".
        momentum: of SGD, in [0, 1).
        weight_decay: L2 penalty, at least 0, on all parameters, as in the paper.
        milestones: epochs after which the learning rate is multiplied by ``decay``, rising.
        decay: that factor, in (0, 1].
        one_cycle: one cycle of the learning rate (up, then down to nearly 0) instead.
        augment: random crops and mirror images, as far as the data set allows them.

    Raises:
        ValueError: a value outside its range; the message names the field.

    >>> Recipe(epochs=2, learning_rate=0.1, milestones=(1,)).learning_rate
    0.1
    """

    epochs: int
    learning_rate: float
    batch_size: int = 128
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    one_cycle: bool = False
    augment: bool = False

    def __post_init__(self) -> None:
        for name, (own, fits, expected) in _FIELDS.items():
            given, good = getattr(self, name), False
            with contextlib.suppress(TypeError, ValueError):
                value = own(given, name)
                good = fits(value)
            if not good:
                raise ValueError(f"recipe: {name}={given!r}; expected {expected}")
            object.__setattr__(self, name, value)
        if self.one_cycle and self.milestones:
            raise ValueError(
                f"recipe: one_cycle=True and milestones={self.milestones!r}; expected one of them"
            )

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        """The recipe that ``dataclasses.asdict`` gave, also after a trip through JSON.

        >>> import dataclasses
        >>> recipe = Recipe(3, 0.1, milestones=(1, 2))
        >>> Recipe.from_dict(dataclasses.asdict(recipe)) == recipe
        True
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a recipe has no {sorted(unknown)}")
        return cls(**values)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """A new optimizer over ``parameters``."""
        # In one kernel, except where torch's own skips the step without a word: half precision on
        # a CPU (2.13).
        fused = all(
            p.device.type != "cpu" or p.dtype in (torch.float32, torch.float64) for p in parameters
        )
        options = {"weight_decay": self.weight_decay, "fused": fused}
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.learning_rate, **options)
        options |= {"momentum": self.momentum, "nesterov": self.momentum > 0}
        return torch.optim.SGD(parameters, self.learning_rate, **options)

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0.

        One cycle: a line up to ``learning_rate`` over the first 30%, then half a cosine down.

        >>> recipe = Recipe(3, 1.0, milestones=(1, 2), decay=0.1)
        >>> [round(recipe.rate(step, steps_per_epoch=2), 3) for step in range(6)]
        [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
        >>> cycle = Recipe(1, 1.0, one_cycle=True)
        >>> [round(cycle.rate(step, steps_per_epoch=10), 2) for step in (0, 3, 9)]
        [0.25, 1.0, 0.05]
        """
        if not self.one_cycle:
            passed = sum(step >= milestone * steps_per_epoch for milestone in self.milestones)
            return self.learning_rate * self.decay**passed
        total = self.epochs * steps_per_epoch
        peak = max(1, round(0.3 * total))
        if step < peak:
            return self.learning_rate * (step + 1) / (peak + 1)
        done = (step - peak) / max(1, total - peak)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


_CIFAR_VGG = Recipe(160, 0.1, weight_decay=1e-4, milestones=(60, 120), augment=True)
_CIFAR_RESNET = Recipe(160, 0.01, weight_decay=5e-4, milestones=(60, 120), decay=0.2, augment=True)
_TINY_IMAGENET = Recipe(
    100, 0.01, weight_decay=1e-4, milestones=(30, 60, 80), decay=0.2, augment=True
)
COLAB = Recipe(15, 0.1, 512, weight_decay=5e-4, one_cycle=True, augment=True)
FIGURE_5A = Recipe(50, 0.01, weight_decay=1e-4, augment=True)
FIGURE_5B = Recipe(100, 0.001, weight_decay=1e-4, augment=True)


def paper_recipe(dataset: str, model: str) -> Recipe:
    """The paper's settings for a data set and a network (its table of hyper-parameters).

    Args:
        dataset: "cifar10", "cifar100" or "tiny_imagenet".
        model: a name of `models.by_name`: a VGG or a ResNet.

    Raises:
        ValueError: the paper trained no such pair.

    >>> paper_recipe("cifar10", "vgg16").milestones
    (60, 120)
    """
    kinds = {"vgg": _CIFAR_VGG, "resnet": _CIFAR_RESNET, "wide_resnet": _CIFAR_RESNET}
    kind = next((kind for kind in kinds if str(model).startswith(kind)), None)
    if kind and dataset in ("cifar10", "cifar100"):
        return kinds[kind]
    if kind and dataset == "tiny_imagenet":
        return _TINY_IMAGENET
    raise ValueError(
        f"the paper has no recipe for {model!r} on {dataset!r}; it trained VGGs and ResNets on"
        " 'cifar10', 'cifar100' and 'tiny_imagenet'. Write your own: Recipe(epochs=..., ...)"
    )
