"""Which kept weights lie on a path from input to output, and which weights only steer.

Read `paths` first: here zeros and ones run through the network instead of |W|.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from .batches import Inputs, inflow
from .fast.selection import count, keep_largest
from .graphs.copies import skeleton
from .graphs.network import (
    BATCH_NORM,
    find_input_shape,
    is_bias,
    layer_weights,
    names_in_keep,
    prunable,
    some,
    trace,
    unwrapped,
    warn,
)
from .graphs.operations import Operations
from .graphs.workspace import Workspace, explained_errors, pruned_before
from .masks import Masks
from .paths import PathSum, PathWeights
from .values import instance

_QUESTIONS = 500  # about one layer, before the search for one entry gives up
_SMALL = 1e-12  # for every weight: a path through one weight more adds next to nothing


class PathProbe:
    """Answers, for masks on one network, which kept weights lie on an input-output path.

    Runs zeros and ones through the network's own operations, so strides, groups, padding and
    shared modules are what they are: a kernel tap that only ever sees padding lies on no path.
    """

    @torch.inference_mode(False)  # tensors made under inference mode can have no gradient
    def __init__(
        self,
        model: nn.Module,
        input_shape: Inputs | None = None,
        *,
        traced: fx.GraphModule | None = None,
    ) -> None:
        shape = find_input_shape(model, input_shape)
        # Before the numbers are replaced: constants may be computed of them.
        traced = traced or trace(model, shape)
        # float64 only for a forward that asks for it: float32 is faster.
        wide = any(weight.dtype == torch.float64 for weight in traced.parameters())
        self.dtype = torch.float64 if wide else torch.float32
        self.net = skeleton(traced, device="cpu").to(self.dtype)
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                parameter.fill_(0.0 if is_bias(name) else 1.0)
            # A layer that the masks do not name may have been pruned before; one of zeros alone
            # was made so.
            layers = layer_weights(traced)
            for name, parameter in traced.named_parameters():
                if name in layers and pruned_before([parameter]):
                    self.net.get_parameter(name).copy_(parameter != 0)
            norms = {n: m for n, m in self.net.named_modules() if isinstance(m, BATCH_NORM)}
            for norm in norms.values():
                if norm.running_mean is not None:
                    norm.running_mean.zero_()
                    norm.running_var.fill_(1.0)
            for name, buffer in self.net.named_buffers():
                if name.rpartition(".")[0] not in norms:
                    buffer.copy_(traced.get_buffer(name))
        self.paths = PathSum(self.net, sum_pools=True)
        named = dict(unwrapped(model).named_parameters(remove_duplicate=False))
        # The graph holds what runs, under one name each; a shared weight may have more.
        traced_name = {id(p): name for name, p in traced.named_parameters()}
        self.graph_name = {n: traced_name[id(p)] for n, p in named.items() if id(p) in traced_name}
        self.weights = {
            name: self.net.get_parameter(self.graph_name[name])
            if name in self.graph_name
            else torch.empty(parameter.shape, device="meta")  # never runs: only its shape counts
            for name, parameter in named.items()
        }
        self.masked: dict[str, Tensor] = {}
        self.unmasked: dict[str, Tensor] = {}  # their values without a mask, to be put back
        self.inflow = inflow(shape, torch.ones(0, dtype=self.dtype, device="cpu"))

    def __reduce_ex__(self, protocol: int):
        raise TypeError("a PathProbe cannot be copied or pickled; make another one of the model")

    @torch.no_grad()
    def _set(self, masks: Masks, dtype: torch.dtype) -> None:
        # A bias carries nothing from input to output; a layer that never runs is not in the graph.
        masked = {
            name: weight
            for name, weight in instance(masks, Masks, "masks").parameters_of(self.weights)
            if not (weight.is_meta or is_bias(name))
        }
        self.net.to(dtype)
        self.inflow = tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, self.inflow)
        for name in set(self.masked) - set(masked):  # by the last question and not by this one
            self.masked.pop(name).copy_(self.unmasked.pop(name))
        # Before any is written: two names may stand for one weight.
        new = {name: weight.bool() for name, weight in masked.items() if name not in self.masked}
        self.unmasked |= new
        for name, weight in masked.items():
            weight.copy_(masks[name])
        self.masked = masked

    @torch.inference_mode(False)
    def connected(self, masks: Masks) -> bool:
        """Whether any path of kept weights joins input to output."""
        self._set(masks, self.dtype)
        with torch.no_grad(), explained_errors(self.inflow):
            return bool(self.paths(self.inflow, signs=True) > 0)

    @torch.inference_mode(False)
    def fewest(self, names: Iterable[str], guess: int) -> int:
        """How many weights the shortest path needs, where `fewest_weights` counts ``guess``.

        That counts by nodes, but a slice may drop all numbers of the shorter branch. The sum over
        paths with a small t for every weight is a polynomial; its lowest power is the count.

        Raises:
            ValueError: so many that the sum is out of range.
        """
        paths = PathSum(self.net, sum_pools=True, names=names)
        totals = []
        with torch.no_grad(), explained_errors(self.inflow):
            if paths(self.inflow, signs=True, shortest=True) > 0:
                return guess
            shapes = {name: self.weights[name].shape for name in names}
            unpruned = Masks({n: torch.ones(s, device="cpu") > 0 for n, s in shapes.items()})
            self._set(unpruned, torch.float64)
            for t in (_SMALL, _SMALL / 2):
                for name in names:
                    self.weights[name].fill_(t)
                totals.append(float(paths(self.inflow)))
            self._set(unpruned, torch.float64)
        if min(totals) < 1e-300:
            raise ValueError(
                "the shortest path from input to output needs too many weights to count"
            )
        return round(math.log2(totals[0] / totals[1]))

    def one_of_each(self, names: Iterable[str], path: PathWeights) -> bool:
        """Whether one entry of each weight on ``path``, all else pruned, joins input to output.

        A weight used twice needs one entry that serves both uses. It is searched for by halves: a
        half of a layer without any connection holds no entry that connects.
        """
        masks = Masks(
            {n: torch.full(self.weights[n].shape, n in path.names, device="cpu") for n in names}
        )
        order = sorted(path.names, key=lambda name: (name not in path.reused, name))
        return all(self._leave_one(masks, name) for name in order)

    def _leave_one(self, masks: Masks, name: str) -> bool:
        """Leave one weight of a layer, in place, that still joins input to output."""
        chosen = masks[name].view(-1)
        parts = [torch.arange(len(chosen), device="cpu")]
        for _ in range(_QUESTIONS):
            if not parts:
                return False
            part = parts.pop()
            chosen.zero_()[part] = True
            if self.connected(masks):
                if len(part) == 1:
                    return True
                parts += part.tensor_split(2)
        return False

    @torch.inference_mode(False)
    def _on_path(self, masks: Masks) -> dict[str, Tensor]:
        """Where among the masked weights a path runs through, bool; {} where none is left."""
        self._set(masks, torch.float64)  # backward, sums of zeros have to be exact
        names, targets = list(self.masked), list(self.masked.values())
        for weight in targets:
            weight.requires_grad_(True)
        with torch.enable_grad(), explained_errors(self.inflow):
            total = self.paths(self.inflow, signs=True)
        flows = [None] * len(names)
        if total.requires_grad:
            flows = torch.autograd.grad(total, targets, allow_unused=True)
        self.net.requires_grad_(False)
        found = zip(names, flows, strict=True)
        return {n: flow > 0 for n, flow in found if flow is not None} if total > 0 else {}

    def on_path(self, masks: Masks) -> Masks:
        """The kept weights that lie on some input-output path, or steer what does."""
        found, steering = self._on_path(masks), self.steering
        on_path = {name: torch.zeros_like(mask) for name, mask in masks.items()}
        if found:
            for name, where in [*found.items(), *steering.items()]:
                if name in masks:
                    on_path[name] |= masks[name] & where.to(masks[name].device)
        return Masks(on_path)

    @functools.cached_property
    def steering(self) -> dict[str, Tensor]:
        """Name -> bool, the weights of gates, queries and keys: they steer and lie on no path.

        Of a layer that holds queries, keys and values in one weight, the rows of the former.
        """
        if not self.paths.operations.gated:
            return {}
        whole, packed = self.paths.operations.steering_parameters()
        weights = layer_weights(self.net)
        everything = {  # whatever was pruned: which rows steer is a matter of the architecture
            name: torch.ones(self.weights[name].shape, dtype=torch.bool, device="cpu")
            for name, traced in self.graph_name.items()
            if traced in weights
        }
        full = {n: m for n, m in everything.items() if self.graph_name[n] in whole | packed}
        if not full:
            return {}
        flows, steering = self._on_path(Masks(everything)), {}
        for name, mask in full.items():
            if self.graph_name[name] in whole:
                steering[name] = mask
            elif name in flows:
                silent = ~flows[name].flatten(1).any(1)
                if bool(silent.any()):
                    steering[name] = mask & silent.view(-1, *[1] * (mask.dim() - 1))
        return steering


def steering(
    model: nn.Module, input_shape: Inputs | None = None, example: Inputs | None = None
) -> dict[str, Tensor]:
    """Parameter name -> bool: weights that no path runs through, since they only steer others.

    Layers that make gates, queries and keys; rows of those that hold them beside values. Networks
    without any, or whose paths are not known, give {}.

    >>> class Gated(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.a, self.g = nn.Linear(3, 3), nn.Linear(3, 3)
    ...     def forward(self, x):
    ...         return self.a(x) * torch.sigmoid(self.g(x))
    >>> list(steering(Gated()))
    ['g.weight']
    """
    try:
        shape = find_input_shape(model, input_shape, example)
        traced = trace(model, shape)
        if not Operations(traced).gated:
            return {}
        with explained_errors(shape):
            return PathProbe(model, shape, traced=traced).steering
    except ValueError:  # no paths are known here: questions about them raise the error
        return {}


def left_dense(
    model: nn.Module,
    keep: Iterable[str],
    input_shape: Inputs | None = None,
    example: Inputs | None = None,
) -> set[str]:
    """``keep`` and the layers that steer, which a score of paths knows nothing of; says so."""
    keep = names_in_keep(keep)
    steers = steering(model, input_shape, example)
    counted = prunable(model, keep=keep) if steers else ()
    if names := [name for name in steers if name in counted]:
        warn(
            f"{some(names)} only steer, as gates, queries and keys do: paths do not run through"
            " them, or not through all of their rows. They stay dense and are not counted in the"
            " compression. steering='layer' prunes them, each by magnitude to the density of the"
            " network; keep= with their names says that this is meant"
        )
    return keep.union(names)


class SteeringQuota:
    """Keeps the largest weights of gates, queries and keys, which paths give no score.

    Attributes:
        mask: bool (N,), where those weights are.
        others: the number of all other weights.
    """

    def __init__(self, work: Workspace, where: dict[str, Tensor]) -> None:
        self.work, self.mask = work, torch.zeros_like(work.flat, dtype=torch.bool)
        for name, view in work.views(self.mask).items():
            if name in where:
                view.copy_(where[name])
        self.others = self.mask.numel() - count(self.mask)
        self.magnitude = work.flat.abs()  # at the start: a method may change the working copy

    def ordered(self, scores: Tensor) -> Tensor:
        """``scores``, with tiny ones for these weights: below all others, ordered by magnitude."""
        tiny = 1e-30 * scores.amax() / self.magnitude.amax().clamp(min=1e-30)
        return torch.where(self.mask, self.magnitude * tiny, scores)

    def stay(self, density: float, alive: Tensor) -> Tensor:
        """Of each layer's the largest, to this density and at least one, bool (N,)."""
        stay = torch.zeros_like(self.mask)
        flat = (stay, self.magnitude, self.mask, alive & self.mask)
        for out, *rest in zip(*(self.work.views(part).values() for part in flat), strict=True):
            size, steers, left = (view.flatten() for view in rest)
            if total := count(steers):
                number = min(max(1, round(total * density)), count(left))
                out.copy_(keep_largest(size, number, left).view(out.shape))
        return stay
