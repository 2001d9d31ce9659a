"""What pruning saves: the network without its dead units, and multiply-adds by layer."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .batches import Inputs, call, inflow
from .collapse import PathProbe
from .graphs.copies import private_copy, skeleton
from .graphs.draws import draws
from .graphs.follow import wiring
from .graphs.network import (
    BATCH_NORM,
    CONV_TRANSPOSED,
    LINEAR,
    PRUNABLE,
    find_input_shape,
    first_weight,
    prunable,
    trace,
    unwrapped,
)
from .graphs.nodes import calls
from .graphs.tracing import plain_output
from .graphs.units import NORM_TENSORS, Layer, Wiring, keep_units_, spare_one_, sums_of_units
from .graphs.workspace import explained_errors, isolated
from .masks import Masks
from .values import instance

_ROUNDING = 1e-13  # of sums in float64, relative
_ACROSS_CHANNELS = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.MultiheadAttention)
_SUPPORTED = (
    "supported are networks of Linear, convolution and BatchNorm layers, each used once,"
    " joined by element-wise activations, pooling, flatten, residual sums and concatenation"
)


@torch.inference_mode(False)  # where linear layers are not split into what can be counted
def flops(
    model: nn.Module, masks: Masks | None = None, input_shape: Iterable[int] | None = None
) -> pd.DataFrame:
    """Multiply-adds of each prunable layer for one input.

    Counted by the formulas of ``torch.utils.flop_counter``, two operations a multiply-add; kernel
    taps that reach over the border count like the others, and additions of biases do not.

    Args:
        model: any module.
        masks: what stays; a layer that they do not name is dense. None: all of it.
        input_shape: of one input, where the network does not tell it.

    Returns:
        One row a layer in forward order: layer (the weight's name), dense, and pruned, what is
        left if only kept weights are multiplied: dense times the layer's density. Both 0
        for a layer whose module does not run, such as one used through its weight alone.

    Raises:
        ValueError: masks of another network, an input that the network cannot take.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> flops(net, Masks({"0.weight": torch.arange(12).view(3, 4) < 5})).values.tolist()
    [['0.weight', 12, 5], ['2.weight', 6, 6]]
    """
    shape = find_input_shape(instance(model, nn.Module, "model"), input_shape)
    found = prunable(model)
    named = [] if masks is None else instance(masks, Masks, "masks").parameters_of(model)
    kept = {id(weight): int(masks[name].sum()) for name, weight in named}
    net, meta = skeleton(model), torch.device("meta")  # also of what the forward makes
    x = inflow(shape, torch.empty(0, device="meta", dtype=first_weight(net).dtype))
    for norm in net.modules():  # of its batch, BatchNorm without statistics refuses a single number
        if isinstance(norm, BATCH_NORM) and norm.running_mean is None:
            norm.running_mean = norm.running_var = torch.empty(norm.num_features, device="meta")
    with explained_errors(shape, Exception), torch.no_grad(), meta, _Operations(net) as counter:
        call(net, x)
    uses: dict[int, int] = Counter()  # id of a weight -> multiply-adds of all modules that hold it
    for module, owner in unwrapped(model).named_modules():
        uses[id(owner._parameters.get("weight"))] += counter.of[module] // 2
    rows = [
        (name, dense, dense * kept.get(id(weight), weight.numel()) // weight.numel())
        for name, weight in found.items()
        for dense in [uses[id(weight)]]
    ]
    return pd.DataFrame(rows, columns=["layer", "dense", "pruned"])


class _Operations(TorchDispatchMode):
    """Counts operations by module: ``of``, name -> number, of what runs in it.

    As ``FlopCounterMode`` does, whose hooks are global: it counts what other threads run too.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()
        self.within: list[str] = []
        for name, module in net.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.within.append(name))
            module.register_forward_hook(lambda *_: (self.within.pop(), None)[1])

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        if (count := flop_registry.get(operation.overloadpacket)) is not None:
            number = count(*args, **(kwargs or {}), out_val=found)
            self.of.update(dict.fromkeys(self.within, number))
        return found


def without_dead_units(
    model: nn.Module, masks: Masks, *, input_shape: Iterable[int] | None = None
) -> nn.Module:
    """The pruned network in smaller tensors: units that lie on no input-output path are gone.

    A unit is a neuron or a feature map; a dead one is on no kept path. Either the output does not
    depend on it, or it is a constant, which goes into the biases of the layers that read it. A
    constant map seen through zero padding is no constant at the border; such a unit stays, with its
    incoming weights pruned. So does one unit of a layer whose units are all dead, for a layer needs
    one, and a unit of a group of a convolution in which another stays, for groups are alike. Inputs
    and outputs of the network always stay.

    Args:
        model: a network of Linear, convolution and BatchNorm layers, each used once, joined by
            element-wise activations, pooling, flatten, residual sums (a channel of the stream stays
            where any branch uses it) and concatenation. It is left as it is.
        masks: what stays.
        input_shape: of one input, where the network does not tell it.

    Returns:
        A new module, of a wrapped network the inner one; the same function as the masked model in
        evaluation mode, up to rounding. Pruned weights between units that are left are zero in it:
        ``Masks.from_model`` reads the masks back. The result is compared with the masked model
        before it is returned.

    Raises:
        ValueError: an operation that does not keep units apart; masks of another network.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> first = torch.tensor([[True, True], [True, False], [False, False]])
    >>> last = torch.tensor([[True, False, True]])
    >>> without_dead_units(net, Masks({"0.weight": first, "2.weight": last}))
    Sequential(
      (0): Linear(in_features=2, out_features=1, bias=True)
      (1): ReLU()
      (2): Linear(in_features=1, out_features=1, bias=True)
    )
    """
    model = unwrapped(instance(model, nn.Module, "model"))
    shape, device = find_input_shape(model, input_shape), next(model.parameters()).device
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    before = instance(masks, Masks, "masks").apply_(private_copy(model))
    before.to("cpu", torch.float64).eval()
    wires = separable(before, shape, grouped=True)
    with isolated(torch.device("cpu"), 0, draws(before, False)), torch.no_grad():
        stays = _on_paths(before, masks, shape, wires)
        added = _folded(before, wires, stays, shape)
        after = cut_out(before, wires, stays, added)
        _compare(before, after, shape)
    usual = first_weight(model).dtype  # of a bias that was not there
    for name, tensor in [*after.named_parameters(), *after.named_buffers()]:
        tensor.data = tensor.data.to(dtypes.get(name, usual))
    return after.to(device).train(model.training)


def _on_paths(net: nn.Module, masks: Masks, shape: tuple[int, ...], wires: Wiring) -> np.ndarray:
    """The units that kept paths run through, bool (units,)."""
    on_path = PathProbe(net, shape).on_path(Masks({**Masks.ones(net), **masks.to("cpu")}))
    stays = np.zeros(wires.units, bool)
    stays[wires.inputs] = stays[wires.outputs] = True
    for layer in wires.layers:
        sums = sums_of_units(layer, on_path[layer.weight])
        for units, kept in zip((layer.writes, layer.reads), sums, strict=True):
            stays[units[kept > 0]] = True
    spare_one_(stays, wires.layers)
    _keep_groups(stays, wires)
    return stays


def _keep_groups(stays: np.ndarray, wires: Wiring) -> None:
    """Let all units of a group stay where one does: what is left are whole groups."""
    grouped = [layer for layer in wires.layers if getattr(layer.module, "groups", 1) > 1]
    before = None
    while before is None or (stays != before).any():  # one layer's groups reach into another's
        before = stays.copy()
        for layer in grouped:
            count, both = layer.module.groups, (layer.reads, layer.writes)
            sides = [units.reshape(count, -1) for units in both]
            alive = np.logical_or(*(stays[units].any(1) for units in sides))
            for units in sides:
                stays[units[alive]] = True


def _folded(
    net: nn.Module, wires: Wiring, stays: np.ndarray, shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """What the leaving units add to the biases of each layer: name -> (outputs,).

    A unit whose constant no bias can stand for has to stay, which is written into ``stays``.
    """
    constants = {}  # what a layer reads when the input is zero: of a dead unit, always
    hooks = [
        net.get_submodule(layer.name).register_forward_pre_hook(
            lambda _, inputs, name=layer.name: constants.__setitem__(name, inputs[0][0])
        )
        for layer in wires.layers
    ]
    # Two, as BatchNorm without stored statistics refuses a single one.
    try:
        net(torch.zeros(2, *shape, dtype=torch.float64, device="cpu"))
    except RuntimeError as error:
        raise ValueError(
            f"the network cannot run in float64, in which both are compared ({error}); something in"
            " its forward asks for another type"
        ) from error
    for hook in hooks:
        hook.remove()
    while True:
        before = stays.copy()
        added = {
            layer.name: _fold(net.get_submodule(layer.name), layer, constants[layer.name], stays)
            for layer in wires.layers
        }
        _keep_groups(stays, wires)
        if (stays == before).all():  # else a unit that stays after all may read other constants
            return added


def _fold(module: nn.Module, layer: Layer, constants: Tensor, stays: np.ndarray) -> Tensor:
    rows = torch.from_numpy(stays[layer.writes])
    leaving = torch.from_numpy(~stays[layer.reads])
    added = torch.zeros(len(rows), dtype=torch.float64, device="cpu")
    if getattr(module, "groups", 1) > 1:  # whole groups leave, and no other reads them
        return added
    if isinstance(module, LINEAR):
        added[rows] = module.weight[rows][:, leaving] @ constants[leaving]
        return added
    transposed = isinstance(module, CONV_TRANSPOSED)
    silent = ~constants.flatten(1).any(1)
    for channel in (leaving & ~silent).nonzero().flatten().tolist():
        first, second = ([channel], rows) if transposed else (rows, [channel])
        weight = module.weight[first][:, second]
        if not weight.any():
            continue
        part = copy.copy(module)
        part._parameters = {"weight": weight, "bias": None}
        adds = part(constants[None, [channel]])[0].flatten(1)
        value = adds.mean(1)
        if ((adds - value[:, None]).abs() > _ROUNDING * adds.abs().amax()).any():
            stays[layer.reads[channel]] = True
        else:
            added[rows] += value
    return added


def separable(net: nn.Module, shape: tuple[int, ...], *, grouped: bool = False) -> Wiring:
    """The wiring of a network whose units can be taken out; ValueError for any other.

    With ``grouped`` also of grouped and transposed convolutions.
    """
    _check(net, shape, grouped)
    try:
        return wiring(net, shape)
    except ValueError as error:
        raise ValueError(f"units cannot be removed here ({error}); {_SUPPORTED}") from error


def cut_out(
    net: nn.Module, wires: Wiring, stays: np.ndarray, added: dict[str, Tensor] | None = None
) -> nn.Module:
    """A copy of ``net`` with only the units that stay, bool (units,), and weights between them.

    ``added`` goes into the biases of a layer, name -> (outputs,).
    """
    after = private_copy(net)
    with torch.no_grad():
        for layer in wires.layers:
            sides = [torch.from_numpy(stays[units]) for units in (layer.writes, layer.reads)]
            _cut_layer(after.get_submodule(layer.name), *sides, (added or {}).get(layer.name))
        for norm in wires.norms:
            module = after.get_submodule(norm.name)
            keep_units_(module, NORM_TENSORS, stays[norm.writes])
            module.num_features = int(stays[norm.writes].sum())
    return after


def _cut_layer(module: nn.Module, rows: Tensor, columns: Tensor, added: Tensor | None) -> None:
    weight, bias = module.weight, module.bias
    if bias is not None or (added is not None and added.any()):
        grad = (weight if bias is None else bias).requires_grad
        total = added if bias is None else bias if added is None else bias + added
        module.bias = nn.Parameter(total[rows], requires_grad=grad)
    # A weight is (out, in / groups, *kernel), or transposed (in, out / groups, *kernel).
    first, second = (columns, rows) if isinstance(module, CONV_TRANSPOSED) else (rows, columns)
    cut = weight[first]
    if getattr(module, "groups", 1) == 1:
        cut = cut[:, second]
    else:
        module.groups = module.groups * int(rows.sum()) // len(rows)
    module.weight = nn.Parameter(cut, requires_grad=weight.requires_grad)
    sizes = "features" if isinstance(module, LINEAR) else "channels"
    setattr(module, f"out_{sizes}", int(rows.sum()))
    setattr(module, f"in_{sizes}", int(columns.sum()))


def _check(net: nn.Module, shape: Inputs, grouped: bool) -> None:
    """ValueError where a unit is more than rows, columns and entries of BatchNorm."""
    called = calls(trace(net, shape).graph)
    owners = Counter(id(m.weight) for m in net.modules() if isinstance(m, PRUNABLE))
    for name, module in net.named_modules():
        problem = None
        special = isinstance(module, CONV_TRANSPOSED) or getattr(module, "groups", 1) != 1
        if special and not grouped:
            problem = "is a grouped or transposed convolution"
        elif isinstance(module, PRUNABLE) and owners[id(module.weight)] > 1:
            problem = "shares its weight with another layer"
        elif isinstance(module, (*PRUNABLE, *BATCH_NORM)) and called[name] > 1:
            problem = f"is used {called[name]} times"
        elif isinstance(module, _ACROSS_CHANNELS) or (
            isinstance(module, nn.PReLU) and module.num_parameters > 1
        ):
            problem = f"is a {type(module).__name__}, which tells units apart by their place"
        if problem:
            raise ValueError(f"units cannot be removed here: {name} {problem}; {_SUPPORTED}")


def _compare(before: nn.Module, after: nn.Module, shape: tuple[int, ...]) -> None:
    """ValueError where the smaller network is another function, for what no check foresaw."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *shape, dtype=torch.float64, generator=generator, device="cpu")
    try:
        pairs = zip(*(tree_leaves(plain_output(net(x))) for net in (before, after)), strict=True)
        difference = max(
            float((b - a).abs().max() / a.abs().max().clamp(min=1))
            for a, b in pairs
            if isinstance(a, torch.Tensor)
        )
    except RuntimeError as error:  # a size that is written into the forward pass
        raise ValueError(f"the network cannot run with fewer units ({error})") from error
    if not difference <= 1e-9:
        raise ValueError(
            f"without its dead units the network differs by {difference:.1e}: it does something"
            f" with them that this function does not know; {_SUPPORTED}"
        )
