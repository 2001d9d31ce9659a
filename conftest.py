"""Keeps test runs (units, doctests, notebooks) at classroom scale, out of `figures/`, `runs/`."""

import os
import shutil
import tempfile

_OWN = None


def pytest_configure(config):
    """Sets the environment before the first import; kernels and xdist's workers inherit it."""
    global _OWN
    if hasattr(config, "workerinput"):
        return
    _OWN = tempfile.mkdtemp(prefix="synflow-tests-")
    os.environ["SYNFLOW_FIGURES"] = os.path.join(_OWN, "figures")
    os.environ["SYNFLOW_RUNS"] = os.path.join(_OWN, "runs")
    os.environ["SYNFLOW_SCALE"] = "classroom"
    if config.getoption("nbval_lax", False) or config.getoption("nbval", False):
        os.environ["TQDM_DISABLE"] = "1"  # as when the outputs were made
        os.environ.pop("MPLBACKEND", None)  # would switch the inline figures off
    else:
        import matplotlib

        matplotlib.use("agg")  # no window; not by environment, which kernels would inherit


def pytest_unconfigure(config):
    """Removes the folder of this run."""
    if _OWN:
        shutil.rmtree(_OWN, ignore_errors=True)
