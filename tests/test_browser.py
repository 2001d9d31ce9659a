"""What people see: explorers, pages and slides in a real Chromium, moved by keyboard.

Screenshots are left in build/browser/ to be looked at.
"""

import contextlib
import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
SHOTS = ROOT / "build" / "browser"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs the extra 'browser': pip install '.[browser]'"
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium; on Debian: apt-get install chromium"
    ),
]
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update"
).split()
PATIENCE = 120_000  # milliseconds; a loaded machine with two cores

# The explorers as the notebooks show them.
SHOWN = {
    name: call
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
    for call, name in re.findall(
        r"^(sf\.explore\.(race|collapse|steps|training)\(.*\))$",
        path.read_text("utf-8"),
        re.MULTILINE,
    )
}
STATUS, HANDLE = "p.synflow-status", ".noUi-handle"
PICTURE = ".jupyter-widgets img"
ERRORS = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='stderr']"
GUESSES = """\
number = sf.predict.Number("How much stays?", 0, 100, "percent", mine=None)
choice = sf.predict.Choice("Which layer is empty first?", ["first", "last"], mine=None)
curve = sf.predict.Curve("How accurate?", [10, 100], 1, 100, "percent", log=True, mine=None)
display(number, choice, curve)"""
DEAD_SLIDER = """\
import ipywidgets
from IPython.display import display
from synflow_lib.reproduction.explore.explorer import Frame, image
display(ipywidgets.VBox([
    ipywidgets.SelectionSlider(options=["1", "2", "3"]),
    ipywidgets.HTML('<p class="synflow-status">still</p>'),
    ipywidgets.HTML(image(Frame(b"", "still"))),
]))"""


class Watched:
    """A page, and what went wrong on it: foreign requests, console errors, exceptions."""

    def __init__(self, context):
        self.foreign, self.complaints = [], []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", self._request)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _request(self, request):
        if not re.match(
            r"(https?|ws)://(localhost|127\.0\.0\.1)[:/]|data:|blob:|file:", request.url
        ):
            self.foreign.append(request.url)

    def _console(self, message):
        address = message.location.get("url") or ""
        if message.type == "error" and not address.endswith("/favicon.ico"):  # never asked for
            self.complaints.append(f"{message.text} ({address})")

    def open(self, url):
        self.page.goto(url, wait_until="load")
        return self.page

    def shoot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


@pytest.fixture(scope="module")
def context():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        yield context
        browser.close()


@pytest.fixture
def watched(context):
    watched = Watched(context)
    yield watched
    watched.page.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(command, port, folder):
    """A Jupyter server in a process of its own, with settings of its own."""
    settings = folder / "settings"
    settings.mkdir()
    # JupyterLab asks a stranger for its news unless it is told not to.
    (settings / "overrides.json").write_text(
        json.dumps({"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}})
    )
    private = {
        f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")
    }
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
            cwd=folder, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | private | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "lab")},
        )  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                if process.poll() is not None:
                    pytest.fail(f"{command[0]} ended:\n{log.read_text()}")
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(address, timeout=5).close()
                    break
                time.sleep(0.25)
            else:
                pytest.fail(f"{command[0]} does not answer:\n{log.read_text()}")
            yield address
        finally:
            process.terminate()
            process.wait(20)


def write_notebook(path, *cells):
    notebook = new_notebook(
        cells=[new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pytest.importorskip("jupyterlab", reason="needs the extra 'browser'")
    folder = tmp_path_factory.mktemp("lab")
    for name, call in SHOWN.items():
        write_notebook(folder / f"{name}.ipynb", "import synflow_lib as sf", call)
    # With a kernel of its own, that no other test has used.
    write_notebook(folder / "choice.ipynb", "import synflow_lib as sf", SHOWN["collapse"])
    write_notebook(folder / "found.ipynb", "import synflow_lib as sf", SHOWN["training"])
    told = "print(number.beside(2), choice.beside('last'), curve.beside([50, 20]), sep='\\n')"
    write_notebook(folder / "guesses.ipynb", "import synflow_lib as sf", GUESSES, told)
    write_notebook(folder / "dead.ipynb", "import synflow_lib as sf", DEAD_SLIDER)
    write_notebook(folder / "broken.ipynb", "import synflow_lib as sf", "1 / 0")
    port = free_port()
    command = [
        "jupyterlab", "--allow-root", "--IdentityProvider.token=", "--ServerApp.port_retries=0",
        f"--LabApp.app_settings_dir={folder / 'settings'}", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with serving(command, port, folder) as address:
        yield address


def run_cells(watched, address, name, cells=2):
    """Opens a notebook in JupyterLab and runs its cells by keyboard."""
    page = watched.open(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=PATIENCE)
    select = page.locator(".jp-Dialog").get_by_role("button", name="Select Kernel")
    started = """number => !document.querySelectorAll(".jp-Notebook .jp-CodeCell")[number]
        .querySelector(".jp-InputPrompt").innerText.includes("[ ]")"""
    for number in range(cells):
        cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
        for _ in range(12):  # on a busy machine a key may be dropped even then, or asked back
            if select.count():
                select.click()
            with contextlib.suppress(playwright.TimeoutError):
                cell.locator(".cm-content").click(timeout=PATIENCE / 12)
                page.keyboard.press("Shift+Enter")
                page.wait_for_function(started, arg=number, timeout=PATIENCE / 12)
                break
        else:
            watched.shoot(f"lab_{name}_does_not_start")
            pytest.fail(f"cell {number} of {name} does not run; see {SHOTS}")
    return page


def moves(page, patience=PATIENCE):
    """Whether an arrow key on the slider changes the picture and the words below it."""
    page.locator(HANDLE).first.wait_for()
    page.locator(STATUS).first.wait_for()
    source = page.locator(PICTURE).first.get_attribute("src")
    words = page.locator(STATUS).first.inner_text()
    page.locator(HANDLE).first.focus()
    at_the_end = page.locator(HANDLE).first.evaluate("h => h.ariaValueNow === h.ariaValueMax")
    page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
    changed = """([selector, picture, words, source]) =>
        document.querySelector(selector).innerText !== words
        && document.querySelector(picture).src !== source"""
    try:
        page.wait_for_function(changed, arg=[STATUS, PICTURE, words, source], timeout=patience)
    except playwright.TimeoutError:
        return False
    return True


def reached_by_tab(page):
    """What the tabulator reaches from the first control on: tag or class of each."""
    page.locator(".jupyter-widgets select, .noUi-handle").first.focus()
    seen = []
    for _ in range(8):
        seen.append(page.evaluate("document.activeElement.getAttribute('class') || ''"))
        seen[-1] = "slider" if "noUi-handle" in seen[-1] else page.evaluate(
            "document.activeElement.tagName.toLowerCase()"
        )  # fmt: skip
        if seen[-1] == "slider":
            break
        page.keyboard.press("Tab")
    return seen


def test_the_notebooks_show_every_explorer():
    assert sorted(SHOWN) == ["collapse", "race", "steps", "training"]


@pytest.mark.in_turn
@pytest.mark.parametrize("name", SHOWN)
def test_an_explorer_follows_the_keyboard_in_jupyterlab(lab, watched, name):
    page = run_cells(watched, lab, name)
    assert moves(page)
    selects = page.locator(".jupyter-widgets select").count()
    assert selects
    assert reached_by_tab(page) == ["select"] * selects + ["slider"]
    assert page.locator(ERRORS).all_inner_texts() == []
    alt = page.locator(PICTURE).first.get_attribute("alt")
    assert alt == page.locator(STATUS).first.inner_text()
    assert page.locator(PICTURE).first.evaluate("image => image.naturalWidth") > 300
    page.locator(STATUS).first.scroll_into_view_if_needed()
    watched.shoot(f"lab_{name}")
    assert not watched.foreign


@pytest.mark.in_turn
def test_a_drop_down_changes_the_picture_in_jupyterlab(lab, watched):
    page = run_cells(watched, lab, "choice")
    page.locator(STATUS, has_text="Magnitude").first.wait_for()
    page.locator(".jupyter-widgets select").nth(1).select_option("synflow")
    page.locator(STATUS, has_text="SynFlow keeps").first.wait_for()
    assert page.locator(ERRORS).all_inner_texts() == []


@pytest.mark.in_turn
def test_a_new_choice_is_trained_and_what_was_found_is_ticked_in_jupyterlab(lab, watched):
    page = run_cells(watched, lab, "found")
    page.locator(STATUS, has_text="after epoch 3 of 3").first.wait_for()
    tasks = page.locator("ul.synflow-tasks li")
    assert tasks.count() == 3
    page.locator(".jupyter-widgets select").nth(1).focus()
    page.keyboard.press("End")  # the largest compression, by keyboard
    page.locator(STATUS, has_text="SynFlow, 1,000").first.wait_for()
    page.locator(STATUS, has_text="after epoch 3 of 3").first.wait_for()
    page.locator(".jupyter-widgets select").nth(0).select_option("random")
    tasks.filter(has_text="Found: a network without a path").wait_for()
    assert page.locator(ERRORS).all_inner_texts() == []
    watched.shoot("lab_training_found")


def test_guesses_are_made_by_keyboard_in_jupyterlab_and_shown_beside_the_measurement(lab, watched):
    page = run_cells(watched, lab, "guesses")
    status, handles = page.get_by_role("status"), page.locator(HANDLE)
    status.nth(2).wait_for()
    assert status.all_inner_texts()[:3] == 3 * ["no guess yet"]
    assert handles.count() == 3
    handles.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.get_by_text("your guess: 2 percent").wait_for()
    page.locator(".jupyter-widgets select").select_option("first")
    page.get_by_text("your guess: first").wait_for()
    handles.nth(2).focus()
    page.keyboard.press("ArrowUp")
    page.get_by_text("your guess: 10 (at 10), 10.5 (at 100)").wait_for()
    # What is printed above the controls stays, and may not say that there is no guess.
    assert page.get_by_text(re.compile("no guess", re.IGNORECASE)).count() == 0
    watched.shoot("lab_guesses")
    page.locator(".jp-Notebook .jp-CodeCell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("apart:      0 percent").wait_for()
    page.get_by_text("you chose another one").wait_for()
    page.get_by_text("apart:      a factor of 5; a factor of 1.91").wait_for()
    assert page.locator(ERRORS).all_inner_texts() == []


@pytest.mark.in_turn
def test_a_slider_that_moves_nothing_is_found(lab, watched):
    page = run_cells(watched, lab, "dead")
    assert not moves(page, patience=3000)


@pytest.mark.in_turn
def test_an_error_in_an_output_is_found(lab, watched):
    page = run_cells(watched, lab, "broken")
    page.locator(ERRORS).first.wait_for()
    assert page.locator(ERRORS).count() == 1


@pytest.mark.in_turn
def test_an_explorer_follows_the_keyboard_in_voila(tmp_path, watched):
    pytest.importorskip("voila", reason="needs the extra 'browser'")
    write_notebook(tmp_path / "steps.ipynb", "import synflow_lib as sf", SHOWN["steps"])
    port = free_port()
    with serving(["voila", "steps.ipynb"], port, tmp_path) as address:
        page = watched.open(address)
        assert moves(page)
        assert page.locator(ERRORS).all_inner_texts() == []
        watched.shoot("voila_steps")  # voila's own template asks a CDN for icons, needlessly


@pytest.fixture(scope="module")
def site_address(site):
    with http_server(site) as address:
        yield address


@contextlib.contextmanager
def http_server(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def unseen(page):
    """Pictures without pixels and formulas without extent, of those that are not folded away."""
    return page.evaluate(
        """() => {
        const shown = thing => thing.checkVisibility();
        const pictures = [...document.images].filter(i => shown(i) && !i.naturalWidth);
        const empty = m => { const b = m.getBoundingClientRect(); return !b.width || !b.height; };
        const formulas = [...document.querySelectorAll("math")].filter(m => shown(m) && empty(m));
        return [...pictures.map(i => i.src), ...formulas.map(m => m.textContent)];
        }"""
    )


def test_every_page_opens_by_itself(site, site_address, watched):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert len(pages) > 20
    for name in pages:
        page = watched.open(f"{site_address}/{name}")
        assert unseen(page) == [], name
        if name in ("index.html", "notebooks/04_synflow.html", "api/pruning.html"):
            watched.shoot(f"site_{Path(name).stem}")
    assert not watched.foreign
    assert not watched.complaints


def test_formulas_are_set(site_address, watched):
    page = watched.open(f"{site_address}/notebooks/04_synflow.html")
    assert page.locator("math").count() > 5
    assert "\\frac" not in page.locator("article").inner_text()


def test_an_animation_plays_without_a_kernel(site_address, watched):
    page = watched.open(f"{site_address}/notebooks/00_start_here.html")
    picture = page.locator(".animation img").first
    picture.scroll_into_view_if_needed()
    before = picture.get_attribute("src")
    page.locator(".animation button[title='Next frame']").first.click()
    page.wait_for_function(
        "before => document.querySelector('.animation img').src !== before", arg=before
    )
    assert not watched.complaints


def test_the_search_finds_a_name(site_address, watched):
    page = watched.open(f"{site_address}/index.html")
    page.keyboard.press("/")
    page.keyboard.type("critical_compression")
    page.locator(".md-search-result__link").first.wait_for()
    assert not watched.foreign


@pytest.mark.parametrize(
    "body, kind",
    [
        ('<script src="http://cdn.example/x.js"></script>', "foreign"),
        ("<script>undefined_thing()</script>", "complaints"),
        ('<img src="gone.png">', "complaints"),
    ],
)
def test_a_page_that_is_not_alone_is_found(tmp_path, watched, body, kind):
    (tmp_path / "page.html").write_text(f"<html><body>{body}<p>x</p></body></html>")
    with http_server(tmp_path) as address:
        watched.open(f"{address}/page.html")
    assert getattr(watched, kind)


def test_a_picture_that_does_not_show_is_found(tmp_path, watched):
    (tmp_path / "page.html").write_text('<img src="data:image/png;base64,AA==" alt="x">')
    with http_server(tmp_path) as address:
        assert unseen(watched.open(f"{address}/page.html"))


def test_the_speaker_s_notes_follow_the_slides(tmp_path, watched):
    sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
    import classroom
    import slides

    if any(importlib.util.find_spec(name) is None for name in slides.PACKAGES):
        pytest.skip("slides need the extra 'classroom': pip install '.[classroom]'")
    classroom.build(ROOT / "notebooks" / "10_lecture.ipynb", tmp_path)
    with http_server(tmp_path) as address:
        page = watched.open(f"{address}/slides/10_lecture.slides.html")
        page.locator(".reveal .slides section.present").first.wait_for()
        with page.expect_popup() as opened:
            page.keyboard.press("t")
        told = opened.value.locator(".speaker-controls-notes .value")
        told.filter(has_text="until 3.").wait_for()
        page.keyboard.press("ArrowRight")
        told.filter(has_text="until 9.").wait_for()
        assert not watched.foreign
        opened.value.close()


def test_slides_turn_by_keyboard_and_need_no_network(tmp_path, watched):
    sys.path.insert(0, str(ROOT / "notebooks/tools"))
    import classroom
    import slides

    if any(importlib.util.find_spec(name) is None for name in slides.PACKAGES):
        pytest.skip("slides need the extra 'classroom': pip install '.[classroom]'")
    classroom.build(ROOT / "notebooks" / "04_synflow.ipynb", tmp_path)
    with http_server(tmp_path) as address:
        page = watched.open(f"{address}/slides/04_synflow.slides.html")
        page.locator(".reveal section.present h1").first.wait_for()
        watched.shoot("slides_first")
        page.keyboard.press("ArrowRight")
        page.locator(".reveal section.present h2").first.wait_for()
        assert page.locator(".reveal").first.bounding_box()["height"] > 600
        assert page.locator("math").count() > 5
        watched.shoot("slides_second")
        assert unseen(page) == []
        words = page.locator("img").evaluate_all("images => images.map(image => image.alt)")
        assert len(words) > 4
        assert all("heading" in told or len(told) > 20 for told in words)
    assert not watched.foreign
    assert not watched.complaints
