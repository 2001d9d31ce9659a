"""How long an explorer takes to answer: the slider at every stop, and a new choice.

    python benchmarks/explorers.py

A slider's update is timed from setting its value to the new picture and words being in the widget,
over all stops; a choice is timed cold, with all its computing and drawing. The browser's share is
not in it. Writes benchmarks/results/explorers.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import synflow_lib as sf

RESULTS = Path(__file__).parent / "results" / "explorers.md"


def timed(call) -> tuple[float, object]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def row(name: str, make) -> str:
    choice, box = timed(make)
    stop = box.controls["stop"]
    seconds = []
    for _, value in [*stop.options, *reversed(stop.options)]:
        if value != stop.value:
            seconds.append(timed(lambda value=value: setattr(stop, "value", value))[0])
    median, worst = (1000 * f(seconds) for f in (statistics.median, max))
    line = f"| {name} | {len(stop.options)} | {median:.1f} | {worst:.1f} | {choice:.1f} |"
    print(line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="VGG-16 as well (some minutes)")
    large = parser.parse_args().large
    explore = sf.explore
    cases = {
        "collapse, small network": lambda: explore.collapse(),
        "collapse, perceptron": lambda: explore.collapse("perceptron"),
        "steps": lambda: explore.steps(),
        "race, perceptron": lambda: explore.race(),
    }
    if large:
        cases["collapse, VGG-16"] = lambda: explore.collapse("vgg16", "synflow", "cut")
        cases["race, VGG-16"] = lambda: explore.race("vgg16")
    lines = [row(name, make) for name, make in cases.items()]
    machine = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    RESULTS.write_text(
        "\n".join(
            [
                "# How long an explorer takes to answer",
                "",
                f"`python benchmarks/explorers.py{' --large' if large else ''}`",
                "",
                machine,
                "",
                "| explorer | stops | slider, median ms | slider, worst ms | first choice, s |",
                "|---|---|---|---|---|",
                *lines,
                "",
                "The slider picks among pictures that were drawn with the choice. A choice made"
                " before is remembered and answers like the slider.",
                "",
            ]
        )
    )


if __name__ == "__main__":
    main()
