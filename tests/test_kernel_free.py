"""The explorers of the site: they move without a kernel, and their numbers are the library's."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from test_browser import SHOTS, context, pytestmark, watched  # noqa: F401
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction.figures.style import STYLES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks/tools/site/static/explore"
PAGES = ("race", "collapse", "synflow")
sys.path.append(str(FOLDER.parents[1]))

import trajectories  # noqa: E402


@pytest.fixture
def opened(site, watched):  # noqa: F811
    """Opens a page of the built site from the disk, as a reader without a server does."""

    def open_page(name, width=1280, **media):
        watched.page.set_viewport_size({"width": width, "height": 900})
        watched.page.emulate_media(**media)
        # The theme would remember the colours of another test's page.
        watched.page.add_init_script("localStorage.clear()")
        watched.open((site / "explore" / f"{name}.html").as_uri())
        return watched.page

    yield open_page
    assert not watched.foreign
    assert not watched.complaints


@pytest.fixture
def arithmetic(watched):  # noqa: F811
    """An empty page that has nothing but the arithmetic of the drawn network."""
    watched.page.add_script_tag(path=FOLDER / "flow.js")
    return watched.page.evaluate


def chain(weights):
    """The library's network with the page's weights."""
    layers = []
    for matrix in weights:
        matrix = torch.tensor(matrix, dtype=torch.float64)
        layer = nn.Linear(*reversed(matrix.shape), bias=False, dtype=torch.float64)
        layer.weight.data = matrix
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# ------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("sizes", [[3, 6, 6, 2], [2, 1], [4, 3, 5, 1, 7]])
def test_scores_are_the_library_s(arithmetic, sizes):
    found = arithmetic(
        "sizes => { const weights = network(sizes, 7); return {weights, ...synflow(weights)}; }",
        sizes,
    )
    expected = sf.score(chain(found["weights"]), "synflow")
    for mine, theirs in zip(found["scores"], expected.values(), strict=True):
        torch.testing.assert_close(torch.tensor(mine, dtype=torch.float64), theirs)
        assert float(theirs.sum()) == pytest.approx(found["R"], rel=1e-12)
    # What enters a unit leaves it.
    for units in found["units"]:
        assert sum(units) == pytest.approx(found["R"], rel=1e-12)


@pytest.mark.in_turn
@pytest.mark.parametrize("method", ["magnitude", "once", "synflow"])
@pytest.mark.parametrize("seed", [1, 2])
def test_weights_go_in_the_library_s_order(arithmetic, method, seed):
    """Zero scores and ties included: the mask after every step, down to a weight a layer."""
    found = arithmetic(
        """([method, seed]) => {
        const run = new Pruning([3, 6, 6, 2], method, seed);
        const [masks, flows] = [[run.mask.flat(2)], [run.R]];
        while (!run.ended) { run.step(); masks.push(run.mask.flat(2)); flows.push(run.R); }
        return {weights: run.weights, masks, flows};
        }""",
        [method, seed],
    )
    net = chain(found["weights"])
    total, layers = 66, 3
    how = {"iterations": 1}
    if method == "synflow":
        one = {"schedule": lambda t, n, density: (total - t) / total}
        how = {"iterations": total - layers, "compression": total / layers, **one}
    name = "magnitude" if method == "magnitude" else "synflow"
    path = sf.trajectory(net, name, progress=False, **how)
    assert len(found["masks"]) == total - layers + 1
    for gone, (mask, flow) in enumerate(zip(found["masks"], found["flows"], strict=True)):
        masks = path.keeping(total - gone, quiet=True)
        assert mask == torch.cat([m.flatten() for m in masks.values()]).int().tolist(), gone
        assert (flow == 0) == sf.is_collapsed(net, masks, "path"), gone
    assert (found["flows"][-1] > 0) == (method == "synflow")


def test_equal_scores_go_from_the_last(arithmetic):
    order = arithmetic("removalOrder([[[0.3, 0.1 + 0.2, 0, 0.1]]], [[[1, 1, 1, 1]]])")
    assert [at[2] for at in order] == [2, 3, 1, 0]


# ------------------------------------------------------------------------------ what was computed


@pytest.fixture(scope="module")
def stored():
    text = (FOLDER / "trajectories.js").read_text(encoding="utf-8")
    assert len(text) < 200_000
    return json.loads(text.partition("= ")[2].rstrip().rstrip(";"))


def test_stored_numbers_come_out_again(stored):
    assert trajectories.measured("perceptron") == stored["perceptron"]


@pytest.mark.parametrize("name", trajectories.NETWORKS)
def test_stored_networks_keep_exactly_what_was_asked(stored, name):
    one = stored[name]
    total = sum(size for _, size in one["layers"])
    for told in one["methods"].values():
        for stop, kept in zip(one["stops"], told["kept"], strict=True):
            assert sum(kept) == pytest.approx(total / stop, rel=1e-5, abs=0.5)
            outlived = [sum(kept) < total / life - 0.5 for life in told["lives"]]
            assert [not count for count in kept] == outlived
        assert told["critical"]["layer"] == min(told["lives"])


def test_methods_look_as_in_the_figures(watched):  # noqa: F811
    watched.page.add_script_tag(path=FOLDER / "common.js")
    for name, look in watched.page.evaluate("METHODS").items():
        style = dataclasses.asdict(STYLES[name])
        assert look == {key: style[key] for key in ("label", "color", "marker")}


# ------------------------------------------------------------------------------ pages

PICTURE = {"race": "#race", "collapse": "#layers", "synflow": "#network"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_follows_the_keyboard_without_network(opened, name):
    page = opened(name)
    control, key = ("#step", "Enter") if name == "synflow" else ("#compression", "ArrowRight")
    before = page.inner_html(PICTURE[name]), page.inner_text("#summary")
    page.focus(control)
    page.keyboard.press(key)
    assert page.inner_html(PICTURE[name]) != before[0]
    assert page.inner_text("#summary") != before[1]
    assert page.locator("#summary").get_attribute("aria-live") == "polite"
    page.focus("#tasks button >> nth=0")
    page.keyboard.press("Enter")
    assert page.locator("#tasks [role=status]").first.inner_text()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_readable_on_a_telephone(opened, watched, name, scheme):  # noqa: F811
    page = opened(name, 400, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    nameless = """() => [...document.querySelectorAll("article :is(input, select, button)")]
        .filter(c => !c.labels?.length && !c.textContent.trim()).map(c => c.outerHTML)"""
    assert page.evaluate(nameless) == []
    light = """() => {
        const [ink, paper] = ["color", "backgroundColor"].map((kind, i) => getComputedStyle(
            document.querySelector(i ? "body" : "#summary"))[kind].match(/[\\d.]+/g).map(Number));
        const a = ink[3] ?? 1;
        const gray = (c) => (c[0] + c[1] + c[2]) / 3;
        return [a * gray(ink) + (1 - a) * gray(paper), gray(paper)];
    }"""
    ink, paper = page.evaluate(light)
    assert abs(ink - paper) > 120
    assert (paper < 100) == (scheme == "dark")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"explore_{name}_{scheme}.png", full_page=True)


def test_little_motion_is_respected(opened):
    page = opened("race", reduced_motion="reduce")
    assert not page.is_visible("#play")
    page = opened("synflow", reduced_motion="reduce")
    page.click("#run")
    assert "the end" in page.inner_text("#summary")  # at once


def test_the_race_runs_and_stops(opened):
    page = opened("race")
    page.click("#play")
    page.wait_for_function("document.querySelector('#compression').value > 1")
    page.click("#play")
    assert page.inner_text("#play") == "Play"
    stop = page.input_value("#compression")
    page.wait_for_timeout(800)
    assert page.input_value("#compression") == stop


@pytest.mark.parametrize("name", ["race", "collapse"])
def test_things_to_look_for_are_found_where_they_are(opened, stored, name):
    """Each thing at some stops and not at others."""
    page = opened(name)
    asked = """() => {
        const seen = [];
        const buttons = [...document.querySelectorAll("#tasks button")];
        const answers = [...document.querySelectorAll("#tasks [role=status]")];
        const set = (id, value) => {
            const control = document.getElementById(id);
            control.value = value;
            control.dispatchEvent(new Event("input"));
        };
        const options = (id) => [...document.getElementById(id)?.options ?? [{}]];
        for (const {value: network} of options("network")) {
            set("network", network);
            for (const {value: method} of options("method")) {
                if (method) set("method", method);
                for (let stop = 0; stop < TRAJECTORIES[network].stops.length; stop++) {
                    set("compression", stop);
                    buttons.forEach((button) => button.click());
                    const told = answers.map((answer) => answer.textContent);
                    seen.push([network, method ?? "", stop, ...told]);
                }
            }
        }
        return seen;
    }"""
    seen = page.evaluate(asked)
    for number in range(3):
        told = [row[3 + number] for row in seen]
        assert all(one.startswith(("Found. ", "Not here. ")) for one in told)
        found = [row[:3] for row in seen if row[3 + number].startswith("Found.")]
        assert 0 < len(found) < len(seen) / 2, number
    assert page.inner_text("#score") == "3 of 3 found."
    if name == "collapse":  # a weight a layer: SynFlow alone gets there, on chains
        assert found == [
            [network, "synflow", len(stored[network]["stops"]) - 1]
            for network in ("perceptron", "vgg16")
        ]


def test_things_to_look_for_on_the_drawn_network(opened):
    page = opened("synflow", reduced_motion="reduce")
    answers = page.locator("#tasks [role=status]")

    def ask(number):
        page.locator("#tasks button").nth(number).click()
        return answers.nth(number).inner_text()

    assert [ask(number)[:4] for number in range(3)] == ["Not "] * 3
    page.click("#run")
    assert ask(2).startswith("Found.") and ask(0).startswith("Not here.")
    page.select_option("#method", "magnitude")
    assert ask(0).startswith("Found.")
    page.click("#run")
    assert "disconnected" in page.inner_text("#summary")
    assert ask(1).startswith("Found.")
    assert page.inner_text("#score") == "3 of 3 found."


def test_links_from_the_first_page(site, watched):  # noqa: F811
    page = watched.open((site / "index.html").as_uri())
    for name in PAGES:
        assert page.locator(f"article a[href='explore/{name}.html']").count() == 1
    assert page.locator(".md-tabs a[href='explore/race.html']").count() == 1
