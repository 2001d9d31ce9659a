"""The same masks on every machine: other instructions, other kernels, other numbers of threads.

`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA` and `MKL_ENABLE_INSTRUCTIONS` make torch's own kernels,
oneDNN and MKL compute as on another processor. They are read once, so each setting is a process of
its own, which prunes all networks and prints digests of weights and masks.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

# The processors that are imitated, each with a path and a number of threads of its own.
MACHINES = [
    ("default", "SSE41", "SSE4_2", "fast", 1),
    ("avx2", "AVX2", "AVX2", "plain", 1),
    ("", "", "", "fast", 2),
]
NAMES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def networks():
    """Name -> (network, what is done to it), twenty, all of float32 but one."""
    import networks as zoo
    import torch

    import synflow_lib as sf

    single = torch.float32
    small = {
        "vgg": zoo.narrow_vgg16(seed=0).to(single),
        "narrower vgg": zoo.narrow_vgg16(seed=1, width=2).to(single),
        "vgg, no norm": zoo.narrow_vgg16(batch_norm=False, seed=2).to(single),
        "resnet": zoo.narrow_resnet(seed=3).to(single),
        "resnet, float64": zoo.narrow_resnet(seed=4),
        "chain": zoo.with_shape(zoo.mlp(6, 6, 6, 6, 6, 6, 4, seed=5, dtype=single), (6,)),
        "narrow chain": zoo.with_shape(zoo.mlp(9, 2, 2, 2, 2, 3, seed=6, dtype=single), (9,)),
        "wide": zoo.with_shape(zoo.mlp(8, 300, 4, bias=True, seed=7, dtype=single), (8,)),
        "norms": zoo.with_shape(zoo.mlp(8, 12, 9, 4, batch_norm=True, seed=8, dtype=single), (8,)),
    }
    for kind in (zoo.Residual, zoo.Dense, zoo.Mobile, zoo.Shared, zoo.Tied, zoo.Decoder,
                 zoo.LongBranch, zoo.PreActivation):  # fmt: skip
        small[kind.__name__] = zoo.seeded(kind, seed=9, dtype=single)
    for net in small.values():
        refill_(net)
    small["fc"] = sf.models.fc((1, 8, 8), seed=0)
    small["resnet20"] = sf.models.resnet20(seed=0)
    small["vgg11"] = sf.models.vgg11(seed=0)
    return small


def refill_(net):
    """Other numbers, the same on every machine, which torch's own initialization is not."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                uniform = torch.rand(tensor.shape, generator=generator)
                positive = "var" in name or tensor.dim() == 1 and name.endswith("weight")
                tensor.copy_(uniform + 0.5 if positive else uniform - 0.5)


def masks_of(name, net, **options):
    """Masks of several methods and schedules; less is done to the paper's own networks."""
    from networks import images

    import synflow_lib as sf

    if name == "vgg11":
        yield sf.prune(net, "synflow", 1e3, iterations=5, **options)
        return
    if name == "resnet20":
        yield sf.prune(net, "synflow", 10.0, iterations=15, **options)
        yield sf.prune(net, "snip", 10.0, images(net, 10, 10), **options)
        return
    total = sum(p.numel() for p in sf.prunable(net).values())
    path = sf.trajectory(net, "synflow", **options)
    yield from (path.keeping(max(path.counts[-1], total // part)) for part in (3, 30, total))
    yield sf.prune(net, "synflow", max(4.0, total / 25), iterations=40, **options)
    batch = images(net, 8)
    for method in ("snip", "grasp", "random"):
        yield sf.prune(net, method, 3, batch, **options)
        yield sf.prune(net, method, max(2.5, total / 30), batch, iterations=3, **options)


def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()[:16]


def report(path, threads):
    """What one machine finds, as JSON on stdout: digests, and those of the negative control."""
    import functools

    import torch

    from synflow_lib import pruning
    from synflow_lib.scores import Method

    torch.set_num_threads(threads)
    if path == "plain":
        pruning.Context = functools.partial(pruning.Context, fast=False)
    zoo = networks()

    def digests(names, **options):
        return {
            f"{name} {number}": digest(masks.values())
            for name in names
            for number, masks in enumerate(masks_of(name, zoo[name], **options))
        }

    found = {"weights": {name: digest(net.parameters()) for name, net in zoo.items()}}
    day = os.environ.get("SYNFLOW_TESTS_IN_TURN")  # one network of three, each in its turn
    asked = [n for place, n in enumerate(zoo) if day is None or (place + int(day)) % 3 == 0]
    found["masks"] = digests(asked)
    Method.within = 0.0
    found["ulps decide"] = digests(["narrow chain"])
    print(json.dumps(found))


def run(instructions, path, threads):
    """What is found by a process of its own that takes itself for another machine."""
    inherited = {k: v for k, v in os.environ.items() if k not in NAMES}
    given = {n: v for n, v in zip(NAMES, instructions, strict=True) if v}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, path, str(threads)],
        env=inherited | given | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout)


def differing(machines, kind):
    first, *others = (found[kind] for found in machines)
    assert all(set(other) == set(first) for other in others)
    return [name for name in first if any(other[name] != first[name] for other in others)]


def test_weights_and_masks_are_the_same_on_every_machine():
    machines = [run(instructions, path, threads) for *instructions, path, threads in MACHINES]
    first = machines[0]
    networks, masks = len(first["weights"]), len(first["masks"])
    print(f"{masks} masks of {networks} networks on {len(machines)} machines")
    assert networks == 20 and masks > (50 if "SYNFLOW_TESTS_IN_TURN" in os.environ else 150)
    assert differing(machines, "weights") == []
    assert differing(machines, "masks") == []
    # The negative control: without the rule of ties, where an ulp decides, some masks are others.
    assert differing(machines, "ulps decide") != []


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    report(sys.argv[1], int(sys.argv[2]))
