"""A training step of VGG-11: the masked network, and the same without its dead units.

    python benchmarks/compact_training.py [--methods synflow random] [--alphas 2 3]

One thread; the least of a few steps of 128 images of 32x32, in seconds of the process's own time,
so that other work on the machine tells little. Writes benchmarks/results/compact_training.md.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import synflow_lib as sf
from synflow_lib.training.alive import Alive, living_parts
from synflow_lib.training.learners import Learner, One

SHAPE = (3, 32, 32)
RECIPE = sf.Recipe(1, 0.01, weight_decay=5e-4)
METHODS = ("random", "magnitude", "snip", "grasp", "synflow")


def seconds(learner: Learner, steps: int = 3) -> float:
    """Of one step, the first apart."""
    optimizer = learner.optimizer(RECIPE)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, *SHAPE, generator=generator), torch.arange(128) % 10
    taken = []
    for _ in range(steps + 1):
        start = time.process_time()
        loss = F.cross_entropy(learner.forward(x, train=True)[0].float(), y)
        learner.step(loss, optimizer)
        taken.append(time.process_time() - start)
    return min(taken[1:])


def row(method: str, alpha: float) -> tuple[str, ...]:
    """Masked in float32, compact in float32 and in bfloat16, and the preparation."""
    net = sf.models.vgg11(input_size=32, seed=0)
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(100, *SHAPE, generator=generator), torch.arange(100) % 10
    masks = sf.prune(net, method, 10**alpha, batch, mode="eval", progress=False)
    masked = seconds(One(copy.deepcopy(net), [masks], amp=False))
    cells = [method, f"10^{alpha:g}", f"{masked:.2f}"]
    for amp in (False, True):
        copied = copy.deepcopy(net)
        start = time.process_time()
        parts = living_parts(copied, masks, SHAPE)
        preparation = time.process_time() - start
        compact = seconds(Alive(copied, parts, amp=amp))
        cells += [f"{compact:.3f}", f"{masked / compact:.1f}"]
    return (*cells, f"{preparation:.1f}")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--alphas", nargs="+", type=float, default=(1.0, 2.0, 2.5, 3.0))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for method in args.methods:
        for alpha in args.alphas:
            rows.append(row(method, alpha))
            print(*rows[-1], flush=True)
    head = ("method", "compression", "masked", "compact", "times", "bfloat16", "times", "prepared")
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]
    described = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    text = f"# {__doc__.splitlines()[0]}\n\n{described}\n\n" + "\n".join(lines) + "\n"
    file = Path(__file__).parent / "results" / "compact_training.md"
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
