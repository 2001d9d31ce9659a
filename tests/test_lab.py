"""The course lab: its checks, what it counts and times, and what nbgrader is given to grade."""

import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction.experiments import lab

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))

import classroom  # noqa: E402
from pairs import BuildError  # noqa: E402

PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_points_are_those_of_the_solved_exercises():
    solved = [check.right for check in lab.CHECKS]
    table = lab.rubric([*solved[:3], None, len])
    assert table["points"].iloc[-1] == 24 and table["of"].iloc[-1] == 100
    assert table["graded"].tolist() == ["check"] * 5 + ["reader"] * 5 + [""]
    assert table["points"].tolist()[5:-1] == 5 * [""], "not NaN, which looks like a fault"


def test_a_mean_over_both_networks_is_told_what_it_lacks():
    said = lab.CHECKS[4](lambda table: table.groupby("method")["accuracy"].mean())
    assert "it returns a Series, which has no columns" in said


# ------------------------------------------------------------------------------ what is measured


def small(**options):
    return sf.models.conv((1, 8, 8), depth=4, width=8, batch_norm=True, seed=0, **options).eval()


def test_a_masked_network_executes_everything_and_a_cut_one_less():
    net, images = small(), torch.randn(4, 1, 8, 8)
    masks = {(m, c): sf.prune(net, m, c) for m in ("random", "synflow") for c in (10.0, 100.0)}
    table = lab.inference_times(net, masks, images, repeats=3)
    assert table["network"].tolist() == ["dense", "masked", "cut"] * 4
    times = table[["fastest", "low", "median", "high"]].to_numpy()
    assert (times > 0).all() and (np.diff(times) >= 0).all()
    work = table.pivot_table(index=["method", "compression"], columns="network", values="executed")
    dense = 64 * 9 * (8 + 64 + 64) + 10 * 512  # by hand: places, taps, channels
    assert (work["dense"] == dense).all() and (work["masked"] == dense).all()
    counted = table.groupby(["method", "compression"])["counted"].first()
    assert (work["cut"] < dense).any() and (work["cut"] >= counted).all()
    with pytest.raises(ValueError, match="repeats=0"):
        lab.inference_times(net, masks, images, repeats=0)


def test_the_network_that_is_timed_is_left_as_it_is():
    net = small()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    lab.inference_times(
        net, {("snip", 10.0): sf.prune(net, "random", 10)}, torch.randn(2, 1, 8, 8), 1
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_histograms_count_each_weight_once_and_kept_ones_alone():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    net[0].weight.data = torch.tensor([[-1.0, -0.5], [0.5, 1.0]])
    net[2].weight.data = torch.tensor([[100.0, 0.0]])
    masks = sf.Masks({"0.weight": net[0].weight > 0, "2.weight": torch.tensor([[True, False]])})
    table = lab.weight_histograms(net, {"mine": masks}, bins=2)
    rows = table.set_index(["method", "layer", "left"])["weights"]
    assert rows["dense", 1].tolist() == [2, 2] and rows["mine", 1].tolist() == [0, 2]
    assert rows["dense", 2].sum() == 2 and rows["mine", 2].tolist() == [0, 1]


def test_density_table_is_the_masks_own():
    net = small()
    masks = {("random", 10.0): sf.prune(net, "random", 10)}
    table = lab.density_table(masks)
    assert table["density"].tolist() == masks["random", 10.0].table()["density"].tolist()
    assert table["layer"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("scale", ["classroom", "colab", "paper"])
def test_every_scale_trains_the_assignment_s_table(scale, monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", scale)
    network, perceptron = lab.at_ten_percent().panels
    assert network.methods == perceptron.methods == sf.paper.FIVE
    assert network.alphas == perceptron.alphas == (0.0, 1.0)
    assert lab.over_densities().panel.alphas == (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    if scale != "classroom":
        assert (network.dataset, network.model) == ("cifar10", "vgg16")
        assert (perceptron.dataset, perceptron.model) == ("mnist", "fc")


@pytest.mark.in_turn
def test_the_masks_that_are_shown_are_those_that_are_trained():
    panel = lab.over_densities().panel
    net, data = panel.network()
    found = lab.masks_of(panel)
    assert len(found) == 30
    assert found["snip", 10.0] == sf.prune(net, "snip", 10, data.scoring_batch(seed=0), seed=0)


# ----------------------------------------------------------------------------------------- nbgrader


SCHEMA = {  # nbgrader's, version 3, as far as it is used here
    "schema_version": 3,
    "grade_id": r"[\w-]+",
    "cell_type": ("code", "markdown"),
    "grade": bool,
    "solution": bool,
    "locked": bool,
    "task": bool,
}


def assignment(path):
    common, solutions = classroom.prepared(nbformat.read(path, as_version=4))
    return common, solutions, classroom.for_nbgrader(common, solutions)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_assignment_has_nbgrader_s_metadata(path):
    common, solutions, found = assignment(path)
    nbformat.validate(found)
    assert not any("nbgrader" in cell.metadata for cell in common.cells)
    marked = [cell for cell in found.cells if "nbgrader" in cell.metadata]
    names = [cell.metadata.nbgrader.grade_id for cell in marked]
    assert len(names) == len(set(names)) >= len(solutions)
    for cell in marked:
        data = cell.metadata.nbgrader
        assert data.keys() - {"points"} == SCHEMA.keys()
        assert data.schema_version == 3 and re.fullmatch(SCHEMA["grade_id"], data.grade_id)
        assert data.cell_type == cell.cell_type and not data.task
        assert all(isinstance(data[name], bool) for name in ("grade", "solution", "locked"))
        assert ("points" in data) == data.grade and data.get("points", 1) >= 1
        # What is graded by running it is locked; what is written is not.
        assert data.locked != data.solution and (data.grade or data.solution)
        marks = re.findall(r"(?m)^### (BEGIN|END) SOLUTION$", cell.source)
        assert marks == (["BEGIN", "END"] if data.solution else [])
        assert ("assert said.endswith(" in cell.source) == (data.grade and not data.solution)
    graded = [cell for cell in marked if cell.metadata.nbgrader.grade]
    assert len(graded) == len(solutions)


def test_the_lab_s_points_are_those_of_its_rubric():
    cells = assignment(ROOT / "notebooks" / "09_course_lab.ipynb")[2].cells
    points = [c.metadata.nbgrader.get("points") for c in cells if "nbgrader" in c.metadata]
    rubric = lab.rubric([None] * 5)["of"]
    assert [p for p in points if p] == rubric.iloc[:-1].tolist()
    assert sum(p for p in points if p) == rubric.iloc[-1] == 100


def test_without_what_nbgrader_takes_out_no_solution_is_left():
    path = ROOT / "notebooks" / "09_course_lab.ipynb"
    found = assignment(path)[2]
    assert classroom.leaks(found, nbformat.read(path, as_version=4))
    for cell in found.cells:
        cell.source = re.sub(r"(?s)### BEGIN SOLUTION.*### END SOLUTION", "", cell.source)
    assert classroom.leaks(found, nbformat.read(path, as_version=4)) == []


def test_an_answer_in_words_must_follow_its_cell():
    fold = "<details><summary>Solution</summary>\n\nAbout 90.\n\n</details>"
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("**1.**", "*Your answer:*", fold)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    common, solutions = classroom.prepared(notebook)
    assert solutions == {1: ("", "About 90.")}
    teacher = classroom.instructor(common, solutions)
    assert [cell.source for cell in teacher.cells] == ["**1.**", "*Your answer:*", "About 90."]
    del notebook.cells[1]
    with pytest.raises(BuildError, match="does not follow"):
        classroom.prepared(notebook)


def test_the_rubric_of_a_notebook_in_which_an_answer_is_missing():
    answers = {"kept_weights": lambda w, m: w[m], "middle_half": None, "other": 3}
    table = lab.rubric(answers)
    assert table["points"].iloc[0] == table["of"].iloc[0] == table["points"].iloc[-1]
    with pytest.raises(ValueError, match="4 answers; expected 5: kept_weights, layer_densities"):
        lab.rubric([None] * 4)
