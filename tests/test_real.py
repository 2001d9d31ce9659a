"""The grid on real images: its order, a small run of it to the end, and its records read back."""

import functools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import synflow_lib as sf
from synflow_lib.reproduction.experiments import real
from synflow_lib.reproduction.recorded import recorded
from synflow_lib.sweeps.run import Run
from synflow_lib.training.recipes import Recipe


def test_keys_differ_and_an_early_stop_leaves_whole_seeds():
    found = real.points(3)
    keys = [point.run.key for point in found]
    assert len(set(keys)) == len(keys)
    assert [point.run.seed for point in found] == sorted(point.run.seed for point in found)
    assert found[0].part == "search" and real.points(1, "a")[0].run.method == "dense"
    sizes = {part: sum(p.part == part for p in real.points(1)) for part in real.PARTS}
    assert sizes == {"search": 6, "a": 43, "b": 47, "c": 10, "d": 40, "small": 1}
    assert all(point.run.method == "dense" for point in real.points(1, ["search"]))
    first = real.points(1, "a")[1:6]
    assert {p.label for p in first} == {*real.EVAL}
    assert all(p.run.compression == 100 for p in first)


def test_scoring_modes_and_precision_are_in_the_key():
    runs = [point.run for point in real.part_a(0)]
    assert all(run.amp for run in runs)
    assert {run.mode for run in runs if run.method in ("snip", "grasp")} == {"eval", "train"}
    plain = Run("digits", "fc", "snip", 10, Recipe(1, 0.1))
    assert "amp" not in plain.canonical()
    exact = Run("digits", "fc", "snip", 10, Recipe(1, 0.1), amp=False)
    assert exact.key != plain.key and Run.from_dict(json.loads(exact.canonical())) == exact


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 6), ("test", 3)):
        for label in range(10):
            place = tmp_path / "images" / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(place / f"{number}.jpg")
    return tmp_path / "images"


def small_part(seed):
    make = functools.partial(
        Run, real.DATASET, "conv", recipe=Recipe(2, 0.05, 20), seed=seed, amp=True,
        model_options={"depth": 3, "width": 6, "batch_norm": True},
    )  # fmt: skip
    yield real.Point("a", "dense", make("dense", 1.0))
    yield real.Point("a", "synflow", make("synflow", 10.0, iterations=3))
    yield real.Point("a", "snip (train mode)", make("snip", 10.0, mode="train", per_class=2))


def test_the_command_runs_resumes_and_exports(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(real, "PARTS", {"a": small_part})
    store, out = tmp_path / "store", tmp_path / "results"
    common = ["--folder", str(folder), "--store", str(store), "--processes", "1", "--parts", "a"]
    threads = torch.get_num_threads()
    try:
        real.main([*common, "--seeds", "1", "--limit", "2"])
        assert "2 runs done, 0 failed" in capsys.readouterr().out
        real.main([*common, "--seeds", "2"])
        assert "4 runs done, 0 failed" in capsys.readouterr().out
        real.main([*common, "--seeds", "2"])
        assert "0 runs to do" in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    export = ["--export", "--results", str(out), "--seeds", "2"]
    real.main(["--store", str(store), *export])
    lines = (out / "a.jsonl").read_bytes()
    # Another machine, with another store: what is recorded is neither done again nor forgotten.
    real.main([*export[1:], "--store", str(tmp_path / "new"), "--parts", "a"])
    assert "0 runs to do" in capsys.readouterr().out
    real.main(["--store", str(tmp_path / "new"), *export])
    assert (out / "a.jsonl").read_bytes() == lines
    table = recorded("figure6", out)
    assert table["method"].tolist() == ["dense", "synflow", "snip (train mode)"] * 2
    assert table["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    assert all(len(each) == 3 for each in table["accuracies"])
    assert (table["accuracy"] == table["accuracies"].str[-1]).all()
    assert [Run.from_dict(run).key for run in table["run"]] == table["key"].tolist()
    results = sf.results(store).set_index("key").loc[table["key"]]
    assert table["kept"].tolist() == results["kept"].tolist()
    # Two records trained once more, from scratch, in a store of their own.
    try:
        once_more = [*common[:3], str(tmp_path / "again"), *common[4:], *export[1:], "--again", "2"]
        real.main(once_more)
        told = capsys.readouterr().out
        assert "no time known" not in told and "2 runs done" in told and "recorded" in told
        kept = (tmp_path / "results_again/a.jsonl").read_bytes()
        real.main(once_more)
        told = capsys.readouterr().out
        assert "0 runs to do" in told
        assert f"the 2 quickest records are in {tmp_path / 'again'} already" in told
        assert (tmp_path / "results_again/a.jsonl").read_bytes() == kept
        real.main([*common, "--results", str(tmp_path / "none"), "--again", "2"])
        assert f"no records of them in {tmp_path / 'none'}" in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    again = recorded("figure6", tmp_path / "results_again").set_index("key")
    first = table.set_index("key").loc[again.index]
    assert len(again) == 2 and (again["kept"] == first["kept"]).all()
    assert ((again["accuracy"] - first["accuracy"]).abs() < 20).all()  # percent, of few images


def test_times_are_those_of_like_runs_that_are_done():
    runs = [point.run for seed in (0, 1) for point in small_part(seed)]
    other = Run("digits", "fc", "snip", 10, Recipe(1, 0.1))
    records = [
        {"run": json.loads(run.canonical()), "seconds": seconds}
        for run, seconds in ((runs[0], 60.0), (runs[1], 5.0), (real.replace(runs[1], seed=7), 7.0))
    ]
    rounds = real.replace(runs[0], method="imp", compression=4.0, iterations=3)
    found = real.estimates([*runs[3:], other, rounds], records)
    # The same but for the seed; else any that trains this network as long; else not known.
    assert found == {runs[3].key: 60.0, runs[4].key: 6.0, runs[5].key: 7.0}


def test_a_plan_says_how_long_recorded_runs_took(tmp_path, capsys):
    results = Path(__file__).parents[1] / "results/real"
    how = ["--plan", "--store", str(tmp_path), "--results", str(results), "--processes", "2"]
    threads = torch.get_num_threads()
    try:
        real.main([*how, "--parts", "b", "d", "--seeds", "1"])
    finally:
        torch.set_num_threads(threads)
    told = capsys.readouterr().out.splitlines()
    assert all(line.endswith("min") for line in told if line.startswith("b seed 0 vgg16"))
    assert all(line.endswith("no time known") for line in told if line.startswith("d seed 0 vgg11"))
    assert "runs to do, about " in told[-1] and "in 2 processes with a core each" in told[-1]
    assert told[-1].endswith("and 40 of unknown time")


def test_recorded_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="figure6"):
        recorded("figure 6", tmp_path)
    with pytest.raises(FileNotFoundError, match="--export"):
        recorded("figure1", tmp_path)
    (tmp_path / "b.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"line 1 of .*b\.jsonl"):
        recorded("figure1", tmp_path)


def test_the_search_is_exported_too(tmp_path):
    """A part with a name of several letters."""
    assert real.export(tmp_path / "store", tmp_path / "results", 1) == {}
    assert len(real.points(1, ["search"])) == 6


def test_a_file_that_says_a_run_twice_or_is_no_text_is_named(tmp_path):
    line = (Path(__file__).parents[1] / "results/real/small.jsonl").read_text(encoding="utf-8")
    file = tmp_path / "small.jsonl"
    file.write_text(line + line, encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 of .*small.jsonl is line 1 again"):
        recorded("small", tmp_path)
    file.write_text(json.dumps({**json.loads(line), "machine": None}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1 of .*small.jsonl is no recorded run"):
        recorded("small", tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"small.jsonl is no text in UTF-8"):
        recorded("small", tmp_path)
    with pytest.raises(ValueError, match=r"nothing is recorded as \['small'\]"):
        recorded(["small"])


def test_an_export_with_fewer_seeds_loses_no_line(tmp_path):
    line = (Path(__file__).parents[1] / "results/real/small.jsonl").read_text(encoding="utf-8")
    other = json.dumps({**json.loads(line), "key": "of another seed"})
    file = tmp_path / "small.jsonl"
    file.write_text(f"{line}{other}\n", encoding="utf-8")
    assert real.export(tmp_path / "store", tmp_path, 1) == {"small": 2}
    assert file.read_text(encoding="utf-8") == f"{line}{other}\n"
    file.write_text(line[:50], encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1 of .*small.jsonl is no recorded run"):
        real.export(tmp_path / "store", tmp_path, 1)
    assert file.read_text(encoding="utf-8") == line[:50]


@pytest.mark.parametrize("option", ["--seeds", "--processes", "--limit"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5"])
def test_counts_of_the_command_line_are_one_or_more(option, value, capsys):
    with pytest.raises(SystemExit):
        real.main([option, value, "--plan"])
    assert f"{option}: '{value}'; expected 1 or more" in capsys.readouterr().err


def test_the_small_part_needs_no_folder(tmp_path, capsys):
    how = ["--parts", "small", "small", "--seeds", "1", "--processes", "1"]
    threads = torch.get_num_threads()
    try:
        real.main([*how, "--store", str(tmp_path / "store"), "--results", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    told = capsys.readouterr().out
    assert "1 runs to do" in told and "1 runs done, 0 failed" in told
