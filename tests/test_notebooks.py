"""The committed notebooks: in step with their sources, complete, clean, and really checked."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import jupytext.cli
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks/tools"))
from pairs import in_step  # noqa: E402

FOLDER = ROOT / "notebooks"
NAMES = sorted({path.stem for path in FOLDER.glob("[0-9][0-9]_*") if path.suffix != ".tmp"})
MARKER = "# NBVAL_CHECK_OUTPUT"
# Without a notebook every test below must fail, not be skipped.
every_notebook = pytest.mark.parametrize("name", NAMES or ["no_notebook_found"])


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def checked(notebook):
    return [c for c in notebook.cells if c.cell_type == "code" and "NBVAL_CHECK" in c.source]


def texts(outputs):
    """What nbval compares as text: standard output and the plain form of results."""
    for output in outputs:
        if output.output_type == "stream" and output.name == "stdout":
            yield output.text
        elif "text/plain" in output.get("data", {}):
            yield output.data["text/plain"]


def environment():
    """Without this run's own pytest variables, which would confuse a pytest inside it."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MPLBACKEND"))}


@pytest.mark.parametrize(
    "name",
    [
        "00_start_here",
        "01_layer_collapse",
        "02_conservation_laws",
        "03_imp_dynamics",
        "04_synflow",
        "05_accuracy_vs_compression",
        "06_reviewers_questions",
        "07_sanity_checks",
        "08_your_own_pruner",
        "09_course_lab",
        "10_lecture",
    ],
)
def test_the_course_is_complete(name):
    assert name in NAMES


@every_notebook
def test_both_files_are_there_and_hold_the_same_cells(name):
    source = FOLDER / f"{name}.py"
    # What jupytext writes, by the metadata that is committed: `jupytext --test` passes pairs that
    # have drifted.
    written = jupytext.writes(read(name), "py:percent")
    assert written == source.read_text(encoding="utf-8"), (
        f"{name}: run `make sync`, then commit both"
    )


@pytest.mark.parametrize("settings", [True, False], ids=["with_settings", "alone"])
def test_jupytext_s_own_sync_carries_edits_both_ways(settings, tmp_path):
    """`jupytext --sync`, which editors call, in this project and in a folder without settings."""
    source, target = (tmp_path / f"04_synflow{suffix}" for suffix in (".py", ".ipynb"))
    for path in (source, target):
        shutil.copy(FOLDER / path.name, path)
    (tmp_path / "jupytext.toml").touch()  # stops the search for settings further up
    if settings:
        (tmp_path / "jupytext.toml").unlink()
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
    header = source.read_text("utf-8").partition("# %%")[0]
    assert "format_name: percent" in header and "jupytext_version:" not in header
    before = nbformat.read(target, as_version=4)

    source.write_text(source.read_text("utf-8").replace("# ## Setup", "# ## Set up", 1), "utf-8")
    move_clock(source, 10)
    assert jupytext.cli.jupytext(["--quiet", "--sync", str(source)]) in (0, None)
    after = nbformat.read(target, as_version=4)
    assert "## Set up" in [cell.source for cell in after.cells]
    assert after.metadata == before.metadata
    for kept in ("id", "outputs", "execution_count"):
        assert [c.get(kept) for c in after.cells] == [c.get(kept) for c in before.cells]

    after.cells[0].source += "\n\nThe other way."
    nbformat.write(after, target)
    move_clock(target, 20)
    assert jupytext.cli.jupytext(["--quiet", "--sync", str(source)]) in (0, None)
    text = source.read_text("utf-8")
    assert "# The other way." in text and "# ## Set up" in text and text.startswith(header)
    assert in_step(source)


def move_clock(path, seconds):
    """Dates a file later than its partner."""
    later = path.stat().st_mtime + seconds
    os.utime(path, (later, later))


@every_notebook
def test_checked_cells_have_something_to_check(name):
    cells = checked(read(name))
    assert len(cells) >= 2, f"{name}: every notebook checks at least two cells"
    for cell in cells:
        lines = [line for line in cell.source.splitlines() if "NBVAL" in line]
        # nbval ignores a marker that has anything else on its line.
        assert lines == [MARKER], f"{name}: {lines}; expected exactly the line {MARKER}"
        assert cell.execution_count, f"{name}: a checked cell was not run:\n{cell.source}"
        # nbval passes a cell without stored output, and never compares pictures.
        assert re.search(r"\d", "".join(texts(cell.outputs))), (
            f"{name}: a checked cell stores no number as text:\n{cell.source}"
        )


@every_notebook
def test_every_cell_ran_in_order_and_none_is_kept_from_the_tests(name):
    code = [cell for cell in read(name).cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        tags = cell.metadata.get("tags", [])
        assert not re.search("NBVAL_(SKIP|IGNORE|RAISES)|nbval-", cell.source + " ".join(tags)), (
            f"{name}: only {MARKER} is used; skipped cells are not tested:\n{cell.source}"
        )


@every_notebook
def test_no_widget_state_error_or_machine_path_is_stored(name):
    notebook = read(name)
    assert "widgets" not in notebook.metadata
    machine = r"""(?<![\w.:/<>)\]}\\])/(home|root|Users|tmp|var|opt|mnt|usr|srv)/"""
    anywhere = re.compile(machine + r"|(?<![\w.:/<>)\]}\\])/[A-Za-z_][\w.-]*/[\w.-]+")
    windows = re.compile(r"(?<![A-Za-z])[A-Z]:\\\w")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", f"{name}: an error is stored"
            data = output.get("data", {})
            assert "application/vnd.jupyter.widget-view+json" not in data, (
                f"{name}: without a kernel a widget shows nothing; store a static cell beside it"
            )
            assert not windows.search("".join(texts([output])))
        shown = [re.sub(r"base64,[A-Za-z0-9+/=\\\s]+", "", text) for text in strings(cell)]
        found = [match.group() for text in shown if (match := anywhere.search(text))]
        assert not found, f"{name}: absolute path {found[0]}; print a relative one"


def strings(cell):
    """Source and textual outputs of a cell, HTML and error streams included."""
    yield cell.source
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield value


@every_notebook
def test_size(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000


@every_notebook
def test_anatomy(name):
    cells = read(name).cells
    number = name[:2]
    assert re.match(rf"# {number} · \S", cells[0].source), f"{name}: starts with '# {number} · …'"
    first_code = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    head = "\n".join(cell.source for cell in cells[:first_code])
    badge = rf"https://colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/\S+/{name}\.ipynb"
    assert re.search(badge, head), f"{name}: a Colab badge that opens this notebook"
    assert "**Learning goals**" in head
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = [line.strip() for line in prose.splitlines() if line.startswith("## ")]
    ends = [heading for heading in headings if heading in TAIL]
    assert ends == TAIL, f"{name}: ends with the sections {TAIL}, has {ends}"
    pictures = [out for cell in cells for out in cell.get("outputs", []) if is_picture(out)]
    assert pictures, f"{name}: shows no figure"


@pytest.mark.parametrize("name", [name for name in NAMES if "00" <= name[:2] <= "08"])
def test_predictions_come_before_what_they_are_compared_with_and_are_left_open(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    asked = re.findall(r"^(\w+) = sf\.predict\.\w+\((.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    assert len(asked) >= 3
    for guess, arguments in asked:
        assert "mine=None" in arguments, f"{guess}: a guess is the reader's"
        assert f"{guess}.beside(" in text.split(f"\n{guess}\n", 1)[1], f"{guess} is never shown"


TAIL = ["## Exercises", "## Takeaways", "## References"]


def is_picture(output):
    return any(kind.startswith("image/") for kind in output.get("data", {}))


# ------------------------------------------------------------------ does nbval really check?


def run_nbval(path):
    (path.parent / "pytest.ini").write_text("[pytest]\n")  # not this project's settings
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=900", path.name],
        cwd=path.parent,
        env=environment(),
        capture_output=True,
        text=True,
    )


def tampered(notebook):
    """A copy whose last checked cell stores one other digit than it printed."""
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for output in checked(copy)[-1].outputs:
        holder, key = (
            (output, "text") if output.output_type == "stream" else (output.data, "text/plain")
        )
        if key in holder and re.search(r"\d", holder[key]):
            # The last digit of the first number: the smallest change that a table can show.
            end = re.search(r"\d+(\.\d+)?", holder[key]).end()
            other = str((int(holder[key][end - 1]) + 1) % 10)
            holder[key] = holder[key][: end - 1] + other + holder[key][end:]
            return copy
    raise AssertionError("the checked cell stores no digit")


def up_to_first_check(notebook):
    """The shortest beginning of a notebook that holds a checked cell."""
    last = notebook.cells.index(checked(notebook)[0])
    short = nbformat.from_dict(dict(notebook))
    short.cells = notebook.cells[: last + 1]
    return short


def assert_nbval_sees_a_changed_digit(notebook, folder):
    for which, content in (("as_stored", notebook), ("tampered", tampered(notebook))):
        nbformat.write(content, folder / f"{which}.ipynb")
    good, bad = (run_nbval(folder / f"{which}.ipynb") for which in ("as_stored", "tampered"))
    assert good.returncode == 0, good.stdout + good.stderr
    assert bad.returncode == 1, "nbval did not see the changed digit\n" + bad.stdout
    assert re.search(r"\b1 failed", bad.stdout), bad.stdout


@pytest.mark.in_turn
def test_nbval_sees_a_changed_digit_in_a_small_notebook(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                f"{MARKER}\nprint('density 0.125')",
                execution_count=1,
                outputs=[nbformat.v4.new_output("stream", name="stdout", text="density 0.125\n")],
            )
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    assert_nbval_sees_a_changed_digit(notebook, tmp_path)


def quickest():
    """The notebook that ran shortest when the outputs were made."""
    record = json.loads((ROOT / "figures" / "provenance.json").read_text(encoding="utf-8"))
    return min(NAMES, key=lambda name: record["notebooks"][name]["seconds"])


@pytest.mark.in_turn
def test_nbval_sees_a_changed_digit_in_a_committed_notebook(tmp_path):
    assert_nbval_sees_a_changed_digit(up_to_first_check(read(quickest())), tmp_path)
