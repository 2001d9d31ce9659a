"""Sweeps: what is done once, what survives a kill, and what is done again."""

import errno
import importlib
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib import files
from synflow_lib.scores import METHODS
from synflow_lib.sweeps import run as runs_module
from synflow_lib.sweeps.run import Run, perform
from synflow_lib.sweeps.store import Store, histories, results
from synflow_lib.sweeps.sweep import sweep
from synflow_lib.training.recipes import Recipe

MODULE = importlib.import_module("synflow_lib.sweeps.sweep")  # sf.sweep is the function
QUICK = Recipe(1, 0.1)
SMALL = {"depth": 2, "width": 10}
FEW = {"n_train": 200, "n_test": 100}


def grid(count=6, recipe=QUICK, **options):
    options = {"data_options": FEW, "model_options": SMALL} | options
    methods = ("random", "magnitude", "synflow")
    return [
        Run("digits", "fc", methods[i % 3], 2.0 + i, recipe, seed=i, **options)
        for i in range(count)
    ]


def outcome(store):
    """What a sweep found, without what differs from machine to machine."""
    found = {}
    for key, record in Store(store).records().items():
        result = dict(record["result"])
        found[key] = {k: v for k, v in result.items() if not k.endswith("_seconds")}
    return json.dumps(found, sort_keys=True)


# ------------------------------------------------------------------------------------------- runs


def test_the_key_tells_runs_apart_and_ignores_the_order_of_options():
    run = Run("digits", "fc", "snip", 10, QUICK, model_options={"depth": 3, "width": 8})
    same = Run("digits", "fc", "snip", 10.0, QUICK, model_options={"width": 8, "depth": 3})
    assert run == same and run.key == same.key and hash(run) == hash(same)
    others = [
        Run("digits", "fc", "snip", 10, QUICK, seed=1),
        Run("digits", "fc", "snip", 10, Recipe(2, 0.1)),
        Run("digits", "fc", "snip", 10, QUICK, mode="eval"),
        Run("digits", "fc", "snip", 10.000001, QUICK),
    ]
    assert len({run.key, *(other.key for other in others)}) == 5
    assert Run.from_dict(json.loads(run.canonical())) == run


def test_numpys_numbers_are_numbers():
    plain = Run(
        "digits", "fc", "snip", 10, QUICK, seed=3, iterations=2, data_options={"n_train": 300},
        model_options={"width": 8},
    )  # fmt: skip
    ours = Run(
        "digits", "fc", "snip", np.float64(10), QUICK, seed=np.int64(3), iterations=np.int8(2),
        data_options={"n_train": np.int32(300)}, model_options={"width": np.int64(8)},
    )  # fmt: skip
    assert ours == plain and ours.key == plain.key and ours.canonical() == plain.canonical()


def test_keys_are_those_of_earlier_versions():
    assert Run("digits", "fc", "synflow", 10, Recipe(1, 0.1)).key == "ccb6f17d34ec6389"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1.5}, "seed=1.5; expected a whole number"),
        ({"per_class": 0}, "per_class=0; expected a whole number from 1"),
        ({"compression": "10"}, "compression='10'"),
        ({"compression": True}, "compression=True"),
        ({"model_options": {"act": object()}}, "expected options that are numbers"),
        ({"model_options": {"p": float("nan")}}, "expected options that are numbers"),
        ({"compression": 0.5}, "compression=0.5"),
        ({"compression": float("nan")}, "compression=nan"),
        ({"method": "best"}, "unknown method 'best'"),
        ({"mode": "test"}, "mode='test'"),
        ({"amp": 1}, "amp=1; expected True, False"),
        ({"schedule": "fast"}, "unknown schedule"),
        ({"data_options": {"crop": 3}}, "data_options"),
        ({"data_options": {"n_train": 300.0}}, "n_train=300.0; expected a whole number from 1"),
        ({"data_options": {"n_test": True}}, "n_test=True; expected a whole number from 1"),
        ({"data_options": {"size": 0}}, "size=0; expected a whole number from 1"),
        ({"data_options": {"channels": "3"}}, "channels='3'; expected a whole number from 1"),
        ({"data_options": {"size": (8, 8)}}, r"size=\(8, 8\); expected a whole number from 1"),
        ({"data_options": {"n_train": float("inf")}}, "n_train=inf; expected a whole number"),
        ({"data_options": {"n_train": float("nan")}}, "n_train=nan; expected a whole number"),
        ({"data_options": None}, "data_options=None; expected name -> value"),
        ({"model_options": "depth"}, "model_options='depth'; expected name -> value"),
        ({"model_options": [3]}, r"model_options=\[3\]; expected name -> value"),
        ({"seed": 2**64}, "seed=18446744073709551616; expected a whole number"),
        ({"dataset": None}, "dataset=None; expected a name"),
        ({"model": 3}, "model=3; expected a name"),
        ({"iterations": 3.0}, "iterations=3.0; expected a whole number from 1"),
        ({"rewind": True}, "rewind=True; expected a whole number from 0"),
        ({"method": "dense"}, "compression=2.0; expected 1 for a dense run"),
    ],
)
def test_a_run_names_what_is_wrong(change, message):
    good = {"dataset": "digits", "model": "fc", "method": "snip", "compression": 2.0}
    with pytest.raises(ValueError, match=message):
        Run(**{**good, "recipe": QUICK, **change})


@pytest.mark.parametrize("method", ["dense", "snip", "synflow", "imp"])
def test_a_run_alone_and_in_a_group_report_alike(method):
    runs = [
        Run("digits", "fc", method, c, QUICK, seed=s, model_options=SMALL, iterations=2)
        for c, s in ((1.0, 0), (1.0 if method == "dense" else 4.0, 1))
    ]
    group = perform(runs)
    for run, found in zip(runs, group, strict=True):
        alone = perform([run])[0]
        assert alone["kept"] == found["kept"]
        assert alone["top1"] == pytest.approx(found["top1"], abs=1)
        assert alone["disconnected"] is False


@pytest.mark.parametrize("method", ["synflow", "snip", "imp"])
def test_a_users_network_need_not_tell_its_input_shape(method):
    def make(dataset, seed):
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *head)

    run = Run("digits", "mine", method, 2, QUICK, data_options=FEW)
    assert perform([run], models={"mine": make})[0]["disconnected"] is False


def test_a_collapsed_network_is_reported_and_at_chance():
    run = Run("digits", "fc", "magnitude", 300, Recipe(3, 0.1), model_options={"depth": 6})
    [found] = perform([run])
    assert found["disconnected"] is True
    assert found["top1"] < 20


# ------------------------------------------------------------------------------------------ sweeps


@pytest.mark.in_turn
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("executor", [None, 2])
def test_every_run_is_done_once_and_found_again(tmp_path, executor, together):
    runs = grid()
    table = sweep(runs + runs[:2], tmp_path, executor, together=together, progress=False)
    assert table["key"].tolist() == [run.key for run in runs]
    assert (table["status"] == "done").all() and table["seed"].tolist() == list(range(6))
    assert table["model.width"].tolist() == [10] * 6
    assert {"device_name", "torch", "seconds", "recipe.epochs", "top1_before"} <= set(table)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    assert len(files) == 6
    again = sweep(runs, tmp_path, executor, together=together, progress=False)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("*.json")} == files
    assert again["top1"].tolist() == table["top1"].tolist()
    epochs = histories(tmp_path)
    assert len(epochs) == 12 and epochs["epoch"].max() == 1
    assert len(results(tmp_path)) == 6


def failing(dataset, seed, **_):
    if seed == 1:
        raise RuntimeError("no such luck")
    return sf.models.fc(dataset.input_shape, depth=2, width=10, seed=seed)


@pytest.mark.parametrize("together", [True, False])
def test_a_failure_is_recorded_and_the_others_go_on(tmp_path, together):
    runs = [Run("digits", "mine", "random", 2, QUICK, seed=s, data_options=FEW) for s in range(3)]
    options = {"models": {"mine": failing}, "together": together, "progress": False}
    table = sweep(runs, tmp_path, **options)
    assert table["status"].tolist() == ["done", "failed", "done"]
    assert table["error"][1] == "RuntimeError: no such luck"
    record = Store(tmp_path).read(runs[1].key)
    assert "in failing" in record["traceback"]
    good = {"mine": lambda dataset, seed: failing(dataset, 0)}
    assert sweep(runs, tmp_path, **options)["status"][1] == "failed"  # not tried again unasked
    table = sweep(runs, tmp_path, **{**options, "models": good}, retry_failed=True)
    assert table["status"].tolist() == ["done"] * 3


def test_damaged_and_foreign_files_stay_and_the_runs_are_done_again(tmp_path):
    runs, options = grid(3), {"together": False, "progress": False}  # bit for bit
    sweep(runs, tmp_path, **options)
    before = outcome(tmp_path)
    damaged = Store(tmp_path).file(runs[0].key)
    damaged.write_text(half := damaged.read_text()[:50])
    copied = Store(tmp_path).file(runs[1].key)
    (tmp_path / f"{runs[1].key} (1).json").write_text(copied.read_text())
    (tmp_path / "notes.json").write_text("[]")
    listing = sorted(tmp_path.iterdir())
    with pytest.warns(UserWarning, match="left as they are") as seen:
        assert len(results(tmp_path)) == 2
    assert len(seen) == 1 and "notes.json" in str(seen[0].message)
    assert sorted(tmp_path.iterdir()) == listing  # reading moves nothing
    with pytest.warns(UserWarning, match=f"{damaged.name} .damaged"):
        sweep(runs, tmp_path, **options)
    [kept] = (tmp_path / "superseded").iterdir()
    assert kept.read_text() == half
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(runs, tmp_path, **options)
    (tmp_path / "notes.json").unlink()
    (tmp_path / f"{runs[1].key} (1).json").unlink()
    assert outcome(tmp_path) == before


# ------------------------------------------------------------------------ what names stand for


@pytest.fixture
def register():
    """`sf.register`, undone after the test."""
    before = dict(METHODS)
    yield lambda name, method: sf.register(name, method, replace=True)
    METHODS.clear()
    METHODS.update(before)


def scorer(factor):
    def mine(model, batch):
        assert batch is not None and len(batch[0]) == 100  # ten of each class
        return {name: factor * weight.abs() for name, weight in model.named_parameters()}

    return mine


@pytest.mark.parametrize("executor", [None, 2])
def test_registered_methods_reach_workers_and_are_found_where_nobody_registered(
    tmp_path, register, executor
):
    register("mine", scorer(1.0))
    runs = [Run("digits", "fc", "mine", 4, QUICK, seed=s, model_options=SMALL) for s in range(2)]
    table = sweep(runs, tmp_path, executor, together=False, progress=False)
    assert (table["status"] == "done").all(), table["error"].tolist()
    magnitude = [Run("digits", "fc", "magnitude", 4, QUICK, model_options=SMALL)]
    assert table["top1"][0] == perform(magnitude)[0]["top1"]
    del METHODS["mine"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(results(tmp_path)) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2


def changed_scorer(register):
    register("mine", scorer(1.0))
    yield {}
    register("mine", scorer(-1.0))
    yield {}


def changed_network(register):
    register("mine", scorer(1.0))
    for width in (10, 12):

        def make(dataset, seed, width=width, **_):
            return sf.models.fc(dataset.input_shape, depth=2, width=width, seed=seed)

        yield {"models": {"net": make}}


def changed_data(register):
    register("mine", scorer(1.0))
    for n in (300, 200):
        yield {"datasets": {"mydata": lambda n=n: sf.data.digits().subset(n, 100)}}


def changed_library(register):
    register("mine", scorer(1.0))
    yield {}
    old = runs_module.VERSION
    MODULE.VERSION = old + 1
    yield {}
    MODULE.VERSION = old


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed_scorer, "the method"),
        (changed_network, "the network"),
        (changed_data, "the data set"),
        (changed_library, "this library"),
    ],
)
def test_what_has_changed_under_a_name_is_done_again(tmp_path, register, change, what):
    options = {"models": {"net": plain_net}, "datasets": {"mydata": few_digits}}
    versions = change(register)
    first = options | next(versions)
    run = [Run("mydata", "net", "mine", 4, QUICK, model_options={"scale": 2})]
    before = sweep(run, tmp_path, progress=False, **first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = sweep(run, tmp_path, progress=False, **first)
    assert again.equals(before)
    old = Store(tmp_path).file(run[0].key).read_bytes()
    second = options | next(versions)
    with pytest.warns(UserWarning, match=f"1 run is done again: {what} changed since"):
        after = sweep(run, tmp_path, progress=False, **second)
    assert after["status"][0] == "done", after["error"][0]
    assert what == "this library" or after["top1"][0] != before["top1"][0]
    [kept] = (tmp_path / "superseded").iterdir()
    assert kept.read_bytes() == old and len(results(tmp_path)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sweep(run, tmp_path, progress=False, **second).equals(after)
    next(versions, None)


def plain_net(dataset, seed, scale):
    return sf.models.fc(dataset.input_shape, depth=scale, width=10, seed=seed)


def few_digits():
    return sf.data.digits().subset(300, 100)


def test_a_network_that_draws_by_itself_is_the_same_each_time(tmp_path):
    def make(dataset, seed):  # does not care for the seed
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    run = [Run("digits", "mine", "random", 2, QUICK, data_options=FEW)]
    options = {"models": {"mine": make}, "progress": False}
    first = sweep(run, tmp_path / "a", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sweep(run, tmp_path / "a", **options).equals(first)
    torch.rand(1)  # whatever the caller does
    assert sweep(run, tmp_path / "b", **options)["test_loss"][0] == first["test_loss"][0]


# ------------------------------------------------------------------------ what cannot be prepared


def test_what_cannot_be_prepared_fails_alone(tmp_path):
    def no_data():
        raise RuntimeError("no such file")

    def no_net(dataset, seed):
        raise KeyError("layers")

    runs = [
        Run("mydata", "fc", "random", 2, QUICK, model_options=SMALL),
        Run("digits", "mine", "random", 2, QUICK, data_options=FEW),
        Run("wrong", "fc", "random", 2, QUICK),
        *grid(2),
    ]
    options = {"datasets": {"mydata": no_data, "wrong": lambda: None}, "models": {"mine": no_net}}
    table = sweep(runs, tmp_path, progress=False, **options)
    assert table["status"].tolist() == ["failed"] * 3 + ["done"] * 2
    assert table["error"][:2].tolist() == ["RuntimeError: no such file", "KeyError: 'layers'"]
    assert "in no_data" in Store(tmp_path).read(runs[0].key)["traceback"]
    assert sweep(runs, tmp_path, progress=False, **options).equals(table)  # nothing is done twice


def test_a_network_that_is_given_again_and_again_starts_anew_each_time(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    runs = [Run("digits", "mine", "magnitude", c, QUICK, data_options=FEW) for c in (1, 4)]
    alone = sweep(runs[1], tmp_path / "a", models={"mine": lambda d, s: net}, progress=False)
    options = {"models": {"mine": lambda d, s: net}, "progress": False}
    for together in (False, True):
        both = sweep(runs, tmp_path / f"{together}", together=together, **options)
        assert both["top1"][1] == pytest.approx(alone["top1"][0], abs=1)
        assert both["top1_before"][1] == pytest.approx(alone["top1_before"][0], abs=1)


class Branching(nn.Module):
    """torch.fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.layer(x * 0 if x.sum() < -1e9 else x)


class Gated(nn.Module):
    """Whose paths the library cannot follow: of two signals none is the gate."""

    def __init__(self):
        super().__init__()
        self.layer, self.gate = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.layer(x) * self.gate(x)


@pytest.mark.parametrize("kind", [Branching, Gated])
@pytest.mark.parametrize("method", ["magnitude", "imp"])
def test_a_network_whose_paths_cannot_be_asked_is_trained(tmp_path, kind, method):
    run = [Run("digits", "mine", method, 2, Recipe(3, 0.1), iterations=1)]
    table = sweep(run, tmp_path, models={"mine": lambda *_: kind()}, progress=False)
    assert table["status"][0] == "done", table["error"][0]
    assert table["disconnected"][0] is None and table["top1"][0] > 50


def test_nothing_is_thrown_away_for_trouble_of_the_machine(tmp_path, monkeypatch):
    runs = grid(4)
    full = {"left": 1}

    def sync(path, how):
        if full["left"] and path.suffix == ".json":
            full["left"] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_sync", sync)
    monkeypatch.setattr(MODULE, "_PAUSES", (0, 0))
    table = sweep(runs[:1], tmp_path, progress=False)  # the disk was full for a moment only
    assert (table["status"] == "done").all()
    full["left"] = 3  # a record is tried three times
    with pytest.raises(RuntimeError, match="1 of the runs.*No space left.*call sweep again"):
        sweep(runs, tmp_path, together=False, progress=False)
    assert finished(tmp_path) == 3 and not list(tmp_path.glob(".part*"))
    table = sweep(runs, tmp_path, progress=False)
    assert (table["status"] == "done").all() and len(table) == 4
    full["left"] = 10**9
    with pytest.raises(RuntimeError, match="3 of the runs"):  # it does not train all for nothing
        sweep(grid(9)[4:], tmp_path, together=False, progress=False)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_trouble_of_the_machine_is_tried_again_next_time(tmp_path, error):
    flag = tmp_path / "well"

    def make(dataset, seed):
        if seed == 1 and not flag.exists():
            raise ValueError("the network cannot be loaded") from error
        return sf.models.fc(dataset.input_shape, depth=2, width=10, seed=seed)

    runs = [Run("digits", "mine", "random", 2, QUICK, seed=s, data_options=FEW) for s in range(3)]
    options = {"models": {"mine": make}, "progress": False}
    with pytest.raises(RuntimeError, match="1 of the runs could not be done"):
        sweep(runs, tmp_path / "store", **options)
    assert finished(tmp_path / "store") == 2
    flag.touch()
    assert (sweep(runs, tmp_path / "store", **options)["status"] == "done").all()


def test_an_error_while_claiming_names_its_cause(tmp_path, monkeypatch):
    def broken(self, key, **_):
        raise RuntimeError("the store is gone")

    monkeypatch.setattr(Store, "read", broken)
    with pytest.raises(RuntimeError, match="the store is gone"):
        sweep(grid(2), tmp_path, progress=False)


def test_a_checkpoint_of_what_the_name_stood_for_before_is_not_taken_up(tmp_path):
    runs, store = grid(1), Store(tmp_path)
    other = sf.models.fc((1, 8, 8), depth=3, width=7, seed=0)
    checkpoint = store.checkpoint(runs[0].key)

    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.train(
            other, None, sf.data.digits(), Recipe(3, 0.1), checkpoint=checkpoint, save_every=0,
            after_epoch=stop,
        )  # fmt: skip
    assert checkpoint.exists()
    assert sweep(runs, tmp_path, progress=False)["status"].tolist() == ["done"]


def test_checkpoints_of_groups_that_are_done_are_deleted(tmp_path):
    runs, store = grid(2), Store(tmp_path)
    of_others = store.checkpoint("0" * 16, runs[0].key)
    for file in (store.checkpoint(*(run.key for run in runs)), of_others):
        file.touch()
    sweep(runs, tmp_path, progress=False)
    left = sorted(file.suffix for file in (tmp_path / "checkpoints").iterdir())
    assert left == [".keys", ".pt"] and of_others.exists()  # the other run may still come


def test_bad_stores_runs_and_executors(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="is a file"):
        sweep(grid(1), file)
    with pytest.raises(TypeError, match="runs holds a dict"):
        sweep([{}], tmp_path)
    for given, message in (
        ({"save_every": "often"}, "save_every='often'"),
        ({"models": {"mine": torch.nn.Linear(2, 2)}}, r"models\['mine'\] is a Linear"),
        ({"datasets": {"mine": 3}}, r"datasets\['mine'\] is a int; expected a Dataset"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            sweep([], tmp_path, **given)
    with pytest.raises(TypeError, match="executor is 'many'"):
        sweep(grid(1), tmp_path, "many")
    with pytest.raises(ValueError, match="executor=0"):
        sweep(grid(1), tmp_path, 0)
    lock = threading.Lock()  # cannot be pickled
    with pytest.raises(TypeError, match="'mine' cannot be sent to another process"):
        sweep(grid(1), tmp_path, 2, models={"mine": lambda dataset, seed: lock})
    with pytest.raises(ValueError, match="no model 'net'"):
        sweep([Run("digits", "net", "random", 2, QUICK)], tmp_path, progress=False)
    with pytest.raises(ValueError, match="no data set 'numbers'"):
        sweep([Run("numbers", "fc", "random", 2, QUICK)], tmp_path, progress=False)


# ------------------------------------------------------------------------------- processes that die

# Children of a server that has imported everything once start in milliseconds.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["synflow_lib", "sklearn.datasets", "torch._dynamo"])


def long_grid():
    """12 runs of many epochs each: a kill meets them at any stage."""
    return grid(12, Recipe(30, 0.05, 16))


def work_on(store, executor):
    os.setsid()  # a session of its own, so that a kill reaches its workers as well
    sweep(long_grid(), store, executor, together=False, progress=False, save_every=0)


def start(target, *arguments):
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    return process


def hold(store, ready):
    with Store(store).claim("a") as mine:
        ready.put(mine)
        time.sleep(60)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def finished(store):
    return len(list(Path(store).glob("[0-9a-f]*.json")))


@pytest.mark.in_turn
def test_a_claim_is_exclusive_and_dies_with_its_process(tmp_path):
    store, ready = Store(tmp_path), SPAWN.Queue()
    other = start(hold, tmp_path, ready)
    assert ready.get(timeout=60) is True
    with store.claim("a") as mine, store.claim("b") as free:
        assert (mine, free) == (False, True)
    other.kill()
    other.join()
    with store.claim("a") as mine:
        assert mine


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    sweep(long_grid(), folder, together=False, progress=False)
    return outcome(folder)


@pytest.mark.in_turn
@pytest.mark.parametrize(("executor", "kills"), [(None, 8), (2, 1)])
def test_kills_lose_and_double_nothing(tmp_path, uninterrupted, executor, kills):
    times = {}
    for kill in range(kills):
        process = start(work_on, tmp_path, executor)
        goal = max(kill, finished(tmp_path))
        wait_for(lambda goal=goal: finished(tmp_path) > goal)
        time.sleep(0.03 * kill)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        now = {file: file.stat().st_mtime_ns for file in tmp_path.glob("[0-9a-f]*.json")}
        assert {file: now[file] for file in times} == times  # what was done is not done again
        times = now
        assert finished(tmp_path) < 12, f"the sweep was over before kill {kill + 1}"
    table = sweep(long_grid(), tmp_path, together=False, progress=False)
    assert len(table) == finished(tmp_path) == 12
    assert outcome(tmp_path) == uninterrupted
    print(f"{kills} kills of a sweep of 12 runs: all runs as if uninterrupted")


def test_two_sweeps_on_one_store_share_the_work(tmp_path, uninterrupted):
    processes = [start(work_on, tmp_path, None) for _ in range(2)]
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert finished(tmp_path) == 12 and outcome(tmp_path) == uninterrupted


def work_on_a_small_disk(store, limit, told):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    MODULE._PAUSES = (0,)
    try:
        sweep(grid(2), store, together=False, progress=False, save_every=0)
    except RuntimeError as error:
        told.put(str(error))


def test_files_may_not_grow(tmp_path):
    told = SPAWN.Queue()
    process = start(work_on_a_small_disk, tmp_path, 500, told)
    assert "File too large" in told.get(timeout=120)
    process.join()
    assert finished(tmp_path) == 0 and not list(tmp_path.glob(".part*"))
    assert (sweep(grid(2), tmp_path, progress=False)["status"] == "done").all()


@pytest.mark.in_turn
def test_a_killed_worker_process_is_replaced(tmp_path):
    runs = [Run("digits", "mine", "random", 2, QUICK, seed=s, data_options=FEW) for s in range(4)]
    flag, main = tmp_path / "died", os.getpid()

    def make(dataset, seed, flag=str(flag)):
        if seed == 2 and not os.path.exists(flag) and os.getpid() != main:
            Path(flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return sf.models.fc(dataset.input_shape, depth=2, width=10, seed=seed)

    table = sweep(
        runs, tmp_path / "store", 2, models={"mine": make}, together=False, progress=False
    )
    assert flag.exists()
    assert (table["status"] == "done").all() and len(table) == 4


@pytest.mark.in_turn
def test_workers_that_always_die_end_the_sweep_with_a_message(tmp_path):
    main = os.getpid()

    def make(dataset, seed):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return sf.models.fc(dataset.input_shape, depth=2, width=10, seed=seed)

    with pytest.raises(RuntimeError, match="died 3 times"):
        sweep(
            [Run("digits", "mine", "random", 2, QUICK, data_options=FEW)], tmp_path, 2,
            models={"mine": make}, together=False, progress=False,
        )  # fmt: skip
    assert finished(tmp_path) == 0


@pytest.mark.in_turn
def test_a_dask_cluster_that_loses_a_worker(tmp_path, uninterrupted, register):
    dask = pytest.importorskip("dask", reason="the extra 'cluster' is not installed")
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})  # faster
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())

        def kill():
            wait_for(lambda: finished(tmp_path) >= 3)
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        table = sweep(long_grid(), tmp_path, client, together=False, progress=False)
        killer.join()
        register("mine", scorer(1.0))
        mine = [Run("digits", "fc", "mine", 4, QUICK, model_options=SMALL)]
        registered = sweep(mine, tmp_path / "mine", client, progress=False)
    assert len(table) == 12 and (table["status"] == "done").all()
    assert outcome(tmp_path) == uninterrupted
    assert registered["status"].tolist() == ["done"], registered["error"][0]
