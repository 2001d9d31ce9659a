"""How the nodes of a graph are read: an operation's usual name, its arguments, what is a shape."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping

import torch
from torch import fx, nn

LIKE = frozenset("view_as reshape_as expand_as type_as to".split())
TURNS = frozenset("permute transpose movedim swapaxes T mT".split())
REARRANGES = TURNS | {"unfold", "unflatten", "chunk", "split"}
_ROOMS = {"torch", "torch.nn.functional", "torch._C._nn", "torch.functional", "_operator"}
_SYNONYMS = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "imatmul": "matmul",
    "truediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "rsub": "sub",
    "subtract": "sub", "pos": "positive", "negative": "neg", "absolute": "abs",
    "log_sigmoid": "logsigmoid", "_threshold": "threshold",
}  # fmt: skip
_SHAPES = frozenset(
    "size dim numel ndimension nelement stride is_floating_point is_complex get_device __len__"
    " zeros_like ones_like full_like empty_like new_zeros new_ones new_full"
    " new_empty new_tensor".split()
)
_SHAPE_ATTRIBUTES = frozenset("shape ndim device dtype layout is_cuda requires_grad".split())


def argument(node: fx.Node, name: str, place: int, default: object = None) -> object:
    """What a call is given under ``name`` or at ``place``."""
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)


def module_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The module that ``node`` calls, of those given by name."""
    return modules[str(node.target)] if node.op == "call_module" else None


def calls(graph: fx.Graph) -> Counter[str]:
    """Name of a module -> how often it is called, in the order of the first calls."""
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_module")


def name_of(node: fx.Node, module: nn.Module | None = None) -> str:
    """One name for function, method, operator and in-place form; of a ``module`` its class's."""
    if module is not None:
        return type(module).__name__.lower()
    if node.op == "call_method":
        name = str(node.target)
    elif node.target is getattr:
        name = str(node.args[1])
    else:
        name = getattr(node.target, "__name__", str(node.target))
        room = getattr(node.target, "__module__", "") or ""
        if room.startswith("torch._ops"):  # torch has no other name for it
            name = name.partition(".")[0]
        elif room not in _ROOMS and name != "stochastic_depth":
            return f"{room}.{name}"
    return _SYNONYMS.get(name.removesuffix("_"), name.removesuffix("_"))


def uses(node: fx.Node, of: Container[fx.Node]) -> list[fx.Node]:
    """The arguments of ``node`` that are in ``of``, in order, each as often as it is used."""
    found: list[fx.Node] = []
    fx.node.map_arg(_read(node), lambda n: found.append(n) if n in of else None)
    return found


def reads(node: fx.Node) -> list[fx.Node]:
    """The nodes whose numbers ``node`` needs, each once: not those that only tell it a shape."""
    found: dict[fx.Node, None] = {}
    if not is_shape(node):
        fx.node.map_arg(_read(node), found.setdefault)
    return list(found)


def _read(node: fx.Node) -> tuple:
    # Of the second value of `x.view_as(y)` only the shape is used.
    like = node.op in ("call_function", "call_method") and name_of(node) in LIKE
    return node.args[:1] if like else (node.args, node.kwargs)


def upstream(
    start: Iterable[fx.Node],
    sources: Callable[[fx.Node], list[fx.Node]],
    among: Container[fx.Node] | None = None,
) -> dict[fx.Node, list[fx.Node]]:
    """From ``start`` back, through nodes in ``among``: node -> its ``sources``, the last first."""
    wanted, found = set(start), {}
    for node in reversed(next(iter(wanted)).graph.nodes) if wanted else ():
        if node in wanted and (among is None or node in among):
            found[node] = sources(node)
            wanted.update(found[node])
    return found


all_inputs = operator.attrgetter("all_input_nodes")  # also those that only tell a shape


def downstream(
    start: Iterable[fx.Node],
    without: Container[fx.Node] = (),
    sources: Callable[[fx.Node], list[fx.Node]] = all_inputs,
) -> set[fx.Node]:
    """``start`` and all nodes whose ``sources`` are in turn, not through those in ``without``."""
    found = set(start)
    for node in next(iter(found)).graph.nodes if found else ():
        if node not in without and not found.isdisjoint(sources(node)):
            found.add(node)
    return found


def is_shape(node: fx.Node) -> bool:
    """Whether ``node`` reads no more of a tensor than its shape, type or place."""
    if node.op == "call_method":
        return node.target in _SHAPES
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in _SHAPE_ATTRIBUTES
    return getattr(node.target, "__name__", "") in _SHAPES | {"len", "_assert"}


def is_source(node: fx.Node) -> bool:
    """Whether paths begin at ``node``: at an input of numbers, or at what tokens look up."""
    begins = node.op == "placeholder" and not (node.args or node.meta.get("tokens"))
    return begins or bool(node.meta.get("looks_up"))


def given_inputs(graph: fx.Graph, x) -> dict[fx.Node, object]:
    """Input node of a graph -> its part of ``x``, by name if that is a dict, else in order.

    Raises:
        ValueError: ``x`` has fewer or more values than there are inputs.
    """
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    if isinstance(x, dict):
        given = {node: x[str(node.target)] for node in nodes if str(node.target) in x}
    else:
        values = x if isinstance(x, tuple) else (x,)
        if len(values) > len(nodes):
            names = ", ".join(repr(str(node.target)) for node in nodes)
            raise ValueError(f"{len(values)} inputs are given; the network takes {names} alone")
        given = dict(zip(nodes, values, strict=False))
    for node in nodes:
        if node not in given and not node.args:
            raise ValueError(
                f"the network takes another input, {node.target!r}: pass input_shape= with a shape"
                " for each, in a tuple, or in a dict by name"
            )
        value = given.setdefault(node, node.args[0] if node.args else None)
        if node.meta.get("tokens") and value.is_floating_point():  # only their shape was given
            given[node] = torch.zeros_like(value, dtype=torch.long)
    return given


def reduced(node: fx.Node, dimensions: int, place: int = 1) -> list[int]:
    """Which of so many dimensions a sum, a mean or a maximum reduces, from 0; all if none is given.

    ``place`` is the position of the argument ``dim``.
    """
    over = argument(node, "dim", place, node.kwargs.get("axis"))
    if over is None or isinstance(over, (tuple, list)) and not over:
        return list(range(dimensions))
    return [int(dim) % dimensions for dim in (over if isinstance(over, (tuple, list)) else [over])]


def write_out_(graph: fx.Graph) -> None:
    """Write ``addcmul`` and ``lerp`` as the products and sums they are short for: no need of rules.

    In place they stay, as they change what is read later.
    """
    for node in list(graph.nodes):
        called = node.op in ("call_function", "call_method") and node.kwargs.get("out") is None
        in_place = str(getattr(node.target, "__name__", node.target)).endswith("_")
        name = name_of(node)
        if not called or in_place or node.meta.get("in_place") or name not in ("addcmul", "lerp"):
            continue

        def made(target, *args, node=node, **how) -> fx.Node:
            new = graph.call_function(target, args, how)
            new.meta = dict(node.meta)
            return new

        first = argument(node, "input", 0)
        with graph.inserting_before(node):
            if name == "addcmul":
                factors = argument(node, "tensor1", 1), argument(node, "tensor2", 2)
                product = made(operator.mul, *factors)
                total = made(torch.add, first, product, alpha=argument(node, "value", 3, 1))
            else:
                weight = argument(node, "weight", 2)
                signal = isinstance(weight, fx.Node)
                rest = made(operator.sub, 1, weight) if signal else 1 - weight
                second = made(operator.mul, weight, argument(node, "end", 1))
                total = made(torch.add, made(operator.mul, rest, first), second)
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def as_list(value):
    """A list that can be written to, as functions write to their arguments, of one in a graph."""
    return [*value] if isinstance(value, list) else value


def is_addition(node: fx.Node) -> bool:
    """Whether ``node`` adds two tensors, the residual sum."""
    return node.op in ("call_function", "call_method") and name_of(node) == "add"
