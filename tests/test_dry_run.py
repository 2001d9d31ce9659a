"""A GPU's code paths without a GPU: same results, no mixed devices, no hidden waits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def python(*arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own: torch knows the device that is not there for good."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.in_turn
@pytest.mark.parametrize("network", ["perceptron", "convolutions", "resnet20"])
def test_the_device_gives_what_the_cpu_gives(network):
    run = python("dry_run.py", network, "--json")
    assert run.returncode == 0, run.stderr[-2000:]
    rows = {row["call"]: row for row in map(json.loads, run.stdout.splitlines())}
    assert len(rows) > 12
    for call, row in rows.items():
        # The device sums over whole batches at once, the CPU in pieces.
        rounding = 1e-12 if call.startswith("score") else 0
        assert row["difference"] <= rounding, (call, row)
    iterations = 100
    assert rows["prune synflow"]["waits"] < rows["score synflow"]["waits"] + 6 * iterations
    trainings = [row for call, row in rows.items() if call.startswith("train")]
    assert all(row["waits"] < 40 for row in trainings), trainings  # of 24 steps none waits


FAULTS = """
import json, torch
from pretend_device import DEVICE, Machine
from torch.nn.functional import linear

def raised(fault):
    try:
        fault()
    except (RuntimeError, TypeError) as error:
        return str(error)

with Machine():
    x = torch.ones(3).to(DEVICE)
    mixed = [
        lambda: x + torch.ones(3),
        lambda: torch.zeros(3).copy_(x).add_(x),
        lambda: linear(x, torch.ones(2, 3)),
        lambda: x.numpy(),
    ]
    print(json.dumps([raised(each) for each in mixed]))
    waits = []
    waiting = [lambda: [x.sum().item() for _ in range(5)], lambda: bool(x[0]), lambda: x + x[1]]
    for wait in waiting:
        Machine.waits.clear()
        wait()
        waits.append(Machine.waits.total())
    print(json.dumps(waits))
"""


def test_mixed_devices_and_waits_are_found():
    run = python("-c", FAULTS)
    assert run.returncode == 0, run.stderr[-2000:]
    mixed, waits = map(json.loads, run.stdout.splitlines())
    for message, said in zip(mixed, ["same device"] * 3 + ["numpy"], strict=True):
        assert said in message
    assert waits == [5, 1, 0]
