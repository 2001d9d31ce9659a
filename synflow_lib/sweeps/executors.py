"""Where the work of a sweep is done, and which of its errors are the machine's.

In this process, in several processes, or on a Dask cluster.
"""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool

import cloudpickle
import torch

Work = Callable[[list], object]  # a group of tasks -> a report

# What an error of the operating system says of a path or a call, and not of the machine.
_OF_THE_CALL = (errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EBADF)
# Libraries in C++ report some trouble of the machine in words only.
_WORDS = re.compile(
    r"no space left|out of memory|can't allocate memory|too many open files|permission denied"
    r"|read-only file system|disk quota|file write failed|PytorchStreamWriter",
    re.IGNORECASE,
)


class WorkerDiedError(Exception):
    """A process that worked for the sweep is gone."""


def executor_of(
    executor: object, to_send: Mapping[str, object]
) -> Callable[[Work, list[list]], Iterator]:
    """A function that does a piece of work for each group and yields the reports as they come.

    For ``executor`` see `sweep`; ``to_send`` is what workers need, by names for error messages.

    Raises:
        TypeError, ValueError: no executor, or something that cannot be sent to another process.

    >>> run_all = executor_of(None, {})
    >>> list(run_all(len, [[1, 2], [3]]))
    [2, 1]
    """
    if executor is None:
        return lambda work, groups: map(work, groups)
    if isinstance(executor, bool) or not (isinstance(executor, int) or hasattr(executor, "submit")):
        raise TypeError(
            f"executor is {executor!r}; expected None, a number of processes, or a"
            " dask.distributed.Client"
        )
    for name, value in to_send.items():
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            raise TypeError(
                f"{name!r} cannot be sent to another process ({error}). Make it a function of a"
                " module that builds what it needs itself, or use executor=None"
            ) from error
    if isinstance(executor, int):
        if executor < 1:
            raise ValueError(f"executor={executor}; expected at least 1 process")
        return functools.partial(_processes, executor)
    return functools.partial(_dask, executor)


def _processes(count: int, work: Work, groups: list[list]) -> Iterator:
    # One task a time, so that no run waits behind another in a worker that dies.
    import joblib

    parallel = joblib.Parallel(
        count, batch_size=1, pre_dispatch=count, return_as="generator_unordered"
    )
    try:
        yield from parallel(joblib.delayed(work)(group) for group in groups)
    except BrokenProcessPool as error:  # TerminatedWorkerError is one
        raise WorkerDiedError(type(error).__name__) from error


def _dask(client, work: Work, groups: list[list]) -> Iterator:
    from dask.distributed import as_completed

    futures = [client.submit(work, group, pure=False, retries=2) for group in groups]
    died = None
    try:
        for future in as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:
                died = future.exception()
    finally:
        client.cancel(futures)
    if died is not None:
        raise WorkerDiedError(type(died).__name__) from died


def of_machine(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, speaks of a full disk, memory, rights, ...

    Such trouble may be over tomorrow; it is not the run's own.

    >>> of_machine(OSError(errno.ENOSPC, "No space left on device")), of_machine(ValueError("x"))
    (True, False)
    """
    while error is not None:
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            return True
        if isinstance(error, OSError) and error.errno not in (None, *_OF_THE_CALL):
            return True
        if isinstance(error, (OSError, RuntimeError)) and _WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
