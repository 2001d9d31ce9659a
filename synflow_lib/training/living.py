"""Taking a masked network apart in what training changes and what it does not (see `alive`)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..graphs.copies import private_copy
from ..graphs.units import Layer, Wiring, spare_one_
from ..masks import Masks
from ..randomness import own_random_numbers
from ..surgery import cut_out, separable
from .learners import apply_masks

Tensors = dict[str, Tensor]  # by the name of a parameter or buffer
_TOLERANCE = 1e-9  # of gradients in float64, relative to the largest
_CHANCE = 1e-6  # of gradients, between two disturbances of the size of rounding


@dataclass(frozen=True)
class Parts:
    """A masked network taken apart.

    Attributes:
        net: the smaller network, under the ``masks`` of the weights that it has.
        places: name of a parameter or buffer -> where each number of the smaller one stands in the
            whole one, counted as in ``flatten``.
        aside: name -> bool tensor, the kept numbers that are not in the smaller network.
        fading: name of a BatchNorm -> bool (channels,), those that see nothing but zeros and are
            not in the smaller network.
    """

    net: nn.Module
    masks: Masks
    places: Tensors
    aside: Tensors
    fading: Tensors


def living_parts(
    model: nn.Module, masks: Masks, input_shape: Iterable[int], *, flips: bool = False
) -> Parts:
    """Take a masked network apart in what training changes and what it does not.

    Arguments are those of `surgery.without_dead_units`; the zeros of the masks are written into
    ``model``, and ``flips`` says whether weight decay may carry a number past zero.

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
    masks = {name: mask.cpu() for name, mask in apply_masks(model, masks).items()}
    ones = functools.partial(torch.ones, dtype=torch.bool, device="cpu")
    kept = {name: ones(p.shape) for name, p in model.named_parameters()} | masks
    exact = private_copy(model).to("cpu", torch.float64)
    wires = separable(exact, shape)
    try:  # the user's forward runs
        stays, zeros = _what_stays(exact, wires, kept, shape, flips)
    except RuntimeError as error:
        raise ValueError(f"the network cannot run in float64 ({error})") from error
    numbered = private_copy(exact)
    for tensor in numbered.state_dict().values():
        tensor.copy_(torch.arange(tensor.numel(), device="cpu").view_as(tensor))
    numbered = cut_out(numbered, wires, stays)
    places = {name: tensor.long() for name, tensor in numbered.state_dict().items()}

    aside = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            out = written(kept[name], places[name], torch.zeros_like(places[name]).bool())
            if out.any():
                aside[name] = out
    fading = {}
    for norm in wires.norms:
        rows = zeros[norm.name] & ~stays[norm.writes]
        if model.get_submodule(norm.name).running_mean is not None and rows.any():
            fading[norm.name] = torch.from_numpy(rows)

    small = cut_out(model, wires, stays)
    try:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, *shape, dtype=torch.float64, generator=generator, device="cpu")
        with own_random_numbers(0):
            _refuse_chance(exact, wires, x)
            small_exact = private_copy(small).to("cpu", torch.float64)
            _compare_training(exact, small_exact, kept, places, aside, x)
    except RuntimeError as error:  # a size that is written into the forward pass
        raise ValueError(f"the network cannot run with fewer units ({error})") from error
    small_masks = Masks({name: kept[name].take(places[name]) for name in masks})
    device = next(model.parameters()).device
    tables = (places, aside, fading)
    moved = ({name: tensor.to(device) for name, tensor in table.items()} for table in tables)
    return Parts(small, small_masks, *moved)


def written(tensor: Tensor, places: Tensor, numbers: Tensor) -> Tensor:
    """``tensor`` with ``numbers`` at its ``places``, counted as in ``flatten``.

    What ``Tensor.put`` does, of which torch has no deterministic kernel.
    """
    flat = tensor.flatten().index_put((places.flatten(),), numbers.flatten())
    return flat.view(tensor.shape)


def _check(model: nn.Module) -> None:
    for name, module in model.named_modules():
        problem = None
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            problem = "is dropout, which would draw other random numbers for fewer units"
        elif module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            problem = "has hooks, which would not see the smaller network"
        elif type(module).get_extra_state is not nn.Module.get_extra_state:
            problem = "has an extra state, which nobody can cut"
        if problem:
            raise ValueError(
                f"the network cannot be trained without its dead units: {name or 'it'} {problem};"
                " use compact=False"
            )


def _what_stays(
    net: nn.Module, wires: Wiring, kept: Tensors, shape: tuple[int, ...], flips: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Units that stay, bool (units,); by BatchNorm, channels in which nothing but zeros arrives."""
    forward = []
    for layer in wires.layers:
        mask = kept[layer.weight]
        joined = mask.reshape(*mask.shape[:2], -1).any(2).numpy()  # (outputs, inputs)
        forward.append((layer.reads, layer.writes, joined))
    backward = [(writes, reads, joined.T) for reads, writes, joined in forward[::-1]]
    sounding, silent = _constants(net, wires, shape, flips)
    sounding[wires.inputs] = True
    ends = np.zeros(wires.units, bool)
    ends[wires.outputs] = True
    reached, reaches = _reachable(sounding, forward), _reachable(ends, backward)
    stays = reached & reaches
    stays[wires.inputs] = stays[wires.outputs] = True
    spare_one_(stays, wires.layers)
    return stays, {norm.name: silent[norm.name] & ~reached[norm.writes] for norm in wires.norms}


def _reachable(
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
    """Which units are more than silence when nothing flows into them; silent inputs of BatchNorm.

    With all weights zero each unit is on its own: what the layers read is what biases, BatchNorm
    and activations make of nothing, and gradients tell whether they could change it. Weight decay
    can: it takes biases to zero, where Hardswish of -4 is no longer silent, or past it (``flips``).
    """
    net = private_copy(net).requires_grad_(True)
    parts, seen = [*wires.layers, *wires.norms], {}
    learned = []  # parameters, each with the units that it could wake
    for part in parts:
        module = net.get_submodule(part.name)
        if isinstance(part, Layer):
            module.weight.data.zero_()
        elif module.weight is not None:
            learned.append((module.weight, part.writes))
        if module.bias is not None:
            learned.append((module.bias, part.writes))
        module.register_forward_pre_hook(
            lambda _, inputs, name=part.name: seen.__setitem__(name, inputs[0])
        )
    parameters = list(net.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    sounding = np.zeros(wires.units, bool)
    silent = {norm.name: np.ones(len(norm.reads), bool) for norm in wires.norms}
    generator = torch.Generator().manual_seed(0)
    factors = (1.0, 0.0, -1.0) if flips else (1.0, 0.0)
    for factor, train in itertools.product(factors, (True, False)):
        for parameter, value in zip(parameters, start, strict=True):
            parameter.data.copy_(value * factor)
        draw = functools.partial(torch.rand, generator=generator, device="cpu")
        net.train(train)(draw(2, *shape, dtype=torch.float64))
        for part in parts:
            loud = (seen[part.name] != 0).transpose(0, 1).flatten(1).any(1).numpy()
            # Of BatchNorm too: running means lag behind a constant that decays.
            sounding[part.reads[loud]] = True
            if part.name in silent:
                silent[part.name] &= ~loud
        reads = [seen[layer.name] for layer in wires.layers]
        total = sum((read * draw(read.shape)).sum() for read in reads)
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        gradients = dict(zip(parameters, found, strict=True))
        for parameter, units in learned:
            if gradients[parameter] is not None:
                sounding[units[(gradients[parameter] != 0).numpy()]] = True
    return sounding, silent


def _refuse_chance(net: nn.Module, wires: Wiring, x: Tensor) -> None:
    """ValueError where rounding decides which gradients flow.

    What batch statistics make of a constant is rounding, other among fewer channels; ReLU behind a
    beta of zero lets the gradient through or not by its sign. So gradients are taken twice, each
    time with other noise, of the size of rounding, on the channels that are constant.
    """
    net, constant = private_copy(net), []
    generator = torch.Generator().manual_seed(0)
    names = {net.get_submodule(norm.name): norm.name for norm in wires.norms}

    def disturb(norm: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        values = inputs[0].detach().transpose(0, 1).flatten(1)
        size, room = values.abs().amax(1), values.amax(1) - values.amin(1)
        where = (size > 0) & (room <= _TOLERANCE * size)
        if where.any():
            constant.append(names[norm])
        noise = 1e-14 * torch.randn(values.shape, generator=generator, dtype=x.dtype, device="cpu")
        noise = (noise * (size * where)[:, None]).view_as(inputs[0].transpose(0, 1))
        return inputs[0] + noise.transpose(0, 1)

    for norm in names:
        norm.register_forward_pre_hook(disturb)
    with torch.no_grad():
        net.train()(x)
    if not constant:
        return
    (_, wanted), (_, got) = _outputs_and_gradients(net, x), _outputs_and_gradients(net, x)
    room = _CHANCE * _largest(wanted)
    if any(bool(((got[name] - wanted[name]).abs() > room).any()) for name in wanted):
        raise ValueError(
            "without its dead units the network would train otherwise: in train mode BatchNorm"
            f" ({constant[0]}) makes rounding errors of a channel that is constant, and gradients"
            " depend on them; use compact=False, or layers without bias in front of BatchNorm"
        )


def _compare_training(
    whole: nn.Module, small: nn.Module, kept: Tensors, places: Tensors, aside: Tensors, x: Tensor
) -> None:
    """ValueError where a step of the smaller network would not be that of the whole one."""

    def compare(what: str, mine: Tensor, theirs: Tensor, scale: float) -> None:
        if not bool(((mine - theirs).abs() <= _TOLERANCE * scale).all()):
            raise ValueError(
                f"without its dead units the network would train otherwise: {what} differs by up to"
                f" {float((mine - theirs).abs().max()):.1e}; use compact=False"
            )

    outputs, wanted = _outputs_and_gradients(whole, x)
    small_outputs, got = _outputs_and_gradients(small, x)
    wanted = {name: gradient * kept[name] for name, gradient in wanted.items()}
    largest = _largest(wanted)
    for name, gradient in wanted.items():
        mine, theirs = got[name] * kept[name].take(places[name]), gradient.take(places[name])
        compare(f"the gradient of {name}", mine, theirs, largest)
        if name in aside:
            learns = gradient[aside[name]]
            compare(f"what leaves {name}", learns, torch.zeros_like(learns), 0.0)
    compare("the output", small_outputs, outputs, float(outputs.abs().max()))


def _largest(gradients: Tensors) -> float:
    return max(float(gradient.abs().max()) for gradient in gradients.values() if gradient.numel())


def _outputs_and_gradients(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensors]:
    """In evaluation and train mode, (2, images, outputs); gradients by name."""
    parameters = dict(net.requires_grad_(True).named_parameters())
    with torch.no_grad():
        evaluated = net.eval()(x).flatten(1)
    logits = net.train()(x).flatten(1)
    loss = F.cross_entropy(logits, torch.arange(len(x), device="cpu") % logits.shape[1])
    found = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    return torch.stack([evaluated, logits.detach()]), dict(zip(parameters, found, strict=True))
