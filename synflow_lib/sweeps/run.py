"""One point of a grid: `Run`, what it is called in a store, and how it is carried out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import data as data_sets
from .. import models as networks
from ..data import Dataset
from ..graphs.copies import private_copy
from ..graphs.network import BATCH_NORM, PRUNABLE
from ..masks import Masks
from ..probe import PathProbe
from ..pruning import SCHEDULES, prune, trajectory
from ..randomness import own_random_numbers
from ..scores import METHODS, Custom, Method
from ..training.iterative import Round, imp, imp_many
from ..training.recipes import Recipe
from ..training.train import train, train_many
from ..values import SEEDS, instance, is_bool, real, whole
from .fingerprints import of_code, of_network

Datasets = Mapping[str, "Dataset | Callable[[], Dataset]"]
Make = Callable[[Dataset, int], nn.Module]

VERSION = 2  # of what a run computes: raise it, and stored runs are done anew
_OWN = dict(METHODS)  # before anybody registers


@dataclass(frozen=True, eq=False)
class Run:
    """One network made, pruned and trained; runs are equal when their keys are, on every machine.

    Attributes:
        dataset: a name of `data.by_name`, or one given to `sweep`.
        model: a name of `models.by_name`, or one given to `sweep`.
        method: a name of `METHODS`; "imp", iterative magnitude pruning; or "dense".
        compression: N / kept, at least 1; of a "dense" run 1.
        recipe: how to train.
        seed: of the weights, of random scores, of the scoring images and of the training.
        iterations: of pruning, None for the method's own; for "imp" its rounds (None: 3).
        schedule: of iterative pruning: "exponential", "linear", "cut".
        mode: of scoring on data, "train", "eval" or None (the method's own).
        per_class: images of each class in the scoring batch.
        rewind: for "imp", the step to go back to; None is the paper's unrewound variant.
        data_options: for the data set: ``size``, ``channels`` (`Dataset.resized`), ``n_train``,
            ``n_test`` (`Dataset.subset`).
        model_options: for the network's function, beside what the data set decides.
        amp: train in mixed precision, as in `train`; None where the device is a GPU.

    Numbers may be numpy's. Two networks, data sets or methods that take turns under one name are
    told apart by the fingerprints in a store's records (`fingerprints`).

    Raises:
        TypeError: ``recipe`` is no `Recipe`.
        ValueError: a value of another type or outside its range, or an option that JSON cannot
            hold.

    >>> run = Run("digits", "fc", "synflow", 10, Recipe(1, 0.1), model_options={"depth": 3})
    >>> run == Run.from_dict(json.loads(run.canonical())), len(run.key)
    (True, 16)
    """

    __slots__ = ("__dict__", "__weakref__", "_key")  # the key is remembered, and is no field

    dataset: str
    model: str
    method: str
    compression: float
    recipe: Recipe
    seed: int = 0
    iterations: int | None = None
    schedule: str = "exponential"
    mode: str | None = None
    per_class: int = 10
    rewind: int | None = 0
    data_options: tuple[tuple[str, int], ...] = ()
    model_options: tuple[tuple[str, object], ...] = ()
    amp: bool | None = None

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        def require(fits: bool, name: str, expected: str) -> None:
            if not fits:
                raise ValueError(f"run: {name}={getattr(self, name)!r}; expected {expected}")

        for name in ("dataset", "model"):
            require(isinstance(getattr(self, name), str), name, "a name")
        for name in ("data_options", "model_options"):  # hashable, and in one order
            value = getattr(self, name)
            try:
                options = {str(key): _plain(option) for key, option in dict(value).items()}
            except (TypeError, ValueError):
                raise ValueError(f"run: {name}={value!r}; expected name -> value") from None
            keep(name, tuple(sorted(options.items())))
        spans = {"seed": SEEDS, "per_class": (1,), "iterations": (1,), "rewind": (0,)}
        for name, span in spans.items():
            value = getattr(self, name)
            if value is not None or name in ("seed", "per_class"):
                keep(name, whole(value, f"run: {name}", *span))
        keep("compression", real(self.compression, "run: compression"))
        require(self.compression >= 1, "compression", "a number from 1")
        require(
            self.method != "dense" or self.compression == 1,
            "compression",
            "1 for a dense run, of which nothing is pruned",
        )
        instance(self.recipe, Recipe, "run: recipe")
        for what, known in (
            ("method", sorted((*METHODS, "imp", "dense"))),
            ("schedule", [*SCHEDULES, "cut"]),
        ):
            if (value := getattr(self, what)) not in known:
                raise ValueError(f"run: unknown {what} {value!r}; expected one of {known}")
        require(self.amp is None or is_bool(self.amp), "amp", "True, False or None")
        keep("amp", None if self.amp is None else bool(self.amp))
        require(self.mode in (None, "train", "eval"), "mode", "'train', 'eval' or None")
        expected = ("size", "channels", "n_train", "n_test")
        unknown = {name for name, _ in self.data_options} - {*expected}
        if unknown:
            raise ValueError(f"run: data_options {sorted(unknown)}; expected {', '.join(expected)}")
        numbers = tuple(
            (name, None if value is None else whole(value, f"run: data_options: {name}", 1))
            for name, value in self.data_options
        )
        keep("data_options", numbers)
        try:
            self.canonical()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"run: {error}; expected options that are numbers, texts, None or lists of these"
            ) from error

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def canonical(self) -> str:
        """The run as JSON: one text for one run."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["recipe"] = dataclasses.asdict(self.recipe)
        if self.amp is None:  # as if there were no such choice, as in older stores
            del values["amp"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def key(self) -> str:
        """16 hexadecimal digits of a hash of `canonical`."""
        if not hasattr(self, "_key"):
            digest = hashlib.sha256(f"1:{self.canonical()}".encode()).hexdigest()
            object.__setattr__(self, "_key", digest[:16])
        return self._key

    def __getstate__(self) -> dict:  # without the key, which is made again
        return self.__dict__

    @classmethod
    def from_dict(cls, values: dict) -> Run:
        """The run of which `canonical` is the JSON."""
        return cls(**{**values, "recipe": Recipe.from_dict(values["recipe"])})

    def check_names(self, datasets: Datasets, models: Mapping[str, Make]) -> None:
        """ValueError where its data set or its network is neither of this library nor given."""
        for what, name, known, given in (
            ("data set", self.dataset, data_sets.NAMES, datasets),
            ("model", self.model, networks.NAMES, models),
        ):
            if name not in (*known, *given):
                raise ValueError(
                    f"there is no {what} {name!r}; expected one of {', '.join(known)},"
                    f" or of those given: {', '.join(given) or 'none'}"
                )

    def load_data(self, given: Datasets) -> Dataset:
        """Its data set, at the size asked for."""
        source = given.get(self.dataset)
        dataset = data_sets.by_name(self.dataset) if source is None else source
        if not isinstance(dataset, Dataset):
            with own_random_numbers(0):  # a loader that draws gives the same each time
                dataset = instance(dataset(), Dataset, f"what datasets[{self.dataset!r}] gives")
        options = dict(self.data_options)
        dataset = dataset.subset(options.pop("n_train", None), options.pop("n_test", None))
        return dataset.resized(**options)

    def make(self, dataset: Dataset, given: Mapping[str, Make]) -> nn.Module:
        """Its network, at initialization; random numbers that it draws are fixed by the seed."""
        options = dict(self.model_options)
        if self.model in given:
            with own_random_numbers(self.seed):
                found = given[self.model](dataset, self.seed, **options)
            # A copy: what is given may be the same network each time, and training changes it.
            return private_copy(instance(found, nn.Module, f"what models[{self.model!r}] gives"))
        self.check_names({self.dataset: dataset}, given)
        takes = inspect.signature(getattr(networks, self.model)).parameters
        shape = dataset.input_shape
        size = {"input_shape": shape} if "input_shape" in takes else {"input_size": shape[1]}
        arguments = {**size, "num_classes": dataset.num_classes, "seed": self.seed, **options}
        return networks.by_name(self.model, **arguments)


def _plain(option: object) -> object:
    """Numpy's numbers and arrays as Python's, lists as tuples."""
    option = option.tolist() if isinstance(option, (np.generic, np.ndarray)) else option
    return tuple(map(_plain, option)) if isinstance(option, (list, tuple)) else option


def network_fingerprint(
    run: Run, dataset: Dataset, models: Mapping[str, Make]
) -> tuple[nn.Module, dict]:
    """A run's network for seed 0, and its fingerprint: its code, layers, weights and outputs."""
    net = dataclasses.replace(run, seed=0).make(dataset, models)
    made_by = of_code(models[run.model]) if run.model in models else None
    return net, {"made by": made_by, **of_network(net, dataset.input_shape)}


def method_fingerprint(name: str) -> dict | str:
    """What a run's method is; those of this library change with its `VERSION` only."""
    own = name not in METHODS or METHODS[name] is _OWN.get(name)
    return "built in" if own else of_code(METHODS[name])


def registered(runs: Sequence[Run]) -> dict[str, type[Method]]:
    """Those methods of the runs that other processes do not know, by name."""
    names = {run.method for run in runs} & METHODS.keys()
    return {name: METHODS[name] for name in names if METHODS[name] is not _OWN.get(name)}


def perform(
    runs: Sequence[Run],
    datasets: Datasets | None = None,
    models: Mapping[str, Make] | None = None,
    *,
    methods: Mapping[str, type[Method]] | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    save_every: float = 30.0,
) -> list[dict]:
    """Carry out one run, or several that agree in data, network and recipe at once.

    Args:
        runs: what to do.
        datasets, models: as in `sweep`.
        methods: what runs may name beside `METHODS`: name -> `Method` class (see `registered`).
        device: to compute on.
        checkpoint, save_every: as in `train`.

    Returns:
        For each run a dict of plain values: kept, achieved (compression), empty_layers (their
        number), disconnected (None where the network's paths cannot be asked), top1_before, top1,
        best_top1, top5, test_loss, train_loss (percent and nats), ended (why it ended early, or
        None), prune_seconds, train_seconds, history (one list an epoch, columns as in
        `Training.history`), and for "imp" rounds (kept, top1 and best_top1 of each).

    >>> [result] = perform([Run("digits", "fc", "magnitude", 10, Recipe(1, 0.1))])
    >>> result["kept"], len(result["history"])
    (4740, 2)
    """
    datasets, models = datasets or {}, models or {}
    first, seeds = runs[0], [run.seed for run in runs]
    dataset = first.load_data(datasets).to(device)
    nets = [run.make(dataset, models).to(device) for run in runs]
    recipe, spent = first.recipe, [0.0] * len(runs)
    options = {"checkpoint": checkpoint, "save_every": save_every, "amp": first.amp}
    if first.method == "imp":
        goals = [run.compression for run in runs]
        options |= {"rounds": first.iterations or 3, "rewind": first.rewind}
        if len(runs) == 1:
            found = [imp(nets[0], dataset, recipe, goals[0], seed=first.seed, **options)]
        else:
            found = imp_many(nets, dataset, recipe, goals, seeds=seeds, **options)
    else:
        masks = []
        for number, (run, net) in enumerate(zip(runs, nets, strict=True)):
            start = time.perf_counter()
            masks.append(_prune(run, net, dataset, methods or {}))
            spent[number] = time.perf_counter() - start
        if len(runs) == 1:
            trained = [train(nets[0], masks[0], dataset, recipe, seed=first.seed, **options)]
        else:
            trained = train_many(nets, masks, dataset, recipe, seeds=seeds, **options)
        # A run that is no IMP is one round.
        found = [[Round(0, *each)] for each in zip(masks, trained, strict=True)]
    last = [rounds[-1].masks for rounds in found]
    cut = _disconnected(nets, last, dataset.input_shape)
    return [_report(*each) for each in zip(runs, found, spent, cut, strict=True)]


def _prune(
    run: Run, net: nn.Module, dataset: Dataset, methods: Mapping[str, type[Method]]
) -> Masks:
    if run.method == "dense":
        return Masks.ones(net)
    method, batch = methods.get(run.method) or METHODS[run.method], None
    if method.needs_data or issubclass(method, Custom):  # a function may use it or not
        batch = dataset.scoring_batch(run.per_class, seed=run.seed)
    shape = dataset.input_shape
    how = {"mode": run.mode, "seed": run.seed, "input_shape": shape, "progress": False}
    if run.schedule == "cut":
        return trajectory(net, method, batch, schedule="cut", **how).at(run.compression)
    how |= {"iterations": run.iterations, "schedule": run.schedule}
    return prune(net, method, run.compression, batch, **how)


# What a finished run gives beside its history (see `perform`).
GIVEN = (
    "kept", "achieved", "empty_layers", "disconnected", "top1_before", "top1", "best_top1", "top5",
    "test_loss", "train_loss", "ended", "prune_seconds", "train_seconds",
)  # fmt: skip


def _disconnected(
    nets: Sequence[nn.Module], masks: Sequence[Masks], input_shape: tuple[int, ...]
) -> list[bool | None]:
    """Whether each network has lost its last path, None where that cannot be asked.

    Weights do not matter for that, so copies share one probe; other buffers than BatchNorm's may
    cut paths: then each copy gets its own.
    """
    alike = all(isinstance(m, BATCH_NORM) or not m._buffers for m in nets[0].modules())
    probe, found = None, []
    for net, mask in zip(nets, masks, strict=True):
        answer = None
        with contextlib.suppress(Exception):  # no finished training is lost for that
            if probe is None or not alike:
                probe = PathProbe(net, input_shape)
            answer = not probe.connected(mask)
        found.append(answer)
    return found


def _report(run: Run, rounds: list[Round], prune_seconds: float, disconnected: bool | None) -> dict:
    masks, training = rounds[-1].masks, rounds[-1].training
    last = training.history.iloc[-1]
    report = {
        "kept": masks.kept,
        "achieved": masks.compression,
        "empty_layers": len(masks.empty_layers()),
        "disconnected": disconnected,
        "top1_before": training.before,
        "top1": training.top1,
        "best_top1": training.best,
        "top5": float(last["test_top5"]),
        "test_loss": float(last["test_loss"]),
        "train_loss": float(last["train_loss"]),
        "ended": training.reason,
        "prune_seconds": prune_seconds,
        "train_seconds": sum(each.training.seconds for each in rounds),
        "history": training.history.astype(float).to_numpy().tolist(),
    }
    if run.method == "imp":
        report["rounds"] = [
            {"kept": each.masks.kept, "top1": each.training.top1, "best_top1": each.training.best}
            for each in rounds
        ]
    return report


def batching_pays(net: nn.Module) -> bool:
    """Whether copies of ``net`` train faster stacked (`train_many`) than one by one in a process.

    Measured on two CPU cores (benchmarks/training.py): perceptrons by 4 to 5 times; convolutions
    not, since a batched convolution is a grouped one: on 8x8 images 0.8 to 1.1 times as fast in one
    thread or two, on larger ones slower. For convolutions a process a core is faster still: give
    `sweep` an ``executor``. Not measured on a GPU.
    """
    return all(m.weight.dim() == 2 for m in net.modules() if isinstance(m, PRUNABLE))
