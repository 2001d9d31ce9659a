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

import copy
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Dataset
from .graph import PRUNABLE, skeleton
from .learners import Learner, One
from .masks import Masks
from .randomness import own_random_numbers
from .recipes import Recipe
from .surgery import NORM_TENSORS, cut_out, separable, spare_one
from .wiring import Wiring

_LITTLE = 0.05  # of the multiply-adds: a smaller saving is none
_SAVED = 1e12  # multiply-adds in all of training: about what a core does while parts are found
_ASIDE = "kept_off_path"  # name of the vector of weights that no path reaches
_TOLERANCE = 1e-9  # of gradients in float64, relative to the largest
_CHANCE = 1e-6  # of gradients, between two disturbances of the size of rounding


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


@dataclass(frozen=True)
class Parts:
    """A masked network taken apart.

    Attributes:
        net: the smaller network, under the ``masks`` of the weights that it has.
        index: name of a parameter or buffer -> where the smaller tensor stands in the whole one;
            an empty tuple for all of it.
        aside: name -> bool tensor, the kept numbers that are not in the smaller network.
        fading: name of a BatchNorm -> bool (channels,), those that see nothing but zeros.
    """

    net: nn.Module
    masks: Masks
    index: dict[str, tuple[Tensor, ...]]
    aside: dict[str, Tensor]
    fading: dict[str, Tensor]


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


def living_parts(
    model: nn.Module, masks: Masks, input_shape: Iterable[int], *, flips: bool = False
) -> Parts:
    """Take a masked network apart in what training changes and what it does not.

    Args:
        model: as for `surgery.without_dead_units`; the zeros of the masks are written into it.
        masks: what stays.
        input_shape: of one input.
        flips: whether weight decay may carry a number past zero.

    Raises:
        ValueError: a network whose units cannot be taken out, dropout (which would draw other
            numbers), hooks, or gradients that differ; masks of another network.

    >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    >>> first = torch.tensor([[True, True], [True, False], [False, False]])
    >>> last = torch.tensor([[True, False, True]])
    >>> parts = living_parts(net, Masks({"0.weight": first, "2.weight": last}), (2,))
    >>> parts.net[0], {name: int(where.sum()) for name, where in parts.aside.items()}
    (Linear(in_features=2, out_features=1, bias=False), {'0.weight': 1, '2.weight': 1})
    """
    shape = tuple(input_shape)
    _check(model)
    masks.apply_(model)
    exact = copy.deepcopy(model).to("cpu", torch.float64)
    wires = separable(exact, shape)
    kept = {layer.name: _kept(layer.name, layer.module, masks) for layer in wires.layers}
    try:  # the user's forward runs
        stays, reached, silent_norms = _what_stays(exact, wires, kept, shape, flips)
    except RuntimeError as error:
        raise ValueError(f"the network cannot run in float64 ({error})") from error
    index = _indices(model, wires, stays)
    small = cut_out(model, wires, stays)
    small_masks = Masks({name: mask.cpu()[index[name]] for name, mask in masks.items()})
    aside = {}
    for name, parameter in model.named_parameters():
        if index[name] and parameter.requires_grad:
            out = torch.ones(parameter.shape, dtype=torch.bool, device=parameter.device)
            out[index[name]] = False
            if name in masks:
                out &= masks[name].to(out.device)
            if out.any():
                aside[name] = out
    fading = {}
    for norm in wires.norms:
        module = model.get_submodule(norm.name)
        units = norm.writes
        rows = ~stays[units] & ~reached[units] & silent_norms[norm.name]
        if module.running_mean is not None and rows.any():
            fading[norm.name] = torch.from_numpy(rows).to(module.running_mean.device)
    try:
        small_exact = cut_out(exact, wires, stays)
        x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with own_random_numbers(0):
            _refuse_chance(exact, wires, x)
            _compare_training(exact, small_exact, masks, index, aside, x)
    except RuntimeError as error:  # a size that is written into the forward pass
        raise ValueError(f"the network cannot run with fewer units ({error})") from error
    return Parts(small, small_masks, index, aside, fading)


def _check(model: nn.Module) -> None:
    for name, module in model.named_modules():
        problem = None
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            problem = "is dropout, which would draw other random numbers for fewer units"
        elif any(
            getattr(module, f"_{kind}")
            for kind in ("forward_hooks", "forward_pre_hooks", "backward_hooks")
        ):
            problem = "has hooks, which would not see the smaller network"
        if problem:
            raise ValueError(
                f"the network cannot be trained without its dead units: {name or 'it'} {problem};"
                " use compact=False"
            )


def _kept(name: str, module: nn.Module, masks: Masks) -> np.ndarray:
    """Which outputs of a layer read which inputs, bool (outputs, inputs)."""
    full = f"{name}.weight" if name else "weight"
    if full not in masks:
        return np.ones(module.weight.shape[:2], bool)
    mask = masks[full].cpu()
    return mask.view(*mask.shape[:2], -1).any(2).numpy()


def _what_stays(
    net: nn.Module,
    wires: Wiring,
    kept: dict[str, np.ndarray],
    shape: tuple[int, ...],
    flips: bool,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Units that stay; units that anything but zero reaches; BatchNorm channels without bias."""
    ends = np.zeros(wires.units, bool)
    ends[wires.outputs] = True
    reaches = _spread(
        ends, [(layer.writes, layer.reads, kept[layer.name].T) for layer in wires.layers[::-1]]
    )
    sounding, silent_norms = _constants(net, wires, shape, flips)
    sources = sounding.copy()
    sources[wires.inputs] = True
    reached = _spread(
        sources, [(layer.reads, layer.writes, kept[layer.name]) for layer in wires.layers]
    )
    stays = reached & reaches
    stays[wires.inputs] = stays[wires.outputs] = True
    spare_one(stays, wires)
    return stays, reached, silent_norms


def _spread(
    start: np.ndarray, edges: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> np.ndarray:
    """All units that can be got to along (from, to, joined) from where ``start`` is True."""
    found, before = start.copy(), -1
    while before != (before := int(found.sum())):  # residual streams take a second round
        for source, target, joined in edges:
            found[target[joined[:, found[source]].any(1)]] = True
    return found


def _constants(
    net: nn.Module, wires: Wiring, shape: tuple[int, ...], flips: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which units are more than silence when nothing flows into them.

    With all weights zero each unit is on its own: what the layers read is what biases, BatchNorm
    and activations make of nothing, and gradients tell whether they could change it. Weight decay
    can: it takes biases to zero, where Hardswish of -4 is no longer silent, or past it (``flips``).
    """
    net = copy.deepcopy(net)
    parameters = {name: p.requires_grad_(True) for name, p in net.named_parameters()}
    with torch.no_grad():
        for layer in wires.layers:
            net.get_submodule(layer.name).weight.zero_()
    start = {name: p.detach().clone() for name, p in parameters.items()}
    seen: dict[str, Tensor] = {}
    for part in [*wires.layers, *wires.norms]:
        net.get_submodule(part.name).register_forward_pre_hook(
            lambda _, inputs, name=part.name: seen.__setitem__(name, inputs[0])
        )
    sounding = np.zeros(wires.units, bool)
    silent = {norm.name: np.ones(len(norm.reads), bool) for norm in wires.norms}
    generator = torch.Generator().manual_seed(0)
    factors = (1.0, 0.0, -1.0) if flips else (1.0, 0.0)
    for factor, train in itertools.product(factors, (True, False)):
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name] * factor)
        net.train(train)
        net(torch.rand(2, *shape, dtype=torch.float64, generator=generator))
        total = 0.0
        for layer in wires.layers:
            read = seen[layer.name]
            loud = (read != 0).transpose(0, 1).flatten(1).any(1).numpy()
            sounding[layer.reads[loud]] = True
            total = total + (read * torch.rand(read.shape, generator=generator)).sum()
        for norm in wires.norms:
            loud = (seen[norm.name] != 0).transpose(0, 1).flatten(1).any(1).numpy()
            silent[norm.name] &= ~loud
            # Running means lag behind a constant that decays: silence does not last.
            sounding[norm.reads[loud]] = True
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        gradients = dict(zip(parameters, found, strict=True))
        for part in [*wires.layers, *wires.norms]:
            owner = f"{part.name}." if part.name else ""
            kinds = ("bias",) if part in wires.layers else ("weight", "bias")
            for kind in kinds:
                gradient = gradients.get(owner + kind)
                if gradient is not None:
                    sounding[part.writes[(gradient != 0).numpy()]] = True
    return sounding, silent


def _indices(model: nn.Module, wires: Wiring, stays: np.ndarray) -> dict[str, tuple[Tensor, ...]]:
    tensors = model.state_dict()
    index: dict[str, tuple[Tensor, ...]] = dict.fromkeys(tensors, ())

    def chosen(units: np.ndarray) -> Tensor:
        return torch.from_numpy(np.flatnonzero(stays[units]))

    for part in [*wires.layers, *wires.norms]:
        owner = f"{part.name}." if part.name else ""
        for kind in NORM_TENSORS:
            tensor = tensors.get(owner + kind)
            if tensor is None:
                continue
            rows = chosen(part.writes)
            two = tensor.dim() > 1
            index[owner + kind] = (rows[:, None], chosen(part.reads)) if two else (rows,)
    return index


def _refuse_chance(net: nn.Module, wires: Wiring, x: Tensor) -> None:
    """ValueError where rounding decides which gradients flow.

    What batch statistics make of a constant is rounding, other among fewer channels; ReLU behind a
    beta of zero lets the gradient through or not by its sign.
    """
    net, constant = copy.deepcopy(net), {}
    generator = torch.Generator().manual_seed(0)

    def disturb(norm: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        values = inputs[0].detach().transpose(0, 1).flatten(1)
        size, room = values.abs().amax(1), values.amax(1) - values.amin(1)
        where = (size > 0) & (room <= _TOLERANCE * size)
        constant[norm] = bool(where.any()) or constant.get(norm, False)
        shape = (1, -1, *[1] * (inputs[0].dim() - 2))
        noise = torch.randn(inputs[0].shape, generator=generator, dtype=x.dtype) * 1e-14
        return inputs[0] + noise * (size * where).view(shape)

    names = {net.get_submodule(norm.name): norm.name for norm in wires.norms}
    for norm in names:
        norm.register_forward_pre_hook(disturb)
    with torch.no_grad():
        net.train()(x)
    at = next((names[norm] for norm, found in constant.items() if found), None)
    if at is None:
        return
    _, wanted = _outputs_and_gradients(net, x)
    _, got = _outputs_and_gradients(net, x)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values() if gradient.numel())
    if any(bool(((got[n] - wanted[n]).abs() > _CHANCE * largest).any()) for n in wanted):
        raise ValueError(
            "without its dead units the network would train otherwise: in train mode BatchNorm"
            f" ({at}) makes rounding errors of a channel that is constant, and gradients depend on"
            " them; use compact=False, or layers without bias in front of BatchNorm"
        )


def _compare_training(
    whole: nn.Module,
    small: nn.Module,
    masks: Masks,
    index: dict[str, tuple[Tensor, ...]],
    aside: dict[str, Tensor],
    x: Tensor,
) -> None:
    """ValueError where a step of the smaller network would not be that of the whole one."""
    outputs, gradients = zip(
        *(_outputs_and_gradients(net, x) for net in (whole, small)), strict=True
    )
    wanted, got = gradients
    for name, mask in masks.items():
        wanted[name] *= mask.cpu()
        got[name] *= mask.cpu()[index[name]]
    largest = max(float(gradient.abs().max()) for gradient in wanted.values() if gradient.numel())
    pairs = {f"the gradient of {n}": (got[n], wanted[n][index[n]], largest) for n in got}
    pairs["the output"] = (*outputs[::-1], float(outputs[0].abs().max()))
    for name, where in aside.items():
        learns = wanted[name][where.cpu()]
        pairs[f"what leaves {name}"] = (learns, torch.zeros_like(learns), 0.0)
    for what, (mine, theirs, scale) in pairs.items():
        if not bool(((mine - theirs).abs() <= _TOLERANCE * scale).all()):
            raise ValueError(
                f"without its dead units the network would train otherwise: {what} differs by up to"
                f" {float((mine - theirs).abs().max()):.1e}; use compact=False"
            )


def _outputs_and_gradients(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """In evaluation and train mode, (2, images, outputs); gradients by name."""
    parameters = {name: p.requires_grad_(True) for name, p in net.named_parameters()}
    with torch.no_grad():
        evaluated = net.eval()(x).flatten(1)
    logits = net.train()(x).flatten(1)
    loss = F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1])
    found = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    return torch.stack([evaluated, logits.detach()]), dict(zip(parameters, found, strict=True))
