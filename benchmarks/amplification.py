"""What SynFlow's iteration makes of one weight: counts rounded down instead of to nearest.

    python benchmarks/amplification.py

ResNet-20 to compression 10 in 100 iterations, float64. Prints how many survivors differ after each
iteration and draws docs/amplification.svg.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import synflow_lib as sf

COMPRESSION, ITERATIONS, SEEDS = 10.0, 100, 4
FIGURE = Path(__file__).parents[1] / "docs" / "amplification.svg"


def survived(counts: list[int], seed: int) -> torch.Tensor:
    """How many iterations each weight survives, (N,), when ``counts`` say what each one leaves."""
    net = sf.models.resnet20(seed=seed)
    total = sum(p.numel() for p in sf.prunable(net).values())
    path = sf.trajectory(
        net, "synflow", schedule=lambda t, n, density: counts[t - 1] / total,
        iterations=ITERATIONS, compression=total / counts[-1],
    )  # fmt: skip
    return path.iteration


def main() -> None:
    total = sum(p.numel() for p in sf.prunable(sf.models.resnet20(seed=0)).values())
    exact = [total * COMPRESSION ** (-t / ITERATIONS) for t in range(1, ITERATIONS + 1)]
    nearest, down = [round(count) for count in exact], [int(count) for count in exact]
    steps = range(1, ITERATIONS + 1)
    _, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for seed in range(SEEDS):
        one, other = survived(nearest, seed), survived(down, seed)
        lost = [int(((one > t) & (other <= t)).sum()) for t in steps]
        print(
            f"seed {seed}: {lost[9]} after iteration 10, {lost[-1]} of {nearest[-1]} at the end",
            flush=True,
        )
        axes.plot(steps, [max(count, 0.5) for count in lost], label=f"seed {seed}")
    axes.set(yscale="log", xlabel="iteration", xlim=(1, ITERATIONS))
    axes.set_ylabel("survivors that the other run lost")
    axes.legend()
    plt.rcParams["svg.hashsalt"] = "synflow_lib"
    plt.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
