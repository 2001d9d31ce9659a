"""Every notebook runs to its last cell at the scales that need a GPU, with one seed.

What costs is made small and nothing else is changed: what is trained are the paper's networks with
few channels, images are noisy patterns in CIFAR's own files, and the grids have one seed, few
compressions and one epoch.
"""

import dataclasses
import datetime
import hashlib
import pickle
import random
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from synflow_lib import data, env
from synflow_lib.models import plain
from synflow_lib.reproduction import grids
from synflow_lib.reproduction.experiments import dynamics, lab

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("0*.py"))
TRAINING = ("03", "05", "07", "08", "09")  # other networks than in the classroom, but for 08
TODAY = datetime.date.today().isoformat()


def rotating(things):
    """Another one each day, so that all get their turn."""
    return random.Random(TODAY).sample(things, 1)


def write_cifar(monkeypatch, root, name, n_train, n_test):
    """A noisy pattern for each class, in CIFAR's format; torchvision's sums made to fit."""
    source = getattr(data.import_torchvision("torchvision.datasets"), name.upper())
    base, rng = root / source.base_folder, np.random.default_rng(0)
    base.mkdir(parents=True)
    classes = int(name.removeprefix("cifar"))
    patterns = np.random.default_rng(1).integers(0, 256, (classes, 3072), dtype=np.uint8)
    kinds = ["labels"] if classes == 10 else ["fine_labels", "coarse_labels"]

    def write(file, content):
        (base / file).write_bytes(pickle.dumps(content))
        return file, hashlib.md5((base / file).read_bytes()).hexdigest()

    for split, count in (("train_list", n_train), ("test_list", n_test)):
        files = [file for file, _ in getattr(source, split)]
        listed = []
        for file in files:
            n = count // len(files)
            labels = np.arange(n) % classes
            pixels = patterns[labels] // 2 + rng.integers(0, 128, (n, 3072), dtype=np.uint8)
            content = {"data": pixels, **dict.fromkeys(kinds, labels.tolist())}
            listed.append(list(write(file, content)))
        monkeypatch.setattr(source, split, listed)
    names = [f"class {i}" for i in range(classes)]
    _, md5 = write(source.meta["filename"], {source.meta["key"]: names})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})


def thinned(grid):
    """One seed, one epoch, the first, a middle and a strong compression, and two scorings."""

    def few(how):
        often = how.get("iterations") == 100 or how["method"] == "synflow"
        return {**how, "iterations": 2} if often else how

    panels = tuple(
        dataclasses.replace(
            panel,
            variants={label: few(how) for label, how in panel.variants.items()},
            alphas=tuple(a for a in panel.alphas if a in (0.0, 1.0, 2.0)),
            recipe=dataclasses.replace(panel.recipe, epochs=1, milestones=()),
        )
        for panel in grid.panels[:2]
    )
    return dataclasses.replace(grid, panels=panels, seeds=1)


def thinned_lab(scale):
    """The same of the lab's two networks, both on the images that there are."""
    networks = lab._SCALES[scale][:2]
    few = thinned(grids.Grid(networks, 1)).panels
    return *(dataclasses.replace(panel, dataset="cifar10") for panel in few), 1


@pytest.fixture
def small(monkeypatch, tmp_path, put_back):
    """Sets a scale, and makes all that it computes small."""

    def set_scale(scale, narrow):
        for variable in ("DATA", "RUNS", "FIGURES"):
            (tmp_path / variable).mkdir()
            monkeypatch.setenv(f"SYNFLOW_{variable}", str(tmp_path / variable))
        monkeypatch.setenv("SYNFLOW_SCALE", scale)
        write_cifar(monkeypatch, tmp_path / "DATA", "cifar10", 200, 50)
        write_cifar(monkeypatch, tmp_path / "DATA", "cifar100", 200, 100)
        few = dataclasses.replace(env.SETTINGS[scale], seeds=1, alphas=(0.0, 1.0, 2.0, 3.0, 4.0))
        monkeypatch.setitem(env.SETTINGS, scale, few)
        for table in (grids._FIGURE1, grids._FIGURE6, dynamics._IMP):
            monkeypatch.setitem(table, scale, thinned(table[scale]))
        monkeypatch.setitem(lab._SCALES, scale, thinned_lab(scale))
        drift = dynamics._DRIFT[scale]
        short = dataclasses.replace(drift.recipe, epochs=2, milestones=())
        monkeypatch.setitem(
            dynamics._DRIFT, scale, dataclasses.replace(drift, recipe=short, seeds=1)
        )
        if narrow:
            monkeypatch.setattr(plain, "WIDTHS", (8, 16, 32, 64, 64))
        whole = data.Dataset.scoring_batch
        one = lambda self, per_class=10, seed=0: whole(self, 1, seed)  # noqa: E731
        monkeypatch.setattr(data.Dataset, "scoring_batch", one)

    return set_scale


def pytest_generate_tests(metafunc):
    """One training notebook a day at one of the scales; `make test-all` takes all."""
    every = [(path, scale) for path in NOTEBOOKS for scale in ("colab", "panel")]
    training = [(path, scale) for path, scale in every if path.stem[:2] in TRAINING]
    chosen = every if metafunc.config.getoption("retrain") else rotating(training)
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path, scale", chosen, ids=lambda each: getattr(each, "stem", each))


@pytest.mark.slow
def test_a_notebook_runs_to_its_last_cell(path, scale, small, monkeypatch):
    small(scale, narrow=path.stem[:2] in TRAINING)
    monkeypatch.chdir(path.parent)
    try:
        runpy.run_path(str(path))
    finally:
        plt.close("all")
