"""Accuracy after training against compression (figures 1 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synflow_lib.reproduction.intervals import mean_interval

from .style import COMPRESSION, Style, key, log_axis, panels, require, styles

_LABELS = {
    "fc": "fully connected",
    "conv": "convolutional",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny ImageNet",
    "vgg11_bn": "VGG-11 (BN)",
    "vgg16_bn": "VGG-16 (BN)",
    "resnet18": "ResNet-18",
    "wide_resnet18": "WideResNet-18",
}


def accuracy_curves(
    table: pd.DataFrame,
    published: pd.DataFrame | None = None,
    critical: Mapping[str, float] | None = None,
) -> Figure:
    """Figures 1 and 6: top-1 accuracy against compression, one line per method.

    Args:
        table: one row a run: method, compression, seed, accuracy (percent), and `dataset` and/or
            `model` where there are several panels.
        published: the paper's, in the same form (`paper.figure1()`, `paper.figure6()`): open
            markers on thin lines. Rows whose panel is not in `table` are left out; if it has no
            such column it is drawn in every panel.
        critical: critical compression of each method, drawn as a vertical line.

    Returns:
        A panel per data set and model; lines are means over seeds, bands 95% confidence intervals
        (Student's t; none with one seed).

    Raises:
        ValueError: columns missing.

    >>> table = pd.DataFrame({"method": "snip", "compression": [1.0, 10.0], "seed": 0,
    ...                       "accuracy": [93.0, 92.5]})
    >>> accuracy_curves(table).axes[0].get_ylabel()
    'top-1 accuracy (percent)'
    """
    columns = ["method", "compression", "seed", "accuracy"]
    require(table, columns, "accuracy_curves")
    facets = _facets(table)
    shown = list(dict.fromkeys(map(tuple, table[facets].to_numpy()))) if facets else [()]
    if published is not None:
        require(published, columns, "accuracy_curves, published")
        if not any(
            len(_rows(published, method, dict(zip(facets, panel, strict=True))))
            for panel in shown
            for method in set(table["method"])
        ):
            published = None  # nothing of it belongs here, so nothing of it in the legend
    look = styles(table["method"])
    many = len(shown) > 3
    rows = _grid(shown)
    across = len(shown) // len(rows) if rows else 3
    height = {1: 4.6, 2: 4.0}.get(len(shown), 3.0)
    with panels(len(shown), across, height, share_x=True) as (figure, axes, _):
        for ax, panel in zip(axes, shown, strict=True):
            place = dict(zip(facets, panel, strict=True))
            if published is not None:
                for method, style in look.items():
                    _curve(ax, _rows(published, method, place), style, ours=False, many=many)
            for method, style in look.items():
                _curve(ax, _rows(table, method, place), style, ours=True, many=many)
                if critical is not None and method in critical:
                    ax.axvline(critical[method], color=style.color, linestyle=":", linewidth=1.3)
            names = [_LABELS.get(name, str(name)) for name in panel]
            ax.set_title(names[1] if rows else ("\n" if many else ", ").join(names))
            ax.set_ylim(
                0, _top(table, published, {k: v for k, v in place.items() if k == "dataset"})
            )
        log_axis(axes[0].xaxis)
        for row, ax in enumerate(axes[::across]):
            name = _LABELS.get(rows[row], rows[row]) + "\n" if rows else ""
            ax.set_ylabel(f"{name}top-1 accuracy (percent)")
        figure.supxlabel(COMPRESSION, fontsize=11.5)
        entries = [key(**style.kwargs()) for style in look.values()]
        if published is not None:
            dot = {"color": "#333333", "marker": "o"}
            entries += [
                key("ours", **dot),
                key("paper", markersize=8, markerfacecolor="none", linewidth=0.8, **dot),
            ]
        if critical is not None:
            entries.append(key("critical", color="#333333", linestyle=":"))
        columns = len(entries) if len(entries) <= 7 else -(-len(entries) // 2)
        figure.legend(
            handles=entries,
            loc="outside upper center",
            ncols=columns,
            columnspacing=1.3,
            handlelength=2.3,
        )
    return figure


def _grid(shown: list[tuple]) -> list[str]:
    """Data sets, one a row, if the panels are a full grid of up to 4 networks; else nothing."""
    if len(shown) < 2 or len(shown[0]) < 2:
        return []
    datasets, models = (list(dict.fromkeys(names)) for names in zip(*shown, strict=True))
    full = shown == [(dataset, model) for dataset in datasets for model in models]
    return datasets if full and len(models) <= 4 else []


def _rows(table: pd.DataFrame, method: str, place: Mapping[str, object]) -> pd.DataFrame:
    chosen = table["method"] == method
    for column, value in place.items():
        if column in table:
            chosen &= table[column] == value
    return table[chosen]


def _top(table: pd.DataFrame, published: pd.DataFrame | None, place: Mapping[str, object]) -> float:
    """One height for all panels of a data set; from means, for intervals can be very wide."""
    means = [
        _rows(source, method, place).groupby([*_facets(source), "compression"])["accuracy"].mean()
        for source in (table, published)
        if source is not None
        for method in table["method"].unique()
    ]
    return 1.07 * pd.concat(means).max()


def _facets(table: pd.DataFrame) -> list[str]:
    return [name for name in ("dataset", "model") if name in table]


def _curve(ax: Axes, rows: pd.DataFrame, style: Style, ours: bool, many: bool) -> None:
    if rows.empty:
        return
    curve = mean_interval(rows)
    line = style.kwargs()
    if ours:
        line |= {"linewidth": 1.5 if many else 2.0, "markersize": 4 if many else 6}
        ax.fill_between(
            curve["compression"], curve["low"], curve["high"], color=style.color, alpha=0.18, lw=0
        )
    else:
        line |= {"linewidth": 0.8, "markersize": 6 if many else 8, "markerfacecolor": "none"}
    ax.plot(curve["compression"], curve["mean"], **line)
