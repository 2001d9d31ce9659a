"""What several test files share: methods and rules put back, the built site."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synflow_lib.graphs import layers, tracing
from synflow_lib.scores import METHODS

# Not to be imported here: torch would know a device that is not there (`test_dry_run`).
collect_ignore = ["pretend_device.py", "dry_run.py"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def put_back():
    """Methods and rules that a test adds are not there afterwards."""
    before = [dict(METHODS), dict(layers.MODULES), dict(layers.FUNCTIONS), set(tracing.LEAVES)]
    yield
    for now, then in zip(
        (METHODS, layers.MODULES, layers.FUNCTIONS, tracing.LEAVES), before, strict=True
    ):
        now.clear()
        now.update(then)


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The folder of the site, built once with warnings as errors, by whichever worker is first."""
    pytest.importorskip("mkdocs", reason="needs the extra 'site': pip install '.[site]'")
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            run = subprocess.run(
                [sys.executable, "-m", "mkdocs", "build", "--strict",
                 "-f", "notebooks/tools/site/mkdocs.yml", "-d", str(folder)],
                cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
            if run.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                pytest.fail(f"mkdocs build --strict:\n{run.stdout}{run.stderr}")
    return folder
