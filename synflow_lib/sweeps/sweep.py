"""A grid of runs that loses none: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from .. import env
from ..data import Dataset
from ..training.checkpoints import ForeignCheckpointError
from ..values import real
from .executors import WorkerDiedError, executor_of, of_machine
from .fingerprints import PARTS, changes
from .run import (
    VERSION,
    Datasets,
    Make,
    Run,
    batching_pays,
    method_fingerprint,
    network_fingerprint,
    perform,
    registered,
)
from .store import Store, table

_AT_ONCE = 64  # copies trained together; a killed process loses no more
_PATIENCE = 3  # workers may die, or the store refuse records, this often in a row
_PAUSES = (0.5, 2.0)  # seconds before a record that could not be written is tried again


def sweep(
    runs: Iterable[Run],
    store: str | Path = "runs",
    executor: object = None,
    *,
    datasets: Datasets | None = None,
    models: Mapping[str, Make] | None = None,
    retry_failed: bool = False,
    together: bool | None = None,
    save_every: float = 30.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Do the runs that a store does not hold yet; interrupt it and call it again at any time.

    A run that raises is recorded with its traceback, and the others go on. What the machine is to
    blame for (a full disk, memory, rights) is not recorded: the next call tries again. A killed
    process loses at most what it was doing since its last checkpoint. Several sweeps, on one
    machine or on many, may work on the same store: each run is done by one of them. A run whose
    data set, network, registered method or version of the library has changed since it was
    recorded is done again, with a warning; the record is kept in the folder ``superseded``.

    Args:
        runs: what to do, one or several; runs that stand twice are done once.
        store: a folder; also the place of checkpoints.
        executor: None for this process; a number of processes, each on a GPU of its own where
            there are GPUs; or a ``dask.distributed.Client``.
        datasets, models: what runs may name beside `data.NAMES` and `models.NAMES`: name ->
            `Dataset` or function that loads it, name -> function ``(dataset, seed, **options)``.
        retry_failed: do again what failed before.
        together: train runs that agree in data, network and recipe at once (`train_many`); None
            where it pays (`batching_pays`).
        save_every: seconds between checkpoints within a run.
        progress: show a bar with the time left.

    Returns:
        `results` of these runs, in order.

    Raises:
        TypeError: something that is no `Run`; models or data sets that cannot be sent to another
            process; an unknown executor.
        ValueError: the store is a file, a run names an unknown data set or model.
        RuntimeError: workers die again and again without finishing a run; at the end, where the
            machine kept runs from being done.

    >>> import tempfile
    >>> from synflow_lib.training.recipes import Recipe
    >>> grid = [Run("digits", "fc", "synflow", c, Recipe(1, 0.1)) for c in (1, 10)]
    >>> table = sweep(grid, tempfile.mkdtemp(), progress=False)
    >>> table[["method", "compression", "kept", "status"]].values.tolist()
    [['synflow', 1.0, 47400, 'done'], ['synflow', 10.0, 4740, 'done']]
    """
    runs, folder = [runs] if isinstance(runs, Run) else list(runs), Store(store)
    given = {"datasets": dict(datasets or {}), "models": dict(models or {})}
    real(save_every, "save_every")  # before anything is trained
    for what, kinds, wanted in (
        ("datasets", (Dataset, Callable), "a Dataset or a function that loads it"),
        ("models", Callable, "a function (dataset, seed) -> Module"),
    ):
        for name, value in given[what].items():
            if not isinstance(value, kinds) or isinstance(value, nn.Module):
                raise TypeError(f"{what}[{name!r}] is a {type(value).__name__}; expected {wanted}")
    for run in runs:
        if not isinstance(run, Run):
            raise TypeError(f"runs holds a {type(run).__name__}; expected synflow_lib Run objects")
        run.check_names(**given)
    methods = registered(runs)
    run_all = executor_of(executor, {**given["datasets"], **given["models"], **methods})
    tasks = _prepare(runs, **given, together=together, retry_failed=retry_failed)
    found = folder.records(tasks, history=False)
    _tell(changes(record["fingerprint"], tasks[key].fingerprint) for key, record in found.items())
    there = {key for key, record in found.items() if _settles(record, tasks[key])}
    newer = "its record is of a newer version of the library"
    state = _State(set(there), {k: newer for k in tasks.keys() - found.keys() if folder.newer(k)})
    do = functools.partial(perform, **given, methods=methods, save_every=save_every)
    work = functools.partial(_perform_and_store, store=folder.path, do=do)
    with tqdm(total=len(tasks), initial=len(state.done), desc="runs", disable=not progress) as bar:
        _do_all(tasks, folder, functools.partial(run_all, work), state, bar)
    folder.clean()
    state.raise_trouble()
    found |= folder.records(state.done - there, history=False)
    return table({key: found[key] for key in tasks if key in found})


def _do_all(
    tasks: Mapping[str, _Task],
    store: Store,
    run_all: Callable[[list[list[_Task]]], Iterable[_State]],
    state: _State,
    bar: tqdm,
) -> None:
    """Hand out what is not over, again and again, until all of it is."""
    groups = _groups(state.left(tasks.values()))
    deaths, pause = 0, 0.1
    while groups := list(filter(None, map(state.left, groups))):
        before, died = len(state.done) + len(state.trouble), None
        try:
            for report in run_all(groups):
                state.add(report)
                bar.update(len(state.done) - bar.n)
                if state.unsaved >= _PATIENCE:
                    state.raise_trouble()
        except WorkerDiedError as error:
            died = error
        # What other sweeps have done meanwhile, and what was done by workers that died later.
        for task in state.left(itertools.chain(*groups)):
            if _settles(store.read(task.run.key, history=False), task):
                state.done.add(task.run.key)
        bar.update(len(state.done) - bar.n)
        if len(state.done) + len(state.trouble) > before:
            deaths = 0
        elif died is None:  # another sweep works on all of them
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        else:
            deaths += 1
            if deaths >= _PATIENCE:
                raise RuntimeError(
                    f"workers died {deaths} times without finishing a run ({died}); memory may be"
                    " short: use fewer processes. Finished runs are in the store"
                )


@dataclass
class _State:
    """What became of runs, by their keys."""

    done: set[str] = field(default_factory=set)  # are in the store now
    trouble: dict[str, str] = field(default_factory=dict)  # are not, and why
    unsaved: int = 0  # runs in a row that were finished, but that the store refused

    def add(self, later: _State) -> None:
        if later.done and not later.unsaved:
            self.unsaved = 0
        self.unsaved += later.unsaved
        self.done |= later.done
        self.trouble |= later.trouble

    def left(self, tasks: Iterable[_Task]) -> list[_Task]:
        """Those tasks that are not over."""
        return [t for t in tasks if t.run.key not in self.done and t.run.key not in self.trouble]

    def raise_trouble(self) -> None:
        if self.trouble:
            key, why = next(iter(self.trouble.items()))
            raise RuntimeError(
                f"{len(self.trouble)} of the runs could not be done or stored, {key} for one:"
                f" {why}. Nothing is recorded about them: put it right, and call sweep again. All"
                " others that were finished are in the store"
            )


@dataclass(frozen=True)
class _Task:
    """A run and what its names stand for."""

    run: Run
    fingerprint: dict
    company: tuple | None  # what runs to train together with it agree in; None: train it alone
    retry: bool  # whether to do it again if it failed before


def _prepare(
    runs: Iterable[Run],
    datasets: Datasets,
    models: Mapping[str, Make],
    together: bool | None,
    retry_failed: bool,
) -> dict[str, _Task]:
    """Each run once, by key; what raises here is left for the run to meet it again."""
    of_data: dict[tuple, list[Run]] = {}
    for run in runs:
        of_data.setdefault((run.dataset, run.data_options), []).append(run)
    methods = {run.method: method_fingerprint(run.method) for run in runs}
    prepared = {}
    for data, members in of_data.items():  # one data set in memory at a time
        dataset = mark = None
        with contextlib.suppress(Exception):
            dataset = members[0].load_data(datasets)
            mark = dataset.fingerprint
        networks: dict[tuple, tuple[dict | None, bool]] = {}  # fingerprint, and whether it pays
        for run in members:
            network = (run.model, run.model_options)
            if network not in networks:
                networks[network] = None, False
                with contextlib.suppress(Exception):
                    net, described = network_fingerprint(run, dataset, models)
                    networks[network] = described, batching_pays(net)
            described, pays = networks[network]
            fingerprint = {
                "version": VERSION, "data": mark, "network": described,
                "method": methods[run.method],
            }  # fmt: skip
            imp = (run.iterations, run.rewind) if run.method == "imp" else None
            company = (data, network, run.recipe, run.amp, imp)
            joins = described is not None and (pays if together is None else together)
            prepared[run.key] = _Task(run, fingerprint, company if joins else None, retry_failed)
    return {run.key: prepared[run.key] for run in runs}


def _settles(record: dict | None, task: _Task) -> bool:
    """Whether a record is of the run as it would be done now."""
    return (
        record is not None
        and not changes(record["fingerprint"], task.fingerprint)
        and not (task.retry and record["status"] == "failed")
    )


def _tell(changed: Iterable[list[str]]) -> None:
    for parts, count in Counter(map(tuple, changed)).items():
        if parts:
            what = " and ".join(PARTS[part] for part in parts)
            warnings.warn(
                f"{count} {'run is' if count == 1 else 'runs are'} done again: {what} changed since"
                " the record in the store was made. The former records are kept in its folder"
                " superseded",
                stacklevel=3,
            )


def _groups(tasks: Iterable[_Task]) -> list[list[_Task]]:
    """Tasks to do at once: those that agree in all that `train_many` cannot tell apart."""
    groups: dict[object, list[_Task]] = {}
    for task in tasks:
        groups.setdefault(task.company or task.run.key, []).append(task)
    return [
        group[start : start + _AT_ONCE]
        for group in groups.values()
        for start in range(0, len(group), _AT_ONCE)
    ]


def _perform_and_store(group: list[_Task], store: Path, do: Callable) -> _State:
    """Do those runs of a group that no one else does and that the store does not hold."""
    state = _State()
    try:
        folder = Store(store)
        with contextlib.ExitStack() as claims:
            mine = []
            for task in group:
                free = claims.enter_context(folder.claim(task.run.key))
                # Another may just have finished it.
                if _settles(folder.read(task.run.key, history=False), task):
                    state.done.add(task.run.key)
                elif free:
                    mine.append(task)
            if mine:
                _record(mine, folder, do, state)
    except Exception as error:  # of the store: those of runs are recorded
        left = {task.run.key for task in group} - state.done
        state.trouble |= dict.fromkeys(left, _text(error))
    return state


def _record(tasks: list[_Task], store: Store, do: Callable, state: _State) -> None:
    start = time.perf_counter()
    try:
        runs = [task.run for task in tasks]
        checkpoint = store.checkpoint(*(run.key for run in runs))
        where = {"device": env.own_device(), "checkpoint": checkpoint}
        try:
            found = do(runs, **where)
        except ForeignCheckpointError:  # the names are the same, but not what they stand for
            checkpoint.unlink(missing_ok=True)
            found = do(runs, **where)
        outcomes = [{"status": "done", "result": result} for result in found]
    except Exception as error:
        if len(tasks) > 1:  # one of them is at fault: find it, and save the others
            for task in tasks:
                _record([task], store, do, state)
            return
        if of_machine(error):
            state.trouble[tasks[0].run.key] = _text(error)
            return
        trace = traceback.format_exc()
        outcomes = [{"status": "failed", "error": _text(error), "traceback": trace}]
    seconds = (time.perf_counter() - start) / len(tasks)
    for task, outcome in zip(tasks, outcomes, strict=True):
        record = {
            **outcome,
            "seconds": seconds,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "fingerprint": task.fingerprint,
            "machine": env.describe(),
        }
        try:
            _write(store, task.run, record)
            state.done.add(task.run.key)
        except OSError as error:
            state.trouble[task.run.key] = _text(error)
            state.unsaved += 1


def _write(store: Store, run: Run, record: dict) -> None:
    """Write a record; a disk that is full for a moment does not cost what was trained for hours."""
    for pause in _PAUSES:
        try:
            return store.write(run, record)
        except OSError:
            time.sleep(pause)
    return store.write(run, record)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
