"""Explorers: pictures that follow their controls, without a browser."""

import asyncio
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import synflow_lib as sf
from synflow_lib.reproduction.explore import learning, pruned, racing, stepping
from synflow_lib.reproduction.explore.explorer import png
from synflow_lib.reproduction.figures.drawn import draw_weights, places

EXPLORERS = {
    "collapse": lambda: sf.explore.collapse(),
    "steps": lambda: sf.explore.steps(),
    "race": lambda: sf.explore.race("small"),
    "training": lambda: sf.explore.training(),
}
FAMILIES = {
    "collapse": pruned.COLLAPSE,
    "steps": stepping.STEPS,
    "race": racing.RACE,
    "training": learning.TRAINING,
}


@pytest.fixture(scope="module", params=EXPLORERS)
def box(request):
    return EXPLORERS[request.param]()


def test_importing_the_library_imports_no_widgets():
    code = (
        "import sys, synflow_lib as sf\n"
        "assert not {'ipywidgets', 'synflow_lib.reproduction.explore'} & set(sys.modules)\n"
        "sf.explore.steps_picture()\n"
        "assert 'ipywidgets' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_attribute_is_still_an_error():
    with pytest.raises(AttributeError, match="explorer"):
        sf.explorer


def test_without_ipywidgets_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        sf.explore.race("small")
    assert sf.explore.race_picture("small").axes


def test_the_slider_changes_picture_and_words(box):
    stop = box.controls["stop"]
    seen = set()
    stops = {*stop.options[:3], *stop.options[-2:]}
    for _, value in stops:
        stop.value = value
        seen.add((box.picture.value, box.status.value))
    pictures, words = zip(*seen, strict=True)
    assert len(set(words)) == len(set(pictures)) == len(stops) >= 4


def test_every_control_is_described_and_answers_when_let_go(box):
    for control in box.controls.values():
        assert control.description
    assert box.controls["stop"].continuous_update is False


def test_the_picture_has_its_words_as_text_alternative(box):
    alt = re.search(r'alt="([^"]+)"', box.picture.value)[1]
    told = re.search(r'<p class="synflow-status"[^>]*>(.+)</p>', box.status.value)[1]
    assert alt == told.replace('"', "&quot;")


@pytest.mark.in_turn
def test_each_choice_changes_the_picture():
    box = sf.explore.collapse(method="synflow")
    for name, value in (("schedule", "cut"), ("method", "random"), ("network", "perceptron")):
        before = box.picture.value
        box.controls[name].value = value
        assert box.picture.value != before, name
    assert "The cut schedule is SynFlow" in box.status.value
    assert box.controls["stop"].options[-1][0] == "7,900"  # not 7.9e+03


def test_words_agree_with_masks_counted_here():
    made = pruned.family("small", "random")
    net = pruned.SUBJECTS["small"].network
    for stop, compression in enumerate(made.stops):
        masks, verdict = made.masks(stop), made.verdict(stop)
        assert verdict.kept == masks.kept == max(1, round(280 / compression))
        assert verdict.empty == len(masks.empty_layers())
        assert verdict.connected != sf.is_collapsed(net, masks, "path")
    assert not verdict.connected  # else the above has said little


def test_drawn_paths_are_kept_and_dead_ends_exist():
    made = pruned.family("small", "magnitude")
    pairs = made.drawing(7)
    assert all((alive <= kept).all() for kept, alive in pairs)
    assert any((alive != kept).any() for kept, alive in pairs)


@pytest.mark.parametrize("method, lawful", [("synflow", True), ("magnitude", False)])
def test_conservation_after_pruning(method, lawful):
    units = pruned.family("small", method).units(4)
    assert (units["max_relative_error"].iloc[0] < 1e-4) == lawful


def test_random_scores_of_pruned_weights_do_not_count():
    made = pruned.family("small", "random")
    assert (made.units(len(made.stops) - 1)["incoming"] == 0).any()


def test_the_network_is_as_it_was():
    before = {k: v.clone() for k, v in pruned.SUBJECTS["small"].network.state_dict().items()}
    pruned.family("small", "grasp", "linear", 10).units(3)
    for name, value in pruned.SUBJECTS["small"].network.state_dict().items():
        assert value.equal(before[name])


def test_steps_remove_what_the_next_one_lacks():
    way = stepping.walk("linear", 3)
    for now, later in zip(way, way[1:], strict=False):
        for kept, going, left in zip(now.weights, now.going, later.weights, strict=True):
            np.testing.assert_array_equal(kept & ~going, left)


def test_every_layer_carries_the_cut_and_what_goes_scores_least():
    for schedule in ("cut", "exponential"):
        for step in stepping.walk(schedule, 6):
            for scores in step.scores:
                np.testing.assert_allclose(scores.sum(), step.cut, rtol=1e-9)
            rest = [
                s[w & ~g] for s, w, g in zip(step.scores, step.weights, step.going, strict=True)
            ]
            gone = [s[g] for s, g in zip(step.scores, step.going, strict=True)]
            assert np.concatenate(gone).max() <= np.concatenate(rest).min()


def test_theorem_3_is_kept_by_cut_and_broken_by_one_shot():
    assert all(step.removed < step.cut for step in stepping.walk("cut"))
    [only] = stepping.walk("exponential", 1)
    assert only.removed > only.cut


def test_the_race_names_who_broke_and_when():
    last = len(pruned.SUBJECTS["small"].stops) - 1
    table = racing.runners("small", last)
    broken = set(table.loc[table["kept"] == 0, "method"])
    told = racing.race_words("small", last)
    assert "SynFlow" in told.partition("Still whole")[2]
    for method in broken:
        assert sf.figures.STYLES[method].label in told.partition("Still whole")[0]


def test_pictures_are_the_explorers_own_and_the_same_each_time():
    choice = {"network": "small", "method": "magnitude", "schedule": "exponential"}
    frame = pruned.COLLAPSE.frame(6, **choice, iterations=1)
    again = png(sf.explore.collapse_picture(compression=10))
    assert frame.png == again == png(sf.explore.collapse_picture(compression=10))


@pytest.mark.parametrize(
    "picture",
    [
        lambda: sf.explore.collapse_picture(),
        lambda: sf.explore.collapse_picture("perceptron"),
        lambda: sf.explore.race_picture("small"),
        lambda: sf.explore.steps_picture(),
        lambda: sf.explore.training_picture(),
    ],
)
def test_axes_are_labelled(picture):
    for ax in picture().axes[:2]:
        assert ax.get_xlabel() or ax.get_ylabel()


def test_five_methods_differ_in_colour_and_marker():
    figure = sf.explore.race_picture("small", 0)
    lines = figure.legends[0].get_lines()[:5]
    assert len({line.get_color() for line in lines}) == 5
    assert len({line.get_marker() for line in lines}) == 5


def test_lines_of_a_drawn_network():
    ax = sf.explore.steps_picture(phase="score").axes[0]
    assert sum(len(c.get_segments()) for c in ax.collections) == 44
    mask = np.array([[True, False], [True, True]])
    assert draw_weights(ax, [mask], 1.0) == 3
    assert places([3])[0][:, 1].tolist() == [-1, 0, 1]
    with pytest.raises(ValueError, match="2 outputs .* 3"):
        draw_weights(ax, [mask, np.ones((1, 3), bool)], 1.0)


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: sf.explore.collapse("vgg"), "vgg16"),
        (lambda: sf.explore.collapse(method="sinp"), "'snip'"),
        (lambda: sf.explore.collapse(method="snip", schedule="cut"), "'exponential', 'linear'"),
        (lambda: sf.explore.collapse(iterations=7), "1, 10, 100"),
        (lambda: sf.explore.collapse("vgg16", iterations=100), "1, 10"),
        (lambda: sf.explore.collapse_picture(compression=71), "N / L = 70"),
        (lambda: sf.explore.collapse_picture(compression=float("nan")), "N / L = 70"),
        (lambda: sf.explore.collapse_picture(compression="10"), "number"),
        (lambda: sf.explore.race("fc"), "perceptron"),
        (lambda: sf.explore.race_picture("small", 99), "0 to 11"),
        (lambda: sf.explore.steps("cuts"), "'cut'"),
        (lambda: sf.explore.steps(iterations=True), "1, 3, 6"),
        (lambda: sf.explore.steps_picture(99), "1 to 4"),
        (lambda: sf.explore.steps_picture(phase="cull"), "'prune'"),
        (lambda: sf.explore.training("sinp"), "'snip'"),
        (lambda: sf.explore.training(compression=31), "1, 3, 10, 30"),
        (lambda: sf.explore.training("snip", schedule="cut"), "'one shot', 'exponential'"),
        (lambda: sf.explore.training_picture(epoch=4), "0, 1, 2, 3"),
        (lambda: sf.explore.training_picture(past=["snip"]), "(method, compression, schedule)"),
        (lambda: sf.explore.training_picture(past=[("snip", 30, "cuts")]), "'linear'"),
    ],
)
def test_bad_input_names_the_remedy(call, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        call()


def test_figures_refuse_tables_without_their_columns():
    with pytest.raises(ValueError, match="compression"):
        sf.figures.race_view(pd.DataFrame({"method": ["snip"]}), 0, 2.0)


@pytest.mark.in_turn
@pytest.mark.parametrize("made", [sf.explore.steps_animation, sf.explore.race_animation])
def test_animations_are_small_and_alone(made):
    page = made().data
    assert 10_000 < len(page) < 300_000
    assert page.count("data:image/png;base64,") >= 10
    assert "http" not in page and "fa-" not in page  # nothing is fetched
    assert re.search(r'<img alt="[^"]+"', page)


@pytest.mark.in_turn
def test_an_animation_made_twice_is_the_same_page():
    schedules = ("cut", "cut", "linear")
    first, again, other = (sf.explore.steps_animation(each).data for each in schedules)
    assert first == again  # matplotlib alone would name each player anew
    names = [set(re.findall(r"[0-9a-f]{32}", page)) for page in (first, other)]
    assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1]


# A state in which each thing to look for is found, and one in which it is not.
small = {"network": "small", "schedule": "exponential", "iterations": 1}
easy = {"compression": 10, "schedule": "one shot", "past": ()}
snip_once = ("snip", 100, "one shot")
synflow_often = {"method": "synflow", "compression": 100, "schedule": "exponential"}
STATES = {
    ("collapse", 0): (small | {"method": "random"}, 7, 2),
    ("collapse", 1): (small | {"method": "snip"}, 11, 5),
    ("collapse", 2): (small | {"method": "snip", "iterations": 10}, 11, 2),
    ("race", 0): ({"network": "perceptron"}, 12, 14),
    ("race", 1): ({"network": "perceptron"}, 14, 12),
    ("race", 2): ({"network": "small"}, 11, 10),
    ("steps", 0): ({"schedule": "exponential", "iterations": 1}, 2, 1),
    ("steps", 1): ({"schedule": "exponential", "iterations": 3}, 7, 3),
    ("steps", 2): ({"schedule": "cut", "iterations": 1}, 15, 3),
    ("training", 0): (easy | {"method": "snip"}, 3, 2),
    ("training", 1): (easy | {"method": "snip", "compression": 100}, 3, 0),
    ("training", 2): (synflow_often | {"past": (snip_once,)}, 3, 1),
}


@pytest.mark.parametrize("explorer, number", STATES)
def test_what_to_look_for_is_found_where_it_is(explorer, number):
    task = FAMILIES[explorer].tasks[number]
    state, there, elsewhere = STATES[explorer, number]
    assert task.found(there, **state)
    assert not task.found(elsewhere, **state)


def test_each_explorer_asks_for_three_things(box):
    assert box.tasks.value.count("<li>") == 3
    assert 'role="list"' in box.tasks.value and 'aria-live="polite"' in box.tasks.value


def test_what_was_found_is_ticked_and_stays_so():
    box = sf.explore.collapse(method="random")
    box.controls["stop"].value = 2
    assert "Found" not in box.tasks.value
    box.controls["stop"].value = 7
    assert "☑ <b>Found:</b> a network that is disconnected" in box.tasks.value
    box.controls["stop"].value = 2
    assert box.tasks.value.count("Found") == 1


def test_only_what_is_looked_at_is_drawn(monkeypatch):
    drawn = []
    show = pruned.COLLAPSE.show
    monkeypatch.setattr(
        pruned.COLLAPSE, "show", lambda stop, **state: drawn.append(stop) or show(stop, **state)
    )
    pruned.COLLAPSE.frame.cache_clear()
    box = sf.explore.collapse()
    assert drawn == [6]
    box.controls["network"].value = "perceptron"
    assert len(drawn) == 2
    box.controls["stop"].value = 0
    assert drawn[2:] == [0]


def test_a_kernel_at_rest_draws_the_other_stops_ahead():
    async def rest():
        sf.explore.steps("linear", 3)
        before = stepping.STEPS.frame.cache_info().currsize
        for _ in range(100):
            await asyncio.sleep(0.1)
            if stepping.STEPS.frame.cache_info().currsize - before == 11:
                return True

    stepping.STEPS.frame.cache_clear()
    assert asyncio.run(rest())


def test_a_curve_grows_by_the_epoch_and_ends_as_train_says():
    box, seen = sf.explore.training("snip", 30, "one shot"), []
    box.status.observe(lambda change: seen.append(change["new"]), "value")
    box.controls["compression"].value = 100
    epochs = [int(n) for text in seen for n in re.findall(r"after epoch (\d) of 3", text)]
    assert epochs == [0, 1, 2, 3]
    digits = sf.data.digits()
    net = sf.models.fc(digits.input_shape, batch_norm=True, seed=0)
    masks = sf.prune(net, "snip", 100, batch=digits.scoring_batch(10))
    expected = sf.train(net, masks, digits, learning.RECIPE).top1
    assert f"{expected:.1f} percent right after epoch 3" in box.status.value
    assert "disconnected" in box.status.value and sf.is_collapsed(net, masks, "path")


@pytest.mark.in_turn
def test_the_last_five_choices_stand_beside_the_present_one(monkeypatch):
    monkeypatch.setattr(learning.TRAINING, "plays", False)
    box = sf.explore.training("random", 1, "one shot")
    for compression in (3, 10, 30, 100, 300, 1000):
        box.controls["compression"].value = compression
    told = box.status.value.partition("Before that: ")[2]
    assert re.findall(r"Random, ([\d,]+), one shot", told) == ["300", "100", "30", "10", "3"]
    box.controls["compression"].value = 100  # one of them again
    told = box.status.value.partition("Before that: ")[2]
    assert re.findall(r"Random, ([\d,]+), one shot", told) == ["1,000", "300", "30", "10", "3"]


def test_a_schedule_that_a_method_lacks_is_replaced_and_said():
    box = sf.explore.training("synflow", 30, "cut")
    box.controls["method"].value = "snip"
    assert "The cut schedule is SynFlow" in box.status.value
    assert "SNIP, 30, exponential: 1,580 of 47,400 weights" in box.status.value


def test_one_choice_under_two_schedules_is_one_curve():
    past = [("snip", 30, "exponential"), ("random", 30, "one shot")]
    figure = sf.explore.training_picture("snip", 30, "exponential", past=past)
    assert len(figure.axes[0].get_lines()) == 2
