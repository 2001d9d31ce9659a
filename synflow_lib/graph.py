"""What the library needs to know of a network: its prunable weights, its graph, its input shape.

Everything here looks at a model and changes nothing of it.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from .randomness import own_random_numbers

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE = LINEAR + CONV + CONV_TRANSPOSED
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of ``model`` by ``torch.fx``; it shares the parameters of ``model``.

    Tracing runs the forward pass, which may count its calls or draw random numbers, so it runs on
    a copy and with random numbers of its own.

    Raises:
        ValueError: the forward pass cannot be traced, for instance because it branches on the
            values of a tensor; the message says what to do.

    >>> [node.op for node in trace(nn.Sequential(nn.Linear(2, 1))).graph.nodes]
    ['placeholder', 'call_module', 'output']
    """
    if isinstance(model, fx.GraphModule):
        return model
    try:
        with own_random_numbers():
            memo = {id(parameter): parameter for parameter in model.parameters()}
            return fx.symbolic_trace(copy.deepcopy(model, memo))
    except Exception as error:  # fx runs the user's forward: anything can come out of it
        raise ValueError(
            f"{type(model).__name__} cannot be traced by torch.fx"
            f" ({type(error).__name__}: {error}). Write its forward without branches on tensor"
            " values, or trace it yourself (torch.fx.Tracer with is_leaf_module) and pass the"
            " GraphModule."
        ) from error


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
        keep: names of layers (``"fc"``) or parameters (``"fc.weight"``) to leave dense.

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
    keep = {keep} if isinstance(keep, str) else set(keep)
    modules = dict(model.named_modules())
    unknown = keep - set(modules) - {name for name, _ in model.named_parameters()}
    if unknown:
        raise ValueError(f"keep={sorted(unknown)} names no layer or parameter of the model")

    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name in _forward_order(model, modules):
        module, kinds = modules[name], []
        if isinstance(module, PRUNABLE):
            kinds = ["weight"] + ["bias"] * bias
        elif isinstance(module, BATCH_NORM):
            kinds = ["weight"] * batch_norm + ["bias"] * (batch_norm and bias)
        for kind in kinds:
            parameter = getattr(module, kind, None)
            full = f"{name}.{kind}" if name else kind
            if parameter is None or id(parameter) in seen or {name, full} & keep:
                continue
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"{full} is a lazy parameter: run one forward pass before pruning the model"
                )
            if not isinstance(parameter, nn.Parameter):
                raise ValueError(
                    f"{full} is computed from other tensors (a parametrization or"
                    " torch.nn.utils.prune); make it permanent first, for instance with"
                    " torch.nn.utils.prune.remove(module, 'weight')"
                )
            seen.add(id(parameter))
            found[full] = parameter
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no prunable layer (Linear or convolution)"
            + (f" outside keep={sorted(keep)}" if keep else "")
        )
    return found


def _forward_order(model: nn.Module, modules: dict[str, nn.Module]) -> list[str]:
    try:
        graph = trace(model).graph
    except ValueError:
        return list(modules)
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    # Modules that never run come last; dict.fromkeys drops the second call of a shared module.
    return list(dict.fromkeys([name for name in called if name in modules] + list(modules)))


def working_type(model: nn.Module) -> torch.dtype:
    """The widest floating-point type in the model, at least ``float32``.

    Used for all of it, so that scores of different layers can be compared.

    Raises:
        ValueError: the model lies on several devices or on ``meta``.
    """
    devices = {tensor.device for tensor in model.parameters()}
    if len(devices) > 1 or any(device.type == "meta" for device in devices):
        raise ValueError(
            f"the model's parameters lie on {sorted(map(str, devices))}; expected one real device."
            " Move it with model.to(device)"
        )
    dtype = torch.float32
    for parameter in model.parameters():
        dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype


def working_copy(
    model: nn.Module,
    instead: dict[int, nn.Parameter] | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A private deep copy on which scorers may do as they like.

    Args:
        instead: id of a parameter -> what stands for it in the copy.
        dtype: of its numbers; None is `working_type`.

    Raises:
        ValueError: the model cannot be copied, or has no `working_type`.
    """
    dtype = dtype or working_type(model)
    try:
        net = copy.deepcopy(model, dict(instead or {}))
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({error}). If it uses parametrizations or"
            " torch.nn.utils.prune, make them permanent first"
        ) from error
    net.to(dtype)
    for parameter in net.parameters():
        parameter.grad = None
    return net


def input_shape(
    model: nn.Module, given: Iterable[int] | None = None, example: Tensor | None = None
) -> tuple[int, ...]:
    """The shape of one input, without the batch dimension.

    Taken from ``given``, else from an ``example`` batch, else from the model's own attribute
    ``input_shape`` (all of ``synflow_lib.models`` have it), else from a first ``Linear`` layer.

    Raises:
        ValueError: none of these tells it.

    >>> input_shape(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    (12,)
    """
    own = getattr(model, "input_shape", None)
    if given is not None:
        shape = tuple(given)
        if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(
                f"input_shape={given!r}: expected positive integers without the batch dimension,"
                " such as (3, 32, 32)"
            )
        return shape
    if isinstance(example, Tensor) and example.dim() > 1:
        return tuple(example.shape[1:])
    if isinstance(own, (tuple, list, torch.Size)):
        return tuple(own)
    modules = dict(model.named_modules())
    first = next(
        (
            modules[name]
            for name in _forward_order(model, modules)
            if isinstance(modules[name], PRUNABLE)
        ),
        None,
    )
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise ValueError(
        f"the input shape of {type(model).__name__} cannot be told from its first layer"
        " (a convolution takes any image size); pass input_shape=(channels, height, width)"
    )


def is_addition(node: fx.Node) -> bool:
    """Whether ``node`` adds two tensors, the residual sum."""
    return (
        node.op == "call_function"
        and node.target in (operator.add, operator.iadd, torch.add)
        or node.op == "call_method"
        and node.target in ("add", "add_")
    )


def skeleton(model: nn.Module, device: str = "meta") -> nn.Module:
    """A copy of ``model`` in evaluation mode whose tensors hold shapes and no numbers."""
    tensors = [*model.parameters(), *model.buffers()]
    memo = {
        id(t): nn.Parameter(torch.empty_like(t, device=device), requires_grad=False)
        if isinstance(t, nn.Parameter)
        else torch.empty_like(t, device=device)
        for t in tensors
    }
    return copy.deepcopy(model, memo).eval()


def fewest_weights(graph: fx.Graph, names: Iterable[str]) -> dict[fx.Node, frozenset[str]]:
    """For every node that the input reaches, the weights on the path that needs fewest.

    ``names`` are the parameters that count; a weight used twice counts once.
    """
    names, used = set(names), {}
    first_name = _first_names(graph.owning_module)
    for node in graph.nodes:
        ways = [used[source] for source in node.all_input_nodes if source in used]
        if node.op == "placeholder":
            used[node] = frozenset()
        elif ways and not _is_shape(node):
            if node.op == "call_module":
                own = {f"{node.target}.weight"}
            else:  # a weight may also be an argument, as of nn.functional.linear
                own = {str(arg.target) for arg in node.all_input_nodes if arg.op == "get_attr"}
            own = {first_name.get(name, name) for name in own} & names
            used[node] = min((way | own for way in ways), key=len)
    return used


def _first_names(model: nn.Module | None) -> dict[str, str]:
    """Name of a parameter -> the first of its names, where modules share one weight."""
    first, names = {}, {}
    if model is not None:
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names[name] = first.setdefault(id(parameter), name)
    return names


def _is_shape(node: fx.Node) -> bool:
    """Whether ``node`` reads a tensor's shape: a number, through which nothing flows."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    return (
        node.op == "call_function"
        and node.target is getattr
        and node.args[1] in ("shape", "ndim", "device", "dtype")
    )
