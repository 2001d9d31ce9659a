"""Fingerprints: what tells two pieces of code, networks and data sets of one name apart."""

import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.scores import METHODS, resolve
from synflow_lib.sweeps.fingerprints import changes, of_code, of_network, same

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
    class Mine(sf.scores.Method):
        factor = value

        def flat(self):
            return self.work.flat * self.factor

    return Mine


MAKERS = [
    closing, defaulting, keyword, Callable, nested, a_class,
    lambda value: Callable(value).__call__,
    lambda value: functools.partial(uses_helper, batch=value),
    lambda value: resolve(closing(value)),
    lambda value: sf.synaptic_saliency(lambda output, y: value * output.sum()),
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


@pytest.mark.in_turn
def test_a_fingerprint_is_the_same_in_another_process():
    code = "import test_fingerprints as t; print(t.of_code(t.uses_helper), t.of_code(t.a_class(1)))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == f"{of_code(uses_helper)} {of_code(a_class(1))}"


HEAD = """
import dataclasses, enum, functools, logging, pathlib, threading, types, weakref
import numpy as np, torch
from torch import nn
"""
# A program that defines `f`, and a change of its meaning (None: there is none to make).
PROGRAMS = {
    "config": ("C = {'b': [1, 2], 'a': {'x', 'y', 'z'}}\ndef f(): return C", "[1, 2]", "[1, 3]"),
    "sets": ("S = {'a', 'b', ('c', 1)}\ndef f(): return S", "1)", "2)"),
    "object keys": ("C = {torch.relu: 1, torch.abs: 2}\ndef f(): return C", "1,", "3,"),
    "memo": ("M = {}\ndef f():\n  M[len(M)] = nn.Linear(2, 2)\n  return 1", "2, 2", "2, 3"),
    "setdefault": ("M = {}\ndef f(): return M.setdefault('k', [5])", "5", "6"),
    "counter": ("N = 0\ndef f():\n  global N\n  N += 1", "+= 1", "+= 2"),
    "lazy": ("N = None\ndef f():\n  global N\n  N = N or nn.ReLU()", "ReLU", "Tanh"),
    "default": ("def f(m={}, a=2):\n  m[1] = a\n  return a", "=2", "=3"),
    "read elsewhere": (
        "M = []\ndef g(): M.append(1)\ndef a(): return M\ndef f(): return a(), g()", "(1", "(2",
    ),
    "closed over": (
        "def make(x):\n  n, m = 0, {}\n  def f():\n    nonlocal n\n    n += x\n    m[n] = x\n"
        "  return f\nf = make(3)", "(3)", "(4)",
    ),
    "cached": ("@functools.cache\ndef f(): return 5", "5", "6"),
    "reaches cached": (
        "@functools.lru_cache(3)\ndef g(x): return x + 5\ndef f(): return g(1)", "5", "6",
    ),
    "class": (
        "class A:\n  n, k = 0, 5\n  def __call__(self):\n    A.n += 1\n    return self.k\n"
        "f = A()", "5", "6",
    ),
    "callable": (
        "class A:\n  def __init__(self, k): self.k, self.n, self.m = k, 0, {}\n"
        "  def __call__(self):\n    self.n += 1\n    self.m[self.n] = self\nf = A(5)",
        "A(5)", "A(6)",
    ),
    "bound": (
        "class A:\n  def __init__(self, k): self.k, self.n = k, 0\n"
        "  def go(self): self.n += 1\nf = A(5).go", "A(5)", "A(6)",
    ),
    "slots": (
        "class A:\n  __slots__ = ('k', 'n')\n  def __init__(self, k): self.k, self.n = k, 0\n"
        "  def __call__(self): self.n += 1\nf = A(5)", "A(5)", "A(6)",
    ),
    "logger": (
        "L = logging.getLogger('x')\ndef f():\n  L.addHandler(logging.NullHandler())\n"
        "  L.warning('a')\n  return 5", "5", "6",
    ),
    "random": (
        "R, T = np.random.default_rng(), torch.Generator()\n"
        "def f(): return 5 * R.random() * torch.rand(1, generator=T)", "5", "6",
    ),
    "lock": ("L = threading.Lock()\ndef f():\n  with L: return 5", "5", "6"),
    "event": ("E = object()\ndef f(): return E, 5", "5", "6"),
    "weak": ("W = weakref.ref(nn.Linear)\ndef f(): return W(), 5", "5", "6"),
    "dataclass": (
        "@dataclasses.dataclass(frozen=True)\nclass C:\n  k: int = 5\n  e: tuple = ()\n"
        "c = C()\ndef f(): return c.k", "5", "6",
    ),
    "namespace": ("C = types.SimpleNamespace(a={'b': 5})\ndef f(): return C.a", "5", "6"),
    "enum": (
        "class E(enum.Enum):\n  A = 5\n  B = 7\ndef f(): return E.A", "5", "6",
    ),
    "int enum": ("class E(enum.IntEnum):\n  A = 5\nK = E.A\ndef f(): return K", "5", "6"),
    "path": ("P = pathlib.Path('a/b')\ndef f(): return P", "a/b", "a/c"),
    "pattern": ("import re\nP = re.compile('a' * 500 + 'b')\ndef f(): return P", "'b'", "'c'"),
    "partial": ("def g(x, y): return x\nf = functools.partial(g, 5, y={'a': 1})", "5", "6"),
    "decorated": (
        "def twice(k):\n  def d(g):\n    @functools.wraps(g)\n    def w(): return k * g()\n"
        "    return w\n  return d\n@twice(5)\ndef f(): return 1", "(5)", "(6)",
    ),
    "no_grad": ("@torch.no_grad()\ndef f(): return 5", "5", "6"),
    "class attribute": ("class A:\n  k = 5\ndef f(): return A().k", "5", "6"),
    "base": ("class B:\n  k = 5\nclass A(B): pass\ndef f(): return A", "5", "6"),
    "property": (
        "class A:\n  @functools.cached_property\n  def k(self): return 5\na = A()\n"
        "def f(): return A().k", "5", "6",
    ),
    "tensor": ("T = torch.ones(3).bfloat16()\ndef f(): return T", "ones", "zeros"),
    "objects": ("T = np.array([object(), 5], object)\ndef f(): return T", "5", "6"),
    "module": ("N = nn.ModuleDict({'b': nn.ReLU()})\ndef f(): return N", "ReLU", "Tanh"),
    "inner": ("K = 5\ndef f(): return [(lambda: K)() for _ in range(2)]", "5", "6"),
    "user module": ("import mine.deep\ndef f(): return mine.deep.K", None, None),
    "unused names": (
        "import sys\nstate = object()\nclass A:\n  state = 5\ndef f(): return A.state", "5", "6",
    ),
}  # fmt: skip


# Whose calls change what they reach: that counts, until the process ends.
REMEMBERING = {
    "memo", "setdefault", "default", "read elsewhere", "closed over", "class", "callable", "bound",
    "slots",
}  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Fingerprints of all programs, before and after a call, in fresh processes."""
    found = []
    for number, (seed, changed) in enumerate([(1, False), (2, False), (3, True)]):
        folder = tmp_path_factory.mktemp(f"programs{number}")
        (folder / "mine").mkdir()
        (folder / "mine/__init__.py").touch()
        (folder / "mine/deep.py").write_text(f"K = {5 + changed}\nother = {number}\n")
        for name, (text, old, new) in PROGRAMS.items():
            if changed and old:
                assert old in text, name
                text = text.replace(old, new)
            (folder / f"p_{name.replace(' ', '_')}.py").write_text(HEAD + text)
        code = (
            "import importlib, json, pathlib, sys\n"
            "from synflow_lib.sweeps.fingerprints import of_code\n"
            "found = {}\n"
            "for path in sorted(pathlib.Path().glob('p_*.py')):\n"
            "    f = importlib.import_module(path.stem).f\n"
            "    before = of_code(f)\n"
            "    f(), f()\n"
            "    found[path.stem[2:].replace('_', ' ')] = before, of_code(f)\n"
            "print(json.dumps(found))"
        )
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout))
    return found


@pytest.mark.in_turn
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_code_means_counts_and_what_it_leaves_behind_does_not(fresh, name):
    (before, after), (there, then), (changed, _) = (each[name.replace("_", " ")] for each in fresh)
    assert None not in (before["bytecode"], changed["bytecode"])
    assert before == there, "another process, other hashes"
    assert not same(before, changed), "another meaning is not noticed"
    if name not in REMEMBERING:
        assert before["bytecode"] == after["bytecode"], "a call changes it"
        assert before["source"] == after["source"], "a call changes its source"
        assert after == then, "another process, other hashes"


def test_a_fingerprint_says_what_it_knows_nothing_of():
    lock = threading.Lock()
    assert of_code(lambda: lock)["left_out"] == ["lock"] and of_code(helper)["left_out"] == []


def test_digests_by_another_rule_are_not_compared():
    mine = of_code(helper)
    old = {"python": mine["python"], "bytecode": "another", "source": "another"}
    assert same(mine, old) and not same(mine, {**mine, "bytecode": "another"})


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


class Configured(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drop = nn.Linear(4, 4), [0.1]
        self.calls, self.held = 0, torch.ones(4)
        self.settings = {"scale": 1.0, "act": torch.relu, "by": torch.ones(4)} | settings

    def forward(self, x):
        self.calls += 1
        self.held = torch.rand(4)
        x = nn.functional.dropout(x, self.drop[0], self.training)
        return self.settings["act"](self.settings["scale"] * self.layer(x * self.settings["by"]))


def test_networks_are_told_apart_by_what_they_compute():
    before = of_network(Configured(), (4,))
    assert same(json.loads(json.dumps(before)), of_network(Configured(), (4,)))
    for change in ({"scale": 0.99}, {"act": torch.tanh}, {"by": torch.linspace(0, 1, 4)}):
        assert not same(before, of_network(Configured(**change), (4,))), change
    rounded = of_network(Configured(by=torch.ones(4) + 1e-6), (4,))
    assert same(before, rounded)
    other = Configured()
    other.drop = [0.2]  # of training only
    assert not same(before, of_network(other, (4,)))
    old = {key: value for key, value in before.items() if key not in ("outputs", "attributes")}
    assert changes({"network": old}, {"network": of_network(Configured(scale=2.0), (4,))}) == []


def test_a_fingerprint_changes_nothing_of_a_network():
    net = nn.Sequential(Configured(), nn.BatchNorm1d(4), nn.Dropout(0.5))
    states, torch_state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    held = net[0].held
    assert same(of_network(net, (4,)), of_network(net, (4,)))
    assert net.training and net[0].calls == 0 and net[0].held is held
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(torch.equal(value, states[key]) for key, value in net.state_dict().items())
    assert "outputs" not in of_network(net, (5,))  # it cannot run


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
    from synflow_lib.sweeps.run import method_fingerprint, registered

    for name in ("synflow", "imp", "dense"):
        assert method_fingerprint(name) == "built in"
    try:
        sf.register("snip", METHODS["grasp"], replace=True)
        assert method_fingerprint("snip") != "built in"
        run = sf.Run("digits", "fc", "snip", 2, sf.Recipe(1, 0.1))
        assert list(registered([run])) == ["snip"]
    finally:
        METHODS["snip"] = sf.methods.Snip
