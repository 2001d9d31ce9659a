"""The lecture: eight live moments, notes for every slide, fifty minutes."""

import re
from pathlib import Path

import jupytext

PATH = Path(__file__).resolve().parent.parent / "notebooks" / "10_lecture.py"
CELLS = jupytext.read(PATH).cells
NOTES = [
    cell.source for cell in CELLS if cell.metadata.get("slideshow", {}).get("slide_type") == "notes"
]
LIVE = [cell for cell in CELLS if "live" in cell.metadata.get("tags", [])]


def minutes():
    said = (re.match(r"\*Speaker's notes, (\d+) minutes?, until (\d+)\.\*", n) for n in NOTES)
    return [tuple(map(int, found.groups())) for found in said]


def test_the_plan_adds_up_to_fifty_minutes():
    passed = 0
    for length, until in minutes():
        passed += length
        assert until == passed
    assert passed == 50
    plan = NOTES[0].partition("The plan, in minutes:")[2].partition(".\n")[0]
    assert [int(n) for n in re.findall(r"\d+", plan)] == [length for length, _ in minutes()]


def test_every_slide_up_to_the_exercises_has_notes():
    headings = [
        i
        for i, cell in enumerate(CELLS)
        if cell.cell_type == "markdown" and re.match("##? ", cell.source)
    ]
    for start, end in zip(headings, [*headings[1:], len(CELLS)], strict=True):
        title = CELLS[start].source.splitlines()[0].lstrip("# ")
        if title.startswith("After the lecture"):
            break
        if title != "Setup":
            assert any(cell.source in NOTES for cell in CELLS[start:end]), title


def test_the_eight_live_cells_fit_on_a_slide():
    """Their seconds are measured by benchmarks/lecture.py."""
    assert len(LIVE) == 8
    assert all(len(cell.source.splitlines()) <= 15 for cell in LIVE)


def test_no_times_are_stored():
    for cell in jupytext.read(PATH.with_suffix(".ipynb")).cells:
        for output in cell.get("outputs", []):
            assert not re.search(r"\d (s|seconds|minutes)\b", str(output.get("text", "")))
