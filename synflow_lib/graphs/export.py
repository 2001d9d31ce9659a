"""The graph of networks that ``torch.fx`` cannot trace: ``torch.export``'s, in torch's own names.

``torch.fx`` follows values that it does not have, so a branch or a loop on them stops it.
``torch.export`` runs the forward on an example. Its graph is made of ATen's operations and holds no
layers; here each operation becomes the function or method of torch that it came from.
"""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import re
import threading
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..batches import Inputs
from .checked import steps
from .nodes import write_out_
from .tracing import mark_tokens, plain_output

_export_lock = threading.RLock()
_ROOMS = (torch, torch._C._nn)  # F.unfold is another than the method that ATen calls so
# A batch of one may be spread to that of another input; no number changes.
_ALIKE = frozenset("expand expand_as repeat view reshape squeeze unsqueeze contiguous".split())
_CHECKS = ("_assert_tensor_metadata", "_assert_async", "_assert_scalar")


class _Flat(nn.Module):
    """A network whose output is a tuple of tensors, for structures that export does not know."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        leaves = tree_leaves(plain_output(self.net(*args, **kwargs)))
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


def exported(copy: nn.Module, inputs: Inputs, example: Inputs) -> fx.GraphModule:
    """The graph of ``copy``, in evaluation mode, on ``example``, a batch of one.

    ValueError where the forward does something else for two images than for one. It raises whatever
    the forward raises, and what torch.export has to say about it.
    """
    twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), example)
    of_one, of_two = steps(copy, example), steps(copy, twice)
    if of_one and of_two and (other := (of_one ^ of_two) - _ALIKE):
        what = ", ".join(sorted(other))
        raise ValueError(f"it does something else for two images than for one: {what}")
    named = example if isinstance(example, dict) else {}
    args = () if named else example if isinstance(example, tuple) else (example,)
    with _export_lock, _quiet(), torch.no_grad():
        program = torch.export.export(_Flat(copy), args, kwargs=named, strict=False)
        source = program.module()
    graph, made = fx.Graph(), {}
    for node in source.graph.nodes:
        name = _name(node)
        if node.op == "call_module" or name in _CHECKS:  # of the shapes it was exported with
            continue
        if name == "alias":
            made[node] = made[node.args[0]]
            continue
        if name.endswith("_") and not node.users:
            raise ValueError(f"it writes into a part of a tensor, by {name}")
        made[node] = new = graph.node_copy(node, made.__getitem__)
        if name:
            _as_torch(new, name)
        elif node.op == "get_attr":
            new.target = str(node.target).removeprefix("net.")
            path, _, attribute = new.target.rpartition(".")
            owner = copy.get_submodule(path)
            if not hasattr(owner, attribute):  # a constant that the forward makes
                value = operator.attrgetter(str(node.target))(source)
                owner.register_buffer(attribute, value, persistent=False)
        elif node.op == "placeholder" and named:
            new.target = str(node.target).removeprefix("kwargs_")
        stack = node.meta.get("nn_module_stack") or {}
        names = {
            key: (name.partition("net")[2].lstrip("."), *of) for key, (name, *of) in stack.items()
        }
        new.meta = {"nn_module_stack": names}
    write_out_(graph)
    traced = fx.GraphModule(copy, graph, type(copy).__name__)
    mark_tokens(traced, inputs)
    traced.meta["exported"] = True
    return traced


def _name(node: fx.Node) -> str:
    """Of one of ATen's operations, such as "linear"; "numpy_T" and "sym_size" are T and size."""
    aten = isinstance(node.target, torch._ops.OpOverload)
    name = re.sub("^aten::(sym_|numpy_)?", "", node.target._schema.name) if aten else ""
    # The strides on which a view relies are those of the kernels that the example met.
    return "reshape" if name == "view" else name


def _as_torch(node: fx.Node, name: str) -> None:
    """The function, or else the method, of torch that does the same with the same arguments."""
    if name == "slice":
        x, dim, *ends = (*node.args, *[0, None, None][len(node.args) - 1 :])
        node.args = (x, (*[slice(None)] * dim, slice(*ends)))
        node.target = operator.getitem
    elif name == "index":
        everything = slice(None)
        node.args = (node.args[0], tuple(everything if i is None else i for i in node.args[1]))
        node.target = operator.getitem
    elif function := next((getattr(room, name) for room in _ROOMS if hasattr(room, name)), None):
        node.target = function
    elif hasattr(Tensor, name) and not callable(getattr(Tensor, name)):  # x.mT
        node.args, node.target = (node.args[0], name), getattr
    elif hasattr(Tensor, name):
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "layout"}
        node.op, node.target = "call_method", name
    else:
        node.target = getattr(nn.functional, name, node.target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what export prints about networks that it cannot take: the error says it."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        silent = io.StringIO()
        hushed = contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent)
        with hushed[0], hushed[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
