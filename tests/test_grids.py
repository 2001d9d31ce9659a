"""The figures' grids, and intervals over seeds."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import synflow_lib as sf
from synflow_lib.reproduction import grids
from synflow_lib.reproduction.experiments import sanity
from synflow_lib.reproduction.intervals import mean_interval, paired_difference

PANEL = grids.Panel(
    "digits", "fc", sf.Recipe(1, 0.1), (0.0, 1.0), ("random", "iterated snip"),
    data_options={"n_train": 200, "n_test": 50}, model_options={"depth": 2, "width": 10},
)  # fmt: skip


@pytest.mark.parametrize("scale", sf.env.SCALES)
def test_every_grid_names_what_exists(scale, monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", scale)
    for grid in (grids.figure1(), grids.figure6()):
        runs = grid.runs()
        assert len({run.key for run in runs}) == len(runs)
        for panel in grid.panels:
            assert panel.dataset in sf.data.NAMES and panel.model in sf.models.NAMES
            assert set(panel.methods) <= set(grids.VARIANTS) <= set(sf.figures.style.STYLES)
    assert grids.figure1().seeds >= (5 if scale == "classroom" else 1)


def test_the_papers_grid_is_that_of_its_result_files(monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "paper")
    published = sf.paper.figure6()
    panels = published[["dataset", "model"]].drop_duplicates()
    grid = grids.figure6()
    assert len(grid.panels) == len(panels) == 12 and grid.seeds == 3
    alphas = sorted(published["log10_compression"].unique())
    assert all(list(panel.alphas) == alphas for panel in grid.panels)


def test_the_table_of_a_grid(tmp_path):
    grid = grids.Grid((PANEL,), seeds=2)
    assert len(grid.runs()) == 2 * (1 + 2)  # dense, and two methods
    table = grid.table(sf.sweep(grid.runs(), tmp_path, progress=False))
    assert len(table) == 8
    dense = table[table["compression"] == 1].pivot_table(
        index="seed", columns="method", values="accuracy"
    )
    assert (dense["random"] == dense["iterated snip"]).all()
    assert set(table.loc[table["compression"] == 10, "kept"]) == {74}  # of 740 weights
    assert table["disconnected"].dtype == bool


def test_networks_whose_paths_cannot_be_asked_are_neither_connected_nor_disconnected():
    grid = grids.Grid((PANEL,), seeds=1)
    keys = [run.key for run in grid.runs()]
    columns = dict.fromkeys(("top1", "best_top1", "top1_before", "empty_layers", "kept"), 1.0)
    results = pd.DataFrame({"key": keys, "status": "done", **columns})
    found = grid.table(results.assign(disconnected=pd.Series([None, True, False], dtype=object)))
    assert found["disconnected"].isna().tolist() == [True, False, True, False]
    assert found["disconnected"].dropna().tolist() == [1.0, 0.0]


def test_intervals_are_students():
    rng = np.random.default_rng(0)
    a, b = rng.normal(70, 3, 6), rng.normal(60, 3, 6)
    rows = [("a", 10.0, s, v) for s, v in enumerate(a)] + [
        ("b", 10.0, s, v) for s, v in enumerate(b)
    ]
    table = pd.DataFrame(rows, columns=["method", "compression", "seed", "accuracy"])
    single = mean_interval(table.query("method == 'a'")).iloc[0]
    expected = stats.t.interval(0.95, 5, a.mean(), stats.sem(a))
    assert (single["low"], single["high"]) == pytest.approx(expected)
    paired = paired_difference(table, "a", "b").iloc[0]
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert (paired["low"], paired["high"]) == pytest.approx((expected.low, expected.high))
    assert paired["clear"] == (stats.ttest_rel(a, b).pvalue < 0.05)


def test_pairing_uses_common_seeds_only_and_one_seed_has_no_interval():
    rows = [("a", 10.0, 0, 90.0), ("a", 10.0, 1, 50.0), ("b", 10.0, 0, 80.0), ("b", 100.0, 0, 1.0)]
    table = pd.DataFrame(rows, columns=["method", "compression", "seed", "accuracy"])
    found = paired_difference(table, "a", "b")
    assert found["compression"].tolist() == [10.0] and found["difference"].tolist() == [10.0]
    assert found["low"].isna().all() and not found["clear"].any()
    with pytest.raises(ValueError, match="no rows of 'c'"):
        paired_difference(table, "a", "c")


def test_published_numbers_are_drawn_beside_their_own_panels_only():
    published = grids.published()
    ours = published.query("dataset == 'cifar10' and model == 'vgg16'").assign(accuracy=50.0)
    texts = [t.get_text() for t in sf.figures.accuracy_curves(ours, published).legends[0].texts]
    assert "paper" in texts
    other = ours.assign(dataset="digits", model="fc")
    texts = [t.get_text() for t in sf.figures.accuracy_curves(other, published).legends[0].texts]
    assert "paper" not in texts
    assert not published.duplicated(["dataset", "model", "method", "compression", "seed"]).any()


# ------------------------------------------------------------------- beyond the classroom


@pytest.fixture
def large(monkeypatch, tmp_path):
    """A small grid that is done as the large ones are."""
    monkeypatch.setenv("SYNFLOW_SCALE", "colab")
    monkeypatch.setenv("SYNFLOW_RUNS", str(tmp_path))
    return grids.Grid((PANEL,), seeds=2)


def test_results_come_seed_by_seed_and_are_those_of_a_sweep(large, monkeypatch):
    orders, swept = [], grids.sweep
    monkeypatch.setattr(
        grids, "sweep", lambda runs, *args: orders.append(runs) or swept(runs, *args)
    )
    results = large.results()
    assert [run.seed for runs in orders for run in runs] == sorted([0, 1] * 4)
    assert len(results) == len(large.runs()) and results["key"].is_unique
    assert large.table(results).equals(
        large.table(swept(large.runs(), sf.env.runs_dir(), progress=False))
    )


def test_an_interrupt_leaves_what_is_done(large, monkeypatch, capsys):
    swept, calls = grids.sweep, []

    def interrupted(runs, *args):
        calls.append(runs)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return swept(runs, *args)

    monkeypatch.setattr(grids, "sweep", interrupted)
    results = large.results()
    assert set(results["seed"]) == {0} and len(large.table(results)) == 4
    assert "interrupted with 3 of 6 networks" in capsys.readouterr().out
    assert len(large.results()) == 6  # goes on
    calls[:] = [None] * 2
    with pytest.raises(KeyboardInterrupt):
        large.results()


def test_a_plan_says_what_is_done_and_how_long_the_rest_takes(large, monkeypatch):
    monkeypatch.setattr(grids, "seconds_an_image", lambda *given: 36.0)
    assert large.plan() == (
        f"fc on digits; 2 seeds, 6 networks to train, 0 of them done; about 12 hours on"
        f" {sf.env.device()}"
    )
    large.results()
    assert "6 of them done; about 1 minute on" in large.plan()


def test_the_time_of_an_image_is_measured():
    net, data = PANEL.network()
    found = grids.seconds_an_image(net, data, PANEL.recipe, span=0.01)
    assert 0 < found < 1
    assert grids.epochs_of(PANEL._run({"method": "imp", "iterations": 2}, 1.0, 0)) == 3


def test_a_session_is_enough_for_a_panel(monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "panel")
    one, six = grids.figure1(), grids.figure6()
    together = {run.key for grid in (one, six) for run in grid.runs()}
    # VGG-11 trains an epoch of 50,000 images in about 5 seconds on a T4: 6 hours.
    assert len(together) * one.panel.recipe.epochs * 5 < 7 * 3600
    assert {p.model for g in (one, six) for p in g.panels} == {"vgg11"}
    assert list(six.panel.alphas) == sorted(sf.paper.figure6()["log10_compression"].unique())


def test_the_plan_of_the_sanity_checks(monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "colab")
    monkeypatch.setattr(grids, "seconds_an_image", lambda *given: 0.1)
    checks = sanity.Checks((PANEL,), 1, (1.0,))
    count = 1 + 9 + 1 + 2 * 9  # of 200 images in one epoch
    assert checks.plan() == (
        f"fc on digits; 1 seed, up to {count} networks to train; about {count * 20 // 60 + 1}"
        f" minutes on {sf.env.device()}, less what is kept"
    )


def test_a_label_without_a_method_is_refused_and_so_are_no_seeds():
    with pytest.raises(ValueError, match="no variant 'sinp' that names a method"):
        dataclasses.replace(PANEL, methods=("sinp",))
    with pytest.raises(ValueError, match="no variant 'mine' that names a method"):
        grids.figure1().varied({"mine": {"metod": "snip"}}, [1])
    with pytest.raises(ValueError, match="seeds=0; expected a whole number from 1"):
        PANEL.runs(0)


def test_a_run_said_twice_counts_once_and_a_missing_column_is_named():
    grid = grids.Grid((PANEL,), seeds=1)
    columns = dict.fromkeys(("top1", "best_top1", "top1_before", "empty_layers", "kept"), 1.0)
    about = {"key": [run.key for run in grid.runs()], "status": "done", "disconnected": False}
    results = pd.DataFrame({**about, **columns})
    once, twice = grid.table(results), grid.table(pd.concat([results, results]))
    pd.testing.assert_frame_equal(once, twice)
    with pytest.raises(ValueError, match="results lacks the column 'status'"):
        grid.table(results.drop(columns="status"))
