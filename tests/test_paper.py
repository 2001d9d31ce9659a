"""The published numbers as published, and verdicts that can fail."""

import dataclasses
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synflow_lib import paper
from synflow_lib.paper import agreement, agreement_table, loglog_slope, record, write_agreement

METHODS = ["random", "magnitude", "snip", "grasp", "synflow"]
FIGURES = {
    "figure1": 375,
    "figure4": 190,
    "figure5a": 250,
    "figure5b": 1700,
    "figure6": 2340,
    "figure7": 154,
}


@pytest.fixture
def figures(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNFLOW_FIGURES", str(tmp_path))
    return tmp_path


# The published numbers. Literals below were typed from the authors' files.


@pytest.mark.parametrize(("name", "rows"), FIGURES.items())
def test_tables_are_whole_tidy_and_not_shared(name, rows):
    table = getattr(paper, name)()
    assert len(table) == rows
    assert not table.isna().any().any()
    if "log10_compression" in table:
        np.testing.assert_allclose(np.log10(table["compression"]), table["log10_compression"])
    if "method" in table:
        assert list(dict.fromkeys(table["method"])) == METHODS
    table.loc[:, table.columns[-1]] = 0  # a reader's changes stay with the reader
    assert not getattr(paper, name)().equals(table)


def test_published_files_are_small_and_described():
    folder = resources.files("synflow_lib") / "published"
    readme = (folder / "README.md").read_text()
    for name in FIGURES:
        file = folder / f"{name}.csv"
        assert len(file.read_bytes()) < 120_000
        assert file.name in readme


def test_figure1_values():
    table = paper.figure1()
    at = table.set_index(["method", "log10_compression", "seed"])
    assert at.loc[("random", 0.0, 2), "accuracy"] == 73.07
    assert at.loc[("synflow", 5.0, 1), "accuracy"] == 3.46
    assert at.loc[("magnitude", 2.5, 0), ["kept", "empty_layers"]].tolist() == [46681, 0]
    assert at.loc[("magnitude", 2.5, 0), "accuracy"] == 1.0  # disconnected with no layer empty
    assert set(table["total"]) == {14_761_664}
    assert set(table["layers"]) == {14}


@pytest.mark.parametrize(
    ("method", "slope"), [("synflow", 1.0), ("magnitude", 0.201), ("random", 0.001)]
)
def test_figure4_slopes(method, slope):
    table = paper.figure4("initialization").query("method == @method")
    assert len(table) == 19
    assert round(loglog_slope(table["layer_size"], table["mean_score"]), 3) == slope


def test_figure4_pretrained_equals_initialization_without_data():
    both = paper.figure4().pivot_table(
        index=["method", "layer"], columns="weights", values="mean_score"
    )
    same = (both["initialization"] == both["pretrained"]).groupby("method").all()
    assert same.to_dict() == {
        "grasp": False,
        "magnitude": True,
        "random": True,
        "snip": False,
        "synflow": True,
    }


def test_figure5_values():
    first = paper.figure5a().query("iterations == 1").iloc[0]
    assert first[["best_accuracy", "accuracy", "kept"]].tolist() == [88.27, 86.91, 9_222_848]
    table = paper.figure5b().set_index(["epoch", "layer"])
    assert table.loc[(0, 1), "mean_squared_weight"] == 0.003194670592035566
    assert table.loc[(99, 17), "layer_size"] == 5130


def test_figure6_panels_and_names():
    panels = paper.figure6().groupby(["dataset", "model"]).size()
    assert len(panels) == 12
    assert set(panels) == {195}
    row = paper.figure6("cifar100", "vgg11_bn").query("method == 'snip' and compression == 1")
    assert row["accuracy"].tolist()[0] == 70.04
    theirs = paper.figure6("tinyimagenet", "tiny_wide_resnet18")
    assert theirs.equals(paper.figure6("tiny_imagenet", "wide_resnet18"))
    with pytest.raises(ValueError, match=r"dataset is 'imagenet'.*cifar10, cifar100"):
        paper.figure6("imagenet")
    with pytest.raises(ValueError, match=r"model is 'vgg19'.*wide_resnet18"):
        paper.figure6(model="vgg19")


def test_figure7_values():
    table = paper.figure7().set_index(["schedule", "log10_compression", "iterations"])["ratio"]
    assert table[("linear", 0.5, 1)] == 0.800665
    assert table[("linear", 3.0, 100)] == 14.4057
    assert table[("exponential", 3.0, 100)] == 0.669527


# The slope.

sizes = st.lists(st.integers(1, 10**9), min_size=2, max_size=20).filter(lambda s: len(set(s)) > 1)


@given(sizes, st.floats(-2, 2), st.floats(-20, 20))
def test_slope_of_a_power_law_is_its_exponent(layer_size, slope, log_factor):
    size = np.array(layer_size, dtype=float)
    if np.ptp(np.log(size)) < 1e-3:  # nearly one size: the slope is ill-conditioned
        return
    score = 10**log_factor * size**-slope
    signs = np.where(np.arange(size.size) % 2, 1, -1)  # signs are dropped
    assert loglog_slope(size, signs * score) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "score", "message"),
    [
        ([1, 2], [1.0], "shape"),
        ([[1, 2]], [[1.0, 2.0]], "shape"),
        ([1, 2], [1.0, 0.0], "mean_score"),
        ([1, 2], [1.0, np.nan], "mean_score"),
        ([0, 2], [1.0, 1.0], "layer_size"),
        ([5, 5], [1.0, 2.0], "two different sizes"),
    ],
)
def test_slope_rejects(size, score, message):
    with pytest.raises(ValueError, match=message):
        loglog_slope(size, score)


# Verdicts.


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(0.201, "agrees"), (0.221, "agrees"), (0.181, "agrees"), (0.2211, "differs"), (1, "differs")],
)
def test_verdict_on_numbers(ours, verdict):
    row = agreement("4", "slope", paper=0.201, ours=ours, tolerance=0.02, spread=5.0)
    assert row.verdict == verdict
    assert row.difference == pytest.approx(ours - 0.201)


def test_zero_tolerance_asks_for_equality():
    for ours, verdict in ((14, "agrees"), (15, "differs")):
        assert agreement(1, "layers", paper=14, ours=ours, tolerance=0).verdict == verdict


@pytest.mark.parametrize("held", [True, np.True_])
def test_verdict_on_claims(held):
    assert agreement(2, "q", paper="never collapses", ours=held).verdict == "confirmed"
    refuted = agreement(2, "q", paper="never collapses", ours=not held)
    assert refuted.verdict == "not confirmed"
    assert refuted.difference is None


def test_without_a_published_value_there_is_no_verdict():
    row = agreement("7", "iterations of the cut schedule", paper=None, ours=54)
    assert (row.verdict, row.difference) == ("no published value", None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tolerance": None}, ValueError, "tolerance is missing"),
        ({"tolerance": -1}, ValueError, "tolerance is -1"),
        ({"ours": float("nan")}, ValueError, "ours is nan"),
        ({"paper": float("inf")}, ValueError, "paper is inf"),
        ({"spread": -0.1}, ValueError, "spread is -0.1"),
        ({"ours": "1.0"}, TypeError, "expected a number"),
        ({"ours": True}, TypeError, "answers a claim"),
        ({"paper": "a claim"}, TypeError, "True or False"),
        ({"paper": "a claim", "ours": True}, ValueError, "no two numbers"),
        ({"paper": " ", "ours": True, "tolerance": None}, ValueError, "empty text"),
        ({"quantity": ""}, ValueError, "quantity is empty"),
    ],
)
def test_agreement_rejects(changes, error, message):
    good = {"figure": "4", "quantity": "slope", "paper": 1.0, "ours": 1.0, "tolerance": 0.02}
    agreement(**good)
    with pytest.raises(error, match=message):
        agreement(**good | changes)


# The table, the records and the page.

ROWS = [
    agreement("4", "slope | random", paper=0.001, ours=0.00068, tolerance=0.02, spread=0.0004),
    agreement(10, "late", paper=2, ours=2.6, tolerance=0.5, reason="one seed\nonly"),
    agreement("theorem 3", "no layer empty", paper="MCC", ours=True, conditions="20 seeds"),
    agreement("2", "R", paper=6.3e30, ours=6.2e30, tolerance=1e30),
]


def test_table_rounds_by_tolerance():
    table = agreement_table(ROWS)
    assert table["paper"].tolist() == ["0.001", "2.00", "MCC", "6.3e+30"]
    assert table["ours"].tolist() == ["0.001 ± 0.000", "2.60", "yes", "6.2e+30"]
    assert table["difference"].tolist() == ["0.000", "+0.60", "", "-1e+29"]
    assert table["verdict"].tolist() == ["agrees", "differs", "confirmed", "agrees"]
    plain = agreement_table(ROWS[3:])
    assert "conditions" not in plain
    assert "known reasons" not in plain


def test_page_is_ordered_complete_and_reproducible(figures):
    record("02_b", ROWS[:2])
    record("01_a", ROWS[2:])
    page = write_agreement(figures)
    first = page.read_bytes()
    lines = first.decode().splitlines()
    body = [line for line in lines if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in body] == ["| 2", "| 4", "| 10", "| theorem 3"]
    assert "slope \\| random" in body[1]
    assert "one seed only" in body[2]
    assert "4 quantities: 2 agrees, 1 differs, 1 confirmed." in lines
    record("01_a", ROWS[2:])
    record("02_b", ROWS[:2])
    assert write_agreement().read_bytes() == first
    assert sorted(file.name for file in figures.rglob("*.*")) == [
        "01_a.csv",
        "02_b.csv",
        "agreement.md",
    ]
    # A verdict that changes shows on the page.
    record("02_b", [agreement("4", "slope | random", paper=0.001, ours=0.5, tolerance=0.02)])
    assert "differs" in write_agreement(figures).read_text()
    assert write_agreement(figures).read_bytes() != first


def test_noise_below_what_is_shown_changes_no_file(figures):
    row = agreement("4", "slope", paper=1.0, ours=0.99812, tolerance=0.02)
    before = record("n", [row]).read_bytes()
    assert record("n", [dataclasses.replace(row, ours=row.ours + 1e-9)]).read_bytes() == before
    assert record("n", [dataclasses.replace(row, ours=row.ours + 1e-3)]).read_bytes() != before


def test_a_failed_record_leaves_the_former_one(figures, monkeypatch):
    path = record("n", ROWS[:1])
    before = path.read_bytes()
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record("n", ROWS)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_records_reject(figures):
    with pytest.raises(ValueError, match="notebook is '../x'"):
        record("../x", ROWS)
    with pytest.raises(ValueError, match="no records"):
        record("n", [])
    with pytest.raises(TypeError, match="agreement"):
        record("n", [{"figure": 1}])
    with pytest.raises(ValueError, match="two records for figure 4"):
        record("n", [ROWS[0], ROWS[0]])
    with pytest.raises(ValueError, match="run the notebooks first"):
        write_agreement(figures)
    record("n", ROWS)
    (figures / "agreement" / "foreign.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"foreign\.csv.*delete it"):
        write_agreement(figures)
