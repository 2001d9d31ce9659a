"""How long an explorer takes to answer: a new choice, and the slider at every stop.

    python benchmarks/explorers.py

Each explorer is timed in a process of its own, in which a small network has been pruned and
trained and a figure drawn before, as the cells above an explorer do: torch and matplotlib import
a good part of themselves at the first use, which takes two to three seconds, once. A choice is
timed cold, from the call to the picture, with all its computing and drawing; of the one that
trains also a choice made by its drop-down, up to the last epoch. The slider is timed at all
stops, at the first look, and again: a kernel at rest draws ahead, so that a reader mostly meets
the second. The browser's share is in none of it. Seconds are those on the clock and those that
this process computed, which other work on the machine changes less. Writes
benchmarks/results/explorers.md.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

import synflow_lib as sf

RESULTS = Path(__file__).parent / "results" / "explorers.md"
CASES = {
    "collapse, small network": lambda: sf.explore.collapse(),
    "collapse, perceptron": lambda: sf.explore.collapse("perceptron"),
    "steps": lambda: sf.explore.steps(),
    "race, perceptron": lambda: sf.explore.race(),
    "training": lambda: sf.explore.training(),
}
LARGE = {
    "collapse, VGG-16, magnitude": lambda: sf.explore.collapse("vgg16"),
    "collapse, VGG-16, GraSP": lambda: sf.explore.collapse("vgg16", "grasp"),
    "collapse, VGG-16, SynFlow, cut": lambda: sf.explore.collapse("vgg16", "synflow", "cut"),
    "race, VGG-16": lambda: sf.explore.race("vgg16"),
}
COLUMNS = ("explorer", "stops", "first choice, s", "computed, s", "slider at first, median ms",
           "worst ms", "slider again, median ms", "worst ms")  # fmt: skip


def timed(call) -> tuple[float, float, object]:
    clock, computed = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - clock, time.process_time() - computed, found


def warm_up() -> None:
    digits = sf.data.digits()
    net = sf.models.fc(digits.input_shape, depth=2, seed=0)
    sf.train(net, sf.prune(net, "snip", 10, digits.scoring_batch(1)), digits, sf.Recipe(1, 0.1))
    sf.check_conservation(net, sf.score(net, "synflow"))
    table = pd.DataFrame(
        {"method": "snip", "compression": [1, 10], "seed": 0, "accuracy": [90, 80]}
    )
    sf.figures.accuracy_curves(table).savefig(io.BytesIO())
    importlib.import_module("ipywidgets")


def row(name: str) -> str:
    warm_up()
    clock, computed, box = timed((CASES | LARGE)[name])
    stop = box.controls["stop"]
    slider = []
    for _ in ("first", "again"):
        seconds = []
        for _, value in [*stop.options, *reversed(stop.options)]:
            if value != stop.value:
                seconds.append(timed(lambda value=value: setattr(stop, "value", value))[0])
        seconds = seconds[: len(stop.options)] if not slider else seconds  # then all are drawn
        slider += [f"{1000 * f(seconds):.1f}" for f in (statistics.median, max)]
    cells = [name, len(stop.options), f"{clock:.2f}", f"{computed:.2f}", *slider]
    line = f"| {' | '.join(map(str, cells))} |"
    if name == "training":
        choose = lambda: setattr(box.controls["compression"], "value", 100)  # noqa: E731
        clock, computed, _ = timed(choose)
        line += f"\n| training, the next choice | | {clock:.2f} | {computed:.2f} | | | | |"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="VGG-16 as well (some minutes)")
    parser.add_argument("--only", choices=[*CASES, *LARGE], help="print one row, write nothing")
    given = parser.parse_args()
    if given.only:
        print(row(given.only))
        return
    lines = []
    for name in CASES | (LARGE if given.large else {}):
        command = [sys.executable, __file__, "--only", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        lines.append(done.stdout.strip())
        print(lines[-1], flush=True)
    machine = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    load = f"load average {os.getloadavg()[2]:.1f} over the last 15 minutes"
    RESULTS.write_text(
        "\n".join(
            [
                "# How long an explorer takes to answer",
                "",
                f"`python benchmarks/explorers.py{' --large' if given.large else ''}`",
                "",
                f"{machine}; {load}",
                "",
                f"| {' | '.join(COLUMNS)} |",
                "|---" * len(COLUMNS) + "|",
                *lines,
                "",
                "The first choice is up to its picture, in a process in which other cells have run"
                " (which imports torch's compiler, matplotlib and ipywidgets);"
                ' "computed" are the seconds of this process alone. The slider at first draws what'
                " it shows (of the race, it also runs the five methods); again it picks what was"
                " drawn, as after a kernel at rest has drawn ahead.",
                "",
            ]
        )
    )


if __name__ == "__main__":
    main()
