"""What training gives that no `Run` describes: trained once, then remembered in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ... import env
from ...data import Dataset
from ...files import replacing
from ...masks import Masks
from ...sweeps.run import VERSION, batching_pays
from ...training.recipes import Recipe
from ...training.train import train, train_many

FOLDER = "trained"  # inside a store of runs
_AT_ONCE = 60  # copies trained together: enough to pay, few enough for a laptop's memory


@dataclass(frozen=True)
class Start:
    """One masked network before training.

    Attributes:
        weights: seed of its initial weights.
        masks: what stays.
        seed: of the order of the images.
    """

    weights: int
    masks: Masks
    seed: int


def accuracies(
    make: Callable[[int], nn.Module],
    starts: Sequence[Start],
    dataset: Dataset,
    recipe: Recipe,
    store: str | Path | None = None,
) -> list[float]:
    """Top-1 test accuracy after the last epoch, in percent, of each masked network.

    What was trained before is read from the store; the rest is trained in groups, together where
    that pays (`batching_pays`).

    Args:
        make: seed -> the network at initialization; one architecture.
        starts: what to train.
        dataset, recipe: as in `train`.
        store: a folder of runs, default `env.runs_dir()`; these lie in its folder ``trained``.

    >>> import tempfile
    >>> from synflow_lib import data, models
    >>> make = lambda seed: models.fc((1, 8, 8), depth=2, seed=seed)
    >>> starts = [Start(seed, Masks.ones(make(seed)), seed) for seed in range(2)]
    >>> how = data.digits(), Recipe(1, 0.1), tempfile.mkdtemp()
    >>> accuracies(make, starts, *how) == accuracies(make, starts, *how)
    True
    """
    folder = (env.runs_dir() if store is None else Path(store)) / FOLDER
    described = {seed: describe(make(seed)) for seed in {start.weights for start in starts}}
    how = dataset.fingerprint, dataclasses.astuple(recipe)
    keys = [key_of(described[s.weights], s.seed, *how, masks=s.masks) for s in starts]
    found = {key: read(folder / f"{key}.json") for key in keys}
    # Cut before what is known is left out: a group that was interrupted is trained as a whole.
    for begin in range(0, len(starts), _AT_ONCE):
        group = {
            key: start
            for key, start in zip(keys, starts, strict=True)
            if key in keys[begin : begin + _AT_ONCE] and found[key] is None
        }
        if group:
            trained = _train(make, list(group.values()), dataset, recipe)
            for key, top1 in zip(group, trained, strict=True):
                write(folder / f"{key}.json", top1)
                found[key] = top1
    return [found[key] for key in keys]


def _train(
    make: Callable[[int], nn.Module], starts: list[Start], dataset: Dataset, recipe: Recipe
) -> list[float]:
    nets = [make(start.weights).to(dataset.device) for start in starts]
    masks, seeds = [start.masks for start in starts], [start.seed for start in starts]
    if batching_pays(nets[0]):
        trainings = train_many(nets, masks, dataset, recipe, seeds=seeds)
    else:
        each = zip(nets, masks, seeds, strict=True)
        trainings = [train(net, mask, dataset, recipe, seed=seed) for net, mask, seed in each]
    return [training.top1 for training in trainings]


def describe(net: nn.Module) -> str:
    """A network at initialization, alike on every machine: its last digits are rounding.

    >>> describe(nn.Linear(2, 3)).startswith("Linear(in_features=2")
    True
    """
    norms = [(n, tuple(p.shape), f"{p.double().norm():.3g}") for n, p in net.named_parameters()]
    return f"{net} {norms}"


def key_of(*parts: object, masks: Masks | None = None) -> str:
    """The name under which something is remembered: a hash of all that it depends on."""
    content = hashlib.sha256(repr((VERSION, *parts)).encode())
    for name, mask in (masks or {}).items():
        content.update(name.encode())
        content.update(mask.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def write(file: Path, value: object) -> None:
    """Remember a plain value under the name of its file, with a checksum over both."""
    with replacing(file) as part:
        part.write_text(json.dumps({"value": value, "check": _check(file, value)}), "utf-8")


def read(file: Path) -> object:
    """What `write` wrote there; None where nothing was written, or something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content["value"] if content["check"] == _check(file, content["value"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check(file: Path, value: object) -> str:
    return hashlib.sha256(f"{file.stem} {json.dumps(value)}".encode()).hexdigest()[:16]
