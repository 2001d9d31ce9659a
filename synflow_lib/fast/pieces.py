"""Work cut in pieces of fixed size, for however many threads there are.

A sum that is split in as many parts as there are cores rounds differently on each machine: the
same model would get other masks. Here the parts depend on sizes alone, each is computed by one
thread, and their results are put together in order. Comparing, counting and moving need no such
care, but run in pieces as well because a piece fits a core's cache.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

import torch

from ..randomness import alone

PIECE = 1 << 18  # numbers; with what is computed from them they stay in a core's cache

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")
_threads: ContextVar[int] = ContextVar("threads for pieces", default=1)


def spans(length: int, size: int = PIECE) -> list[slice]:
    """0 to ``length`` in slices of ``size``; a rest of less than half of it joins the last.

    >>> spans(9, 4)
    [slice(0, 4, None), slice(4, 9, None)]
    """
    count = max(1, (length + size // 2) // size)
    return [slice(i * size, (i + 1) * size if i + 1 < count else length) for i in range(count)]


@contextlib.contextmanager
def fixed_order() -> Iterator[None]:
    """Torch on one CPU thread inside, `in_pieces` on as many as torch had.

    That number belongs to the process: other threads that want to enter wait.
    """
    with alone():
        threads = torch.get_num_threads()
        token = _threads.set(max(threads, _threads.get()))
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            _threads.reset(token)


def in_pieces(function: Callable[[_Piece], _Result], pieces: Sequence[_Piece]) -> list[_Result]:
    """``[function(piece) for piece in pieces]``, on several threads inside `fixed_order`.

    Autograd does not see what ``function`` does.

    >>> in_pieces(abs, [-1, 2])
    [1, 2]
    """
    threads = max(1, min(_threads.get(), len(pieces)))

    def share(first: int) -> list[_Result]:
        with torch.no_grad():
            return [function(piece) for piece in pieces[first::threads]]

    if threads < 2:
        return share(0)
    others = [_pool(_threads.get()).submit(share, first) for first in range(1, threads)]
    shares = [share(0), *(other.result() for other in others)]
    return [shares[i % threads][i // threads] for i in range(len(pieces))]


@functools.lru_cache(1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        threads, "synflow_lib", initializer=torch.set_num_threads, initargs=(1,)
    )


if hasattr(os, "register_at_fork"):  # a forked process has the pool but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
