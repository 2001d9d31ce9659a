"""The files of published numbers: none missing, doubled or changed; and all can be looked up."""

import hashlib
from importlib import resources

import numpy as np
import pytest

from synflow_lib.reproduction import paper

# Of the files as they were read from the authors' results; a number that changes is a fault.
SHA256 = {
    "figure1": "e13c7b6e069d4f8c",
    "figure2": "1b3b7cb56d4f170f",
    "figure3": "f368db0abbb55f91",
    "figure4": "b4bc662e22e060b8",
    "figure5a": "f14acaa052ee6d1a",
    "figure5b": "9f284c8b959124dc",
    "figure6": "20750cc297e58a34",
    "figure7": "b8c4ea62193949a6",
}
# What tells one row from another: every combination is there, once.
KEYS = {
    "figure1": ["method", "log10_compression", "seed"],
    "figure2": ["method", "doublings", "layer"],
    "figure4": ["method", "weights", "layer"],
    "figure5a": ["log10_compression", "iterations"],
    "figure5b": ["epoch", "layer"],
    "figure6": ["dataset", "model", "method", "log10_compression", "seed"],
}


@pytest.mark.parametrize("name", SHA256)
def test_no_published_number_changes(name):
    folder = resources.files("synflow_lib.reproduction") / "published"
    [file] = (file for file in folder.iterdir() if file.name.startswith(f"{name}."))
    content = file.read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith(SHA256[name])


@pytest.mark.parametrize("name", KEYS)
def test_every_combination_is_there_once(name):
    table = getattr(paper, name)()
    counts = table.groupby(KEYS[name]).size()
    assert (counts == 1).all()
    assert len(counts) == np.prod([table[key].nunique() for key in KEYS[name]])


def test_figure7_holds_every_compression_for_every_number_of_iterations():
    table = paper.figure7()
    assert not table.duplicated(["schedule", "log10_compression", "iterations"]).any()
    assert set(table.groupby(["schedule", "iterations"]).log10_compression.nunique()) == {7}


@pytest.mark.parametrize("name", ["figure1", "figure5a", "figure6", "figure7"])
def test_compressions_can_be_looked_up(name):
    """By the number that a reader computes, on every processor: powers are not rounded alike."""
    table = getattr(paper, name)()
    for alpha in table["log10_compression"].unique().tolist():
        rows = table[table["compression"] == 10**alpha]
        assert set(rows["log10_compression"]) == {alpha}
    assert (table["compression"] == np.float64(1e3)).sum() in (15, 5, 180, 22)


@pytest.mark.parametrize("name", KEYS)
def test_accuracies_and_sizes_are_possible(name):
    table = getattr(paper, name)()
    for column in table.select_dtypes("number"):
        # SynFlow's 2^24 is beyond rho_max: nothing is left.
        assert np.isfinite(table[column]).all() or (name, column) == ("figure2", "compression")
        assert (table[column] >= 0).all()
    for column in ("accuracy", "best_accuracy"):
        if column in table:
            assert (table[column] <= 100).all()
    if "total" in table:
        assert (table["kept"] <= table["total"]).all()
    if "best_accuracy" in table:
        assert (table["accuracy"] <= table["best_accuracy"]).all()
