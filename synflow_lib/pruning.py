"""`prune` and `trajectory`: schedules of densities, and the one that Theorem 3 makes.

Read `scores` and `masks` first; what they call is `loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .batches import Batch
from .graphs.workspace import Context
from .loop import PruningLoop
from .masks import Masks
from .scores import Method, Scorer
from .trajectory import Trajectory
from .values import kept_at

Schedule = Callable[[int, int, float], float]

SCHEDULES: dict[str, Schedule] = {
    "exponential": lambda t, n, density: density ** (t / n),
    "linear": lambda t, n, density: 1.0 - (1.0 - density) * t / n,
}


def prune(
    model: nn.Module,
    method: str | Scorer | type[Method],
    compression: float,
    batch: Batch | Iterable[Batch] | None = None,
    *,
    iterations: int | None = None,
    schedule: str | Schedule = "exponential",
    scope: str = "global",
    steering: str = "dense",
    keep: Iterable[str] = (),
    bias: bool = False,
    batch_norm: bool = False,
    mode: str | None = None,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    input_shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
    progress: bool | None = None,
) -> Masks:
    """Choose which weights stay, at an exact compression; the model is left as it is.

    Args:
        model: any module; at initialization or trained.
        method: a name, a function ``(model, batch) -> scores``, or a method class (see `score`).
        compression: rho = N / kept, from 1 to N. Exactly ``round(N / rho)`` weights stay (at least
            one), with scope "local" of each layer; ties go by position.
        batch: data, for methods that score on data; the others ignore it.
        iterations: how often to score; default the paper's: 100 for SynFlow, 1 for the others.
            With scope "global", those that would remove nothing are left out.
        schedule: densities over the iterations: ``"exponential"`` rho^(-t/n), the default (unlike
            that of `trajectory`, which is ``"cut"`` for SynFlow); ``"linear"``; a function ``(t, n,
            final density) -> density``; or ``"cut"``: as many iterations as Theorem 3 asks for (see
            `trajectory`).
        scope: ``"global"`` compares all weights, ``"local"`` prunes every layer alike.
        steering: for SynFlow, which sees paths alone: what becomes of weights that only steer, of
            gates, queries and keys. ``"dense"``: their layers stay as they are and out of the
            count, with a warning that names them. ``"layer"``: pruned with the rest, each layer's
            by magnitude to the density of the whole network.
        keep, bias, batch_norm: which parameters take part (see `synflow_lib.prunable`).
        mode, seed, loss, input_shape, dtype: as in `score`.
        progress: True shows a bar, False never; None shows one on a terminal after two seconds.

    Returns:
        `Masks`; ``masks.apply_(model)`` writes the zeros.

    Raises:
        ValueError, TypeError: unfit arguments, scores or data. A UserWarning names layers where
            only some of the weights that score zero stay, which is position's choice.

    Paper: Algorithm 1, with any score in place of SynFlow's.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> prune(net, "synflow", compression=450)
    Masks(2 layers, kept 2 of 900, compression 450)
    """
    run = PruningLoop(model, method, Context(batch, mode, seed, loss, input_shape, dtype), progress,
               recorded=schedule == "cut", steering=steering, keep=keep, bias=bias,
               batch_norm=batch_norm)  # fmt: skip
    kept = kept_at(run.size, compression)
    if scope not in ("global", "local"):
        raise ValueError(f"scope={scope!r}; expected 'global' or 'local'")
    if kept < run.size:
        run.warn_of_zeros({"": kept} if scope == "global" else run.local_counts(compression))
    if schedule == "cut":
        if iterations is not None or scope != "global":
            raise ValueError(
                "schedule='cut' finds its own number of iterations and compares all weights;"
                " leave out iterations= and scope="
            )
        return run.by_cuts(kept).keeping(kept)
    densities = _densities(schedule, run.iterations(iterations), 1 / max(1.0, float(compression)))
    if scope == "local":
        flat = run.local(densities, compression)
    else:
        flat = run.by_densities(densities, kept)
    return run.masks(flat, scope)


def trajectory(
    model: nn.Module,
    method: str | Scorer | type[Method] = "synflow",
    batch: Batch | Iterable[Batch] | None = None,
    *,
    schedule: str | Schedule | None = None,
    iterations: int | None = None,
    compression: float | None = None,
    steering: str = "dense",
    keep: Iterable[str] = (),
    bias: bool = False,
    batch_norm: bool = False,
    mode: str | None = None,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    input_shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
    progress: bool | None = None,
) -> Trajectory:
    r"""One nested family of masks through every compression.

    ``schedule="cut"`` (the default of SynFlow) makes Theorem 3 the schedule. With positive,
    conserved scores every cut of the network carries the same total R. In each iteration the
    smallest scores go, as many as sum to less than R. Every path that is cut runs through a
    removed weight, so the cut paths together carry less than R and some path is left: the network
    is never disconnected, no layer of a chain is ever emptied, and the run ends only when every
    weight left carries all of R, on a chain one weight a layer, rho_max = N / L.

    Args:
        schedule: ``"cut"``, or None for one-shot methods: score once, which orders all weights;
            or a fixed schedule with ``iterations`` down to ``compression`` (default N / L).
        compression: where to stop; the default of ``"cut"`` is as far as it goes.
        (others): as in `prune`.

    Returns:
        A `Trajectory`: ``.at(compression)`` gives `Masks`, ``.history`` a row an iteration.

    Raises:
        ValueError: as in `prune`; also "cut" with a score that can be negative.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> path = trajectory(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10)))
    >>> path.max_compression, path.at(100)
    (450.0, Masks(2 layers, kept 9 of 900, compression 100))
    """
    run = PruningLoop(model, method, Context(batch, mode, seed, loss, input_shape, dtype), progress,
               recorded=True, steering=steering, keep=keep, bias=bias,
               batch_norm=batch_norm)  # fmt: skip
    if schedule is None:
        schedule = "cut" if run.iterations(iterations) > 1 and iterations is None else "exponential"
    if schedule == "cut":
        if iterations is not None:
            raise ValueError("schedule='cut' finds its own number of iterations; leave it out")
        return run.by_cuts(1 if compression is None else kept_at(run.size, compression))
    count = run.iterations(iterations)
    if compression is not None:
        kept, final = kept_at(run.size, compression), 1 / max(1.0, float(compression))
    else:  # one scoring orders all weights, to the last
        kept = 0 if count == 1 else len(run.work.names)
        final = max(kept, 1) / run.size
    run.by_densities(_densities(schedule, count, final), kept)
    return run.finished()


def _densities(schedule: str | Schedule, iterations: int, final: float) -> list[float]:
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ValueError(
                f"unknown schedule {schedule!r}; expected one of {[*SCHEDULES, 'cut']} or a"
                " function (t, n, final density) -> density"
            )
        schedule = SCHEDULES[schedule]
    elif not callable(schedule):
        raise TypeError(f"schedule is a {type(schedule).__name__}; expected a name or a function")
    try:
        given = [schedule(t, iterations, final) for t in range(1, iterations + 1)]
    except TypeError as error:
        raise TypeError(f"schedule=: {error}; expected a function (t, n, final density)") from error
    try:
        densities = [float(density) for density in given]
    except (TypeError, ValueError):
        raise TypeError(f"the schedule gives {given[:3]}...; expected densities, numbers") from None
    rising = any(b > a for a, b in zip(densities, densities[1:], strict=False))
    if rising or not all(0 < d <= 1 for d in densities):
        raise ValueError(
            f"the schedule gives densities {densities[:3]}...; expected numbers in (0, 1] that"
            " never rise, since a pruned weight never returns"
        )
    return densities
