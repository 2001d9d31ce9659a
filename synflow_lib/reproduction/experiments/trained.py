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
from ...masks import Masks
from ...sweeps.run import VERSION, batching_pays
from ...sweeps.store import Store
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
    described = {seed: describe(make(seed)) for seed in {start.weights for start in starts}}
    how = dataset.fingerprint, dataclasses.astuple(recipe)
    keys = [key_of(described[s.weights], s.seed, *how, masks=s.masks) for s in starts]
    files = [file_of(key, store) for key in keys]
    found = {file: read(file) for file in files}
    # Cut before what is known is left out: a group that was interrupted is trained as a whole.
    for begin in range(0, len(starts), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        group = dict(zip(files[part], starts[part], strict=True))
        group = {file: start for file, start in group.items() if found[file] is None}
        if group:
            trained = _train(make, list(group.values()), dataset, recipe)
            for file, top1 in zip(group, trained, strict=True):
                write(file, top1)
                found[file] = top1
    return [found[file] for file in files]


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
    """A network at initialization, alike on every machine: its last digits are rounding."""
    norms = [(n, tuple(p.shape), f"{p.double().norm():.3g}") for n, p in net.named_parameters()]
    return f"{net} {norms}"


def key_of(*parts: object, masks: Masks | None = None) -> str:
    """The name under which something is remembered: a hash of all that it depends on."""
    content = hashlib.sha256(repr((VERSION, *parts)).encode())
    for name, mask in (masks or {}).items():
        content.update(name.encode())
        content.update(mask.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def file_of(key: str, store: str | Path | None = None) -> Path:
    """Where something is remembered: in a folder of runs, default `env.runs_dir()`."""
    return (env.runs_dir() if store is None else Path(store)) / FOLDER / f"{key}.json"


@dataclass(frozen=True)
class _Item:
    """What a `Store` must know of a run to keep its record."""

    key: str

    def canonical(self) -> str:
        return json.dumps({"trained": self.key})


def write(file: Path, value: object) -> None:
    """Remember a plain value under the name of its file, as a record of a `Store`."""
    Store(file.parent).write(_Item(file.stem), {"status": "done", "value": value})


def read(file: Path) -> object:
    """What `write` wrote there; None where nothing was written, or something else."""
    record = Store(file.parent).read(file.stem)
    return None if record is None else record.get("value")
