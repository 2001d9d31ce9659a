"""The experiments of notebook 01 against plain, slow ways of finding the same."""

import pandas as pd
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction.experiments import collapse as experiments

METHODS = ("random", "magnitude", "synflow", "ties")


def tied(model, batch):
    """Scores with many equal and many zero values."""
    return {name: (4 * weight.abs()).round() for name, weight in sf.prunable(model).items()}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 3))


@pytest.fixture(scope="module")
def paths(net):
    shape = {"input_shape": (2, 8, 8)}
    return {
        name: sf.trajectory(net, tied if name == "ties" else name, **shape) for name in METHODS
    } | {"fixed": sf.trajectory(net, "synflow", schedule="linear", iterations=7, **shape)}


class Probe(sf.PathProbe):
    """This network does not tell the size of its images."""

    def __init__(self, model):
        super().__init__(model, (2, 8, 8))


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(experiments, "PathProbe", Probe)


def test_densities_are_those_of_the_masks(paths):
    table = experiments.layer_densities(paths, [1, 1.3, 2, 7, 60])
    for (method, compression), rows in table.groupby(["method", "compression"], sort=False):
        masks = paths[method].at(compression).table()
        assert rows["kept"].tolist() == masks["kept"].tolist()
        assert rows["name"].tolist() == masks["layer"].tolist()
        assert rows["density"].tolist() == masks["density"].tolist()
        assert rows["layer"].tolist() == [1, 2, 3]


def test_densities_stop_where_a_trajectory_ends(paths):
    beyond = paths["magnitude"].total / 2
    table = experiments.layer_densities(paths, [beyond, 1])
    assert (table.groupby("method")["compression"].max() == beyond)[["random", "magnitude"]].all()
    assert table.groupby("method")["compression"].max()["synflow"] == 1


def test_lifetimes_are_the_last_masks_with_a_weight_in_the_layer(paths):
    table = experiments.layer_lifetimes(paths)
    for row in table.itertuples():
        path = paths[row.method]
        assert bool(path.keeping(row.kept)[row.name].any())
        if row.kept > max(1, path.counts[-1]):
            assert not bool(path.keeping(row.kept - 1)[row.name].any())
        assert row.compression == pytest.approx(path.total / row.kept)


@pytest.mark.parametrize("method", METHODS)
def test_points_are_the_librarys_critical_compressions(net, paths, method):
    points = experiments.collapse_points(net, {method: paths[method]}).set_index("criterion")
    for criterion in ("layer", "path"):
        scorer = tied if method == "ties" else method
        right = sf.critical_compression(net, scorer, criterion, input_shape=(2, 8, 8))
        assert points.loc[criterion, "kept"] == right.kept
        assert points.loc[criterion, "critical_compression"] == pytest.approx(right.compression)


def test_points_of_a_residual_network_by_trying_every_count():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner = nn.Linear(4, 3), nn.Linear(3, 3)
            self.last = nn.Linear(3, 2)

        def forward(self, x):
            x = self.first(x)
            return self.last(torch.relu(x + self.inner(x)))

    torch.manual_seed(0)
    net = Residual()
    probe = sf.PathProbe(net, (4,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "PathProbe", lambda model: probe)
        for seed in range(8):
            path = sf.trajectory(net, "random", seed=seed)
            points = experiments.collapse_points(net, {"random": path}).set_index("criterion")
            alive = [k for k in range(1, path.total + 1) if probe.connected(path.keeping(k))]
            assert points.loc["path", "kept"] == min(alive)


def test_a_network_that_was_never_connected_is_refused(paths):
    dead = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    path = sf.trajectory(dead, "random")
    probe = sf.PathProbe(dead)
    probe.connected = lambda masks: False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "PathProbe", lambda model: probe)
        with pytest.raises(ValueError, match="unpruned network is not connected"):
            experiments.collapse_points(dead, {"random": path})


def test_verdicts_are_those_of_is_collapsed(net, paths):
    compressions = [1, 3, 20, 50]
    table = experiments.collapse_verdicts(net, paths, compressions)
    assert len(table) == len(paths) * len(compressions)
    for row in table.itertuples():
        masks = paths[row.method].at(row.compression)
        assert row.kept == masks.kept
        assert row.empty_layers == len(masks.empty_layers())
        collapsed = sf.is_collapsed(net, masks, "path", input_shape=(2, 8, 8))
        assert row.connected != collapsed
    assert table["connected"].nunique() == 2


def test_layers_left_draws_a_cell_a_layer_and_hatches_the_empty_ones():
    table = pd.DataFrame({"method": ["snip"] * 3 + ["synflow"] * 3, "layer": [1, 2, 3] * 2})
    table["kept"] = [12_345, 0, 7, 950, 1_200_000, 45_000_000]
    ax = sf.figures.layers_left(table, {"snip": "no path"}).axes[0]
    words = [text.get_text() for text in ax.texts]
    assert words == ["12k", "0", "7", "950", "1.2M", "45M", "no path"]
    assert [patch.get_xy() for patch in ax.patches] == [(0.5, -0.5)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SNIP", "SynFlow"]
    with pytest.raises(ValueError, match="more than one row"):
        sf.figures.layers_left(pd.concat([table, table]))
