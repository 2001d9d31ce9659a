"""Exercises: unsolved they run and say so, and the solution that is printed passes the check."""

import contextlib
import io
import re
from pathlib import Path

import jupytext
import pytest

import synflow_lib as sf

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9][0-9]_*.py"))
SOLUTION = re.compile(r"<details><summary>Solution</summary>.*?```python\n(.*?)```", re.DOTALL)


def run(code, names):
    """What the cell prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(re.sub(r"(?m)^( *)%", r"\1# %", code), names)  # magics are for notebooks
    return printed.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_checks_tell_a_stub_from_the_solution(name):
    cells = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent").cells
    names = {"net": sf.models.vgg11(seed=0)}  # what a check may use of the text above it
    run(next(cell.source for cell in cells if "import synflow_lib" in cell.source), names)
    start = next(i for i, cell in enumerate(cells) if "## Exercises" in cell.source)
    check, solved = None, 0
    for cell in cells[start + 1 :]:
        if cell.cell_type == "code":
            check, printed = cell.source, run(cell.source, names)
            if printed:
                assert "not yet" in printed and "solved" not in printed, printed
                again = [run(cell.source, names) for _ in range(3)]
                assert {*again} == {printed}, "a stub's message must not vary from run to run"
        elif found := SOLUTION.search(cell.source):
            run(found.group(1), names)
            assert "solved" in run(check, names)
            solved += 1
    assert solved >= 2, f"{name}: {solved} exercises with a solution"
