"""Figures 2 and 7 on VGG-19: what is recorded, and the programs that record it, on a small one."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction import paper
from synflow_lib.reproduction.experiments import schedules, vgg19
from synflow_lib.reproduction.recorded import recorded


@pytest.fixture
def small(monkeypatch):
    """A chain in place of VGG-19, and images of its size."""

    def network(seed=0):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        net = nn.Sequential(*layers, nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 1000))
        net.input_shape = (3, 8, 8)
        return net.eval()

    monkeypatch.setattr(vgg19, "network", network)
    monkeypatch.setattr(vgg19, "DOUBLINGS", range(5))
    monkeypatch.setattr(vgg19, "images", lambda source, count, *_: torch.randn(count, 3, 8, 8))
    return network


def test_a_longer_exponential_run_contains_shorter_ones():
    run = vgg19.FixedRun("exponential", 3.0, 60)
    inside = {(point.alpha, point.iterations) for point in run.points()}
    assert inside == {(0.5, 10), (1.0, 20), (1.5, 30), (2.0, 40), (2.5, 50), (3.0, 60)}
    assert vgg19.FixedRun("linear", 3.0, 60).points() == [vgg19.FixedRun("linear", 3.0, 60)]


def test_the_runs_hold_every_point_of_figure_7():
    points = [point for run in vgg19.fixed_runs() for point in run.points()]
    published = paper.figure7().query("log10_compression > 0 and iterations > 1")
    wanted = published[["schedule", "log10_compression", "iterations"]].itertuples(index=False)
    assert {(p.schedule, p.alpha, p.iterations) for p in points} == set(map(tuple, wanted))


@pytest.mark.in_turn
def test_figure_7_resumes_and_its_points_are_those_of_runs_of_their_own(small, tmp_path):
    file = tmp_path / "figure7.jsonl"
    vgg19.main(["--figure", "7", "--most", "10", "--results", str(tmp_path)])
    before = file.read_text()
    assert len(before.splitlines()) == 12
    vgg19.main(["--figure", "7", "--most", "20", "--results", str(tmp_path)])
    assert file.read_text().startswith(before)
    table = recorded("figure7", tmp_path)
    assert len(table) == 24
    for row in table.itertuples():
        history, layers, _ = schedules.fixed_run(
            small().double(), row.schedule, row.iterations, row.compression
        )
        assert row.ratio == pytest.approx(history["ratio"].max(), rel=1e-3)
        assert abs(row.kept - layers["kept"].sum()) <= 1


def test_figure_2_records_what_masks_keep(small, tmp_path):
    vgg19.main(["--figure", "2", "--folder", "x", "--images", "6", "--results", str(tmp_path)])
    table = recorded("figure2", tmp_path)
    net, count = small(), 5 + 1  # and rho_max
    sizes = [weight.numel() for weight in sf.prunable(net).values()]
    assert table.groupby(["method", "images"], dropna=False).size().tolist() == [3 * count] * 9
    assert table["layer_size"].tolist() == sizes * (9 * count)
    for compression in (1.0, 8.0):
        masks = sf.prune(net, "magnitude", compression)
        rows = table.query("method == 'magnitude' and compression == @compression")
        assert rows["kept"].tolist() == masks.table()["kept"].tolist()
        assert rows["density"].tolist() == masks.table()["density"].tolist()
    lines = (tmp_path / "figure2.jsonl").read_text()
    vgg19.main(["--figure", "2", "--folder", "x", "--images", "6", "--results", str(tmp_path)])
    assert (tmp_path / "figure2.jsonl").read_text() == lines  # nothing is done again
    assert {json.loads(line)["machine"]["device"] for line in lines.splitlines()} == {"cpu"}
    vgg19.main(["--figure", "2", "--folder", "x", "--images", "8", "--results", str(tmp_path)])
    more = recorded("figure2", tmp_path)  # six scorings see images, three do not
    assert len(more) == len(table) + 6 * 3 * count


@pytest.mark.parametrize("option", [["--images", "0"], ["--most", "5"]])
def test_what_would_do_nothing_is_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        vgg19.main(["--figure", "7", *option, "--results", str(tmp_path)])
    assert f"argument {option[0]}" in capsys.readouterr().err


def test_a_damaged_record_is_named(small, tmp_path):
    file = tmp_path / "figure7.jsonl"
    file.write_text('{"figure": 7')
    with pytest.raises(ValueError, match=r"line 1 of .*figure7\.jsonl is no recorded run"):
        vgg19.main(["--figure", "7", "--most", "10", "--results", str(tmp_path)])
    assert file.read_text() == '{"figure": 7'


# --------------------------------------------------------------------- what is committed


def test_recorded_layers_add_up_and_follow_the_published():
    table, published = recorded("figure2"), paper.figure2()
    table = table[(table["images"] != "noise") & (table["method"] != "early grasp")]
    kept = table.groupby(["method", "compression"])["kept"].sum().reset_index()
    assert (kept["kept"] - 143_652_544 / kept["compression"]).abs().max() <= 1
    # Those without data: two networks differ by what chance leaves in a layer.
    both = table.merge(
        published.assign(compression=2.0 ** published["doublings"]),
        on=["method", "compression", "layer"],
        suffixes=("", "_paper"),
    ).query("method in ['random', 'magnitude', 'synflow']")
    theirs = both["density_paper"] * both["layer_size"]
    assert len(both) >= 3 * 19 * 20
    # SynFlow goes there by another schedule, whose first steps are coarse.
    slack = np.where(both["method"] == "synflow", 0.15, 0.05)
    spread = 6 * np.sqrt(np.maximum(both["kept"], theirs)) + 6 + slack * theirs
    alike = (both["kept"] - theirs).abs() < spread
    assert alike[(both["method"] != "synflow") | (both["compression"] >= 8)].all()


def test_recorded_ratios_follow_the_published():
    ours, keys = recorded("figure7"), ["schedule", "compression", "iterations"]
    assert not ours.duplicated(keys).any()
    both = ours.merge(paper.figure7(), on=keys, suffixes=("", "_paper"))
    assert len(both) == len(ours)
    assert max(abs(math.log(r.ratio / r.ratio_paper)) for r in both.itertuples()) < 0.05
