"""Shuffled masks, quotas, inverted scores: the tools of the sanity checks, and the checks."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import mlp, narrow_vgg16
from torch import nn

import synflow_lib as sf
from synflow_lib import quotas
from synflow_lib.methods import Magnitude
from synflow_lib.reproduction import figures, grids
from synflow_lib.reproduction.experiments import sanity, trained, widths
from synflow_lib.synflow import SynFlow


def counts(masks):
    return masks.table()["kept"].tolist()


# --------------------------------------------------------------------------- shuffled masks


def test_a_shuffled_mask_keeps_each_layers_count_and_differs():
    masks = sf.prune(sf.models.fc(seed=0), "synflow", 100)
    shuffled = masks.shuffled(torch.Generator().manual_seed(0))
    assert counts(shuffled) == counts(masks)
    assert [m.shape for m in shuffled.values()] == [m.shape for m in masks.values()]
    for name in masks:  # every layer, not only some
        assert not torch.equal(shuffled[name], masks[name])
    assert shuffled == masks.shuffled(0) and shuffled != masks.shuffled(1)


def test_shuffling_within_the_network_keeps_only_the_total():
    masks = sf.Masks({"a": torch.ones(500, dtype=torch.bool), "b": torch.arange(500) < 0})
    shuffled = masks.shuffled(3, within="network")
    assert shuffled.kept == 500 and 150 < int(shuffled["b"].sum()) < 350


def test_every_place_is_drawn_alike():
    mask, generator = sf.Masks({"a": torch.arange(4) < 1}), torch.Generator().manual_seed(0)
    seen = sum(mask.shuffled(generator)["a"].int() for _ in range(800))
    assert (seen - 200).abs().max() < 60  # five standard deviations


def test_shuffling_refuses_what_it_does_not_know():
    masks = sf.Masks({"a": torch.arange(4) < 1})
    with pytest.raises(ValueError, match="'filter'"):
        masks.shuffled(0, within="filter")
    for wrong in (None, True, "0"):
        with pytest.raises(TypeError, match="generator"):
            masks.shuffled(wrong)


# ---------------------------------------------------------------------------------- quotas


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: quotas.by_score({"a": [1.0, 2.0]}, {"a": 1}), r"scores\['a'\] is a list"),
        (lambda: quotas.by_score([1.0], {"a": 1}), "scores is a list"),
        (lambda: quotas.by_score({"a": torch.ones(2).to_sparse()}, {"a": 1}), "are sparse"),
        (lambda: quotas.by_score({"a": torch.ones(2, dtype=torch.cfloat)}, {"a": 1}), "complex"),
        (lambda: quotas.random({"a": 1}, {"a": 1}, 0), "model is a dict; expected a Module"),
        (lambda: quotas.random(nn.Linear(2, 2), ["weight"], 0), "quotas is a list"),
        (lambda: quotas.of(None), "masks is a NoneType; expected a Masks"),
    ],
)
def test_what_is_no_quota_or_score_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


sizes = st.lists(st.integers(1, 40), min_size=2, max_size=6)


@given(sizes, st.floats(0, 1), st.sampled_from(["uniform", "erk"]))
@settings(max_examples=150, deadline=None)
def test_quotas_sum_to_the_exact_count_within_bounds(units, share, name):
    net = mlp(*units)
    layers = [p.numel() for p in net.parameters()]
    total = sum(layers)
    compression = total**share
    found = getattr(quotas, name)(net, compression)
    kept = max(1, round(total / compression))
    assert sum(found.values()) == kept
    least = 1 if kept >= len(layers) else 0
    assert all(least <= q <= s for q, s in zip(found.values(), layers, strict=True))
    assert list(found) == list(sf.prunable(net))


def test_uniform_is_within_one_weight_of_the_density():
    net = narrow_vgg16()
    for name, quota in quotas.uniform(net, 7).items():
        assert abs(quota - net.get_parameter(name).numel() / 7) < 1


def test_erk_is_in_proportion_to_the_sum_of_the_dimensions():
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 64, 3), nn.Conv2d(64, 64, 5))
    found = quotas.erk(net, 50)
    per_dimension = [found[f"{i}.weight"] / n for i, n in enumerate((30, 86, 138))]
    assert max(per_dimension) / min(per_dimension) < 1.02
    # A layer that cannot hold its share is dense, and the others take what is left.
    tight = quotas.erk(net, 1.5)
    assert tight["0.weight"] == 8 * 16 * 9 and tight["1.weight"] == 16 * 64 * 9
    assert tight["2.weight"] < 64 * 64 * 25


def test_masks_with_the_quotas_of_a_mask():
    net = mlp(10, 20, 5)
    masks = sf.prune(net, "synflow", 10)
    drawn = quotas.random(net, quotas.of(masks), 0)
    assert quotas.of(drawn) == quotas.of(masks) and drawn != masks
    scores = sf.score(net, "magnitude")
    best = quotas.by_score(scores, quotas.of(masks))
    assert quotas.of(best) == quotas.of(masks)
    for name, mask in best.items():
        assert scores[name][mask].min() > scores[name][~mask].max()


def test_quotas_that_do_not_fit_are_refused():
    net = mlp(3, 4, 2)
    with pytest.raises(ValueError, match="expected a whole number from 0 to 12"):
        quotas.random(net, {"0.weight": 13}, 0)
    with pytest.raises(ValueError, match="does not have"):
        quotas.random(net, {"9.weight": 1}, 0)
    with pytest.raises(ValueError, match="same layers"):
        quotas.by_score(sf.score(net, "magnitude"), {"0.weight": 1})
    with pytest.raises(ValueError, match="NaN"):
        quotas.by_score({"a": torch.tensor([float("nan")])}, {"a": 1})
    with pytest.raises(ValueError, match="compression"):
        quotas.uniform(net, 0.5)


# ------------------------------------------------------------------------- inverted scores


@pytest.mark.parametrize("method", ["magnitude", "snip", "synflow"])
def test_inverted_scores_reverse_the_order(method):
    net = sf.models.fc((1, 4, 4), depth=3, width=12, seed=0).double()
    batch = torch.randn(20, 1, 4, 4).double(), torch.arange(20) % 10
    flat, inverted = (
        torch.cat([s.flatten() for s in sf.score(net, m, batch).values()])
        for m in (method, sf.inverted(method))
    )
    # Ties (SNIP has exact zeros) have no order to reverse.
    distinct = torch.unique(flat)
    assert len(distinct) > 200
    assert (flat.argsort(descending=True)[:50].flip(0) == inverted.argsort()[:50].flip(0)).all()
    assert torch.equal(inverted, -flat)


def test_an_inverted_function_is_called_as_the_function_is():
    seen = []

    def ranks(model, batch):
        weights = dict(model.named_parameters())
        seen.extend(weight.dtype for weight in weights.values())
        return {
            name: torch.arange(weight.numel()).view_as(weight) for name, weight in weights.items()
        }

    net = nn.Linear(6, 1, bias=False)
    assert sf.score(net, sf.inverted(ranks))["weight"].tolist() == [[0, -1, -2, -3, -4, -5]]
    assert sf.prune(net, sf.inverted(ranks), 3)["weight"].tolist() == [[True] * 2 + [False] * 4]
    assert set(seen) == {torch.float32}


def test_inverted_one_shot_pruning_keeps_the_least():
    net = mlp(10, 20, 5)
    masks = sf.prune(net, sf.inverted("magnitude"), 4)
    size = torch.cat([p.detach().abs().flatten() for p in sf.prunable(net).values()])
    flat = torch.cat([m.flatten() for m in masks.values()])
    assert size[flat].max() < size[~flat].min()


@pytest.mark.parametrize("method", ["magnitude", "synflow"])
def test_what_is_pruned_stays_pruned_when_inverted_scores_are_iterated(method):
    net = mlp(10, 20, 20, 5)
    path = sf.trajectory(
        net, sf.inverted(method), schedule="exponential", iterations=6, compression=12
    )
    before = sf.Masks.ones(net)
    for count in path.counts[1:]:
        masks = path.keeping(count)
        assert masks.kept == count
        assert all((masks[name] <= before[name]).all() for name in masks)
        before = masks


def test_zero_weights_score_lowest_when_inverted():
    net = mlp(4, 6, 3)
    sf.prune(net, "random", 3).apply_(net)
    for method in ("magnitude", "synflow"):
        flat = torch.cat([s.flatten() for s in sf.score(net, sf.inverted(method)).values()])
        zero = torch.cat([p.flatten() for p in net.parameters()]) == 0
        assert flat[zero].max() < flat[~zero].min()


def test_an_inverted_method_is_a_method_like_the_original():
    method = sf.inverted("synflow")
    assert (method.iterations, method.needs_data) == (SynFlow.iterations, False)
    assert sf.inverted("snip").needs_data and sf.inverted("snip").mode == "train"
    net = mlp(4, 6, 3)
    twice = sf.score(net, sf.inverted(sf.inverted("magnitude")))
    assert all(torch.equal(twice[n], s) for n, s in sf.score(net, "magnitude").items())
    with pytest.raises(ValueError, match="negative"):
        sf.prune(net, method, 4, schedule="cut")
    with pytest.raises(ValueError, match="unknown method"):
        sf.inverted("synflw")
    assert issubclass(sf.inverted(Magnitude), sf.methods.Inverted)


# ----------------------------------------------------------------------------- the experiment


def test_rewired_masks_keep_counts_and_units_and_move_weights():
    net = sf.models.fc((1, 6, 6), depth=4, width=30, seed=0)
    probe = sf.PathProbe(net)
    masks = probe.on_path(sf.prune(net, "synflow", 20))
    moved = sanity.rewired(net, masks, torch.Generator().manual_seed(0))
    assert counts(moved) == counts(masks) and moved != masks
    for name, mask in moved.items():
        for side in (0, 1):
            assert not (mask.any(side) & ~masks[name].any(side)).any()
    # That is more than quotas: weights shuffled in whole layers use other units.
    shuffled = masks.shuffled(0)
    assert any((shuffled[n].any(1) & ~masks[n].any(1)).any() for n in masks)
    assert probe.on_path(moved).kept > probe.on_path(shuffled).kept


def test_rewiring_leaves_weights_off_the_paths_where_they_are():
    net = mlp(4, 4, 2)
    masks = sf.Masks.ones(net)
    masks["1.weight"][:, 0] = False  # unit 0 leads nowhere, its four weights are dead
    moved = sanity.rewired(net, masks, 0)
    assert moved == masks


def test_rewired_convolutions():
    net = narrow_vgg16()
    masks = sf.prune(net, "synflow", 12)
    moved = sanity.rewired(net, masks, 0)
    assert counts(moved) == counts(masks) and moved != masks
    assert list(moved) == list(masks) and all(m.shape == masks[n].shape for n, m in moved.items())


def test_structure_counts_what_lies_on_paths():
    net = mlp(3, 4, 2)
    masks = sf.Masks.ones(net)
    masks["0.weight"][0] = False  # unit 0 gets nothing
    masks["1.weight"][:, 3] = False  # unit 3 is read by nobody
    table = widths.structure(net, masks)
    assert table[["kept", "on_path", "units", "live"]].values.tolist() == [
        [9, 6, 4, 2],
        [6, 4, 2, 2],
    ]
    totals = widths.network_totals(table.assign(method="m", compression=masks.compression))
    assert totals[["effective", "width"]].values.tolist() == [[20 / 10, 2 / 4]]
    masks["0.weight"].fill_(False)
    dead = widths.structure(net, masks)
    assert dead[["on_path", "live"]].values.tolist() == [[0, 0], [0, 0]]
    totals = widths.network_totals(dead.assign(method="m", compression=1.0))
    assert math.isinf(totals["effective"].iloc[0]) and totals["width"].iloc[0] == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The whole experiment on a network of seconds."""
    panel = grids.Panel(
        "digits", "fc", sf.Recipe(1, 0.1), (0.0, 1.0, 1.5), ("magnitude", "snip", "synflow"),
        model_options={"depth": 3, "width": 20},
    )  # fmt: skip
    checks = sanity.Checks((panel,), 2, (1.0,), (1.5,), (1.0,), (1.0,), 1)
    trials = sanity.trials(checks)
    store = tmp_path_factory.mktemp("runs")
    return checks, trials, store, sanity.accuracies(checks, trials, store)


def test_every_trial_keeps_the_same_number_of_weights(small):
    _, trials, _, table = small
    exact = table[~table["method"].isin(["dense", "synflow as thin"])]
    counts_at = exact.groupby("compression")["kept"]
    assert (counts_at.min() == counts_at.max()).all()
    assert (table["effective"] >= table["compression"] * 0.99).all()
    assert len(table) == len(trials) and table["accuracy"].between(0, 100).all()
    for seed in (0, 1):
        found = {(t.label, t.alpha): t for t in trials if t.seed == seed}
        base = found["synflow", 1.0].masks
        assert quotas.of(found["synflow shuffled", 1.0].masks) == quotas.of(base)
        assert found["synflow reinitialized", 1.0].masks == base
        assert found["synflow reinitialized", 1.0].weights not in (0, 1)
        assert found["magnitude shuffled", 1.0].masks != found["magnitude", 1.0].masks
        thin, spread = found["synflow as thin", 1.0], found["synflow shuffled", 1.0]
        net = sf.models.fc((1, 8, 8), depth=3, width=20, seed=0)
        assert thin.masks.kept == sf.PathProbe(net).on_path(spread.masks).kept


def test_a_second_call_trains_nothing(small, monkeypatch):
    checks, trials, store, table = small
    for name in ("train", "train_many"):
        monkeypatch.setattr(trained, name, lambda *a, **k: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(sanity.accuracies(checks, trials, store), table)
    other = dataclasses.replace(trials[1], run=None, masks=trials[1].masks.shuffled(5))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        sanity.accuracies(checks, [other], store)


def test_copies_trained_together_do_not_depend_on_what_the_store_holds(small, tmp_path):
    checks, trials, _, table = small
    [other, *_] = [trial.run for trial in trials if trial.run is not None]
    sf.sweep([other], tmp_path, progress=False)
    pd.testing.assert_frame_equal(sanity.accuracies(checks, trials, tmp_path), table)
    assert len(sf.results(tmp_path)) == 1  # the grid's other runs were not made


def test_a_reinitialized_network_is_another_one(small):
    checks, _, _, _ = small
    first, same, other = (checks.panel.network(seed)[0] for seed in (0, 0, 2))
    weights = [next(iter(sf.prunable(net).values())) for net in (first, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_overlap_of_schedules(small):
    checks, trials, _, _ = small
    table = sanity.schedule_overlap(trials)
    assert len(table) == 2 and table["overlap"].between(0.2, 1).all()
    assert (table["overlap"] > table["by_chance"]).all()
    assert len(sanity.rounding_overlap(checks, 10.0)) == 2


# --------------------------------------------------------------------------------- the figures


def totals():
    rows = [(m, c, 1.1 * c, 0.5) for m in ("synflow", "erk", "mine") for c in (10.0, 100.0)]
    table = pd.DataFrame(rows, columns=["method", "compression", "effective", "width"])
    dead = (table["method"] == "erk") & (table["compression"] > 10)
    return table.assign(effective=table["effective"].where(~dead, np.inf))


def layers():
    return pd.DataFrame(
        {"method": ["erk"] * 2, "compression": 10.0, "layer": [1, 2], "units": 8, "live": [8, 4]}
    )


DRAWN = {
    "changed_masks": lambda t: figures.changed_masks(t.assign(seed=0, accuracy=90.0)),
    "effective_compressions": figures.effective_compressions,
    "live_units": lambda t: figures.live_units(layers(), t),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_pure_and_labelled(name):
    table, before = totals(), totals()
    figure = DRAWN[name](table)
    pd.testing.assert_frame_equal(table, before)
    assert all(ax.get_xlabel() for ax in figure.axes) and figure.axes[0].get_ylabel()
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"SynFlow", "random, ERK quotas", "mine"} <= set(names)


@pytest.mark.parametrize("name", DRAWN)
def test_figures_name_a_missing_column(name):
    with pytest.raises(ValueError, match="lacks the column.*compression"):
        DRAWN[name](totals().drop(columns="compression"))


def test_disconnected_networks_are_marked_and_not_drawn():
    (ax,) = figures.effective_compressions(totals()).axes
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    assert all(np.isfinite(line.get_ydata()).all() for line in ax.lines)
    right = figures.changed_masks(totals().assign(seed=0, accuracy=90.0)).axes[1]
    assert sorted(len(line.get_xdata()) for line in right.lines) == [1, 2, 2]


def test_live_units_wants_layers_at_one_compression():
    two = pd.concat([layers(), layers().assign(compression=20.0)])
    with pytest.raises(ValueError, match="2 compressions; expected one"):
        figures.live_units(two, totals())


def test_an_interrupt_leaves_what_is_trained_and_goes_on_there(tmp_path, monkeypatch, capsys):
    def make(seed):
        return sf.models.conv((1, 8, 8), depth=2, width=2, seed=seed)

    starts = [trained.Start(seed, sf.Masks.ones(make(seed)), seed) for seed in range(3)]
    how = starts, sf.data.digits().subset(100, 50), sf.Recipe(1, 0.1), tmp_path
    train, calls = trained.train, []

    def interrupted(*args, **options):
        calls.append(options["seed"])
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(trained, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):  # nothing to show yet
        trained.accuracies(make, *how)
    found = trained.accuracies(make, *how)
    assert np.isnan(found).tolist() == [False, True, True]
    assert "interrupted: 2 of 3 networks are not trained" in capsys.readouterr().out
    again = trained.accuracies(make, *how)
    assert again[0] == found[0] and not np.isnan(again).any()
    assert calls == [0, 0, 1, 1, 2]


def test_results_kept_apart_do_not_depend_on_what_ran_before(tmp_path, monkeypatch):
    """Copies round by their company: one that is known would leave the others a smaller one."""
    groups, train_many = [], trained.train_many
    monkeypatch.setattr(
        trained,
        "train_many",
        lambda nets, *args, **how: groups.append(len(nets)) or train_many(nets, *args, **how),
    )

    def make(seed):
        return sf.models.fc((1, 8, 8), depth=2, width=5, seed=seed)

    starts = [trained.Start(seed, sf.Masks.ones(make(seed)), seed) for seed in range(3)]
    how = sf.data.digits().subset(100, 50), sf.Recipe(1, 0.1), tmp_path
    trained.accuracies(make, starts[:1], *how)
    trained.accuracies(make, starts, *how)
    assert groups == [1, 2]
    first = trained.accuracies(make, starts, *how, apart=True)
    assert groups == [1, 2, 3]
    assert trained.accuracies(make, starts, *how, apart=True) == first and len(groups) == 3
