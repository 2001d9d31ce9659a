"""Fingerprints: what tells two pieces of code, networks and data sets of one name apart."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.fingerprints import changes, of_code, of_network, same
from synflow_lib.saliency import METHODS, resolve

FACTOR = 2


def helper(x):
    return FACTOR * x


def uses_helper(model, batch):
    return {name: helper(weight) for name, weight in model.named_parameters()}


def closing(value):
    return lambda model, batch: value


def defaulting(value):
    def function(model, batch, value=value):
        return value

    return function


def keyword(value):
    def function(model, batch, *, value=value):
        return value

    return function


class Callable:
    def __init__(self, value):
        self.value = value

    def __call__(self, model, batch):
        return self.value


def nested(value):
    inner = closing(value)
    return lambda model, batch: inner(model, batch)


def a_class(value):
    class Mine(sf.methods.Method):
        factor = value

        def flat(self):
            return self.work.flat * self.factor

    return Mine


MAKERS = [
    closing, defaulting, keyword, Callable, nested, a_class,
    lambda value: Callable(value).__call__,
    lambda value: functools.partial(uses_helper, batch=value),
    lambda value: resolve(closing(value)),
    lambda value: sf.saliency.synaptic_saliency(lambda output, y: value * output.sum()),
]  # fmt: skip
VALUES = [
    (1, 2), (1.0, 1.5), ("a", "b"), (True, False), ((1, 2), (1, 3)), ({"a": 1}, {"a": 2}),
    (torch.zeros(3), torch.ones(3)), (np.zeros(2), np.zeros(3)), (torch.float32, torch.float64),
    (torch.abs, torch.neg), (np.abs, np.exp), (frozenset("ab"), frozenset("ac")),
    (nn.ReLU(), nn.Tanh()), (slice(1), slice(2)),
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_code_is_told_apart_by_what_it_closes_over(make):
    for a, b in VALUES:
        assert same(of_code(make(a)), of_code(make(a))), a
        assert not same(of_code(make(a)), of_code(make(b))), (a, b)
    print(f"{len(VALUES)} pairs of values told apart")


def test_code_is_told_apart_by_what_it_says():
    functions = [lambda m, b: 1, lambda m, b: 2, lambda m, b: m, lambda m, b: b, lambda m, b: -m]
    found = [of_code(function)["bytecode"] for function in functions]
    assert len(set(found)) == len(functions)


@pytest.mark.parametrize("change", [("FACTOR", 3), ("helper", lambda x: x + 1)])
def test_globals_that_are_reached_count_and_others_do_not(monkeypatch, change):
    before = of_code(uses_helper)
    monkeypatch.setitem(globals(), "VALUES", [])
    assert same(of_code(uses_helper), before)
    monkeypatch.setitem(globals(), *change)
    assert not same(of_code(uses_helper), before)


def test_circles_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    circle = []
    circle.append(circle)
    assert same(of_code(even), of_code(even)) and of_code(closing(circle))["bytecode"]


def test_another_python_compares_sources():
    mine = of_code(uses_helper)
    theirs = {**mine, "python": "2.7", "bytecode": "another"}
    assert same(mine, theirs) and not same(mine, {**theirs, "source": "another"})
    assert not same({**mine, "source": None}, {**theirs, "source": None})


def test_comments_do_not_count_in_sources():
    names = {}
    texts = ["def f(x):\n    return x\n", "def f(x):  # the same\n\n    return x\n"]
    import linecache

    for number, text in enumerate(texts):
        file = f"<made {number}>"
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        exec(compile(text, file, "exec"), names)
        names[number] = of_code(names["f"])
    assert names[0]["source"] is not None and names[0] == names[1]


def test_a_fingerprint_is_the_same_in_another_process():
    code = "import test_fingerprints as t; print(t.of_code(t.uses_helper), t.of_code(t.a_class(1)))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == f"{of_code(uses_helper)} {of_code(a_class(1))}"


# ---------------------------------------------------------------------------------------- networks


class Block(nn.Module):
    def __init__(self, act=torch.relu):
        super().__init__()
        self.layer, self.act = nn.Linear(4, 4), act

    def forward(self, x):
        return self.act(self.layer(x))


def seeded(make, *args, **kwargs):
    torch.manual_seed(0)
    return make(*args, **kwargs)


class Twin(Block):
    def forward(self, x):
        return x + super().forward(x)


NETS = [
    lambda: seeded(nn.Conv2d, 3, 8, 3),
    lambda: seeded(nn.Conv2d, 3, 8, 3, padding=1),
    lambda: seeded(nn.Conv2d, 3, 8, 3, dilation=2),
    lambda: seeded(nn.Conv2d, 3, 8, 3, bias=False),
    lambda: seeded(nn.Sequential, nn.Linear(4, 4), nn.ReLU()),
    lambda: seeded(nn.Sequential, nn.Linear(4, 4), nn.Tanh()),
    lambda: seeded(nn.Sequential, nn.Linear(4, 4), nn.Dropout(0.1)),
    lambda: seeded(nn.Sequential, nn.Linear(4, 4), nn.Dropout(0.2)),
    lambda: seeded(Block),
    lambda: seeded(Twin),
    lambda: sf.models.fc((1, 8, 8), depth=2, width=10, seed=0),
    lambda: sf.models.fc((1, 8, 8), depth=2, width=10, seed=1),
]


def test_networks_are_told_apart_and_are_like_themselves():
    found = [of_network(make()) for make in NETS]
    for i, a in enumerate(found):
        assert same(a, of_network(NETS[i]()))
        assert not any(same(a, b) for b in found[:i])
    print(f"{len(NETS)} networks told apart")


def test_weights_count_up_to_rounding():
    net = seeded(nn.Linear, 300, 100)
    before = of_network(net)
    with torch.no_grad():
        net.weight.mul_(1 + 1e-7 * torch.randn(100, 300))  # as another processor draws them
    assert same(of_network(net), before)
    with torch.no_grad():
        net.weight[3, 5] += 0.1
    assert not same(of_network(net), before)
    with torch.no_grad():
        net.weight.copy_(net.weight.flip(0))
    assert not same(of_network(net), before)


def test_what_is_not_known_is_not_called_changed():
    old = {"version": 1}
    assert changes(old, {"version": 1, "data": "a", "network": {"weights": 1.0}}) == []
    assert changes({"data": "a", "method": "built in"}, {"data": None, "method": {}}) == ["method"]


def test_the_librarys_own_methods_change_with_its_version_only():
    from synflow_lib.runs import method_fingerprint, registered

    for name in ("synflow", "imp", "dense"):
        assert method_fingerprint(name) == "built in"
    try:
        sf.register("snip", METHODS["grasp"], replace=True)
        assert method_fingerprint("snip") != "built in"
        run = sf.Run("digits", "fc", "snip", 2, sf.Recipe(1, 0.1))
        assert list(registered([run])) == ["snip"]
    finally:
        METHODS["snip"] = sf.gradients.Snip
