"""The notebooks' small experiments: numbers that can be known in another way."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction.experiments import conservation, schedules


def small(seed=0, **options):
    return sf.models.conv((1, 8, 8), depth=4, width=8, seed=seed, **options).double()


# ----------------------------------------------------------------------- conservation and figure 4


def test_train_steps_moves_everything_and_leaves_the_mode():
    net = small(batch_norm=True).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    losses = conservation.train_steps(net, sf.data.digits(), steps=3)
    assert len(losses) == 3 and all(np.isfinite(losses))
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, tensor in net.state_dict().items():
        assert not torch.equal(tensor, before[name]), f"{name} is as it was"


def test_train_steps_is_fixed_by_its_seed():
    nets = [small() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        conservation.train_steps(net, sf.data.digits(), steps=2, seed=seed)
    first, same, other = (next(net.parameters()) for net in nets)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_train_steps_goes_on_after_the_last_batch_of_an_epoch():
    digits = sf.data.digits().subset(40, 20)
    assert len(conservation.train_steps(small(), digits, steps=5, batch_size=20)) == 5


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_train_steps_wants_a_number_of_steps(steps):
    with pytest.raises(ValueError, match="steps="):
        conservation.train_steps(small(), sf.data.digits(), steps=steps)


def test_conservation_units_takes_scores_as_they_are():
    net, batch = small(), sf.data.digits().scoring_batch(1)
    scores = {name: sf.score(net, name, batch) for name in ("grasp", "synflow")}
    table = conservation.conservation_units(net, scores)
    errors = table.groupby("method")["max_relative_error"].first()
    assert errors["synflow"] == conservation.ROUNDING  # not a machine's own 16th digit
    raw = sf.check_conservation(net, scores["grasp"], "unit", corrected=False)
    assert errors["grasp"] == raw.max_relative_error > 1e-3
    assert table["method"].value_counts().to_dict() == {"grasp": 24, "synflow": 24}


def test_conservation_table_tells_rounding_from_a_broken_law():
    net, batch = small(), sf.data.digits().scoring_batch(1)
    cases = {name: (net, sf.score(net, name, batch)) for name in ("snip", "grasp")}
    exact, raw = (conservation.conservation_table(cases, corrected=c) for c in (True, False))
    assert exact.loc["grasp"].tolist() == ["< 1e-10"] * 3
    assert all(float(text) > 1e-3 for text in raw.loc["grasp"])
    assert all(float(text) > 0.1 for text in exact.loc["snip"])


@pytest.mark.parametrize("biases", [True, False])
def test_layer_means_count_biases_when_asked(biases):
    net = small()
    for module in net.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.ones_(module.bias)
    scores = sf.score(net, "magnitude", bias=True)
    table = conservation.layer_means(net, scores, biases=biases)
    layers = [module for module in net.modules() if hasattr(module, "weight")]
    for row, layer in zip(table.itertuples(), layers, strict=True):
        parts = [layer.weight, layer.bias] if biases else [layer.weight]
        values = torch.cat([part.detach().abs().flatten() for part in parts])
        assert row.layer_size == values.numel()
        assert row.mean_score == pytest.approx(float(values.mean()), rel=1e-12)


def test_slopes_of_conserved_and_constant_means():
    net = small()
    conserved = conservation.layer_means(net, sf.score(net, "synflow")).assign(method="flow")
    constant = conserved.assign(method="flat", mean_score=3.0)
    found = conservation.slopes(pd.concat([conserved, constant], ignore_index=True))
    assert found["flow"] == pytest.approx(1, abs=1e-10)
    assert found["flat"] == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------- schedules


def largest_ratio(net, schedule, compression, iterations):
    history, _, _ = schedules.fixed_run(net, schedule, iterations, compression)
    return np.nanmax([0, *history["ratio"]])  # NaN where nothing is removed


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
@pytest.mark.parametrize("iterations", [1, 7])
def test_a_history_is_that_of_the_library_s_run(schedule, iterations):
    net = small()
    pruned = sf.prune(net, "synflow", 50, iterations=iterations, schedule=schedule)
    path = sf.trajectory(net, "synflow", compression=50, iterations=iterations, schedule=schedule)
    history, layers, shared = schedules.fixed_run(net, schedule, iterations, 50, path)
    assert len(history) == iterations
    assert path.at(50) == pruned and layers["kept"].tolist() == pruned.table()["kept"].tolist()
    assert shared == 1


def test_one_shot_ratios_are_runs_of_one_iteration():
    net, compressions = small(), [1.0, 2.0, 30.0, 500.0]
    table = schedules.one_shot_ratios(net, compressions)
    for row in table.itertuples():
        assert row.iterations == 1
        ratio = largest_ratio(net, row.schedule, row.compression, 1)
        assert row.ratio == pytest.approx(ratio, rel=1e-12)
    assert table["ratio"][0] == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iterations", [1, 5, 40])
def test_ratio_stays_below_the_bound_of_the_notebook(seed, iterations):
    """L times the share of the survivors that a step removes."""
    net = small(seed)
    history, _, _ = schedules.fixed_run(net, "exponential", iterations, 200)
    before = np.r_[sum(p.numel() for p in sf.prunable(net).values()), history["kept"][:-1]]
    bound = len(sf.prunable(net)) * (1 - history["kept"] / before)
    assert (history["ratio"] <= bound * (1 + 1e-9)).all()


def test_the_largest_ratio_survives_a_disconnected_network():
    net = sf.models.fc((1, 4, 4), depth=12, width=12, seed=1)
    ratios = [largest_ratio(net, "exponential", sf.max_compression(net), n) for n in (1, 2, 3)]
    assert all(np.isfinite(ratios)) and min(ratios) > 1


def test_score_error_sees_a_factor_and_ignores_the_scale():
    net = sf.models.resnet20(seed=0)
    reference = sf.score(net.double(), "synflow")
    scaled = sf.Scores({name: score * 2.0**-40 for name, score in reference.items()}, log2_scale=40)
    assert schedules.score_error(scaled, reference) == 0
    wrong = sf.Scores({name: score * 1.01 for name, score in reference.items()})
    assert schedules.score_error(wrong, reference) == pytest.approx(0.01, rel=1e-6)
    lost = sf.Scores({name: torch.zeros_like(score) for name, score in reference.items()})
    assert schedules.score_error(lost, reference) == 1


def test_overlap_of_equal_disjoint_and_foreign_masks():
    ones, zeros = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    full, empty = sf.Masks({"w": ones}), sf.Masks({"w": zeros})
    half = sf.Masks({"w": torch.tensor([True, True, False, False])})
    other = sf.Masks({"w": torch.tensor([False, False, True, True])})
    assert schedules.overlap(half, half) == 1
    assert schedules.overlap(half, other) == 0
    assert schedules.overlap(half, full) == 1
    assert schedules.overlap(full, half) == 0.5
    with pytest.raises(ValueError, match="nothing"):
        schedules.overlap(empty, full)
    with pytest.raises(ValueError, match="other parameters"):
        schedules.overlap(full, sf.Masks({"v": ones}))
