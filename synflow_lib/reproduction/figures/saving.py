"""Writing a figure and the numbers behind it, the same bytes each time."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ...env import figures_dir
from ...files import replacing
from .style import theme

# Version and date would change the files when nothing in them has changed.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def save(fig: Figure, name: str, data: pd.DataFrame | None = None) -> list[Path]:
    """Writes `name.png`, `name.svg` and, with data, `name.csv` into the folder of the figures.

    Saved twice, or made anew from the same numbers, the files are equal byte for byte: they hold
    no date and no version, and numbers are written with six significant digits.

    Args:
        fig: any matplotlib figure.
        name: of the files, without extension: letters, digits, `_`, `-`, `.`.
        data: the numbers the figure shows; the index is not written.

    Returns:
        The paths written, in that order. The folder is `env.figures_dir()`.

    Raises:
        TypeError: `fig` is no Figure or `data` no DataFrame.
        ValueError: the name could not be a file name.

    >>> save(Figure(), "../figure")
    Traceback (most recent call last):
    ...
    ValueError: name is '../figure'; expected letters, digits, '_', '-' and '.', such as 'fig2'.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"fig is a {type(fig).__name__}; expected a matplotlib Figure.")
    if data is not None and not isinstance(data, pd.DataFrame):
        raise TypeError(f"data is a {type(data).__name__}; expected a DataFrame or None.")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(
            f"name is {name!r}; expected letters, digits, '_', '-' and '.', such as 'fig2'."
        )
    folder = figures_dir()
    written = []
    for kind, metadata in _METADATA.items():
        with theme(), replacing(folder / f"{name}.{kind}") as part:
            fig.savefig(part, format=kind, metadata=metadata)
        written.append(folder / f"{name}.{kind}")
    if data is not None:
        with replacing(folder / f"{name}.csv") as part:
            data.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
        written.append(folder / f"{name}.csv")
    return written
