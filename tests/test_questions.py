"""The reviewers' questions: small cases whose answer is known in another way."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction import figures, grids
from synflow_lib.reproduction.experiments import cost, dead_inputs, layer_laws, questions, scorings

DIGITS = sf.data.digits()
SMALL = grids.Panel(
    "digits", "fc", sf.Recipe(1, 0.1), (0.0,), ("random",),
    data_options={"n_train": 120, "n_test": 50}, model_options={"depth": 2, "width": 10},
)  # fmt: skip


def small(seed=0, **options):
    return sf.models.fc((1, 8, 8), depth=3, width=12, seed=seed, **options)


# --------------------------------------------------------------------------------- the study


@pytest.mark.parametrize("scale", sf.env.SCALES)
def test_the_study_is_figure_1_of_the_classroom(scale, monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "classroom")
    [panel] = grids.figure1().panels
    figure1 = {run.key for run in grids.figure1().runs()}
    monkeypatch.setenv("SYNFLOW_SCALE", scale)
    study = questions.study()
    assert study.panel == panel and study.seeds == sf.env.settings().seeds
    variants = {"a": {"method": "snip"}, "b": {"method": "dense"}}
    own = [run for run in study.varied(variants, (1.0, 2.0)).runs() if run.seed < 5]
    assert {run.key for run in own} <= figure1
    other = {"a": {"method": "snip", "mode": "eval"}}
    assert not {run.key for run in study.varied(other, (1.0,)).runs()} & figure1


def test_answers_have_a_store_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNFLOW_RUNS", str(tmp_path))
    study = grids.Grid((SMALL,), 2)
    variants = {"a": {"method": "magnitude"}, "b": {"method": "random"}}
    first = study.accuracies(variants, (1.0,))
    [run, *_] = study.varied(variants, (1.0,)).runs()
    # Another notebook's run of the same key, trained in other company, does not change an answer.
    sf.sweep([run], tmp_path, progress=False)
    pd.testing.assert_frame_equal(study.accuracies(variants, (1.0,)), first)
    assert len(sf.results(tmp_path)) == 1 and len(sf.results(tmp_path / "questions")) == 4


def test_accuracies_name_their_compression_and_count_all_epochs(tmp_path):
    study = grids.Grid((SMALL,), 2)
    variants = {
        "dense": {"method": "dense"},
        "ticket": {"method": "imp", "iterations": 2, "rewind": 0},
    }
    table = study.accuracies(variants, (0.5, 1.0), tmp_path)
    assert len(table) == 2 * 2 * 2
    assert table.groupby("method")["epochs"].first().to_dict() == {"dense": 1, "ticket": 3}
    dense = table[table["method"] == "dense"]
    assert set(dense["kept"]) == {740} and sorted(set(dense["compression"])) == [10**0.5, 10.0]
    assert dense.groupby("seed")["accuracy"].nunique().eq(1).all()
    assert set(table.loc[(table["method"] == "ticket"), "kept"]) == {234, 74}


def test_a_failed_run_is_not_passed_over(tmp_path):
    study = grids.Grid((dataclasses.replace(SMALL, model_options={"depth": 0}),), 1)
    with pytest.raises((RuntimeError, ValueError), match=r"depth|failed"):
        study.accuracies({"a": {"method": "random"}}, (1.0,), tmp_path)


def test_against_is_paired_and_keeps_the_order():
    rows = [(m, s, 10.0 * s + shift) for m, shift in (("z", 3), ("a", 0)) for s in range(4)]
    table = pd.DataFrame(rows, columns=["method", "seed", "size"])
    table.loc[0, "size"] += 0.5
    found = questions.against(table, "a", "size").iloc[0]
    assert found["method"] == "z" and found["seeds"] == 4
    half = 3.182446305284263 * 0.25 / 2  # t(0.975) with 3 degrees, std of (.5, 0, 0, 0), root of 4
    assert found["difference"] == pytest.approx(3.125)
    assert found["high"] - found["low"] == pytest.approx(2 * half)
    assert bool(found["clear"])


def test_train_masks_trains_each_as_if_alone():
    dataset = DIGITS.subset(120, 60)
    make = lambda seed: small(seed)  # noqa: E731
    masks = [(str(s), s, sf.prune(make(s), "synflow", 5)) for s in range(2)]
    table = questions.train_masks(make, masks, dataset, sf.Recipe(2, 0.1))
    assert table["kept"].tolist() == [round(1032 / 5)] * 2
    for (_, seed, mask), accuracy in zip(masks, table["accuracy"], strict=True):
        net = make(seed)
        alone = sf.train(net, mask, dataset, sf.Recipe(2, 0.1), seed=seed)
        assert accuracy == pytest.approx(alone.top1, abs=2)


# ------------------------------------------------------------------------- 1: scoring on data


def test_signs_of_grasp_are_what_they_say():
    net, batch = small().double(), DIGITS.scoring_batch(1)
    plain = sf.score(net, "grasp", batch)
    for sign, turn in (("signed", 1), ("reversed", -1)):
        path = sf.trajectory(net, scorings.grasp_variant(sign=sign), batch, iterations=1)
        flat = torch.cat([s.flatten() for s in plain.values()]) * turn
        assert torch.allclose(path.score, flat)
    path = sf.trajectory(net, scorings.grasp_variant(sign="absolute"), batch, iterations=1)
    assert torch.allclose(path.score, flat.abs())
    with pytest.raises(ValueError, match="expected one of"):
        scorings.grasp_variant(sign="upside down")
    with pytest.raises(ValueError, match="above 0"):
        scorings.grasp_variant(temperature=0)


def test_a_reversed_score_keeps_what_the_other_prunes():
    net = small()
    variants = scorings.grasp_variants()
    table, masks = scorings.compare_scorings(net, DIGITS, variants, 516)  # half of the weights
    table = table.set_index("method")
    assert table.loc["as published", "overlap"] == 1.0
    assert table.loc["sign reversed", "overlap"] == 0.0
    assert {mask.kept for mask in masks.values()} == {516}
    assert table["overlap"].nunique() > 3  # the other settings do change something


def test_critical_compressions_agree_with_the_librarys_own():
    net = small(seed=1)
    table, _ = scorings.compare_scorings(net, DIGITS, {"a": scorings.Scoring("snip", "eval")}, 50)
    for criterion in ("layer", "path"):
        batch = DIGITS.scoring_batch(seed=0)
        own = sf.critical_compression(net, "snip", criterion, batch, mode="eval")
        assert table[criterion].iloc[0] == pytest.approx(own.compression)


def test_exact_zeros_are_counted():
    net = small()
    net[1].weight.data[:6] = 0
    table, _ = scorings.compare_scorings(net, DIGITS, {"a": scorings.Scoring("magnitude")}, 50)
    assert table["zeros"].iloc[0] == pytest.approx(6 * 64 / 1032)


# ------------------------------------------------------------------------------ 2: iterations


def test_only_a_score_that_changes_gains_by_iterations():
    net = small()
    table = scorings.collapse_of_iterations(net, None, ["magnitude", "synflow"], [1, 50])
    kept = table[table["criterion"] == "path"].pivot_table(
        index="method", columns="iterations", values="kept"
    )
    assert kept.loc["magnitude", 1] == kept.loc["magnitude", 50]
    assert kept.loc["synflow", 50] < kept.loc["synflow", 1] / 2


# ----------------------------------------------------------------------------- 4: dead inputs


@settings(max_examples=10, deadline=None)
@given(st.integers(8, 20), st.booleans())
def test_the_canvas_leaves_the_images_as_they_are(size, noise):
    few = DIGITS.subset(40, 20)
    wide = dead_inputs.canvas(few, size, noise)
    inside = dead_inputs.window(few, size)
    assert torch.equal(wide.train_x[:, 0][:, inside], few.train_x.flatten(1))
    outside = wide.normalize(wide.test_x)[:, 0][:, ~inside]
    if not noise:
        assert not outside.any()
    elif outside.numel():
        assert 0.4 < float((outside * wide.std[0]).mean()) < 0.6  # even between 0 and 1
        assert not torch.equal(outside[0], outside[1])
    with pytest.raises(ValueError, match="at least the images' 8"):
        dead_inputs.canvas(few, 7)


def test_synflow_from_real_inputs_by_hand():
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    net[2].weight.data = torch.tensor([[1.0, -10.0]])
    x = torch.tensor([[2.0, 0.0, -1.0], [4.0, 0.0, -1.0]])  # mean |x|: 3, 0, 1
    batch = x, torch.zeros(2, dtype=torch.long)
    real = sf.score(net, dead_inputs.RealInputSynFlow, batch)
    assert real["0.weight"].tolist() == [[3, 0, 3], [120, 0, 60]]
    assert real["2.weight"].tolist() == [[6, 180]]
    live = sf.score(net, dead_inputs.LiveInputSynFlow, batch)  # only the first pixel changes
    assert live["0.weight"].tolist() == [[1, 0, 0], [40, 0, 0]]
    assert live["2.weight"].tolist() == [[1, 40]]
    with pytest.raises(ValueError, match="real inputs"):
        sf.score(net, dead_inputs.RealInputSynFlow)


@pytest.mark.parametrize("method", [dead_inputs.RealInputSynFlow, dead_inputs.LiveInputSynFlow])
def test_synflow_that_looks_is_conserved_and_keeps_live_inputs_only(method):
    wide = dead_inputs.canvas(DIGITS, 16)
    net = sf.models.fc(wide.input_shape, depth=4, width=20, seed=0).double()
    batch = wide.scoring_batch(3)
    scores = sf.score(net, method, (batch[0].double(), batch[1]))
    assert sf.check_conservation(net, scores).holds(1e-10)
    inside = dead_inputs.window(DIGITS, 16)
    masks = sf.prune(net, method, 50, batch)
    assert dead_inputs.share_inside(masks, inside) == 1.0
    assert not sf.is_collapsed(net, masks, "path")
    blind = sf.prune(net, "synflow", 50)  # negative control: a quarter of the pixels
    assert 0.1 < dead_inputs.share_inside(blind, inside) < 0.4


# ------------------------------------------------------------------------------------ 5, 8: cost


def test_peak_bytes_counts_what_is_held_at_once():
    def one_after_the_other():
        for _ in range(5):
            torch.ones(1000)

    def together():
        held = [torch.ones(1000) for _ in range(5)]
        return held[0].view(10, 100)  # a view is no new memory

    assert cost.seconds_and_bytes(together)[1] == 5 * 4000
    assert 4000 <= cost.seconds_and_bytes(one_after_the_other)[1] <= 2 * 4000


def test_a_step_that_is_timed_moves_nothing():
    net = small()
    before = [p.clone() for p in net.parameters()]
    cost.training_step(net, DIGITS, 16)()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_costs_are_of_the_whole_pruning():
    net = small()
    table = cost.scoring_costs(net, DIGITS, ["magnitude", "synflow"], repeats=1)
    table = table.set_index("method")
    assert table.loc["synflow", "seconds"] > table.loc["magnitude", "seconds"] > 0
    assert np.allclose(table["seconds"] / table["epoch"], table["epochs"])
    assert (table["prune_mb"] > 1032 * 4 / 1e6).all()  # at least the scores themselves
    assert table["iterations"].to_dict() == {"magnitude": 1, "synflow": 100}
    with pytest.raises(ValueError, match="whole number from 1"):
        cost.seconds_of(lambda: None, repeats=0)


def test_savings_of_a_network_with_dead_units():
    net = small().eval()
    masks = sf.Masks.ones(net)
    first = next(iter(masks))
    masks[first][3:] = False  # 9 of 12 units have no input any more
    table = cost.savings(net, {("cut", 2.0): masks}, torch.ones(4, 1, 8, 8), repeats=1)
    row = table.iloc[0]
    assert row["kept"] == 1032 - 9 * 64
    assert row["smaller"] == pytest.approx((3 * 64 + 3 * 12 + 120) / 1032)
    assert row["multiply_adds"] == pytest.approx((1032 - 9 * 64) / 1032)


def test_latencies_are_relative_to_the_dense_kernel():
    table = cost.matrix_latencies([0.5, 0.01], size=64, batch=4, repeats=1)
    assert (table.query("kernel == 'dense'")["ratio"] == 1).all()
    assert table["compression"].tolist() == [2, 2, 100, 100]


# ------------------------------------------------------------------------ 3, 6, 7, 9, 10: layers


def test_unsettled_networks_tell_true_laws_from_false_ones():
    net = layer_laws.unsettle_(small(batch_norm=True).double(), 3)
    gammas = torch.cat([m.weight for m in net if isinstance(m, nn.BatchNorm1d)])
    assert (gammas < 0).any() and (gammas > 0).any()
    for mode in ("eval", "train"):
        found = sf.score(net, "signed_snip", DIGITS.scoring_batch(1), mode=mode)
        assert sf.check_conservation(net, found).holds(1e-10)
        assert not sf.check_conservation(net, dict(found)).holds(1e-2)


@pytest.mark.parametrize("spreads", [(1.0, 0.3), (0.3, 1.0), (1.0, 0.6)])
def test_the_predicted_collapse_is_that_of_gaussian_layers(spreads):
    sizes, measured = (3000, 1500), []
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        layers = [
            s * torch.randn(n, generator=generator).abs()
            for n, s in zip(sizes, spreads, strict=True)
        ]
        threshold = min(layer.max() for layer in layers)
        kept = sum(int((layer >= threshold).sum()) for layer in layers)
        measured.append(sum(sizes) / max(kept, 2))
    predicted = layer_laws.gaussian_collapse(sizes, spreads)
    assert abs(math.log10(predicted) - np.log10(measured).mean()) < 0.15


def test_working_part_of_a_broken_chain():
    net = small()
    masks = sf.Masks.ones(net)
    names = list(masks)
    masks[names[1]][:, :] = False
    assert layer_laws.working_part(net, masks) == {"kept": 888, "on_path": 0, "narrowest": 0}
    masks[names[1]][2, 5] = True
    expected = {"kept": 889, "on_path": 64 + 1 + 10, "narrowest": 1}
    assert layer_laws.working_part(net, masks) == expected


def test_signs_add_up():
    net, batch = small().double(), DIGITS.scoring_batch(1)
    table = layer_laws.signs_of_scores(net, batch)
    assert np.ptp(table["signed"]) < 1e-10  # all layers carry the same total
    snip = sf.score(net, "snip", batch, mode="eval")
    assert np.allclose(table["absolute"], [float(s.sum()) for s in snip.values()])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_shuffled_scores_keep_layers_and_lose_units(seed):
    net = small().double()
    found = sf.score(net, "synflow")
    mixed = layer_laws.shuffled_scores(found, seed)
    for name in found:
        assert torch.equal(mixed[name].flatten().sort()[0], found[name].flatten().sort()[0])
    assert sf.check_conservation(net, mixed, "layer").holds(1e-10)
    assert not sf.check_conservation(net, mixed, "unit").holds(1e-2)


# ------------------------------------------------------------------------------------- figures


def differences():
    rows = [
        (m, c, d, d - 1, d + 1, abs(d) > 1) for m, d in (("snip", 2), ("x", 0)) for c in (10, 100)
    ]
    return pd.DataFrame(
        rows, columns=["method", "compression", "difference", "low", "high", "clear"]
    )


def test_clear_differences_are_filled_and_the_others_open():
    axes = figures.paired_differences(differences(), "SynFlow").axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["SNIP", "x"]
    dots = [line for line in axes[0].lines if line.get_marker() == "o"]
    faces = [dot.get_markerfacecolor() for dot in dots]
    assert faces[0] == dots[0].get_color() and faces[1] == "white"


def iterations():
    return pd.DataFrame(
        [(m, "fc", n, v) for m, v in (("snip", 10.0), ("synflow", 100.0)) for n in (1, 10)],
        columns=["method", "network", "iterations", "critical_compression"],
    )


def canvases():
    rows = [("snip", f, d, 0.5, 90.0) for f in ("black", "noise") for d in (0.0, 0.5) for _ in "ab"]
    return pd.DataFrame(rows, columns=["method", "fill", "dead", "inside", "accuracy"])


def costs():
    return pd.DataFrame(
        [("fc", "snip", 1e4, 0.1)], columns=["network", "method", "weights", "epochs"]
    )


def reached():
    return iterations().assign(epochs=0.5)


def profiles():
    return pd.DataFrame(
        {"network": "fc", "state": ["a", "b"] * 2, "layer": [1, 1, 2, 2], "rms": 0.1}
    )


def latencies():
    return pd.DataFrame({"compression": [1.0, 10.0], "kernel": "CSR", "ratio": [0.2, 2.0]})


def left_over():
    return pd.DataFrame(
        {"method": "snip", "compression": [2.0, 10.0], "multiply_adds": 0.5, "smaller": 0.9}
    )


DRAWN = {
    "paired_differences": (lambda t: figures.paired_differences(t, "SynFlow"), differences),
    "iteration_collapse": (lambda t: figures.iteration_collapse(t, {"fc": 1e4}), iterations),
    "dead_inputs": (figures.dead_inputs, canvases),
    "pruning_costs": (lambda t: figures.pruning_costs(t, reached(), 1e4), costs),
    "layer_profiles": (lambda t: figures.layer_profiles(t, {"rms": "rms"}), profiles),
    "savings": (lambda t: figures.savings(latencies(), t), left_over),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_pure_labelled_and_say_what_is_missing(name):
    draw, make = DRAWN[name]
    table = make()
    before = table.copy()
    fig = draw(table)
    pd.testing.assert_frame_equal(table, before)
    assert fig.get_supxlabel() or any(ax.get_xlabel() for ax in fig.axes)
    assert any(ax.get_ylabel() or ax.get_yticklabels() for ax in fig.axes)
    for column in table.columns:
        with pytest.raises(ValueError, match=f"{name}.*lacks the column '{column}'"):
            draw(table.drop(columns=column))
    with pytest.raises(ValueError, match=f"{name}.*no rows"):
        draw(table.head(0))
