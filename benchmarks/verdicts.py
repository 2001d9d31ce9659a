"""The verdicts of the notebooks, made with other instructions of the processor.

In one clone each:

    make figures
    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 make figures
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 make figures

and then, with the folders figures/ that they leave, the first one to compare the others with:

    python benchmarks/verdicts.py AVX-512=FOLDER SSE4.1=FOLDER AVX2=FOLDER

Writes benchmarks/results/verdicts.md. Exit status 1 where a verdict differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

import synflow_lib as sf

RESULTS = Path(__file__).parent / "results" / "verdicts.md"
ROW = ["figure", "quantity", "conditions"]  # what names a row


def rows(figures: Path) -> pd.DataFrame:
    """All rows of agreement of a build, text as it stands in the files."""
    files = sorted((figures / "agreement").glob("*.csv"))
    if not files:
        raise SystemExit(f"{figures} holds no agreement/*.csv; expected a folder figures/")
    tables = [pd.read_csv(file, dtype=str).fillna("") for file in files]
    return pd.concat(tables).set_index(ROW).sort_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs="+", metavar="NAME=FOLDER")
    builds = dict(given.split("=", 1) for given in parser.parse_args().builds)
    (first, reference), *others = [(name, rows(Path(folder))) for name, folder in builds.items()]
    lines, wrong = [], []
    for name, table in others:
        if not table.index.equals(reference.index):
            raise SystemExit(f"{name} and {first} have other rows")
        differs = table["verdict"] != reference["verdict"]
        digits = (table != reference).any(axis=1).sum()
        lines.append(f"| {name} | {len(table)} | {len(table) - differs.sum()} | {digits} |")
        wrong += [f"{name}: {' / '.join(row)}" for row in table.index[differs]]
    machine = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    head = [
        "# Verdicts under other instructions of the processor",
        "",
        f"`python benchmarks/verdicts.py {' '.join(f'{name}=...' for name in builds)}`",
        "",
        machine,
        "",
        f"| instructions | rows | the same verdict as with {first} | some digit is another |",
        "|---|---|---|---|",
    ]
    RESULTS.write_text("\n".join([*head, *lines, *(["", *wrong] if wrong else []), ""]))
    print(RESULTS.read_text())
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
