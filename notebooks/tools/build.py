"""Turns every `notebooks/NN_topic.py` into an executed `NN_topic.ipynb`.

    build.py              run all notebooks, write figures/ (`make figures`) and
                          results/classroom.jsonl, what they trained
    build.py --only 02    run some of them
    build.py --sync       bring pairs in step without running anything
    build.py --check      only say which pairs are not in step

The `.py` is the source. Two runs on one machine give the same bytes: cell ids are kept or derived
from the text, and nothing that depends on time, machine or patch version is stored. When a cell
fails the old `.ipynb` stays as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import pairs
import recorded
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from pairs import HERE, ROOT, BuildError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Kernel(AsyncKernelManager):
    """Starts kernels in the Python `interpreter`, whatever kernels are installed."""

    interpreter = sys.executable

    @property
    def kernel_spec(self):
        """How such a kernel is started."""
        command = [self.interpreter, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def execute(
    notebook: NotebookNode,
    folder: Path,
    environment: Mapping[str, str],
    threads: int = 1,
    timeout: int | None = None,
    interpreter: Path | str = sys.executable,
) -> float:
    """Runs all cells in a new kernel, in `folder`; returns the seconds it took.

    Raises:
        BuildError: a cell fails or takes longer than `timeout` seconds; the message names it.
    """
    manager = Kernel()
    manager.interpreter = str(interpreter)
    reached = {"index": 0}
    client = NotebookClient(
        notebook,
        km=manager,
        # Only errors: newer kernels warn that the loopback connection is not encrypted.
        extra_arguments=["--IPKernelApp.log_level=40"],
        timeout=timeout,
        startup_timeout=120,
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=lambda cell, cell_index: reached.update(index=cell_index),
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as profile:  # nobody's personal settings
        own = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "IPYTHONDIR": profile}
        try:
            client.execute(cleanup_kc=True, env={**environment, **own})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            cells = notebook.cells[: reached["index"] + 1]
            told = pairs.COLORS.sub("", str(error)).strip()
            raise BuildError(
                f"code cell {sum(cell.cell_type == 'code' for cell in cells)} "
                f"(cell {len(cells)} of {len(notebook.cells)}) failed\n{told}"
            ) from None
    return time.perf_counter() - start


def build(source: Path, threads: int, timeout: int | None, take: str | None = None) -> float:
    """Executes one notebook and writes its `.ipynb`; returns the seconds it took."""
    target = source.with_suffix(".ipynb")
    pairs.settle(source, take)
    notebook = pairs.read_pair(source)
    if pairs.source_text(notebook) != source.read_text(encoding="utf-8"):
        raise BuildError(
            f"{source.name} is not laid out as jupytext writes it (header or blank lines); "
            "`make sync` repairs that."
        )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # MPLBACKEND would switch the inline figures off.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment["TQDM_DISABLE"] = "1"  # a bar shows seconds, which differ from run to run
    try:
        seconds = execute(notebook, source.parent, environment, threads, timeout)
    except BuildError as error:
        raise BuildError(f"{source.name}: {error}\n{target.name} is left as it was.") from None
    pairs.clean(notebook)
    if found := pairs.problems(notebook):
        raise BuildError("\n".join(f"{source.name}: {line}" for line in found))
    pairs.write(target, pairs.serialized(notebook))
    return seconds


def build_all(sources: list[Path], jobs: int, threads: int, timeout: int | None, take: str | None):
    """Yields (source, seconds) as notebooks finish; raises BuildError at the first failure."""
    known = provenance(ROOT / "figures")
    if jobs > 1:  # the longest must not come last
        sources = sorted(sources, key=lambda s: -known.get(s.stem, {}).get("seconds", 0))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = {pool.submit(build, source, threads, timeout, take): source for source in sources}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            pool.shutdown(cancel_futures=True)


def provenance(folder: Path) -> dict[str, dict]:
    """What `provenance.json` in a folder tells of each notebook; nothing where there is none."""
    try:
        return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["notebooks"]
    except (OSError, ValueError, KeyError):
        return {}


def write_provenance(folder: Path, seconds: dict[str, float], threads: int, jobs: int) -> None:
    """Adds to `provenance.json`: with what, on what and in what time each notebook ran."""
    from synflow_lib import env

    notebooks = provenance(folder)
    described = {**env.describe(), "threads": threads, "notebooks_at_once": jobs}
    for name, value in seconds.items():
        notebooks[name] = {"seconds": round(value, 1), **described}
    present = {source.stem for source in HERE.glob("[0-9][0-9]_*.py")}
    record = {"notebooks": {name: notebooks[name] for name in sorted(present & set(notebooks))}}
    pairs.write(folder / "provenance.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def count(text: str) -> int:
    """A number from the command line that must be 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected 1 or more")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError with a message for the user."""
    parser = pairs.command_line(__doc__)
    parser.add_argument("--sync", action="store_true", help="bring pairs in step, run nothing")
    parser.add_argument("--check", action="store_true", help="fail when a pair is not in step")
    parser.add_argument("--take", choices=("py", "ipynb"), help="which side of a pair to keep")
    parser.add_argument("--jobs", type=count, default=1, help="notebooks at once (default 1)")
    parser.add_argument("--threads", type=count, help="threads a notebook (default: 2 / jobs)")
    parser.add_argument("--timeout", type=count, help="seconds a cell (classroom scale: 1200)")
    given = parser.parse_args(arguments)
    sources = pairs.chosen(given.only)
    if given.check:
        if drifted := [source.name for source in sources if not pairs.in_step(source)]:
            raise BuildError(f"not in step with their .ipynb: {', '.join(drifted)}; `make sync`")
        print(f"{len(sources)} pairs in step")
    elif given.sync:
        for source in sources:
            print(f"{source.stem}: {'updated' if pairs.sync(source, given.take) else 'in step'}")
    else:
        run(sources, given)


def run(sources: list[Path], given: argparse.Namespace) -> None:
    """Runs notebooks; writes figures, provenance, the agreement, and what they trained."""
    # Kernels run in notebooks/: a relative folder must not mean another one there.
    folder = Path(os.environ.get("SYNFLOW_FIGURES") or ROOT / "figures").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SYNFLOW_FIGURES"] = str(folder)
    own = not os.environ.get("SYNFLOW_RUNS")
    runs = ROOT / "runs" / f"figures-{recorded.code()}"
    if own:  # what an interrupted build of the same code has trained is not trained again
        runs.mkdir(parents=True, exist_ok=True)
        os.environ["SYNFLOW_RUNS"] = str(runs)
        os.environ["SYNFLOW_MEASURED"] = "write"
    from synflow_lib import env
    from synflow_lib.reproduction import paper

    start = time.perf_counter()
    timeout = given.timeout or (1200 if env.scale() == "classroom" else None)
    threads = given.threads or max(1, min(2, os.cpu_count() or 1) // given.jobs)
    print(f"running {len(sources)} notebooks at {env.scale()} scale", flush=True)
    seconds: dict[str, float] = {}
    try:
        for source, value in build_all(sources, given.jobs, threads, timeout, given.take):
            seconds[source.stem] = value
            print(f"  {source.stem:<28}{value:7.1f} s", flush=True)
    finally:
        if seconds:
            write_provenance(folder, seconds, threads, given.jobs)
    try:
        paper.write_agreement(folder)
    except ValueError as error:
        raise BuildError(f"agreement.md was not written: {error}") from error
    if own and not given.only:
        if env.scale() == "classroom":
            recorded.export(runs)
        shutil.rmtree(runs)  # the next build computes everything anew
    print(f"  {'together':<28}{time.perf_counter() - start:7.1f} s; figures in {folder.name}/")


if __name__ == "__main__":
    pairs.run_command(main)
