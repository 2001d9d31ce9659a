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
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import nbformat
import recorded
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from pairs import (
    HERE,
    ROOT,
    BuildError,
    canonical,
    clean,
    in_step,
    problems,
    read_pair,
    serialized,
    settle,
    sync,
    write_atomically,
)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Only errors: newer kernels warn at every start that the loopback connection is not encrypted.
QUIET_KERNEL = ["--IPKernelApp.log_level=40"]


def execute(notebook: nbformat.NotebookNode, source: Path, threads: int, timeout: int | None):
    """Runs all cells in a new kernel of *this* Python, in the folder of `source`."""
    # No kernel folders: what is left is the native kernel, whatever is installed for the user.
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
    reached = {"index": 0}
    client = NotebookClient(
        notebook,
        km=manager,
        extra_arguments=QUIET_KERNEL,
        timeout=timeout,
        startup_timeout=120,
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(source.parent)}},
        on_cell_start=lambda cell, cell_index: reached.update(index=cell_index),
    )
    with tempfile.TemporaryDirectory() as profile:
        environment = {
            **os.environ,
            **dict.fromkeys(THREAD_VARIABLES, str(threads)),
            "TQDM_DISABLE": "1",  # a bar shows seconds, which differ from run to run
            "IPYTHONDIR": profile,  # nobody's personal settings
        }
        environment.pop("MPLBACKEND", None)  # would switch the inline figures off
        try:
            client.execute(cleanup_kc=True, env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise BuildError(failure(notebook, source, reached["index"], error)) from None


def failure(notebook, source: Path, index: int, error: Exception) -> str:
    """Names notebook and cell, shows the code and the end of the traceback."""
    cell = notebook.cells[index]
    position = sum(c.cell_type == "code" for c in notebook.cells[: index + 1])
    code = "\n".join(f"    {line}" for line in cell.source.splitlines()[:12])
    if isinstance(error, CellExecutionError):
        tail = str(error.traceback).strip().splitlines()[-15:]
        detail = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(tail))
    else:
        detail = str(error).strip()
    return (
        f"{source.name}: code cell {position} (cell {index + 1} of {len(notebook.cells)}) "
        f"failed; {source.with_suffix('.ipynb').name} is left as it was.\n{code}\n{detail}"
    )


def build(source: Path, threads: int, timeout: int | None, take: str | None = None) -> float:
    """Executes one notebook and writes its `.ipynb`; returns the seconds it took."""
    settle(source, take)
    notebook = read_pair(source)
    canonical(source, notebook, repair=False)
    metadata = [nbformat.from_dict(dict(cell.metadata)) for cell in notebook.cells]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    start = time.perf_counter()
    execute(notebook, source, threads, timeout)
    seconds = time.perf_counter() - start
    clean(notebook, metadata)
    if found := problems(notebook):
        raise BuildError("\n".join(f"{source.name}: {line}" for line in found))
    write_atomically(source.with_suffix(".ipynb"), serialized(notebook))
    return seconds


def build_all(sources: list[Path], jobs: int, threads: int, timeout: int | None, take: str | None):
    """Yields (source, seconds) as notebooks finish; raises BuildError at the first failure."""
    if jobs == 1:
        for source in sources:
            yield source, build(source, threads, timeout, take)
        return
    sources = sorted(sources, key=_former_seconds, reverse=True)  # the longest must not come last
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = {pool.submit(build, source, threads, timeout, take): source for source in sources}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BuildError:
            pool.shutdown(cancel_futures=True)
            raise


def _former_seconds(source: Path) -> float:
    """What the notebook took when its committed outputs were made; 0 where that is not known."""
    try:
        record = json.loads((ROOT / "figures" / "provenance.json").read_text(encoding="utf-8"))
        return float(record["notebooks"][source.stem]["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def write_provenance(folder: Path, seconds: dict[str, float], threads: int, jobs: int) -> None:
    """Adds to `provenance.json`: with what, on what and in what time each notebook ran."""
    from synflow_lib import env

    path = folder / "provenance.json"
    try:
        notebooks = json.loads(path.read_text(encoding="utf-8"))["notebooks"]
    except (OSError, ValueError, KeyError, TypeError):
        notebooks = {}
    described = {**env.describe(), "threads": threads, "notebooks_at_once": jobs}
    for name, value in seconds.items():
        notebooks[name] = {"seconds": round(value, 1), **described}
    present = {source.stem for source in HERE.glob("[0-9][0-9]_*.py")}
    record = {"notebooks": {name: notebooks[name] for name in sorted(present & set(notebooks))}}
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def chosen(only: list[str], folder: Path = HERE) -> list[Path]:
    """The sources whose name starts with one of `only` (all when empty), in order."""
    every = sorted(folder.glob("[0-9][0-9]_*.py"))
    if not every:
        raise BuildError(f"no notebook NN_topic.py in {folder.name}/")
    for prefix in only:
        if not any(source.stem.startswith(prefix) for source in every):
            names = ", ".join(source.stem for source in every)
            raise BuildError(f"no notebook starts with {prefix!r}; there are {names}")
    return [s for s in every if not only or any(s.stem.startswith(prefix) for prefix in only)]


def options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="start of a name")
    parser.add_argument("--sync", action="store_true", help="bring pairs in step, run nothing")
    parser.add_argument("--check", action="store_true", help="fail when a pair is not in step")
    parser.add_argument("--take", choices=("py", "ipynb"), help="which side of a pair to keep")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at once (default 1)")
    parser.add_argument("--threads", type=int, help="threads a notebook (default: 2 / jobs)")
    parser.add_argument("--timeout", type=int, help="seconds a cell (classroom scale: 1200)")
    chosen_options = parser.parse_args(arguments)
    for name in ("jobs", "threads", "timeout"):
        value = getattr(chosen_options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; expected 1 or more")
    return chosen_options


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError with a message for the user."""
    given = options(arguments)
    sources = chosen(given.only)
    if given.check:
        if drifted := [source.name for source in sources if not in_step(source)]:
            raise BuildError(f"not in step with their .ipynb: {', '.join(drifted)}; `make sync`")
        print(f"{len(sources)} pairs in step")
        return
    if given.sync:
        for source in sources:
            print(f"{source.stem}: {'updated' if sync(source, given.take) else 'in step'}")
        return

    # Kernels run in notebooks/: a relative folder must not mean another one there.
    folder = Path(os.environ.get("SYNFLOW_FIGURES") or ROOT / "figures").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SYNFLOW_FIGURES"] = str(folder)
    own = not os.environ.get("SYNFLOW_RUNS")
    runs = ROOT / "runs" / f"figures-{recorded.code()}"
    if own:  # what an interrupted build of the same code has trained is not trained again
        runs.mkdir(parents=True, exist_ok=True)
        os.environ["SYNFLOW_RUNS"] = str(runs)
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
    try:
        main()
    except BuildError as error:
        sys.exit(f"build: {error}")
