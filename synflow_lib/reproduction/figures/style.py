"""How every figure looks: one colour, marker and linestyle per method, and the theme around them.

Colours are seaborn's "colorblind" palette, fixed per method for the whole project. Marker and
linestyle differ as well, so that a figure printed in grey can still be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

WIDTH = 10.0  # inches: the width of a notebook at 100 dots per inch
COMPRESSION = r"compression $\rho$ (weights / kept weights)"
MAX_COMPRESSION = {"color": "black", "linestyle": "-", "linewidth": 1.2, "zorder": 1.5}
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # behind text that crosses lines


@dataclass(frozen=True)
class Style:
    """How one method is drawn. `kwargs()` gives matplotlib's arguments for a line."""

    label: str
    color: str
    marker: str
    linestyle: str | tuple[float, tuple[float, ...]]

    def kwargs(self) -> dict[str, object]:
        """The arguments of `Axes.plot` that make a line this method's.

        >>> STYLES["synflow"].kwargs()["marker"]
        'D'
        """
        return {
            "label": self.label,
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.linestyle,
        }


STYLES: dict[str, Style] = {
    "random": Style("Random", "#949494", "o", (0, (1, 1.2))),
    "magnitude": Style("Magnitude", "#0173b2", "s", "--"),
    "snip": Style("SNIP", "#029e73", "^", "-."),
    "grasp": Style("GraSP", "#cc78bc", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    "synflow": Style("SynFlow", "#d55e00", "D", "-"),
    "iterated snip": Style("iterated SNIP", "#56b4e9", "<", (0, (4, 1, 1, 1))),
    "iterated grasp": Style("iterated GraSP", "#ca9161", ">", (0, (8, 2, 2, 2))),
    "imp": Style("IMP", "#de8f05", "P", (0, (9, 1.5))),
    # No method: the network before pruning, so it is drawn like a reference line.
    "dense": Style("dense", "#000000", "X", (0, (2, 3))),
}
FIVE = ("random", "magnitude", "snip", "grasp", "synflow")
# For methods of the user's own; the rest of the palette is too pale for a white page.
_SPARE = (
    ("#5d3a9b", "*", (0, (3, 1))),
    ("#7a7a1f", "h", (0, (5, 3))),
    ("#8c1c3c", "p", (0, (2, 1))),
)

_RC: dict[str, object] = {
    "figure.dpi": 100,
    "savefig.dpi": 110,
    "svg.hashsalt": "synflow_lib",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11.5,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "axes.prop_cycle": plt.cycler(
        color=["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161"]
    ),
}


def theme() -> AbstractContextManager[None]:
    """The style of every figure of the project, as a context; nothing global is left behind.

    It starts from matplotlib's defaults, so a figure does not depend on what a notebook or a
    matplotlibrc file has set.

    >>> with theme():
    ...     plt.rcParams["axes.grid"]
    True
    """
    # A notebook's backend switches itself on at the first use of pyplot. Inside the context that
    # would be undone at its end, and the user's own plots would no longer be shown.
    plt.draw_if_interactive()
    return matplotlib.style.context(["default", _RC])


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Styles of the given methods, in the project's order; unknown names follow, as they came.

    Args:
        methods: names, repeated or not. A name that the project does not know (a scorer of your
            own) gets a spare style, fixed by its place among the unknown ones.

    >>> list(styles(["synflow", "mine", "random", "synflow"]))
    ['random', 'synflow', 'mine']
    """
    names = dict.fromkeys(methods)
    chosen = {name: style for name, style in STYLES.items() if name in names}
    unknown = [name for name in names if name not in STYLES]
    for i, name in enumerate(unknown):
        chosen[name] = Style(str(name), *_SPARE[i % len(_SPARE)])
    return chosen


def require(table: pd.DataFrame, columns: Iterable[str], what: str) -> pd.DataFrame:
    """The table, if it holds rows and these columns.

    Raises:
        TypeError: not a DataFrame.
        ValueError: no rows, or columns missing; the message names them and those there are.

    >>> require(pd.DataFrame({"a": [1]}), ["a", "b"], "example")
    Traceback (most recent call last):
    ...
    ValueError: example: the table lacks the column 'b'; expected 'a', 'b', got 'a'.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{what}: expected a pandas DataFrame, got {type(table).__name__}.")
    columns = list(columns)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{what}: the table lacks the column{'s' * (len(missing) > 1)} {_quoted(missing)}; "
            f"expected {_quoted(columns)}, got {_quoted(table.columns)}."
        )
    if table.empty:
        raise ValueError(f"{what}: the table has no rows; expected at least one.")
    return table


@contextmanager
def panels(
    count: int, columns: int, height: float, share_x: bool = False, share_y: bool = False
) -> Iterator[tuple[Figure, list[Axes], list[Axes]]]:
    """A themed figure with `count` axes in rows of `columns`, laid out once it has been filled.

    The layout is frozen at the end: computed anew at each save it would drift by fractions of a
    pixel, and files would differ. pyplot does not know the figure, so that a notebook shows it
    once, as the value of its cell, and nothing has to be closed.

    Args:
        count: axes to use, at least 1.
        columns: axes a row.
        height: of a row, in inches.
        share_x: one x axis for all.
        share_y: one y axis for all.

    Yields:
        The figure, the axes in use, and the axes left over in the last row (already hidden).
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    with theme():
        figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
        axes = list(grid.flat)
        spare = axes[count:]
        for ax in spare:
            ax.set_axis_off()
        if share_x:
            for above in axes[max(count - columns, 0) : (rows - 1) * columns]:
                above.tick_params(labelbottom=True)
        yield figure, axes[:count], spare
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def log_axis(axis: Axis, ticks: int = 8) -> None:
    """Makes the axis logarithmic, ticks written 10^alpha at whole alphas only, `ticks` at most."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(base=10, numticks=ticks))
    # 99: minor ticks wherever they fit; where decades are skipped, the decades in between.
    axis.set_minor_locator(LogLocator(base=10, subs=(1.0, *range(2, 10)), numticks=99))
    axis.set_minor_formatter(NullFormatter())
    axis.axes.grid(False, which="minor")


def power_of_ten(value: float) -> str:
    """`value` as 10^alpha in mathtext, alpha with at most two decimals.

    >>> power_of_ten(1000), power_of_ten(1051113.142857)
    ('$10^{3}$', '$10^{6.02}$')
    """
    return f"$10^{{{round(float(np.log10(value)), 2) + 0.0:g}}}$"


def readable(value: float) -> str:
    """`value` with two digits, small and large ones in mathtext as a multiple of a power of ten.

    >>> readable(0.8), readable(3e-15)
    ('0.8', '$3\\\\times10^{-15}$')
    """
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return rf"${float(digits):g}\times10^{{{int(exponent)}}}$"


def sequence(name: str = "depth") -> Colormap:
    """A sequential colormap whose lightness falls evenly: dark enough for a white page throughout.

    >>> sequence()(0.0) != sequence()(1.0)
    True
    """
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.88, 256))
    return LinearSegmentedColormap.from_list(name, colors)


def key(label: str, **line: object) -> Line2D:
    """An entry for a legend: a line or a marker that stands for what is drawn so."""
    return Line2D([], [], label=label, **line)


def _quoted(names: Iterable[object]) -> str:
    return ", ".join(repr(str(name)) for name in names)
