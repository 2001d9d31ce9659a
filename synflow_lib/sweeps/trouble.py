"""Whose fault an error is: the machine's, which may be well tomorrow, or the run's own."""

from __future__ import annotations

import errno
import re

import torch

_ERRNO = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "ENOMEM"),
        *("EIO", "ESTALE", "ENOLCK", "ETIMEDOUT", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
}
# Libraries in C++ report some of these in words only.
_WORDS = re.compile(
    r"no space left|out of memory|can't allocate memory|too many open files|permission denied"
    r"|read-only file system|disk quota|file write failed|PytorchStreamWriter",
    re.IGNORECASE,
)


def of_machine(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, speaks of a full disk, memory, rights, ...

    >>> of_machine(OSError(errno.ENOSPC, "No space left on device")), of_machine(ValueError("x"))
    (True, False)
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            return True
        if isinstance(error, OSError) and error.errno in _ERRNO:
            return True
        if isinstance(error, (OSError, RuntimeError)) and _WORDS.search(str(error)):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def first_line(error: BaseException) -> str:
    """The first line of its message, or its kind where it has none.

    >>> first_line(ValueError("one\\ntwo")), first_line(KeyboardInterrupt())
    ('one', 'KeyboardInterrupt')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
