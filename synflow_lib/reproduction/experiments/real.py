"""The grid "real": figures 1, 5a and 6 on 50,000 real images, made by the library on CPUs.

    python -m synflow_lib.reproduction.experiments.real --folder FOLDER --seeds 3 --parts a b c d
    python -m synflow_lib.reproduction.experiments.real --export
    python -m synflow_lib.reproduction.experiments.real --folder FOLDER --store NEW --again 10

FOLDER holds ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``: CIFAR-10's images encoded again as
JPEG, which is said wherever results are shown. The sweep goes on where it stopped, at any time. It
runs seed by seed, and within a seed part by part, the points that tell most first: what is finished
when it is stopped is a whole, smaller grid.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import operator
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ... import models
from ...collapse import max_compression
from ...data import image_folder
from ...files import replacing
from ...sweeps.run import Run
from ...sweeps.store import Store
from ...sweeps.sweep import sweep
from ...training.recipes import Recipe
from ..grids import epochs_of
from ..paper import FIVE
from ..recorded import count, each_line

DATASET = "cifar10_jpeg"
# One recipe for all methods, chosen on dense networks alone (`part_search`); the paper trains 160
# epochs.
RATES = (0.1, 0.05, 0.2)
RECIPE = Recipe(10, 0.2, 128, weight_decay=5e-4, one_cycle=True, augment=True)
IMP = replace(RECIPE, epochs=4)

# As the paper scored, and as SNIP's and GraSP's authors did.
ON_DATA = ("snip", "grasp")
EVAL = {m: {"method": m} for m in FIVE} | {m: {"method": m, "mode": "eval"} for m in ON_DATA}
TRAIN = {f"{m} (train mode)": {"method": m, "mode": "train"} for m in ON_DATA}


@dataclass(frozen=True)
class Point:
    """One run, the part it belongs to, and the label of its curve."""

    part: str
    label: str
    run: Run


def part_search(seed: int) -> Iterator[Point]:
    """Dense networks, 4 epochs, at each of `RATES`; with one seed."""
    for model, rate in itertools.product(("vgg11", "resnet20"), RATES if seed == 0 else ()):
        recipe = replace(RECIPE, epochs=4, learning_rate=rate)
        run = Run(DATASET, model, "dense", 1.0, recipe=recipe, seed=seed, amp=True)
        yield Point("search", f"rate {rate}", run)


def part_a(seed: int) -> Iterator[Point]:
    """VGG-11 (BN), seven curves from 10^0 to 10^3 in half decades: figure 6."""
    make = functools.partial(Run, DATASET, "vgg11", recipe=RECIPE, seed=seed, amp=True)
    yield Point("a", "dense", make("dense", 1.0))
    for alphas in ((2.0, 3.0, 2.5), (1.0, 1.5, 0.5)):
        for variants, alpha in itertools.product((EVAL, TRAIN), alphas):
            for label, variant in variants.items():
                yield Point("a", label, make(compression=10.0**alpha, **variant))


def part_b(seed: int) -> Iterator[Point]:
    """VGG-16 (BN), five curves from 10^2 to rho_max: figure 1's right half.

    The thin networks come first: minutes each, where those of 10^2 take an hour.
    """
    make = functools.partial(Run, DATASET, "vgg16", recipe=RECIPE, seed=seed, amp=True)
    most = _rho_max("vgg16")
    for compression in (1e4, 1e3, 1e5, 1e6, most, *(10.0**a for a in (3.5, 4.5, 5.5, 2.5, 2.0))):
        for label, variant in reversed(EVAL.items()):  # SynFlow, which lives longest, first
            if compression < most or label == "synflow":
                yield Point("b", label, make(compression=compression, **variant))
        if compression == most:
            yield Point("b", "synflow (cut)", make("synflow", most, schedule="cut"))


def part_c(seed: int) -> Iterator[Point]:
    """ResNet-20: SynFlow, SNIP and magnitude at 10^1, 10^2, 10^3."""
    make = functools.partial(Run, DATASET, "resnet20", recipe=RECIPE, seed=seed, amp=True)
    yield Point("c", "dense", make("dense", 1.0))
    for alpha, label in itertools.product((2.0, 1.0, 3.0), ("synflow", "snip", "magnitude")):
        yield Point("c", label, make(compression=10.0**alpha, **EVAL[label]))


def part_d(seed: int) -> Iterator[Point]:
    """VGG-11 (BN) by iterative magnitude pruning, rewound and not: figure 5a."""
    make = functools.partial(Run, DATASET, "vgg11", "imp", recipe=IMP, seed=seed, amp=True)
    for alpha in (2.5, 3.5, 1.5, 3.0, 2.0):
        for rounds, rewind in itertools.product((1, 3, 2, 5), (None, 0)):
            label = f"{rounds} iterations" + (", rewound" if rewind == 0 else "")
            yield Point("d", label, make(10.0**alpha, iterations=rounds, rewind=rewind))


def part_small(seed: int) -> Iterator[Point]:
    """A perceptron on the embedded digits: seconds, so that anyone can train a record again."""
    recipe = Recipe(8, 0.1, weight_decay=1e-4, one_cycle=True)
    yield Point("small", "synflow", Run("digits", "fc", "synflow", 10.0, recipe=recipe, seed=seed))


PARTS = {
    part.__name__.removeprefix("part_"): part
    for part in (part_search, part_a, part_b, part_c, part_d, part_small)
}


def points(seeds: int, parts: Iterable[str] = tuple(PARTS)) -> list[Point]:
    """All runs in the order in which they are done: seed by seed, part by part."""
    parts = dict.fromkeys(parts)
    return [point for seed in range(seeds) for part in parts for point in PARTS[part](seed)]


@functools.cache
def _rho_max(model: str) -> float:
    with torch.device("meta"):
        return max_compression(models.by_name(model, num_classes=10, input_size=32))


def estimates(runs: Iterable[Run], records: Iterable[Mapping]) -> dict[str, float]:
    """Seconds of runs, by key: the median of finished ones that differ in the seed alone.

    Else of all finished ones that train the same network as long; runs without any are left out.
    """

    def as_long(run: Run) -> tuple:
        return run.dataset, run.model, run.recipe, epochs_of(run)

    known: dict[object, list[float]] = {}
    for record in records:
        run = Run.from_dict(record["run"])
        for like in (replace(run, seed=0), as_long(run)):
            known.setdefault(like, []).append(record["seconds"])
    found = {}
    for run in runs:
        if past := known.get(replace(run, seed=0)) or known.get(as_long(run)):
            found[run.key] = statistics.median(past)
    return found


# ------------------------------------------------------------------------------------ the records


def export(store: str | Path, folder: str | Path, seeds: int = 3) -> dict[str, int]:
    """Write the finished runs of each part to ``folder/<part>.jsonl``, a line a run; count them.

    A line holds the run, the label of its curve, its outcome, the test accuracy after each epoch
    (percent; the first is before training), seconds, and versions and device. Lines that are there
    already, made by another store or with more seeds, stay. Parts without any run are left out.
    """
    records, before, counts = Store(store).records(), exported(folder), {}
    for part in PARTS:
        lines = []
        for point in points(seeds, [part]):
            known, record = before.pop(point.run.key, None), records.get(point.run.key, {})
            if record.get("status") == "done":
                lines.append(json.dumps(_line(point, record), separators=(",", ":")))
            elif known is not None:
                lines.append(known)
        lines += [line for line in before.values() if json.loads(line)["part"] == part]
        if lines:
            counts[part] = len(lines)
            with replacing(Path(folder) / f"{part}.jsonl") as file:
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return counts


def exported(folder: str | Path) -> dict[str, str]:
    """The lines that `export` wrote, by the key of their run.

    Raises:
        ValueError: a file that is damaged, with its line.
    """
    files = (Path(folder) / f"{part}.jsonl" for part in PARTS)
    read = operator.itemgetter("key", "part", "run", "seconds")
    return {key: text for file in files for text, (key, *_) in each_line(file, read)}


def quickest(points: Iterable[Point], folder: str | Path, count: int) -> dict[str, dict]:
    """Of ``points`` the ``count`` recorded runs that took least time: key -> record."""
    lines, keys = exported(folder), {point.run.key for point in points}
    found = {key: json.loads(line) for key, line in lines.items() if key in keys}
    return dict(sorted(found.items(), key=lambda item: item[1]["seconds"])[:count])


def _line(point: Point, record: dict) -> dict:
    result = dict(record["result"])
    history = result.pop("history")
    line = {
        "part": point.part, "label": point.label, "key": point.run.key, "run": None,
        **result, "epochs": [row[6] for row in history], "seconds": record["seconds"],
        "finished": record["finished"], "machine": record["machine"],
    }  # fmt: skip
    # Numbers to 6 digits, the run apart: its numbers make its key.
    line = json.loads(json.dumps(line), parse_float=lambda text: float(f"{float(text):.6g}"))
    return line | {"run": record["run"]}


# ---------------------------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> None:
    """Print what is left to do and how long it takes; do it, or export what is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="holds train/<class>/ and test/<class>/")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--store", type=Path, default=Path("runs") / "real")
    parser.add_argument("--processes", type=count, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=count, help="do only the first so many that are left")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    parser.add_argument(
        "--results", type=Path, default=Path("results") / "real", help="records; not done again"
    )
    parser.add_argument("--export", action="store_true", help="write RESULTS, run nothing")
    parser.add_argument("--again", type=count, help="train so many records, the quickest, again")
    args = parser.parse_args(arguments)
    if args.export:
        print(export(args.store, args.results, args.seeds))
        return
    # One thread a process; workers read the variable when they start.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    records, elsewhere = Store(args.store).records(), exported(args.results)
    asked = points(args.seeds, args.parts)
    before = quickest(asked, args.results, args.again) if args.again else {}
    wanted = set(before) if args.again else {point.run.key for point in asked} - set(elsewhere)
    wanted -= set(records)
    if args.retry_failed:
        wanted |= {key for key, record in records.items() if record["status"] == "failed"}
    todo = [point for point in asked if point.run.key in wanted][: args.limit]
    done = [record for record in records.values() if record["status"] == "done"]
    done += map(json.loads, elsewhere.values())
    seconds = estimates([point.run for point in todo], done)
    for point in todo:
        run, known = point.run, seconds.get(point.run.key)
        where = f"{point.part} seed {run.seed} {run.model} {point.label:20}"
        long = "no time known" if known is None else f"about {known / 60:6.1f} min"
        print(f"{where} 10^{math.log10(run.compression):<6.3g} {long}")
    total = sum(seconds.values()) / args.processes / 3600
    plan = f"{len(todo)} runs to do, about {total:.1f} h in {args.processes} processes"
    unknown = len(todo) - len(seconds)
    print(plan, "with a core each" + f", and {unknown} of unknown time" * bool(unknown), flush=True)
    if args.again and not todo:
        print(
            f"the {len(before)} quickest records are in {args.store} already; to train them again"
            " give --store a new folder"
            if before
            else f"no records of them in {args.results}"
        )
    if args.plan or not todo:
        return
    given = functools.partial(image_folder, args.folder, name=DATASET)
    if any(point.run.dataset == DATASET for point in todo):
        if args.folder is None:
            parser.error("--folder is needed to run anything but --parts small")
        given()  # decodes once; the processes read what it keeps
    how = {"datasets": {DATASET: given}, "retry_failed": args.retry_failed}
    processes = args.processes if args.processes > 1 else None
    table = sweep([point.run for point in todo], args.store, processes, **how)
    failed = table[table["status"] == "failed"]
    print(f"{len(table) - len(failed)} runs done, {len(failed)} failed", *failed["error"])
    if args.again:
        export(args.store, args.results.with_name(f"{args.results.name}_again"), args.seeds)
        for key, record in Store(args.store).records().items():
            if key in before and record["status"] == "done":
                label, top1 = before[key]["label"], before[key]["top1"]
                print(f"{label:20} recorded {top1:.2f}, again {record['result']['top1']:.2f}")


if __name__ == "__main__":
    main()
