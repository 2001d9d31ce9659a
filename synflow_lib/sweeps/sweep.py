"""A grid of runs that loses none: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .. import env
from ..data import Dataset
from ..scores import Method
from ..training.epochs import COLUMNS
from .executors import WorkerDiedError, executor_of
from .fingerprints import PARTS, changes
from .run import (
    VERSION,
    Make,
    Run,
    batching_pays,
    method_fingerprint,
    network_fingerprint,
    perform,
    registered,
)
from .store import Store
from .trouble import of_machine

Datasets = Mapping[str, "Dataset | Callable[[], Dataset]"]
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
    machine or on many, may work on the same store: each run is done by one of them.

    A record whose data set, network, registered method or version of the library is not what the
    names of the run stand for now is not returned: the run is done again, a warning says why, and
    the former record is kept in the store's folder ``superseded``.

    Args:
        runs: what to do; runs that stand twice are done once.
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
    runs, folder = list(runs), Store(store)
    datasets, models = dict(datasets or {}), dict(models or {})
    for run in runs:
        if not isinstance(run, Run):
            raise TypeError(f"runs holds a {type(run).__name__}; expected synflow_lib Run objects")
        run.check_names(datasets, models)
    methods = registered(runs)
    run_all = executor_of(executor, {**datasets, **models, **methods})
    tasks = {task.run.key: task for task in _prepare(runs, datasets, models, together)}
    found = folder.records(tasks, history=False)
    changed = {key: changes(found[key]["fingerprint"], tasks[key].fingerprint) for key in found}
    _tell(parts for parts in changed.values() if parts)
    retry = {key for key in found if retry_failed and found[key]["status"] == "failed"}
    there = {key for key in found if key not in retry and not changed[key]}
    trouble = {
        key: "its record is of a newer version of the library"
        for key in tasks.keys() - found.keys()
        if folder.newer(key)
    }
    done, unsaved, fruitless, pause = set(there), 0, 0, 0.1
    groups = _groups(task for key, task in tasks.items() if key not in there | trouble.keys())
    work = functools.partial(
        _perform_and_store, store=folder.path, datasets=datasets, models=models, methods=methods,
        save_every=save_every,
    )  # fmt: skip
    with tqdm(total=len(tasks), initial=len(done), desc="runs", disable=not progress) as bar:
        while groups:
            before, died = len(done) + len(trouble), None
            try:
                for report in run_all(functools.partial(work, retry=frozenset(retry)), groups):
                    bar.update(len(set(report.done) - done))
                    done |= set(report.done)
                    retry -= done
                    trouble |= report.trouble
                    unsaved = unsaved + report.unsaved if report.unsaved or not report.done else 0
                    if unsaved >= _PATIENCE:
                        raise _machine_error(trouble)
            except WorkerDiedError as error:
                died = error
            # What other sweeps have done meanwhile, and what was done by workers that died later.
            elsewhere = {
                key
                for key in tasks.keys() - done - retry - trouble.keys()
                if _holds(folder, tasks[key])
            }
            bar.update(len(elsewhere))
            done |= elsewhere
            progressed = len(done) + len(trouble) > before
            fruitless = fruitless + 1 if died and not progressed else 0
            if fruitless >= _PATIENCE:
                raise RuntimeError(
                    f"workers died {fruitless} times without finishing a run ({died}); memory may"
                    " be short: use fewer processes. Finished runs are in the store"
                )
            over = done | trouble.keys()
            groups = [[task for task in group if task.run.key not in over] for group in groups]
            groups = [group for group in groups if group]
            if groups and not died and not progressed:  # another sweep works on all of them
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
    folder.clean()
    if trouble:
        raise _machine_error(trouble)
    found |= folder.records(tasks.keys() - there, history=False)
    return _table({key: found[key] for key in tasks if key in found})


def results(store: str | Path) -> pd.DataFrame:
    """All runs of a store, one row each; nothing in the store changes.

    Files that are no records, or damaged, are left out and named in a warning.

    Returns:
        Columns: key, the fields of `Run` (options as ``model.depth``, the recipe as
        ``recipe.epochs``), status ("done" or "failed"), what `perform` returns except the history,
        error (the last line of a traceback), seconds, finished (UTC), device_name, torch, and
        further versions.

    >>> import tempfile
    >>> results(tempfile.mkdtemp()).empty
    True
    """
    return _table(Store(store).records(history=False))


def histories(store: str | Path) -> pd.DataFrame:
    """Every epoch of every run of a store: key, and the columns of `Training.history`.

    >>> import tempfile
    >>> list(histories(tempfile.mkdtemp()))[:3]
    ['key', 'epoch', 'learning_rate']
    """
    rows = [
        (key, *row)
        for key, record in Store(store).records().items()
        for row in record.get("result", {}).get("history", [])
    ]
    return pd.DataFrame(rows, columns=["key", *COLUMNS])


def _table(records: Mapping[str, dict]) -> pd.DataFrame:
    return pd.DataFrame([_row(key, record) for key, record in records.items()])


def _row(key: str, record: dict) -> dict:
    run = dict(record["run"])
    recipe = {f"recipe.{name}": value for name, value in run.pop("recipe").items()}
    options = {
        f"{kind}.{name}": value
        for kind in ("data", "model")
        for name, value in run.pop(f"{kind}_options")
    }
    result = {k: v for k, v in record.get("result", {}).items() if k not in ("history", "rounds")}
    return {
        "key": key, **run, **options, "status": record["status"], **result,
        "error": record.get("error"), "seconds": record.get("seconds"),
        "finished": record.get("finished"), **recipe, **record.get("machine", {}),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------- preparing


@dataclass(frozen=True)
class _Task:
    """A run, what its names stand for, and what runs to train together with it agree in."""

    run: Run
    fingerprint: dict
    company: tuple | None


def _prepare(
    runs: Iterable[Run], datasets: Datasets, models: Mapping[str, Make], together: bool | None
) -> list[_Task]:
    """Each run once; a data set or network that raises is left for the run to meet it again."""
    of_data: dict[tuple, list[Run]] = {}
    for run in runs:
        of_data.setdefault((run.dataset, run.data_options), []).append(run)
    prepared, methods = {}, {}
    for data, members in of_data.items():
        dataset = mark = None
        with contextlib.suppress(Exception):
            dataset = members[0].load_data(datasets)
            mark = dataset.fingerprint
        networks: dict[tuple, tuple[dict | None, bool]] = {}
        for run in members:
            network = (run.model, run.model_options)
            if network not in networks:
                networks[network] = _look_at(run, dataset, models, together)
            if run.method not in methods:
                methods[run.method] = method_fingerprint(run.method)
            net, pays = networks[network]
            fingerprint = {
                "version": VERSION, "data": mark, "network": net, "method": methods[run.method],
            }  # fmt: skip
            imp = (run.iterations, run.rewind) if run.method == "imp" else None
            company = (data, network, run.recipe, run.amp, imp) if pays else None
            prepared[run.key] = _Task(run, fingerprint, company)
    return [prepared[key] for key in dict.fromkeys(run.key for run in runs)]


def _look_at(
    run: Run, dataset: Dataset | None, models: Mapping[str, Make], together: bool | None
) -> tuple[dict | None, bool]:
    """A network's fingerprint, and whether copies of it are to be trained together."""
    if dataset is None:
        return None, False
    try:
        net, fingerprint = network_fingerprint(run, dataset, models)
        return fingerprint, batching_pays(net) if together is None else together
    except Exception:
        return None, False


def _tell(changed: Iterable[list[str]]) -> None:
    for parts, count in Counter(map(tuple, changed)).items():
        what = " and ".join(PARTS[part] for part in parts)
        warnings.warn(
            f"{count} {'run is' if count == 1 else 'runs are'} done again: {what} changed since"
            " the record in the store was made. The former records are kept in its folder"
            " superseded",
            stacklevel=3,
        )


def _groups(tasks: Iterable[_Task]) -> list[list[_Task]]:
    """Tasks to do at once: those that agree in all that `train_many` cannot tell apart."""
    apart, groups = [], {}
    for task in tasks:
        if task.company is None:
            apart.append([task])
        else:
            groups.setdefault(task.company, []).append(task)
    cut = [
        group[start : start + _AT_ONCE]
        for group in groups.values()
        for start in range(0, len(group), _AT_ONCE)
    ]
    return cut + apart


# ------------------------------------------------------------------------------------------- doing


@dataclass
class _Report:
    """What became of a group: keys of runs that are in the store now, and those that are not.

    ``trouble`` says for each of the latter why; ``unsaved`` of them were finished.
    """

    done: list[str] = field(default_factory=list)
    trouble: dict[str, str] = field(default_factory=dict)
    unsaved: int = 0


def _machine_error(trouble: Mapping[str, str]) -> RuntimeError:
    key, why = next(iter(trouble.items()))
    return RuntimeError(
        f"{len(trouble)} of the runs could not be done or stored, {key} for one: {why}. Nothing is"
        " recorded about them: put it right, and call sweep again. All others that were finished"
        " are in the store"
    )


def _holds(store: Store, task: _Task, retry: bool = False) -> bool:
    """Whether the store has the run as it would be done now (with ``retry``, no failure of it)."""
    known = store.read(task.run.key, history=False)
    return (
        known is not None
        and not changes(known["fingerprint"], task.fingerprint)
        and not (retry and known["status"] == "failed")
    )


def _perform_and_store(
    group: list[_Task],
    store: Path,
    datasets: Datasets,
    models: Mapping[str, Make],
    methods: Mapping[str, type[Method]],
    retry: frozenset[str],
    save_every: float,
) -> _Report:
    """Do those runs of a group that no one else does and that the store does not hold."""
    report = _Report()
    do = functools.partial(
        perform, datasets=datasets, models=models, methods=methods, save_every=save_every
    )
    try:
        folder = Store(store)
        with contextlib.ExitStack() as claims:
            mine = []
            for task in group:
                key = task.run.key
                free = claims.enter_context(folder.claim(key))
                if _holds(folder, task, key in retry):  # another may just have finished it
                    report.done.append(key)
                elif free:
                    mine.append(task)
            if mine:
                _record(mine, folder, do, report)
    except Exception as error:  # of the store: those of runs are recorded
        left = [task.run.key for task in group if task.run.key not in report.done]
        report.trouble |= dict.fromkeys(left, _text(error))
    return report


def _record(
    tasks: list[_Task], store: Store, do: Callable[..., list[dict]], report: _Report
) -> None:
    start = time.perf_counter()
    runs = [task.run for task in tasks]
    try:
        found = _from_checkpoint(runs, store.checkpoint(*(run.key for run in runs)), do)
        outcomes = [{"status": "done", "result": result} for result in found]
    except Exception as error:
        if len(runs) > 1:  # one of them is at fault: find it, and save the others
            for task in tasks:
                _record([task], store, do, report)
            return
        if of_machine(error):
            report.trouble[runs[0].key] = _text(error)
            return
        trace = traceback.format_exc()
        outcomes = [{"status": "failed", "error": _text(error), "traceback": trace}]
    seconds = (time.perf_counter() - start) / len(runs)
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
            report.done.append(task.run.key)
        except OSError as error:
            report.trouble[task.run.key] = _text(error)
            report.unsaved += 1


def _from_checkpoint(runs: list[Run], checkpoint: Path, do: Callable[..., list[dict]]):
    try:
        return do(runs, device=env.own_device(), checkpoint=checkpoint)
    except ValueError as error:
        if "belongs to another run" not in str(error):
            raise
        # The names are the same, but not what they stand for.
        checkpoint.unlink(missing_ok=True)
        return do(runs, device=env.own_device(), checkpoint=checkpoint)


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
