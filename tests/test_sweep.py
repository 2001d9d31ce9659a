"""Sweeps: what is done once, what survives a kill, and what is set aside."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest
from torch import nn

import synflow_lib as sf
from synflow_lib.recipes import Recipe
from synflow_lib.runs import Run, perform
from synflow_lib.store import Store
from synflow_lib.sweep import histories, results, sweep

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compression": 0.5}, "compression=0.5"),
        ({"compression": float("nan")}, "compression=nan"),
        ({"method": "best"}, "unknown method 'best'"),
        ({"schedule": "fast"}, "unknown schedule"),
        ({"data_options": {"crop": 3}}, "data_options"),
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
        for c, s in ((1.0, 0), (4.0, 1))
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


def test_damaged_and_foreign_files_are_set_aside(tmp_path):
    runs = grid(3)
    sweep(runs, tmp_path, progress=False)
    before = outcome(tmp_path)
    damaged = Store(tmp_path).file(runs[0].key)
    damaged.write_text(damaged.read_text()[:50])
    copied = Store(tmp_path).file(runs[1].key)
    (tmp_path / f"{runs[1].key} (1).json").write_text(copied.read_text())
    (tmp_path / "notes.json").write_text("[]")
    with pytest.warns(UserWarning, match="set_aside") as seen:
        assert len(Store(tmp_path).records()) == 2
    assert len(seen) == 3
    assert len(list((tmp_path / "set_aside").iterdir())) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(runs, tmp_path, progress=False)
    assert outcome(tmp_path) == before


def test_bad_stores_runs_and_executors(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="is a file"):
        sweep(grid(1), file)
    with pytest.raises(TypeError, match="runs holds a dict"):
        sweep([{}], tmp_path)
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


def test_a_claim_is_exclusive_and_dies_with_its_process(tmp_path):
    store = Store(tmp_path)
    code = f"""
        import time
        from synflow_lib.store import Store
        with Store({str(tmp_path)!r}).claim("a") as mine:
            print(mine, flush=True)
            time.sleep(60)
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline().strip() == "True"
    with store.claim("a") as mine, store.claim("b") as free:
        assert (mine, free) == (False, True)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with store.claim("a") as mine:
        assert mine


# ------------------------------------------------------------------------------- processes that die

SCRIPT = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_sweep import grid, long_grid
    from synflow_lib.sweep import sweep
    sweep({runs}, {store!r}, {executor}, progress=False, save_every=0, together={together})
"""


def long_grid():
    """40 runs of which some take a second: a kill meets them at any stage."""
    return grid(40, Recipe(12, 0.05, 8))


def start(store, runs="long_grid()", executor=None, together=False):
    code = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parent), runs=runs, store=str(store), executor=executor,
        together=together,
    )  # fmt: skip
    # A session of its own, so that a kill reaches its workers as well.
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def finished(store):
    return len(list(Path(store).glob("[0-9a-f]*.json")))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    sweep(long_grid(), folder, together=False, progress=False)
    return outcome(folder)


@pytest.mark.parametrize(("executor", "kills"), [(None, 5), (2, 2)])
def test_kills_lose_and_double_nothing(tmp_path, uninterrupted, executor, kills):
    for kill in range(kills):
        process = start(tmp_path, executor=executor)
        goal = 2 + 6 * kill
        wait_for(lambda goal=goal: finished(tmp_path) >= goal)
        time.sleep(0.05 * kill)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert finished(tmp_path) < 40, "the sweep was over before the kill"
    table = sweep(long_grid(), tmp_path, together=False, progress=False)
    assert len(table) == finished(tmp_path) == 40
    assert outcome(tmp_path) == uninterrupted


def test_two_sweeps_on_one_store_share_the_work(tmp_path, uninterrupted):
    processes = [start(tmp_path) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert finished(tmp_path) == 40 and outcome(tmp_path) == uninterrupted


def test_a_killed_worker_process_is_replaced(tmp_path):
    runs = [Run("digits", "mine", "random", 2, QUICK, seed=s, data_options=FEW) for s in range(6)]
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
    assert (table["status"] == "done").all() and len(table) == 6


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


def test_a_dask_cluster_that_loses_a_worker(tmp_path, uninterrupted):
    distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())

        def kill():
            wait_for(lambda: finished(tmp_path) >= 10)
            os.kill(pids[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        table = sweep(long_grid(), tmp_path, client, together=False, progress=False)
        killer.join()
    assert len(table) == 40 and (table["status"] == "done").all()
    assert outcome(tmp_path) == uninterrupted
