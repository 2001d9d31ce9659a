"""Student copies, instructor copies and offline slides from the one source, the notebooks.

    python notebooks/tools/classroom.py               all notebooks (`make classroom`)
    python notebooks/tools/classroom.py --only 02     some of them

Into build/classroom/. `student/`: no solutions, no outputs; stubs and checks stay. `instructor/`:
the same cells, and before each check a cell with the solution; outputs above the exercises are
kept, to project without running. `slides/`: reveal.js without solutions, everything that a page
loads in `slides/assets/`; every `##` starts a slide, what does not fit goes below it, code of more
than 15 lines is left out and its output shown.
"""

from __future__ import annotations

import argparse
import ast
import base64
import copy
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from pairs import HERE, ROOT, BuildError, serialized

SOLUTION = re.compile(
    r"\n*<details>\s*<summary>Solution</summary>\s*```python\n(.*?)```(.*?)</details>\n*", re.DOTALL
)
PICTURE = re.compile(r"!\[([^\]]*)\]\(\.\./(figures/([\w.-]+\.png))\)")
BADGE = re.compile(r"\[!\[Open in Colab\][^\n]*\n+")
NOTE = "*Made from `notebooks/{}` by `make classroom`: change that file, not this one.*"


def split_solutions(cells: list[NotebookNode]) -> tuple[list, dict[int, tuple[str, str]]]:
    """Cells without solutions, and check cell's place -> (code, remarks) of its solution.

    Raises:
        BuildError: a solution stands where the copies could not hold it.
    """
    kept, solutions = [], {}
    for cell in cells:
        if cell.cell_type == "markdown":
            text = cell.source
            for found in SOLUTION.finditer(text):
                place = len(kept) - 1
                if place < 0 or kept[place].cell_type != "code":
                    raise BuildError("a solution does not follow the code cell that checks it")
                if shared := assigned(found[1]) & assigned(kept[place].source):
                    raise BuildError(f"the check defines {sorted(shared)} again, as its solution")
                solutions[place] = (found[1].strip("\n"), found[2].strip())
            cell = nbformat.from_dict({**cell, "source": SOLUTION.sub("\n\n", text).strip("\n")})
            if re.search(r"<details>|<summary>", cell.source):
                raise BuildError(f"a folded part that is no solution as expected:\n{cell.source}")
            if not cell.source:
                continue
        kept.append(cell)
    return kept, solutions


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


def with_pictures(cell: NotebookNode, root: Path) -> NotebookNode:
    """The cell with its pictures inside it, so that a copy handed out alone is complete."""
    cell = nbformat.from_dict(copy.deepcopy(dict(cell)))
    if cell.cell_type != "markdown":
        return cell
    for found in PICTURE.finditer(cell.source):
        data = base64.b64encode((root / found[2]).read_bytes()).decode()
        cell.setdefault("attachments", {})[found[3]] = {"image/png": data}
    cell["source"] = PICTURE.sub(r"![\1](attachment:\3)", cell.source)
    return cell


def prepared(notebook: NotebookNode, source: str, root: Path) -> tuple[NotebookNode, dict]:
    """What all copies share: no badge (it opens the solutions), pictures inside, the origin."""
    common, solutions = without_badge(notebook, root)
    first = common.cells[0].source.split("\n", 1)
    common.cells[0]["source"] = "\n".join([first[0], "", NOTE.format(source), *first[1:]])
    return common, solutions


def without_badge(notebook: NotebookNode, root: Path) -> tuple[NotebookNode, dict]:
    """No badge, no solutions, pictures inside; and the solutions."""
    cells, solutions = split_solutions(notebook.cells)
    cells = [with_pictures(cell, root) for cell in cells]
    cells[0]["source"] = BADGE.sub("", cells[0].source)
    return nbformat.from_dict({**notebook, "cells": cells}), solutions


def without_outputs(cell: NotebookNode) -> NotebookNode:
    """The cell as if it had never run."""
    fresh = nbformat.from_dict(copy.deepcopy(dict(cell)))
    if fresh.cell_type == "code":
        fresh["outputs"], fresh["execution_count"] = [], None
    return fresh


def student(common: NotebookNode) -> NotebookNode:
    """Stubs and checks, no solution, no output."""
    cells = [without_outputs(cell) for cell in common.cells]
    return nbformat.from_dict({**common, "cells": cells})


def instructor(common: NotebookNode, solutions: dict[int, tuple[str, str]]) -> NotebookNode:
    """Before each check a cell tagged `solution`; outputs only above the exercises."""
    start = next((i for i, c in enumerate(common.cells) if "## Exercises" in c.source), 0)
    cells = []
    for place, cell in enumerate(common.cells):
        if place in solutions:
            code, remarks = solutions[place]
            tagged = {"metadata": {"tags": ["solution"]}}
            cells.append(new_code_cell(code, id=f"solution-{place}", **tagged))
            if remarks:
                cells.append(new_markdown_cell(remarks, id=f"remarks-{place}", **tagged))
        cells.append(cell if place < start else without_outputs(cell))
    return nbformat.from_dict({**common, "cells": cells})


def leaks(copied: NotebookNode, original: NotebookNode) -> list[str]:
    """Lines of solutions that a copy shows anywhere, and the rest of the original does not."""
    cells, solutions = split_solutions(original.cells)
    open_lines = {line.strip() for cell in cells for line in cell.source.splitlines()}
    secret = {
        line.strip() for code, text in solutions.values() for line in f"{code}\n{text}".split("\n")
    }
    secret = {line for line in secret - open_lines if len(line) > 3}
    return sorted(line for line in secret if any(line in text for text in strings(copied)))


def strings(node) -> list[str]:
    """Every string inside a notebook: sources, outputs, metadata, attachments."""
    if isinstance(node, str):
        return [node]
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [text for part in parts for text in strings(part)]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError with a message for the user."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], metavar="NN", help="start of a name")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "classroom", help="folder")
    parser.add_argument("--no-slides", action="store_true", help="the two sets of notebooks alone")
    given = parser.parse_args(arguments)
    chosen = [
        p for p in sorted(HERE.glob("[0-9][0-9]_*.ipynb")) if p.name.startswith(tuple(given.only))
    ]
    if not chosen:
        raise BuildError(f"no notebook starts with {' or '.join(given.only)}")
    for path in chosen:
        build(path, given.to, slides=not given.no_slides)
        print(
            f"{path.stem}: student, instructor{'' if given.no_slides else ', slides'}", flush=True
        )


def build(path: Path, folder: Path, slides: bool = True) -> None:
    """Writes the copies of one notebook below `folder`."""
    original = nbformat.read(path, as_version=4)
    try:
        common, solutions = prepared(original, path.with_suffix(".py").name, ROOT)
    except (BuildError, OSError) as error:
        raise BuildError(f"{path.name}: {error}") from error
    copies = {"student": student(common), "instructor": instructor(common, solutions)}
    if found := leaks(copies["student"], original):
        raise BuildError(f"{path.name}: a solution is left in the student copy: {found[0]!r}")
    for kind, notebook in copies.items():
        target = folder / kind / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(serialized(notebook), encoding="utf-8")
    if slides:
        from slides import write_slides

        write_slides(without_badge(original, ROOT)[0], folder / "slides", path.stem)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"classroom: {error}")
