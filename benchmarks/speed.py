"""How much faster pruning is than the obvious implementation, as ratios measured in one run.

    python benchmarks/speed.py                      every claim
    python benchmarks/speed.py --claims iterations --networks vgg16

The two sides are timed in turn, `--repeats` times, and the medians are compared. The obvious
implementation's iterations all cost the same, so only its first `--steps` are timed; ours get
cheaper along the way, so a whole run is timed. Writes benchmarks/results/speed_CLAIM.md. To be run
with OpenMP's usual settings: threads that wait asleep (OMP_WAIT_POLICY=PASSIVE) slow the obvious
side.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import obvious
import torch

import synflow_lib as sf
from synflow_lib.fast import selection, shortcuts

RESULTS = Path(__file__).parent / "results"
NETWORKS = {
    "vgg16": {},
    "resnet18": {"input_size": 64, "num_classes": 200},
    "resnet20": {},
    "resnet110": {},
    "vgg19": {"input_size": 224, "num_classes": 1000, "batch_norm": False},
}
TYPES = {"float32": torch.float32, "float64": torch.float64}


def own(net: torch.nn.Module) -> dict:
    """Scores in the type of the network, as the obvious implementation has them."""
    return {"dtype": next(net.parameters()).dtype}


def network(name: str, dtype: str = "float32") -> torch.nn.Module:
    """The network of a row, in its type."""
    return sf.models.by_name(name, seed=0, **NETWORKS[name]).to(TYPES[dtype])


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median seconds of two calls, timed alternately."""
    pairs = [(seconds(first), seconds(second)) for _ in range(repeats)]
    return tuple(statistics.median(side) for side in zip(*pairs, strict=True))


def plain(net: torch.nn.Module, compression: float, steps: int) -> Callable[[], object]:
    """The obvious implementation, ``steps`` of 100 iterations, on a copy made beforehand."""
    copies = iter([])

    def run():
        obvious.synflow(next(copies), compression, 100, net.input_shape, steps=steps)

    def prepare_and_run():
        nonlocal copies
        copies = iter([copy.deepcopy(net)])
        run()

    return prepare_and_run


def limits() -> str:
    """What this machine can do at best: memory bandwidth and matrix product, float32."""
    a = torch.rand(40_000_000)
    b = torch.empty_like(a)
    b.copy_(a)
    copying = min(seconds(lambda: b.copy_(a)) for _ in range(7))
    m = torch.rand(2048, 2048)
    product = min(seconds(lambda: m @ m) for _ in range(7))
    bandwidth, rate = 2 * a.nbytes / copying / 1e9, 2 * 2048**3 / product / 1e9
    return f"copy {bandwidth:.1f} GB/s, matrix product {rate:.0f} GFLOP/s"


def _peak(kind: str, name: str, dtype: str, compression: float, queue) -> None:
    small = sf.models.fc(seed=0)
    sf.prune(small, "synflow", 2)  # what is imported at first use is not the network's memory
    obvious.synflow(small, 2, 2, small.input_shape)
    net = network(name, dtype)
    kind, _, images = kind.partition(" ")
    x = torch.rand(int(images or 1), *net.input_shape)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of making the network
    before = _status("VmRSS")
    if kind == "obvious":
        obvious.synflow(net, compression, 100, net.input_shape, steps=2)
    elif kind == "ours":
        sf.prune(net, "synflow", compression, iterations=2, **own(net))
    else:
        sf.prune(net, kind, compression, (x, torch.arange(len(x)) % 10), **own(net))
    queue.put(_status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def peak_megabytes(kind: str, name: str, dtype: str, compression: float) -> float:
    """Peak memory beyond the model itself, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(kind, name, dtype, compression, queue))
    process.start()
    peak = queue.get()
    process.join()
    return peak / 1024


def iterations(args) -> list[str]:
    """100 SynFlow iterations to 10^2 and 10^4."""
    rows = [
        "| network | type | compression | obvious, ms | ours, ms | ratio | peak memory, ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [name for name in args.networks if name != "resnet110"]:
        for dtype in ("float32",) if name == "vgg19" else ("float32", "float64"):
            for compression in (1e2,) if name == "vgg19" else (1e2, 1e4):
                net = network(name, dtype)
                steps = 2 if name == "vgg19" else args.steps
                repeats = 1 if name == "vgg19" else args.repeats
                theirs, ours = in_turn(
                    plain(net, compression, steps),
                    lambda net=net, c=compression: sf.prune(
                        net, "synflow", c, progress=False, **own(net)
                    ),
                    repeats,
                )
                theirs, ours = theirs / steps, ours / 100
                memory = peak_megabytes("ours", name, dtype, compression) / peak_megabytes(
                    "obvious", name, dtype, compression
                )
                rows.append(
                    f"| {name} | {dtype} | 10^{len(str(int(compression))) - 1} |"
                    f" {theirs * 1e3:.1f} | {ours * 1e3:.1f} | {theirs / ours:.1f} | {memory:.2f} |"
                )
                print(rows[-1], flush=True)
    return rows


def trajectories(args) -> list[str]:
    """Dense to rho_max by the cut schedule, against 100 obvious iterations."""
    rows = [
        "| network | iterations | ends at | empty layers | 100 obvious, s | ours, s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [name for name in args.networks if name.startswith("vgg")]:
        net, steps = network(name), 2 if name == "vgg19" else args.steps
        found = []
        theirs, ours = in_turn(
            plain(net, 1e2, steps),
            lambda net=net, found=found: found.append(
                sf.trajectory(net, progress=False, **own(net))
            ),
            1 if name == "vgg19" else args.repeats,
        )
        theirs *= 100 / steps
        path = found[-1]
        empty = len(path.keeping(path.counts[-1]).empty_layers())
        end = "rho_max" if path.max_compression == sf.max_compression(net) else "before rho_max"
        rows.append(
            f"| {name} | {len(path.counts) - 1} | {end} | {empty} | {theirs:.1f} | {ours:.2f} |"
            f" {theirs / ours:.1f} |"
        )
        print(rows[-1], flush=True)
    return rows


def chunks(args) -> list[str]:
    """SNIP and GraSP: peak memory for 2,000 scoring images against 256."""
    rows = ["| method | 256 images, MB | 2,000 images, MB | ratio |", "|---|---|---|---|"]
    for method in ("snip", "grasp"):
        few, many = (peak_megabytes(f"{method} {n}", "vgg16", "float32", 100) for n in (256, 2000))
        rows.append(f"| {method} | {few:.0f} | {many:.0f} | {many / few:.2f} |")
    return rows


def critical(args) -> list[str]:
    """Critical compression of a one-shot score by layer, against a search over 25 compressions."""
    net = network("vgg16")
    alphas = [i / 4 for i in range(25)]

    def search():
        scores = [layer.weight.abs() for layer in obvious.prunable(net)]
        flat = torch.cat([score.flatten() for score in scores])
        for alpha in alphas:
            k = int((1 - 10**-alpha) * flat.numel())
            threshold = torch.kthvalue(flat, max(k, 1)).values
            _ = [int((score > threshold).sum()) for score in scores]

    scores = sf.trajectory(net, "magnitude")
    theirs, ours = in_turn(search, scores.last_of_each_layer, args.repeats)
    whole = statistics.median(
        seconds(lambda: sf.critical_compression(net, "magnitude")) for _ in range(args.repeats)
    )
    return [
        f"Magnitude on VGG-16: search over 25 compressions {theirs * 1e3:.0f} ms; the exact answer"
        f" from the scores {ours * 1e3:.1f} ms, ratio {theirs / ours:.0f}; with scoring and"
        f" bookkeeping {whole * 1e3:.0f} ms, ratio {theirs / whole:.0f}."
    ]


def figure2(args) -> list[str]:
    """25 compressions of SynFlow on VGG-16: one trajectory against 25 fixed schedules."""
    net = network("vgg16")
    points = [10 ** (i * 6 / 24) for i in range(25)]

    def ours():
        path = sf.trajectory(net, progress=False, **own(net))
        return [path.at(point).table() for point in points]

    theirs, mine = in_turn(plain(net, 1e2, args.steps), ours, args.repeats)
    theirs *= 25 * 100 / args.steps
    return [
        f"25 points of figure 2 for SynFlow: 25 x 100 obvious iterations {theirs:.0f} s (from"
        f" {args.steps} timed), one cut trajectory {mine:.1f} s, ratio {theirs / mine:.0f}."
    ]


def parity(args) -> list[str]:
    """The obvious implementation's masks after 100 iterations in float64, weight for weight."""
    rows = ["| network | compression | kept | differing weights |", "|---|---|---|---|"]
    for name in [name for name in args.networks if name != "vgg19"]:
        net, compression = network(name, "float64"), 1e2
        ours = sf.prune(net, "synflow", compression, progress=False, **own(net))
        theirs = obvious.synflow(copy.deepcopy(net), compression, 100, net.input_shape)
        differing = sum(
            int((mine != mask.bool()).sum())
            for mine, mask in zip(ours.values(), theirs, strict=True)
        )
        rows.append(f"| {name} | 10^2 | {ours.kept:,} | {differing} |")
        print(rows[-1], flush=True)
    return rows


def why(args) -> list[str]:
    """100 SynFlow iterations to 10^2 in float32 with one part of the fast path left out."""
    parts = {
        "all of it": [],
        "whole maps": [mock.patch.object(shortcuts, "narrow", lambda paths, shape: shape)],
        "dead units stay": [mock.patch.object(shortcuts.Compactor, "of", lambda *_: None)],
        "gradients by autograd": [mock.patch.object(shortcuts, "fused", lambda *_: None)],
        "thresholds by sorting all scores": [
            mock.patch.object(selection, "_sorted_sample", lambda *_: None)
        ],
        "none of these parts": [],
    }
    parts["none of these parts"] = [patch for patches in parts.values() for patch in patches]
    names = [name for name in args.networks if name in ("vgg16", "resnet18", "resnet20")]
    rows = [f"| left out | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    times = {part: [] for part in parts}
    for name in names:
        net, runs = network(name), {part: [] for part in parts}
        sf.prune(
            net, "synflow", 1e2, iterations=3, **own(net)
        )  # the first call in a process imports
        for _ in range(args.repeats):
            for part, patches in parts.items():
                with contextlib.ExitStack() as stack:
                    for patch in patches:
                        stack.enter_context(patch)
                    runs[part].append(
                        seconds(lambda net=net: sf.prune(net, "synflow", 1e2, **own(net)))
                    )
        for part, found in runs.items():
            times[part].append(statistics.median(found))
    whole = times["all of it"]
    for part, found in times.items():
        cells = [f"{10 * t:.1f} ms, {t / w:.2f}" for t, w in zip(found, whole, strict=True)]
        rows.append(f"| {part} | {' | '.join(cells)} |")
    return [*rows, "", "Milliseconds an iteration, and how many times those of all of it."]


CLAIMS = {
    "parity": parity,
    "iterations": iterations,
    "trajectories": trajectories,
    "chunks": chunks,
    "critical": critical,
    "figure2": figure2,
    "why": why,
}


def main() -> None:
    """Runs the claims and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claims", nargs="+", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=6, help="obvious iterations timed")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    described = ", ".join(f"{key} {value}" for key, value in sf.env.describe().items())
    RESULTS.mkdir(exist_ok=True)
    for name in args.claims:
        title = CLAIMS[name].__doc__.splitlines()[0]
        print(f"== {title}", flush=True)
        rows = CLAIMS[name](args)
        print("\n".join(rows), flush=True)
        lines = [f"# Speed: {title}", "", described, "", limits(), "", *rows, ""]
        (RESULTS / f"speed_{name}.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
