"""The pages for readers: complete, self-contained, and with words for every picture."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "notebooks/tools/site"), str(ROOT / "notebooks/tools")]

pytest.importorskip("mkdocs", reason="needs the extra 'site': pip install '.[site]'")

import api  # noqa: E402
import hooks  # noqa: E402
import pages  # noqa: E402
from hooks import markdown_cell, notebook_page  # noqa: E402
from pages import describe, faults  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("module", [api, hooks, pages])
def test_examples_in_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_no_page_has_a_fault(site):
    assert faults(site) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_a_page_with_its_figures(site, path):
    page = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
    stored = len(re.findall(r'"image/png"', path.read_text(encoding="utf-8")))
    assert stored
    assert len(list((site / "notebooks" / f"{path.stem}_files").glob("*.png"))) == stored
    assert page.count("<img") >= stored


def test_every_public_module_has_its_entry(site):
    shown = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    library = ROOT / "synflow_lib"
    paths = [path.relative_to(library).with_suffix("").parts for path in library.rglob("*.py")]
    names = {".".join(part for part in parts if part != "__init__") for parts in paths}
    names = {name for name in names if name and "._" not in f".{name}"}
    assert set(api.modules(ROOT)) < names
    for name in names:
        assert f'id="synflow_lib.{name}"' in shown, name


def test_the_library_s_own_names_lead_somewhere(site):
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("prune", "trajectory", "Masks", "critical_compression"):
        assert re.search(rf'href="[^"]+"[^>]*>(<[^>]+>)*sf\.{name}<', page), name


@pytest.mark.parametrize(
    "body, told",
    [
        ('<script src="https://cdn.example/x.js"></script>', "would load https://cdn.example/x.js"),
        ('<img alt="a" src="//cdn.example/x.png">', "would load //cdn.example/x.png"),
        ('<link rel="stylesheet" href="gone.css">', "would load gone.css"),
        (
            "<style>p { background: url(http://x.example/y) }</style>",
            "would load http://x.example/y",
        ),
        ('<img src="data:image/png;base64,AA==">', "no text alternative"),
        ('<img alt=" " src="data:image/png;base64,AA==">', "no text alternative"),
        ("<p>the law \\(x\\)</p>", "formula that is not set"),
    ],
)
def test_a_fault_is_found(tmp_path, body, told):
    (tmp_path / "page.html").write_text(f"<html><body>{body}</body></html>")
    (found,) = faults(tmp_path)
    assert told in found


@pytest.mark.parametrize(
    "body",
    [
        '<a href="https://arxiv.org/abs/2006.05467">paper</a>',
        "<code>\\(x\\)</code>",
        '<img alt="a line" src="data:image/png;base64,AA==">',
    ],
)
def test_what_is_no_fault_is_not_reported(tmp_path, body):
    (tmp_path / "page.html").write_text(f"<html><body>{body}</body></html>")
    assert faults(tmp_path) == []


SMALL = """# Small

## How the library is laid out

| modules | hold |
|---|---|
| `files` | files |
"""


@pytest.mark.in_turn
@pytest.mark.parametrize("link", ["docs/nowhere.md", "docs/here.md"])
def test_a_link_that_leads_nowhere_stops_the_build(link, tmp_path):
    """A small project with this one's settings and hooks."""
    library, notebooks = tmp_path / "synflow_lib", tmp_path / "notebooks"
    for folder in (library, notebooks, tmp_path / "docs", tmp_path / "figures"):
        folder.mkdir()
    for name in ("notebooks/tools", "pyproject.toml"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path / name)], check=True)
    (library / "__init__.py").write_text('"""Small."""\n')
    for name in ("files", "not_in_the_table"):
        (library / f"{name}.py").write_text('"""Some words."""\n')
    (tmp_path / "docs" / "here.md").write_text("# Here\n")
    (tmp_path / "figures" / "agreement.md").write_text("# Agreement\n")
    (tmp_path / "README.md").write_text(f"{SMALL}\n## Further\n\n[read on]({link})\n")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", "notebooks/tools/site/mkdocs.yml", "-d",
         str(tmp_path / "site")], cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert bool(run.returncode) == ("nowhere.md" in run.stderr) == ("nowhere" in link), run.stderr


def test_a_formula_that_is_no_latex_is_named():
    with pytest.raises(ValueError, match="badcommand"):
        pages.keep_formulas(r"so $\badcommand$", {})


def test_formulas_are_set_and_code_stays_as_it_is():
    text, formulas = "so\n$$a\n= b$$\n```\n$$x\n= y$$\n```", {}
    page = markdown_cell(text, formulas)
    [(place, mathml)] = formulas.items()
    assert page == f"so\n{place}\n```\n$$x\n= y$$\n```"
    assert mathml.startswith('<math display="block">') and "<mi>b</mi>" in mathml


def test_a_stored_error_is_refused(tmp_path):
    path = tmp_path / "09_x.ipynb"
    path.write_text(
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code",'
        ' "id": "a", "metadata": {}, "execution_count": 1, "source": "1/0", "outputs":'
        ' [{"output_type": "error", "ename": "ZeroDivisionError", "evalue": "",'
        ' "traceback": []}]}]}'
    )
    with pytest.raises(ValueError, match="run the notebook again"):
        notebook_page(path, {})


def test_a_figure_is_told_by_its_axes_and_legend(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label="SynFlow")
    axes.set(xlabel="compression", ylabel="accuracy")
    axes.legend()
    figure.savefig(tmp_path / "x.svg")
    assert describe(tmp_path / "x.svg") == "accuracy against compression; legend: SynFlow"


def test_readme_s_table_of_modules_names_modules_that_exist(tmp_path):
    (tmp_path / "synflow_lib").mkdir()
    (tmp_path / "README.md").write_text(f"{api.LAYOUT}\n\n| a | b |\n|---|---|\n| `gone` | x |\n")
    with pytest.raises(ValueError, match="gone"):
        api.groups(tmp_path)
