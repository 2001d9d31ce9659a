"""What the library needs to know of a network: its prunable weights, its graph, its input shape.

Everything here looks at a model and changes nothing of it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from ..batches import Inputs, described, inflow
from ..values import instance
from .checked import checked_graph
from .copies import hooks_change, private_copy
from .export import exported
from .lasting import own_parameter, refuse_shared_memory
from .nodes import REARRANGES, TURNS, downstream, name_of, upstream
from .tracing import graph_of
from .wrappers import OwnNames, unwrapped

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE = LINEAR + CONV + CONV_TRANSPOSED
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def trace(model: nn.Module, inputs: Inputs | None = None) -> fx.GraphModule:
    """The graph of ``model`` in evaluation mode; it shares the parameters.

    By ``torch.fx``, or where that fails and ``inputs`` are given, by ``torch.export``. Tracing
    runs the forward pass, which may count its calls or draw random numbers, so it runs on a copy;
    other threads, and the caller's random numbers, do not notice. Dropout, stochastic depth and
    auxiliary outputs, which exist in train mode only, are on no path.

    Args:
        inputs: what one input looks like (see `find_input_shape`). None: of a forward with
            arguments that have defaults only the first is an input.

    Raises:
        ValueError: the forward pass cannot be traced, for instance because it branches on the
            values of a tensor; the message says what to do.

    >>> [node.op for node in trace(nn.Sequential(nn.Linear(2, 1))).graph.nodes]
    ['placeholder', 'call_module', 'output']
    """
    model = unwrapped(model)
    example = None if inputs is None else inflow(inputs, first_weight(model))
    # torch.fx looks into no layer, nor at what hooks it.
    hooked = example is not None and hooks_change(model, example)
    if isinstance(model, fx.GraphModule) and not hooked:
        return model
    shared = {id(parameter): parameter for parameter in model.parameters()}
    reasons, tracers = [], [graph_of]
    if inputs is not None:
        given = {"inputs": inputs, "example": example}
        tracers = [] if hooked else [functools.partial(checked_graph, kinds=PRUNABLE, **given)]
        tracers.append(functools.partial(exported, **given))
    for tracer in tracers:
        try:
            net = private_copy(model, shared).eval()
            traced = tracer(net)
        except Exception as error:  # the user's forward runs: anything can come out of it
            reasons.append(error)
            continue
        if any("parameter is not a member" in str(error) for error in reasons):
            warn(
                f"{type(model).__name__} runs parameters that are not its own, as of layers in a"
                " plain list: they are never pruned nor counted, and paths take them as constants."
                " Hold them in torch.nn.ModuleList or ModuleDict"
            )
        # A layer that is used through its weight alone is no layer any more in the graph's module.
        traced.meta["layer_weights"] = layer_weights(net)
        return traced
    said = "; nor by torch.export, ".join(
        f"({type(error).__name__}: {str(error).partition(chr(10))[0]})" for error in reasons
    )
    advice = "" if inputs is not None else " pass input_shape= so that torch.export can try, "
    raise ValueError(
        f"{type(model).__name__} cannot be traced by torch.fx {said}. Write its forward without"
        f" branches on tensor values,{advice} or trace it yourself (torch.fx.Tracer with"
        " is_leaf_module) and pass the GraphModule."
    ) from reasons[0]


def first_weight(net: nn.Module) -> Tensor:
    """A tensor of the network whose type its inputs have: whole numbers are no weights."""
    refuse_lazy(net)
    tensors = [*net.parameters(), *net.buffers(), torch.empty(0)]
    return next(tensor for tensor in tensors if tensor.is_floating_point())


def is_bias(name: str) -> bool:
    """Whether a parameter of this name is added and multiplies nothing: it is called a bias."""
    return name.endswith("bias")


def along_channels(numbers: Tensor, like: Tensor) -> Tensor:
    """One number a channel, (channels,), in a shape that multiplies a batch such as ``like``."""
    return numbers.view(1, -1, *[1] * (like.dim() - 2))


def named_views(flat: Tensor, layout: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Parts of ``flat`` (N,) by name, in the shapes of ``layout``: name -> shape, in order."""
    parts = flat.split([shape.numel() for shape in layout.values()])
    return {n: part.view(s) for (n, s), part in zip(layout.items(), parts, strict=True)}


def joined(parts: Iterable[Tensor]) -> Tensor:
    """The parts as one flat tensor, which `named_views` takes apart again."""
    return torch.cat([part.reshape(-1) for part in parts])


def layer_weights(net: nn.Module) -> set[str]:
    """All names of the weights of Linear and convolution layers, also of a traced network."""
    return set(getattr(net, "meta", {}).get("layer_weights", ())) | {
        f"{name}.weight".removeprefix(".")
        for name, module in net.named_modules(remove_duplicate=False)
        if isinstance(module, PRUNABLE)
    }


def prunable(
    model: nn.Module,
    *,
    bias: bool = False,
    batch_norm: bool = False,
    keep: Iterable[str] = (),
) -> dict[str, nn.Parameter]:
    """The parameters that pruning may remove, by name and in forward order.

    Weights of ``Linear`` and convolution layers; a weight shared by several layers counts once.

    Args:
        model: any module.
        bias: also the biases of those layers (and of BatchNorm with ``batch_norm``).
        batch_norm: also BatchNorm's scale gamma.
        keep: names of layers (``"fc"``), of modules that hold layers (``"classifier"``) or of
            parameters (``"fc.weight"``) to leave dense.

    Returns:
        Parameter name -> parameter. Forward order is the order of execution where the model can
        be traced, else the order of registration.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: no prunable layer, or a name in ``keep`` that the model does not have.

    >>> list(prunable(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
    ['0.weight', '2.weight']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    model, keep = unwrapped(model), _kept(model, keep)
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule) and list(module.parameters()):
            raise ValueError(
                f"{name or type(model).__name__} is compiled by torch.jit, whose weights cannot be"
                " replaced; prune the module that it was made of, and compile it afterwards"
            )
    every = dict(model.named_parameters(remove_duplicate=False))
    refuse_lazy(model)
    found: dict[str, nn.Parameter] = {}
    # A shared parameter has several names: one in ``keep`` keeps it.
    seen = {id(parameter) for name, parameter in every.items() if lies_in(name, keep)}
    layers = PRUNABLE + BATCH_NORM if batch_norm else PRUNABLE
    for name in _forward_order(_graph(model), modules):
        if not isinstance(modules[name], layers):
            continue
        for kind in ("weight", "bias") if bias else ("weight",):
            full = f"{name}.{kind}".removeprefix(".")
            parameter = None if lies_in(full, keep) else own_parameter(modules[name], kind, full)
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            found[full] = parameter
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no prunable layer (Linear or convolution)"
            + (f" outside keep={sorted(keep)}" if keep else "")
        )
    refuse_shared_memory(found, model)
    return found


def refuse_lazy(model: nn.Module) -> None:
    """ValueError where a parameter waits for the first forward pass to have a shape."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} is a lazy parameter: run one forward pass before this")


def names_in_keep(keep: Iterable[str]) -> set[str]:
    """The names given as ``keep=``, a single one among them."""
    with contextlib.suppress(TypeError):
        names = {keep} if isinstance(keep, str) else set(keep)
        if all(isinstance(name, str) for name in names):
            return names
    raise TypeError(f"keep={keep!r}; expected names of layers, such as ['fc'], or () for none")


def _kept(model: nn.Module, keep: Iterable[str]) -> set[str]:
    """What ``keep`` names, by the names of the network inside its wrappers."""

    def parts(net: nn.Module) -> dict[str, object]:
        modules = net.named_modules(remove_duplicate=False)
        return dict(modules) | dict(net.named_parameters(remove_duplicate=False))

    names = OwnNames(parts(unwrapped(model)), parts(model))
    found = {name: names.find(name) for name in names_in_keep(keep)}
    if unknown := sorted(name for name, own in found.items() if own is None):
        raise ValueError(f"keep={unknown} names no layer or parameter of the model")
    return set(found.values())


def lies_in(name: str, outer: Collection[str]) -> bool:
    """Whether ``outer`` holds the name of a layer or parameter, or of a module around it."""
    return any(not module or f"{name}.".startswith(f"{module}.") for module in outer)


def left_out(model: nn.Module, keep: Iterable[str] = ()) -> dict[str, int]:
    """Weights that pruning never counts: name -> size, of those with two or more directions.

    Of recurrent layers, packed attention, embeddings and your own; biases and scales are few.

    >>> left_out(nn.Sequential(nn.LSTM(3, 2, bias=False), nn.Linear(2, 2)))
    {'0.weight_ih_l0': 24, '0.weight_hh_l0': 16}
    """
    model, keep = unwrapped(model), _kept(model, keep)
    counted = {id(m._parameters.get("weight")) for m in model.modules() if isinstance(m, PRUNABLE)}
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if id(parameter) not in counted
        and not isinstance(parameter, nn.parameter.UninitializedParameter)
        and sum(size > 1 for size in parameter.shape) > 1
        and not lies_in(name, keep)
    }


def warn_left_out(model: nn.Module, found: dict[str, nn.Parameter], keep: Iterable[str]) -> None:
    """Warn where a compression speaks of a part of the network only; a hundredth goes unsaid."""
    others, counted = left_out(model, keep), sum(p.numel() for p in found.values())
    if 99 * (total := sum(others.values())) > counted:
        warn(
            f"compression counts the {counted:,} weights of Linear and convolution layers;"
            f" {total:,} others are never pruned: {some(others, 3)}. Name them in keep="
            " to say that this is meant"
        )


def _graph(model: nn.Module) -> fx.Graph:
    """The graph of ``model``, an empty one where it cannot be traced."""
    try:
        return trace(model).graph
    except ValueError:
        return fx.Graph()


def _forward_order(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[str]:
    used = [_layer_at(node, modules) for node in graph.nodes]
    # Modules that never run come last.
    return list(dict.fromkeys([name for name in used if name is not None] + list(modules)))


def _layer_at(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
    """The layer that runs at ``node``, or a tensor of which is read there: "0.weight" is of "0"."""
    name = str(node.target)
    while name and not isinstance(modules.get(name), PRUNABLE + BATCH_NORM):
        name = name.rpartition(".")[0]
    return name if node.op in ("call_module", "get_attr") and name in modules else None


def some(names: Iterable[str], most: int = 6) -> str:
    """The first of ``names``, and how many there are besides.

    >>> some("abc", 2)
    'a, b and 1 more'
    """
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


def warn(message: str) -> None:
    """A UserWarning that points at the line outside of this library that led to it."""
    level, frame = 1, sys._getframe()
    ours = {__name__.partition(".")[0], "torch", "contextlib"}
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def find_input_shape(
    model: nn.Module, given: Inputs | None = None, example: Inputs | None = None
) -> Inputs:
    """What one input looks like: its shape without the batch dimension.

    Several inputs are a tuple of shapes, or a dict of them by the names of the forward's arguments.
    In place of a shape an example batch may stand; where that holds whole numbers, such as tokens,
    its first row is what this gives.

    Taken from ``given``, else from an ``example`` batch, else from the model's own attribute
    ``input_shape`` (all of ``synflow_lib.models`` have it), else from a first ``Linear`` layer.

    Raises:
        ValueError: none of these tells it.

    >>> find_input_shape(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    (12,)
    >>> find_input_shape(nn.Identity(), {"image": (3, 8, 8), "words": torch.tensor([[4, 2]])})
    {'image': (3, 8, 8), 'words': tensor([[4, 2]])}
    """
    model = unwrapped(instance(model, nn.Module, "model"))
    if given is not None:
        return described(given)
    if example is not None and all(leaf.dim() > 1 for leaf in tree_leaves(example)):
        return described(example)
    if isinstance(shape := getattr(model, "input_shape", None), (tuple, list, torch.Size)):
        return described(shape)
    modules, graph = dict(model.named_modules()), _graph(model)
    in_order = _forward_order(graph, modules)
    first = next((name for name in in_order if isinstance(modules[name], PRUNABLE)), "")
    if isinstance(modules[first], nn.Linear) and _takes_the_input(first, graph, modules):
        return (modules[first].in_features,)
    raise ValueError(
        f"the input shape of {type(model).__name__} cannot be told from its first layer"
        " (a convolution takes any image size, a Linear layer any number of rows); pass"
        " input_shape=(channels, height, width)"
    )


def _takes_the_input(linear: str, graph: fx.Graph, modules: dict[str, nn.Module]) -> bool:
    """Whether a Linear layer is given one row for each example, so that its size is the input's.

    Where dimensions change places there may be several rows, and its size is only the last
    dimension of the input. Without a graph it is not known, and the answer is yes.
    """
    nodes = list(graph.nodes)
    signal = downstream(node for node in nodes if node.op == "placeholder")
    weights = downstream(node for node in nodes if _layer_at(node, modules) == linear)
    first_use = [node for node in nodes if node in signal & weights][:1]
    size = modules[linear].in_features
    for node in signal.intersection(upstream(first_use, lambda node: node.all_input_nodes)):
        sizes = node.args[1:]
        sizes = sizes[0] if sizes and isinstance(sizes[0], (tuple, list)) else sizes
        if name_of(node) in ("view", "reshape"):
            if len(sizes) != 2 or sizes[1] not in (-1, size):
                return False
        elif node.op != "call_module" and name_of(node) in REARRANGES:
            return False
    # Behind the layer a transpose tells of several rows, unless the shape was changed in between;
    # but `h.T` is of one dimension for the examples and one for their numbers.
    called = {node: modules.get(str(node.target)) for node in nodes if node.op == "call_module"}
    changes = ("view", "reshape", "flatten", "unflatten")
    changed = {node for node in nodes if name_of(node, called.get(node)) in changes}
    behind = downstream(first_use, changed)
    attends = [name for name, m in modules.items() if isinstance(m, nn.MultiheadAttention)]
    return not any(
        any(lies_in(name, {str(node.target)}) for name in attends)
        if node.op == "call_module"
        else name_of(node) in TURNS - {"T"}
        for node in behind
    )
