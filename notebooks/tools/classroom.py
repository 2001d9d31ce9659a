"""Student copies, instructor copies and offline slides from the one source, the notebooks.

    python notebooks/tools/classroom.py               all notebooks (`make classroom`)
    python notebooks/tools/classroom.py --only 02     some of them

Into build/classroom/. `student/`: no solutions, outputs or speaker's notes; stubs and checks stay.
`instructor/`: the same cells, and before each check a cell with the solution; outputs are kept, to
project without running, but for those of exercises. `nbgrader/`: a course folder for nbgrader, of
which `nbgrader generate_assignment NAME` releases a notebook; checks are graded tests, answers in
words are graded by a reader, with the points that the text names (else 1). `slides/`: reveal.js
without solutions, everything that a page loads in `slides/assets/`; every `##` starts a slide, what
does not fit goes below it, code of more than 15 lines is left out and its output shown.
"""

from __future__ import annotations

import ast
import base64
import copy
import re
from pathlib import Path

from badges import address
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from pairs import (
    CHECKED,
    HINT,
    ROOT,
    BuildError,
    chosen,
    command_line,
    is_notes,
    load,
    new,
    run_command,
    serialized,
    write,
)

SOLUTION = re.compile(
    r"\n*<details>\s*<summary>Solution</summary>\s*(?:```python\n(.*?)```)?(.*?)</details>\n*",
    re.DOTALL,
)
PICTURE = re.compile(r"!\[([^\]]*)\]\(\.\./((?:figures|docs)/([\w.-]+\.png))\)")
BADGE = re.compile(r"\[!\[Open in Colab\][^\n]*\n+")
ANSWER = "*Your answer"  # how a cell begins that is answered in words
POINTS = re.compile(r"\b(\d+) points\)")
# Without this, nbgrader would put an error below the stub, and a copy would stop at the first one.
NBGRADER = """\
c = get_config()  # noqa: F821
c.ClearSolutions.code_stub = {"python": "# Your code goes into the function above."}
c.ClearSolutions.text_stub = ""
"""
# Below the title, for whom a copy is made.
FOR_STUDENTS = (
    "*Your copy: run the cells from the top, each with Shift and Enter. In exercises write your"
    " answer in the place of `...`.*"
)
FOR_INSTRUCTORS = "*Made from `notebooks/{}` by `make classroom`: change that file, not this one.*"


def prepared(notebook: NotebookNode) -> tuple[NotebookNode, dict[int, tuple[str, str]]]:
    """What all copies share, and check cell's place -> (code, remarks) of its solution.

    A solution without code follows a cell of text that begins with `ANSWER`, and has its place.

    No copy has the badge, which opens the solutions; pictures are inside and links lead to the
    repository, so that a copy which is handed out alone is complete.

    Raises:
        BuildError: a solution stands where the copies could not hold it.
    """
    kept, solutions = [], {}
    for cell in copy.deepcopy(notebook.cells):
        if cell.cell_type == "markdown":
            for found in SOLUTION.finditer(cell.source):
                place, code = len(kept) - 1, found[1]
                if code is None:
                    if place < 0 or not kept[place].source.startswith(ANSWER):
                        raise BuildError(f"an answer in words does not follow a cell {ANSWER!r}")
                elif place < 0 or kept[place].cell_type != "code":
                    raise BuildError("a solution does not follow the code cell that checks it")
                elif shared := assigned(code) & assigned(kept[place].source):
                    raise BuildError(f"the check defines {sorted(shared)} again, as its solution")
                solutions[place] = ((code or "").strip("\n"), found[2].strip())
            cell.source = BADGE.sub("", SOLUTION.sub("\n\n", cell.source)).strip("\n")
            if re.search(r"<details>|<summary>", HINT.sub("", cell.source)):
                raise BuildError(f"a folded part that is no hint or solution:\n{cell.source}")
            for found in PICTURE.finditer(cell.source):
                data = base64.b64encode((ROOT / found[2]).read_bytes()).decode()
                cell.setdefault("attachments", {})[found[3]] = {"image/png": data}
            cell.source = PICTURE.sub(r"![\1](attachment:\3)", cell.source)
            cell.source = cell.source.replace("](../", f"]({address()}/blob/main/")
        else:
            cell.source = CHECKED.sub("", cell.source)
        if cell.source or cell.cell_type == "code":
            kept.append(cell)
    return new(notebook, cells=kept), solutions


def assigned(code: str) -> set[str]:
    """Names that code defines at its top level."""
    code = re.sub(r"(?m)^(\s*)[%!]", r"\1# ", code)  # magics
    names = set()
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def without_outputs(cell: NotebookNode) -> NotebookNode:
    """The cell as if it had never run."""
    return new(cell, outputs=[], execution_count=None) if cell.cell_type == "code" else cell


def without_notes(notebook: NotebookNode) -> NotebookNode:
    """Without what a speaker keeps from the audience: what to ask, and what will come out."""
    return new(notebook, cells=[cell for cell in notebook.cells if not is_notes(cell)])


def student(common: NotebookNode) -> NotebookNode:
    """Stubs and checks, no solution, no output."""
    return new(common, cells=[without_outputs(cell) for cell in common.cells])


def instructor(common: NotebookNode, solutions: dict[int, tuple[str, str]]) -> NotebookNode:
    """Before each check, after each answer a cell tagged `solution`; no outputs of exercises."""
    cells = []
    for place, cell in enumerate(common.cells):
        shown = without_outputs(cell) if place in solutions else cell
        code, remarks = solutions.get(place, ("", ""))
        tagged = {"metadata": {"tags": ["solution"]}}
        told = [new_code_cell(code, id=f"solution-{place}", **tagged)] if code else []
        told += [new_markdown_cell(remarks, id=f"remarks-{place}", **tagged)] if remarks else []
        cells += [*told, shown] if code else [shown, *told]
    return new(common, cells=cells)


def for_nbgrader(common: NotebookNode, solutions: dict[int, tuple[str, str]]) -> NotebookNode:
    """The source of an nbgrader assignment: stub, check and answer cells have its metadata."""
    copied = copy.deepcopy(student(common))
    for number, (place, (code, remarks)) in enumerate(solutions.items(), 1):
        texts = [c.source for c in copied.cells[:place] if c.cell_type == "markdown"]
        found = POINTS.findall(texts[-1])
        points = int(found[-1]) if found else 1
        graded = copied.cells[place]
        if not code:
            graded.source = between_marks(graded.source, remarks)
            mark(graded, f"answer-{number}", solution=True, points=points)
            continue
        stub = copied.cells[place - 1]
        stub.source = between_marks(stub.source, code)
        mark(stub, f"solution-{number}", solution=True)
        graded.source = failing(graded.source)
        mark(graded, f"check-{number}", points=points)
    return copied


def between_marks(text: str, solution: str) -> str:
    """A text, and below it a solution that nbgrader takes out of the released copy."""
    return f"{text}\n\n### BEGIN SOLUTION\n{solution}\n### END SOLUTION"


def failing(check: str) -> str:
    """A check cell, which prints what it saw, so that it also fails where that is not `solved`."""
    last = ast.parse(check).body[-1]
    if not re.fullmatch(r"print\(.+\)", ast.unparse(last), re.DOTALL):
        raise BuildError(f"a check ends with {ast.unparse(last)!r}; expected print(check(answer))")
    lines = check.splitlines()[: last.lineno - 1]
    said = ast.unparse(last.value.args[0])  # of print(check_this(answer))
    # Its end, since what an answer raises or returns may say "solved" amid the sentence.
    passed = 'assert said.endswith(": solved"), said'
    return "\n".join([*lines, f"said = {said}", "print(said)", passed])


def mark(cell: NotebookNode, name: str, *, solution: bool = False, points: int = 0) -> None:
    """Writes nbgrader's metadata (its schema 3): who may change a cell, and what it is worth."""
    graded = {"grade": True, "points": points} if points else {"grade": False}
    cell.metadata["nbgrader"] = {
        "schema_version": 3, "grade_id": name, "cell_type": cell.cell_type,
        "solution": solution, "locked": not solution, "task": False, **graded,
    }  # fmt: skip


def leaks(copied: NotebookNode, original: NotebookNode) -> list[str]:
    """Lines of solutions that a copy shows anywhere, and the rest of the original does not."""
    common, solutions = prepared(original)
    open_lines = {line.strip() for cell in common.cells for line in cell.source.splitlines()}
    told = "\n".join(f"{code}\n{remarks}" for code, remarks in solutions.values())
    secret = {line.strip() for line in told.split("\n")} - open_lines
    shown = strings(copied)
    return sorted(s for s in secret if len(s) > 3 and any(s in text for text in shown))


def strings(node) -> list[str]:
    """Every string inside a notebook: sources, outputs, metadata, attachments."""
    if isinstance(node, str):
        return [node]
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [text for part in parts for text in strings(part)]


def build(path: Path, folder: Path, slides: bool = True) -> None:
    """Writes the copies of one notebook below `folder`."""
    original = load(path)
    try:
        common, solutions = prepared(original)
        copies = {
            "student": without_notes(student(common)),
            "instructor": instructor(common, solutions),
            f"nbgrader/source/{path.stem}": without_notes(for_nbgrader(common, solutions)),
        }
    except (BuildError, OSError) as error:
        raise BuildError(f"{path.name}: {error}") from error
    if found := leaks(copies["student"], original):
        raise BuildError(f"{path.name}: a solution is left in the student copy: {found[0]!r}")
    if slides:
        from slides import write_slides

        write_slides(common, folder / "slides", path.stem)
    title, _, rest = common.cells[0].source.partition("\n")
    for kind, notebook in copies.items():
        note = FOR_INSTRUCTORS if kind == "instructor" else FOR_STUDENTS
        noted = "\n".join([title, "", note.format(path.with_suffix(".py").name), rest])
        notebook.cells[0] = new(notebook.cells[0], source=noted)
        write(folder / kind / path.name, serialized(notebook))
    write(folder / "nbgrader" / "nbgrader_config.py", NBGRADER)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError with a message for the user."""
    parser = command_line(__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "classroom", help="folder")
    parser.add_argument("--no-slides", action="store_true", help="the sets of notebooks alone")
    given = parser.parse_args(arguments)
    made = "student, instructor, nbgrader" + ("" if given.no_slides else ", slides")
    for path in chosen(given.only, suffix=".ipynb"):
        build(path, given.to, slides=not given.no_slides)
        print(f"{path.stem}: {made}", flush=True)


if __name__ == "__main__":
    run_command(main)
