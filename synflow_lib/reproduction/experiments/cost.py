"""Notebook 06: what pruning costs, and what a pruned network saves, in seconds and bytes."""

from __future__ import annotations

import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...data import Dataset
from ...masks import Masks
from ...pruning import prune, trajectory
from ...scores import METHODS
from ...surgery import flops, without_dead_units
from ...values import whole
from .measured import measured

_LONG, _LONG_COUNTED = 0.5, 1.0  # seconds from which a call is not repeated


def seconds_of(call: Callable[[], object], repeats: int = 3) -> float:
    """Wall-clock seconds of a call: the median of ``repeats``, after one to warm up.

    A call of half a second or more needs no warming up and is not repeated. On a GPU a call has to
    wait for its own results.

    Raises:
        ValueError: repeats below 1.
    """
    repeats = whole(repeats, "repeats", 1)
    first = _time(call)
    if first >= _LONG:
        return first
    return statistics.median(_time(call) for _ in range(repeats))


def seconds_and_bytes(call: Callable[[], object], repeats: int = 3) -> tuple[float, int]:
    """`seconds_of`, and the most memory that tensors on the CPU hold at once beyond those before.

    Counted is what operations make, not what an operation uses inside. That takes some microseconds
    an operation: a long call is timed and counted at once.

    >>> seconds, peak = seconds_and_bytes(lambda: torch.zeros(1000), repeats=1)
    >>> seconds < 0.5, peak
    (True, 4000)
    """
    with _Storages() as held:
        spent = _time(call)
    return spent if spent >= _LONG_COUNTED else seconds_of(call, repeats), held.most


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class _Storages(TorchDispatchMode):
    """Adds up the storages that operations make, and takes off those that are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        old = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(found):
            if not isinstance(tensor, Tensor) or _address(tensor) in old | self.known:
                continue
            storage, address = tensor.untyped_storage(), _address(tensor)
            self.known.add(address)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._let_go, address, storage.nbytes())
        return found

    def _let_go(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def training_step(net: nn.Module, dataset: Dataset, batch_size: int) -> Callable[[], None]:
    """One step of SGD on the first training images, as a call that can be timed."""
    x, y = next(dataset.batches("train", batch_size))
    optimizer = torch.optim.SGD(net.parameters(), 0.0, momentum=0.9)  # rate 0: nothing moves

    def step() -> None:
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


@measured
def scoring_costs(
    net: nn.Module,
    dataset: Dataset,
    methods: Iterable[str],
    *,
    images: int | None = None,
    repeats: int = 3,
) -> pd.DataFrame:
    """Seconds and memory of pruning to compression 100, against one epoch of training.

    An epoch is one timed step of 64 images times the steps of an epoch.

    Args:
        net: the network; its weights do not change, BatchNorm's running statistics do.
        dataset: scoring images (10 a class) and training images.
        methods: names of `METHODS`, each with the paper's number of iterations.
        images: of an epoch, default the data set's (50,000 for CIFAR).
        repeats: as in `seconds_of`.

    Returns:
        One row a method: method, weights (N), iterations, seconds (of pruning), epoch (seconds),
        epochs (their quotient), prune_mb (peak memory of tensors), step_mb (of one step).
    """
    batch = dataset.scoring_batch()
    images = len(dataset.train_y) if images is None else images
    seconds, step_bytes = seconds_and_bytes(training_step(net, dataset, 64), repeats)
    epoch = seconds * images / 64
    net.zero_grad(set_to_none=True)
    rows = []
    for method in methods:
        call = partial(prune, net, method, 100, batch, progress=False)
        spent, peak = seconds_and_bytes(call, repeats)
        weights, iterations = Masks.ones(net).total, METHODS[method].iterations
        memory = peak / 1e6, step_bytes / 1e6
        rows.append((method, weights, iterations, spent, epoch, spent / epoch, *memory))
    columns = ["method", "weights", "iterations", "seconds", "epoch", "epochs"]
    return pd.DataFrame(rows, columns=[*columns, "prune_mb", "step_mb"])


def matrix_latencies(
    densities: Iterable[float], *, size: int = 1024, batch: int = 64, repeats: int = 15
) -> pd.DataFrame:
    """Time of one Linear layer with random zeros: dense kernel against sparse (CSR) kernel.

    Args:
        densities: kept / all weights, each in (0, 1].
        size, batch: inputs and outputs of the layer, and inputs at once.
        repeats: as in `seconds_of`.

    Returns:
        One row a density and kernel ("dense", "CSR"): compression, kernel, milliseconds, ratio
        (dense time / this time: above 1 it is faster than dense).
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, batch, generator=generator)
    weight = torch.randn(size, size, generator=generator)
    dense = seconds_of(lambda: weight @ x, repeats)
    rows = []
    for density in densities:
        kept = torch.rand(size, size, generator=generator) < density
        with warnings.catch_warnings():  # that CSR is in beta state
            warnings.simplefilter("ignore", UserWarning)
            sparse = (weight * kept).to_sparse_csr()
        times = {"dense": dense, "CSR": seconds_of(lambda s=sparse: s @ x, repeats)}
        rows += [(1 / density, k, 1e3 * s, dense / s) for k, s in times.items()]
    return pd.DataFrame(rows, columns=["compression", "kernel", "milliseconds", "ratio"])


def savings(
    net: nn.Module, masks: Mapping[tuple[str, float], Masks], images: Tensor, repeats: int = 3
) -> pd.DataFrame:
    """What is left of a network: weights, multiply-adds, and time with its dead units cut out.

    Args:
        net: the network, in evaluation mode; it is left as it is.
        masks: (method, compression asked for) -> masks.
        images: [n, channels, height, width], run in one forward pass.
        repeats: as in `seconds_of`.

    Returns:
        One row a mask: method, compression, kept, multiply_adds (share of the dense network's, if
        only kept weights are multiplied), smaller (share of the weights that the tensors still hold
        once units on no path are cut out), speedup (dense time / time of the smaller network).
    """
    with torch.no_grad():
        dense, rows = seconds_of(lambda: net(images), repeats), []
        for (method, compression), each in masks.items():
            operations = flops(net, each)
            small = without_dead_units(net, each)
            spent = seconds_of(partial(small, images), repeats)
            share = operations["pruned"].sum() / operations["dense"].sum()
            left = Masks.ones(small).total / each.total
            rows.append((method, compression, each.kept, share, left, dense / spent))
    columns = ["method", "compression", "kept", "multiply_adds", "smaller", "speedup"]
    return pd.DataFrame(rows, columns=columns)


@measured
def savings_of_methods(
    net: nn.Module, batch: tuple[Tensor, Tensor], images: Tensor, levels: Iterable[float]
) -> pd.DataFrame:
    """`savings` of one-shot SNIP, and of SynFlow on the paper's schedule to the last level.

    Args:
        net, images: as in `savings`.
        batch: to score SNIP on.
        levels: compressions, in rising order.
    """
    levels = list(levels)
    fixed = {"schedule": "exponential", "iterations": 100, "compression": levels[-1]}
    paths = {"snip": trajectory(net, "snip", batch), "synflow": trajectory(net, "synflow", **fixed)}
    chosen = {(name, level): path.at(level) for name, path in paths.items() for level in levels}
    return savings(net, chosen, images)
