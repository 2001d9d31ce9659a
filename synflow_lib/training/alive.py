"""Training what is alive: a masked network trained without its dead units, to the same result.

At compression 100 and beyond most units of a network are dead: they compute zeros, or nothing reads
them. `Alive` trains a smaller network without them and gives its weights back to the whole one.

A unit may go only where training cannot tell, which is the case for two kinds:

* no kept path leads from it to the output, so it gets no gradient;
* no input reaches it, *and* it is silent: what it sends on is exactly zero, and so is the gradient
  of all that could change this. With ReLU behind it and no bias yet, a unit without inputs is
  silent; with LeakyReLU, or with a bias above zero, it is a constant that learns, and stays. So
  does one of which weight decay alone could make such a constant.

Weights that the masks keep but that lie on no path do not learn. Weight decay shrinks them all the
same, and an optimizer that works number by number need not know where a weight stands: they form
one vector, with a gradient of zero, beside the smaller network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..graph import PRUNABLE, skeleton
from ..masks import Masks
from .learners import Learner, One
from .living import Parts, living_parts
from .recipes import Recipe

_LITTLE = 0.05  # of the multiply-adds: a smaller saving is none
_SAVED = 1e12  # multiply-adds in all of training: about what a core does while parts are found
_ASIDE = "kept_off_path"  # name of the vector of weights that no path reaches


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
    options, shape = {"amp": amp, "compile": compile}, dataset.input_shape
    passes = 3.0 * len(dataset.train_y) * recipe.epochs  # forward, and twice as much back
    if compact or (
        compact is None
        and not watched
        and masks is not None
        and passes * _bound(model, shape) > _SAVED
    ):
        try:
            kept = Masks.ones(model) if masks is None else masks
            parts = living_parts(model, kept, shape, flips=_flips(recipe))
            before, after = (_work(net, shape) for net in (model, parts.net))
            if compact or before - after > max(_SAVED / passes, _LITTLE * before):
                return Alive(model, parts, **options)
        except ValueError:
            if compact:
                raise
    return One(model, None if masks is None else [masks], **options)


def _flips(recipe: Recipe) -> bool:
    """Whether weight decay can carry a number, which has no other gradient, past zero.

    SGD without too much momentum only shrinks it. By induction: if no step h of decay takes more
    than a part d of the number, momentum m adds up to h / (1 - m / (1 - d)) of it, which is
    at most d if h <= (1 - sqrt(m))^2 and d = 1 - sqrt(m). Steps of Adam are as large near zero as
    anywhere.
    """
    step = recipe.learning_rate * recipe.weight_decay  # the rate is never above that
    return step > (0.0 if recipe.optimizer == "adam" else (1 - math.sqrt(recipe.momentum)) ** 2)


def _bound(model: nn.Module, shape: tuple[int, ...]) -> int:
    """More multiply-adds than an image takes: as if every map were as large as the image."""
    places = math.prod(shape[1:])
    weights = [m.weight for m in model.modules() if isinstance(m, PRUNABLE)]
    return sum(weight.numel() * (places if weight.dim() > 2 else 1) for weight in weights)


@torch.no_grad()
def _work(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds for one image."""
    net, counts = skeleton(model), []
    for module in net.modules():
        if isinstance(module, PRUNABLE):
            module.register_forward_hook(
                lambda m, _, y: counts.append(m.weight.numel() * y.numel() // len(m.weight))
            )
    net(torch.empty(1, *shape, device="meta", dtype=next(net.parameters()).dtype))
    return sum(counts)


class Alive(One):
    """A masked network of which only the living units are trained."""

    def __init__(
        self, model: nn.Module, parts: Parts, *, amp: bool | None = None, compile: bool = False
    ) -> None:
        named = dict(model.named_parameters())
        with torch.no_grad():
            aside = [named[name][where].flatten() for name, where in parts.aside.items()]
        like = next(model.parameters())
        vector = torch.cat(aside) if aside else like.new_empty(0)
        parts.net.register_parameter(_ASIDE, nn.Parameter(vector))
        # Measured on a CPU: layers with any number of channels are faster so in float32 too.
        super().__init__(parts.net, [parts.masks], amp=amp, compile=compile, channels_last=True)
        self.whole, self.parts = model, parts
        # BatchNorm statistics of units that see zeros, as they were before training.
        self.start = {
            name: {n: t.clone() for n, t in model.get_submodule(name).named_buffers()}
            for name in parts.fading
        }

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One step downhill; the numbers aside have a gradient, which is zero."""
        super().step(loss + 0.0 * self.model.get_parameter(_ASIDE).sum(), optimizer)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the whole network its trained weights, statistics and mode."""
        whole = self.whole.state_dict(keep_vars=True)
        state = self.state()
        for name, index in self.parts.index.items():
            whole[name].detach()[index] = state[name]
        vector, start = state[_ASIDE], 0
        for name, where in self.parts.aside.items():
            count = int(where.sum())
            whole[name].detach()[where] = vector[start : start + count]
            start += count
        for name, rows in self.parts.fading.items():
            self._fade(self.whole.get_submodule(name), self.start[name], rows)
        self.whole.train(self.model.training)
        self.given = self._seen()

    def read_back(self, optimizer: torch.optim.Optimizer) -> None:
        """ValueError where the whole network is not what was given back.

        A bias written into a unit that is silent could wake it, and it is not here.
        """
        now = self._seen()
        changed = [name for name in now | self.given if not _equal(now, self.given, name)]
        if changed:
            raise ValueError(
                f"after_epoch changed {changed[0] or 'the network'}, of which a smaller copy is"
                " trained; use compact=False, or only look at the network there"
            )

    def _seen(self) -> dict[str, Tensor | str]:
        """What training depends on: tensors by name, and layers with their settings as text."""
        tensors = {name: tensor.clone() for name, tensor in self.whole.state_dict().items()}
        frozen = {
            f"requires_grad of {name}": str(parameter.requires_grad)
            for name, parameter in self.whole.named_parameters()
        }
        return tensors | frozen | {"": repr(self.whole)}

    @staticmethod
    def _fade(norm: nn.Module, start: dict[str, Tensor], rows: Tensor) -> None:
        """What batches of zeros make of running statistics: a factor 1 - momentum each."""
        before = int(start["num_batches_tracked"])
        batches = int(norm.num_batches_tracked) - before
        if norm.momentum is None:  # plain averages over all batches
            factor = before / max(1, before + batches)
        else:
            factor = (1.0 - norm.momentum) ** batches
        for name in ("running_mean", "running_var"):
            getattr(norm, name)[rows] = start[name][rows] * factor


def _equal(a: dict, b: dict, name: str) -> bool:
    mine, theirs = a.get(name), b.get(name)
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
        return mine is theirs or (type(mine) is type(theirs) and mine == theirs)
    return mine.shape == theirs.shape and torch.allclose(mine, theirs, 0, 0, equal_nan=True)
