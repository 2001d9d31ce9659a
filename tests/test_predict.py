"""Guesses before a cell runs: by widget, by argument, none, and what is no answer."""

import doctest
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import synflow_lib as sf
from synflow_lib.reproduction import predict


def number(**how):
    return predict.Number("How much?", 0, 100, "percent", **how)


def curve(**how):
    return predict.Curve("How accurate?", [10, 100], 0, 100, "percent", **how)


def test_examples():
    failed, tried = doctest.testmod(predict)
    assert tried and not failed


@pytest.mark.parametrize("mine", [30, 30.0, np.float32(30), np.int64(30), torch.tensor(30.0)])
def test_a_number_of_any_kind_is_a_guess_and_a_measurement(mine):
    assert number(mine=mine).value == 30
    assert "apart:      0 percent" in number(mine=30).beside(mine)


@pytest.mark.parametrize("mine", ["30", True, float("nan"), [1, 2], torch.ones(2), 101, -1, 3j])
def test_nonsense_is_refused_with_a_sentence(mine):
    with pytest.raises(ValueError, match="mine=.*expected"):
        number(mine=mine)


@pytest.mark.parametrize("mine", [3, "ab", [1], [1, 2, 3], [1, "b"], {}, torch.ones(2, 2)])
def test_what_is_no_curve_is_refused(mine):
    with pytest.raises(ValueError, match="mine=.*expected"):
        curve(mine=mine)


def test_a_series_is_a_curve_by_place():
    assert curve(mine=pd.Series({100: 20.0, 10: 90.0})).value == [90, 20]
    assert curve(mine=pd.Series([90.0, 20.0])).value == [90, 20]


def test_a_choice_is_one_of_its_options():
    guess = predict.Choice("Which?", ["SNIP", 100])
    guess.value = 100
    assert "not at all" in guess.beside("100")
    assert "another" in guess.beside("SNIP")
    with pytest.raises(ValueError, match="expected one of: SNIP; 100"):
        guess.value = "snip"


@pytest.mark.parametrize(
    "guess, measured",
    [
        (number(), 12.0),
        (curve(), np.array([90.0, 20.0])),
        (predict.Choice("Which?", ["a", "b"]), "b"),
    ],
)
def test_no_guess_is_allowed(guess, measured, capsys):
    assert "no guess was made" in guess.beside(measured)
    guess._ipython_display_()
    assert "write mine=..." in capsys.readouterr().out
    assert guess.value is None


def test_what_is_counted_is_guessed_in_whole_numbers():
    [slider] = predict.Number("How many layers?", 0, 21, step=1).widget().controls
    sliders = predict.Curve("Of 4?", [10, 100], 0, 4, step=1).widget().controls
    assert {each.step for each in (slider, *sliders)} == {1}
    [slider] = predict.Number("Which share?", 0, 1).widget().controls
    assert slider.step == 0.01


def test_a_measurement_may_lie_outside_of_the_range():
    assert "measured:   120 percent" in number(mine=90).beside(120)


def test_on_a_logarithmic_axis_the_distance_is_a_factor():
    guess = predict.Number("When?", 1, 1e6, log=True, mine=10)
    assert "a factor of 20" in guess.beside(200) and "10" in guess.beside(0)


def test_a_slider_answers_and_shows_an_answer_that_is_there():
    for guess in (number(), predict.Number("When?", 1, 1e6, log=True)):
        box = guess.widget()
        assert guess.value is None and "no guess yet" in box.children[1].value
        box.controls[0].value = 30
        assert guess.value == 30 and "your guess: 30" in box.children[1].value
        box.controls[0].value = 1e9  # as far as it goes
        assert guess.value == guess.high
        assert guess.widget().controls[0].value == pytest.approx(guess.high)


def test_a_list_answers_and_takes_it_back():
    guess = predict.Choice("Which?", ["a", "b"])
    (control,) = guess.widget().controls
    control.value = "b"
    assert guess.value == "b"
    control.value = None
    assert guess.value is None


def test_sliders_sketch_a_curve():
    guess = curve()
    controls = guess.widget().controls
    assert [control.description for control in controls] == ["10", "100"]
    controls[0].value = 90
    assert guess.value == [90, 50]
    assert [control.value for control in guess.widget().controls] == [90, 50]
    assert "apart:      1 percent; 20 percent" in guess.beside([91, 30])


def test_without_ipywidgets_the_question_is_shown_all_the_same(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    number()._ipython_display_()
    assert "How much? (0 to 100 percent)" in capsys.readouterr().out


def test_a_guess_is_drawn_and_none_is_not():
    ax = Figure().subplots()
    for guess in (number(), curve()):
        guess.draw(ax)
    assert not ax.lines and not ax.texts
    number(mine=3).draw(ax)
    number(mine=4).draw(ax, axis="y")
    curve(mine=[1, 2]).draw(ax)
    assert len(ax.lines) == 3 and [text.get_text().strip() for text in ax.texts] == 3 * [
        "your guess"
    ]


def test_compare_tells_exact_from_near_and_from_wrong(capsys):
    net = sf.models.fc((1, 4, 4), depth=2, seed=0)
    masks = sf.prune(net, "magnitude", 4)
    predict.compare("masks", dict(masks), masks)
    predict.compare("near", 1 + 1e-7, np.float64(1.0))
    predict.compare("wrong", {"a": torch.tensor([1, 3])}, {"a": torch.tensor([1, 1])})
    predict.compare("other", torch.ones(2), torch.ones(3))
    exact, near, wrong, other = capsys.readouterr().out.splitlines()
    assert exact == "masks: exact True, approximate True, largest difference 0"
    assert near.startswith("near: exact False, approximate True, largest difference 1e-07")
    assert wrong == "wrong: exact False, approximate False, largest difference 2"
    assert other.startswith("other: cannot be compared, shapes {'': (2,)} here")


def test_compare_sees_the_last_bit_of_whole_numbers_and_equal_infinities(capsys):
    predict.compare("large", 2**53 + 1, 2**53)
    predict.compare("infinite", np.inf, np.inf)
    predict.compare("imaginary", torch.tensor(1 + 1j), torch.tensor(1.0))
    large, infinite, imaginary = capsys.readouterr().out.splitlines()
    assert large.startswith("large: exact False, approximate True")
    assert infinite.endswith("exact True, approximate True, largest difference 0")
    assert imaginary.endswith("exact False, approximate False, largest difference 1")


@pytest.mark.parametrize("missing", [None, "3", [[1], [1, 2]]])
def test_compare_shows_what_is_no_number(missing):
    with pytest.raises(TypeError, match=r"cannot be compared; expected numbers or a tensor"):
        predict.compare("mine", missing, torch.ones(2))


@pytest.mark.parametrize(("low", "high", "log"), [(100, 0, False), (0, 0, False), (0, 9, True)])
def test_a_range_without_numbers_is_refused(low, high, log):
    with pytest.raises(ValueError, match="expected low below high"):
        predict.Number("How much?", low, high, log=log)


def test_a_large_layer_excuses_no_other(capsys):
    mine = {"a": torch.tensor([1e10]), "b": torch.tensor([1.0])}
    predict.compare("big", mine, {**mine, "b": torch.tensor([50.0])})
    predict.compare("small", torch.tensor([1e-9, 5e-9]), torch.tensor([9e-9, 2e-9]))
    predict.compare("zero", torch.tensor([1e-12]), torch.tensor([0.0]))
    said = capsys.readouterr().out.splitlines()
    assert ["approximate True" in line for line in said] == [False, False, True]
