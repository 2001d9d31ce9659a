"""Runs on real images that were recorded once, to be drawn at any scale in seconds.

`experiments.real` makes them; a line of ``results/real/<part>.jsonl`` is a run, with the conditions
under which it was done. They belong to CIFAR-10's images encoded again as JPEG.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

# Figure of the paper -> parts of the grid that show it.
FIGURES = {"figure1": ("b",), "figure5a": ("d",), "figure6": ("a", "c")}
# With the package, or in its checkout.
_PLACES = [Path(__file__).parents[up] / "results" / "real" for up in (1, 2)]


def recorded(name: str, source: str | os.PathLike | None = None) -> pd.DataFrame:
    """The recorded runs behind a figure.

    Args:
        name: "figure1", "figure5a" or "figure6".
        source: a folder of ``.jsonl`` files; None takes those of the library.

    Returns:
        One row a run: part, dataset, model, method (the label of its curve), compression, seed,
        accuracy (top-1 after the last epoch, percent), best (over epochs), before (before
        training), kept, disconnected, empty_layers, epochs (of the recipe), accuracies (a list:
        top-1 before training and after each epoch), rounds (of iterative magnitude pruning, or
        None), seconds, device_name, torch, finished, key. ``Run.from_dict`` of the column run makes
        the run again.

    Raises:
        ValueError: another name; a file that is damaged, with its line.
        FileNotFoundError: no recorded runs in that place.

    >>> import tempfile
    >>> recorded("figure6", tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    FileNotFoundError: no recorded runs of figure6 in ...
    """
    if name not in FIGURES:
        raise ValueError(f"nothing is recorded as {name!r}; expected one of {', '.join(FIGURES)}")
    places = _PLACES if source is None else [Path(source)]
    for place in places:
        files = [place / f"{part}.jsonl" for part in FIGURES[name]]
        rows = [row for file in files if file.exists() for row in _rows(file)]
        if rows:
            return pd.DataFrame(rows)
    raise FileNotFoundError(
        f"no recorded runs of {name} in {', '.join(map(str, places))}; expected files like"
        f" {files[0].name}, as reproduction.experiments.real writes them with --export"
    )


def _rows(file: Path) -> list[dict]:
    rows = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(_row(json.loads(text)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {file} is no recorded run ({type(error).__name__}: {error})"
            ) from error
    return rows


def _row(line: dict) -> dict:
    run = line["run"]
    return {
        "part": line["part"], "dataset": run["dataset"], "model": run["model"],
        "method": line["label"], "compression": run["compression"], "seed": run["seed"],
        "accuracy": line["top1"], "best": line["best_top1"], "before": line["top1_before"],
        "kept": line["kept"], "disconnected": line["disconnected"],
        "empty_layers": line["empty_layers"], "epochs": run["recipe"]["epochs"],
        "accuracies": line["epochs"], "rounds": line.get("rounds"), "seconds": line["seconds"],
        "device_name": line["machine"].get("device_name"), "torch": line["machine"].get("torch"),
        "finished": line["finished"], "key": line["key"], "run": run,
    }  # fmt: skip
