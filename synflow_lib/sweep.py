"""A grid of runs that loses none: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timezone
from pathlib import Path

import cloudpickle
import joblib
import pandas as pd
from tqdm.auto import tqdm

from . import env
from .data import Dataset
from .runs import Make, Run, batching_pays, perform
from .store import Store
from .training import COLUMNS

Datasets = Mapping[str, "Dataset | Callable[[], Dataset]"]
_AT_ONCE = 64  # copies trained together; a killed process loses no more
_PATIENCE = 3  # workers may die this often in a row with nothing finished in between


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

    A run that raises is recorded with its traceback, and the others go on. A killed process loses
    at most what it was doing since its last checkpoint. Several sweeps, on one machine or on many,
    may work on the same store: each run is done by one of them.

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
        RuntimeError: workers die again and again without finishing a run.

    >>> import tempfile
    >>> from synflow_lib.recipes import Recipe
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
    run_all = _executor(executor, datasets, models)
    by_key = {run.key: run for run in runs}
    finished = folder.records()
    done = {
        key
        for key in by_key
        if key in finished and not (retry_failed and finished[key]["status"] == "failed")
    }
    retry = {key for key in by_key if key in finished} - done
    bar = tqdm(total=len(by_key), initial=len(done), desc="runs", disable=not progress)
    fruitless, pause = 0, 0.1
    groups = _groups([by_key[k] for k in by_key if k not in done], datasets, models, together)
    with bar:
        while groups:
            work = functools.partial(
                _perform_and_store, store=folder.path, datasets=datasets, models=models,
                retry=frozenset(retry), save_every=save_every,
            )  # fmt: skip
            before, died = len(done), None
            try:
                for keys in run_all(work, groups):
                    bar.update(len(set(keys) - done))
                    done |= set(keys)
                    retry -= set(keys)
            except _WorkerDiedError as error:
                died = error
            # What other sweeps have done meanwhile, and what was done by workers that died later.
            there = {k for k in by_key if k not in done | retry and folder.file(k).exists()}
            bar.update(len(there))
            done |= there
            progressed = len(done) > before
            fruitless = fruitless + 1 if died and not progressed else 0
            if fruitless >= _PATIENCE:
                raise RuntimeError(
                    f"workers died {fruitless} times without finishing a run ({died}); memory may"
                    " be short: use fewer processes. Finished runs are in the store"
                )
            groups = [[run for run in group if run.key not in done] for group in groups]
            groups = [group for group in groups if group]
            if groups and not died and not progressed:  # another sweep works on all of them
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
    return _table(folder, by_key)


def results(store: str | Path) -> pd.DataFrame:
    """All runs of a store, one row each.

    Returns:
        Columns: key, the fields of `Run` (options as ``model.depth``, the recipe as
        ``recipe.epochs``), status ("done" or "failed"), what `perform` returns except the history,
        error (the last line of a traceback), seconds, finished (UTC), device_name, torch, and
        further versions.

    >>> import tempfile
    >>> results(tempfile.mkdtemp()).empty
    True
    """
    return _table(Store(store))


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


def _table(store: Store, keys: Iterable[str] | None = None) -> pd.DataFrame:
    records = store.records()
    keys = records if keys is None else keys
    return pd.DataFrame([_row(key, records[key]) for key in keys if key in records])


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
        "error": record.get("error"), "seconds": record["seconds"],
        "finished": record["finished"], **recipe, **record["machine"],
    }  # fmt: skip


def _groups(
    runs: list[Run], datasets: Datasets, models: Mapping[str, Make], together: bool | None
) -> list[list[Run]]:
    """Runs to do at once: those that agree in all that `train_many` cannot tell apart."""
    apart, groups = [], {}
    pays: dict[tuple, bool] = {}
    for run in runs:
        network = (run.dataset, run.data_options, run.model, run.model_options)
        if network not in pays:
            dataset = run.load_data(datasets)
            net = run.make(dataset, models)
            pays[network] = batching_pays(net) if together is None else together
        if not pays[network]:
            apart.append([run])
            continue
        imp = (run.iterations, run.rewind) if run.method == "imp" else None
        groups.setdefault((*network, run.recipe, run.amp, imp), []).append(run)
    cut = [
        group[start : start + _AT_ONCE]
        for group in groups.values()
        for start in range(0, len(group), _AT_ONCE)
    ]
    return cut + apart


def _perform_and_store(
    group: list[Run],
    store: Path,
    datasets: Datasets,
    models: Mapping[str, Make],
    retry: frozenset[str],
    save_every: float,
) -> list[str]:
    """Do those runs of a group that no one else does; the keys of what is in the store now."""
    folder = Store(store)
    claims = [(run, folder.claim(run.key)) for run in group]
    mine, there = [], []
    try:
        for run, claim in claims:
            free = claim.__enter__()
            known = folder.read(run.key)  # after claiming: another may just have finished it
            if known is not None and run.key not in retry:
                there.append(run.key)
            elif free:
                mine.append(run)
        if mine:
            there += _record(mine, folder, datasets, models, save_every)
    finally:
        for _, claim in reversed(claims):
            claim.__exit__(None, None, None)
    return there


def _record(
    runs: list[Run], store: Store, datasets: Datasets, models: Mapping[str, Make], save_every: float
) -> list[str]:
    start = time.perf_counter()
    name = runs[0].key
    if len(runs) > 1:
        name = hashlib.sha256("".join(run.key for run in runs).encode()).hexdigest()[:16]
    try:
        found = perform(
            runs, datasets, models, device=env.own_device(),
            checkpoint=store.checkpoint(name), save_every=save_every,
        )  # fmt: skip
        outcomes = [{"status": "done", "result": result} for result in found]
    except Exception as error:
        if len(runs) > 1:  # one of them is at fault: find it, and save the others
            return [k for run in runs for k in _record([run], store, datasets, models, save_every)]
        text = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
        outcomes = [{"status": "failed", "error": text, "traceback": trace}]
    seconds = (time.perf_counter() - start) / len(runs)
    for run, outcome in zip(runs, outcomes, strict=True):
        store.write(
            run,
            {
                **outcome,
                "seconds": seconds,
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "machine": env.describe(),
            },
        )
    return [run.key for run in runs]


# ------------------------------------------------------------------------------------- executors

Work = Callable[[list[Run]], list[str]]


class _WorkerDiedError(Exception):
    """A process that worked for the sweep is gone."""


def _executor(
    executor: object, datasets: Datasets, models: Mapping[str, Make]
) -> Callable[[Work, list[list[Run]]], Iterator[list[str]]]:
    if executor is None:
        return lambda work, groups: map(work, groups)
    if isinstance(executor, bool) or not (isinstance(executor, int) or hasattr(executor, "submit")):
        raise TypeError(
            f"executor is {executor!r}; expected None, a number of processes, or a"
            " dask.distributed.Client"
        )
    for name, value in itertools.chain(datasets.items(), models.items()):
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"{name!r} cannot be sent to another process ({error}). Make it a function of a"
                " module that builds what it needs itself, or use executor=None"
            ) from error
    if isinstance(executor, int):
        if executor < 1:
            raise ValueError(f"executor={executor}; expected at least 1 process")
        return functools.partial(_processes, executor)
    return functools.partial(_dask, executor)


def _processes(count: int, work: Work, groups: list[list[Run]]) -> Iterator[list[str]]:
    # One task a time, so that no run waits behind another in a worker that dies.
    parallel = joblib.Parallel(
        count, batch_size=1, pre_dispatch=count, return_as="generator_unordered"
    )
    try:
        yield from parallel(joblib.delayed(work)(group) for group in groups)
    except BrokenProcessPool as error:  # TerminatedWorkerError is one
        raise _WorkerDiedError(_first_line(error)) from error


def _dask(client, work: Work, groups: list[list[Run]]) -> Iterator[list[str]]:
    from dask.distributed import as_completed

    futures = [client.submit(work, group, pure=False, retries=2) for group in groups]
    died = None
    try:
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:
                died = future.exception()
    finally:
        client.cancel(futures)
    if died is not None:
        raise _WorkerDiedError(_first_line(died)) from died


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
