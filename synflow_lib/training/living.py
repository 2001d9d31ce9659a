"""Taking a masked network apart in what training changes and what it does not (see `alive`)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..masks import Masks
from ..randomness import own_random_numbers
from ..surgery import NORM_TENSORS, cut_out, separable, spare_one
from ..wiring import Wiring

_TOLERANCE = 1e-9  # of gradients in float64, relative to the largest
_CHANCE = 1e-6  # of gradients, between two disturbances of the size of rounding


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
