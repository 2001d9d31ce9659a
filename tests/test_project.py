"""The project's own files: pins, metadata, README, continuous integration."""

import ast
import doctest
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
IMPORT_NAMES = {"sklearn": "scikit-learn", "PIL": "pillow"}


def declared():
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in sum(extras, PROJECT["dependencies"])]


def pins(python):
    """The versions that constraints.txt gives one Python; a second pin for it is a mistake."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker and not pin.marker.evaluate({"python_version": python}):
            continue
        (only,) = pin.specifier
        assert only.operator == "==" and not only.version.endswith("*"), f"not a pin: {line}"
        assert "+" not in only.version, f"a local build cannot be had everywhere: {line}"
        assert canonicalize_name(pin.name) not in found, f"pinned twice for {python}: {line}"
        found[canonicalize_name(pin.name)] = only.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_range(python):
    pinned = pins(python)
    for requirement in declared():
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt has no {name} for Python {python}"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} admits no pin"


def test_everything_that_is_imported_is_declared():
    names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for path in (ROOT / "synflow_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for module in {module.split(".")[0] for module in modules}:
                if module in sys.stdlib_module_names or module == "synflow_lib":
                    continue
                name = canonicalize_name(IMPORT_NAMES.get(module, module))
                optional = (path.name, name) in {
                    ("executors.py", "dask"),
                    ("colab.py", "google"),  # which only Colab has
                    ("parquet.py", "pyarrow"),  # for a second source of images
                }  # fmt: skip
                assert name in names or optional, f"{path.name} imports {module}: not declared"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, made without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist"]
    done = subprocess.run(
        [*command, "-d", str(folder)], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_metadata_asks_for_ranges_only(built):
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        texts = [archive.read(name).decode()]
    with tarfile.open(sdist) as archive:
        (member,) = [m for m in archive.getmembers() if m.name.endswith("/PKG-INFO")]
        texts.append(archive.extractfile(member).read().decode())
    for text in texts:
        lines = re.findall(r"^Requires-Dist: (.*)$", text, flags=re.MULTILINE)
        assert len(lines) == len(declared())
        for line in lines:
            operators = {specifier.operator for specifier in Requirement(line).specifier}
            assert ">=" in operators and operators <= {">=", "<", "!="}, line
        assert "License-Expression: MIT" in text


def test_the_wheel_holds_the_package_its_data_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "synflow_lib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.startswith("synflow_lib/reproduction/published/") for name in package)
    # What `recorded` reads where there is no checkout.
    kept = [path for part in ("real", "untrained") for path in (ROOT / "results" / part).iterdir()]
    package |= {f"synflow_lib/{path.relative_to(ROOT).as_posix()}" for path in kept}
    assert "synflow_lib/results/untrained/figure2.jsonl" in package
    assert {name for name in names if ".dist-info/" not in name} == package


def test_readme_examples_give_what_they_show(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks, "README.md shows no python"
    monkeypatch.chdir(tmp_path)  # what an example saves does not belong in the checkout
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags)
    parser = doctest.DocTestParser()
    namespace, compared = {}, 0
    for number, block in enumerate(blocks, start=1):
        if ">>>" not in block:
            exec(compile(block, f"README.md, block {number}", "exec"), namespace)
            continue
        examples = parser.get_doctest(block, namespace, f"README.md, block {number}", None, 0)
        report = []
        runner.run(examples, out=report.append, clear_globs=False)
        assert not report, "".join(report)
        namespace = examples.globs
        compared += sum(bool(example.want.strip()) for example in examples.examples)
    assert compared, "README.md shows no printed result"


def test_nothing_tracked_is_large():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    ).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert files, "nothing is tracked"
    large = [path.name for path in files if path.stat().st_size > 1 << 20]
    assert not large


def test_conda_uses_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *_, pip = environment["dependencies"]
    assert pip["pip"][0] == "-c constraints.txt" and pip["pip"][1].startswith("-e .[")


def test_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Tanaka",
        "Kunin",
        "Yamins",
        "Ganguli",
    ]
    assert paper["year"] == 2020 and "2006.05467" in paper["url"]


@pytest.mark.parametrize(
    ("printed", "status", "passes"),
    [
        ("== 12 passed in 3.1s ==\n== 40 passed, 1 skipped in 9s ==", 0, True),
        ("== 1 failed, 11 passed in 3.1s ==\n== 40 passed in 9s ==", 2, False),
        ("== 12 passed in 3.1s ==\n== no tests ran in 0.1s ==", 2, False),  # pytest's 5
        ("== 12 passed in 3.1s ==\n== 3 skipped in 0.1s ==", 0, False),
        ("== 12 passed in 3.1s ==\n== 0 passed in 0.1s ==", 0, False),
    ],
)
def test_ci_fails_with_a_failure_and_without_tests(tmp_path, printed, status, passes):
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\nexit {status}\n")
    make.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run")],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    assert printed in done.stdout
