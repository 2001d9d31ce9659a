"""Random numbers apart from the caller's, and a lock for settings that a process has once."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch

_turn = threading.RLock()


def alone() -> contextlib.AbstractContextManager:
    """Only one thread at a time inside: for what a process has once, whatever its threads do.

    Its random number generators and torch's number of threads, above all. A thread may enter again
    what it has entered already.

    >>> with alone(), alone():
    ...     pass
    """
    return _turn


def _new_turn() -> None:
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads that wait or hold
    os.register_at_fork(after_in_child=_new_turn)


@contextlib.contextmanager
def own_random_numbers(seed: int | None = None) -> Iterator[None]:
    """In the block torch, numpy and Python draw random numbers apart from the caller's.

    Models, scorers and data loaders may draw from any of these generators. After the block, also
    after an error, all of them are where they were before. Threads wait for each other in front of
    the block; one that draws from these generators without entering it draws the block's numbers.
    Without a ``seed`` they go on from the caller's state.

    >>> before = torch.get_rng_state()
    >>> with own_random_numbers(seed=0):
    ...     first = torch.rand(1), random.random()
    >>> with own_random_numbers(seed=0):
    ...     first == (torch.rand(1), random.random())
    True
    >>> torch.equal(before, torch.get_rng_state())
    True
    """
    with alone():
        cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        python_state = random.getstate()
        numpy_state = np.random.get_state()  # noqa: NPY002, others' code draws from it
        try:
            with torch.random.fork_rng(cuda):
                if seed is not None:
                    # Not torch.manual_seed: it would also seed a CUDA that has not started yet.
                    torch.default_generator.manual_seed(seed)
                    for device in cuda:
                        torch.cuda.default_generators[device].manual_seed(seed)
                    random.seed(seed)
                    np.random.seed(seed % 2**32)  # noqa: NPY002
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
