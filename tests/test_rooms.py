"""The rooms of the library: imports point down, and importing it loads no plotting."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parent.parent / "synflow_lib"
# Each room may import itself and what stands above it. `core` is what lies in no folder and is not
# named here; `fast` is a part of it.
ORDER = [
    ("files", "env", "values", "randomness", "portable_normal", "batches"),
    ("graphs",),
    ("core", "fast"),
    ("surgery",),
    ("models", "data", "colab"),
    ("training",),
    ("sweeps",),
    ("reproduction",),
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
# Inside the last room, too: what is drawn knows nothing of what is computed.
INSIDE = {"figures": {"experiments", "explore"}, "experiments": {"figures", "explore"}}


def room(parts):
    return parts[0] if parts[0] in LEVEL else "core"


def imports(path, library):
    """(line, module of the package as a tuple) of whatever a file imports of it."""
    package = path.relative_to(library).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1] + module
            elif module[:1] == ("synflow_lib",):
                base = module[1:]
            else:
                continue
            for alias in node.names:
                yield node.lineno, base or (alias.name,)


def upward(library):
    found = []
    for path in sorted(library.rglob("*.py")):
        here = path.relative_to(library).with_suffix("").parts
        if here == ("__init__",):
            continue
        for line, there in imports(path, library):
            same = here[0] == there[0] == "reproduction" and len(there) > 1
            if LEVEL[room(there)] > LEVEL[room(here)] or (
                same and there[1] in INSIDE.get(here[1], ())
            ):
                found.append(f"{'/'.join(here)}.py:{line} imports {'.'.join(there)}")
    return found


def test_imports_point_down():
    assert upward(LIBRARY) == []


@pytest.mark.parametrize(
    "place, text",
    [
        ("masks.py", "from .training.train import train\n"),
        ("graphs/one.py", "from ..masks import Masks\n"),
        ("graphs/one.py", "from .. import paths\n"),
        ("values.py", "from .graphs.network import prunable\n"),
        ("training/one.py", "def f():\n    from ..sweeps import run\n"),
        ("fast/one.py", "from synflow_lib.models import fc\n"),
        ("reproduction/figures/one.py", "from ..experiments import cost\n"),
    ],
)
def test_an_import_that_points_up_is_found(place, text, tmp_path):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert len(upward(tmp_path)) == 1


def test_modules_are_short():
    lines = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY.rglob("*.py")
    }
    assert [path.name for path, count in lines.items() if count > 400] == []


def test_importing_the_library_loads_no_plotting_and_no_cluster():
    program = (
        "import sys, synflow_lib as sf\n"
        "heavy = {'matplotlib', 'seaborn', 'joblib', 'dask', 'ipywidgets', 'torchvision'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not any(name.startswith('synflow_lib.reproduction.f') for name in sys.modules)\n"
        "assert callable(sf.figures.accuracy_curves) and sf.grids and sf.explore and sf.paper\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
