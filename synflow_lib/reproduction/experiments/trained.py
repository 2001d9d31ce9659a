"""What training gives that no `Run` describes: trained once, then remembered in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from ... import env
from ...data import Dataset
from ...files import replacing
from ...masks import Masks
from ...sweeps.run import VERSION, batching_pays
from ...sweeps.store import Store
from ...training.recipes import Recipe
from ...training.train import train, train_many

FOLDER, WEIGHTS = "trained", "networks"  # inside a store of runs
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
    *,
    apart: bool = False,
) -> list[float]:
    """Top-1 test accuracy after the last epoch, in percent, of each masked network.

    What was trained before is read from the store; the rest is trained in groups, together where
    that pays (`batching_pays`), and goes on from checkpoints. NaN stands for what is not trained
    yet when it is interrupted; before anything is, the interrupt is passed on.

    Args:
        make: seed -> the network at initialization; one architecture.
        starts: what to train.
        dataset, recipe: as in `train`.
        store: a folder of runs, default `env.runs_dir()`; these lie in its folder ``trained``.
        apart: whether only the same call finds them again. Copies round by the company they are
            trained in, which is smaller where another call has trained some of them before.

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
    if apart:
        keys = [key_of(key, keys) for key in keys]
    files = [file_of(key, store) for key in keys]
    found = {file: read(file) for file in files}
    known = len(found) - list(found.values()).count(None)
    bar = tqdm(total=len(found), initial=known, disable=env.scale() == "classroom", desc="networks")
    try:
        # Cut before what is known is left out: a group that was interrupted is trained as a whole.
        for begin in range(0, len(starts), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            group = dict(zip(files[part], starts[part], strict=True))
            group = {file: start for file, start in group.items() if found[file] is None}
            for file, top1 in _train(make, group, dataset, recipe):
                write(file, top1)
                found[file] = top1
                bar.update()
    except KeyboardInterrupt:
        left = list(found.values()).count(None)
        if left == len(found):
            raise
        print(
            f"interrupted: {left} of {len(found)} networks are not trained, and what is drawn below"
            " lacks them. Run this cell again to go on."
        )
    finally:
        bar.close()
    return [math.nan if found[file] is None else found[file] for file in files]


def _train(
    make: Callable[[int], nn.Module], group: dict[Path, Start], dataset: Dataset, recipe: Recipe
) -> Iterator[tuple[Path, float]]:
    """Files of a group with their accuracies, as they come."""
    if not group:
        return
    store, starts = Store(next(iter(group)).parent), list(group.values())
    if batching_pays(make(starts[0].weights)):
        nets = [make(start.weights).to(dataset.device) for start in starts]
        trainings = train_many(
            nets, [start.masks for start in starts], dataset, recipe,
            seeds=[start.seed for start in starts],
            checkpoint=store.checkpoint(*(file.stem for file in group)),
        )  # fmt: skip
        yield from zip(group, (training.top1 for training in trainings), strict=True)
        return
    for file, start in group.items():
        how = {"seed": start.seed, "checkpoint": store.checkpoint(file.stem)}
        net = make(start.weights).to(dataset.device)
        yield file, train(net, start.masks, dataset, recipe, **how).top1


def network(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    seed: int = 0,
    watch: Callable[[nn.Module], object] | None = None,
    store: str | Path | None = None,
) -> tuple[float, list]:
    """Train all weights in place, or take them from the store, which also resumes a training.

    Args:
        model: at initialization, on the device to train on.
        dataset, recipe, seed: as in `train`.
        watch: called with the model before training and after each epoch; gives a plain value.
        store: a folder of runs, default `env.runs_dir()`; weights lie in its folder ``networks``.

    Returns:
        Top-1 test accuracy after the last epoch, in percent; what ``watch`` gave, an item an epoch.

    >>> import tempfile, torch
    >>> from synflow_lib import data, models
    >>> how = data.digits(), Recipe(1, 0.1), 0, lambda net: len(list(net)), tempfile.mkdtemp()
    >>> first, second = (models.fc((1, 8, 8), depth=2, seed=0) for _ in range(2))
    >>> network(first, *how) == network(second, *how)
    True
    >>> all(map(torch.equal, first.parameters(), second.parameters()))
    True
    """
    key = key_of(describe(model), seed, dataset.fingerprint, dataclasses.astuple(recipe))
    file = file_of(key, store, WEIGHTS)
    weights, epochs = file.with_suffix(".safetensors"), [str(n) for n in range(recipe.epochs + 1)]
    # By epoch, since a training that is resumed does not see the former ones again.
    known = read(file) or {"top1": None, "watched": {}, "weights": None}
    if known["weights"] is None or known["weights"] != _checksum(weights):

        def note(epoch: int, net: nn.Module) -> None:
            known["watched"][str(epoch)] = watch(net)
            write(file, known)

        known["top1"] = train(
            model, None, dataset, recipe, seed=seed, after_epoch=note if watch else None,
            checkpoint=Store(file.parent).checkpoint(key),
        ).top1  # fmt: skip
        state = {name: each.contiguous() for name, each in model.state_dict().items()}
        with replacing(weights) as part:
            save_file(state, part)
        write(file, known | {"weights": _checksum(weights)})
    model.load_state_dict(load_file(weights))
    return known["top1"], [known["watched"][epoch] for epoch in epochs if watch]


def _checksum(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


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


def file_of(key: str, store: str | Path | None = None, folder: str = FOLDER) -> Path:
    """Where something is remembered: in a folder of runs, default `env.runs_dir()`."""
    return Path(store or env.runs_dir()) / folder / f"{key}.json"


def write(file: Path, value: object) -> None:
    """Remember a plain value under the name of its file, as a record of a `Store`."""
    key, described = file.stem, json.dumps({"trained": file.stem})
    run = SimpleNamespace(key=key, canonical=lambda: described)  # what a store asks of a `Run`
    Store(file.parent).write(run, {"status": "done", "value": value})


def read(file: Path) -> object:
    """What `write` wrote there; None where nothing was written, or something else."""
    record = Store(file.parent).read(file.stem)
    return None if record is None else record.get("value")
