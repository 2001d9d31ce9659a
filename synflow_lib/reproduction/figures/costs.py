"""What pruning costs and what it saves: the figures of notebook 06 about time and size."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .style import COMPRESSION, MAX_COMPRESSION, WHITE, key, log_axis, panels, require, styles


def pruning_costs(costs: pd.DataFrame, reached: pd.DataFrame, limit: float) -> Figure:
    """The price of scoring in epochs of training: by network, and against what it buys.

    Args:
        costs: one row a network and method: network, method, weights, epochs.
        reached: one row a method and number of iterations: method, iterations, epochs,
            critical_compression.
        limit: rho_max of the network of ``reached``.

    Returns:
        Left, cost against the number of weights; right, critical compression against cost.

    Raises:
        ValueError: columns missing.

    >>> costs = pd.DataFrame({"network": "fc", "method": "snip", "weights": [1e4], "epochs": 0.1})
    >>> reached = pd.DataFrame({"method": ["snip"], "iterations": 1, "epochs": 0.1,
    ...                         "critical_compression": 100.0})
    >>> len(pruning_costs(costs, reached, 1e4).axes)
    2
    """
    require(costs, ["network", "method", "weights", "epochs"], "pruning_costs, costs")
    columns = ["method", "iterations", "epochs", "critical_compression"]
    require(reached, columns, "pruning_costs, reached")
    look = styles([*costs["method"], *reached["method"]])
    with panels(2, 2, 4.0) as (figure, (left, right), _):
        for method, style in look.items():
            rows = costs[costs["method"] == method].sort_values("weights")
            left.plot(rows["weights"], rows["epochs"], **style.kwargs())
            rows = reached[reached["method"] == method].sort_values("iterations")
            right.plot(rows["epochs"], rows["critical_compression"], **style.kwargs())
        for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
            log_axis(axis)
        low, top = costs["epochs"].min(), costs["epochs"].max()
        for _, rows in costs.groupby("network"):
            left.annotate(
                rows["network"].iloc[0], (rows["weights"].iloc[0], top * 4), ha="center",
                fontsize=9.5, bbox=WHITE,
            )  # fmt: skip
        left.set_ylim(low / 2, top * 10)
        left.margins(x=0.12)
        left.axhline(1, color="black", linewidth=1, linestyle=":")
        right.axhline(limit, **MAX_COMPRESSION)
        left.set(xlabel="prunable weights N", ylabel="cost of pruning (epochs of training)")
        right.set(xlabel="cost of pruning (epochs of training)")
        right.set_ylabel(r"critical compression $\rho_{cr}$, by path")
        entries = [key(**style.kwargs()) for style in look.values()]
        entries.append(key(r"$\rho_{max}$", **MAX_COMPRESSION))
        figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))
    return figure


def savings(latencies: pd.DataFrame, left_over: pd.DataFrame) -> Figure:
    """What compression buys: time of one sparse layer, and tensors that can be made smaller.

    Args:
        latencies: one row a compression and kernel: compression, kernel, ratio (dense time / its
            time).
        left_over: one row a method and compression: method, compression, multiply_adds, smaller
            (shares of the dense network).

    Returns:
        Left, speed of a sparse layer against a dense one; right, filled markers: share of the
        weights that smaller dense tensors still hold, open ones: share of the multiply-adds.

    Raises:
        ValueError: columns missing.

    >>> latencies = pd.DataFrame({"compression": [1.0, 10.0], "kernel": "CSR", "ratio": [0.2, 2.0]})
    >>> rest = pd.DataFrame({"method": ["snip"], "compression": 10.0, "multiply_adds": 0.3,
    ...                      "smaller": 1.0})
    >>> len(savings(latencies, rest).axes)
    2
    """
    require(latencies, ["compression", "kernel", "ratio"], "savings, latencies")
    columns = ["method", "compression", "multiply_adds", "smaller"]
    require(left_over, columns, "savings, left_over")
    with panels(2, 2, 3.9) as (figure, (left, right), _):
        for number, (kernel, rows) in enumerate(latencies.groupby("kernel", sort=False)):
            dash, marker = (("--", "s"), ("-", "o"))[number % 2]
            left.plot(
                rows["compression"], rows["ratio"], color="black", linestyle=dash, marker=marker,
                label=kernel,
            )  # fmt: skip
        left.set(ylabel="speed against the dense kernel", xlabel=COMPRESSION)
        left.legend(loc="upper left")
        look = styles(left_over["method"])
        for method, style in look.items():
            rows = left_over[left_over["method"] == method].sort_values("compression")
            right.plot(rows["compression"], 100 * rows["smaller"], **style.kwargs())
            right.plot(
                rows["compression"], 100 * rows["multiply_adds"],
                **style.kwargs() | {"linestyle": ":", "markerfacecolor": "white"},
            )  # fmt: skip
        reach = sorted(left_over["compression"].unique())
        even = [100 / c for c in reach]
        right.plot(reach, even, color="black", linewidth=1)
        right.set(ylabel="left of the dense network (percent)", xlabel=COMPRESSION)
        for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
            log_axis(axis)
        entries = [key(**style.kwargs()) for style in look.values()]
        dot = {"color": "#333333", "marker": "o"}
        entries += [
            key("weights held, dead units cut out", **dot),
            key("multiply-adds", linestyle=":", markerfacecolor="white", **dot),
            key("kept weights", color="black", linewidth=1),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=len(entries))
    return figure
