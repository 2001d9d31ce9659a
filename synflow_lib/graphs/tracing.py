"""Tracing by ``torch.fx`` without side effects on other threads.

``torch.fx.symbolic_trace`` replaces ``nn.Module.__call__`` and ``__getattr__`` for the whole
process while it runs: a forward pass in another thread would be recorded, or fail. Here only the
modules of the private copy that is traced are watched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import operator
import random
import threading
import types
from collections.abc import Callable, Container, Iterator

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx import _symbolic_trace as fx_internals
from torch.overrides import TorchFunctionMode

from ..batches import Inputs, is_plain
from .nodes import argument, name_of, reads, upstream, write_out_
from .wrappers import WRAPPERS

_trace_lock = threading.RLock()
LEAVES: set[type[nn.Module]] = set()  # classes with a rule of their own: not looked into


def graph_of(copy: nn.Module, inputs: Inputs | None = None) -> fx.GraphModule:
    """The graph of ``copy``, whose forward runs and whose class is another while it does.

    ``meta["drew"]`` of what is returned says whether the forward draws random numbers; its layers
    may besides. ``inputs`` says how many there are, and under which names: one for each part of a
    tuple or dict. It raises whatever the forward raises, and what torch.fx has to say about it.
    """
    tracer = _Tracer()
    tracer.inputs = inputs
    for module in copy.modules():
        if isinstance(module, WRAPPERS):  # what it does besides is for many devices
            module.forward = functools.partial(_run, module.module)
    # torch.fx.wrap replaces functions in their modules meanwhile: calls without a traced value go
    # through to the original, but two that put things back out of order would leave it replaced.
    with _trace_lock, _Unchanged(tracer) as watch:
        graph = tracer.trace(copy)
    for node in reversed(graph.nodes):
        _by_position(node)
        if node.op == "call_function" and not node.users and _is_new_draw(name_of(node)):
            graph.erase_node(node)
    write_out_(graph)
    traced = fx.GraphModule(copy, graph, type(copy).__name__)
    traced.meta["drew"] = watch.drew or any(is_draw(name_of(node)) for node in graph.nodes)
    mark_tokens(traced, inputs)
    return traced


def _run(module: nn.Module, *args, **kwargs):
    return module(*args, **kwargs)


def mark_tokens(traced: fx.GraphModule, inputs: Inputs | None) -> None:
    """Write into a graph where numbers of tokens come in and where they are looked up.

    ``meta["tokens"]`` of an input says that it holds whole numbers, which are constants;
    ``meta["looks_up"]`` of an embedding that what comes out of it is where paths begin.
    """
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    given = dict(zip(placeholders, inputs if isinstance(inputs, tuple) else [inputs], strict=False))
    if isinstance(inputs, dict):
        given = {node: inputs.get(str(node.target)) for node in placeholders}
    for node, part in given.items():
        if isinstance(part, Tensor):
            node.meta["tokens"] = True
    for node in traced.graph.nodes:
        if (ids := looked_up(node, traced)) is not None:
            for placeholder in _inputs_behind(ids):
                placeholder.meta["tokens"] = True
            if _inputs_behind(ids, _NO_TOKENS):
                node.meta["looks_up"] = True


# What these make of tokens are positions (RoBERTa looks those up), from which no paths begin.
_NO_TOKENS = frozenset(
    "eq ne lt le gt ge not_equal less less_equal greater greater_equal isin logical_not logical_and"
    " logical_or any all cumsum cumprod argmax argmin argsort nonzero".split()
)


def _inputs_behind(ids: fx.Node, without: Container[str] = ()) -> set[fx.Node]:
    """The inputs that ``ids`` are computed of, not through operations that ``without`` names.

    Nor through layers: what those give are no tokens, even where it is rounded and looked up.
    """
    net = ids.graph.owning_module

    def weighs(node: fx.Node) -> bool:
        if node.op == "call_module":
            return next(net.get_submodule(str(node.target)).parameters(), None) is not None
        given = (operator.attrgetter(str(n.target)) for n in reads(node) if n.op == "get_attr")
        return any(isinstance(get(net), nn.Parameter) for get in given)

    def sources(node: fx.Node) -> list[fx.Node]:
        if weighs(node):
            return []
        called = node.op in ("call_function", "call_method")
        return [] if called and name_of(node) in without else reads(node)

    return {node for node in upstream([ids], sources) if node.op == "placeholder"}


def looked_up(node: fx.Node, traced: fx.GraphModule) -> fx.Node | None:
    """The numbers that ``node`` looks up in a table, if it does."""
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return node.args[0] if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) else None
    if node.op != "call_function" or name_of(node) not in ("embedding", "embedding_bag"):
        return None
    place = 1 if inspect.isbuiltin(node.target) else 0  # torch.embedding(weight, ids)
    ids = argument(node, "input", place)
    return ids if isinstance(ids, fx.Node) else None


def _by_position(node: fx.Node) -> None:
    """The spellings ``torch.add(input=x, other=y)`` as ``torch.add(x, y)``, ``.values`` as [0]."""
    if node.target is getattr and node.args[1] in ("values", "indices"):
        node.target, node.args = operator.getitem, (node.args[0], int(node.args[1] == "indices"))
    torchs = node.op == "call_method" or inspect.isbuiltin(node.target)
    for place, name in enumerate(("input", "other")):
        if name in node.kwargs and len(node.args) == place and (torchs or place == 0):
            named = dict(node.kwargs)
            node.args = (*node.args, named.pop(name))
            node.kwargs = named


class _Proxy(fx.Proxy):
    """A traced value that knows of ``h += x``, which torch.fx records as ``h = h + x``."""

    @property
    def data(self) -> fx.Proxy:
        return self.__getattr__("data")

    @data.setter
    def data(self, value) -> None:  # of a parameter; torch.fx would record nothing
        raise ValueError(_WRITES)


def _remembering(operation: Callable) -> Callable:
    def in_place(self: fx.Proxy, other) -> fx.Proxy:
        made = operation(self, other)
        made.node.meta["in_place"] = True
        return made

    return in_place


for _operation in (operator.add, operator.sub, operator.mul, operator.truediv):
    setattr(_Proxy, f"__i{_operation.__name__}__", _remembering(_operation))


class _Tracer(fx.Tracer):
    """``torch.fx.Tracer``, except for how it learns of calls and of reads of parameters."""

    def trace(self, root: nn.Module, concrete_args=None) -> fx.Graph:
        kind = type(root)
        forward = vars(root).get("forward") or types.MethodType(kind.forward, root)
        if kind.__call__ is not nn.Module.__call__ and not isinstance(root, fx.GraphModule):
            # What a class does around its forward.
            forward = types.MethodType(kind.__call__, root)
        self.root = root
        self.root_module_name = root._get_name()
        self.submodule_paths = {module: name for name, module in root.named_modules()}
        self.tensor_attrs = {
            value: f"{name}.{attribute}".removeprefix(".")
            for name, module in root.named_modules()
            for attribute, value in vars(module).items()
            if isinstance(value, Tensor)
        }
        self.graph = fx.Graph(tracer_cls=type(self))
        arguments, named = self._inputs(forward)
        with fx_internals._Patcher() as patcher, self._watching(root, patcher):
            fx_internals._patch_wrapped_functions(patcher)
            code = getattr(forward, "__func__", forward)
            self._wrap(patcher, getattr(code, "__globals__", {}))
            for module in self._autowrap_search:
                self._wrap(patcher, vars(module))
            result = plain_output(forward(*arguments, **named))
            self.create_node("output", "output", (self.create_arg(result),), {})
        return self.graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if "forward" in vars(m):  # its own forward, to which the rule of its class does not apply
            return False
        if isinstance(m, _PACKED) and not all(map(_as_torch_made_it, m.modules())):
            return False
        # A traced module is of a class made for the trace; its own is the next one.
        return not LEAVES.isdisjoint(type(m).__mro__) or (
            super().is_leaf_module(m, module_qualified_name) and not _computes(m)
        )

    def _inputs(self, forward: Callable) -> tuple[list[fx.Proxy], dict[str, fx.Proxy]]:
        """What the forward needs; what has a default and is not given keeps it, as in a call."""
        known = list(inspect.signature(forward).parameters.values())
        names, count = (), 1
        if isinstance(self.inputs, dict):
            names, count = self.inputs, 0
        elif isinstance(self.inputs, tuple) and not is_plain(self.inputs):
            count = len(self.inputs)
        arguments = [self.create_proxy("placeholder", p.name, (), {}) for p in known[:count]]
        named = {
            p.name: self.create_proxy("placeholder", p.name, (), {})
            for p in known[count:]
            if p.name in names
            or p.default is p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        return arguments, named

    def _wrap(self, patcher: fx_internals._Patcher, names: dict) -> None:
        """Let functions such as ``math.sqrt`` take traced values where ``names`` has them."""
        fx_internals._autowrap_check(patcher, names, self._autowrap_function_ids)

    @contextlib.contextmanager
    def _watching(self, root: nn.Module, patcher: fx_internals._Patcher) -> Iterator[None]:
        """Give every module of ``root`` a subclass that reports calls and reads to the tracer."""
        modules, proxies = list(root.modules()), {}
        kinds = {id(module): type(module) for module in modules}
        watched = {kind: self._watched(kind, patcher, proxies) for kind in set(kinds.values())}
        try:
            for module in modules:
                module.__class__ = watched[type(module)]
            yield
        finally:
            for module in modules:
                module.__class__ = kinds[id(module)]

    def _watched(self, kind: type, patcher: fx_internals._Patcher, proxies: dict) -> type:
        def call(module: nn.Module, *args, **kwargs):
            self._wrap(patcher, getattr(module.forward, "__globals__", {}))
            return self.call_module(
                module, lambda *a, **k: kind.__call__(module, *a, **k), args, kwargs
            )

        def read(module: nn.Module, name: str):
            return self.getattr(name, kind.__getattr__(module, name), proxies)

        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        return type(kind.__name__, (kind,), {"__call__": call, "__getattr__": read, **names})


_PACKED = (
    nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer,
    nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer,
)  # fmt: skip
_IN_PACKED = {
    "linear": nn.Linear, "out_proj": nn.Linear, "norm": (nn.LayerNorm, nn.RMSNorm, nn.Identity),
    "dropout": nn.Dropout, "activation": (nn.ReLU, nn.GELU, nn.SiLU),
    "layers": nn.ModuleList, "": _PACKED, "self_attn": _PACKED, "multihead_attn": _PACKED,
    "encoder": _PACKED, "decoder": _PACKED,
}  # fmt: skip


def _as_torch_made_it(part: nn.Module) -> bool:
    """Whether a part of a `_PACKED` module is unchanged, as the rules of `attention` need it."""
    # The first class is the one made for the trace.
    classes = [kind for kind in type(part).__mro__[1:] if not kind.__module__.startswith("torch.")]
    written = {name for known in (part, *classes) for name in vars(known)}
    overridden = written & {"forward", "__call__", "_sa_block", "_mha_block", "_ff_block"}
    fits = all(
        isinstance(child, _IN_PACKED.get(name.rstrip("0123456789"), ()))
        for name, child in part.named_children()
        if child is not None
    )
    usual = getattr(part, "activation", nn.functional.relu)
    usual = isinstance(usual, nn.Module) or usual in (nn.functional.relu, nn.functional.gelu)
    return fits and usual and not overridden and not _computes(part)


def _computes(module: nn.Module) -> bool:
    """Whether a weight or bias of ``module`` is made of other tensors, as by parametrizations."""
    made = (getattr(module, name, None) for name in {"weight", "bias"} - set(module._parameters))
    return any(isinstance(one, (Tensor, fx.Proxy)) for one in made)


def plain_output(value):
    """``value`` as torch.fx can record it: a dataclass as a dict, a named tuple as a tuple."""
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, dict)):
        return {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    plain = dict if isinstance(value, dict) else tuple
    return plain(value) if isinstance(value, (dict, tuple)) else value


DRAWS = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like bernoulli bernoulli_ normal"
    " normal_ uniform_ multinomial poisson exponential_ geometric_ cauchy_ log_normal_ random_"
    " dropout alpha_dropout feature_dropout feature_alpha_dropout rrelu gumbel_softmax".split()
)


def is_draw(name: str) -> bool:
    """Whether an operation of this name (see `nodes.name_of`) draws random numbers."""
    return name in DRAWS or f"{name}_" in DRAWS


def _is_new_draw(name: str) -> bool:
    return name.startswith(("rand", "normal", "bernoulli")) and not name.endswith("_")


_WRITES = (
    "it writes into its own parameters, which are the caller's and would change whenever the"
    " network is looked at; let the forward read them only, and write after steps of training"
)
_BARE_NUMBERS = (Tensor.data.__get__, Tensor.detach)  # writes to these autograd does not see


class _Unchanged(TorchFunctionMode):
    """While a forward is traced, keeps random generators and the caller's parameters unchanged.

    A new random tensor is recorded in the graph, since each pass draws another. Reads of
    ``parameter.data`` get copies, which tell afterwards whether they were written to. A mode is
    active in its own thread only; generators that were not drawn from are not touched, for another
    thread may use them. ValueError at the end where the forward wrote into its own parameters.
    """

    def __init__(self, tracer: fx.Tracer) -> None:
        super().__init__()
        self.tracer, self.drew = tracer, False
        self.handed_out: list[tuple[nn.Parameter, Tensor]] = []

    def __enter__(self) -> _Unchanged:
        self.before = random.getstate(), np.random.get_state()  # noqa: NPY002
        return super().__enter__()

    def __exit__(self, kind, error, traceback) -> None:
        super().__exit__(kind, error, traceback)
        python_state, numpy_state = self.before
        if random.getstate() != python_state:
            self.drew = True
            random.setstate(python_state)
        if np.random.get_state()[2] != numpy_state[2]:  # noqa: NPY002
            self.drew = True
            np.random.set_state(numpy_state)  # noqa: NPY002
        if error is None and not all(torch.equal(*pair) for pair in self.handed_out):
            raise ValueError(_WRITES)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if args and isinstance(args[0], nn.Parameter):
            if function in _BARE_NUMBERS:
                copy = args[0].detach().clone()
                self.handed_out.append((args[0], copy))
                return copy
            if name == "__set__" or (name.endswith("_") and not name.endswith("__")):
                raise ValueError(_WRITES)
        if name not in DRAWS:
            return function(*args, **(kwargs or {}))
        self.drew = True
        if _is_new_draw(name):
            return self.tracer.create_proxy("call_function", function, args, kwargs or {})
        with torch.random.fork_rng(devices=[]):
            return function(*args, **(kwargs or {}))
