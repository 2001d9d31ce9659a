"""prune(): exact counts, nested, deterministic, the model as it was, Algorithm 1, bad input."""

import contextlib
import functools
import math
import random
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    Decoder,
    Dense,
    LongBranch,
    Mobile,
    PreActivation,
    Residual,
    Shared,
    Tied,
    grouped,
    images,
    mlp,
    narrow_resnet,
    narrow_vgg16,
    plain_synflow,
    seeded,
    unchanged,
    with_shape,
)
from torch import nn
from torch.nn.utils import prune as torch_prune

import synflow_lib as sf
from synflow_lib import loop, pruning
from synflow_lib.synflow import SynFlow
from synflow_lib.trajectory import Record

METHODS = ("random", "magnitude", "snip", "grasp", "synflow", "signed_snip")


def flat(masks):
    return torch.cat([mask.flatten() for mask in masks.values()])


# ------------------------------------------------------------------------------ random networks

FILLS = ("normal", "ones", "zeros", "half zero", "integers", "one layer zero")


def fill_(net, kind, seed):
    """Weights with as many ties and zeros as the kind says."""
    generator = torch.Generator().manual_seed(seed)
    weights = [p for p in net.parameters() if p.dim() > 1]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(generator=generator)
            if kind == "ones":
                weight.fill_(1.0)
            elif kind == "zeros":
                weight.zero_()
            elif kind == "half zero":
                weight.mul_(torch.rand(weight.shape, generator=generator) < 0.5)
            elif kind == "integers":
                weight.round_()
        if kind == "one layer zero":
            weights[seed % len(weights)].zero_()
    return net


@st.composite
def networks(draw):
    """A small perceptron or convolutional network, biases and BatchNorm or not, and its batch."""
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    seed = draw(st.integers(0, 2**16))
    bias, norm = draw(st.booleans()), draw(st.booleans())
    if draw(st.booleans()):
        net = mlp(*widths, bias=bias, batch_norm=norm, seed=seed)
        net.input_shape = (widths[0],)
    else:
        parts = []
        for n_in, n_out in zip(widths, widths[1:], strict=False):
            size = draw(st.integers(1, 3))
            parts.append(nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=bias))
            parts += [nn.BatchNorm2d(n_out)] * norm + [nn.ReLU()]
        net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 2))
        net = with_shape(seeded(lambda: net, seed), (widths[0], 4, 4))
    return fill_(net, draw(st.sampled_from(FILLS)), seed), images(net, 5)


SCHEDULES = ("exponential", "linear", lambda t, n, density: density ** ((t / n) ** 2))


@settings(max_examples=100, deadline=None)
@given(networks(), st.sampled_from(METHODS), st.data())
def test_exactly_round_n_over_compression_weights_stay(case, method, data):
    net, batch = case
    total = sum(p.numel() for p in sf.prunable(net).values())
    compression = data.draw(st.one_of(st.floats(1, total), st.just(1), st.just(total)))
    masks = sf.prune(
        net,
        method,
        compression,
        batch,
        iterations=data.draw(st.integers(1, 4)),
        schedule=data.draw(st.sampled_from(SCHEDULES)),
    )
    assert masks.kept == max(1, round(total / compression))
    assert masks.total == total
    assert {n: m.shape for n, m in masks.items()} == {
        n: p.shape for n, p in sf.prunable(net).items()
    }


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from(METHODS), st.data())
def test_local_scope_prunes_every_layer_alike(case, method, data):
    net, batch = case
    total = sum(p.numel() for p in sf.prunable(net).values())
    compression = data.draw(st.floats(1, total))
    iterations = data.draw(st.integers(1, 3))
    masks = sf.prune(net, method, compression, batch, scope="local", iterations=iterations)
    for kept, size in masks.table()[["kept", "total"]].itertuples(index=False):
        assert kept == max(1, round(size / compression))


@settings(max_examples=40, deadline=None)
@given(networks(), st.booleans(), st.booleans(), st.data())
def test_counts_are_of_the_parameters_asked_for(case, bias, batch_norm, data):
    net, batch = case
    method = data.draw(st.sampled_from(METHODS))
    chosen = sf.prunable(net, bias=bias, batch_norm=batch_norm)
    total = sum(p.numel() for p in chosen.values())
    compression = data.draw(st.floats(1, total))
    masks = sf.prune(net, method, compression, batch, bias=bias, batch_norm=batch_norm,
                     iterations=2)  # fmt: skip
    assert list(masks) == list(chosen)
    assert masks.kept == max(1, round(total / compression))


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from(("magnitude", "snip", "grasp")), st.data())
def test_one_iteration_keeps_the_largest_scores_the_first_of_equal_ones(case, method, data):
    net, batch = case
    scores = torch.cat([s.flatten() for s in sf.score(net, method, batch).values()])
    weights = [p.detach() for p in sf.prunable(net).values()]
    # Pruned before, whatever the others score; a layer of zeros alone starts at zero, unless
    # another layer has zeros among its weights.
    pruned = any(bool(w.any()) and bool((w == 0).any()) for w in weights)
    gone = torch.cat([((w == 0) & (pruned or bool(w.any()))).flatten() for w in weights])
    scores[gone] = -torch.inf
    kept = data.draw(st.integers(1, len(scores)))
    masks = sf.prune(net, method, len(scores) / kept, batch)
    within = 0.0 if method == "magnitude" else 1e-12  # gradients carry errors of rounding
    assert torch.equal(flat(masks), grouped(scores.tolist(), kept, within))


@settings(max_examples=40, deadline=None)
@given(networks(), st.integers(1, 6), st.data())
def test_a_pruned_weight_never_returns(case, iterations, data):
    """Scores that call for the pruned weights again, and as many ties as can be."""
    net, batch = case
    zeros = []

    def opposite(model, batch):
        found = dict(sf.prunable(model))
        zeros.append(torch.cat([p.detach().flatten() == 0 for p in found.values()]))
        return {n: (p.detach() == 0).double() * 9 - p.detach().abs() for n, p in found.items()}

    total = sum(p.numel() for p in sf.prunable(net).values())
    compression = data.draw(st.floats(1, total))
    masks = sf.prune(net, opposite, compression, iterations=iterations)
    at_first = zeros[0] if zeros else torch.zeros(total, dtype=torch.bool)
    for earlier, later in zip(zeros, zeros[1:], strict=False):
        assert not (earlier & ~later).any()
    for gone in zeros:
        assert not (flat(masks) & gone & ~at_first).any()
    assert masks.kept == max(1, round(total / compression))


# ------------------------------------------------------------------------------ large networks


@pytest.fixture(scope="module")
def vgg16():
    return sf.models.vgg16(seed=0)


@pytest.mark.in_turn
@pytest.mark.parametrize("method", ["magnitude", "random", "synflow"])
@pytest.mark.parametrize("compression", [1.7, 10**2.5, 14_715_584 / 14])
def test_exact_at_fourteen_million_weights(vgg16, method, compression):
    masks = sf.prune(vgg16, method, compression, iterations=1)
    assert (masks.kept, masks.total) == (round(14_715_584 / compression), 14_715_584)


def test_exact_at_fourteen_million_equal_weights():
    net = sf.models.vgg16(seed=0)
    with torch.no_grad():
        for parameter in sf.prunable(net).values():
            parameter.fill_(0.5)
    masks = sf.prune(net, "magnitude", 3.0)
    kept = round(14_715_584 / 3)
    assert torch.equal(flat(masks), torch.arange(14_715_584) < kept)


@pytest.mark.parametrize("name", ["resnet20", "fc"])
@pytest.mark.parametrize("density", [0.003, 0.3, 0.97])
def test_global_unstructured_of_torch_gives_the_same_masks(name, density):
    net = sf.models.by_name(name, seed=0)
    total = sum(p.numel() for p in sf.prunable(net).values())
    kept = round(total * density)
    masks = sf.prune(net, "magnitude", total / kept)
    assert masks.kept == kept
    layers = [(net.get_submodule(n.rpartition(".")[0]), "weight") for n in masks]
    torch_prune.global_unstructured(
        layers, pruning_method=torch_prune.L1Unstructured, amount=total - kept
    )
    for (layer, _), mask in zip(layers, masks.values(), strict=True):
        assert torch.equal(layer.weight_mask.bool(), mask)


# ------------------------------------------------------------------------------ Algorithm 1


NETS = {
    "mlp": lambda seed: with_shape(mlp(8, 12, 9, 4, bias=True, seed=seed), (8,)),
    "vgg": lambda seed: narrow_vgg16(seed=seed),
    "resnet": lambda seed: narrow_resnet(seed=seed),
    "dense": lambda seed: seeded(Dense, seed),
    "mobile": lambda seed: seeded(Mobile, seed),
    "decoder": lambda seed: seeded(Decoder, seed),
    "norms before layers": lambda seed: seeded(PreActivation, seed),
    "long branch": lambda seed: seeded(LongBranch, seed),
}


@pytest.mark.in_turn
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_synflow_is_algorithm_1_to_the_last_weight(name, seed):
    """Parity in float64 with the algorithm as one would write it first, over 100 iterations."""
    net = NETS[name](seed)
    total = sum(p.numel() for p in sf.prunable(net).values())
    for compression in (3.0, 5.5, total / 40):
        expected, certain = plain_synflow(net, compression, 100, net.input_shape)
        masks = sf.prune(net, "synflow", compression)
        assert masks.kept == max(1, round(total / compression))
        differ = sum(int((masks[name] ^ expected[name]).sum()) for name in masks)
        # A unit with one weight in and one out gives both the same score, up to rounding.
        allowed = 0 if certain else 2
        assert differ <= allowed, f"{differ} of {masks.kept} weights at compression {compression}"


@pytest.mark.in_turn
@pytest.mark.parametrize("make", [narrow_vgg16, narrow_resnet])
@pytest.mark.parametrize("schedule", ["exponential", "linear", "cut"])
def test_leaving_dead_units_out_changes_no_mask(make, schedule, monkeypatch):
    net = make(seed=3)
    compressions = (30.0, 300.0) if schedule != "cut" else (30.0, 400.0)
    fast = [sf.prune(net, "synflow", c, schedule=schedule) for c in compressions]
    monkeypatch.setattr(pruning, "Context", functools.partial(pruning.Context, fast=False))
    assert [sf.prune(net, "synflow", c, schedule=schedule) for c in compressions] == fast


@pytest.mark.parametrize("make", [Residual, Shared, Tied, Decoder, Dense, Mobile])
@pytest.mark.parametrize("method", METHODS)
def test_any_architecture(make, method):
    net = seeded(make)
    batch = images(net)
    total = sum(p.numel() for p in sf.prunable(net).values())
    masks = sf.prune(net, method, 4.0, batch, iterations=5)
    assert masks.kept == round(total / 4)
    masks.apply_(net)
    assert sf.Masks.from_model(net).kept == masks.kept


def test_the_schedule_is_followed():
    net = mlp(10, 10, 10)
    for schedule, kept in [
        ("exponential", [round(200 * 0.05 ** (t / 4)) for t in range(1, 5)]),
        ("linear", [round(200 * (1 - 0.95 * t / 4)) for t in range(1, 5)]),
        (lambda t, n, density: 1.0 if t < n else density, [10]),
    ]:
        path = sf.trajectory(net, "synflow", schedule=schedule, iterations=4, compression=20)
        assert path.counts == [200, *kept]


def test_default_iterations_are_the_papers():
    net = mlp(30, 30, 30)
    calls = {"synflow": 0, "magnitude": 0, "snip": 0, "grasp": 0, "random": 0}
    for name in calls:
        method = sf.METHODS[name]

        class Counting(method):
            def flat(self, name=name):
                calls[name] += 1
                return super().flat()

        sf.prune(net, Counting, 100.0, images(net))
    # Iterations of the hundred that remove no weight are skipped; SNIP and the others score once.
    distinct = len({round(1800 * 100 ** (-t / 100)) for t in range(101)}) - 1
    assert calls == {"synflow": distinct, "magnitude": 1, "snip": 1, "grasp": 1, "random": 1}


def test_kept_layers_stay_dense_and_out_of_the_count():
    net = mlp(10, 10, 10, 5)
    masks = sf.prune(net, "synflow", 10, keep=["2"])
    assert list(masks) == ["0.weight", "1.weight"]
    assert (masks.kept, masks.total) == (20, 200)
    assert masks == sf.prune(net, "synflow", 10, keep="2.weight")
    cut = sf.prune(net, "synflow", 100, keep=["2"], schedule="cut")
    assert cut.table()["kept"].tolist() == [1, 1]


# ------------------------------------------------------------------------------ deterministic


@pytest.mark.parametrize("method", METHODS)
def test_same_model_batch_and_seed_same_masks(method):
    net = narrow_vgg16()
    net.insert(3, nn.Dropout2d(0.3))
    batch = images(net)
    net.train()
    first = sf.prune(net, method, 20, batch, iterations=3, seed=5)
    torch.rand(7)
    random.random()
    assert sf.prune(net, method, 20, batch, iterations=3, seed=5) == first


def test_the_seed_decides_random_scores_and_dropout():
    net = narrow_vgg16()
    net.insert(3, nn.Dropout2d(0.3))
    batch = images(net)
    for method in ("random", "snip", "grasp"):
        masks = [sf.prune(net, method, 20, batch, seed=seed) for seed in (0, 1)]
        assert masks[0] != masks[1]


def test_a_scorer_that_draws_numbers_is_fixed_by_the_seed():
    net = mlp(6, 6, 6)

    def draw(model, batch):
        return {
            name: torch.rand(p.shape) + random.random() * torch.from_numpy(np.random.rand(*p.shape))  # noqa: NPY002
            for name, p in model.named_parameters()
        }

    first = sf.prune(net, draw, 10, seed=1)
    random.random(), np.random.rand(3), torch.rand(2)  # noqa: NPY002
    assert sf.prune(net, draw, 10, seed=1) == first
    assert sf.prune(net, draw, 10, seed=2) != first


@contextlib.contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
def test_masks_do_not_depend_on_the_number_of_threads(method, dtype):
    """Every count at once: the whole order of one score, not a few thresholds."""
    net = sf.models.fc(seed=0).to(dtype)
    batch = images(net, 40)
    paths = []
    for number in (1, 2):
        with threads(number):
            paths.append(sf.trajectory(net, method, batch, iterations=1))
    one, two = (path.score.argsort(descending=True, stable=True) for path in paths)
    # The k largest are the same set exactly if the largest place so far is k - 1.
    rank = torch.empty_like(one)
    rank[one] = torch.arange(len(one))
    differ = int((rank[two].cummax(0).values != torch.arange(len(one))).sum())
    assert differ == 0, f"at {differ} of {len(one)} counts the masks differ"


def test_iterations_of_a_resnet_do_not_depend_on_the_number_of_threads():
    net, masks = sf.models.resnet20(seed=0), []
    for number in (1, 2):
        with threads(number):
            masks.append(sf.prune(net, "synflow", 100, iterations=4))
    assert masks[0] == masks[1]


# ------------------------------------------------------------------------------ nothing changes


def lively():
    """A network in which everything that could be touched is set to something unusual."""
    net = narrow_vgg16(width=2)
    net.insert(3, nn.Dropout(0.5))
    net.train()
    net[1].eval()  # modes per module
    net[0].weight.requires_grad_(False)
    for number, parameter in enumerate(net.parameters()):
        if number % 2 and parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, float(number))
    net[4].register_forward_hook(lambda *_: None)
    net[0].weight.requires_grad_(True).register_hook(lambda g: g)
    net[0].weight.requires_grad_(False)
    return net


CALLS = {
    "score": lambda net, method, batch: sf.score(net, method, batch),
    "prune": lambda net, method, batch: sf.prune(net, method, 20, batch, iterations=2),
    "local": lambda net, method, batch: sf.prune(net, method, 20, batch, scope="local"),
    "trajectory": lambda net, method, batch: sf.trajectory(net, method, batch, iterations=1),
    "layer": lambda net, method, batch: sf.critical_compression(
        net, method, "layer", batch, iterations=1
    ),
    "path": lambda net, method, batch: sf.critical_compression(
        net, method, "path", batch, iterations=1
    ),
    "conservation": lambda net, method, batch: sf.check_conservation(
        net, sf.score(net, method, batch)
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_the_model_changes(call, method):
    net = lively()
    with unchanged(net):
        CALLS[call](net, method, images(net))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "synflow"])
def test_a_loader_that_shuffles_leaves_no_trace(method):
    net = lively()
    data = torch.utils.data.TensorDataset(*images(net, 12))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    with unchanged(net):
        sf.score(net, method, loader)
        sf.prune(net, method, 10, loader)
        sf.critical_compression(net, method, "layer", loader)
        sf.critical_compression(net, method, "path", loader, iterations=2, resolution=100)


def test_nothing_changes_by_the_other_functions():
    net = lively()
    masks = sf.prune(net, "synflow", 20)
    with unchanged(net):
        sf.trajectory(net)
        sf.prune(net, "synflow", 20, schedule="cut")
        sf.critical_compression(net, "synflow", "path")
        sf.critical_compression(net, "snip", "layer", images(net), iterations=3, resolution=10)
        sf.max_compression(net, "path")
        sf.is_collapsed(net, masks, "path")
        sf.effective_compression(net, masks)
        sf.PathProbe(net).on_path(masks)
        for level in ("unit", "layer", "cut"):
            sf.check_conservation(net, sf.score(net, "synflow"), level)
        sf.Masks.from_model(net)
        sf.Masks.ones(net)
        sf.prunable(net)


class Stop(Exception):
    pass


def test_nothing_changes_when_a_scorer_raises_midway():
    net = lively()
    calls = []

    def fails(model, batch):
        calls.append(1)
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        model.train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
                parameter.requires_grad_(not parameter.requires_grad)
        model(batch[0])
        if len(calls) == 3:
            raise Stop
        return {name: torch.rand_like(p) for name, p in model.named_parameters()}

    batch = images(net)
    for call in (
        lambda: sf.prune(net, fails, 30, batch, iterations=5),
        lambda: sf.trajectory(net, fails, batch, iterations=5),
        lambda: sf.critical_compression(net, fails, "layer", batch, iterations=5),
    ):
        calls.clear()
        with unchanged(net), pytest.raises(Stop):
            call()
        assert len(calls) == 3


def test_nothing_changes_when_the_loss_raises_midway():
    net, calls = lively(), []
    batch = images(net)

    def loss(output, y):
        calls.append(1)
        torch.rand(1)
        if len(calls) == 2:
            raise Stop
        return output.sum()

    for method in ("snip", "grasp", "signed_snip"):
        calls.clear()
        with unchanged(net), pytest.raises(Stop):
            sf.score(net, method, [batch, batch], loss=loss)


def test_nothing_changes_when_the_data_or_the_scores_are_bad():
    net = lively()
    x, y = images(net)
    with unchanged(net):
        with pytest.raises(ValueError, match="labels"):
            sf.prune(net, "snip", 10, (x, y + 50))
        with pytest.raises(ValueError, match="cannot run"):
            sf.prune(net, "snip", 10, (x[:, :2], y))
        with pytest.raises(ValueError, match="NaN"):
            sf.prune(net, lambda m, b: {n: p * torch.nan for n, p in m.named_parameters()}, 10)


class Restless(nn.Module):
    """Counts its calls in a buffer and in an attribute, and draws random numbers as it runs."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.count = 0

    def forward(self, x):
        self.calls += 1
        self.count += 1
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        return self.out(self.fc(x))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_side_effects_has_none(method):
    net = Restless()
    batch = torch.randn(5, 4), torch.arange(5) % 3
    with unchanged(net):
        sf.prune(net, method, 4, batch)
        sf.critical_compression(net, method, "path", batch)
        sf.check_conservation(net, sf.score(net, method, batch))
        sf.is_collapsed(net, sf.Masks.ones(net), "path")
    assert net.count == 0


def test_the_batch_is_not_changed():
    net = narrow_vgg16()
    x, y = images(net)
    before = x.clone(), y.clone()
    for method in METHODS:
        sf.prune(net, method, 5, (x, y))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
    assert not x.requires_grad


def test_frozen_models_and_models_without_gradients_score_the_same():
    net = narrow_vgg16()
    batch = images(net)
    expected = {method: sf.prune(net, method, 20, batch) for method in METHODS}
    net.requires_grad_(False)
    for method in METHODS:
        with unchanged(net):
            assert sf.prune(net, method, 20, batch) == expected[method]


def test_masks_do_not_share_memory_with_the_run_or_the_model():
    net = mlp(4, 4, 4)
    masks = sf.prune(net, "magnitude", 2)
    copy = sf.Masks({name: mask.clone() for name, mask in masks.items()})
    masks["0.weight"].fill_(False)
    assert sf.prune(net, "magnitude", 2) == copy


def test_quiet_when_asked(capfd, monkeypatch):
    net, bar = mlp(4, 4, 4), loop.tqdm
    monkeypatch.setattr(loop, "tqdm", lambda *a, **k: bar(*a, **k | {"delay": 0}))
    sf.prune(net, "synflow", 16, progress=False)
    sf.prune(net, "synflow", 16)  # no terminal here
    out, err = capfd.readouterr()
    assert out == err == ""
    sf.prune(net, "synflow", 16, progress=True)
    assert "pruning" in capfd.readouterr().err


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("compression", "error", "message"),
    [
        (0.99, ValueError, r"compression=0.99; expected 1 <= compression <= N = 20.*density d"),
        (0, ValueError, "compression=0; expected 1"),
        (-3, ValueError, "compression=-3; expected 1"),
        (math.nan, ValueError, "compression=nan; expected 1"),
        (math.inf, ValueError, "compression=inf; expected 1 <= compression <= N = 20"),
        (torch.tensor(2.0, device="meta"), ValueError, "expected 1 <= compression <= N = 20"),
        (20.001, ValueError, "compression=20.001; expected 1 <= compression <= N = 20"),
        (None, TypeError, "compression=None; expected a number"),
        ("many", TypeError, "compression='many'; expected a number"),
        ([2], TypeError, r"compression=\[2\]; expected a number"),
    ],
)
def test_unfit_compression(compression, error, message):
    net = mlp(3, 4, 2)
    with pytest.raises(error, match=message):
        sf.prune(net, "magnitude", compression)
    if compression is not None:
        with pytest.raises(error, match=message):
            sf.trajectory(net, "magnitude", compression=compression)
    with pytest.raises(error, match=message):
        sf.trajectory(net, "magnitude").at(compression)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iterations": 0}, ValueError, "iterations=0; expected a whole number from 1"),
        ({"iterations": 2.5}, ValueError, "iterations=2.5; expected a whole number"),
        ({"iterations": True}, ValueError, "iterations=True; expected a whole number"),
        ({"schedule": "cubic"}, ValueError, r"'cubic'; expected one of.*'linear', 'cut'"),
        ({"schedule": 3}, TypeError, "schedule is a int; expected a name or a function"),
        ({"schedule": lambda t, n, d: t / n}, ValueError, r"densities \[0.01, 0.02.*never rise"),
        ({"schedule": lambda t, n, d: 0.0}, ValueError, r"expected numbers in \(0, 1\]"),
        ({"schedule": lambda t, n, d: math.nan}, ValueError, r"densities \[nan"),
        ({"schedule": lambda t, n, d: 2 - t / n}, ValueError, r"densities \[1.99"),
        ({"scope": "layer"}, ValueError, "scope='layer'; expected 'global' or 'local'"),
        ({"schedule": "cut", "iterations": 3}, ValueError, "'cut' finds its own number of iter"),
        ({"schedule": "cut", "scope": "local"}, ValueError, "'cut' finds its own"),
        ({"keep": ["9"]}, ValueError, r"keep=\['9'\] names no layer"),
        ({"keep": ["0", "1"]}, ValueError, "no prunable layer"),
        ({"mode": "test"}, ValueError, "mode='test'"),
    ],
)  # fmt: skip
def test_unfit_options(options, error, message):
    with pytest.raises(error, match=message):
        sf.prune(mlp(3, 4, 2), "synflow", 2, **options)


def test_further_than_the_cut_schedule_goes_says_where_it_ended():
    with pytest.raises(ValueError, match=r"1 weights.*compression 20.*ended at compression 10"):
        sf.prune(mlp(3, 4, 2), "synflow", 20, schedule="cut")


def test_unknown_methods_and_unfit_models():
    with pytest.raises(ValueError, match=r"unknown method 'synFlow'; expected one of.*'synflow'"):
        sf.prune(mlp(3, 2), "synFlow", 2)
    with pytest.raises(ValueError, match="ReLU has no prunable layer"):
        sf.prune(nn.ReLU(), "magnitude", 2)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got dict"):
        sf.prune({}, "magnitude", 2)


def test_a_network_with_two_inputs_takes_two_shapes():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x, y):
            return self.fc(x + y)

    with pytest.raises(ValueError, match="another input, 'y'.*a shape for each"):
        sf.prune(Two(), "synflow", 2)
    assert sf.prune(Two(), "synflow", 2, input_shape=((3,), (3,))).kept == 3


# ------------------------------------------------------------------------------ never silent


def stochastic_depth():
    """Branches that are dropped at random in train mode, as a function that reads the mode."""

    class Net(nn.Module):
        input_shape = (6,)

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(6, n, bias=False) for n in (6, 6, 3))

        def forward(self, x):
            x = self.a(x).relu()
            branch = self.b(x).relu()
            if self.training:
                branch = branch * 0
            return self.c(x + nn.functional.dropout(branch, 0.9, self.training))

    return seeded(Net)


@pytest.mark.parametrize("method", ["synflow", "snip", "grasp", "magnitude"])
def test_masks_depend_neither_on_the_mode_of_the_model_nor_on_autocast(method):
    net = stochastic_depth().float()
    batch = images(net, 12)
    options = {"mode": "eval"} if method in ("snip", "grasp") else {}
    expected = sf.prune(net.eval(), method, 4, batch, **options)
    if method in ("synflow", "magnitude"):
        assert sf.prune(net.train(), method, 4, batch) == expected
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert sf.prune(net.eval(), method, 4, batch, **options) == expected
            found = sf.score(net, method, batch, **options)
        for name, scores in sf.score(net, method, batch, **options).items():
            assert torch.equal(found[name], scores)


@pytest.mark.parametrize("base", [0, 2**24, 2**40, 2**50])
@pytest.mark.parametrize("size", [12, 70_000])
def test_integer_scores_are_compared_exactly(base, size):
    """Neither through float32 nor as equal because they are near; also where sampling runs."""
    net = mlp(size, 1, dtype=torch.float32)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))

    def ranks(model, batch):
        return {"0.weight": (order + base).view(1, -1)}

    masks = sf.prune(net, ranks, 4)
    assert torch.equal(masks["0.weight"].flatten(), order >= size - masks.kept)
    assert sf.trajectory(net, ranks).at(4) == masks
    assert torch.equal(sf.score(net, ranks)["0.weight"].flatten(), order + base)


def test_integers_that_float64_cannot_tell_apart_are_refused():
    def large(model, batch):
        return {"0.weight": torch.tensor([[2**53, 2**53 + 1]])}

    with pytest.raises(ValueError, match=r"beyond 2\*\*53"):
        sf.prune(mlp(2, 1), large, 2)


def test_scores_of_a_function_come_detached_in_forward_order_without_extras():
    net = mlp(3, 4, 2)

    def scorer(model, batch):
        weights = dict(model.named_parameters())
        return {"1.weight": weights["1.weight"] * 2, "more": torch.ones(1),
                "0.weight": weights["0.weight"] * 3}  # fmt: skip

    found = sf.score(net, scorer)
    assert list(found) == ["0.weight", "1.weight"]
    assert not any(scores.requires_grad for scores in found.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_what_was_pruned_before_stays_pruned(method, schedule):
    """Pruning a pruned network again: what is kept was alive, and the count is of it."""
    net = mlp(8, 16, 4)
    batch = images(net, 6)
    sf.prune(net, "random", 1.5).apply_(net)
    for compression in (1.6, 3.0, 40.0):
        masks = sf.prune(net, method, compression, batch, iterations=2, schedule=schedule, seed=5)
        assert masks.kept == round(192 / compression)
        for name, mask in masks.items():
            assert not (mask & (net.get_parameter(name) == 0)).any()
    path = sf.trajectory(net, method, batch, seed=5)
    assert path.counts[1] == 128
    assert not any((m & (net.get_parameter(n) == 0)).any() for n, m in path.keeping(128).items())
    with pytest.warns(UserWarning, match="128 of the 192 weights are not zero and 160"):
        masks = sf.prune(net, method, 1.2, batch, seed=5)
    assert masks.kept == 160


def test_a_layer_that_has_to_keep_zeros_is_named():
    net = mlp(8, 16, 4)
    with torch.no_grad():
        net[0].weight[:12] = 0
    with pytest.warns(UserWarning, match="32 of the 128 weights of 0.weight .* and 64 are to"):
        masks = sf.prune(net, "magnitude", 2, scope="local")
    assert masks.kept == 96
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sf.prune(net, "magnitude", 2)
        sf.prune(net, "magnitude", 4, scope="local")


def test_layers_without_a_score_are_named():
    net = narrow_resnet()
    with pytest.warns(UserWarning) as none:
        import warnings

        warnings.warn("nothing else", UserWarning, stacklevel=1)
        sf.prune(net, "synflow", 4)
    assert len(none) == 1
    net = mlp(4, 5, 3)
    with torch.no_grad():  # no path is left
        net[0].weight[1:] = 0
        net[-1].weight[:, 0] = 0
    for call in (lambda: sf.prune(net, "synflow", 4), lambda: sf.score(net, "synflow")):
        with pytest.warns(
            UserWarning, match=r"every score of \['0.weight', .*\] is zero"
        ) as caught:
            call()
        assert caught[0].filename == __file__


def test_a_negative_synflow_score_is_refused():
    class Minus(SynFlow):
        """As if an operation that the library does not know turned the sign."""

        def flat(self):
            return -super().flat()

    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    for call in (sf.score, lambda net, method: sf.prune(net, method, 2)):
        with pytest.raises(ValueError, match=r"negative scores in \['0.weight', '1.weight'\]"):
            call(net, Minus)


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint16, torch.tensor])
def test_numbers_of_numpy_and_torch(kind):
    net = mlp(4, 5, 3)
    expected = sf.prune(net, "random", 4, iterations=3, seed=3)
    assert sf.prune(net, "random", kind(4), iterations=kind(3), seed=kind(3)) == expected
    for bad in (3.5, True, np.True_, torch.tensor(True), "3", None):
        with pytest.raises(ValueError, match="whole number"):
            sf.prune(net, "random", 4, iterations=2, seed=bad)
        if bad is not None:
            with pytest.raises(ValueError, match="iterations=.* expected a whole number from 1"):
                sf.prune(net, "random", 4, iterations=bad)


def test_more_iterations_than_sixteen_bits_count():
    """As after 39,999 iterations that removed one weight each, and then one more."""
    total = 40_002
    record = Record(total, torch.zeros(total, dtype=torch.float64))
    record.counts = list(range(total, 2, -1))
    record.rows = [(0, 0, 0.0, 0.0, 0.0, 0.0)] * 39_999
    record.iteration.copy_(torch.arange(total).clamp(max=39_999))
    alive = record.iteration == 39_999
    stay = alive & (torch.arange(total) != 40_000)
    record.add(torch.ones(total, dtype=torch.float64), alive, stay, 2)
    path = record.finished({"weight": torch.Size([total])})
    for kept in (40_001, 3, 2):
        assert path.keeping(kept).kept == kept
    assert path.keeping(2)["weight"].nonzero().flatten().tolist() == [39_999, 40_001]


def test_float64_is_the_default_and_a_loss_in_float32_says_what_to_do():
    net = mlp(4, 5, 3, dtype=torch.float32)
    batch = images(net, 6)
    weights = torch.tensor([1.0, 2.0, 3.0])
    as_module = sf.score(net, "snip", batch, loss=nn.CrossEntropyLoss(weight=weights))
    assert as_module["0.weight"].dtype == torch.float64

    def loss(output, y):
        return nn.functional.cross_entropy(output, y, weight=weights)

    with pytest.raises(ValueError, match="pass dtype=torch.float32"):
        sf.score(net, "snip", batch, loss=loss)
    single = sf.score(net, "snip", batch, loss=loss, dtype=torch.float32)
    torch.testing.assert_close(single["0.weight"].double(), as_module["0.weight"])
    with pytest.raises(ValueError, match="dtype=torch.int32; expected"):
        sf.prune(net, "synflow", 2, dtype=torch.int32)


@pytest.mark.parametrize("flag", [True, False, np.True_, torch.tensor(True)])
def test_a_bool_is_no_compression(flag):
    net = mlp(4, 5, 3)
    for call in (
        lambda: sf.prune(net, "magnitude", flag),
        lambda: sf.trajectory(net, "magnitude").at(flag),
        lambda: sf.trajectory(net, "magnitude", compression=flag),
    ):
        with pytest.raises(ValueError, match="compression=.*is a bool"):
            call()


# ------------------------------------------------------------------------------ zero scores


def only_first_rows(model, batch):
    """Scores of which those of the first two outputs of each layer are not zero."""
    return {
        name: weight.detach().abs() * (torch.arange(len(weight))[:, None] < 2)
        for name, weight in sf.prunable(model).items()
    }


def zero_warnings(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(c.message) for c in caught]


def test_zero_scores_of_which_position_keeps_some_are_named_by_local_scope():
    net = mlp(5, 4, 6)  # 10 of 20 and 8 of 24 weights score
    expect = r"only_first_rows: (\d+) weights that stay in (.*) scored zero.*first positions stay"
    for compression, found in ((1, []), (1.5, [(11, "0, 1")]), (2.2, [(3, "1")]), (4, [])):
        said = zero_warnings(lambda c=compression: sf.prune(net, only_first_rows, c, scope="local"))
        kept = {"0": max(0, round(20 / compression) - 10), "1": max(0, round(24 / compression) - 8)}
        assert len(said) == len(found)
        for (number, layers), text in zip(found, said, strict=True):
            names = [f"{layer}.weight" for layer in layers.split(", ")]
            assert re.match(expect, text).groups() == (str(number), str(names))
            assert number == sum(kept.values())


def test_zero_scores_of_which_position_keeps_some_are_named_on_a_trajectory():
    net = mlp(5, 4, 6)  # 18 of 44 weights score
    path = sf.trajectory(net, only_first_rows)
    several = sf.trajectory(net, only_first_rows, iterations=3, compression=4)
    for kept, found in ((44, 0), (30, 1), (19, 1), (18, 0), (11, 0)):
        for call in (
            lambda k=kept: path.at(44 / k),
            lambda k=kept: path.keeping(k),
            lambda k=kept: several.keeping(k),
            lambda k=kept: sf.prune(net, only_first_rows, 44 / k),
            lambda k=kept: sf.prune(net, only_first_rows, 44 / k, iterations=3),
        ):
            said = zero_warnings(call)
            assert len(said) == found, (kept, said)
            assert all(f": {kept - 18} weights that stay in ['0.weight'" in s for s in said)
    assert not zero_warnings(lambda: path.keeping(30, quiet=True))
    assert not zero_warnings(lambda: sf.critical_compression(net, only_first_rows, "path"))


def test_the_cut_schedule_names_zero_scores_once_and_at_the_callers_line():
    net = mlp(6, 8, 4)
    with torch.no_grad():
        net[0].weight[3:].zero_()  # pruned before; what they feed scores zero
    count = sum(int((p != 0).sum()) for p in net.parameters())
    with pytest.warns(UserWarning, match=r"SynFlow: 4 weights that stay in \['1.weight'\]") as said:
        masks = sf.prune(net, "synflow", 80 / (count - 16), schedule="cut")
    assert masks.kept == count - 16 and len(said) == 1 and said[0].filename == __file__


def test_zero_up_to_rounding_counts_for_scores_on_data_only():
    """An input that is always zero, and one so small that its scores are rounding."""
    net = mlp(6, 8, 4)
    x, y = images(net, 10)
    x[:, 0], x[:, 3] = 0.0, 1e-18
    said = zero_warnings(lambda: sf.prune(net, "snip", 1.25, (x, y), scope="local"))
    assert len(said) == 1 and "0.weight" in said[0], said
    # GraSP's scores have signs: what is below zero goes first, and zero is a value like any other.
    assert not zero_warnings(lambda: sf.prune(net, "grasp", 1.25, (x, y), scope="local"))

    def tiny(model, batch):  # a function's own scores are what they are
        return {n: torch.where(p > 0, 1.0, 1e-18) for n, p in sf.prunable(model).items()}

    assert not zero_warnings(lambda: sf.prune(net, tiny, 1.25, scope="local"))


def test_zero_scores_are_not_named_twice():
    """A layer that starts at zero, one that scores nothing, and weights pruned before."""
    net = mlp(4, 5, 3)
    nn.init.zeros_(net[-1].weight)
    for method, count in (("synflow", 1), ("magnitude", 1)):
        said = zero_warnings(lambda m=method: sf.prune(net, m, 1.5))
        assert len(said) == count and not any("scored zero" in text for text in said)
    net = mlp(8, 16, 4)
    sf.prune(net, "random", 1.5).apply_(net)
    for scope in ("global", "local"):
        said = zero_warnings(lambda s=scope: sf.prune(net, "magnitude", 1.2, scope=s))
        assert len(said) == 1 and "are to stay" in said[0]


@pytest.mark.parametrize("seed", range(6))
def test_local_scope_goes_on_where_dead_units_are_left_out(seed):
    torch.manual_seed(seed)
    body = nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(*body, nn.Linear(2, 2))
    net.input_shape = (1, 4, 4)
    for iterations in (2, 3):
        masks = sf.prune(net, "synflow", 5, scope="local", iterations=iterations)
        assert masks.table()["kept"].tolist() == [1, 1]
