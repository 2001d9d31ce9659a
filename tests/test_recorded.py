"""results/classroom.jsonl: what the notebooks trained is what training gives today."""

import datetime
import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import synflow_lib as sf
from synflow_lib.reproduction.experiments import measured, sanity, trained, widths
from synflow_lib.sweeps.run import perform
from synflow_lib.sweeps.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "notebooks/tools"))
import recorded

OUTDATED = "results/classroom.jsonl is not of this code: run `make figures`, and commit it"
TODAY = datetime.date.today().isoformat()
N_TEST = 359  # test images of the digits


def rotating(things, count):
    """Another sample every day, the same one in every process of a day."""
    return random.Random(TODAY).sample(things, min(count, len(things)))


def noise(accuracy):
    """Standard deviation, in percent, of what chance decides on a test set of this size."""
    share = min(max(accuracy / 100, 0.02), 0.98)
    return 100 * (share * (1 - share) / N_TEST) ** 0.5


def assert_rounding_alone(differences, spreads):
    """Rounding may send a training elsewhere, but no further than another seed would.

    Each difference of two such trainings has at most sqrt(2) times the seeds' standard deviation;
    what five of these hold happens once in a million, and the mean of n has to be sqrt(n) closer.
    """
    z = np.array(differences) / (np.sqrt(2) * np.array(spreads))
    assert np.abs(z).max() < 5, (OUTDATED, differences, spreads)
    assert abs(z.mean()) * len(z) ** 0.5 < 5, (OUTDATED, differences, spreads)


def test_runs_trained_anew_give_what_is_recorded():
    runs = [line for line in recorded.records()[1] if "run" in line]
    assert len(runs) > 500, OUTDATED
    of_seeds = {}
    for line in runs:
        cell = str({**line["run"], "seed": None})
        of_seeds.setdefault(cell, []).append(line["result"]["top1"])
    differences, spreads, equal = [], [], 0
    for line in rotating(runs, 8):
        run, result = sf.Run.from_dict(line["run"]), line["result"]
        [anew] = perform([run])
        assert anew["kept"] == result["kept"], (run, OUTDATED)
        differences.append(anew["top1"] - result["top1"])
        seeds = of_seeds[str({**line["run"], "seed": None})]
        spread = np.std(seeds, ddof=1) if len(seeds) > 1 else 0  # of one seed nothing is known
        spreads.append(max(spread, noise(result["top1"])))
        equal += differences[-1] == 0
    assert_rounding_alone(differences, spreads)
    print(f"{TODAY}: {len(differences)} of {len(runs)} runs trained anew, {equal} equal")


def test_changed_masks_trained_anew_give_what_is_recorded(tmp_path):
    lines = recorded.records()[1]
    known = {line["trained"]: line["value"] for line in lines if "trained" in line}
    assert len(known) > 300, OUTDATED
    checks = sanity.checks()
    [seed] = rotating(range(checks.seeds), 1)
    data = checks.panel.network()[1]
    trials = rotating(list(sanity._trials(checks, data, seed)), 12)
    found = trained.accuracies(
        lambda seed: checks.panel.network(seed)[0], trials, data, checks.panel.recipe, tmp_path
    )
    files = sorted((tmp_path / trained.FOLDER).glob("*.json"))
    anew = {file.stem: trained.read(file) for file in files}
    assert set(anew.values()) == set(found)
    both = sorted(anew.keys() & known.keys())
    assert len(both) >= len(anew) / 2, OUTDATED  # rounding may choose another mask
    differences = [anew[key] - known[key] for key in both]
    spreads = [max(noise(known[key]), 3) for key in both]
    assert_rounding_alone(differences, spreads)


def test_an_export_comes_back_without_times_and_histories(tmp_path):
    few = {"data_options": {"n_train": 100, "n_test": 50}, "model_options": {"depth": 2}}
    runs = [sf.Run("digits", "fc", m, 4, sf.Recipe(1, 0.1), **few) for m in ("random", "snip")]
    stores = tmp_path / "runs", tmp_path / "runs" / "questions"
    before = [sf.sweep(runs, store, progress=False) for store in stores]
    trained.write(stores[0] / trained.FOLDER / "0123456789abcdef.json", 87.5)
    file = tmp_path / "out.jsonl"
    assert recorded.export(stores[0], file) == 5
    first = file.read_bytes()
    code, lines = recorded.records(file)
    assert code == recorded.code() and b"seconds" not in first and b"history" not in first

    again = tmp_path / "again"
    recorded.load(lines, again)
    for table, name in zip(before, ("", "questions"), strict=True):
        columns = ["key", "method", "kept", "top1", "disconnected", "status"]
        known = sf.sweep(runs, again / name, progress=False)  # trains nothing
        assert known["seconds"].isna().all()
        assert known[columns].to_dict() == table[columns].to_dict()
    assert trained.read(again / trained.FOLDER / "0123456789abcdef.json") == 87.5
    assert recorded.export(again, file) == 5 and file.read_bytes() == first


def families_of(seed, compressions=(2, 10)):
    net = sf.models.fc((1, 8, 8), depth=2, width=10, seed=seed)
    return widths.families(
        net, sf.data.digits().scoring_batch(1), compressions, methods=("synflow",)
    )


def test_what_was_measured_comes_back_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNFLOW_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SYNFLOW_MEASURED", raising=False)
    plain = families_of(0)
    assert not (tmp_path / "runs").exists()  # nobody but the tests and `make figures` remembers
    monkeypatch.setenv("SYNFLOW_MEASURED", "write")
    assert families_of(0).equals(plain)
    file = tmp_path / "out.jsonl"
    assert recorded.export(tmp_path / "runs", file) == 1
    monkeypatch.setenv("SYNFLOW_RUNS", str(tmp_path / "again"))
    monkeypatch.setenv("SYNFLOW_MEASURED", "read")
    [line] = recorded.records(file)[1]
    recorded.load([line], tmp_path / "again")
    asked = []
    monkeypatch.setattr(
        widths, "structure", lambda *given: asked.append(given) or structure(*given)
    )
    assert families_of(0).equals(plain) and not asked
    assert families_of(0).dtypes.equals(plain.dtypes)
    for given in ((1,), (0, (2, 20))):  # another network, other compressions
        asked.clear()
        assert not families_of(*given).equals(plain) and asked

    monkeypatch.setattr(recorded, "code", lambda *_: "other code")
    assert recorded.records(file)[1] == []


structure = widths.structure


def test_every_measurement_is_made_anew_within_eight_days():
    lines = [line for line in recorded.records()[1] if "measured" in line]
    assert len(lines) > 20, OUTDATED
    days = [datetime.date(2026, 1, 1) + datetime.timedelta(n) for n in range(8)]
    due = [[recorded.due(line["measured"], day) for day in days] for line in lines]
    assert all(sum(each) == 1 for each in due)


def test_tables_keep_their_types_and_what_is_not_plain_is_refused():
    table = pd.DataFrame(
        {"n": [1, 2], "x": [0.1, float("inf")], "ok": [True, False], "name": ["a", "b"]}
    )
    value = (table, {("snip", 1): [float("nan"), None, 3]}, np.float64(0.5))
    found = measured.unpacked(json.loads(json.dumps(measured.packed(value), allow_nan=False)))
    assert found[0].equals(table) and found[0].dtypes.equals(table.dtypes) and found[2] == 0.5
    assert str(found[1]) == "{('snip', 1): [nan, None, 3]}"
    for odd in (table.set_index("name"), object(), {1, 2}):
        with pytest.raises(TypeError, match="expected"):
            measured.packed(odd)
    with pytest.raises(TypeError, match="no measurement of this argument"):
        measured.described(object())


def test_a_failed_run_is_not_recorded(tmp_path):
    run = sf.Run("digits", "fc", "random", 4, sf.Recipe(1, 0.1))
    failure = {"status": "failed", "error": "x", "seconds": 1.0, "finished": "", "machine": {}}
    Store(tmp_path).write(run, failure)
    assert recorded.export(tmp_path, tmp_path / "out.jsonl") == 0


def test_a_changed_accuracy_is_not_read(tmp_path):
    file = tmp_path / "0123456789abcdef.json"
    trained.write(file, 87.5)
    content, seen = bytearray(file.read_bytes()), 0
    for place in range(len(content)):
        for bit in range(8):
            content[place] ^= 1 << bit
            file.write_bytes(content)
            seen += trained.read(file) in (None, 87.5)
            content[place] ^= 1 << bit
    assert seen == 8 * len(content)
    trained.write(file, 87.5)
    shutil.copy(file, tmp_path / "fedcba9876543210.json")
    assert trained.read(tmp_path / "fedcba9876543210.json") is None  # of another network
    print(f"{seen} flipped bits")


@pytest.mark.in_turn
def test_only_what_a_run_executes_counts_as_its_code(tmp_path, monkeypatch):
    library = tmp_path / "synflow_lib"
    shutil.copytree(recorded.LIBRARY, library, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(recorded, "LIBRARY", library)
    before = recorded.code(library / "sweeps" / "run.py")
    for name, old, new, counts in (
        ("training/train.py", '"""Training', '"""The training', False),
        ("training/epochs.py", "METRICS", "# a comment\nMETRICS", False),
        ("reproduction/figures/style.py", "import", "import os\nimport", False),
        ("data/dataset.py", "(self.num_classes, self.mean", "(self.mean", True),
        ("training/epochs.py", "METRICS = [", "METRICS = []+[", True),
        ("methods.py", "temperature = 200.0", "temperature = 100.0", True),
    ):
        file = library / name
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert (recorded.code(library / "sweeps" / "run.py") != before) == counts, (name, new)
        file.write_text(text, encoding="utf-8")


def own_conftest():
    spec = importlib.util.spec_from_file_location("own_conftest", recorded.ROOT / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    return conftest


def test_what_comes_in_turn_comes_every_fourth_day():
    conftest = own_conftest()
    marked = SimpleNamespace(nodeid="tests/a.py::b", get_closest_marker=lambda name: name)
    other = SimpleNamespace(nodeid="tests/a.py::b", get_closest_marker=lambda name: None)
    for first in range(5):
        days = range(first, first + 4)
        assert sum(conftest.not_today(marked, day) for day in days) == 3
        assert not any(conftest.not_today(other, day) for day in days)


def test_the_longest_notebook_starts_first(monkeypatch):
    monkeypatch.delenv("SYNFLOW_TESTS_IN_TURN", raising=False)
    conftest = own_conftest()
    names = [path.name for path in sorted((recorded.ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    cells = [SimpleNamespace(path=Path(name), cell=i) for name in names for i in range(3)]
    conftest.pytest_collection_modifyitems(None, cells)
    seconds = json.loads((recorded.ROOT / "figures" / "provenance.json").read_text("utf-8"))
    taken = [seconds["notebooks"][cell.path.stem]["seconds"] for cell in cells]
    assert taken == sorted(taken, reverse=True) and len(cells) == 3 * len(names)
    assert [cell.cell for cell in cells] == [0, 1, 2] * len(names)  # in their own order
    tests = [SimpleNamespace(path=Path(name)) for name in ("test_b.py", "a.ipynb")]
    conftest.pytest_collection_modifyitems(None, tests)
    assert tests[0].path.name == "test_b.py"
