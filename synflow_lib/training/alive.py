"""A masked network trained without its dead units, most of them at high compression.

A unit may go only where training cannot tell, which is the case for two kinds:

* no kept path leads from it to the output, so it gets no gradient;
* no input reaches it, *and* it is silent: what it sends on is exactly zero, and so is the gradient
  of all that could change this. With ReLU behind it and no bias yet, a unit without inputs is
  silent; with LeakyReLU, or with a bias above zero, it is a constant that learns, and stays. So
  does one of which weight decay alone could make such a constant.

Weights that the masks keep but that lie on no path do not learn, but weight decay shrinks them: an
optimizer sees them as one vector, with a gradient of zero, beside the smaller network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..graphs.network import PRUNABLE
from ..masks import Masks
from ..randomness import own_random_numbers
from ..surgery import flops
from ..values import instance
from .learners import Learner, One
from .living import Parts, living_parts, written
from .recipes import Recipe

_LITTLE = 0.05  # of the multiply-adds: a smaller saving is none
_SAVED = 1e12  # multiply-adds in all of training: about what a core does while parts are found


def learner_for(
    model: nn.Module,
    masks: Masks | None,
    dataset: Dataset,
    recipe: Recipe,
    *,
    compact: bool | None,
    watched: bool = False,
    amp: bool | None = None,
    compile: bool = False,
) -> Learner:
    """The learner of one network: `Alive` if ``compact``, or if None and it pays; else `One`.

    ``watched`` says that a callback will see the network: where not asked for, no smaller one is
    trained in its place, into which what the callback writes could not be carried.

    Raises:
        ValueError: with ``compact=True``, a network whose dead units cannot be told or taken out.
        TypeError: another ``compact``.
    """
    if compact is not None and not isinstance(compact, bool):
        raise TypeError(f"compact={compact!r}; expected True, False or None (where it pays)")
    shape = instance(dataset, Dataset, "dataset").input_shape
    instance(recipe, Recipe, "recipe")
    passes = 3.0 * len(dataset.train_y) * recipe.epochs  # forward, and twice as much back
    silently = compact is None and masks is not None and not watched
    if compact or (silently and passes * _bound(model, shape) > _SAVED):
        try:
            kept = Masks.ones(model) if masks is None else masks
            parts = living_parts(model, kept, shape, flips=_flips(recipe))
            before, after = (_work(net, shape) for net in (model, parts.net))
            if compact or before - after > max(_SAVED / passes, _LITTLE * before):
                return Alive(model, parts, amp=amp, compile=compile)
        except ValueError:
            if compact:
                raise
    return One(model, None if masks is None else [masks], amp=amp, compile=compile)


def _bound(model: nn.Module, shape: tuple[int, ...]) -> int:
    """More than `_work`, and found at once: as if every map were as large as the image."""
    weights = [m.weight for m in model.modules() if isinstance(m, PRUNABLE)]
    return sum(w.numel() * (math.prod(shape[1:]) if w.dim() > 2 else 1) for w in weights)


def _work(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds for one image."""
    with own_random_numbers(0):  # the user's forward runs
        return int(flops(model, input_shape=shape)["dense"].sum())


def _flips(recipe: Recipe) -> bool:
    """Whether weight decay can carry a number, which has no other gradient, past zero.

    SGD without too much momentum only shrinks it. By induction: if no step h of decay takes more
    than a part d of the number, momentum m adds up to h / (1 - m / (1 - d)) of it, which is
    at most d if h <= (1 - sqrt(m))^2 and d = 1 - sqrt(m). Steps of Adam are as large near zero as
    anywhere.
    """
    step = recipe.learning_rate * recipe.weight_decay  # the rate is never above that
    return step > (0.0 if recipe.optimizer == "adam" else (1 - math.sqrt(recipe.momentum)) ** 2)


class Alive(One):
    """A masked network of which only the living units are trained."""

    def __init__(
        self, model: nn.Module, parts: Parts, *, amp: bool | None = None, compile: bool = False
    ) -> None:
        # Measured on a CPU: layers with any number of channels are faster so in float32 too.
        super().__init__(parts.net, [parts.masks], amp=amp, compile=compile, channels_last=True)
        self.whole, self.parts = model, parts
        aside = [model.get_parameter(name)[where] for name, where in parts.aside.items()]
        self.beside = nn.Module()  # what the smaller network does not hold
        self.beside.kept = nn.Parameter(torch.cat([self.parameters[0].new_empty(0), *aside]))
        self.beside.fading = nn.ModuleList(
            _statistics(model.get_submodule(name), rows) for name, rows in parts.fading.items()
        )
        self.parameters.append(self.beside.kept)

    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor:
        for norm in self.beside.fading if train else ():
            norm(torch.zeros_like(norm.running_mean).expand(2, -1))
        return super()._forward(x, train, own)

    def _tensors(self) -> dict[str, Tensor]:
        return self.model.state_dict() | self.beside.state_dict(prefix="beside ")

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One step downhill; the numbers aside have a gradient, which is zero."""
        super().step(loss + 0.0 * self.beside.kept.sum(), optimizer)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the whole network its trained weights, statistics and mode."""
        whole, small = self.whole.state_dict(), self.model.state_dict()
        for name, places in self.parts.places.items():
            whole[name].copy_(written(whole[name], places, small[name]))
        numbers = self.beside.kept.split([int(each.sum()) for each in self.parts.aside.values()])
        for (name, where), part in zip(self.parts.aside.items(), numbers, strict=True):
            whole[name][where] = part
        for (name, rows), norm in zip(self.parts.fading.items(), self.beside.fading, strict=True):
            for statistic in ("running_mean", "running_var"):
                whole[f"{name}.{statistic}"][rows] = getattr(norm, statistic)
        self.whole.train(self.model.training)
        self.given = self._seen()

    def read_back(self, optimizer: torch.optim.Optimizer) -> None:
        """ValueError where the whole network is not what was given back.

        A bias written into a unit that is silent could wake it, and it is not here.
        """
        (layers, tensors), (layers_given, tensors_given) = self._seen(), self.given
        try:
            torch.testing.assert_close(tensors, tensors_given, rtol=0, atol=0, equal_nan=True)
            changed = layers != layers_given
        except AssertionError:
            changed = True
        if changed:
            raise ValueError(
                "after_epoch changed the network, of which a smaller copy is trained; use"
                " compact=False, or only look at the network there"
            )

    def _seen(self) -> tuple[str, dict[str, Tensor | bool]]:
        """What training depends on: layers with their settings, tensors and which are frozen."""
        tensors = {name: tensor.clone() for name, tensor in self.whole.state_dict().items()}
        frozen = {f"{name} learns": p.requires_grad for name, p in self.whole.named_parameters()}
        return repr(self.whole), tensors | frozen


def _statistics(norm: nn.Module, rows: Tensor) -> nn.BatchNorm1d:
    """A BatchNorm that sees what these channels of ``norm`` see, and nothing else: zeros."""
    found = nn.BatchNorm1d(int(rows.sum()), momentum=norm.momentum, affine=False)
    found.running_mean, found.running_var = norm.running_mean[rows], norm.running_var[rows]
    found.num_batches_tracked = norm.num_batches_tracked.clone()
    return found
