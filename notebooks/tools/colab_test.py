"""Runs the notebooks as Colab would: its versions, one `.ipynb` in a clean folder, a built wheel.

    python notebooks/tools/colab_test.py               all notebooks (`make colab-test`)
    python notebooks/tools/colab_test.py --only 00     some of them

A virtual environment with Colab's versions (image of August 2026) is made once, in build/colab.
The notebook's own setup cell installs the wheel, in place of the repository's address. A notebook
that fails, or one that replaces torch or numpy, makes the command fail. The table is written to
docs/colab_test.md; with --only, the other rows stay as they are there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import nbformat
from badges import address
from build import execute
from pairs import HERE, ROOT, BuildError, chosen, command_line, run_command, write

COLAB = {
    "python": "3.13",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.1.3",
    "pandas": "2.2.3",
    "matplotlib": "3.10.0",
    "seaborn": "0.13.2",
    "ipywidgets": "7.7.1",
    "ipython": "7.34.0",
    "ipykernel": "6.17.1",
}
# Of torch and its Python those of constraints.txt are used: PyPI has Colab's for CUDA alone.
OWN = ("python", "torch", "torchvision")
OTHERS = (
    "cloudpickle dask distributed filelock joblib networkx pillow safetensors scikit-learn scipy "
    "tqdm"
).split()
Row = tuple[str, float, str]  # notebook, seconds, result
PROBE = """
import hashlib, importlib.metadata as m, json, os, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    files = [str(f.locate()) for f in m.files(name) if os.path.isfile(f.locate())]
    times = sorted((f, os.stat(f).st_mtime_ns) for f in files if "__pycache__" not in f)
    found[name] = [m.version(name), hashlib.sha256(repr(times).encode()).hexdigest()]
print(json.dumps(found))
"""
PAGE = """\
# The notebooks with Colab's versions

Made by `make colab-test`.

| notebook | seconds | result |
|---|---|---|
{notebooks}

| package | Colab, August 2026 | here |
|---|---|---|
{packages}

Where the columns differ (Python and torch) Colab's version was not at hand, so nothing is said
about it. Each notebook ran in an empty folder with one thread; its setup cell installed this
checkout's wheel. The version and the date of every file of torch and numpy were compared before
and after.
"""


def make_environment(folder: Path) -> Path:
    """The Python of an environment with Colab's versions, made if it is not there yet."""
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    ours = [re.search(rf"(?m)^{name}==\S+", pins)[0] for name in ("torch", "torchvision")]
    wanted = [f"{name}=={version}" for name, version in COLAB.items() if name not in OWN]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *ours, *wanted, *OTHERS], check=True)
    (folder / ".ready").touch()
    return python


def make_wheel(folder: Path) -> Path:
    """This checkout's wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def probe(python: Path, *names: str) -> dict:
    """Version and a fingerprint of the files' dates of each package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), "-c", PROBE, *names]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(shown.stdout)


def uninstall(python: Path) -> None:
    """So that the next notebook's setup cell has something to install."""
    command = [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "synflow-lib"]
    subprocess.run(command, check=True, capture_output=True)


def run(path: Path, wheel: Path, python: Path, home: str) -> float:
    """Seconds that one notebook takes from an empty folder; BuildError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    replaced = [cell for cell in notebook.cells if f"git+{home}" in cell.source]
    if len(replaced) != 1:
        raise BuildError(f"{path.name}: {len(replaced)} cells install from {home}; expected one")
    replaced[0].source = replaced[0].source.replace(f"git+{home}", str(wheel))
    uninstall(python)
    # Without this project's path, settings and figures.
    dropped = ("SYNFLOW_", "PYTHON", "MPLBACKEND", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(notebook, Path(folder) / path.name)
        return execute(notebook, Path(folder), environment, timeout=1800, interpreter=python)


def report(rows: list[Row], versions: dict) -> str:
    """The page docs/colab_test.md."""
    here = {name: found if name == "python" else found[0] for name, found in versions.items()}
    return PAGE.format(
        notebooks="\n".join(f"| {name} | {took:.0f} | {result} |" for name, took, result in rows),
        packages="\n".join(f"| {name} | {colab} | {here[name]} |" for name, colab in COLAB.items()),
    )


def with_earlier(rows: list[Row], page: str, names: Iterable[str]) -> list[Row]:
    """These rows, and those of an earlier page for notebooks that did not run now.

    >>> page = "| 00_a | 1 | ok |\\n| 01_b | 9 | FAILED |"
    >>> with_earlier([("01_b", 2.0, "ok")], page, ["00_a", "01_b"])
    [('00_a', 1.0, 'ok'), ('01_b', 2.0, 'ok')]
    """
    found = re.findall(r"^\| (\d\d_\w+) \| (\d+) \| (.+) \|$", page, flags=re.MULTILINE)
    known = {name: (name, float(seconds), result) for name, seconds, result in found}
    known |= {row[0]: row for row in rows}
    return [known[name] for name in names if name in known]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises BuildError when a notebook fails."""
    parser = command_line(__doc__)
    parser.add_argument("--env", type=Path, default=ROOT / "build" / "colab", help="environment")
    given = parser.parse_args(arguments)
    paths = chosen(given.only, HERE, ".ipynb")
    home, python = address(), make_environment(given.env.absolute())
    before, rows = probe(python, *[name for name in COLAB if name != "python"]), []
    with tempfile.TemporaryDirectory() as folder:
        wheel = make_wheel(Path(folder))
        for path in paths:
            start = time.perf_counter()
            try:
                seconds, result = run(path, wheel, python, home), "ok"
            except Exception as error:  # any failure of a notebook is a row, and the end's failure
                seconds, result = time.perf_counter() - start, "FAILED"
                print(error, file=sys.stderr)
            after = probe(python, "torch", "numpy")
            if changed := [name for name in ("torch", "numpy") if after[name] != before[name]]:
                result = f"FAILED: {' and '.join(changed)} reinstalled"
            rows.append((path.stem, seconds, result))
            print(f"{path.stem:<28}{seconds:7.1f} s  {result}", flush=True)
    page = ROOT / "docs" / "colab_test.md"
    earlier = page.read_text(encoding="utf-8") if page.is_file() else ""
    names = [path.stem for path in chosen([], HERE, ".ipynb")]
    text = report(with_earlier(rows, earlier, names), before)
    write(page, text)
    print(text)
    if failed := [name for name, _, result in rows if result != "ok"]:
        raise BuildError(f"{', '.join(failed)} failed with Colab's versions")


if __name__ == "__main__":
    run_command(main)
