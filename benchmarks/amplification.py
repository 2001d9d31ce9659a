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

COMPRESSION, ITERATIONS = 10.0, 100
FIGURE = Path(__file__).parents[1] / "docs" / "amplification.svg"


def survivors(counts: list[int]) -> torch.Tensor:
    """For each weight how many iterations it survives when ``counts`` weights are left after each."""
    net = sf.models.resnet20(seed=0)
    total = sum(p.numel() for p in sf.prunable(net).values())
    path = sf.trajectory(
        net, "synflow", schedule=lambda t, n, density: counts[t - 1] / total,
        iterations=ITERATIONS, compression=total / counts[-1],
    )  # fmt: skip
    return path.iteration


def main() -> None:
    total = sum(p.numel() for p in sf.prunable(sf.models.resnet20(seed=0)).values())
    exact = [total * COMPRESSION ** (-t / ITERATIONS) for t in range(1, ITERATIONS + 1)]
    nearest = [round(count) for count in exact]
    few = [*nearest[:9], int(exact[9]) - (int(exact[9]) == nearest[9]), *nearest[10:]]
    one, down = survivors(nearest), survivors([int(count) for count in exact])
    single = survivors(few)
    steps = range(1, ITERATIONS + 1)
    _, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, other in (("all counts rounded down", down), ("one weight less, once", single)):
        differ = [int(((one > t) != (other > t)).sum()) // 2 for t in steps]
        print(f"{label}: {differ[9]} after iteration 10, {differ[-1]} of {nearest[-1]} at the end")
        axes.plot(steps, [max(d, 0.5) for d in differ], label=label)
    axes.set(yscale="log", xlabel="iteration", ylabel="survivors that differ", xlim=(1, ITERATIONS))
    axes.legend()
    plt.rcParams["svg.hashsalt"] = "synflow_lib"
    plt.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
