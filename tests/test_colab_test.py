"""The Colab emulation fails loudly; tried on tiny notebooks in this Python, nothing installed."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks/tools"))

import badges  # noqa: E402
import colab_test  # noqa: E402
from pairs import BuildError  # noqa: E402

HOME = badges.address()
STATE = {"python": "3", "torch": ["2", "a"], "numpy": ["2", "b"]}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A project folder whose notebooks hold what a test gives; nothing is built or removed."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(colab_test, "HERE", tmp_path)
    monkeypatch.setattr(colab_test, "ROOT", tmp_path)
    monkeypatch.setattr(colab_test, "make_environment", lambda folder: Path(sys.executable))
    monkeypatch.setattr(colab_test, "make_wheel", lambda folder: Path("some.whl"))
    monkeypatch.setattr(colab_test, "uninstall", lambda python: None)
    monkeypatch.setattr(colab_test, "report", lambda rows, versions: repr(rows))
    monkeypatch.setattr(colab_test, "probe", lambda python, *names: STATE)

    def write(name, *code):
        cells = [new_code_cell(f"address = 'git+{HOME}'"), *map(new_code_cell, code)]
        nbformat.write(new_notebook(cells=cells), tmp_path / name)

    return write


def test_a_notebook_runs_alone_with_the_wheel_for_the_address(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNFLOW_SCALE", "paper")
    alone = "import os; assert os.listdir() == ['01_fine.ipynb'], os.listdir()"
    tiny("01_fine.ipynb", "assert address == 'some.whl'", alone)
    tiny("02_clean.ipynb", "import os; assert 'SYNFLOW_SCALE' not in os.environ")
    colab_test.main([])
    assert "01_fine" in (tmp_path / "docs" / "colab_test.md").read_text()


def test_a_notebook_that_fails_makes_the_command_fail(tiny, capsys):
    tiny("01_broken.ipynb", "1 / 0")
    tiny("02_fine.ipynb")
    with pytest.raises(BuildError, match="01_broken failed"):
        colab_test.main([])
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_reinstalled_numpy_makes_the_command_fail(tiny, monkeypatch, capsys):
    states = iter([STATE, {**STATE, "numpy": ["2", "other dates"]}])
    monkeypatch.setattr(colab_test, "probe", lambda python, *names: next(states))
    tiny("01_fine.ipynb")
    with pytest.raises(BuildError, match="01_fine failed"):
        colab_test.main([])
    assert "numpy reinstalled" in capsys.readouterr().out


def test_a_notebook_without_the_address_fails(tiny, tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "01_bare.ipynb")
    with pytest.raises(BuildError, match="01_bare failed"):
        colab_test.main([])


def test_a_name_that_no_notebook_has(tiny):
    tiny("01_fine.ipynb")
    with pytest.raises(BuildError, match="starts with '77'"):
        colab_test.main(["--only", "77"])


def test_a_touched_file_of_a_package_is_seen(tmp_path, monkeypatch):
    folder = tmp_path / "tiny-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
    (folder / "RECORD").write_text("tiny.py,,\n")
    (tmp_path / "tiny.py").write_text("x = 1\n")
    monkeypatch.setattr(
        colab_test,
        "PROBE",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{colab_test.PROBE}",
    )
    first = colab_test.probe(Path(sys.executable), "tiny")
    assert first == colab_test.probe(Path(sys.executable), "tiny")
    (tmp_path / "tiny.py").write_text("x = 1\n")
    assert colab_test.probe(Path(sys.executable), "tiny")["tiny"] != first["tiny"]


def test_the_page_states_both_versions():
    versions = {name: ["1.2.3", "x"] for name in colab_test.COLAB} | {"python": "3.11.7"}
    page = colab_test.report([("00_a", 12.3, "ok")], versions)
    assert "| 00_a | 12 | ok |" in page and "| torch | 2.11.0 | 1.2.3 |" in page
    assert "| python | 3.13 | 3.11.7 |" in page


def test_a_run_of_some_notebooks_leaves_the_other_rows(tmp_path):
    versions = {name: ["1", ""] for name in colab_test.COLAB} | {"python": "3"}
    first = colab_test.report([("00_a", 1.0, "ok"), ("01_b", 9.0, "FAILED")], versions)
    rows = colab_test.with_earlier([("01_b", 2.0, "ok")], first, ["00_a", "01_b", "02_c"])
    assert rows == [("00_a", 1.0, "ok"), ("01_b", 2.0, "ok")]
    assert colab_test.with_earlier([], first, ["01_b"]) == [("01_b", 9.0, "FAILED")]
