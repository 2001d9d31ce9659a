"""The library's GPU code without a GPU: `make gpu-dry-run`.

    python tests/dry_run.py              all networks
    python tests/dry_run.py resnet20     one of them; --json: a line of JSON for every call

Every call is made on the CPU and on `pretend_device`, whose tensors refuse to meet the CPU's. The
table says by how much the results differ, relative to the largest number, and how often the CPU
waited for the device, as ``.item()`` does.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping

import torch
from pretend_device import DEVICE, Machine
from torch import Tensor, nn

import synflow_lib as sf

METHODS = ("random", "magnitude", "snip", "grasp", "synflow")


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (network, shape of an image)."""
    digits = (1, 8, 8)
    return {
        "perceptron": (sf.models.fc(digits, batch_norm=True, seed=0), digits),
        "convolutions": (sf.models.conv(digits, depth=3, width=6, batch_norm=True, seed=0), digits),
        "resnet20": (sf.models.resnet20(seed=0), (3, 32, 32)),
    }


def calls(name: str) -> Iterator[tuple[str, Callable[[nn.Module, torch.device], object]]]:
    """(what is called, a function of the network and the device that gives its results)."""
    shape = networks()[name][1]
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))

    def batch(device):
        return x.to(device), (torch.arange(20) % 10).to(device)

    def score(method):
        return lambda net, device: sf.score(net, method, batch=batch(device), input_shape=shape)

    def prune(method, **how):
        return lambda net, device: sf.prune(
            net, method, 10, batch=batch(device), input_shape=shape, **how
        )

    for method in METHODS:
        yield f"score {method}", score(method)
        yield f"prune {method}", prune(method)
    yield "prune synflow, float32", prune("synflow", dtype=torch.float32)
    yield "prune snip, 10 times", prune("snip", iterations=10)
    yield (
        "check_conservation",
        lambda net, device: (
            sf.check_conservation(
                net.double(),
                sf.score(net.double(), "synflow", input_shape=shape),
                input_shape=shape,
            )
            .table.select_dtypes("number")
            .to_numpy()
        ),
    )
    if name == "resnet20":  # on a CPU the rest would take minutes
        return

    def cut(net, device):
        path = sf.trajectory(net, "synflow", schedule="cut", input_shape=shape)
        return [path.counts, path.at(50)]

    def collapse(net, device):
        masks = sf.prune(net, "magnitude", 20)
        asked = {"input_shape": shape}
        return [
            sf.is_collapsed(net, masks, "path", **asked),
            sf.effective_compression(net, masks, **asked),
            sf.critical_compression(net, "magnitude", criterion="path", **asked).kept,
            sf.max_compression(net, "path", **asked),
        ]

    def smaller(net, device):
        masks = sf.prune(net, "magnitude", 20)
        return sf.surgery.without_dead_units(net, masks, input_shape=shape).state_dict()

    yield "trajectory, cut schedule", cut
    yield "collapse", collapse
    yield "surgery", smaller
    digits, recipe = sf.data.digits(), sf.Recipe(2, 0.1, augment=name == "convolutions")
    masks = sf.prune(networks()[name][0], "synflow", 5, input_shape=shape)

    def train(**how):
        def run(net, device):
            result = sf.train(net, masks, digits, recipe, **how)
            return [result.before, result.top1, net.state_dict()]

        return run

    def many(**how):
        def run(net, device):
            nets = [net, copy.deepcopy(net)]
            results = sf.train_many(nets, [masks, None], digits, recipe, seeds=[0, 1], **how)
            return [[result.top1 for result in results], *[each.state_dict() for each in nets]]

        return run

    def imp(net, device):
        rounds = sf.imp(net, digits, recipe, 10, rounds=2, rewind=1)
        return [[each.training.top1 for each in rounds], net.state_dict()]

    for compact in (False, True):
        yield f"train, compact={compact}", train(compact=compact)
        yield f"train, compact={compact}, amp=True", train(compact=compact, amp=True)
    yield "train_many", many()
    if name == "convolutions":  # a CPU normalizes no matrix in half precision
        yield "train_many, amp=True", many(amp=True)
    yield "imp", imp
    yield "evaluate", lambda net, device: sf.evaluate(net, digits)


def numbers(result) -> list[Tensor]:
    """All numbers of a result, on the CPU in float64."""
    if isinstance(result, Mapping):
        return [number for key in result for number in numbers(result[key])]
    if isinstance(result, (list, tuple)):
        return [number for each in result for number in numbers(each)]
    if isinstance(result, Tensor):
        return [result.detach().cpu().double()]
    return [torch.as_tensor(result).double()]


def both(call, net: nn.Module) -> dict:
    """Largest relative difference between the CPU and the device, and how often that one waits."""
    usual = numbers(call(copy.deepcopy(net), torch.device("cpu")))
    with Machine():
        there = copy.deepcopy(net).to(DEVICE)
        Machine.waits.clear()
        found = numbers(call(there, DEVICE))
        waits = Machine.waits.total()
    if [a.shape for a in usual] != [b.shape for b in found]:
        return {"difference": float("inf"), "waits": waits}
    off = [
        float((a - b).abs().max() / (a.abs().max() or 1.0))
        for a, b in zip(usual, found, strict=True)
        if a.numel()
    ]
    return {"difference": max(off, default=0.0), "waits": waits}


def main() -> None:
    torch.set_num_threads(1)
    asked = [word for word in sys.argv[1:] if word != "--json"] or list(networks())
    as_lines = "--json" in sys.argv
    if not as_lines:
        print("| network | call | largest difference | waits for the device |\n|---|---|---|---|")
    for name in asked:
        for what, call in calls(name):
            row = {"call": what, **both(call, networks()[name][0])}
            line = f"| {name} | {what} | {row['difference']:.1g} | {row['waits']} |"
            print(json.dumps(row) if as_lines else line, flush=True)


if __name__ == "__main__":
    main()
