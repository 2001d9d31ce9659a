"""Accuracy against compression on real colour images, at a size that two CPU cores can do.

    python benchmarks/cifar10_jpeg.py FOLDER        FOLDER holds train/<class>/ and test/<class>/

For CIFAR-10's images re-encoded as JPEG, or any folder of images of ten classes. A subset, a small
convolutional network with BatchNorm (3 -> 32 -> 64 -> 128 channels, L = 4) and few epochs: far from
the paper's setting, and said so wherever it is shown. The sweep resumes when started again.
Writes benchmarks/results/cifar10_jpeg.csv and .md; notebook 05 draws the first.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from pathlib import Path

import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction import grids

RESULTS = Path(__file__).parent / "results"
RECIPE = sf.Recipe(4, 0.1, 64, weight_decay=5e-4, one_cycle=True, augment=True)
DATA = {"n_train": 2_000, "n_test": 2_000}
ALPHAS = (1.0, 2.0, 3.0)


def blocks(dataset: sf.data.Dataset, seed: int) -> nn.Module:
    """Three convolutions, each halving the image, and a classifier."""
    channels = (dataset.input_shape[0], 32, 64, 128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(channels):
            layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, dataset.num_classes)]
        return nn.Sequential(*layers, *head)


def main() -> None:
    """Runs what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", type=Path, default=Path("runs") / "cifar10_jpeg")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    load = functools.partial(sf.data.image_folder, args.folder, name="cifar10_jpeg")
    load()  # decodes once; the processes read what it keeps
    panel = grids.Panel("cifar10_jpeg", "blocks", RECIPE, (0.0, *ALPHAS), data_options=DATA)
    grid = grids.Grid((panel,), args.seeds)
    results = sf.sweep(
        grid.runs(), args.store, args.processes,
        datasets={"cifar10_jpeg": load}, models={"blocks": blocks},
    )  # fmt: skip
    failed = results[results["status"] == "failed"]
    if len(failed):
        raise SystemExit(f"{len(failed)} runs failed, the first with: {failed['error'].iloc[0]}")
    table = grid.table(results)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "cifar10_jpeg.csv", index=False, float_format="%.6g")
    described = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    shown = table.pivot_table(index="method", columns="compression", values="accuracy")
    text = [
        "# CIFAR-10 images re-encoded as JPEG",
        "",
        f"`python benchmarks/cifar10_jpeg.py FOLDER --seeds {args.seeds}`",
        "",
        f"{described}",
        "",
        f"{DATA['n_train']} training and {DATA['n_test']} test images, {RECIPE.epochs} epochs,"
        f" three convolutions; top-1 in percent, mean of {args.seeds} seeds, by compression;"
        f" {results['train_seconds'].median():.0f} s a run in one thread (median)",
        "",
        "| method | " + " | ".join(f"{c:g}" for c in shown) + " |",
        "|" + "---|" * (len(shown.columns) + 1),
        *(
            f"| {m} | " + " | ".join(f"{v:.1f}" for v in row) + " |"
            for m, row in zip(shown.index, shown.to_numpy(), strict=True)
        ),
        "",
    ]
    print("\n".join(text))
    (RESULTS / "cifar10_jpeg.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
