"""What does a mask know? Masks shuffled, rewired, moved to other weights, inverted: notebook 07."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from ... import env, quotas
from ...collapse import PathProbe
from ...data import Dataset
from ...masks import Masks
from ...methods import inverted
from ...pruning import prune, trajectory
from ...scores import score
from ...sweeps.run import Run, batching_pays
from ...sweeps.sweep import sweep
from .. import grids
from . import trained
from .schedules import overlap
from .widths import network_totals, structure

_OTHERS = ("magnitude", "snip")  # whose masks are shuffled too, at fewer compressions


def rewired(model: nn.Module, masks: Masks, generator: torch.Generator | int) -> Masks:
    """Shuffled within each layer, but only among the units that lie on some path.

    Each layer keeps its number of weights *and* each layer its set of live units, so what is lost
    is which of them are joined. (`Masks.shuffled` also spreads the weights over all units.)

    Args:
        model: the network of the masks.
        masks: what stays; weights that lie on no path stay where they are.
        generator: of random numbers, or a seed.

    >>> net = nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2))
    >>> first = torch.zeros(9, 9, dtype=torch.bool)
    >>> first[0, :3] = True  # one unit, three inputs
    >>> masks = Masks({"0.weight": first, "2.weight": torch.arange(18).view(2, 9) % 9 == 0})
    >>> rewired(net, masks, 0) == masks  # nowhere else to go
    True
    """
    on_path, found = PathProbe(model).on_path(masks), {}
    inside = {}
    for name, mask in masks.items():
        alive = on_path[name].view(*mask.shape[:2], -1).any(2)  # (outputs, inputs)
        rows, columns = alive.any(1).nonzero().flatten(), alive.any(0).nonzero().flatten()
        inside[name] = rows[:, None], columns
        found[name] = mask[inside[name]]
    shuffled = Masks(found).shuffled(generator)
    result = {name: mask.clone() for name, mask in masks.items()}
    for name, mask in result.items():
        mask[inside[name]] = shuffled[name]
    return Masks(result)


# --------------------------------------------------------------------------- what is trained


@dataclass(frozen=True)
class Checks(grids.Grid):
    """Figure 1's network, and where the sanity checks look: at compressions 10**alpha.

    Attributes:
        alphas: at which SynFlow's masks are changed.
        beyond: further ones for SynFlow as found.
        few: those of the other methods.
        structure_alphas, structure_seeds: of the untrained VGG-16.
    """

    alphas: tuple[float, ...]
    beyond: tuple[float, ...] = (3.0,)
    few: tuple[float, ...] = (1.0, 2.0)
    structure_alphas: tuple[float, ...] = (1.0, 2.0, 2.5, 3.0, 3.5)
    structure_seeds: int = 2

    def plan(self, store: str | Path | None = None) -> str:
        """What is to be trained (`trials`), and how long, as `Grid.plan` says it.

        >>> checks().plan()
        'fc on digits; 5 seeds, up to 325 networks to train'
        """
        each = 1 + 9 * len(self.alphas) + len(self.beyond) + 9 * len(self.few)
        count, panel = self.seeds * each, self.panel
        text = f"{panel.model} on {panel.dataset}; {self.seeds} seed{'s' * (self.seeds > 1)}, "
        text += f"up to {count} networks to train"
        if env.scale() == "classroom":
            return text
        about = grids.duration([(panel, count * panel.recipe.epochs)])
        return f"{text}; about {about} on {env.device()}, less what is kept"


def checks() -> Checks:
    """The settings of the current scale."""
    grid = grids.figure1()
    return Checks(grid.panels, grid.seeds, tuple(a for a in grid.panel.alphas if 0 < a <= 2.5))


@dataclass(frozen=True)
class Trial(trained.Start):
    """One masked network to be trained.

    Attributes:
        label: what was done to which mask; see `trials`.
        alpha: compression 10**alpha.
        run: the run of figure 1's grid that this is, if it is one.
    """

    label: str
    alpha: float
    run: Run | None = None


def trials(settings: Checks) -> list[Trial]:
    """Every mask of every seed, as found and changed.

    Labels: "synflow", "magnitude", "snip" (as found), "dense"; followed by "shuffled" (each layer's
    weights at random places), "rewired" (`rewired`), "reinitialized" (the mask on weights of
    another seed), "inverted" (found with the scores' order reversed), "as thin" (SynFlow with no
    more weights than the shuffled mask has on paths); "largest within" (SynFlow's quotas, the
    largest weights of each layer), "erk" and "uniform" (random masks with these quotas), "synflow
    cut" (the cut schedule; all others are the paper's 100 steps).
    """
    data = settings.panel.network()[1]
    return [trial for seed in range(settings.seeds) for trial in _trials(settings, data, seed)]


def _trials(settings: Checks, data: Dataset, seed: int) -> Iterator[Trial]:
    net, _ = settings.panel.network(seed, data)
    batch, probe = data.scoring_batch(seed=seed), PathProbe(net)
    points = settings.panel.points(settings.seeds)
    runs = {(label, alpha): run for label, alpha, run in points if run.seed == seed}
    generator = torch.Generator().manual_seed(seed)
    size, cut = score(net, "magnitude"), trajectory(net, "synflow")

    def trial(label: str, alpha: float, masks: Masks, anew: bool = False) -> Trial:
        weights = seed + settings.seeds if anew else seed  # new ones: of no other trial
        # Methods as found are runs of figure 1; no change of a mask is called as they are.
        return Trial(weights, masks, seed, label, alpha, runs.get((label, alpha)))

    yield Trial(seed, Masks.ones(net), seed, "dense", 0.0, runs["synflow", 0.0])
    for alpha in settings.alphas:
        c = 10.0**alpha
        found = prune(net, "synflow", c, seed=seed)
        shuffled = found.shuffled(generator)
        yield trial("synflow", alpha, found)
        yield trial("synflow shuffled", alpha, shuffled)
        yield trial("synflow rewired", alpha, rewired(net, found, generator))
        yield trial("synflow reinitialized", alpha, found, anew=True)
        if left := probe.on_path(shuffled).kept:
            thin = prune(net, "synflow", found.total / left, seed=seed)
            yield trial("synflow as thin", alpha, thin)
        yield trial("largest within", alpha, quotas.by_score(size, quotas.of(found)))
        for name, quota in (("erk", quotas.erk), ("uniform", quotas.uniform)):
            yield trial(name, alpha, quotas.random(net, quota(net, c), generator))
        yield trial("synflow cut", alpha, cut.at(c))
    for alpha in settings.beyond:
        yield trial("synflow", alpha, prune(net, "synflow", 10.0**alpha, seed=seed))
    for alpha in settings.few:
        c = 10.0**alpha
        yield trial("synflow inverted", alpha, prune(net, inverted("synflow"), c))
        for method in _OTHERS:
            found, upside = (prune(net, m, c, batch, seed=seed) for m in (method, inverted(method)))
            yield trial(method, alpha, found)
            yield trial(f"{method} shuffled", alpha, found.shuffled(generator))
            yield trial(f"{method} reinitialized", alpha, found, anew=True)
            yield trial(f"{method} inverted", alpha, upside)


def accuracies(
    settings: Checks, jobs: Sequence[Trial], store: Path | str | None = None
) -> pd.DataFrame:
    """Train all trials, except those that the store of figure 1's runs holds already.

    Copies that pay to train together (`batching_pays`) round by the company they are in: those are
    trained here, whatever the store holds, so that no result depends on what ran before.

    Args:
        settings, jobs: from `checks` and `trials`.
        store: the folder of finished runs; None is `env.runs_dir()`. What belongs to no grid is
            kept as in `trained.accuracies`.

    Returns:
        One row a trial, without those that an interrupt kept from being trained: method (the
        label), compression, seed, accuracy (percent, last epoch), effective (compression counting
        only weights on paths; infinite when disconnected), disconnected, kept, width (mean share of
        live units over the hidden layers).
    """
    store = store or env.runs_dir()
    net, data = settings.panel.network()
    of_grid = [] if batching_pays(net) else [trial for trial in jobs if trial.run is not None]
    done = sweep([trial.run for trial in of_grid], store=store, progress=False)
    results = {row.key: row.top1 for row in done.itertuples()}
    top1 = {id(trial): float(results[trial.run.key]) for trial in of_grid}
    others = [trial for trial in jobs if id(trial) not in top1]
    found = trained.accuracies(
        lambda seed: settings.panel.network(seed, data)[0], others, data.to(env.device()),
        settings.panel.recipe, store,
    )  # fmt: skip
    top1 |= {id(trial): accuracy for trial, accuracy in zip(others, found, strict=True)}
    probe = PathProbe(net)  # of the architecture: weights do not matter
    layers = [
        structure(net, trial.masks, probe).assign(
            method=trial.label, compression=10.0**trial.alpha, trial=number
        )
        for number, trial in enumerate(jobs)
    ]
    table = network_totals(pd.concat(layers), ["trial"]).assign(
        seed=[trial.seed for trial in jobs],
        accuracy=[top1[id(trial)] for trial in jobs],
        disconnected=lambda found: np.isinf(found["effective"]),
        kept=[trial.masks.kept for trial in jobs],
    )
    columns = ["method", "compression", "seed", "accuracy", "effective", "disconnected", "kept"]
    return table[[*columns, "width"]].dropna(subset="accuracy", ignore_index=True)


def schedule_overlap(jobs: Iterable[Trial]) -> pd.DataFrame:
    """The share of SynFlow's mask by the paper's 100 steps that the cut schedule keeps as well.

    Returns:
        One row a compression and seed: compression, seed, overlap, by_chance (what the shuffled
        mask of the cut schedule shares: the same layer quotas at random).
    """
    found = {(t.label, t.alpha, t.seed): t.masks for t in jobs}
    rows = []
    for (label, alpha, seed), masks in found.items():
        if label == "synflow" and ("synflow cut", alpha, seed) in found:
            cut = found["synflow cut", alpha, seed]
            shares = (overlap(masks, other) for other in (cut, cut.shuffled(seed)))
            rows.append((10.0**alpha, seed, *shares))
    return pd.DataFrame(rows, columns=["compression", "seed", "overlap", "by_chance"])


def rounding_overlap(settings: Checks, compression: float = 100.0) -> list[float]:
    """`schedule_overlap` of the paper's schedule in float32 with itself in float64, one a seed."""
    shares = []
    for seed in range(settings.seeds):
        net, _ = settings.panel.network(seed)
        types = torch.float32, torch.float64
        shares.append(overlap(*(prune(net, "synflow", compression, dtype=t) for t in types)))
    return shares
