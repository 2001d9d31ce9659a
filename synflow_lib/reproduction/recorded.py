"""What was computed once, to be drawn at any scale in seconds.

A line of a ``.jsonl`` file below ``results/`` is a run with the conditions under which it was done.
``results/real`` holds trained networks (`experiments.real`; their images are CIFAR-10's encoded
again as JPEG), ``results/untrained`` what needs the paper's largest network (`experiments.vgg19`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

# With the package, or in its checkout.
_PLACES = [Path(__file__).parents[up] / "results" for up in (1, 2)]


def recorded(name: str, source: str | os.PathLike | None = None) -> pd.DataFrame:
    """The recorded runs behind a figure.

    Args:
        name: "figure1", "figure2", "figure5a", "figure6", "figure7", or "small": a run on digits
            that takes seconds, to be made again.
        source: a folder of ``.jsonl`` files; None takes those of the library.

    Returns:
        Figures 1, 5a (which nobody has run yet), 6 and "small", one row a run: part, dataset,
        model, method (its label), compression, seed, accuracy (top-1 after the last epoch,
        percent), best (over epochs), before (before training), kept, disconnected, empty_layers,
        epochs (of the recipe), accuracies (a list: top-1 before training and after each epoch),
        rounds (of iterative magnitude pruning, or None), run and key; ``Run.from_dict`` of the
        column run makes the run again.

        Figure 2, one row a method, kind of images, compression and layer: method, images
        ("photographs", "noise", or None where none are needed), image_count, compression, layer
        (from 1), layer_size, kept, density.

        Figure 7, one row a run of SynFlow: schedule, compression, iterations, ratio (largest prune
        size / cut size), kept, seed, dtype.

        All with seconds, device_name, torch, finished.

    Raises:
        ValueError: another name; a file that is damaged or says a run twice, with its line.
        FileNotFoundError: no recorded runs in that place.

    >>> import tempfile
    >>> recorded("figure6", tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    FileNotFoundError: no recorded runs of figure6 in ...
    """
    if not isinstance(name, str) or name not in FIGURES:
        raise ValueError(f"nothing is recorded as {name!r}; expected one of {', '.join(FIGURES)}")
    folder, parts, rows_of = FIGURES[name]
    places = [place / folder for place in _PLACES] if source is None else [Path(source)]
    for place in places:
        files = [place / f"{part}.jsonl" for part in parts]
        rows = [row for file in files if file.is_file() for row in _rows(file, rows_of)]
        if rows:
            return pd.DataFrame(rows)
    raise FileNotFoundError(
        f"no recorded runs of {name} in {', '.join(map(str, places))}; expected files like"
        f" {files[0].name}, as reproduction.experiments.real writes them with --export and"
        " reproduction.experiments.vgg19 as it goes"
    )


def each_line(file: Path, read: Callable[[dict], object]) -> Iterator[tuple[str, Any]]:
    """Each line of a file of records, and what ``read`` makes of it; nothing without a file.

    Raises:
        ValueError: the file is no text, or ``read`` cannot read a line; with its number.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error})") from error
    for number, text in enumerate(lines, 1):
        try:
            yield text, read(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"line {number} of {file} is no recorded run ({type(error).__name__}: {error})"
            ) from error


def count(text: str) -> int:
    """A number on the command line of a program that records, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected 1 or more")
    return int(text)


def _rows(file: Path, rows_of: Callable[[dict], list[dict]]) -> list[dict]:
    def read(line: dict) -> list[dict]:
        about = {
            "seconds": line["seconds"], "device_name": line["machine"].get("device_name"),
            "torch": line["machine"].get("torch"), "finished": line["finished"],
        }  # fmt: skip
        return [{**row, **about} for row in rows_of(line)]

    rows, seen = [], {}
    for number, (text, found) in enumerate(each_line(file, read), 1):
        if seen.setdefault(text, number) < number:  # one run would count as two seeds
            raise ValueError(f"line {number} of {file} is line {seen[text]} again; delete one")
        rows += found
    return rows


def _trained(line: dict) -> list[dict]:
    run = line["run"]
    row = {
        "part": line["part"], "dataset": run["dataset"], "model": run["model"],
        "method": line["label"], "compression": run["compression"], "seed": run["seed"],
        "accuracy": line["top1"], "best": line["best_top1"], "before": line["top1_before"],
        "kept": line["kept"], "disconnected": line["disconnected"],
        "empty_layers": line["empty_layers"], "epochs": run["recipe"]["epochs"],
        "accuracies": line["epochs"], "rounds": line.get("rounds"), "key": line["key"], "run": run,
    }  # fmt: skip
    return [row]


def _layers(line: dict) -> list[dict]:
    same = {key: line[key] for key in ("method", "images", "image_count", "compression")}
    counts = zip(line["layer_sizes"], line["kept"], strict=True)
    return [
        {**same, "layer": layer, "layer_size": size, "kept": kept, "density": kept / size}
        for layer, (size, kept) in enumerate(counts, 1)
    ]


def _ratio(line: dict) -> list[dict]:
    same = ("schedule", "iterations", "ratio", "kept", "seed", "dtype")
    return [{"compression": 10.0 ** line["alpha"], **{key: line[key] for key in same}}]


# Figure of the paper -> folder, files (parts of the grid), and what a line of them says.
FIGURES = {
    "figure1": ("real", ("b",), _trained),
    "figure2": ("untrained", ("figure2",), _layers),
    "figure5a": ("real", ("d",), _trained),
    "figure6": ("real", ("a", "c"), _trained),
    "figure7": ("untrained", ("figure7",), _ratio),
    "small": ("real", ("small",), _trained),
}
