"""notebooks/tools/build.py: reproducible, hermetic, and never leaves a half-made notebook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import synflow_lib as sf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "notebooks/tools"))
import build
import pairs

HEADER = """\
# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Sample

"""
CELLS = """\
# %%
import os
import sys

print(os.path.samefile(sys.executable, os.environ["EXPECTED_PYTHON"]))
print(os.environ["OMP_NUM_THREADS"], "thread", os.path.basename(os.getcwd()))

# %% tags=["table"]
# NBVAL_CHECK_OUTPUT
round(1 / 3, 3)

# %%
import ipywidgets
from IPython.display import display

display(ipywidgets.IntSlider(description="hidden without a kernel"))
print("static")
"""


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A source in a folder of its own, and a broken kernelspec that must not be used."""
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "not this", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("EXPECTED_PYTHON", sys.executable)
    monkeypatch.setenv("MPLBACKEND", "agg")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    source = folder / "00_sample.py"
    source.write_text(HEADER + CELLS, encoding="utf-8")
    return source


def sync_by_jupytext(target):
    """The command itself, in a folder without this project's settings."""
    command = [sys.executable, "-m", "jupytext", "--quiet", "--sync", target.name]
    subprocess.run(command, cwd=target.parent, check=True)


def run(source):
    return build.build(source, threads=1, timeout=60)


def cells_of(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells


@pytest.mark.in_turn
def test_two_builds_give_the_same_clean_bytes(sample):
    target = sample.with_suffix(".ipynb")
    assert run(sample) > 0
    first = target.read_bytes()
    run(sample)
    assert target.read_bytes() == first
    target.unlink()
    run(sample)  # ids come from the text, so they survive even the loss of the notebook
    assert target.read_bytes() == first

    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == pairs.METADATA
    setup, table, widget = notebook.cells[1:]
    assert setup.outputs[0].text == "True\n1 thread notebooks\n"
    assert table.outputs[0].data["text/plain"] == "0.333"
    assert table.metadata == {"tags": ["table"]}
    assert [out.output_type for out in widget.outputs] == ["stream"]
    assert pairs.in_step(sample)
    text = sample.read_text("utf-8")
    sync_by_jupytext(target)
    assert target.read_bytes() == first and sample.read_text("utf-8") == text
    assert not [path for path in sample.parent.iterdir() if path.suffix not in (".py", ".ipynb")]


def test_a_failing_cell_is_named_and_the_old_notebook_stays(sample):
    target = sample.with_suffix(".ipynb")
    pairs.sync(sample)
    old = target.read_bytes()
    sample.write_text(HEADER + "# %%\nx = 1\n\n# %%\nraise ValueError(f'{x} is odd')\n")
    with pytest.raises(pairs.BuildError) as caught:
        run(sample)
    message = str(caught.value)
    assert "00_sample.py: code cell 2 (cell 3 of 3) failed" in message
    assert "ValueError: 1 is odd" in message and "\x1b" not in message
    assert target.read_bytes() == old


def test_a_cell_that_hangs_is_named(sample):
    sample.write_text(HEADER + "# %%\nimport time\n\ntime.sleep(60)\n")
    with pytest.raises(pairs.BuildError, match="code cell 1 "):
        build.build(sample, threads=1, timeout=1)
    assert not sample.with_suffix(".ipynb").exists()


def test_sync_keeps_ids_and_the_outputs_of_unchanged_code(sample):
    pairs.sync(sample)
    target = sample.with_suffix(".ipynb")
    notebook = nbformat.read(target, as_version=4)
    for count, cell in enumerate(notebook.cells[1:], start=1):
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", text=f"output {count}\n")]
    nbformat.write(notebook, target)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)

    sample.write_text(sample.read_text().replace("1 / 3, 3", "2 / 3, 3") + "\n# %%\nnew = 1\n")
    os.utime(sample)
    assert pairs.sync(sample)
    cells = cells_of(sample)
    assert [cell.id for cell in cells[:4]] == ids and cells[4].id not in ids
    assert cells[1].outputs[0].text == "output 1\n" and cells[1].execution_count == 1
    assert cells[2].outputs == [] and cells[2].execution_count is None
    assert cells[3].outputs[0].text == "output 3\n"
    assert not pairs.sync(sample), "a second sync changes nothing"


def test_a_later_edit_of_the_notebook_is_not_lost(sample):
    pairs.sync(sample)
    target = sample.with_suffix(".ipynb")
    notebook = nbformat.read(target, as_version=4)
    notebook.cells[0].source = "# 00 · Edited"
    nbformat.write(notebook, target)
    edited = sample.stat().st_mtime + 10
    os.utime(target, (edited, edited))
    assert not pairs.in_step(sample)
    for attempt in (pairs.sync, run):
        with pytest.raises(pairs.BuildError, match="--take ipynb"):
            attempt(sample)
    pairs.sync(sample, take="ipynb")
    assert "# # 00 · Edited" in sample.read_text(encoding="utf-8") and pairs.in_step(sample)


def test_sync_repairs_the_layout_that_build_refuses(sample):
    sample.write_text("# %% [markdown]\n# # 00 · Sample\n# %%\nx = 1\n")
    with pytest.raises(pairs.BuildError, match="make sync"):
        run(sample)
    pairs.sync(sample)
    assert pairs.in_step(sample) and sample.read_text(encoding="utf-8").startswith("# ---\n")


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("saved /some/where/figure.png\n", "absolute path /some/where"),
        (f"python of {sys.prefix}\n", "absolute path"),
        ("[<Line2D at 0x7f12ab34cd56>]\n", "changes from run to run"),
        ("x" * 1_000_000, "at most 1,000,000"),
    ],
)
def test_outputs_that_must_not_be_committed(output, complaint):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=output)]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs)
    found = pairs.problems(nbformat.v4.new_notebook(cells=[cell]))
    assert len(found) == 1 and complaint in found[0]


@pytest.mark.parametrize(
    "harmless",
    [
        "see https://example.org/a/b and kept/N/L at 3/4/5",
        "<td>a</td></tr>",
        "../figures/fig2.png",
        'src="data:image/png;base64,ab/Cd/ef+/gh/ij=="',
    ],
)
def test_text_that_only_looks_like_a_path(harmless):
    output = nbformat.v4.new_output("display_data", data={"text/html": harmless})
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    assert pairs.problems(nbformat.v4.new_notebook(cells=[cell])) == []


def test_provenance_keeps_what_was_not_run_again(tmp_path, monkeypatch):
    for name in ("00_a", "01_b"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(build, "HERE", tmp_path)
    build.write_provenance(tmp_path, {"00_a": 1.0, "01_b": 2.0}, threads=2, jobs=1)
    build.write_provenance(tmp_path, {"01_b": 3.26}, threads=1, jobs=2)
    (tmp_path / "00_a.py").unlink()
    record = json.loads((tmp_path / "provenance.json").read_text())["notebooks"]
    assert [record[name]["seconds"] for name in ("00_a", "01_b")] == [1.0, 3.3]
    assert record["01_b"]["threads"] == 1 and record["00_a"]["threads"] == 2
    assert {"torch", "numpy", "python", "device", "scale"} <= set(record["00_a"])
    build.write_provenance(tmp_path, {}, threads=1, jobs=1)
    assert list(json.loads((tmp_path / "provenance.json").read_text())["notebooks"]) == ["01_b"]


def test_choosing_notebooks(tmp_path):
    with pytest.raises(pairs.BuildError, match="no notebook"):
        pairs.chosen([], tmp_path)
    for name in ("00_a", "01_b", "02_c"):
        (tmp_path / f"{name}.py").touch()
    assert [path.stem for path in pairs.chosen(["02", "00"], tmp_path)] == ["00_a", "02_c"]
    with pytest.raises(pairs.BuildError, match="starts with '03'; there are 00_a, 01_b, 02_c"):
        pairs.chosen(["03"], tmp_path)


def test_a_whole_build_records_what_it_trained_and_the_next_one_trains_anew(tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "build_all", lambda *_: iter(()))
    monkeypatch.setattr(build.recorded, "export", exported.append)
    monkeypatch.setattr(sf.paper, "write_agreement", lambda folder: None)
    monkeypatch.setenv("SYNFLOW_FIGURES", str(tmp_path / "figures"))

    def built(*arguments):
        """What is left of the folder of runs."""
        monkeypatch.delenv("SYNFLOW_RUNS")
        build.main([*arguments])
        return list((tmp_path / "runs").iterdir())

    [runs] = built("--only", "00")
    assert not exported and runs.name == f"figures-{build.recorded.code()}"
    (runs / "finished.json").touch()  # and then the build was interrupted
    assert built() == [] and exported == [runs]


def test_a_damaged_half_is_named_and_nothing_is_written_from_it(sample):
    pairs.sync(sample)
    target = sample.with_suffix(".ipynb")
    text, notebook = sample.read_bytes(), target.read_bytes()
    for path, damaged, told in (
        (target, notebook[:200], r"00_sample.ipynb is no notebook \(NotJSONError"),
        (target, b"null", "00_sample.ipynb is no notebook"),
        (target, b"\xff" + notebook, "00_sample.ipynb is no notebook"),
        (sample, b"# \xff\n" + text, "00_sample.py is no notebook"),
        (sample, b"", "00_sample.py holds no cell"),
        (sample, text.replace(b"# %%\n", b"<<<<<<< HEAD\n# %%\n", 1), "'<<<<<<< HEAD'"),
    ):
        path.write_bytes(damaged)
        other = target if path is sample else sample
        os.utime(other, (0, 0))  # the damaged half is the newer one
        before = other.read_bytes()
        for take in (None, "py", "ipynb"):
            if path is sample and take == "ipynb":
                continue  # which repairs it
            with pytest.raises(pairs.BuildError, match=told):
                pairs.sync(sample, take)
        assert path.read_bytes() == damaged and other.read_bytes() == before
        sample.write_bytes(text)
        target.write_bytes(notebook)


def test_a_file_out_of_reach_is_told_without_a_traceback():
    def out_of_reach():
        raise NotADirectoryError(20, "Not a directory", "here")

    with pytest.raises(SystemExit, match="Not a directory: 'here'"):
        pairs.run_command(out_of_reach)
