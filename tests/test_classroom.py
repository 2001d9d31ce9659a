"""Copies for a classroom: the same but for the solutions, which only the instructor sees."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import synflow_lib as sf

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER / "tools"))

import classroom  # noqa: E402
import slides  # noqa: E402
from pairs import HINT, BuildError  # noqa: E402

PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
missing = [name for name in slides.PACKAGES if importlib.util.find_spec(name) is None]
needs_scripts = pytest.mark.skipif(
    bool(missing), reason=f"slides need {', '.join(missing)}: pip install '.[classroom]'"
)

FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n{}\n</details>"
HINTED = "<details><summary>Hint</summary>\n\nAdd.\n\n</details>"
STUB = "def double(x):\n    ..."
CHECK = "print('solved' if double(3) == 6 else 'not yet')"


def sample(solution="def double(x):\n    return x + x", remarks="", check=CHECK):
    """The anatomy of a course notebook, with one exercise."""
    return new_notebook(
        cells=[
            new_markdown_cell(
                "# 09 · Sample\n\n[![Open in Colab](https://x/y.svg)](https://x/z)\n\nText."
            ),
            new_code_cell("1 + 1", execution_count=1, outputs=[new_output("stream", text="2\n")]),
            new_markdown_cell(f"### Exercise 1 · Double it\n\nTwice.\n\n{HINTED}"),
            new_code_cell(STUB),
            new_code_cell(check, outputs=[new_output("stream", text="not yet\n")]),
            new_markdown_cell(FOLDED.format(solution, remarks)),
            new_markdown_cell("## Takeaways\n\n- $a$"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def copies(notebook):
    common, solutions = classroom.prepared(notebook)
    return classroom.student(common), classroom.instructor(common, solutions), solutions


def bare(cell):
    """What must be equal in both copies: all but outputs."""
    kept = {k: v for k, v in cell.items() if k not in ("outputs", "execution_count")}
    return nbformat.from_dict(kept)


def without_solutions(notebook):
    return [bare(c) for c in notebook.cells if "solution" not in c.metadata.get("tags", [])]


@every_notebook
def test_copies_differ_only_in_the_solutions_and_none_is_left(path):
    original = nbformat.read(path, as_version=4)
    pupil, teacher, solutions = copies(original)
    assert len(solutions) == sum(c.source.count("Solution</summary>") for c in original.cells) >= 2
    assert [bare(cell) for cell in pupil.cells] == without_solutions(teacher)
    assert len(teacher.cells) >= len(pupil.cells) + len(solutions)
    assert classroom.leaks(pupil, original) == []
    assert classroom.leaks(teacher, original), "the same search finds them where they are"
    text = "\n".join(classroom.strings(pupil))
    assert (
        "<details>" not in HINT.sub("", text) and "](../" not in text and "colab-badge" not in text
    )
    assert not any(cell.get("outputs") for cell in pupil.cells)
    assert "NBVAL" not in text, "what speaks to the tests puzzles a student"
    for notebook in (pupil, teacher):
        nbformat.validate(notebook)


def test_a_copy_says_for_whom_it_is(tmp_path):
    """A student was told to change another file than the one to write into."""
    notes = new_markdown_cell("Ask first.", metadata={"slideshow": {"slide_type": "notes"}})
    original = sample()
    original.cells.insert(2, notes)
    nbformat.write(original, tmp_path / "09_sample.ipynb")
    classroom.build(tmp_path / "09_sample.ipynb", tmp_path, slides=False)
    made = {
        kind: nbformat.read(tmp_path / kind / "09_sample.ipynb", as_version=4).cells
        for kind in ("student", "nbgrader/source/09_sample", "instructor")
    }
    told = {kind: cells[0].source for kind, cells in made.items()}
    spoken = [kind for kind, cells in made.items() if any("Ask" in c.source for c in cells)]
    assert spoken == ["instructor"]
    yours = [kind for kind, text in told.items() if "Your copy" in text]
    assert yours == ["student", "nbgrader/source/09_sample"]
    assert [kind for kind, text in told.items() if "change that file" in text] == ["instructor"]


def test_a_copy_that_differs_elsewhere_is_seen():
    pupil, teacher, _ = copies(sample())
    assert [bare(cell) for cell in pupil.cells] == without_solutions(teacher)
    teacher.cells[2].source += " Quickly."
    assert [bare(cell) for cell in pupil.cells] != without_solutions(teacher)


@pytest.mark.parametrize("place", ["source", "output", "metadata", "hidden"])
def test_a_leaked_solution_is_seen_wherever_it_hides(place):
    original = sample(remarks="\nAdd it to itself.\n")
    pupil, _, _ = copies(original)
    assert classroom.leaks(pupil, original) == []
    if place == "source":
        pupil.cells[3].source += "\n# return x + x"
    elif place == "output":
        pupil.cells[4].outputs = [new_output("stream", text="hint: return x + x")]
    elif place == "metadata":
        pupil.cells[4].metadata["answer"] = ["return x + x"]
    else:
        pupil.cells[0].source += "<!-- Add it to itself. -->"
    assert classroom.leaks(pupil, original)


def run(notebook, folder):
    """All cells in a kernel; returns what is printed."""
    nbformat.write(notebook, folder / "copy.ipynb")
    ran = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [out for cell in ran.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs)


def test_a_student_copy_runs_and_says_not_yet_an_instructor_copy_is_solved(tmp_path):
    pupil, teacher, _ = copies(sample())
    assert run(pupil, tmp_path) == "not yet\n"
    assert run(teacher, tmp_path) == "solved\n"
    wrong = copies(sample(solution="def double(x):\n    return 2 + x"))[1]
    assert run(wrong, tmp_path) == "not yet\n"


def test_a_real_student_copy_runs(tmp_path, monkeypatch):
    """Its setup and its exercises; the other cells run with the notebook."""
    monkeypatch.delenv("MPLBACKEND", raising=False)
    pupil, _, solutions = copies(nbformat.read(FOLDER / "00_start_here.ipynb", as_version=4))
    cells = pupil.cells
    setup = next(i for i, cell in enumerate(cells) if "import synflow_lib as sf" in cell.source)
    exercises = [cells[i] for place in solutions for i in (place - 1, place)]
    pupil.cells = [*cells[: setup + 1], *exercises]
    assert run(pupil, tmp_path).count("not answered yet") == len(solutions)


def printed(code, names):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        exec(re.sub(r"(?m)^( *)%", r"\1# %", code), names)  # magics are for notebooks
    return text.getvalue()


@pytest.mark.in_turn
@every_notebook
def test_checks_tell_a_stub_from_the_solution(path):
    """The exercises, with the imports and nothing else of the notebook.

    The cells of both copies are those of the notebook (above); so each is run once, here.
    """
    common, solutions = classroom.prepared(nbformat.read(path, as_version=4))
    cells, names = common.cells, {}
    printed(next(cell.source for cell in cells if "import synflow_lib" in cell.source), names)
    solved = 0
    for place, (solution, _) in solutions.items():
        if not solution:  # answered in words
            continue
        stub, check = cells[place - 1].source, cells[place].source
        text = printed(f"{stub}\n\n{check}", names)
        assert "not answered yet" in text and "solved" not in text, text
        printed(solution, names)
        assert printed(check, names).endswith(": solved\n")
        solved += 1
    assert solved >= 2, f"{path.stem}: {solved} exercises with a solution"


@every_notebook
def test_an_exercise_has_minutes_difficulty_hint_and_the_check_of_its_number(path):
    if path.stem == "09_course_lab":
        pytest.skip("the lab has points instead, and no hints")
    common, solutions = classroom.prepared(nbformat.read(path, as_version=4))
    cells, listed = common.cells, []
    for number, place in enumerate(solutions, 1):
        told = cells[place - 2].source
        title = re.match(rf"### Exercise ({number} · .+)\n", told)
        assert title and HINT.search(told), told
        minutes, difficulty = re.search(
            r"\*(\d+) minutes, difficulty ([1-5]) of 5\.\*", told
        ).groups()
        name = re.fullmatch(r"print\(sf\.exercises\.(check_\w+)\(\w+\)\)", cells[place].source)[1]
        assert getattr(sf.exercises, name).number == number
        above = "\n".join(c.source for c in cells[:place] if c.cell_type == "markdown")
        section = re.findall(r"(?m)^## (.+)$", above)[-1]
        listed.append(f"| {title[1]} | {section} | {minutes} | {difficulty} |")
    table = next(cell.source for cell in cells if cell.source.startswith("## Exercises"))
    assert table.splitlines()[-len(listed) :] == listed


def test_outputs_of_exercises_alone_are_cleared_for_an_instructor():
    teacher = copies(sample())[1]
    assert [bool(c.outputs) for c in teacher.cells if c.cell_type == "code"] == [
        True, False, False, False
    ]  # fmt: skip


def test_a_solution_that_the_check_would_overwrite_is_refused():
    with pytest.raises(BuildError, match="double"):
        copies(sample(check=f"{STUB}\n{CHECK}"))


def test_a_solution_without_a_check_is_refused():
    notebook = sample()
    del notebook.cells[3:5]
    with pytest.raises(BuildError, match="does not follow"):
        copies(notebook)


def test_a_folded_part_in_another_form_is_refused():
    notebook = sample()
    notebook.cells[5].source = "<details><summary>Answer</summary>x + x</details>"
    with pytest.raises(BuildError, match="no hint or solution"):
        copies(notebook)


def test_a_check_that_prints_nothing_cannot_be_graded():
    with pytest.raises(BuildError, match=r"ends with 'check\(double\)'; expected print"):
        classroom.failing("check(double)")


# ------------------------------------------------------------------------------- slides


@pytest.mark.in_turn
@needs_scripts
def test_slides_of_every_notebook_load_nothing_from_afar_and_tell_no_solution(tmp_path):
    for path in PATHS:
        original = nbformat.read(path, as_version=4)
        common, _ = classroom.prepared(original)
        page = slides.write_slides(common, tmp_path, path.stem)
        assert slides.absent(page) == []
        html = page.read_text(encoding="utf-8")
        assert html.count("<section") > 10 and "data:image/png" in html
        shown = nbformat.from_dict({"text": html})
        code = [line for line in classroom.leaks(shown, original) if "<" not in line]
        assert code == [], f"{path.stem}: {code}"


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/reveal.js"></script>',
        '<img src="pictures/none.png">',
        '<link rel="stylesheet" href="far.css">',
        "<style>@import url(//fonts.example/lato.css);</style>",
        '<p style="background: url(https://x.example/a.png)">',
        "<script type='module'>import mermaid from 'https://cdn.example/m.mjs'</script>",
        "<script>require(['assets/none.js'])</script>",
    ],
)
def test_a_resource_that_is_not_there_is_seen(html, tmp_path):
    (tmp_path / "far.css").write_text("@import 'https://x.example/b.css';")
    (tmp_path / "near.css").write_text("p { color: red }")
    page = tmp_path / "page.html"
    good = '<link href="near.css"><img src="data:image/png;base64,AA"><a href="https://x.y">z</a>'
    page.write_text(good)
    assert slides.absent(page) == []
    page.write_text(good + html)
    assert len(slides.absent(page)) == 1


def test_slides_start_at_headings_and_long_cells_continue_below():
    long = "\n\n".join(f"Paragraph {i}." for i in range(60))
    cells = [new_markdown_cell("# 09 · T"), new_markdown_cell(f"## One\n\n{long}")]
    code = "\n".join(f"x{i} = {i}" for i in range(40))
    cells.append(new_code_cell(code, outputs=[new_output("stream", text="7\n")]))
    shown = slides.as_slides(new_notebook(cells=cells)).cells
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in shown]
    assert kinds[:2] == ["slide", "slide"] and set(kinds[2:-1]) == {"subslide"}
    assert "\n\n".join(cell.source for cell in shown[1:-1]) == f"## One\n\n{long}"
    assert shown[-1].metadata["transient"]["remove_source"] and shown[-1].outputs


def test_the_setup_is_no_slide_and_exercises_show_their_text():
    cells = [new_markdown_cell("# 09 · T"), new_markdown_cell("## Setup"), new_code_cell("x = 1")]
    cells += [new_markdown_cell("## Law"), new_code_cell("x + 1")]
    cells += [new_markdown_cell("## Exercises"), new_code_cell("y = ...")]
    shown = slides.as_slides(new_notebook(cells=cells)).cells
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in shown]
    assert kinds == ["slide", "skip", "skip", "slide", "-", "slide", "skip"]


def test_an_exercise_amid_the_text_shows_its_text_without_the_hint():
    cells = [
        new_markdown_cell("## Law"),
        new_markdown_cell(f"### Exercise 1 · A\n\nB.\n\n{HINTED}"),
    ]
    cells += [new_code_cell(STUB), new_markdown_cell("## Next"), new_code_cell("x = 1")]
    shown = slides.as_slides(new_notebook(cells=cells)).cells
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in shown]
    assert kinds == ["slide", "-", "skip", "slide", "-"]
    assert shown[1].source == "### Exercise 1 · A\n\nB."


def test_notes_of_a_speaker_stay_notes_in_one_piece():
    long = "\n\n".join(["A paragraph of notes."] * 2 * slides.ROOM)
    notes = new_markdown_cell(long, metadata={"slideshow": {"slide_type": "notes"}})
    cells = [new_markdown_cell("## A"), new_code_cell("x = 1"), notes, new_markdown_cell("## B")]
    shown = slides.as_slides(new_notebook(cells=cells)).cells
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in shown]
    assert kinds == ["slide", "notes", "-", "slide"]


def test_notes_are_shown_again_on_what_is_below_their_slide():
    notes = new_markdown_cell("Say.", metadata={"slideshow": {"slide_type": "notes"}})
    below = new_markdown_cell("\n\n".join(["A paragraph."] * (slides.ROOM + 1)))
    shown = slides.as_slides(new_notebook(cells=[new_markdown_cell("## A"), below, notes])).cells
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in shown]
    assert kinds[:2] == ["slide", "notes"]
    assert kinds[kinds.index("subslide") + 1] == "notes" and kinds.count(
        "notes"
    ) == 1 + kinds.count("subslide")
    assert len({cell.id for cell in shown}) == len(shown)


def test_a_paragraph_is_counted_as_it_is_filled():
    short = "\n".join(["three words here"] * 5)  # 84 characters in one line
    assert slides.lines(short) == 1
    assert slides.lines("- a\n- b\n\n```\nx\ny\n```") == 2 + 4
    assert slides.lines("![a long description](x.png)") >= 10


def test_formulas_and_code_stay_in_one_piece():
    text = "Law:\n\n$$a\n\n= b$$\n\n```python\nx\n\ny\n```\n\nEnd."
    assert slides.blocks(text) == ["Law:", "$$a\n\n= b$$", "```python\nx\n\ny\n```", "End."]


def test_names_that_a_cell_defines():
    assert classroom.assigned("%matplotlib inline\nx, y = 1, 2\ndef f():\n    z = 3") == set("xyf")
