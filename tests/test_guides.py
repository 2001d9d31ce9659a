"""The guides' code runs, as readers would run it."""

import doctest
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("name", ["card", "extending", "thirty_lines"])
def test_the_code_of_a_guide(name, put_back, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(
        os.fspath(DOCS / f"{name}.md"),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    plt.close("all")  # a guide draws on pyplot's figure, and leaves it to its reader
    assert tried > 5
    assert not failed


def test_a_rule_that_is_wrong_is_found_out(put_back):
    import torch

    import synflow_lib as sf

    class Minus(torch.nn.Module):
        def forward(self, x):
            return -x

    sf.layers.rule(Minus, lambda module, x: -x)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), Minus(), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="the rule for 1 gives negative numbers"):
        sf.prune(net, "synflow", 2)
    for kind, effect in ((3, "passes"), (Minus, "scales"), (int, "passes")):
        with pytest.raises(TypeError, match="expected"):
            sf.layers.rule(kind, effect)
