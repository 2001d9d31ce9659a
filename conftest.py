"""Keeps test runs (units, doctests, notebooks) at classroom scale, out of `figures/`, `runs/`."""

import datetime
import json
import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import pytest

_OWN = None


def pytest_addoption(parser):
    """What `make test-all` asks for."""
    parser.addoption(
        "--retrain",
        action="store_true",
        help="all tests; notebooks train everything, and run at the scales of GPUs",
    )


def pytest_configure(config):
    """Sets the environment before the first import; kernels and xdist's workers inherit it."""
    global _OWN
    if hasattr(config, "workerinput"):
        return
    _OWN = tempfile.mkdtemp(prefix="synflow-tests-")
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and not config.getoption("retrain"):
        os.environ["SYNFLOW_TESTS_IN_TURN"] = str(datetime.date.today().toordinal())
    os.environ["SYNFLOW_FIGURES"] = os.path.join(_OWN, "figures")
    os.environ["SYNFLOW_RUNS"] = os.path.join(_OWN, "runs")
    os.environ["SYNFLOW_SCALE"] = "classroom"
    if config.getoption("nbval_lax", False) or config.getoption("nbval", False):
        os.environ["TQDM_DISABLE"] = "1"  # as when the outputs were made
        os.environ.pop("MPLBACKEND", None)  # would switch the inline figures off
        if not config.getoption("retrain"):
            os.environ["SYNFLOW_MEASURED"] = "read"
            _fill(Path(os.environ["SYNFLOW_RUNS"]))
    else:
        import matplotlib

        matplotlib.use("agg")  # no window; not by environment, which kernels would inherit


def _fill(runs):
    """Puts what is recorded into the store of the notebooks, unless the code has changed since."""
    sys.path.insert(0, str(Path(__file__).parent / "notebooks/tools"))
    import recorded

    code, lines = recorded.records()
    measured = [line for line in lines if "measured" in line]
    again = [line for line in measured if recorded.due(line["measured"])]
    trained = [line for line in lines if "measured" not in line] if code == recorded.code() else []
    recorded.load(trained + [line for line in measured if line not in again], runs)
    if not trained:
        print(f"training code has changed since {recorded.FILE.name}: notebooks train everything")
    print(
        f"{recorded.FILE.name}: {len(trained)} trainings of the notebooks and {len(measured)}"
        f" measurements, {len(again)} of which are made anew today"
    )


def not_today(item, day):
    """Whether a test that comes in turn has another day of four."""
    marked = item.get_closest_marker("in_turn")
    return bool(marked) and (zlib.crc32(item.nodeid.encode()) + day) % 4 != 0


def pytest_collection_modifyitems(config, items):
    """Leaves out tests whose turn it is not; the notebook that takes longest comes first.

    Last, it would leave the other cores idle.
    """
    if day := os.environ.get("SYNFLOW_TESTS_IN_TURN"):
        config.hook.pytest_deselected(items=[each for each in items if not_today(each, int(day))])
        items[:] = [each for each in items if not not_today(each, int(day))]
    taken = Path(__file__).parent / "figures" / "provenance.json"
    if items and all(item.path.suffix == ".ipynb" for item in items) and taken.exists():
        notebooks = json.loads(taken.read_text(encoding="utf-8"))["notebooks"]
        items.sort(key=lambda item: -notebooks.get(item.path.stem, {}).get("seconds", 0))


def pytest_unconfigure(config):
    """Removes the folder of this run."""
    if _OWN:
        shutil.rmtree(_OWN, ignore_errors=True)
