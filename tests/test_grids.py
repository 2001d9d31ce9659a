"""The figures' grids, and intervals over seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import synflow_lib as sf
from synflow_lib.reproduction import grids
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
