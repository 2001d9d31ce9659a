"""The records of all notebooks: one CSV file per notebook, merged into one page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from ..env import figures_dir
from ..files import replacing
from .agreement import VERDICTS, Agreement, agreement_table, checked, digits_of

COLUMNS = [field.name for field in fields(Agreement)]


def record(notebook: str, rows: Iterable[Agreement]) -> Path:
    """Writes the records of one notebook to `agreement/<notebook>.csv` among the figures.

    A notebook that runs again replaces its own records and no others.

    Args:
        notebook: its name, such as "01_layer_collapse": letters, digits, `_`, `-`.
        rows: at least one record; no two with the same figure, quantity and conditions.

    Returns:
        The file written.

    Raises:
        ValueError: a name that could not be a file's, no rows, or a repeated row.
        TypeError: a row that is no `Agreement`.
    """
    if not isinstance(notebook, str) or not re.fullmatch(r"\w[\w-]*", notebook, re.ASCII):
        raise ValueError(
            f"notebook is {notebook!r}; expected its name, such as '01_layer_collapse'."
        )
    rows = checked(rows)
    counts = Counter((row.figure, row.quantity, row.conditions) for row in rows)
    (figure, quantity, _), most = counts.most_common(1)[0]
    if most > 1:
        raise ValueError(
            f"two records for figure {figure}, {quantity!r}; merge them, or tell them apart by"
            " their conditions."
        )
    table = pd.DataFrame([_rounded(row) for row in rows], columns=COLUMNS)
    table["seeds"] = table["seeds"].astype("Int64")  # whole numbers beside empty cells
    path = figures_dir() / "agreement" / f"{notebook}.csv"
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n")
    return path


def write_agreement(folder: Path | str | None = None) -> Path:
    """Merges the records of all notebooks in `folder/agreement/` into `folder/agreement.md`.

    What was measured stands in one table, what is true by construction in another. Rows are ordered
    by figure, then notebook, then as recorded, so the page does not depend on the order in which
    notebooks ran.

    Args:
        folder: the folder of the figures; None is `env.figures_dir()`.

    Returns:
        The path of the page.

    Raises:
        ValueError: no records there, or a file that `record` has not written.
    """
    folder = figures_dir() if folder is None else Path(folder)
    files = sorted((folder / "agreement").glob("*.csv"))
    if not files:
        raise ValueError(f"no records in {folder / 'agreement'}; run the notebooks first.")
    found = [(row, file.stem) for file in files for row in _read(file)]
    found.sort(key=lambda pair: _natural(pair[0].figure))  # stable: file and row order stay
    measured = [pair for pair in found if pair[0].kind != "identity"]
    built_in = [pair for pair in found if pair[0].kind == "identity"]
    lines = ["# Agreement with the paper", "", _INTRODUCTION, "", *_section(measured, "quantities")]
    if built_in:
        lines += ["## What the tests of the implementation show", "", _IDENTITIES, ""]
        lines += _section(built_in, "statements")
    path = folder / "agreement.md"
    with replacing(path) as part:
        part.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    return path


_INTRODUCTION = """\
Written by the notebooks. The 95% interval over seeds decides: inside the margin, *agrees* (numbers)
or *confirmed* (claims); outside, *differs* or *not confirmed*; anything else, one seed included,
*undecided*. The interval is that of ours minus the paper's where the paper has a number, else of
ours. A claim about several places must hold at each; shown is the place that decides. Margins were
written down with earlier runs of the same experiments in view, so this page describes and explains;
it is no preregistered test."""

_IDENTITIES = """\
These are true by mathematics or by construction. To see them says that the library computes what it
should, and nothing about the paper's experiments."""


def _section(found: list[tuple[Agreement, str]], what: str) -> list[str]:
    """Counts and a table in Markdown."""
    if not found:
        return [f"No {what}.", ""]
    table = agreement_table(row for row, _ in found)
    table["notebook"] = [notebook for _, notebook in found]
    table = table.loc[:, (table != "").any()]
    counts = table["verdict"].value_counts()
    summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    return [
        f"{len(table)} {what}: {summary}.",
        "",
        "| " + " | ".join(table.columns) + " |",
        "|" + " --- |" * len(table.columns),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in table.itertuples(index=False)),
        "",
    ]


def _read(file: Path) -> list[Agreement]:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        raise ValueError(
            f"{file} has the columns {', '.join(table.columns)}; expected {', '.join(COLUMNS)}. "
            "It was not written by this version's record(): delete it and run its notebook."
        )
    rows = []
    for line in table.to_dict("records"):
        for name in ("ours", "low", "high", "margin", "paper"):
            if name != "paper" or line["kind"] != "claim":
                line[name] = float(line[name]) if line[name] else None
        line["seeds"] = int(line["seeds"]) if line["seeds"] else None
        line["side"] = line["side"] or None
        rows.append(Agreement(**line))
    return rows


def _rounded(row: Agreement) -> dict[str, object]:
    """The fields, numbers cut well below what is shown, so that rounding noise changes no file."""
    values, digits = asdict(row), digits_of(row)
    if digits is not None:
        for name in ("paper", "ours", "low", "high"):
            if isinstance(values[name], float):
                values[name] = round(values[name], digits + 3)
    return values


def _natural(figure: str) -> tuple[int, float, str]:
    match = re.match(r"\d+", figure)
    return (0, int(match[0]), figure) if match else (1, 0, figure)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
