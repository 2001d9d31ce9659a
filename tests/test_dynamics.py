"""Figure 5: the law of gradient flow, layer norms through training, and the grid of IMP runs."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction import figures, grids
from synflow_lib.reproduction.experiments import dynamics


def table_5a():
    rows = [
        {"panel": panel, "rounds": n, "compression": 10.0**a, "seed": seed, "empty_layers": a,
         "accuracy": 90.0 - 10 * a - seed, "disconnected": a > 1 or (a == 1 and seed == 0)}
        for panel in ("a", "b") for n in (0, 1, 3) for a in range(4) for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------- the law


def test_the_error_of_the_law_is_proportional_to_the_learning_rate():
    net, batch = dynamics.xavier_(dynamics.tapered(seed=0)), sf.data.digits().scoring_batch(2)
    found = dynamics.law_error(net, batch, [0.008, 0.004, 0.002], time=0.8)
    ratios = found["error"].to_numpy()[:-1] / found["error"].to_numpy()[1:]
    np.testing.assert_allclose(ratios, 2, rtol=0.05)
    assert (found["gain"] > 100 * found["error"]).all()
    assert found["steps"].tolist() == [100, 200, 400]


def test_the_law_does_not_hold_with_batch_norm():
    net, batch = sf.models.fc((1, 8, 8), seed=0, batch_norm=True), sf.data.digits().scoring_batch(2)
    found = dynamics.law_error(net, batch, [0.02, 0.01], time=0.4)
    assert found["error"][0] / found["error"][1] < 1.2  # no error of the steps: it stays


def test_law_error_leaves_the_network_as_it_was():
    net, batch = dynamics.tapered(seed=0), sf.data.digits().scoring_batch(1)
    before = [p.clone() for p in net.parameters()]
    dynamics.law_error(net, batch, [0.01], time=0.02)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_layer_norms_count_biases_with_their_own_layer_only():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 2.0)
    table = dynamics.layer_norms(net)
    assert table["layer_size"].tolist() == [9, 4]
    assert table["squared_norm"].tolist() == [36, 16]
    assert table["difference"].iloc[0] == 36 - 12  # the next layer's bias is no outgoing weight
    np.testing.assert_allclose(table["mean_squared_weight"], 4)


def test_xavier_is_fixed_by_its_seed_and_scaled_by_its_gain():
    nets = [dynamics.xavier_(dynamics.tapered(), 0.5, seed) for seed in (0, 0, 1)]
    one, same, other = (net[1].weight for net in nets)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert float(one.detach().std()) == pytest.approx(0.5 * np.sqrt(2 / (64 + 400)), rel=0.02)


def test_training_moves_the_slope_up_and_every_layer_gains_alike():
    settings, data = dynamics._DRIFT["classroom"], sf.data.digits()
    net = settings.network(data, 0.5, 0)
    _, table = dynamics.train_watching(net, data, sf.Recipe(12, 0.01, 64))
    slopes = sf.paper.slope_by_epoch(table)["slope"]
    assert len(slopes) == 13 and slopes.iloc[-1] > slopes.iloc[0] + 0.1
    wide = table.pivot_table(index="epoch", columns="layer", values="squared_norm")
    gain = wide.iloc[-1] - wide.iloc[0]
    assert gain.max() - gain.min() < 0.25 * gain.mean()


# ------------------------------------------------------------------------------------ the grid


@pytest.mark.parametrize("scale", sf.env.SCALES)
def test_settings_of_every_scale(scale, monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", scale)
    grid, drift = dynamics.imp_grid(), dynamics.drift()
    runs = grid.runs()
    assert len(runs) == len({run.key for run in runs})
    assert {run.method for run in runs} == {"magnitude", "imp"}
    assert any(run.rewind is None for run in runs) and 1.0 in drift.gains
    assert all({(False, 1), (False, 3)} <= {*panel.methods} for panel in grid.panels)
    assert drift.options.get("batch_norm", False) is False


def test_drift_makes_the_network_of_the_paper_without_batch_norm():
    data = sf.data.digits(size=32, channels=3)
    net = dynamics._DRIFT["paper"].network(data, 1.0, 0)
    published = sf.paper.figure5b().query("epoch == 0")
    mine = dynamics.layer_norms(net)
    assert mine["layer_size"].tolist() == published["layer_size"].tolist()
    np.testing.assert_allclose(
        mine["mean_squared_weight"], published["mean_squared_weight"], rtol=0.1
    )


def test_table_of_a_sweep(tmp_path):
    how = "digits", "fc", sf.Recipe(1, 0.1), (0.5, 1.0), [1]
    grid = grids.Grid((dynamics.imp_panel("small", *how, depth=2),), 2)
    results = sf.sweep(grid.runs(), tmp_path, progress=False)
    assert len(results) == 2 * 2 * 3  # alphas, seeds; untrained, rewound, not rewound
    table = dynamics.imp_table(grid, results)
    assert len(table) == 2 * 2 * 4  # untrained stands in both panels
    assert table["disconnected"].dtype == bool and table["accuracy"].between(0, 100).all()
    failed = results.assign(status=["failed", *results["status"][1:]])
    assert dynamics.imp_table(grid, failed).shape[0] < 16


# --------------------------------------------------------------------------------- the figures


def test_imp_curves_mark_disconnected_networks():
    figure = figures.imp_curves(table_5a())
    assert len(figure.axes) == 4
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert {tuple(line.get_xdata()) for line in crosses} == {(100.0, 1000.0)}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["pruned before training", "1 iteration", "3 iterations"]
    unknown = figures.imp_curves(table_5a().drop(columns="disconnected"))
    assert all("disconnected" not in t.get_text() for t in unknown.legends[0].get_texts())


def test_norm_paths_names_the_slopes():
    figure = figures.norm_paths({"paper": sf.paper.figure5b()})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["before: slope 0.43", "after: slope 0.59", "slope 1"]


@pytest.mark.parametrize("draw", [figures.imp_curves, figures.norm_growth])
def test_missing_columns_are_named(draw):
    with pytest.raises(ValueError, match="lacks the column"):
        draw(pd.DataFrame({"epoch": [0]}))


def test_figures_are_the_same_bytes_each_time(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNFLOW_FIGURES", str(tmp_path))
    for name in ("one", "two"):
        figures.save(figures.imp_curves(table_5a()), name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_a_training_is_kept_and_resumed(tmp_path, monkeypatch):
    data, recipe = sf.data.digits(), sf.Recipe(3, 0.1)

    def network():
        return sf.models.fc(data.input_shape, depth=2, seed=0)

    first, second, third = network(), network(), network()
    accuracy, table = dynamics.train_watching(first, data, recipe, store=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(dynamics.trained, "train", None)  # cannot be called
        again = dynamics.train_watching(second, data, recipe, store=tmp_path)
    assert again[0] == accuracy and again[1].equals(table)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    # Weights that are damaged, or of which only the record came along, are trained again.
    [file] = (tmp_path / "networks").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert dynamics.train_watching(third, data, recipe, store=tmp_path)[0] == accuracy
    assert all(map(torch.equal, first.state_dict().values(), third.state_dict().values()))


def test_what_was_watched_before_a_resumption_is_not_lost(tmp_path, monkeypatch):
    data, recipe = sf.data.digits(), sf.Recipe(3, 0.1)

    def network():
        return sf.models.fc(data.input_shape, depth=2, seed=0)

    right = dynamics.train_watching(network(), data, recipe, store=tmp_path / "whole")
    train, seen = dynamics.trained.train, []

    def interrupted(*args, after_epoch, **options):
        def after(epoch, net):
            after_epoch(epoch, net)
            seen.append(epoch)
            if len(seen) == 3:
                raise KeyboardInterrupt

        return train(*args, after_epoch=after, save_every=0, **options)

    monkeypatch.setattr(dynamics.trained, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dynamics.train_watching(network(), data, recipe, store=tmp_path / "parts")
    found = dynamics.train_watching(network(), data, recipe, store=tmp_path / "parts")
    assert found[0] == right[0] and found[1].equals(right[1])
    assert seen[:3] == [0, 1, 2] and seen.count(0) == 1  # nothing was done twice
