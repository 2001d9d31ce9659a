"""The paper's published numbers, as tidy tables, and the comparison of ours with them.

The numbers come from the authors' result files of June 2020 and ship with the package; their
caveats are in `published/README.md` and in the docstrings. Columns use the words of this library:
compression = N / kept = 10^log10_compression; accuracy is top-1 in percent; `seed` numbers the
runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

import numpy as np
import pandas as pd

# Called as paper.agreement, paper.record, ... by the notebooks.
from .agreement import Agreement, agreement, agreement_table, identity, verdicts  # noqa: F401
from .agreement_page import record, write_agreement  # noqa: F401

FIVE = ("random", "magnitude", "snip", "grasp", "synflow")  # the paper's methods, in its order

# Feature maps of VGG-19's convolutions but the last, whose outgoing weights read single pixels.
_WIDTHS = (*[64] * 2, *[128] * 2, *[256] * 4, *[512] * 7)

# The names in the authors' files, for those who come from there.
_ALIASES = {
    "tinyimagenet": "tiny_imagenet",
    "lottery_vgg11_bn": "vgg11_bn",
    "lottery_vgg16_bn": "vgg16_bn",
    "tiny_resnet18": "resnet18",
    "tiny_wide_resnet18": "wide_resnet18",
}


def figure1() -> pd.DataFrame:
    """Figure 1: accuracy of VGG-16 (BN) on CIFAR-100 after pruning by five methods, 3 runs.

    Returns:
        One row a run: method, log10_compression (0 to 6 in steps of 0.25), compression, seed,
        accuracy (percent, last epoch; the paper draws the best epoch), empty_layers, kept, total
        (N = 14,761,664), layers (L = 14).

    >>> figure1().query("method == 'synflow' and compression == 1e5").accuracy.tolist()
    [1.0, 3.46, 2.28]
    """
    return _published("figure1")


def figure2() -> pd.DataFrame:
    """Figure 2: what is left in each layer of VGG-19 (ImageNet input), at initialization.

    Returns:
        One row a layer: method, doublings (0 to 24; 2^doublings was asked for), compression (what
        the layers add up to; infinite where nothing is left), layer (1 to 19), layer_size
        (weights), density (fraction left). SynFlow with 100 iterations, the others with one.

    >>> figure2().query("method == 'snip' and doublings == 8 and layer == 17").density.item()
    0.00031629874
    """
    table = _published("figure2")
    kept = table["layer_size"] * table["density"]
    sums = table.assign(kept=kept).groupby(["method", "doublings"])[["layer_size", "kept"]]
    sums = sums.transform("sum")
    with np.errstate(divide="ignore"):
        table.insert(2, "compression", sums["layer_size"] / sums["kept"])
    return table


def figure3() -> pd.DataFrame:
    """Figure 3: score into and out of every hidden unit of VGG-19 (ImageNet input).

    Returns:
        One row a unit: method, layer (1 to 15, the convolutions but the last), unit (from 0 in
        each layer), incoming, outgoing. Drawn by the authors on linear axes.

    >>> figure3().query("method == 'synflow' and layer == 15").shape
    (512, 5)
    """
    with (resources.files(__package__) / "published" / "figure3.npz").open("rb") as file:
        scores = {method: both.astype(float) for method, both in np.load(file).items()}
    layers = np.repeat(range(1, len(_WIDTHS) + 1), _WIDTHS)
    units = {"layer": layers, "unit": np.concatenate([np.arange(width) for width in _WIDTHS])}
    tables = [
        pd.DataFrame({"method": method, **units, "incoming": both[0], "outgoing": both[1]})
        for method, both in scores.items()
    ]
    return pd.concat(tables, ignore_index=True)


def figure4(weights: str | None = None) -> pd.DataFrame:
    """Figure 4: mean score of each layer of VGG-19 (ImageNet input) against the layer's size.

    Args:
        weights: "initialization" or "pretrained"; None gives both. For random, magnitude and
            synflow the two are equal to the last digit, so the pretrained rows tell nothing about
            trained networks.

    Returns:
        One row a layer: method, weights, layer (1 to 19), layer_size (weights and biases),
        mean_score (absolute value of the mean of the signed scores).

    Raises:
        ValueError: other weights.

    >>> table = figure4("initialization").query("method == 'magnitude'")
    >>> round(loglog_slope(table.layer_size, table.mean_score), 3)
    0.201
    """
    return _only(_published("figure4"), "weights", weights)


def figure5a() -> pd.DataFrame:
    """Figure 5a: iterative magnitude pruning of VGG-11 (BN) on CIFAR-10, 1 to 5 iterations.

    One run. The weights were **not** rewound between iterations (stated by the authors).

    Returns:
        One row a network: log10_compression (0 to 4.9 in steps of 0.1), compression, iterations,
        best_accuracy and accuracy (percent; best and last epoch), empty_layers, kept.

    >>> sorted(figure5a().iterations.unique().tolist())
    [1, 2, 3, 4, 5]
    """
    return _published("figure5a")


def figure5b() -> pd.DataFrame:
    """Figure 5b: mean squared weight of each layer of VGG-19 on CIFAR-10 over 100 epochs.

    Returns:
        One row a layer and epoch (0 is before training): epoch, layer (1 to 17), layer_size
        (weights and biases), mean_squared_weight. Xavier initialization, learning rate 0.001.

    >>> table = figure5b().query("epoch == 99")
    >>> round(loglog_slope(table.layer_size, table.mean_squared_weight), 3)
    0.588
    """
    return _published("figure5b")


def figure6(dataset: str | None = None, model: str | None = None) -> pd.DataFrame:
    """Figure 6: accuracy after pruning by five methods; 3 data sets, 4 networks, 3 runs.

    Args:
        dataset: "cifar10", "cifar100" or "tiny_imagenet"; None gives all.
        model: "vgg11_bn", "vgg16_bn", "resnet18" or "wide_resnet18"; None gives all. The last has
            the parameter shapes of ResNet-18 (`models.wide_resnet18_as_published`). The names in
            the authors' files ("tinyimagenet", "lottery_vgg11_bn", ...) are understood as well.

    Returns:
        One row a run: dataset, model, method, log10_compression (0 to 3 in steps of 0.25),
        compression, seed, accuracy (percent, best epoch on the test set).

    Raises:
        ValueError: another data set or network; the message lists them.

    >>> len(figure6("cifar10", "vgg16_bn"))
    195
    """
    table = _only(_published("figure6"), "dataset", dataset)
    return _only(table, "model", model)


def figure7() -> pd.DataFrame:
    """Figure 7: SynFlow on VGG-19 (ImageNet input), largest prune size / cut size of a run.

    Theorem 3 asks for a ratio below 1 in every iteration.

    Returns:
        One row a run: schedule ("linear" or "exponential"), log10_compression (0 to 3 in steps of
        0.5), compression, iterations (1 to 100), ratio (0 at compression 1: nothing removed).

    >>> figure7().query("iterations == 100 and compression == 1e3").ratio.tolist()
    [14.4057, 0.669527]
    """
    return _published("figure7")


def loglog_slope(layer_size: Sequence[float], mean_score: Sequence[float]) -> float:
    """Slope of log10 mean score against log10 (1 / layer size), by least squares (figure 4).

    Layer-wise conservation makes a layer's mean score proportional to 1 / layer size: slope 1. A
    score that does not know of layers has slope 0.

    Args:
        layer_size: parameters of each layer, shape (L,), positive; at least two sizes differ.
        mean_score: mean score of each layer, shape (L,), not zero; the sign is dropped, as in the
            paper (signed scores of a layer may sum to less than nothing).

    Raises:
        ValueError: shapes that differ, a size or score without a logarithm, or one size only.

    >>> round(loglog_slope([10, 100, 1000], [1e-1, 1e-2, 1e-3]), 12)
    1.0
    """
    size = np.asarray(layer_size, dtype=float)
    score = np.abs(np.asarray(mean_score, dtype=float))
    if size.ndim != 1 or size.shape != score.shape:
        raise ValueError(
            f"layer_size has shape {size.shape} and mean_score {score.shape}; expected one each a "
            "layer, shape (L,)."
        )
    for name, values in (("layer_size", size), ("mean_score", score)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(
                f"{name} has zero, negative or non-finite values; it needs a logarithm."
            )
    if np.unique(size).size < 2:
        raise ValueError("layer_size holds fewer than two different sizes; a slope needs two.")
    x, y = -np.log10(size), np.log10(score)
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _published(name: str) -> pd.DataFrame:
    with (resources.files(__package__) / "published" / f"{name}.csv").open("rb") as file:
        table = pd.read_csv(file)
    if "log10_compression" in table:
        after = table.columns.get_loc("log10_compression") + 1
        # Python's power: numpy's has another last digit on some processors, and there
        # `compression == 10**1.75` would find nothing.
        table.insert(after, "compression", [10.0**alpha for alpha in table["log10_compression"]])
    return table


def _only(table: pd.DataFrame, column: str, value: str | None) -> pd.DataFrame:
    if value is None:
        return table
    known = table[column].unique().tolist()
    if isinstance(value, str):
        value = _ALIASES.get(value, value)
    if value not in known:
        raise ValueError(f"{column} is {value!r}; expected one of {', '.join(known)}, or None.")
    return table[table[column] == value].reset_index(drop=True)


def slope_by_epoch(table: pd.DataFrame, by: Iterable[str] = ()) -> pd.DataFrame:
    """Log-log slope of mean squared weight against inverse layer size; 1 is the conservation line.

    Args:
        table: epoch, layer_size, mean_squared_weight, and the columns ``by`` that tell runs apart.

    Raises:
        ValueError: a column is missing.

    >>> slopes = slope_by_epoch(figure5b())
    >>> slopes["slope"].iloc[[0, -1]].round(2).tolist()
    [0.43, 0.59]
    """
    keys = [*([by] if isinstance(by, str) else by), "epoch"]
    if missing := {*keys, "layer_size", "mean_squared_weight"}.difference(table.columns):
        raise ValueError(f"the table lacks the columns {sorted(missing)}; it has {[*table]}")
    rows = [
        (*key, loglog_slope(g["layer_size"], g["mean_squared_weight"]))
        for key, g in table.groupby(keys, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, "slope"])
