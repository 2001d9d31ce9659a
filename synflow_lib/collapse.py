"""Layer-collapse: how far a network can be pruned, and where a method cuts it in two.

Two criteria, always stated. ``"layer"``: some prunable layer has no weight left, the paper's sign.
``"path"``: no path of kept weights leads from input to output. An emptied layer disconnects a
chain, but a chain can be disconnected with no layer empty, and a residual network lives on when a
shortcut is empty.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from .batches import Batch, Inputs, first_input, kept_for_passes
from .graphs.network import find_input_shape, is_bias, prunable, some, trace
from .graphs.operations import Operations
from .masks import Masks
from .paths import PathWeights, fewest_weights
from .probe import PathProbe, left_dense
from .pruning import Schedule, prune, trajectory
from .randomness import own_random_numbers
from .scores import Method, Scorer, resolve
from .trajectory import Trajectory
from .values import instance, kept_at

CRITERIA = ("layer", "path")


def _check_criterion(criterion: str) -> None:
    if criterion not in CRITERIA:
        raise ValueError(f"criterion={criterion!r}; expected one of {CRITERIA}")


def max_compression(
    model: nn.Module,
    criterion: str = "layer",
    *,
    input_shape: Inputs | None = None,
    **select,
) -> float:
    """rho_max, the largest compression without layer-collapse (section 3).

    By layer N / L. By path N over the size of the smallest set of weights that still joins input
    to output: on a chain the same, on a residual network larger, since skip connections cost no
    weight.

    Args:
        criterion: ``"layer"`` or ``"path"``.
        input_shape: for the path, of networks that need an example to be traced (see `score`).
        select: bias, batch_norm, keep as in `synflow_lib.prunable`.

    >>> max_compression(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    9.0
    """
    _check_criterion(criterion)
    parameters = prunable(model, **select)
    total = sum(parameter.numel() for parameter in parameters.values())
    if criterion == "layer":
        return total / max(1, sum(not is_bias(name) for name in parameters))
    return total / max(1, _fewest_on_a_path(model, parameters, input_shape))


def _fewest_on_a_path(
    model: nn.Module, parameters: dict[str, nn.Parameter], given: Inputs | None
) -> int:
    given = getattr(model, "input_shape", None) if given is None else given
    try:
        shape = find_input_shape(model, given)
    except ValueError:  # some questions can be answered without
        if given is not None:
            raise
        shape = None
    traced = trace(model, shape)
    probe = functools.cache(lambda: PathProbe(model, shape, traced=traced))
    operations, names = Operations(traced).check(), set(parameters)
    end = next(node for node in traced.graph.nodes if node.op == "output")
    fewest = fewest_weights(operations, names)
    connected = end in fewest
    if connected and shape is not None:  # else unknown: padding or a factor 0 may stop everything
        unpruned = {n: torch.ones_like(p, dtype=torch.bool) for n, p in parameters.items()}
        connected = probe().connected(Masks(unpruned))
    if not connected:
        raise ValueError(f"no path leads from the input of {type(model).__name__} to its output")
    best, uneven = fewest[end][0], _uneven(operations, fewest)
    reused = {name for paths in fewest.values() for path in paths for name in path.reused}
    if best.reused:
        if probe().one_of_each(names, best):
            return len(best.names)
    elif uneven and (given is not None or operations.signals.effect(uneven) == "joins"):
        counted = probe().fewest(names, len(best.names))
        if counted == len(best.names) or not reused:  # else it counts a weight for every use
            return counted
    else:
        return len(best.names)
    raise ValueError(
        f"how few weights join input to output is not known: {some(sorted(reused))} is used more"
        " than once on the way, and one weight was not found that serves all of its uses;"
        " criterion='layer' does without paths"
    )


def _uneven(operations: Operations, fewest: dict[fx.Node, list[PathWeights]]) -> fx.Node | None:
    """A node where branches of more and of fewer weights meet: a concatenation, if there is one."""
    uneven = [
        node
        for node, sources in operations.carriers.items()
        if len({len(fewest[source][0].names) for source in sources if source in fewest}) > 1
    ]
    return max(uneven, key=lambda n: operations.signals.effect(n) == "joins", default=None)


def is_collapsed(
    model: nn.Module,
    masks: Masks,
    criterion: str = "layer",
    *,
    input_shape: Iterable[int] | None = None,
) -> bool:
    """Whether ``masks`` collapse the network, by the stated criterion.

    Args:
        criterion: ``"layer"``, some layer empty; ``"path"``, input and output disconnected (needs
            a traceable network; ``input_shape`` where the network does not tell it).

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> ends = torch.tensor([[True, True], [False, False]]), torch.tensor([[False, True]])
    >>> broken = Masks(dict(zip(["0.weight", "1.weight"], ends)))
    >>> is_collapsed(net, broken, "layer"), is_collapsed(net, broken, "path")
    (False, True)
    """
    _check_criterion(criterion)
    if criterion == "layer":
        instance(masks, Masks, "masks").parameters_of(model)  # a clear error where they do not fit
        return bool(masks.empty_layers())
    return not PathProbe(model, input_shape).connected(masks)


def effective_compression(
    model: nn.Module, masks: Masks, *, input_shape: Iterable[int] | None = None
) -> float:
    """N / (kept weights that lie on some input-output path); infinite when disconnected.

    Dead weights, behind or before an empty channel, count as pruned (Vysogorets and Kempe 2021).
    """
    on_path = PathProbe(model, input_shape).on_path(masks)
    if any(map(is_bias, masks)):  # no path runs through a bias: N and what is left are of weights
        names = [name for name in masks if not is_bias(name)]
        on_path = Masks({name: on_path[name] for name in names})
    return on_path.compression


@dataclass(frozen=True)
class CriticalCompression:
    """rho_cr: the largest compression a method reaches without layer-collapse.

    Attributes:
        compression: rho_cr = N / kept.
        kept: the number of weights kept there; one fewer collapses (up to ``resolution``).
        criterion: "layer" or "path".
        max_compression: rho_max by the same criterion; Maximal Critical Compression is equality.
        how: in words, how it was found.
        resolution: 1.0 where exact, else the factor between the compressions that were tried.
    """

    compression: float
    kept: int
    criterion: str
    max_compression: float
    how: str
    resolution: float = 1.0

    @property
    def is_maximal(self) -> bool:
        """Whether the Maximal Critical Compression axiom holds (rho_cr = rho_max)."""
        return self.compression >= self.max_compression * (1 - 1e-12)


def critical_compression(
    model: nn.Module,
    method: str | Scorer | type[Method],
    criterion: str = "layer",
    batch: Batch | Iterable[Batch] | None = None,
    *,
    iterations: int | None = None,
    schedule: str | Schedule | None = None,
    resolution: float = 10**0.05,
    keep: Iterable[str] = (),
    mode: str | None = None,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    input_shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> CriticalCompression:
    """The largest compression a method reaches without layer-collapse (rho_cr, section 3).

    One-shot methods and ``schedule="cut"`` (default of SynFlow) define one order of removal, so
    the answer is exact from one run: by layer it is the rank of the weight that a layer loses
    last; by path the rank of the weakest weight on the widest path. A fixed schedule with several
    iterations is another run for each compression; they are tried on a grid of factor
    ``resolution``, by bisection.

    Args:
        resolution: above 1.
        (others): as in `prune`.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 2))
    >>> found = critical_compression(net, "synflow")
    >>> found.compression, found.is_maximal
    (1300.0, True)
    """
    method_class = resolve(method)
    if schedule is None and iterations is None and method_class.iterations > 1:
        schedule = "cut"
    count = method_class.iterations if iterations is None else iterations
    if batch is not None and not isinstance(batch, (tuple, list)):
        with own_random_numbers(seed):  # a shuffling DataLoader draws from torch's generator
            batch = kept_for_passes(batch)
    if method_class.by_paths:
        keep = left_dense(model, keep, input_shape, first_input(batch))
    shared = {"mode": mode, "seed": seed, "loss": loss, "input_shape": input_shape}
    shared |= {"dtype": dtype, "keep": keep}
    limit = max_compression(model, criterion, input_shape=input_shape, keep=keep)
    if schedule == "cut" or count == 1:
        run = trajectory(model, method, batch, schedule=schedule, iterations=iterations, **shared)
        if criterion == "layer":
            kept = max(1, run.last_of_each_layer())
        else:
            kept = fewest_connected(PathProbe(model, input_shape), run)
        cut = schedule == "cut"
        how = "the cut schedule's one trajectory" if cut else "one score orders all weights"
        return CriticalCompression(run.total / kept, kept, criterion, limit, f"exact: {how}")
    if not isinstance(resolution, numbers.Real) or not resolution > 1:
        raise ValueError(f"resolution={resolution!r}; expected a factor above 1, such as 1.1")
    total = sum(p.numel() for p in prunable(model, keep=keep).values())
    ladder = _ladder(total, limit, resolution)

    def survives(kept: int) -> bool:
        masks = prune(
            model, method, total / kept, batch, iterations=iterations,
            schedule=schedule or "exponential", **shared,
        )  # fmt: skip
        return not is_collapsed(model, masks, criterion, input_shape=input_shape)

    kept = ladder[_last_true(lambda place: survives(ladder[place]), len(ladder))]
    how = f"bisection over {len(ladder)} compressions, {count} iterations each"
    return CriticalCompression(total / kept, kept, criterion, limit, how, resolution)


def _ladder(total: int, limit: float, resolution: float) -> list[int]:
    """Numbers of weights to keep, from all down to what rho_max keeps."""
    counts, compression = [total], resolution
    while compression < limit:
        counts.append(kept_at(total, compression))
        compression *= resolution
    return list(dict.fromkeys([*counts, kept_at(total, limit)]))


def fewest_connected(probe: PathProbe, run: Trajectory) -> int:
    """The smallest number of kept weights at which the masks of ``run`` join input to output.

    Masks of one trajectory are nested: once disconnected, they stay so. Bisection therefore finds
    the number with about log2(N) questions.

    Raises:
        ValueError: not even the whole network is connected.
    """
    low = max(1, run.counts[-1])
    if probe.connected(run.keeping(low, quiet=True)):
        return low
    high = run.total
    while high - low > 1:
        # On a logarithmic axis: few weights suffice, and each question costs as much as any other.
        middle = max(low + 1, math.isqrt(low * high))
        if probe.connected(run.keeping(middle, quiet=True)):
            high = middle
        else:
            low = middle
    if high == run.total and not probe.connected(run.keeping(high, quiet=True)):
        raise ValueError("the unpruned network is not connected from input to output")
    return high


def _last_true(holds: Callable[[int], bool], count: int) -> int:
    """The last place at which ``holds``, true at 0 and falling."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
