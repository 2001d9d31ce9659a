"""Figures: what they show, that they are the same bytes each time, and what they refuse."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from synflow_lib.reproduction import figures, paper
from synflow_lib.reproduction.figures import FIVE, STYLES, save, styles, theme
from synflow_lib.reproduction.intervals import mean_interval


def fractions():
    rows = [
        {"method": m, "compression": 10.0**a, "layer": layer, "density": 10.0 ** -(a * layer)}
        for m in FIVE
        for a in range(4)
        for layer in (1, 2)
    ]
    table = pd.DataFrame(rows)
    dead = (table["method"] == "magnitude") & (table["layer"] == 2) & (table["compression"] > 10)
    return table.assign(density=table["density"].where(~dead, 0.0))


def criticals():
    return pd.DataFrame({"method": ["snip", "snip", "synflow"], "seed": [0, 1, 0]}).assign(
        critical_compression=[1e2, 1e4, 1e6]
    )


def units():
    rng = np.random.default_rng(0)
    incoming = rng.lognormal(size=60)
    table = pd.DataFrame({"layer": ["a", "b"] * 30, "unit": range(60), "incoming": incoming})
    return pd.concat(
        [
            table.assign(method="synflow", outgoing=incoming, max_relative_error=2e-16),
            table.assign(method="snip", outgoing=-incoming, max_relative_error=2.0),
        ]
    )


def history():
    kept = np.array([1000, 100, 10])
    return pd.DataFrame({"iteration": [1, 2, 3], "kept": kept, "compression": 1e4 / kept}).assign(
        prune_size=[0.9, 0.8, 0.7], cut_size=1.0
    )


DRAWN = {
    "layer_fractions": lambda t: figures.layer_fractions(t, 1e3, {"snip": 1e2}),
    "layers_by_compression": lambda t: figures.layers_by_compression(t, paper.figure2()),
    "unit_scores": lambda t: figures.unit_scores({"ours": t, "paper": t}),
    "critical_compressions": lambda t: figures.critical_compressions(t, 1e6),
    "conservation_scatter": figures.conservation_scatter,
    "layer_scores": lambda t: figures.layer_scores(t, paper.figure4("initialization")),
    "prune_ratio": lambda t: figures.prune_ratio(t, paper.figure7()),
    "cut_trajectory": lambda t: figures.cut_trajectory(t, 1e3),
    "accuracy_curves": lambda t: figures.accuracy_curves(t, paper.figure1(), {"snip": 1e3}),
    "grasp_correction": figures.grasp_correction,
    "residual_cuts": figures.residual_cuts,
    "fixed_schedule": lambda t: figures.fixed_schedule({0: t}, {0: True}, t),
    "schedule_densities": figures.schedule_densities,
}
TABLES = {
    "layer_fractions": fractions,
    "layers_by_compression": fractions,
    "unit_scores": lambda: paper.figure3().query("layer > 13"),
    "critical_compressions": criticals,
    "conservation_scatter": units,
    "layer_scores": lambda: paper.figure4("initialization").query("method == 'synflow'"),
    "prune_ratio": lambda: paper.figure7().query("compression == 1e3"),
    "cut_trajectory": history,
    "accuracy_curves": lambda: paper.figure1().query("log10_compression % 1 == 0"),
    "grasp_correction": lambda: pd.DataFrame(
        {"layer": [1, 2], "raw": [3.0, 1.0], "squares": [1.0, 3.0]}
    ),
    "residual_cuts": lambda: pd.DataFrame(
        {"cut": ["a + b", "c"], "size": [70.0, 33.0], "constants": [-37.0, 0.0], "total": 33.0}
    ),
    "fixed_schedule": lambda: pd.DataFrame({"compression": [1.1, 10.0, 1e3], "ratio": 0.5}),
    "schedule_densities": lambda: pd.DataFrame(
        {"compression": 10.0, "schedule": ["fixed", "fixed", "cut", "cut"], "density": 0.1}
    ),
}
NEEDED = {
    "layer_fractions": ["method", "compression", "layer", "density"],
    "layers_by_compression": ["method", "compression", "layer", "density"],
    "unit_scores": ["method", "layer", "incoming", "outgoing"],
    "critical_compressions": ["method", "seed", "critical_compression"],
    "conservation_scatter": ["method", "layer", "unit", "incoming", "outgoing"],
    "layer_scores": ["method", "layer", "layer_size", "mean_score"],
    "prune_ratio": ["schedule", "compression", "iterations", "ratio"],
    "cut_trajectory": ["iteration", "kept", "compression", "prune_size", "cut_size"],
    "accuracy_curves": ["method", "compression", "seed", "accuracy"],
    "grasp_correction": ["layer", "raw", "squares"],
    "residual_cuts": ["cut", "size", "constants", "total"],
    "fixed_schedule": ["compression", "ratio"],
    "schedule_densities": ["compression", "schedule", "density"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNFLOW_FIGURES", str(tmp_path))
    return tmp_path


def texts(fig):
    return [text.get_text() for text in fig.findobj(matplotlib.text.Text) if text.get_text()]


# What holds for every figure.


@pytest.mark.parametrize("name", DRAWN)
def test_figure_is_pure_labelled_and_inside_the_page(name):
    table = TABLES[name]()
    before, rc = table.copy(), dict(plt.rcParams)
    fig = DRAWN[name](table)
    assert isinstance(fig, Figure)
    pd.testing.assert_frame_equal(table, before)
    assert dict(plt.rcParams) == rc
    assert plt.get_fignums() == []  # nothing is left open to be shown a second time
    assert fig.get_figwidth() == 10
    labels = [ax.get_xlabel() for ax in fig.axes if ax.axison and ax.lines]
    assert fig.get_supxlabel() or all(labels)
    fig.draw_without_rendering()
    page = fig.bbox.padded(2)
    labels = [label for ax in fig.axes for label in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    for text in [*fig.texts, *labels, *(t for key in fig.legends for t in key.get_texts())]:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert page.x0 <= box.x0 and box.x1 <= page.x1, text
            assert page.y0 <= box.y0 and box.y1 <= page.y1, text


@pytest.mark.parametrize(("name", "column"), [(n, c) for n, cs in NEEDED.items() for c in cs])
def test_missing_column_is_named(name, column):
    table = TABLES[name]().drop(columns=column)
    with pytest.raises(ValueError, match=f"{name}.*lacks the column '{column}'"):
        DRAWN[name](table)


@pytest.mark.parametrize("name", DRAWN)
def test_empty_and_foreign_tables_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*no rows"):
        DRAWN[name](TABLES[name]().head(0))
    with pytest.raises(TypeError, match="expected a pandas DataFrame, got dict"):
        DRAWN[name]({})


def test_published_tables_are_checked_as_well():
    table = TABLES["prune_ratio"]()
    with pytest.raises(ValueError, match="published.*lacks the column 'ratio'"):
        figures.prune_ratio(table, table.drop(columns="ratio"))


# Styles.


def test_each_method_has_its_own_colour_marker_and_linestyle():
    assert FIVE == ("random", "magnitude", "snip", "grasp", "synflow")
    looks = list(styles([*STYLES, "mine", "other"]).values())
    for attribute in ("label", "color", "marker", "linestyle"):
        values = [getattr(style, attribute) for style in looks]
        assert len(set(values)) == len(values), attribute


def test_colours_are_seaborns_colorblind_palette():
    seaborn = pytest.importorskip("seaborn")
    palette = {to_hex(color) for color in seaborn.color_palette("colorblind")}
    assert {s.color for name, s in STYLES.items() if name != "dense"} <= palette


def test_styles_keep_the_projects_order_whatever_comes():
    assert list(styles(["mine", "synflow", "random"])) == ["random", "synflow", "mine"]


def test_theme_does_not_depend_on_the_users_settings():
    with plt.rc_context({"font.size": 40, "axes.facecolor": "black"}), theme():
        assert plt.rcParams["font.size"] == 11
        assert plt.rcParams["axes.facecolor"] == "white"


# What single figures show.


def test_layer_fractions_mark_the_last_point_before_a_layer_is_empty():
    axes = dict(zip(FIVE, figures.layer_fractions(fractions()).axes, strict=False))
    crosses = {
        method: [line for line in ax.lines if line.get_marker() == "x"]
        for method, ax in axes.items()
    }
    assert {method: len(found) for method, found in crosses.items()} == {
        method: int(method == "magnitude") for method in FIVE
    }
    assert crosses["magnitude"][0].get_xydata().tolist() == [[10.0, 0.01]]


def test_layer_fractions_need_one_seed():
    with pytest.raises(ValueError, match="more than one row"):
        figures.layer_fractions(pd.concat([fractions(), fractions()]))


def test_layer_fractions_take_names_in_order_of_appearance():
    named = fractions().assign(layer=lambda t: t["layer"].map({1: "z.weight", 2: "a.weight"}))
    lines = [
        [line.get_ydata().tolist() for line in figures.layer_fractions(table).axes[0].lines]
        for table in (named, fractions())
    ]
    assert lines[0] == lines[1]


def test_layers_by_compression_draw_the_paper_only_where_ours_is():
    table = fractions().query("compression <= 10 and method in ['magnitude', 'snip']")
    published = paper.figure2()
    near = np.isclose(published["compression"], 10, rtol=0.1)
    published.loc[near, "compression"] = 10.4
    magnitude, snip = figures.layers_by_compression(table, published).axes[:2]
    assert [len(line.get_xdata()) for line in snip.lines] == [2, 0, 2, 0, 19]  # not at 2^3 = 8
    assert magnitude.get_title() == "Magnitude"
    gone = fractions().query("method == 'magnitude' and compression == 100")
    cross = figures.layers_by_compression(gone).axes[0].lines[1]
    assert list(cross.get_xdata()) == [2]


def test_unit_scores_say_how_far_apart_the_sums_are():
    axes = figures.unit_scores({"paper": paper.figure3()}).axes
    assert [ax.get_title() for ax in axes[:2]] == ["Random, paper", "Magnitude, paper"]
    assert axes[3].get_xlabel() == "incoming\ndiffer by 0.014"
    assert "10^{32}" in axes[4].get_xlabel() and axes[4].get_ylim()[1] < 10


def test_critical_compressions_write_the_geometric_mean():
    shown = texts(figures.critical_compressions(criticals()))
    assert "$10^{3}$" in shown
    assert "$10^{6}$" in shown


def test_scatter_draws_negative_sums_open_and_counts_zeros():
    table = units()
    table.loc[(table["unit"] == 0) & (table["method"] == "snip"), "outgoing"] = 0.0
    fig = figures.conservation_scatter(table)
    snip, synflow = fig.axes[:2]
    filled, open_ = snip.collections
    assert (len(filled.get_offsets()), len(open_.get_offsets())) == (0, 59)
    assert open_.get_facecolor().size == 0
    assert len(synflow.collections[0].get_offsets()) == 60
    shown = "\n".join(texts(fig))
    assert "59 negative and 1 zero of 60 units" in shown
    assert r"max. relative error $2\times10^{-16}$" in shown


def test_scatter_refuses_a_method_with_nothing_to_draw():
    with pytest.raises(ValueError, match="'synflow' have a zero sum"):
        figures.conservation_scatter(units().query("method == 'synflow'").assign(incoming=0.0))


def test_layer_scores_show_both_slopes():
    published = paper.figure4("initialization")
    ours = published.assign(mean_score=1.0)
    fig = figures.layer_scores(ours, published)
    legends = [[t.get_text() for t in ax.get_legend().get_texts()] for ax in fig.axes[:5]]
    assert legends[0] == ["ours: slope 0.000", "paper: slope 0.001"]
    assert legends[1] == ["ours: slope 0.000", "paper: slope 0.201"]
    assert legends[4] == ["ours: slope 0.000", "paper: slope 1.000"]


def test_layer_scores_tell_states_of_the_network_apart():
    fig = figures.layer_scores(paper.figure4().query("method == 'snip'"))
    shown = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert shown == ["initialization: slope 0.556", "pretrained: slope 0.556"]


def test_prune_ratio_has_a_line_per_compression_and_the_bound():
    published = paper.figure7()
    fig = figures.prune_ratio(published.query("schedule == 'linear'"), published)
    linear, exponential = fig.axes
    assert (len(linear.lines), len(exponential.lines)) == (6 + 6 + 1, 6 + 1)
    assert all(1.0 in ax.lines[-1].get_ydata() for ax in (linear, exponential))
    with pytest.raises(ValueError, match="nothing was pruned"):
        figures.prune_ratio(published.query("compression == 1"))


def test_cut_trajectory_of_several_networks():
    both = pd.concat([history().assign(network=n) for n in ("VGG-11", "VGG-16")])
    left, right = figures.cut_trajectory(both, {"VGG-11": 1e3}).axes
    shown = [text.get_text() for text in left.get_legend().get_texts()]
    assert shown == [r"VGG-11, $\rho_{max}$ = $10^{3}$", "VGG-16"]
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.9, 0.8, 0.7])
    with pytest.raises(ValueError, match="collapsed"):
        figures.cut_trajectory(history().assign(cut_size=0.0))


def test_interval_is_students_t():
    rows = paper.figure1().query("method == 'synflow' and compression == 1e2")
    row = mean_interval(rows).iloc[0]
    accuracy = rows["accuracy"].to_numpy()
    half = 4.302652729911275 * accuracy.std(ddof=1) / np.sqrt(3)  # t(0.975) with 2 degrees
    assert row["high"] - row["mean"] == pytest.approx(half)
    assert mean_interval(rows.head(1))[["low", "high"]].isna().all(axis=None)


def test_accuracy_panels_follow_the_table():
    table = paper.figure6().query("model in ['vgg16_bn', 'resnet18'] and dataset != 'cifar100'")
    fig = figures.accuracy_curves(table, paper.figure6())
    assert [ax.get_title() for ax in fig.axes] == ["VGG-16 (BN)", "ResNet-18"] * 2
    assert fig.axes[2].get_ylabel().startswith("Tiny ImageNet")
    assert [len(ax.lines) for ax in fig.axes] == [10] * 4
    alone = figures.accuracy_curves(table.query("dataset == 'cifar10'").drop(columns="dataset"))
    assert [ax.get_title() for ax in alone.axes] == ["VGG-16 (BN)", "ResNet-18"]


# Saving.


@pytest.mark.in_turn
@pytest.mark.parametrize("name", ["layer_fractions", "conservation_scatter"])
def test_saved_twice_or_made_anew_the_bytes_are_equal(name, folder):
    table = TABLES[name]()
    fig = DRAWN[name](table)
    paths = save(fig, "fig", table)
    assert [path.name for path in paths] == ["fig.png", "fig.svg", "fig.csv"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in save(fig, "fig", table)] == first
    assert [path.read_bytes() for path in save(DRAWN[name](table), "fig", table)] == first
    assert sorted(path.name for path in folder.iterdir()) == ["fig.csv", "fig.png", "fig.svg"]
    # Negative control: bytes that could not change would prove nothing.
    other = save(DRAWN[name](table.iloc[:-1]), "fig", table.iloc[:-1])
    assert all(path.read_bytes() != old for path, old in zip(other, first, strict=True))


def test_saved_files_hold_no_date_or_version(folder):
    png, svg = save(Figure(), "empty")
    assert b"dc:date" not in svg.read_bytes()
    assert b"Matplotlib" not in png.read_bytes() + svg.read_bytes()


def test_data_has_six_digits_and_no_index(folder):
    data = pd.DataFrame({"compression": [1051113.142857], "kept": [14]}, index=[7])
    assert save(Figure(), "fig", data)[2].read_text() == "compression,kept\n1.05111e+06,14\n"


# What a table may hold.


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("accuracy", "90 %", "'accuracy' holds '90 %'; expected numbers"),
        ("accuracy", np.nan, "'accuracy' holds no finite number"),
        ("accuracy", [9.0, np.inf], "'accuracy' holds an infinite number"),
        ("compression", "10", "'compression' holds '10'; expected numbers"),
        ("compression", 0.0, "'compression' holds 0.0; expected N / kept"),
        ("compression", np.nan, "'compression' holds no finite number"),
        ("method", None, "'method' has gaps"),
    ],
)
def test_what_is_no_number_or_no_name_is_named(column, value, told):
    table = pd.DataFrame({"method": "snip", "compression": [1.0, 10.0], "seed": 0, "accuracy": 9.0})
    with pytest.raises(ValueError, match=f"accuracy_curves: the column {told}"):
        figures.accuracy_curves(table.assign(**{column: value}))


def test_a_gap_in_a_place_is_no_point_left_out():
    table = fractions()
    with pytest.raises(ValueError, match="'compression' has gaps"):
        figures.layer_fractions(
            table.assign(compression=table["compression"].where(table.index > 0))
        )
    with pytest.raises(ValueError, match=r"'density' holds 50.0; expected shares from 0 to 1"):
        figures.layer_fractions(table.assign(density=50.0))


def test_kinds_of_columns_do_not_change_a_figure():
    table = paper.figure1().query("log10_compression % 2 == 0")
    method = pd.Categorical(table["method"], categories=[*FIVE, "unused"])
    other = table.assign(method=method, accuracy=table["accuracy"].astype(object))
    other = other.astype({"compression": "Float64"}).set_index(pd.Index(table["method"]))
    first, second = figures.accuracy_curves(table), figures.accuracy_curves(other)
    for ax, same in zip(first.axes, second.axes, strict=True):
        for line, twin in zip(ax.lines, same.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), twin.get_xydata())
    with pytest.raises(ValueError, match="more than one column 'accuracy'"):
        figures.accuracy_curves(pd.concat([table, table["accuracy"]], axis=1))


def test_a_quantity_of_any_name_may_be_in_percent():
    rows = {"network": "fc", "state": ["before", "after"], "layer": 1, "density": [100.0, 59.4]}
    assert figures.layer_profiles(pd.DataFrame(rows), {"density": "percent"}).axes


def test_every_layer_may_be_empty():
    assert figures.layer_fractions(fractions().assign(density=0.0)).axes
    assert figures.layers_by_compression(fractions().assign(density=0.0)).axes


def test_tables_that_do_not_fit_together_are_refused():
    rows = paper.figure3().query("layer > 13")
    with pytest.raises(ValueError, match="the same methods in all"):
        figures.unit_scores({"a": rows, "b": rows.query("method == 'snip'")})
    with pytest.raises(ValueError, match="at least one table"):
        figures.unit_scores({})
    left = pd.DataFrame({"method": ["snip", "snip", "grasp"], "layer": [1, 2, 1], "kept": 3})
    with pytest.raises(ValueError, match="a method lacks a layer"):
        figures.layers_left(left)
    times = pd.DataFrame({"method": "snip", "compression": 10.0, "network": ["dense", "cut"]})
    with pytest.raises(ValueError, match="'dense', 'masked' and 'cut'"):
        figures.inference_times(
            times.assign(fastest=1.0, executed=9, counted=3, disconnected=False)
        )
    race = pd.DataFrame({"method": ["snip", "snip", "grasp"], "compression": [1.0, 4.0, 1.0]})
    with pytest.raises(ValueError, match="the same compressions for all methods"):
        figures.race_view(race.assign(layer=1, kept=3, density=0.5), 1, 8.0)
    collapse = pd.DataFrame({"method": "snip", "network": "fc", "iterations": [1, 10]})
    with pytest.raises(ValueError, match="limits lacks the network 'fc'"):
        figures.iteration_collapse(collapse.assign(critical_compression=1e2), {"conv": 1e4})
    run = pd.DataFrame({"compression": [1.1, 10.0], "ratio": 0.5})
    with pytest.raises(ValueError, match="lost lacks the seed 0"):
        figures.fixed_schedule({0: run}, {1: True}, run)
    density = pd.DataFrame({"compression": 10.0, "schedule": ["Fixed", "cut"], "density": 0.1})
    with pytest.raises(ValueError, match=r"schedules \['Fixed'\]; expected 'fixed' and 'cut'"):
        figures.schedule_densities(density)


def test_a_step_takes_masks_of_ones_and_refuses_other_shapes():
    kept, going = np.array([[1, 1]]), np.array([[1, 0]])
    assert figures.step_view([kept], [[[1.0, 3.0]]], [going], "cut", 4.0).axes
    with pytest.raises(ValueError, match="expected equal ones"):
        figures.step_view([kept], [[[1.0, 3.0, 5.0]]], [going], "cut", 4.0)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", None])
def test_save_refuses_names(name, folder):
    with pytest.raises(ValueError, match="name is"):
        save(Figure(), name)
    assert list(folder.iterdir()) == []


def test_save_refuses_what_is_no_figure_or_table(folder):
    with pytest.raises(TypeError, match="matplotlib Figure"):
        save(plt, "x")
    with pytest.raises(TypeError, match="DataFrame or None"):
        save(Figure(), "x", {"a": 1})


# In a notebook.


def test_a_notebook_shows_a_figure_once_and_still_shows_the_users_own():
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    cells = [
        "from synflow_lib import figures, paper",
        "fig = figures.prune_ratio(paper.figure7())",
        "fig",
        "import matplotlib.pyplot as plt; _ = plt.plot([1, 2])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    root = str(Path(figures.__file__).parents[2])
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": root}}).execute()
    shown = [
        sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in notebook.cells
    ]
    assert shown == [0, 0, 1, 1]


def test_a_curve_far_above_the_published_one_stays_inside():
    table = pd.DataFrame({"method": "synflow", "compression": [1e3, 1e4], "seed": 0})
    ours, theirs = table.assign(accuracy=[72.0, 50.0]), table.assign(accuracy=[40.0, 10.0])
    assert figures.accuracy_curves(ours, theirs).axes[0].get_ylim()[1] > 72
    assert figures.accuracy_curves(theirs, ours).axes[0].get_ylim()[1] > 72
