"""Figures 2 and 7 on the paper's VGG-19 for 224x224 images, computed once and recorded.

    python -m synflow_lib.reproduction.experiments.vgg19 --figure 2 --folder FOLDER
    python -m synflow_lib.reproduction.experiments.vgg19 --figure 7 --most 100

143.6 million weights, scored again and again: hours on one core, 6 GB of memory. So the results are
kept, a line of JSON each, and a run goes on where the last one stopped. FOLDER holds images as
`data.image_folder` reads them; they are enlarged to 224x224.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ... import env, models
from ...collapse import max_compression
from ...data import image_folder
from ...files import replacing
from ...graphs.network import prunable
from ...pruning import prune, trajectory
from ..recorded import count, each_line
from .collapse import layer_densities
from .measured import measured
from .scorings import Scoring, grasp_variant

RESULTS = Path("results") / "untrained"
DOUBLINGS = range(23)  # compressions 2^0 to 2^22; the paper's next one is beyond rho_max
ALPHAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
ITERATIONS = tuple(range(10, 101, 10))  # one iteration takes a single scoring: `one_shot_ratios`


def network(seed: int = 0) -> nn.Module:
    """VGG-19 for 224x224 images and 1,000 classes, without BatchNorm, at initialization."""
    return models.vgg19(num_classes=1000, input_size=224, batch_norm=False, seed=seed)


# ------------------------------------------------------------------------------------ figure 2

SCORINGS = {
    "random": Scoring("random"),
    "magnitude": Scoring("magnitude"),
    "snip": Scoring("snip", mode="eval"),
    "grasp": Scoring("grasp", mode="eval"),
    # The GraSP of the published data: no temperature, the opposite sign.
    "early grasp": Scoring(grasp_variant(temperature=1.0, sign="reversed"), mode="eval"),
    "synflow": Scoring("synflow"),
}
ON_IMAGES = ("snip", "grasp", "early grasp")


def images(source: str, count: int, folder: str | Path | None) -> Tensor:
    """``count`` images of 3 x 224 x 224: "photographs" of a folder, or Gaussian "noise"."""
    if source == "noise":
        return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    data = image_folder(folder)
    x, _ = data.scoring_batch(-(-count // data.num_classes))
    return nn.functional.interpolate(x[:count], size=224, mode="bilinear")


def scoring_batches(
    source: str, count: int, folder: str | Path | None
) -> list[tuple[Tensor, Tensor]]:
    """Images in batches of four, each with a class of its own among the thousand, by chance."""
    labels = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:count]
    return list(zip(images(source, count, folder).split(4), labels.split(4), strict=True))


def figure2(
    file: Path, folder: str | Path | None, count: int, labels: Iterable[str] = SCORINGS
) -> None:
    """Add a line for each compression, method and kind of images that ``file`` lacks."""
    net = network()
    sizes = [weight.numel() for weight in prunable(net).values()]
    known = {(line["method"], line["images"], line["image_count"]) for line in read(file)}
    wanted = [(label, None if label not in ON_IMAGES else "photographs") for label in labels]
    wanted += [(label, "noise") for label in labels if label in ON_IMAGES]
    for label, source in wanted:
        number = count if source else None
        if (label, source, number) in known or (source == "photographs" and folder is None):
            continue
        how, start = SCORINGS[label], time.perf_counter()
        batch = scoring_batches(source, count, folder) if source else None
        # Cuts are exact ties between few weights at the end: they need float64.
        dtype = torch.float64 if label == "synflow" else torch.float32
        path = trajectory(net, how.method, batch, mode=how.mode, dtype=dtype)
        stops = [*(2.0**k for k in DOUBLINGS), max_compression(net)]
        kept = layer_densities({"": path}, stops).groupby("compression")["kept"].agg(list)
        del path, batch
        same = {"figure": 2, "method": label, "images": source, "layer_sizes": sizes}
        same |= {"image_count": number, **conditions(start)}
        append(file, [same | {"compression": c, "kept": counts} for c, counts in kept.items()])
        print(label, source, f"{time.perf_counter() - start:.0f} s", flush=True)


@measured
def pruned_again(methods: Iterable[str], compression: float) -> dict[str, list[int]]:
    """Method -> the weights that it leaves in each layer, for methods that look at no image."""
    net = network()
    return {
        method: prune(net, method, compression, dtype=torch.float32).table()["kept"].tolist()
        for method in methods
    }


# ------------------------------------------------------------------------------------ figure 7


@dataclass(frozen=True)
class FixedRun:
    """A run of SynFlow on a fixed schedule, to 10^alpha in so many iterations."""

    schedule: str
    alpha: float
    iterations: int

    def points(self) -> list[FixedRun]:
        """The runs of figure 7 that this one contains.

        Every step of the exponential schedule divides by the same number, so a run to 10^3 in 30
        steps begins with the one to 10^2 in 20 steps.
        """
        if self.schedule == "linear":
            return [self]
        counts = [k for k in ITERATIONS if k <= self.iterations]
        within = ((round(self.alpha * k / self.iterations, 9), k) for k in counts)
        return [FixedRun(self.schedule, alpha, k) for alpha, k in within if alpha in ALPHAS]


def fixed_runs(most: int = 100) -> list[FixedRun]:
    """Runs that contain all points of figure 7 with 10 to ``most`` iterations, short ones first."""
    counts = [n for n in ITERATIONS if n <= most]
    every = itertools.product(counts, ALPHAS, ("exponential", "linear"))
    runs = [FixedRun(schedule, alpha, n) for n, alpha, schedule in every]
    within = {point for run in runs for point in run.points() if point != run}
    return [run for run in runs if run not in within]


def figure7(file: Path, most: int, seed: int = 0) -> None:
    """Do the runs that have points which ``file`` lacks, and add a line for each point."""
    net = network(seed)
    for run in fixed_runs(most):
        known = {(p["schedule"], p["alpha"], p["iterations"]) for p in read(file)}
        lacking = [p for p in run.points() if (p.schedule, p.alpha, p.iterations) not in known]
        if not lacking:
            continue
        start = time.perf_counter()
        path = trajectory(
            net, "synflow", schedule=run.schedule, iterations=run.iterations,
            compression=10**run.alpha, dtype=torch.float32,
        )  # fmt: skip
        ratios, counts = path.history["ratio"], path.counts
        del path
        about = {"seed": seed, "dtype": "float32", "of_run": [run.alpha, run.iterations]}
        about |= conditions(start)
        lines = []
        for point in lacking:
            ratio, kept = ratios[: point.iterations].max(), counts[point.iterations]
            line = {"figure": 7, **vars(point), "ratio": float(ratio), "kept": kept}
            lines.append(line | about)
        append(file, lines)
        print(run, f"{len(lacking)} points, {time.perf_counter() - start:.0f} s", flush=True)


# ---------------------------------------------------------------------------------- the records


def read(file: Path) -> list[dict]:
    """The lines of a file, none where there is no file."""
    return [line for _, line in each_line(file, dict)]


def append(file: Path, lines: Iterable[dict]) -> None:
    """Add lines to a file, all or none."""
    texts = [json.dumps(line, separators=(",", ":")) for line in [*read(file), *lines]]
    with replacing(file) as part:
        part.write_text("\n".join(texts) + "\n", encoding="utf-8")


def conditions(start: float) -> dict:
    """Seconds since ``start``, time of day, versions and device."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    seconds = round(time.perf_counter() - start, 1)
    return {"seconds": seconds, "finished": now, "machine": env.describe()}


def main(arguments: list[str] | None = None) -> None:
    """Compute what the records of a figure lack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=int, choices=(2, 7), required=True)
    parser.add_argument("--folder", type=Path, help="figure 2: images; without, noise alone")
    parser.add_argument("--images", type=count, default=8, help="figure 2: how many to score on")
    parser.add_argument("--methods", nargs="+", choices=SCORINGS, default=list(SCORINGS))
    parser.add_argument(
        "--most", type=int, choices=ITERATIONS, default=100, help="figure 7: most iterations"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    file = args.results / f"figure{args.figure}.jsonl"
    if args.figure == 2:
        figure2(file, args.folder, args.images, args.methods)
    else:
        figure7(file, args.most)


if __name__ == "__main__":
    main()
