"""The records of all notebooks: one CSV file per notebook, merged into one page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from .agreement import VERDICTS, Agreement, agreement_table, checked, digits_of
from .env import figures_dir
from .files import replacing

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
    seen = set()
    for row in rows:
        same = (row.figure, row.quantity, row.conditions)
        if same in seen:
            raise ValueError(
                f"two records for figure {row.figure}, {row.quantity!r}; merge them, or tell them "
                "apart by their conditions."
            )
        seen.add(same)
    table = pd.DataFrame([_rounded(row) for row in rows], columns=COLUMNS)
    path = figures_dir() / "agreement" / f"{notebook}.csv"
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n")
    return path


def write_agreement(folder: Path | str | None = None) -> Path:
    """Merges the records of all notebooks in `folder/agreement/` into `folder/agreement.md`.

    Rows are ordered by figure, then notebook, then as recorded, so the page does not depend on
    the order in which notebooks ran.

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
    table = agreement_table(row for row, _ in found)
    for name in ("conditions", "known reasons"):
        if name not in table:
            table[name] = ""
    table["notebook"] = [notebook for _, notebook in found]
    counts = table["verdict"].value_counts()
    summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    lines = [
        "# Agreement with the paper",
        "",
        "Written by the notebooks; difference is ours minus the paper's, ± is the spread of ours.",
        f"{len(table)} quantities: {summary}.",
        "",
        "| " + " | ".join(table.columns) + " |",
        "|" + " --- |" * len(table.columns),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in table.itertuples(index=False)),
        "",
    ]
    path = folder / "agreement.md"
    with replacing(path) as part:
        part.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    return path


def _read(file: Path) -> list[Agreement]:
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        raise ValueError(
            f"{file} has the columns {', '.join(table.columns)}; expected {', '.join(COLUMNS)}. "
            "It was not written by this version's record(): delete it and run its notebook."
        )
    rows = []
    for line in table.to_dict("records"):
        claim = line["ours"] in ("True", "False")
        line["ours"] = line["ours"] == "True" if claim else float(line["ours"])
        for name in ("paper", "spread", "tolerance"):
            if name != "paper" or not claim:
                line[name] = float(line[name]) if line[name] else None
        rows.append(Agreement(**line))
    return rows


def _rounded(row: Agreement) -> dict[str, object]:
    """The fields, numbers cut well below what is shown, so that rounding noise changes no file."""
    values, digits = asdict(row), digits_of(row)
    if digits is not None:
        for name in ("paper", "ours", "spread"):
            if isinstance(values[name], float):
                values[name] = round(values[name], digits + 3)
    return values


def _natural(figure: str) -> tuple[int, float, str]:
    match = re.match(r"\d+", figure)
    return (0, int(match[0]), figure) if match else (1, 0, figure)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
