"""Makes static/explore/trajectories.js: what the race and the collapse explorer show.

    python notebooks/tools/site/trajectories.py

A browser has no time to prune VGG-16, so this does it once: five methods, three networks, the
weights left in each layer at some forty compressions. The same numbers come out each time.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

import synflow_lib as sf  # noqa: E402
from synflow_lib.reproduction.experiments import collapse  # noqa: E402
from synflow_lib.reproduction.paper import FIVE  # noqa: E402

TARGET = HERE / "static" / "explore" / "trajectories.js"
A_DECADE = 6  # stops of the slider in a decade of compression
# name -> how readers know it, the network, the size and channels of the digits that score it
NETWORKS = {
    "perceptron": ("Perceptron, 6 layers", lambda: sf.models.fc((1, 8, 8), seed=0), 8, 1),
    "resnet20": ("ResNet-20", lambda: sf.models.resnet20(seed=0), 32, 3),
    "vgg16": ("VGG-16", lambda: sf.models.vgg16(num_classes=100, seed=0), 32, 3),
}


def measured(name: str) -> dict:
    """All that the pages know of one network.

    ``stops`` are the compressions of the slider, up to rho_max = N / L, ``limit`` rho_max by layer
    and by path; of each method ``kept`` is the weights left by stop and layer, ``lives`` up to
    which compression each layer has a weight, ``critical`` rho_cr by layer and by path.
    """
    label, build, size, channels = NETWORKS[name]
    net, batch = build(), sf.data.digits(size=size, channels=channels).scoring_batch(10)
    limit = {criterion: sf.max_compression(net, criterion) for criterion in ("layer", "path")}
    # The network just below the limit is nearly that at it: no stop of its own.
    count = math.ceil((math.log10(limit["layer"]) - 0.02) * A_DECADE)
    stops = [*(10 ** (stop / A_DECADE) for stop in range(count)), limit["layer"]]
    paths = {
        # As in figure 2: the four score once, with the stored statistics of BatchNorm.
        method: sf.trajectory(net, method, batch, mode=mode, progress=False)
        for method, mode in zip(FIVE, (None, None, "eval", "eval", None), strict=True)
    }
    sizes = {key: shape.numel() for key, shape in paths["random"].layout.items()}
    layers = collapse.layer_densities(paths, stops)
    lives = collapse.layer_lifetimes(paths)
    critical = collapse.collapse_points(net, paths, lives)
    verdicts = collapse.collapse_verdicts(net, paths, stops)

    def of(method: str) -> dict:
        kept, life, points, states = (
            table[table["method"] == method] for table in (layers, lives, critical, verdicts)
        )
        reached = points.set_index("criterion")["critical_compression"]
        return {
            "kept": kept["kept"].to_numpy().reshape(len(stops), len(sizes)).tolist(),
            "connected": states["connected"].astype(int).tolist(),
            "lives": [_short(value) for value in life["compression"]],
            "critical": {criterion: _short(reached[criterion]) for criterion in limit},
        }

    return {
        "label": label,
        "layers": [[key.removesuffix(".weight"), size] for key, size in sizes.items()],
        "stops": [_short(stop) for stop in stops],
        "limit": {criterion: _short(value) for criterion, value in limit.items()},
        "methods": {method: of(method) for method in FIVE},
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def script(found: dict[str, dict]) -> str:
    """The file: a script rather than JSON, since pages read from a disk may not fetch."""
    lines = []
    for name, one in found.items():
        head = {key: value for key, value in one.items() if key != "methods"}
        methods = (f'"{key}": {_packed(value)}' for key, value in one["methods"].items())
        lines.append(f'"{name}": {_packed(head)[:-1]},"methods":{{\n' + ",\n".join(methods) + "}}")
    return (
        "// Made by ../../trajectories.py; not to be edited.\nconst TRAJECTORIES = {\n"
        + ",\n".join(lines)
        + "\n};\n"
    )


def _packed(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    TARGET.write_text(script({name: measured(name) for name in NETWORKS}), encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
