"""The repository's address stands in one place; everything else is written from it."""

import re
import shutil
import sys
import types
from pathlib import Path

import nbformat
import pytest

from synflow_lib import colab, env

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks/tools"))

import badges  # noqa: E402
from pairs import BuildError, in_step  # noqa: E402

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"))


def test_every_badge_and_setup_cell_is_as_the_address_demands():
    found = [path.name for path in badges.differing(ROOT)]
    assert found == [], f"{found} differ from [project.urls] Repository; run `make badges`"


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for suffix in (".py", ".ipynb"):
        shutil.copy(ROOT / "notebooks" / f"{NAMES[0]}{suffix}", tmp_path / "notebooks")
    return tmp_path


def outputs(path):
    return [cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells]


def test_a_new_address_reaches_every_file_and_keeps_outputs(copy):
    pyproject = copy / "pyproject.toml"
    home = badges.address(copy)
    pyproject.write_text(pyproject.read_text().replace(home, "https://github.com/new-one/place"))
    before = outputs(copy / "notebooks" / f"{NAMES[0]}.ipynb")
    changed = {path.name for path in badges.differing(copy, repair=True)}
    assert changed == {"README.md", f"{NAMES[0]}.py", f"{NAMES[0]}.ipynb"}
    assert badges.differing(copy) == []
    for name in changed:
        text = next(copy.rglob(name)).read_text()
        assert "github/new-one/place/blob/main/notebooks/" in text and home not in text
    assert outputs(copy / "notebooks" / f"{NAMES[0]}.ipynb") == before
    assert in_step(copy / "notebooks" / f"{NAMES[0]}.py")


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("README.md", "/blob/main/notebooks/00", "/blob/master/notebooks/00"),
        (f"{NAMES[0]}.py", "--no-deps git+", "--no-deps git+https://mirror.example/"),
        (f"{NAMES[0]}.py", "--quiet --no-deps", "--quiet"),
        (f"{NAMES[0]}.ipynb", "invalidate_caches()", "invalidate_caches() # twice"),
    ],
)
def test_a_changed_badge_or_setup_cell_is_seen(copy, name, old, new):
    path = next(copy.rglob(name))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert [found.name for found in badges.differing(copy)] == [name]


def test_a_notebook_without_the_setup_cell_is_refused(copy):
    path = copy / "notebooks" / f"{NAMES[0]}.py"
    path.write_text(path.read_text().replace("# On Colab", "# Elsewhere"))
    path.write_text(re.sub(r"git\+\S+", "git+https://github.com/a/b", path.read_text()))
    with pytest.raises(BuildError, match="setup cell"):
        badges.differing(copy)


def test_a_setup_cell_that_imports_something_first_is_refused(copy):
    path = copy / "notebooks" / f"{NAMES[0]}.py"
    path.write_text(
        path.read_text().replace(
            "import importlib.util\n", "import math\nimport importlib.util\n", 1
        )
    )
    with pytest.raises(BuildError, match="setup cell"):
        badges.differing(copy)


@pytest.mark.parametrize("home", ["", "https://gitlab.com/a/b", "github.com/a/b"])
def test_an_address_that_colab_cannot_open_is_refused(copy, home):
    text = (copy / "pyproject.toml").read_text().replace(badges.address(copy), home)
    (copy / "pyproject.toml").write_text(text)
    with pytest.raises(BuildError, match="Repository"):
        badges.address(copy)


def test_the_setup_cell_is_short_and_never_installs_torch():
    assert len(badges.SETUP.splitlines()) <= 13
    (install,) = [line for line in badges.SETUP.splitlines() if "pip" in line]
    assert "--no-deps" in install and "torch" not in install


def setup(monkeypatch, specs):
    """Runs the setup cell where `find_spec` gives these answers; returns what was installed."""
    installed, answers = [], iter(specs)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: next(answers))
    code = badges.SETUP.format(address="X")
    exec(re.sub(r"%(pip.*)", r"installed.append('\1')", code), {"installed": installed})
    return installed


def test_setup_does_nothing_where_the_library_is_importable(monkeypatch, capsys):
    assert setup(monkeypatch, [object()]) == []
    assert capsys.readouterr().out == ""


def test_setup_installs_once_and_says_what_to_do_without_a_network(monkeypatch):
    assert setup(monkeypatch, [None, object()]) == ["pip install --quiet --no-deps git+X"]
    with pytest.raises(ModuleNotFoundError, match="network"):
        setup(monkeypatch, [None, None])


# --------------------------------------------------------------------------------- colab


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """A Colab kernel without a GPU, whose drive appears below tmp_path when mounted."""
    monkeypatch.delenv("SYNFLOW_SCALE", raising=False)
    monkeypatch.setattr(env, "_chosen", None)
    package, module = types.ModuleType("google"), types.ModuleType("google.colab")
    drive = types.SimpleNamespace(mount=lambda path: (Path(path) / "MyDrive").mkdir(parents=True))
    module.drive = drive
    monkeypatch.setitem(sys.modules, "google", package)
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(colab, "MOUNTED", tmp_path / "drive")
    monkeypatch.setenv("SYNFLOW_DEVICE", "cpu")
    monkeypatch.setenv("SYNFLOW_RUNS", str(tmp_path / "elsewhere"))
    return drive


@pytest.mark.parametrize("scale", env.SCALES)
def test_the_form_of_the_setup_cell(scale, pretend, tmp_path, capsys):
    colab.greet(scale, drive=True)
    printed = capsys.readouterr().out
    kept = tmp_path / "drive" / "MyDrive" / "synflow_runs"
    large = scale != "classroom"  # needs a GPU, and a place that outlives the session
    assert env.scale() == scale
    assert ("Change runtime type" in printed) == (f"lies in {kept}" in printed) == large
    assert (env.runs_dir() == kept) == large


def test_a_drive_that_is_not_wanted_is_not_mounted(pretend, capsys):
    colab.greet("panel", drive=False)
    assert env.runs_dir().name == "elsewhere" in capsys.readouterr().out
    pretend.mount = lambda path: None  # or refused
    colab.greet("panel", drive=True)
    assert env.runs_dir().name == "elsewhere"
    assert "lost with this session" in capsys.readouterr().out


def test_a_scale_set_outside_is_not_the_forms(pretend, monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "paper")
    colab.greet("colab", drive=False)
    assert env.scale() == "paper"


def test_runs_go_to_the_drive(pretend, tmp_path):
    folder = colab.use_drive("mine/runs")
    assert folder == env.runs_dir() == tmp_path / "drive" / "MyDrive" / "mine" / "runs"
    assert folder.is_dir()


def test_a_drive_that_was_refused_is_told(pretend):
    pretend.mount = lambda path: None
    with pytest.raises(RuntimeError, match="allow access"):
        colab.use_drive()
    assert env.runs_dir().name == "elsewhere"


@pytest.mark.parametrize("folder", ["", "/content", "../up"])
def test_a_folder_outside_the_drive_is_refused(folder):
    with pytest.raises(ValueError, match="inside My Drive"):
        colab.use_drive(folder)
