"""Scale, seeds, device and folders: the only module that reads users' variables.

| variable          | meaning                                | default                          |
|-------------------|----------------------------------------|----------------------------------|
| `SYNFLOW_SCALE`   | `classroom`, `colab`, `panel`, `paper` | `classroom`                      |
| `SYNFLOW_DEVICE`  | any torch device, e.g. `cpu`, `cuda:1` | `cuda` if there is one, or `cpu` |
| `SYNFLOW_FIGURES` | folder for the figures                 | `figures/` of the checkout       |
| `SYNFLOW_DATA`    | folder for downloads and caches        | `~/.cache/synflow_lib`           |
| `SYNFLOW_RUNS`    | folder of the notebooks' sweeps        | `runs/` of the checkout          |

Variables are read at each call, never at import, so a notebook can change them in a cell.
A variable that is set to the empty string counts as not set.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import torch

from .values import whole

SCALES = ("classroom", "colab", "panel", "paper")
_chosen: str | None = None  # the scale that `choose` has set
_held: list[tuple[filelock.FileLock, torch.device]] = []  # as long as this process lives


@dataclass(frozen=True)
class Settings:
    """What the notebooks compute at one scale; they ask for it and never branch on the scale.

    Only what costs time or needs a download changes between scales: architectures are the
    paper's own everywhere.

    Attributes:
        scale: one of `SCALES`. Networks are trained on embedded digits in the classroom; on one
            seed of CIFAR for colab, in an hour or two of a small GPU; for all compressions and
            three seeds of one network for panel, in a session of such a GPU; and as in the paper.
        seeds: number of random seeds (networks) behind every mean and interval, at least 1.
        scoring_data: data set that SNIP and GraSP score on, a name of `data.by_name`.
        alphas: compressions of the figures as exponents; compression = 10**alpha.
        scoring_per_class: images of each class in the scoring batch (paper, appendix: 10).
        iterations: pruning iterations of SynFlow (paper, Algorithm 1: 100).
    """

    scale: str
    seeds: int
    scoring_data: str
    alphas: tuple[float, ...]
    scoring_per_class: int = 10
    iterations: int = 100

    @property
    def compressions(self) -> tuple[float, ...]:
        """`10**alpha` for every alpha, rising.

        >>> SETTINGS["classroom"].compressions[:3]
        (1.0, 3.1622776601683795, 10.0)
        """
        return tuple(10.0**alpha for alpha in self.alphas)


_QUARTERS = tuple(i / 4 for i in range(25))
SETTINGS = {
    "classroom": Settings("classroom", 5, "digits", alphas=_QUARTERS[::2]),
    "colab": Settings("colab", 10, "cifar10", alphas=_QUARTERS),
    "panel": Settings("panel", 10, "cifar10", alphas=_QUARTERS),
    "paper": Settings("paper", 20, "cifar10", alphas=_QUARTERS),
}


def scale() -> str:
    """The current scale, from `SYNFLOW_SCALE`.

    Returns:
        One of `SCALES`, "classroom" by default.

    Raises:
        ValueError: the variable holds anything else.

    >>> scale() in SCALES
    True
    """
    value = os.environ.get("SYNFLOW_SCALE") or "classroom"
    if value not in SCALES:
        raise ValueError(
            f"SYNFLOW_SCALE is {value!r}; expected one of {', '.join(SCALES)}. "
            "Set it to one of these, or unset it for classroom."
        )
    return value


def choose(wanted: str) -> str:
    """Makes a scale the current one, unless `SYNFLOW_SCALE` was set by somebody else.

    Returns:
        The current scale.

    Raises:
        ValueError: there is no such scale.

    >>> import os; before = os.environ.pop("SYNFLOW_SCALE", "")
    >>> choose("colab"), choose("panel")  # one may change one's mind
    ('colab', 'panel')
    >>> os.environ["SYNFLOW_SCALE"] = before
    """
    global _chosen
    if wanted not in SCALES:
        raise ValueError(f"there is no scale {wanted!r}; expected one of {', '.join(SCALES)}.")
    if os.environ.get("SYNFLOW_SCALE") in (None, "", _chosen):
        os.environ["SYNFLOW_SCALE"] = _chosen = wanted
    return scale()


def settings() -> Settings:
    """The `Settings` of the current scale.

    >>> settings().iterations
    100
    """
    return SETTINGS[scale()]


def device() -> torch.device:
    """The device to compute on: `SYNFLOW_DEVICE`, or CUDA where there is one, or the CPU.

    Raises:
        ValueError: the variable is not a device of this machine.

    >>> device().type in ("cpu", "cuda", "mps")
    True
    """
    value = os.environ.get("SYNFLOW_DEVICE")
    if not value:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # Allocating is the only check that covers every backend, absent ones included.
        found = torch.empty(1, device=value).device if value != "cpu" else torch.device("cpu")
        if found.type == "meta":
            raise RuntimeError("it holds no numbers")
        return found
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"SYNFLOW_DEVICE is {value!r}, which torch cannot use here ({why}). "
            "Set it to cpu, or unset it to take CUDA where there is one."
        ) from error


def own_device() -> torch.device:
    """The device of a worker: on a machine with several GPUs one that no other worker has.

    A process keeps the first GPU whose lock in the temporary folder is free; where there are more
    workers than GPUs, the rest share. Where a lock is another user's and cannot be asked, only the
    workers of this user keep apart. `SYNFLOW_DEVICE` is obeyed as by `device`.

    >>> own_device().type in ("cpu", "cuda", "mps")
    True
    """
    count = torch.cuda.device_count()
    if count < 2 or os.environ.get("SYNFLOW_DEVICE"):
        return device()
    for number in range(count):
        if not _held and (lock := _lock(f"synflow_lib-cuda{number}")):
            _held.append((lock, torch.device("cuda", number)))
    return _held[0][1] if _held else torch.device("cuda", os.getpid() % count)


def _lock(name: str) -> filelock.FileLock | None:
    """A lock of all users, or, where it is closed to this one, of this user; None if it is held."""
    user = getattr(os, "getuid", lambda: "user")()
    for each in (name, f"{name}-{user}"):
        lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"{each}.lock", mode=0o666)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return None
        except OSError:
            continue
        return lock
    return None


def figures_dir() -> Path:
    """The folder that receives figures; created if it does not exist.

    `SYNFLOW_FIGURES` if set; else `figures/` of the checkout the working directory lies in (the
    nearest parent that holds both `notebooks/` and `synflow_lib/`); else `./figures`.
    """
    return _folder("SYNFLOW_FIGURES", "figures")


def data_dir() -> Path:
    """The folder that receives downloads and caches; created if it does not exist.

    `SYNFLOW_DATA` if set, else `~/.cache/synflow_lib`, so that all notebooks share one copy.
    """
    return _folder("SYNFLOW_DATA", "~/.cache/synflow_lib")


def runs_dir() -> Path:
    """The store of the notebooks' sweeps; created if it does not exist.

    `SYNFLOW_RUNS` if set (on Colab a folder of Google Drive, so that a dead session resumes); else
    `runs/` of the checkout, or `./runs`.
    """
    return _folder("SYNFLOW_RUNS", "runs")


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators (torch's on all devices).

    Args:
        seed: in [0, 2**32), NumPy's range.

    Raises:
        ValueError: the seed is not such an integer.

    >>> seed_everything(0); a = torch.rand(3)
    >>> seed_everything(0); torch.equal(a, torch.rand(3))
    True
    """
    seed = whole(seed, "seed", 0, 2**32 - 1)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, libraries without a seed argument draw from it
    torch.manual_seed(seed)


def describe() -> dict[str, str | int | None]:
    """Versions, device and threads of this process, to state beside any measured number.

    Holds nothing that identifies the machine beyond its kind: no host name, user or path. The
    version of a package that is not installed is None.

    >>> describe()["torch"] == torch.__version__
    True
    """
    here = device()
    name = torch.cuda.get_device_name(here) if here.type == "cuda" else _cpu_name()
    packages = ("torchvision", "numpy", "pandas", "scikit-learn", "matplotlib", "synflow_lib")
    return {
        "scale": scale(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        **{package: _version(package) for package in packages},
        "device": str(here),
        "device_name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _folder(variable: str, default: str) -> Path:
    """The folder that a variable names, or ``default`` in the checkout or here; created."""
    value = os.environ.get(variable)
    folder = Path(value or default)
    try:
        folder = folder.expanduser()
        if value:
            folder = folder.absolute()
        else:  # an absolute one stays what it is
            here = Path.cwd()
            around = (f for f in (here, *here.parents) if (f / "notebooks").is_dir())
            folder = next((f for f in around if (f / "synflow_lib").is_dir()), here) / folder
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # a user without a home is a RuntimeError
        raise ValueError(
            f"the folder {folder} cannot be created ({error}). "
            f"Set {variable} to a folder that can be written."
        ) from error
    return folder


@functools.cache  # reading a package's metadata takes milliseconds, and every run is described
def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _cpu_name() -> str:
    # platform.processor() is empty or says only "x86_64" on most Linux systems.
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
