"""How large the grids of figures 1 and 6 are: runs, arithmetic, and GPU-hours at a given rate.

    python benchmarks/grid_size.py [--scale paper] [--rate 20]

The arithmetic of a run is counted, not measured: three times the forward pass (torch's own FLOP
counter; a multiply and an add are two) for every training image of every epoch. Hours follow from
the rate that a GPU really reaches on such networks, in TFLOP/s, which is for the user to measure.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter

import torch
from torch.utils.flop_counter import FlopCounterMode

import synflow_lib as sf
from synflow_lib.reproduction import grids

# Training images and shape; the data sets themselves need not be here.
SHAPES = {
    "digits": (1_438, (1, 8, 8), 10),
    "cifar10": (50_000, (3, 32, 32), 10),
    "cifar100": (50_000, (3, 32, 32), 100),
    "tiny_imagenet": (100_000, (3, 64, 64), 200),
}


def flops(panel: grids.Panel) -> float:
    """Of one training run."""
    images, shape, classes = SHAPES[panel.dataset]
    size = {"input_shape": shape} if panel.model in ("fc", "conv") else {"input_size": shape[1]}
    net = sf.models.by_name(panel.model, num_classes=classes, **size, **panel.model_options)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, *shape))
    return 3.0 * counter.get_total_flops() * images * panel.recipe.epochs


def main() -> None:
    """Prints one line a panel and the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="paper", choices=sf.env.SCALES)
    parser.add_argument("--rate", type=float, default=20.0, help="TFLOP/s (default 20)")
    args = parser.parse_args()
    os.environ["SYNFLOW_SCALE"] = args.scale
    print("| figure | data set | network | runs | FLOP a run | GPU-hours |")
    print("|---|---|---|---|---|---|")
    for name, grid in (("1", grids.figure1()), ("6", grids.figure6())):
        runs = Counter((run.dataset, run.model) for run in grid.runs())
        total = 0.0
        for panel in grid.panels:
            count, each = runs[panel.dataset, panel.model], flops(panel)
            hours = count * each / (args.rate * 1e12) / 3600
            total += hours
            what = f"{panel.dataset} | {panel.model} | {count} | {each:.1e}"
            print(f"| {name} | {what} | {hours:,.1f} |")
        print(f"| {name} | together | | {sum(runs.values()):,} | | {total:,.1f} |")


if __name__ == "__main__":
    main()
