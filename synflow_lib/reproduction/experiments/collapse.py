"""Where layers go empty and where a network falls apart, from trajectories: notebooks 00 and 01.

In all functions ``paths`` is method -> its trajectory, from `trajectory`, and ``model`` the network
that was pruned. Columns: layer is a number, 1 at the input; kept counts weights; a compression is
N / kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import nn

from ...batches import Batch
from ...collapse import PathProbe, fewest_connected
from ...pruning import trajectory
from ...trajectory import Trajectory
from ...values import kept_at
from .. import paper
from ..paper import FIVE
from .measured import measured


def trajectories(
    model: nn.Module, batch: Batch, methods: Iterable[str] = FIVE, mode: str = "eval", seed: int = 0
) -> dict[str, Trajectory]:
    """Method -> the order in which it removes all weights; what needs data in float32.

    On data float32 takes a third of the time, and the last weight of a layer has nearly the same
    rank.
    """
    types = dict.fromkeys(("snip", "grasp"), torch.float32)
    return {
        method: trajectory(model, method, batch, mode=mode, seed=seed, dtype=types.get(method))
        for method in methods
    }


@measured
def ends(model: nn.Module, batch: Batch, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`collapse_points` and `layer_lifetimes` of the `trajectories` of one network."""
    paths = trajectories(model, batch, seed=seed)
    lifetimes = layer_lifetimes(paths)
    return collapse_points(model, paths, lifetimes), lifetimes


@measured
def first_empty(model: nn.Module, batch: Batch, method: str, mode: str) -> float:
    """The compression at which a method, scoring in a mode, empties its first layer."""
    paths = trajectories(model, batch, [method], mode)
    return float(layer_lifetimes(paths)["compression"].min())


def layer_densities(paths: Mapping[str, Trajectory], compressions: Iterable[float]) -> pd.DataFrame:
    """The fraction of weights left in each layer at many compressions: figure 2.

    Args:
        compressions: each from 1 to N; those beyond the end of a trajectory are left out.

    Returns:
        One row a method, compression (rising) and layer: method, compression, layer, name, kept,
        total, density; the input of `figures.layer_fractions`.

    Raises:
        ValueError: a compression out of range.

    >>> from synflow_lib import models, trajectory
    >>> path = trajectory(models.fc(seed=0), "magnitude")
    >>> table = layer_densities({"magnitude": path}, [1, 1000])
    >>> table.groupby("compression")["kept"].sum().tolist()
    [119400, 119]
    """
    wanted, tables = sorted(compressions), {}
    for method, path in paths.items():
        for c in wanted:
            if kept_at(path.total, c) >= path.counts[-1]:
                tables[method, c] = path.at(c).table()
    return by_layer(tables)


def by_layer(tables: Mapping[tuple[str, float], pd.DataFrame]) -> pd.DataFrame:
    """One table of `Masks.table` at each (method, compression); layers have a number and a name."""
    table = pd.concat(tables, names=["method", "compression"]).rename(columns={"layer": "name"})
    table.insert(0, "layer", table.groupby(level=[0, 1]).cumcount() + 1)
    return table.reset_index([0, 1]).reset_index(drop=True)


def layer_lifetimes(paths: Mapping[str, Trajectory]) -> pd.DataFrame:
    """How far the whole network can be pruned before each layer is empty, counted exactly.

    Returns:
        One row a method and layer: method, layer, name, size, kept (the smallest number of weights
        kept in the whole network with one of them in this layer), compression. A layer that
        outlives the trajectory has the trajectory's end.
    """
    rows = []
    for method, path in paths.items():
        layers = zip(path.layout.items(), path.lasts(), strict=True)
        for number, ((name, shape), last) in enumerate(layers, start=1):
            kept = path.rank(last)
            rows.append((method, number, name, shape.numel(), kept, path.total / max(kept, 1)))
    columns = ["method", "layer", "name", "size", "kept", "compression"]
    return pd.DataFrame(rows, columns=columns)


def collapse_points(
    model: nn.Module, paths: Mapping[str, Trajectory], lifetimes: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The critical compression of each method by both criteria, exactly, from its trajectory.

    Args:
        lifetimes: their `layer_lifetimes`, if they are known already.

    Returns:
        One row a method and criterion ("layer", then "path"): method, criterion, kept (the fewest
        weights without collapse), critical_compression.

    >>> from synflow_lib import models, trajectory
    >>> net = models.fc(seed=0)
    >>> collapse_points(net, {"synflow": trajectory(net, "synflow")})["kept"].tolist()
    [6, 6]
    """
    lifetimes = layer_lifetimes(paths) if lifetimes is None else lifetimes
    probe = PathProbe(model)
    by_layer, rows = lifetimes.groupby("method")["kept"].max(), []
    for method, path in paths.items():
        fewest = {"layer": int(by_layer[method]), "path": fewest_connected(probe, path)}
        rows += [(method, by, kept, path.total / kept) for by, kept in fewest.items()]
    return pd.DataFrame(rows, columns=["method", "criterion", "kept", "critical_compression"])


def collapse_verdicts(
    model: nn.Module, paths: Mapping[str, Trajectory], compressions: Iterable[float]
) -> pd.DataFrame:
    """Which methods have collapsed at which compression, by both criteria.

    Args:
        compressions: each from 1 to N, and not beyond the end of a trajectory.

    Returns:
        One row a method and compression (rising): method, compression, kept, empty_layers (their
        number), connected (whether kept weights join input to output).
    """
    probe, wanted, rows = PathProbe(model), sorted(compressions), []
    for method, path in paths.items():
        for compression in wanted:
            masks = path.at(compression)
            empty, connected = len(masks.empty_layers()), probe.connected(masks)
            rows.append((method, compression, masks.kept, empty, connected))
    columns = ["method", "compression", "kept", "empty_layers", "connected"]
    return pd.DataFrame(rows, columns=columns)


def agreement_rows(
    points: pd.DataFrame, lives: pd.DataFrame, far: pd.Series, conditions: str
) -> list[paper.Agreement]:
    """Notebook 01's comparison of the points of collapse with figures 1 and 2 of the paper.

    Args:
        points: `collapse_points` of every seed, with the columns seed and log10 (of the critical
            compression).
        lives: `layer_lifetimes` of every seed, with the column seed.
        far: (method, images) -> median distance from the published fractions of VGG-19, in decades.
        conditions: of our runs.
    """
    broken_at = points.groupby(["criterion", "method"])["log10"].agg(list)
    layers, seeds = lives["layer"].nunique(), sorted(lives["seed"].unique())
    published, keys = paper.figure1(), ["method", "seed"]
    empty = published[published["empty_layers"] > 0].groupby(keys)["log10_compression"].min()
    alive = published[published["accuracy"] > 1].groupby(keys)["log10_compression"].max()
    gone = lives[lives["compression"] < 1e5].groupby(keys).size()
    at_5 = published.query("log10_compression == 5").groupby("method")["empty_layers"].agg(list)

    step = {"margin": 0.25, "margin_reason": "one step of the paper's grid of compressions"}
    one = {"margin": 1, "margin_reason": "one layer, the smallest step there is"}
    early = "the paper's GraSP was an early version, and scored ten times as many images"
    thin = "a network may be connected and yet too thin to train"
    rows = []

    def compare(figure, quantity, theirs, ours, reason="", **margin):
        how = {"conditions": conditions, "reason": reason, **margin}
        rows.append(paper.agreement(figure, quantity, paper=theirs, ours=ours, **how))

    def holds(statement, seen, reason="theorem 3", where="VGG-16"):
        rows.append(paper.identity(2, statement, bool(seen), reason=reason, conditions=where))

    others = [method for method in paper.FIVE if method != "synflow"]
    for method in others:
        reason, theirs = early if method == "grasp" else "", list(empty[method] - 0.125)
        quantity = f"log10 compression, first empty layer, {method}"
        compare(2, quantity, theirs, broken_at["layer", method], reason, **step)
    for method in others:
        reason = early if method == "grasp" else ""
        counts = [int(gone.get((method, seed), 0)) for seed in seeds]
        quantity = f"empty layers of {layers} at compression 10^5, {method}"
        compare(2, quantity, at_5[method], counts, reason, **one)
    for method in others:
        reason = "" if method == "grasp" else thin
        quantity = f"log10 compression, accuracy at chance (paper) or disconnected (ours), {method}"
        compare(1, quantity, list(alive[method] + 0.125), broken_at["path", method], reason, **step)
    lost, left = ([log10 - 2.5 for log10 in broken_at[by, "magnitude"]] for by in ("path", "layer"))
    compare(
        1, "log10 distance of 10^2.5 from the last path and from the first empty layer, magnitude",
        "at chance with no layer empty",
        {"beyond the last path": [-log10 for log10 in lost], "before the first empty layer": left},
        side="above", margin=0, margin_reason="on which side it lies",
    )  # fmt: skip
    ends = points.query("method == 'synflow' and criterion == 'path'")["kept"]
    holds("SynFlow by the cut schedule reaches rho_max on every seed", (ends == layers).all())
    holds(
        f"SynFlow by the cut schedule: no layer of {layers} is empty at compression 10^5",
        "synflow" not in gone.index.get_level_values("method"),
    )
    why = "it follows from the initialization and the sizes of the layers"
    for method in ("random", "magnitude"):
        fraction = f"fraction left in each layer of VGG-19, {method}: within 0.01 decades"
        near = far[method, "none"] < 0.01
        holds(f"{fraction} of the published (median)", near, why, "VGG-19 (224x224)")
    return rows
