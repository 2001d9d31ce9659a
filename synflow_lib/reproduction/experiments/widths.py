"""How much of a pruned network is alive: weights on paths, units on paths, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import nn

from ... import quotas
from ...batches import Batch
from ...collapse import PathProbe
from ...fast.selection import count
from ...masks import Masks
from ...pruning import trajectory
from ..paper import FIVE
from .measured import measured


def structure(model: nn.Module, masks: Masks, probe: PathProbe | None = None) -> pd.DataFrame:
    """Live weights and live units, layer by layer.

    A unit, a neuron or feature map, is live if a path of kept weights runs through it.

    Args:
        model, masks: a network, and what stays of it.
        probe: a `PathProbe` of the model, if there is one already.

    Returns:
        One row a layer in forward order: layer (number, 1 at the input), size, kept, on_path (kept
        weights on some path), units (outputs of the layer), live (those on some path).

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> masks = Masks.ones(net)
    >>> masks["2.weight"][0, 0] = False
    >>> structure(net, masks)[["kept", "on_path", "units", "live"]].values.tolist()
    [[6, 4, 3, 2], [2, 2, 1, 1]]
    """
    on_path = (probe or PathProbe(model)).on_path(masks)
    rows = []
    for number, (name, mask) in enumerate(masks.items(), start=1):
        live = count(on_path[name].flatten(1).any(1))
        counts = count(mask), count(on_path[name])
        rows.append((number, mask.numel(), *counts, mask.shape[0], live))
    return pd.DataFrame(rows, columns=["layer", "size", "kept", "on_path", "units", "live"])


@measured
def families(
    model: nn.Module,
    batch: Batch,
    compressions: Iterable[float],
    seed: int = 0,
    methods: Iterable[str] = (*FIVE, "erk"),
) -> pd.DataFrame:
    """`structure` of the masks of every method, and of random masks with other quotas.

    Args:
        model: a network at initialization.
        batch: to score SNIP and GraSP on (BatchNorm in evaluation mode), in float32: it takes a
            third of the time.
        compressions: N / kept.
        seed: of what is random.
        methods: which of the five, and "erk".

    Returns:
        As `structure`, with columns method and compression before: the five methods (SynFlow by the
        cut schedule), "synflow shuffled" (SynFlow's quotas at random), "erk".
    """
    wanted, probe = sorted(compressions), PathProbe(model)
    generator = torch.Generator().manual_seed(seed)
    tables = {}
    for method in (method for method in methods if method != "erk"):
        how = {"compression": wanted[-1]} if method == "synflow" else {}
        if method in ("snip", "grasp"):
            how["dtype"] = torch.float32
        path = trajectory(model, method, batch, mode="eval", seed=seed, **how)
        for c in wanted:
            masks = path.at(c)
            tables[method, c] = structure(model, masks, probe)
            if method == "synflow":
                shuffled = masks.shuffled(generator)
                tables["synflow shuffled", c] = structure(model, shuffled, probe)
    for c in wanted if "erk" in methods else ():
        masks = quotas.random(model, quotas.erk(model, c), generator)
        tables["erk", c] = structure(model, masks, probe)
    return pd.concat(tables, names=["method", "compression"]).droplevel(2).reset_index()


def network_totals(table: pd.DataFrame, by: Iterable[str] = ()) -> pd.DataFrame:
    """Whole networks from layers: effective compression, and the mean share of live hidden units.

    Args:
        table: from `families`.
        by: further columns that tell networks apart, such as a seed.

    Returns:
        method, compression, the columns ``by``, effective (infinite when disconnected), width (mean
        over hidden layers of live / units).
    """
    keys = ["method", "compression", *by]
    rows = []
    for values, own in table.groupby(keys, sort=False):
        hidden, on_path = own.iloc[:-1], own["on_path"].sum()
        effective = own["size"].sum() / on_path if on_path else float("inf")
        rows.append((*values, effective, (hidden["live"] / hidden["units"]).mean()))
    return pd.DataFrame(rows, columns=[*keys, "effective", "width"])
