"""How a notebook begins: its scale, and on Google Colab a GPU and a place that outlives it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import env

MOUNTED = Path("/content/drive")


def on_colab() -> bool:
    """Whether this is a Colab kernel, which loads `google.colab` before anything else.

    >>> on_colab()
    False
    """
    return "google.colab" in sys.modules


def greet(scale: str = "classroom", drive: bool = False) -> None:
    """What the notebooks' setup cell does with its form; says where results will lie.

    Args:
        scale: as in `env.choose`.
        drive: whether to ask for Google Drive, where results outlive a Colab session. It is asked
            for at once, so that nobody comes back to a question, but not for the classroom scale,
            whose networks are trained again in minutes.

    >>> greet()  # in the classroom there is nothing to say
    """
    scale = env.choose(scale)
    if scale == "classroom":
        return
    if on_colab() and drive:
        try:
            use_drive()
        except Exception as error:  # whatever Colab raises where access is not allowed
            print(f"Not in your Google Drive ({error}); what is trained is lost with this session.")
    print(f"scale {scale} on {env.device()}: what is trained lies in {env.runs_dir()}")
    if env.device().type == "cpu":
        print("This scale needs a GPU, and there is none.", end=" ")
        print("On Colab: Runtime > Change runtime type > GPU." if on_colab() else "")


def use_drive(folder: str = "synflow_runs") -> Path:
    """Mounts Google Drive and makes a folder of it the store of sweeps (`env.runs_dir`).

    A later session that calls this first finds the runs that are done, and does the others.

    Args:
        folder: a path inside "My Drive", made if it does not exist.

    Returns the folder, as `env.runs_dir` does from now on.

    Raises:
        ValueError: `folder` is empty, absolute or leaves the drive.
        RuntimeError: this is not Colab, or the drive was not mounted.

    >>> use_drive()
    Traceback (most recent call last):
        ...
    RuntimeError: use_drive works on Google Colab only; elsewhere set SYNFLOW_RUNS to a folder.
    """
    inside = Path(folder)
    if not folder or inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"folder is {folder!r}; expected a path inside My Drive, as synflow_runs.")
    if not on_colab():
        raise RuntimeError(
            "use_drive works on Google Colab only; elsewhere set SYNFLOW_RUNS to a folder."
        )
    from google.colab import drive

    drive.mount(str(MOUNTED))
    home = MOUNTED / "MyDrive"
    if not home.is_dir():
        raise RuntimeError(
            "Google Drive was not mounted: run the cell again and allow access when asked."
        )
    os.environ["SYNFLOW_RUNS"] = str(home / inside)
    return env.runs_dir()
