"""Where layers go empty and where a network falls apart, from trajectories: notebooks 00 and 01."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..collapse import PathProbe
from ..masks import Masks
from ..selection import keep_largest, pick, places
from ..trajectory import SURVIVED, Trajectory, kept_at


def layer_densities(paths: Mapping[str, Trajectory], compressions: Iterable[float]) -> pd.DataFrame:
    """The fraction of weights left in each layer at many compressions: figure 2.

    Args:
        paths: method -> its trajectory, from `trajectory`.
        compressions: N / kept, each from 1 to N; those beyond the end of a trajectory are left
            out of its rows.

    Returns:
        One row a method, compression (rising) and layer: method, compression, layer (number, 1 at
        the input), name, kept, total, density; the input of `figures.layer_fractions`.

    Raises:
        ValueError: a compression out of range.

    >>> from synflow_lib import models, trajectory
    >>> path = trajectory(models.fc(seed=0), "magnitude")
    >>> layer_densities({"magnitude": path}, [1, 1000]).groupby("compression")["kept"].sum()
    compression
    1       119400
    1000       119
    Name: kept, dtype: int64
    """
    wanted = sorted(compressions)
    tables = []
    for method, path in paths.items():
        names = list(path.layout)
        sizes = np.array([shape.numel() for shape in path.layout.values()])
        ends = torch.from_numpy(sizes.cumsum())
        counts = [kept_at(path.total, compression) for compression in wanted]
        inside = [count for count in counts if count >= path.counts[-1]]
        for compression, index in zip(wanted, _nested(path, inside), strict=False):
            upto = torch.searchsorted(index, ends).numpy()
            kept = np.diff(upto, prepend=0)
            rows = {"method": method, "compression": compression, "name": names}
            tables.append(pd.DataFrame(rows | {"kept": kept, "total": sizes}))
            tables[-1].insert(2, "layer", range(1, len(names) + 1))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(density=table["kept"] / table["total"])


def layer_lifetimes(paths: Mapping[str, Trajectory]) -> pd.DataFrame:
    """How far the whole network can be pruned before each layer is empty, counted exactly.

    Args:
        paths: method -> its trajectory.

    Returns:
        One row a method and layer: method, layer (number, 1 at the input), name, size, kept (the
        smallest number of weights kept in the whole network with one of them in this layer),
        compression (N / kept). A layer that outlives the trajectory has the trajectory's end.

    >>> from synflow_lib import models, trajectory
    >>> path = trajectory(models.fc(seed=0), "magnitude")
    >>> lives = layer_lifetimes({"magnitude": path})
    >>> bool(lives["kept"].max() == path.last_of_each_layer())
    True
    """
    rows = []
    for method, path in paths.items():
        scores: dict[int, Tensor] = {}  # those of one iteration, minus infinity elsewhere
        start = 0
        for number, (name, shape) in enumerate(path.layout.items(), start=1):
            end = start + shape.numel()
            last = int(path.iteration[start:end].max())
            kept = path.counts[-1]
            if last != SURVIVED:
                if last not in scores:
                    other = path.iteration != last
                    scores[last] = path.score.masked_fill(other, -torch.inf)
                same = scores[last]
                value = same[start:end].amax()
                # Of equal scores the first positions stay longest.
                first = start + int((same[start:end] == value).nonzero()[0])
                above = int(torch.count_nonzero(same > value))
                ties = int(torch.count_nonzero(same[: first + 1] == value))
                kept = path.counts[last] + above + ties
            rows.append((method, number, name, end - start, kept, path.total / max(kept, 1)))
            start = end
    columns = ["method", "layer", "name", "size", "kept", "compression"]
    return pd.DataFrame(rows, columns=columns)


def collapse_points(
    model: nn.Module, paths: Mapping[str, Trajectory], lifetimes: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The critical compression of each method by both criteria, exactly, from its trajectory.

    Args:
        model: the network that was pruned; chains and networks with branches.
        paths: method -> its trajectory on this network.
        lifetimes: their `layer_lifetimes`, if they are known already.

    Returns:
        One row a method and criterion ("layer", then "path"): method, criterion, kept (the fewest
        weights without collapse), critical_compression (N / kept).

    >>> from synflow_lib import models, trajectory
    >>> net = models.fc(seed=0)
    >>> points = collapse_points(net, {"synflow": trajectory(net, "synflow")})
    >>> points["kept"].tolist()
    [6, 6]
    """
    lifetimes = layer_lifetimes(paths) if lifetimes is None else lifetimes
    probe = PathProbe(model)
    rows = []
    for method, path in paths.items():
        by_layer = int(lifetimes.loc[lifetimes["method"] == method, "kept"].max())
        for criterion, kept in (("layer", by_layer), ("path", _last_connected(probe, path))):
            rows.append((method, criterion, kept, path.total / kept))
    return pd.DataFrame(rows, columns=["method", "criterion", "kept", "critical_compression"])


def first_step(kept: int, total: int, step: float = 0.25) -> float:
    """The first alpha = 0, step, 2 step, ... whose compression 10^alpha keeps fewer than ``kept``.

    It puts an exactly known collapse point on the grid of compressions that the paper tried.

    Args:
        kept: the fewest weights without collapse, 1 to ``total``.
        total: N.
        step: of the grid, above 0.

    >>> first_step(kept=100, total=100_000)  # 10^3 keeps exactly 100 weights, and all is well
    3.25
    """
    number = 0
    while kept_at(total, min(10 ** (number * step), total)) >= kept:
        number += 1
        if 10 ** (number * step) > total:
            break
    return number * step


def collapse_verdicts(
    model: nn.Module, paths: Mapping[str, Trajectory], compressions: Iterable[float]
) -> pd.DataFrame:
    """Which methods have collapsed at which compression, by both criteria.

    Args:
        model: the network that was pruned.
        paths: method -> its trajectory on this network.
        compressions: N / kept, each from 1 to N, and not beyond the end of a trajectory.

    Returns:
        One row a method and compression (rising): method, compression, kept, empty_layers (their
        number), connected (whether kept weights join input to output).

    >>> from synflow_lib import models, trajectory
    >>> net = models.fc(seed=0)
    >>> collapse_verdicts(net, {"synflow": trajectory(net)}, [19_900])
        method  compression  kept  empty_layers  connected
    0  synflow        19900     6             0       True
    """
    probe, wanted, rows = PathProbe(model), sorted(compressions), []
    for method, path in paths.items():
        counts = [kept_at(path.total, compression) for compression in wanted]
        for compression, index in zip(wanted, _nested(path, counts), strict=True):
            masks = _masks(path, index)
            empty, connected = len(masks.empty_layers()), probe.connected(masks)
            rows.append((method, compression, len(index), empty, connected))
    columns = ["method", "compression", "kept", "empty_layers", "connected"]
    return pd.DataFrame(rows, columns=columns)


def _nested(path: Trajectory, counts: Iterable[int]) -> Iterator[Tensor]:
    """Positions, rising, of the ``kept`` weights that go last, for each falling count."""
    index = torch.arange(path.total, dtype=torch.int32, device=path.iteration.device)
    iteration, score = path.iteration, path.score
    for kept in counts:
        group = next(t for t, count in enumerate(path.counts) if count <= kept)
        later = path.counts[group]
        if group == 1 and later == 0:  # one score orders all weights
            stay = keep_largest(score, kept)
        else:
            stay = iteration > group
            if kept > later:
                going = places(iteration == group)
                stay[going[keep_largest(score[going], kept - later)]] = True
        index, iteration, score = (pick(tensor, stay) for tensor in (index, iteration, score))
        yield index


def _last_connected(probe: PathProbe, path: Trajectory) -> int:
    """The fewest weights that still join input to output.

    Connectivity only falls along a nested family: first in steps of a factor 4, then by halving
    within one step, where the order of the few weights in question is sorted once.
    """

    def connected(index: Tensor) -> bool:
        return probe.connected(_masks(path, index))

    end = max(1, path.counts[-1])
    if connected(next(_nested(path, [end]))):
        return end
    counts = [path.total]
    while counts[-1] > end:
        counts.append(max(end, counts[-1] // 4))
    index = None
    for fewer in _nested(path, counts):
        if not connected(fewer):
            low = len(fewer)
            break
        index = fewer
    if index is None:
        raise ValueError("the unpruned network is not connected from input to output")
    keys = (index, -path.score[index], -path.iteration[index].int())  # the last key comes first
    index = index[torch.from_numpy(np.lexsort([key.cpu().numpy() for key in keys]))]
    high = len(index)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if connected(index[:middle]) else (middle, high)
    return high


def _masks(path: Trajectory, index: Tensor) -> Masks:
    flat = torch.zeros(path.total, dtype=torch.bool, device=index.device)
    parts = flat.index_fill_(0, index.long(), True).split(
        [shape.numel() for shape in path.layout.values()]
    )
    shapes = path.layout.items()
    return Masks(
        {name: part.view(shape) for (name, shape), part in zip(shapes, parts, strict=True)}
    )
