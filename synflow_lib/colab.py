"""What a notebook needs on Google Colab and nowhere else: a GPU, and a place that outlives it.

The notebooks' setup cell calls `greet`, which says nothing on any other machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import env

__all__ = ["greet", "on_colab", "use_drive"]

MOUNTED = Path("/content/drive")


def on_colab() -> bool:
    """Whether this is a Colab kernel, which loads `google.colab` before anything else.

    >>> on_colab()
    False
    """
    return "google.colab" in sys.modules


def greet() -> None:
    """On Colab: says when the scale needs a GPU that is missing, and how runs are kept.

    >>> greet()  # elsewhere: nothing
    """
    if not on_colab():
        return
    if env.scale() != "classroom" and env.device().type == "cpu":
        print(
            f"Scale {env.scale()} needs a GPU and there is none: choose Runtime > Change runtime "
            "type > GPU, then run the notebook from its top."
        )
    print(
        "Finished runs are lost with this session. To keep them in your Google Drive and go on "
        "from there later:\n    from synflow_lib import colab; colab.use_drive()"
    )


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
