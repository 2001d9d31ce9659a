"""How every figure looks: one colour, marker and linestyle per method, and the theme around them.

Colours are seaborn's "colorblind" palette, fixed per method for the whole project. Marker and
linestyle differ as well, so that a figure printed in grey can still be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ...env import figures_dir
from ...files import replacing
from ..intervals import mean_interval

WIDTH = 10.0  # inches: the width of a notebook at 100 dots per inch
COMPRESSION = r"compression $\rho$ (weights / kept weights)"
ACCURACY = "top-1 accuracy (percent)"
MAX_COMPRESSION = {"color": "black", "linestyle": "-", "linewidth": 1.2, "zorder": 1.5}
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # behind text that crosses lines
DOT = {"color": "#333333", "marker": "o"}  # in a legend, where it stands for every method
# Dark enough for a white page throughout; its lightness rises evenly.
SEQUENCE = LinearSegmentedColormap.from_list(
    "depth", matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, 256))
)


@dataclass(frozen=True)
class Style:
    """How one method is drawn. `kwargs()` gives matplotlib's arguments for a line."""

    label: str
    color: object
    marker: str
    linestyle: str | tuple[float, tuple[float, ...]]

    def kwargs(self) -> dict[str, object]:
        """The arguments of `Axes.plot` that make a line this method's.

        >>> STYLES["synflow"].kwargs()["marker"]
        'D'
        """
        return vars(self).copy()


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
# For methods of the user's own; the rest of the palette is too pale for a white page.
_SPARE = (
    ("#5d3a9b", "*", (0, (3, 1))),
    ("#7a7a1f", "h", (0, (5, 3))),
    ("#8c1c3c", "p", (0, (2, 1))),
)
# For what has an order but no method: layers, networks, rounds, compressions.
_MARKERS = "osD^vP*Xph"
_LINES = ("-", "--", "-.", (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)))

_RC: dict[str, object] = {
    "figure.dpi": 100,
    "savefig.dpi": 110,
    "svg.hashsalt": "synflow_lib",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11.5,
    "figure.labelsize": 11.5,
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


def ordered(
    names: Iterable[object], label: Callable[[object], str] = str, end: float = 1.0
) -> dict[object, Style]:
    """Styles of things in an order, such as layers: from dark to pale, up to ``end`` of the way."""
    names = list(names)
    shades = SEQUENCE(np.linspace(0, end, len(names)))
    return {
        name: Style(label(name), shade, _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i, (name, shade) in enumerate(zip(names, shades, strict=True))
    }


@contextmanager
def subplots(
    count: int, columns: int, height: float, share_x: bool = False, share_y: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A themed figure with `count` axes in rows of `columns`, laid out once it has been filled.

    ``height`` is that of a row in inches. pyplot does not know the figure, so that a notebook shows
    it once, as the value of its cell, and nothing has to be closed.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    with theme():
        figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
        axes = list(grid.flat)
        for ax in axes[count:]:
            ax.set_axis_off()
        if share_x:
            for above in axes[max(count - columns, 0) : (rows - 1) * columns]:
                above.tick_params(labelbottom=True)
        yield figure, axes[:count]
        # Computed anew at each save, the layout would drift by fractions of a pixel.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def lines(
    ax: Axes,
    table: pd.DataFrame,
    y: str,
    look: Mapping[object, Style],
    x: str = "compression",
    by: str = "method",
    mean: str | Callable = "mean",
    band: float = 0.0,
    **line: object,
) -> None:
    """A line for each value of the column ``by`` that ``look`` styles: ``mean`` of y at each x.

    ``mean`` is as for pandas' ``agg``, ``band`` the opacity of the 95% confidence intervals of
    values in percent (0: none); ``line`` are arguments of `Axes.plot`, before those of the style.
    """
    for name, style in look.items():
        rows = table[table[by] == name]
        if rows.empty:
            continue
        if band:
            ends = mean_interval(pd.DataFrame({"compression": rows[x], "accuracy": rows[y]}))
            edges = ends["compression"], ends["low"], ends["high"]
            ax.fill_between(*edges, color=style.color, alpha=band, lw=0)
        values = rows.groupby(x)[y].agg(mean)
        ax.plot(values.index, values, **style.kwargs() | line)


def legend(
    figure: Figure, entries: Iterable[Style | Line2D], most: int = 7, **options: object
) -> None:
    """Names styles, and lines made by `key`, above all panels: at most ``most`` a row."""
    handles = [key(**entry.kwargs()) if isinstance(entry, Style) else entry for entry in entries]
    rows = -(-len(handles) // most)
    columns = -(-len(handles) // rows)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, **options)


def key(label: str, **line: object) -> Line2D:
    """An entry for a legend: a line or a marker that stands for what is drawn so."""
    return Line2D([], [], label=label, **line)


def depth_bar(
    figure: Figure, axes: Sequence[Axes], depth: Normalize, label: str, aspect: int = 20
) -> None:
    """A bar beside the axes that says which colour of `SEQUENCE` is which layer."""
    colors = ScalarMappable(depth, SEQUENCE)
    bar = figure.colorbar(colors, ax=axes, pad=0.01, fraction=0.03, aspect=aspect)
    bar.set_label(label)
    bar.locator = MaxNLocator(6, integer=True)


def log_axis(*axes: Axis, ticks: int = 8) -> None:
    """Makes axes logarithmic, ticks written 10^alpha at whole alphas only, `ticks` at most."""
    for axis in axes:
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
    written = [folder / f"{name}.png", folder / f"{name}.svg"]
    # Version and date would change the files when nothing in them has changed.
    unnamed = {"Software": None}, {"Date": None, "Creator": None}
    for path, metadata in zip(written, unnamed, strict=True):
        with theme(), replacing(path) as part:
            fig.savefig(part, format=path.suffix[1:], metadata=metadata)
    if data is not None:
        written.append(folder / f"{name}.csv")
        with replacing(written[-1]) as part:
            data.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    return written
