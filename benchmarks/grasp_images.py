"""Where GraSP empties its first layer, by its version and by how many images it scores.

    python benchmarks/grasp_images.py FOLDER                 3 networks, 100, 400 and 1,000 images
    python benchmarks/grasp_images.py FOLDER --seeds 1 --images 100

FOLDER holds ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``, ten classes. VGG-16 (BN) for
CIFAR-100 at initialization, scored once in evaluation mode, float32, on photographs of CIFAR-10
whose labels are spread over the hundred classes. "early" is the version that the paper's authors
ran: no temperature, the opposite sign. Writes benchmarks/results/grasp_images.md.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from pathlib import Path

import pandas as pd
import torch

import synflow_lib as sf
from synflow_lib.reproduction.experiments.scorings import grasp_variant

RESULTS = Path(__file__).parent / "results" / "grasp_images.md"
VERSIONS = {
    "early": {"temperature": 1.0, "sign": "reversed"},
    "today's": {"temperature": 200.0, "sign": "signed"},
}


def first_empty(data: sf.data.Dataset, version: str, images: int, seed: int) -> float:
    """log10 of the compression at which the first layer is empty."""
    x, y = data.scoring_batch(images // 10, seed=seed)
    y = 10 * y + torch.arange(len(y)) // 10 % 10  # the classes take turns: ten labels for each
    net = sf.models.vgg16(num_classes=100, seed=seed)
    method = grasp_variant(**VERSIONS[version])
    path = sf.trajectory(net, method, (x, y), mode="eval", dtype=torch.float32)
    return math.log10(path.total / path.last_of_each_layer())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 400, 1000])
    args = parser.parse_args()
    data, rows = sf.data.image_folder(args.folder), []
    for seed in range(args.seeds):
        for images in args.images:
            for version in VERSIONS:
                start = time.perf_counter()
                alpha = first_empty(data, version, images, seed)
                rows.append((version, images, seed, alpha))
                print(*rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    table = pd.DataFrame(rows, columns=["version", "images", "seed", "log10"])
    table = table.pivot_table("log10", index=["version", "images"], columns="seed")
    lines = [
        "# Where GraSP empties its first layer",
        "",
        "`python benchmarks/grasp_images.py FOLDER`: log10 of the compression, VGG-16 (BN) for",
        "CIFAR-100 at initialization, eval mode, float32, photographs of CIFAR-10 (JPEG) whose",
        f"labels are spread over the hundred classes; torch {torch.__version__},",
        f"{platform.machine()}, CPU.",
        "",
        "| version | images | " + " | ".join(f"seed {seed}" for seed in table) + " | mean |",
        "|---|---|" + "---|" * (len(table.columns) + 1),
    ]
    for (version, images), row in table.iterrows():
        cells = " | ".join(f"{value:.2f}" for value in (*row, row.mean()))
        lines.append(f"| {version} | {images:,} | {cells} |")
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
