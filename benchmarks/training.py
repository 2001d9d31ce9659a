"""Many networks trained at once against one by one: the ratios behind `batching_pays`.

    python benchmarks/training.py
    python benchmarks/training.py --threads 1

For each network the same trainings, as seconds a network: (1) the plain loop: one by one, with a
DataLoader; (2) `train`, one by one, all threads; (3) `train_many`, all at once, all threads;
(4) `train` in as many processes as there are cores, one thread each. Timed in turn, medians of
`--repeats`. Processes are warm: their start is not counted. Writes benchmarks/results/training.md;
with a number of threads, training_threads_NUMBER.md.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import synflow_lib as sf

RESULTS = Path(__file__).parent / "results"
RECIPE = sf.Recipe(3, 0.1, 64, weight_decay=1e-4)
CASES = {
    "perceptron, 6 layers of 100": ("fc", {}, 8, 55),
    "the same with BatchNorm": ("fc", {"batch_norm": True}, 8, 55),
    "5 layers, 12 channels, 8x8": ("conv", {"batch_norm": True, "depth": 5, "width": 12}, 8, 16),
    "6 layers, 32 channels, 8x8": ("conv", {"batch_norm": True, "depth": 6, "width": 32}, 8, 8),
    "4 layers, 16 channels, 16x16": ("conv", {"batch_norm": True, "depth": 4, "width": 16}, 16, 8),
}


def plain(net: nn.Module, masks: sf.Masks, dataset: sf.data.Dataset) -> None:
    """As one would write it first: a DataLoader, a loop, masks after every step."""
    sets = {}
    for split, x, y in (
        ("train", dataset.train_x, dataset.train_y),
        ("test", dataset.test_x, dataset.test_y),
    ):
        images = TensorDataset(dataset.normalize(x), y)
        sets[split] = DataLoader(images, RECIPE.batch_size, shuffle=split == "train")
    optimizer = torch.optim.SGD(
        net.parameters(), RECIPE.learning_rate, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    masks.apply_(net)
    weights = {name: net.get_parameter(name) for name in masks}
    for _ in range(RECIPE.epochs):
        net.train()
        for x, y in sets["train"]:
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, mask in masks.items():
                    weights[name].mul_(mask)
        net.eval()
        with torch.no_grad():
            _ = sum((net(x).argmax(1) == y).sum().item() for x, y in sets["test"])


def alone(net: nn.Module, masks: sf.Masks, dataset: sf.data.Dataset) -> None:
    """One `train` in a worker."""
    torch.set_num_threads(1)
    sf.train(net, masks, dataset, RECIPE)


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(case: str, repeats: int) -> str:
    """One row of the table."""
    model, options, size, count = CASES[case]
    dataset = sf.data.digits().resized(size)
    nets = [
        sf.models.by_name(model, input_shape=dataset.input_shape, seed=seed, **options)
        for seed in range(count)
    ]
    masks = [sf.prune(net, "random", 10, seed=seed) for seed, net in enumerate(nets)]
    few = min(count, 4)  # one by one every network costs the same
    cores = os.cpu_count() or 1
    with joblib.Parallel(cores) as pool:

        def fresh(number: int = count) -> list[tuple]:
            return [(copy.deepcopy(n), m, dataset) for n, m in zip(nets, masks, strict=True)][
                :number
            ]

        sides = {
            "plain": (lambda: [plain(*each) for each in fresh(few)], few),
            "one": (lambda: [sf.train(n, m, d, RECIPE) for n, m, d in fresh(few)], few),
            "many": (lambda: sf.train_many(copy.deepcopy(nets), masks, dataset, RECIPE), count),
            "processes": (lambda: pool(joblib.delayed(alone)(*each) for each in fresh()), count),
        }
        pool(joblib.delayed(alone)(*each) for each in fresh(cores))
        rounds = [{k: seconds(run) / n for k, (run, n) in sides.items()} for _ in range(repeats)]
    median = {k: statistics.median(each[k] for each in rounds) for k in sides}
    row = (
        f"| {case} | {count} | {median['plain']:.3f} | {median['one']:.3f} | {median['many']:.3f} |"
        f" {median['processes']:.3f} | {median['plain'] / median['many']:.1f} |"
        f" {median['processes'] / median['many']:.2f} |"
    )
    print(row, flush=True)
    return row


def main() -> None:
    """Runs all cases and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    args = parser.parse_args()
    name, how = "training", f"--repeats {args.repeats}"
    if args.threads:
        torch.set_num_threads(args.threads)
        name, how = f"training_threads_{args.threads}", f"{how} --threads {args.threads}"
    described = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    lines = [
        "# Training many networks at once",
        "",
        f"`python benchmarks/training.py {how}`",
        "",
        f"{described}; {RECIPE.epochs} epochs of digits, batches of {RECIPE.batch_size}; seconds a"
        " network, medians",
        "",
        "| network | copies | plain loop | train | train_many | processes |"
        " plain / many | processes / many |",
        "|" + "---|" * 8,
    ]
    lines += [measure(case, args.repeats) for case in CASES]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
