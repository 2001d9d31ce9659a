"""Seconds of the live cells of notebook 10, which an audience waits for.

    python benchmarks/lecture.py [--threads 1]

All cells run in one process, in order; those of the tag `live` are timed.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import jupytext
import matplotlib
import torch

import synflow_lib as sf

HERE = Path(__file__).resolve().parent
LECTURE = HERE.parent / "notebooks" / "10_lecture.py"


def main() -> None:
    """Prints a row a live cell and writes them to results/lecture.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    matplotlib.use("agg")
    names, rows, title = {"display": print}, [], ""
    for cell in jupytext.read(LECTURE).cells:
        if cell.cell_type == "markdown":
            title = next(iter(re.findall(r"(?m)^## (.+)", cell.source)), title)
            continue
        clock, computed = time.perf_counter(), time.process_time()
        exec(re.sub(r"(?m)^(\s*)%pip.*", r"\1pass", cell.source), names)
        if "live" in cell.metadata.get("tags", []):
            spent = time.perf_counter() - clock, time.process_time() - computed
            rows.append(f"| {title} | {spent[0]:.1f} | {spent[1]:.1f} |")
    known = sf.env.describe()
    what = f"{torch.get_num_threads()} thread(s), torch {known['torch']}, {known['device_name']}"
    head = ["| live cell | clock, s | computed, s |", "|---|---|---|"]
    text = "\n".join([f"## Live cells of the lecture\n\n{what}\n", *head, *rows, ""])
    (HERE / "results" / "lecture.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
