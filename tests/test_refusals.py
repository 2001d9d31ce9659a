"""Nothing about a network is silently wrong: the right answer, a warning, or a refusal by name.

Oracles are written out for each network: R is a sum over paths of |W| and of constant factors.
"""

import copy
import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import mlp, seeded, unchanged
from torch import nn
from torch.nn.utils import prune as torch_prune

import synflow_lib as sf
from synflow_lib.graphs import network
from synflow_lib.graphs.follow import wiring
from synflow_lib.graphs.operations import Operations
from synflow_lib.graphs.pools import window_sum

ONES = torch.ones(1, 4, dtype=torch.float64)


def a(layer):
    """|W|, transposed: what a row of non-negative numbers is multiplied with."""
    return layer.weight.detach().abs().flatten(1).T


class Between(nn.Module):
    """Two layers and an operation in between; ``extra`` holds what the operation needs."""

    input_shape = (4,)

    def __init__(self, operation, wide=4, **extra):
        super().__init__()
        self.i, self.o = nn.Linear(4, 4), nn.Linear(wide, 3)
        self.operation = operation
        for name, value in extra.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, torch.Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.o(self.operation(self, self.i(x)))


def between(operation, wide, extras):
    """`Between` with random layers and the extras' own numbers."""
    net = seeded(lambda: Between(operation, wide, **copy.deepcopy(extras)))
    for name, value in extras.items():
        if isinstance(value, nn.Module):
            getattr(net, name).load_state_dict(value.state_dict())
        elif isinstance(value, torch.Tensor):
            getattr(net, name).data.copy_(value)
    return net


def total(net):
    """R, as the score of the last layer adds up to it."""
    scores = sf.score(net, "synflow")
    assert all(bool((part >= 0).all()) for part in scores.values())
    return float(scores["o.weight"].detach().double().sum()) * 2.0**scores.log2_scale


def expected(net, middle):
    return float((middle(ONES @ a(net.i)) @ a(net.o)).sum())


P = nn.Parameter
SCALE = torch.tensor([-2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
GATE = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
RIGHT = {  # name: (operation, extras, width, what it does to a row of path sums)
    "layer_norm": (lambda s, x: F.layer_norm(x, (4,)), {}, 4, lambda h: h),
    "layer_norm, scaled": (
        lambda s, x: F.layer_norm(x, (4,), s.g, s.b),
        {"g": P(SCALE), "b": P(SCALE)},
        4,
        lambda h: h * SCALE.abs(),
    ),
    "group_norm": (
        lambda s, x: F.group_norm(x, 2, s.g),
        {"g": P(SCALE)},
        4,
        lambda h: h * SCALE.abs(),
    ),
    "batch_norm": (
        lambda s, x: F.batch_norm(x, s.m, s.v),
        {"m": SCALE, "v": SCALE**2},
        4,
        lambda h: h / torch.sqrt(SCALE**2 + 1e-5),
    ),
    "torch.batch_norm, whose arguments stand in another order": (
        lambda s, x: torch.batch_norm(x, s.g, s.b, s.m, s.v, False, 0.1, 1e-3, False),
        {"g": P(SCALE), "b": P(SCALE), "m": SCALE, "v": SCALE**2},
        4,
        lambda h: h * SCALE.abs() / torch.sqrt(SCALE**2 + 1e-3),
    ),
    "batch_norm, all by name": (
        lambda s, x: F.batch_norm(
            x, running_mean=s.m, running_var=s.v, weight=s.g, bias=s.b, eps=1e-3
        ),
        {"g": P(SCALE), "b": P(SCALE), "m": SCALE, "v": SCALE**2},
        4,
        lambda h: h * SCALE.abs() / torch.sqrt(SCALE**2 + 1e-3),
    ),
    "torch.instance_norm": (
        lambda s, x: torch.instance_norm(
            x[:, :, None], s.g, s.b, s.m, s.v, False, 0.1, 1e-3, False
        )[:, :, 0],
        {"g": P(SCALE), "b": P(SCALE), "m": SCALE, "v": SCALE**2},
        4,
        lambda h: h * SCALE.abs() / torch.sqrt(SCALE**2 + 1e-3),
    ),
    "instance_norm, module": (
        lambda s, x: s.n(x[:, :, None])[:, :, 0],
        {"n": nn.InstanceNorm1d(4, track_running_stats=True)},
        4,
        lambda h: h / (1 + 1e-5) ** 0.5,
    ),
    "crelu": (
        lambda s, x: torch.cat([F.relu(x), F.relu(-x)], 1),
        {},
        8,
        lambda h: torch.cat([h, h], 1),
    ),
    "negated sum": (lambda s, x: x - F.relu(x), {}, 4, lambda h: 2 * h),
    "an activation that is a function alone": (lambda s, x: torch.erf(x), {}, 4, lambda h: h),
    "activations that torch calls otherwise": (
        lambda s, x: F.logsigmoid(F.threshold(x, 0.1, 2.0)),
        {},
        4,
        lambda h: h,
    ),
    "reversed": (lambda s, x: 1.0 - x, {}, 4, lambda h: h),
    "sum, by name": (lambda s, x: torch.add(x, other=F.relu(x)), {}, 4, lambda h: 2 * h),
    "constant and sum, by name": (
        lambda s, x: torch.add(s.g, other=x),
        {"g": GATE},
        4,
        lambda h: h,
    ),
    "factor, by name": (lambda s, x: x.mul(other=s.g), {"g": GATE}, 4, lambda h: h * GATE),
    "constant factor": (lambda s, x: -3 * x / -2, {}, 4, lambda h: 1.5 * h),
    "frozen batch norm": (
        lambda s, x: x * (s.g * s.v.rsqrt()) + (s.g - s.v),
        {"g": SCALE, "v": SCALE**2},
        4,
        lambda h: h,
    ),
    "softmax of a parameter": (
        lambda s, x: F.softmax(s.p, 0) * x,
        {"p": P(SCALE)},
        4,
        lambda h: h * SCALE.softmax(0),
    ),
    "tanh of a parameter": (
        lambda s, x: x * torch.tanh(s.p),
        {"p": P(SCALE)},
        4,
        lambda h: h * SCALE.tanh().abs(),
    ),
    "constant of forward": (lambda s, x: x * (s.g > 0), {"g": GATE}, 4, lambda h: h * GATE),
    "tensor made in forward": (
        lambda s, x: x * torch.tensor([1.0, 0, 2, 1]),
        {},
        4,
        lambda h: h * torch.tensor([1.0, 0, 2, 1]),
    ),
    "position": (lambda s, x: x + s.p, {"p": P(SCALE)}, 4, lambda h: h),
    "position, two tokens": (
        lambda s, x: (x[:, None] + s.p).sum(1),
        {"p": P(torch.ones(2, 4, dtype=torch.float64))},
        4,
        lambda h: 2 * h,
    ),
    "class token": (
        lambda s, x: torch.cat([s.p.expand(x.shape[0], -1), x], 1),
        {"p": P(torch.ones(1, 4, dtype=torch.float64))},
        8,
        lambda h: torch.cat([torch.ones_like(h), h], 1),
    ),
    "masked": (lambda s, x: x.masked_fill(s.g == 0, -1e9), {"g": GATE}, 4, lambda h: h * GATE),
    "masked, infinite": (
        lambda s, x: torch.where(s.g > 0, x, float("-inf")),
        {"g": GATE},
        4,
        lambda h: h * GATE,
    ),
    "clamp": (lambda s, x: x.clamp(0, 0.01), {}, 4, lambda h: h),
    "addmm": (
        lambda s, x: torch.addmm(s.p, x, s.w),
        {"p": P(SCALE), "w": P(SCALE.diag())},
        4,
        lambda h: h * SCALE.abs(),
    ),
    "matmul": (lambda s, x: x @ s.w, {"w": P(SCALE.diag())}, 4, lambda h: h * SCALE.abs()),
    "einsum": (
        lambda s, x: torch.einsum("bi,ij->bj", x, s.w),
        {"w": P(SCALE.diag())},
        4,
        lambda h: h * SCALE.abs(),
    ),
    "linear, bias": (
        lambda s, x: F.linear(x, s.w, s.p),
        {"w": P(SCALE.diag()), "p": P(SCALE)},
        4,
        lambda h: h * SCALE.abs(),
    ),
    "local response norm": (
        lambda s, x: s.n(x[:, :, None])[:, :, 0],
        {"n": nn.LocalResponseNorm(2)},
        4,
        lambda h: h,
    ),
    "in place": (lambda s, x: x.mul_(2.0).add_(1.0).relu_(), {}, 4, lambda h: 2 * h),
    "padded with ones": (
        lambda s, x: F.pad(x, (0, 2), value=1.0),
        {},
        6,
        lambda h: F.pad(h, (0, 2)),
    ),
    "interpolated": (
        lambda s, x: F.interpolate(x[:, None], scale_factor=2)[:, 0],
        {},
        8,
        lambda h: h.repeat_interleave(2, 1),
    ),
    "largest": (lambda s, x: x.view(-1, 2, 2).amax(2), {}, 2, lambda h: h.view(-1, 2, 2).amax(2)),
    "largest, by name": (
        lambda s, x: x.view(-1, 2, 2).max(dim=2).values,
        {},
        2,
        lambda h: h.view(-1, 2, 2).amax(2),
    ),
    "largest, of torch itself": (
        lambda s, x: torch.adaptive_max_pool1d(x[:, None], 2)[0][:, 0],
        {},
        2,
        lambda h: h.view(-1, 2, 2).amax(2),
    ),
    "drawn for training only": (
        lambda s, x: (x, torch.rand(4), torch.rand_like(x))[0],
        {},
        4,
        lambda h: h,
    ),
    "windows in the graph of torch.export": (
        lambda s, x: x.unfold(1, 2, 2).sum(2) if x.dim() == 2 else x,
        {},
        2,
        lambda h: h.view(-1, 2, 2).sum(2),
    ),
    "an activation that torch.export writes as a difference": (
        lambda s, x: F.tanhshrink(x) if x.dim() == 2 else x,
        {},
        4,
        lambda h: h,
    ),
    "dropout of channels in the graph of torch.export": (
        lambda s, x: F.dropout1d(x[..., None], 0.5, False)[..., 0] if x.dim() == 2 else x,
        {},
        4,
        lambda h: h,
    ),
    "opened by yes or no, in float64": (lambda s, x: x * (x > 0).double(), {}, 4, lambda h: h),
    "without what is no number": (lambda s, x: torch.nan_to_num(x), {}, 4, lambda h: h),
    "chunks": (
        lambda s, x: x.chunk(2, 1)[0] + x.chunk(2, 1)[1],
        {},
        2,
        lambda h: h[:, :2] + h[:, 2:],
    ),
    "ratio": (lambda s, x: x / x.sum(), {}, 4, lambda h: h),
    "default argument": (lambda s, x, t=None: x if t is None else t, {}, 4, lambda h: h),
    "own leaky relu": (lambda s, x: torch.where(x > 0, x, 0.1 * x), {}, 4, lambda h: h),
    "own PReLU": (lambda s, x: torch.where(x < 0, s.p * x, x), {"p": P(SCALE)}, 4, lambda h: h),
    "own leaky relu, as a method": (lambda s, x: x.where(x >= 0, x / 5), {}, 4, lambda h: h),
    "own relu, scaled": (
        lambda s, x: torch.where(x > 0, 2 * x, torch.zeros_like(x)),
        {},
        4,
        lambda h: 2 * h,
    ),
    "own relu with thresholds for several": (
        lambda s, x: (lambda first: torch.where(first > s.p, first, 0.0))(x[:, :1]),
        {"p": P(SCALE)},
        4,
        lambda h: h[:, :1].expand(-1, 4),
    ),
    "own soft threshold": (lambda s, x: torch.where(x.abs() > 0.5, x, 0), {}, 4, lambda h: h),
}


@pytest.mark.filterwarnings("ignore:compression counts")
@pytest.mark.parametrize("name", RIGHT)
def test_operations_that_are_understood(name):
    operation, extras, wide, middle = RIGHT[name]
    net = between(operation, wide, extras)
    with unchanged(net):
        assert total(net) == pytest.approx(expected(net, middle), rel=1e-6)
    dense = sf.Masks.ones(net)
    assert not sf.is_collapsed(net, dense, "path")
    dense["i.weight"].fill_(False)
    assert sf.is_collapsed(net, dense, "path")  # no constant stands for the input
    assert sf.effective_compression(net, dense) == float("inf")


def test_a_layer_that_is_called_on_a_constant_too_has_no_bias():
    """As a recurrent layer, unrolled by hand, that begins with zeros."""
    extras = {"m": nn.Linear(4, 4), "n": nn.LayerNorm(4), "g": GATE}
    net = between(lambda s, x: s.n(s.m(x)) + s.n(s.m(s.g)), 4, extras)
    net.n.weight.data.copy_(SCALE)
    wanted = expected(net, lambda h: h @ a(net.m) * SCALE.abs())
    assert total(net) == pytest.approx(wanted, rel=1e-6)


def test_an_input_of_another_kind_is_named():
    class Named(Between):
        def forward(self, batch):
            return self.o(batch["x"])

    net = Named(None)
    masks = sf.Masks.ones(net)
    for ask in (lambda: sf.score(net, "synflow"), lambda: sf.is_collapsed(net, masks, "path")):
        with pytest.raises(ValueError, match=r"cannot run on an input of shape \(1, 4\)"):
            ask()


@pytest.mark.parametrize("operation", [
    lambda x, like: x @ torch.ones(4, 4, dtype=like),
    lambda x, like: (
        torch.baddbmm(torch.zeros(1, 4, 4, dtype=like), x[:, :, None], x[:, None]).softmax(-1)
        @ x[:, :, None]
    )[:, :, 0],
])  # fmt: skip
def test_what_the_forward_makes_may_be_of_another_type(operation):
    wanted = total(between(lambda s, x: operation(x, torch.float64), 4, {}))
    net = between(lambda s, x: operation(x, torch.float32), 4, {}).float()
    assert total(net) == pytest.approx(wanted, rel=1e-6)
    assert sf.effective_compression(net, sf.Masks.ones(net)) == 1


@pytest.mark.parametrize("layer", ["s.m(zeros)", "F.linear(zeros, s.m.weight)"])
def test_a_recurrent_layer_by_hand_may_begin_with_zeros_of_any_type(layer):
    """As ``h = torch.zeros(len(x), 4)`` makes them, which are float32 in a network of float32."""

    def unrolled(s, x, dtype):
        return x + eval(layer, {"F": F, "s": s, "zeros": torch.zeros(1, 4, dtype=dtype)})

    def net(dtype):
        return between(lambda s, x: unrolled(s, x, dtype), 4, {"m": nn.Linear(4, 4)}).to(dtype)

    assert total(net(torch.float32)) == pytest.approx(total(net(torch.float64)), rel=1e-6)
    assert not sf.is_collapsed(net(torch.float32), sf.Masks.ones(net(torch.float32)), "path")


REFUSED = {  # name: (operation, extras, width, what the error names)
    "product of two": (
        lambda s, x: s.m(x) * s.n(x),
        {"m": nn.Linear(4, 4), "n": nn.Linear(4, 4)},
        4,
        "mul of 2 values",
    ),
    "product of two gates": (
        lambda s, x: s.m(x).sigmoid() * x.sigmoid(),
        {"m": nn.Linear(4, 4)},
        4,
        "mul of 2 values",
    ),
    "product with a layer": (lambda s, x: x * s.m(x), {"m": nn.Linear(4, 4)}, 4, "mul of 2 values"),
    "gate of what it is made of": (
        lambda s, x: (lambda u: u * s.m(u))(F.gelu(x)),
        {"m": nn.Linear(4, 4)},
        4,
        "mul of 2 values",
    ),
    "ratio of two": (
        lambda s, x: s.m(x) / s.n(x),
        {"m": nn.Linear(4, 4), "n": nn.Linear(4, 4)},
        4,
        "div of 2 values",
    ),
    "square": (lambda s, x: x * x, {}, 4, "mul of 2 values"),
    "power": (lambda s, x: x**2, {}, 4, "pow"),
    "exp": (lambda s, x: x.exp(), {}, 4, "exp"),
    "reciprocal": (lambda s, x: 1 / x, {}, 4, "div"),
    "ratio of two halves": (lambda s, x: x[:, :2] / x[:, 2:], {}, 2, "div of 2 values"),
    "attention with a softmax by hand": (
        lambda s, x: ((x.exp() / x.exp().sum())[:, :, None] @ x[:, None])[:, 0],
        {},
        4,
        "exp",
    ),
    "attention without a softmax": (
        lambda s, x: (x[:, :, None] @ x[:, None] @ x[:, :, None])[:, :, 0],
        {},
        4,
        "matmul of 2 values",
    ),
    "LSTM": (
        lambda s, x: s.m(x[:, None])[0][:, 0],
        {"m": nn.LSTM(4, 4, batch_first=True)},
        4,
        "m, a LSTM",
    ),
    "Bilinear": (lambda s, x: s.m(x, x), {"m": nn.Bilinear(4, 4, 4)}, 4, "m, a Bilinear"),
    "activated weight": (
        lambda s, x: F.linear(x, torch.tanh(s.i.weight)),
        {},
        4,
        "a weight that tanh has changed",
    ),
    "weight with a threshold": (
        lambda s, x: F.linear(x, s.i.weight * (s.i.weight.abs() > 0.1)),
        {},
        4,
        "a weight that mul has changed",
    ),
    "weight times what it is activated to": (
        lambda s, x: F.linear(x, torch.tanh(s.i.weight) * s.i.weight),
        {},
        4,
        "a weight that mul has changed",
    ),
    "two slopes, none of them one": (
        lambda s, x: torch.where(x > 0, 2 * x, 0.1 * x),
        {},
        4,
        "gt|where",
    ),
    "chosen by its mean as well": (
        lambda s, x: torch.where(x > x.mean(), x, 0.1 * x),
        {},
        4,
        "gt of 2|where",
    ),
    "over itself where it is negative": (
        lambda s, x: torch.where(x > 0, x, 1 / x),
        {},
        4,
        "gt|where",
    ),
    "chosen by another signal": (
        lambda s, x: torch.where(s.m(x) > 0, x, 0.1 * x),
        {"m": nn.Linear(4, 4)},
        4,
        "gt|where",
    ),
    "written into": (
        lambda s, x: s.write(x),
        {"write": lambda x: (x.mul_(2), x)[1]},
        4,
        "mul_, whose",
    ),
    "looked up by what a layer says": (
        lambda s, x: s.e(x.argmax(1)),
        {"e": nn.Embedding(4, 4)},
        4,
        "argmax",
    ),
    "factor that is drawn": (lambda s, x: x * (torch.rand(4) > 0.5), {}, 4, "rand, random numbers"),
    "median": (lambda s, x: x.median(1, keepdim=True)[0].expand(-1, 4), {}, 4, "median"),
    "bicubic": (
        lambda s, x: F.interpolate(x.view(-1, 1, 2, 2), scale_factor=2, mode="bicubic").flatten(1),
        {},
        16,
        "interpolate with mode='bicubic'",
    ),
    "fft": (lambda s, x: torch.fft.fft(x).real, {}, 4, r"torch\._C\._fft\.fft_fft"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_that_are_not_understood_are_named(name):
    operation, extras, wide, named = REFUSED[name]
    net = between(operation, wide, extras)
    net(torch.rand(2, 4, dtype=torch.float64))  # the network itself is in order
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are left out, below
        for call in (
            lambda: sf.prune(net, "synflow", 2),
            lambda: sf.is_collapsed(net, sf.Masks.ones(net), "path"),
            lambda: sf.effective_compression(net, sf.Masks.ones(net)),
            lambda: sf.max_compression(net, "path"),
        ):
            with pytest.raises(ValueError, match=f"do not know ({named}).*refused"):
                call()
        assert sf.prune(net, "magnitude", 2).compression == 2
        assert not sf.is_collapsed(net, sf.Masks.ones(net), "layer")


def test_a_choice_between_slopes_is_told_a_way_that_works(put_back):
    class TwoSlopes(nn.Module):
        def forward(self, x):
            return torch.where(x > 0, 2 * x, 0.5 * x)

    net = nn.Sequential(nn.Linear(4, 8), TwoSlopes(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"of its own: synflow_lib.layers.rule\(ItsClass, .passes"):
        sf.score(net, "synflow")
    sf.layers.rule(TwoSlopes, "passes")
    plain = sf.score(nn.Sequential(net[0], nn.ReLU(), net[2]), "synflow")
    assert all(torch.equal(score, plain[n]) for n, score in sf.score(net, "synflow").items())


def test_a_table_that_is_indexed_is_told_apart_from_one_that_is_looked_up():
    net = nn.Sequential(nn.Linear(4, 2))
    net.forward = lambda tokens: net[0](F.one_hot(tokens, 4).float())
    with pytest.raises(ValueError, match="paths begin at what torch.nn.Embedding"):
        sf.score(net, "synflow", input_shape=torch.tensor([[1, 3]]))


def test_paths_begin_at_what_tokens_look_up():
    net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    with pytest.warns(UserWarning, match="160 others are never pruned: 0.weight"):
        found = sf.score(net, "synflow", input_shape=(5,))
    behind = sf.score(net[1:], "synflow", input_shape=(5, 8))
    assert all(torch.equal(a, b) for a, b in zip(found.values(), behind.values(), strict=True))
    assert not sf.is_collapsed(net, sf.Masks.ones(net), "path", input_shape=(5,))


@pytest.mark.filterwarnings("ignore:compression counts")
def test_bags_of_tokens_in_the_graph_of_torch_export():
    class Bag(nn.Sequential):
        def forward(self, ids):
            return self[1](self[0](ids)) if ids.dim() == 2 else None

    net, ids = Bag(nn.EmbeddingBag(20, 8), nn.Linear(8, 2)).double(), torch.tensor([[1, 3]])
    scores = sf.score(net, "synflow", input_shape=ids)
    torch.testing.assert_close(scores["1.weight"], net[1].weight.detach().abs())
    assert sf.effective_compression(net, sf.Masks.ones(net), input_shape=ids) == 1


def test_batch_norm_over_tokens_is_no_factor_of_features():
    class Net(nn.Module):
        input_shape = (6, 4)

        def __init__(self, wide):
            super().__init__()
            self.l, self.n, self.o = nn.Linear(4, wide), nn.BatchNorm1d(6), nn.Linear(6 * wide, 3)

        def forward(self, x):
            return self.o(F.relu(self.n(self.l(x))).flatten(1))

    for wide in (6, 8):  # as many features as tokens, and others
        net = seeded(lambda wide=wide: Net(wide))
        net.n.running_var.copy_(torch.arange(1.0, 7))
        weight = net.l.weight.detach().abs().requires_grad_()
        h = ONES.expand(1, 6, 4) @ weight.T * torch.rsqrt(net.n.running_var + 1e-5)[:, None]
        h = h * net.n.weight.detach().abs()[:, None]
        (h.flatten(1) @ a(net.o)).sum().backward()
        assert torch.allclose(sf.score(net, "synflow")["l.weight"], weight * weight.grad)


class Unpool(nn.Module):
    input_shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.c, self.d = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.p, self.u = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        x, where = self.p(F.relu(self.c(x)))
        return self.d(self.u(x, where))


def test_pooling_that_is_undone():
    net = seeded(Unpool)
    masks = sf.Masks.ones(net)
    assert sf.score(net, "synflow")["c.weight"].min() >= 0
    assert sf.effective_compression(net, masks) == 1
    masks["d.weight"].fill_(False)
    assert sf.is_collapsed(net, masks, "path")


UNPOOLED = {  # of 9 places in windows of 2 the last is in none
    "module": lambda x, y, i: nn.MaxUnpool1d(2)(y, i),
    "function": lambda x, y, i: F.max_unpool1d(y, i, 2),
    "of its old size": lambda x, y, i: nn.MaxUnpool1d(2)(y, i, output_size=x.shape),
    "function of its old size": lambda x, y, i: F.max_unpool1d(y, i, 2, output_size=x.shape[2:]),
}


@pytest.mark.parametrize("name", UNPOOLED)
def test_what_is_unpooled_lies_in_windows(name):
    class Net(nn.Module):
        input_shape = (1, 9)

        def __init__(self):
            super().__init__()
            self.a = nn.Conv1d(1, 1, 1, bias=False)
            self.head = nn.Linear(9, 1, bias=False)

        def forward(self, x):
            x = self.a(x)
            y, where = F.max_pool1d(x, 2, return_indices=True)
            y = UNPOOLED[name](x, y, where).flatten(1)
            return self.head(F.pad(y, (0, 9 - y.shape[1])))

    net, x = seeded(Net), torch.randn(200, 1, 9, dtype=torch.float64)
    for place in range(9):
        masks = sf.Masks.ones(net)
        masks["head.weight"][:] = torch.arange(9) == place
        dead = not bool(masks.apply_(copy.deepcopy(net))(x).any())
        assert dead == (place == 8)
        assert sf.is_collapsed(net, masks, "path") == dead
    assert sf.effective_compression(net, sf.Masks.ones(net)) == 10 / 9


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("how", [(2, 2, 0, 2), (3, 1, 1, 2), ((2, 3), (2, 1), (1, 0), (1, 2))])
def test_pooling_with_gaps_is_positive_where_its_window_is(how, ceil, size):
    pool = nn.MaxPool2d(*how, ceil_mode=ceil)
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), pool, nn.Flatten())
    x = (torch.rand(1, 1, size, size, dtype=torch.float64) < 0.1).double()
    assert torch.equal(window_sum(2, x, *how, ceil) > 0, pool(x) > 0)
    assert not sf.is_collapsed(net, sf.Masks.ones(net), "path", input_shape=(1, size, size))


class Branchy(nn.Module):
    """Cannot be traced: a branch on the values of a tensor."""

    input_shape = (4,)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(F.relu(self.a(x))) if x.sum() > -1e9 else x


def test_a_network_that_cannot_be_traced_is_refused_with_both_reasons(capfd):
    """Its own forward on |W| is no sum over paths, and masks of it have nothing in common."""
    match = "Branchy cannot be traced by torch.fx.*nor by torch.export.*Write its forward"
    for method in ("synflow", sf.inverted("synflow")):
        with pytest.raises(ValueError, match=match):
            sf.score(Branchy().double(), method)
    assert sf.prune(Branchy(), "magnitude", 4).kept == 6
    assert capfd.readouterr() == ("", "")


class Drop(nn.Module):
    """Stochastic depth, an auxiliary head and dropout, in train mode only."""

    input_shape = (8,)

    def __init__(self):
        super().__init__()
        self.a, self.f, self.g, self.o = (nn.Linear(8, n, bias=False) for n in (8, 8, 8, 3))
        self.aux = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        x = F.relu(self.a(x))
        if self.training:
            x = x * torch.bernoulli(torch.full((x.shape[0], 1), 0.5))
        x = F.dropout(x + F.relu(self.f(x)), 0.5, self.training)
        return (self.o(x + self.g(x)), self.aux(x)) if self.training else self.o(x + self.g(x))


@pytest.mark.parametrize("schedule", ["exponential", "cut"])
def test_masks_do_not_depend_on_the_mode(schedule):
    net = seeded(Drop)
    found = [sf.prune(net.train(mode), "synflow", 6, schedule=schedule) for mode in (True, False)]
    assert found[0] == found[1] and net.train().training
    assert sf.max_compression(net, "path") == sf.max_compression(net.eval(), "path")
    masks = found[0]
    values = [
        (sf.is_collapsed(net.train(mode), masks, "path"), sf.effective_compression(net, masks))
        for mode in (True, False)
    ]
    assert values[0] == values[1]


# --------------------------------------------------------------------------------------- batches


class InPlace(nn.Module):
    input_shape = (4,)

    def __init__(self, write):
        super().__init__()
        self.a, self.b, self.write = nn.Linear(4, 6), nn.Linear(6, 3), write

    def forward(self, x):
        return self.b(F.relu(self.a(self.write(x))))


@pytest.mark.parametrize(
    "write", [lambda x: x.div_(255.0), lambda x: x.mul_(2).sub_(1), lambda x: x.clamp_(0, 1)]
)
@pytest.mark.parametrize("method", ["snip", "grasp", "signed_snip", "synflow"])
def test_a_network_that_writes_into_its_input(write, method):
    x, y = torch.rand(8, 4, dtype=torch.float64), torch.arange(8) % 3
    before, net = x.clone(), seeded(lambda: InPlace(write))
    plain = seeded(lambda: InPlace(lambda x: write(x.clone())))
    assert sf.prune(net, method, 3, (x, y), iterations=2) == sf.prune(
        plain, method, 3, (before, y), iterations=2
    )
    assert torch.equal(x, before)


class Many(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.fc, self.kind = nn.Linear(4, 3), kind

    def forward(self, x):
        return self.kind(self.fc(x))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (lambda y: {"main": y, "aux": y}, r"a dict with \['main', 'aux'\], no tensor"),
        (lambda y: (y, y), "a tuple, no tensor"),
        (lambda y: [y], "a list, no tensor"),
        (lambda y: None, "a NoneType, no tensor"),
    ],
)
def test_outputs_that_are_no_tensor(kind, named):
    net, batch = Many(kind), (torch.randn(6, 4), torch.arange(6) % 3)
    for method in ("snip", "grasp"):
        with pytest.raises(TypeError, match=f"{named}.*Wrap the network"):
            sf.score(net, method, batch)
    if kind(0) is None:
        with pytest.raises(ValueError, match="returns None.* without any tensor|returns NoneType"):
            sf.score(net, "synflow")
    else:
        first = torch.nn.functional.cross_entropy
        loss = lambda out, y: first(out["main"] if isinstance(out, dict) else out[0], y)  # noqa: E731
        assert sf.prune(net, "snip", 2, batch, loss=loss).kept == 6


@pytest.mark.parametrize(
    ("loss", "error", "said"),
    [
        ("mse", TypeError, "loss='mse'; expected a function"),
        (lambda out: out.sum(), ValueError, "the loss failed.*takes 1 positional argument"),
        (lambda out, y: out[:, y + 9].sum(), ValueError, "the loss failed.*IndexError"),
        (lambda out, y: out.detach().sum(), ValueError, "does not depend on a prunable weight"),
        (lambda out, y: out.argmax().double(), ValueError, "does not depend on a prunable weight"),
    ],
)
def test_losses_that_are_none(loss, error, said):
    net, batch = mlp(4, 5, 3), (torch.randn(6, 4), torch.arange(6) % 3)
    for method in ("snip", "grasp"):
        with pytest.raises(error, match=said):
            sf.prune(net, method, 2, batch, loss=loss)


def test_data_that_is_not_of_real_numbers_in_a_dense_tensor():
    net, x, y = mlp(4, 5, 3), torch.randn(6, 4), torch.arange(6) % 3
    for batch in ((x + 1j, y), (x.to_sparse(), y), (x, y + 0j)):
        with pytest.raises(ValueError, match=r"expected real\s+numbers in a dense tensor"):
            sf.score(net, "snip", batch)
    with pytest.raises(ValueError, match=r"whole numbers need x.float"):
        sf.score(net, "snip", ((9 * x).long(), y))
    with pytest.raises(ValueError, match="complex64; expected real numbers"):
        sf.score(nn.Linear(4, 3, dtype=torch.complex64), "magnitude")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_whole_type(dtype):
    net, x, y = mlp(4, 5, 3), torch.randn(9, 4).double(), torch.arange(9) % 3
    for method in ("snip", "grasp"):
        wanted = sf.prune(net, method, 3, (x, y))
        assert sf.prune(net, method, 3, (x, y.to(dtype))) == wanted


@pytest.mark.parametrize("sizes", [(128, 4), (3, 1), (1, 6, 2), (300,)])
def test_a_mean_loss_is_weighted_by_images(sizes):
    net, count = mlp(6, 8, 5), sum(sizes)
    x, y = torch.randn(count, 6).double(), torch.randint(5, (count,))
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    for method in ("snip", "grasp"):
        whole = sf.score(net, method, (x, y), loss=F.cross_entropy, mode="eval")
        pieces = sf.score(net, method, parts, loss=F.cross_entropy, mode="eval")
        for name in whole:
            assert torch.allclose(whole[name], pieces[name], rtol=1e-9, atol=1e-12)


def test_no_batch_at_all():
    net = mlp(4, 3, 2)
    for empty in ([], (), iter([])):
        with pytest.raises(ValueError, match="batch is empty"):
            sf.prune(net, "snip", 2, empty)
    wanted = sf.prune(net, "synflow", 2)
    for ignored in ([], (), iter([]), [()]):
        assert sf.prune(net, "synflow", 2, ignored) == wanted
        assert sf.trajectory(net, batch=ignored).total == 18


# ----------------------------------------------------------------------------- weights and copies


def test_two_parameters_in_the_same_memory_are_refused():
    net = mlp(4, 4, 4)
    net[2].weight = nn.Parameter(net[0].weight.data)
    with pytest.raises(ValueError, match="are two parameters in the same memory"):
        sf.prune(net, "magnitude", 2)
    net[2].weight = net[0].weight
    assert sf.prune(net, "magnitude", 2).apply_(net)[2].weight.count_nonzero() == 8
    together = torch.randn(28)
    net[0].weight = nn.Parameter(together[:16].view(4, 4))
    net[2].weight = nn.Parameter(together[12:].view(4, 4))  # the last four are the first
    with pytest.raises(ValueError, match="are two parameters in the same memory"):
        sf.prune(net, "magnitude", 2)


def test_views_that_take_turns_in_memory():
    net, together = mlp(4, 4, 4), torch.rand(4, 8) + 1
    net[0].weight = nn.Parameter(together[:, ::2])
    net[2].weight = nn.Parameter(together[:, 1::2])
    sf.prune(net, "magnitude", 4).apply_(net)
    assert together.count_nonzero() == 8
    net[0].weight = nn.Parameter(together[:, 4:])  # every second of its numbers is the other's
    with pytest.raises(ValueError, match="are two parameters in the same memory"):
        sf.prune(net, "magnitude", 2)
    net[0].weight, net[2].weight = nn.Parameter(together[:, :4]), nn.Parameter(torch.rand(4, 4))
    net[2].last = together[3, :4]  # beyond as many numbers as the weight has
    with pytest.raises(ValueError, match=r"last is a view of 0.weight"):
        sf.prune(net, "magnitude", 2)
    net[2].last = together[3, 4:]
    assert sf.prune(net, "magnitude", 2).kept == 16


def test_a_layer_without_a_weight_is_refused():
    net = nn.Sequential(nn.Linear(4, 0), nn.ReLU(), nn.Linear(0, 3))
    for ask in (sf.prunable, sf.max_compression, lambda net: sf.score(net, "random")):
        with pytest.raises(ValueError, match=r"0.weight has the shape \(0, 4\)"):
            ask(net)


class Itself(nn.Sequential):
    """Its copy is no copy."""

    def __deepcopy__(self, memo):
        return self


class Afresh(nn.Sequential):
    """Copied without what the caller wants in the place of its weights."""

    def __deepcopy__(self, memo):
        new = Afresh(nn.Flatten(), nn.Linear(64, 10))
        new.load_state_dict(self.state_dict())
        return new


@pytest.mark.parametrize("kind", [Itself, Afresh])
@pytest.mark.parametrize("whole", [True, False])
def test_a_deepcopy_that_copies_otherwise_is_refused_and_nothing_changes(kind, whole):
    own = kind(nn.Flatten(), nn.Linear(64, 10))
    net = own if whole else nn.Sequential(own)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    ones = sf.Masks({name: t != 9 for name, t in before.items() if "weight" in name})
    digits = sf.data.digits().subset(100, 50)
    asked = [
        *(lambda m=m: sf.prune(net, m, 4, input_shape=(64,)) for m in ("synflow", "magnitude")),
        lambda: sf.surgery.flops(net, input_shape=(64,)),
        lambda: sf.max_compression(net, "path", input_shape=(64,)),
    ]
    if kind is Itself:
        asked += [
            lambda: sf.surgery.without_dead_units(net, ones, input_shape=(64,)),
            lambda: sf.train_many([net], [ones], digits, sf.Recipe(1, 0.1)),
        ]
    for ask in asked:
        with pytest.raises(ValueError, match="cannot be copied: a __deepcopy__ in it"):
            ask()
    assert net.training and all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def pruned_by_torch(layer):
    return torch_prune.l1_unstructured(layer, "weight", 0.5)


REMEDIES = {
    "weight_norm": (nn.utils.weight_norm, "torch.nn.utils.remove_weight_norm"),
    "spectral_norm": (nn.utils.spectral_norm, "torch.nn.utils.remove_spectral_norm"),
    "parametrizations.weight_norm": (
        nn.utils.parametrizations.weight_norm,
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    "parametrizations.spectral_norm": (
        nn.utils.parametrizations.spectral_norm,
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    "parametrizations.orthogonal": (
        nn.utils.parametrizations.orthogonal,
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
    "prune": (pruned_by_torch, "torch.nn.utils.prune.remove"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:compression counts")
def test_what_is_compiled_by_torch_jit_is_named():
    net = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 2)))
    for call in (lambda: sf.score(net, "synflow"), lambda: sf.prune(net, "magnitude", 2)):
        with pytest.raises(ValueError, match="^1 is compiled by torch.jit.*afterwards"):
            call()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", REMEDIES)
@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 4), lambda: nn.Conv2d(4, 4, 1)])
def test_the_advice_about_computed_weights_works(name, make):
    change, remedy = REMEDIES[name]
    model = nn.Sequential(nn.Sequential(change(make())), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    model.input_shape = (4,) if isinstance(model[0][0], nn.Linear) else (4, 1, 1)
    model(torch.randn(2, *model.input_shape))  # leaves a computed weight behind
    with pytest.raises(ValueError, match=r"0.0.weight is computed.*torch\.nn\.utils") as refused:
        sf.prune(model, "magnitude", 2)
    advice = str(refused.value).split("first: ")[1]
    assert advice.startswith(remedy)
    assert sf.prune(model, "magnitude", 2, keep="0").kept == 4
    exec(advice, {"torch": torch, "model": model})
    assert sf.prune(model, "magnitude", 2).kept == 12


REMEMBERS = {
    "tensor": lambda net, y: setattr(net, "features", y),
    "list": lambda net, y: setattr(net, "features", [y, {"deep": (y, 1)}]),
    "buffer": lambda net, y: net.register_buffer("features", y, persistent=False),
    "attribute of a layer": lambda net, y: setattr(net.a, "last", y),
}


@pytest.mark.parametrize("how", REMEMBERS)
def test_features_that_a_module_remembers(how):
    class Net(nn.Module):
        input_shape = (8,)

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = F.relu(self.a(x))
            REMEMBERS[how](self, x)
            return self.b(x)

    net, batch = seeded(Net), (torch.randn(4, 8).double(), torch.arange(4))
    wanted = [sf.prune(net, method, 4, batch) for method in ("synflow", "snip", "magnitude")]
    net(batch[0])
    found = [sf.prune(net, method, 4, batch) for method in ("synflow", "snip", "magnitude")]
    assert found == wanted
    assert not sf.is_collapsed(net, found[0], "path")
    assert (net.a.last if "layer" in how else True) is not None


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
    ],
)
def test_wrapped_networks_have_the_names_of_what_they_wrap(wrap):
    net = mlp(6, 5, 4)
    net.input_shape = (6,)
    batch, wrapped = (torch.randn(8, 6).double(), torch.arange(8) % 4), wrap(net)
    assert list(sf.prunable(wrapped)) == list(sf.prunable(net))
    for method in ("synflow", "snip", "magnitude"):
        masks = sf.prune(wrapped, method, 3, batch)
        assert masks == sf.prune(net, method, 3, batch)
        assert sf.is_collapsed(wrapped, masks, "path") == sf.is_collapsed(net, masks, "path")
    assert sf.effective_compression(wrapped, masks) == sf.effective_compression(net, masks)
    assert sf.check_conservation(wrapped, sf.score(wrapped, "synflow")).holds()


def test_attention_is_not_handed_to_torchs_own_pruning():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.att = nn.Linear(16, 16), nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            x = self.i(x)
            return self.att(x, x, x)[0]

    net = Net()
    with pytest.warns(UserWarning, match="768 others are never pruned: att.in_proj_weight"):
        masks = sf.prune(net, "magnitude", 4)
    with pytest.raises(ValueError, match=r"'att.out_proj.weight' is used through.*masks.apply_"):
        masks.to_torch_prune(net)
    assert not torch_prune.is_pruned(net)
    sf.prune(net, "magnitude", 4, keep="att").to_torch_prune(net)
    for _ in range(2):
        net(torch.randn(2, 5, 16)).sum().backward()


PARTIAL = {
    "LSTM": (lambda: nn.LSTM(16, 64), "rnn.weight_ih_l0, rnn.weight_hh_l0"),
    "GRU": (lambda: nn.GRU(16, 8, num_layers=2), "rnn.weight_ih_l0.* and 1 more"),
    "Embedding": (lambda: nn.Embedding(500, 8), "rnn.weight"),
    "Bilinear": (lambda: nn.Bilinear(8, 8, 8), "rnn.weight"),
    "own": (lambda: nn.ParameterList([torch.zeros(9, 9)]), "rnn.0"),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_weights_that_are_never_counted_are_named(name):
    make, named = PARTIAL[name]
    net = nn.Module()
    net.rnn, net.o = make(), nn.Linear(16, 10)
    for call in (sf.prune, lambda *a, **k: sf.score(*a[:2], **k)):
        with pytest.warns(UserWarning, match=f"never pruned: {named}") as seen:
            call(net, "magnitude", 10)
        assert seen[0].filename == __file__  # it points at the caller's line
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(net, "magnitude", 10, keep="rnn")


def test_ordinary_networks_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for net in (
            sf.models.resnet20(seed=0),
            sf.models.vgg11(seed=0),
            mlp(5, 4, 3, batch_norm=True),
        ):
            assert sf.prunable(net) and not network.left_out(net)
        sf.prune(mlp(5, 4, 3, batch_norm=True), "magnitude", 2)


def test_lazy_parameters_are_no_weights_yet():
    assert network.left_out(nn.Sequential(nn.LazyLinear(3), nn.Embedding(4, 2))) == {"1.weight": 8}


def test_grasp_says_that_a_compiled_layer_has_no_second_derivative():
    torch.compiler.reset()  # what was compiled before it may be run again, by another backend
    compiled = torch.compile(nn.Linear(4, 3), backend="aot_eager")
    net, batch = nn.Sequential(compiled, nn.Linear(3, 2)), (torch.ones(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="before that part is compiled"):
        sf.score(net, "grasp", batch)


def test_keep_takes_what_holds_layers():
    net = nn.Sequential(
        nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 2)
    )
    assert list(sf.prunable(net, keep="1")) == ["0.weight", "2.weight"]
    assert list(sf.prunable(net, keep=["1", "0.weight"], bias=True)) == [
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    with pytest.raises(ValueError, match="outside keep"):
        sf.prunable(net, keep=["0", "1", "2"])
    ten = nn.Sequential(*[nn.Linear(2, 2) for _ in range(11)])
    assert "10.weight" in sf.prunable(ten, keep="1")  # a name, not how a name begins


# ------------------------------------------------------------------------------ paths and the law


def test_a_probe_forgets_the_masks_before():
    net = mlp(4, 3, 2)
    probe, empty = sf.PathProbe(net), torch.zeros(3, 4, dtype=torch.bool)
    first, second = sf.Masks({"0.weight": empty}), sf.Masks({"1.weight": ~empty[:2, :3]})
    second = sf.Masks({list(sf.prunable(net))[1]: torch.ones(2, 3, dtype=torch.bool)})
    assert not probe.connected(first) and probe.connected(second)
    assert probe.on_path(first).kept == 0 and probe.on_path(second).kept == 6
    with pytest.raises(ValueError, match="does not fit"):
        probe.connected(sf.Masks({"0.weight": empty.T}))
    assert probe.connected(second)


def test_layers_that_never_run_lie_on_no_path():
    net = mlp(4, 3, 2)

    class Net(nn.Module):
        input_shape = (4,)

        def __init__(self):
            super().__init__()
            self.net, self.unused = net, nn.Linear(5, 5).double()

        def forward(self, x):
            return self.net[1](self.net[0](x))

    masks = sf.Masks.ones(Net())
    assert sf.PathProbe(Net()).on_path(masks)["unused.weight"].sum() == 0


def test_a_law_that_says_nothing_does_not_hold():
    net = mlp(3, 2)
    report = sf.check_conservation(net, sf.score(net, "synflow"))
    with pytest.warns(UserWarning, match="no laws"):
        assert not report.holds()
    net = mlp(3, 4, 2)
    for level in ("unit", "layer", "cut"):
        zeros = {name: torch.zeros_like(p) for name, p in sf.prunable(net).items()}
        report = sf.check_conservation(net, zeros, level)
        assert report.max_relative_error != report.max_relative_error  # NaN
        with pytest.warns(UserWarning, match="all scores are zero"):
            assert not report.holds(1.0)


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (lambda s, x: x.chunk(2, 1)[0], "chunk"),
        (lambda s, x: x.topk(2, 1)[0], "topk"),
        (lambda s, x: x.sort(1)[0], "sort"),
        (lambda s, x: x.roll(1, 1), "roll"),
        (lambda s, x: x.flip(1), "flip"),
    ],
)
def test_operations_without_a_law_never_drop_a_layer(operation, named):
    net = seeded(lambda: Between(operation, 2 if named in ("chunk", "topk") else 4))
    with pytest.raises(ValueError, match=f"no conservation law for.*{named}"):
        sf.surgery.without_dead_units(net, sf.Masks.ones(net))
    if named == "sort":
        with pytest.raises(ValueError, match=f"no conservation law for.*{named}"):
            sf.check_conservation(net, sf.score(net, "magnitude"))
    else:
        assert sf.check_conservation(net, sf.score(net, "synflow")).holds()


class Optional(nn.Module):
    """One input is enough: what has a default keeps it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)


class WithNone(Optional):
    def forward(self, x, t=None, *, scale=1.0):
        x = self.a(x) if t is None else self.a(x) * t
        return self.b(x * scale)


class WithMore(Optional):
    def forward(self, x, *others, **options):
        return self.b(self.a(x))


class WithAny(Optional):
    def forward(self, *inputs):
        return self.b(self.a(inputs[0]))


class WithTwo(Optional):
    def forward(self, x, y):
        return self.b(self.a(x) + y)


def test_inputs_that_are_not_needed():
    plain = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    wanted = list(sf.score(plain, "synflow").values())
    for kind in (WithNone, WithMore, WithAny):
        net = kind().double()
        net.load_state_dict(dict(zip(net.state_dict(), plain.state_dict().values(), strict=True)))
        found = list(sf.score(net, "synflow").values())
        assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))
        assert not sf.is_collapsed(net, sf.Masks.ones(net), "path")
        assert sf.check_conservation(net, sf.score(net, "synflow")).holds()
    for call in (
        lambda net: sf.score(net, "synflow"),
        lambda net: sf.is_collapsed(net, sf.Masks.ones(net), "path"),
    ):
        with pytest.raises(ValueError, match="takes another input, 'y'.*shape for each"):
            call(WithTwo())


def test_more_inputs_than_a_network_takes():
    net, shape = mlp(6, 4, 2), ((6,), (3,))
    for call in (
        lambda: sf.score(net, "synflow", input_shape=shape),
        lambda: sf.is_collapsed(net, sf.Masks.ones(net), "path", input_shape=shape),
    ):
        with pytest.raises(ValueError, match="2 inputs are given; the network takes 'input' alone"):
            call()


class TakesADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, batch):
        return self.b(self.a(batch["x"]))


def test_a_forward_that_takes_a_dict_is_told_of_a_wrapper():
    batch = {"x": torch.randn(3, 4)}, torch.tensor([0, 1, 0])
    for call in (
        lambda net: sf.score(net, "snip", batch),
        lambda net: sf.score(net, "synflow", input_shape=(4,)),
    ):
        with pytest.raises(ValueError, match=r"needs a wrapper.*self.net\({'x': x}\)"):
            call(TakesADict())


@pytest.mark.parametrize(
    "ten", [Decimal(10), Fraction(10), torch.tensor(10.0), np.float32(10), "10"]
)
def test_compressions_of_any_kind_of_number(ten):
    net = mlp(6, 5, 4)
    assert sf.prune(net, "magnitude", ten) == sf.prune(net, "magnitude", 10)
    assert sf.trajectory(net, compression=ten).counts[-1] <= 5
    local = {"scope": "local"}
    assert sf.prune(net, "magnitude", ten, **local) == sf.prune(net, "magnitude", 10, **local)


@pytest.mark.parametrize("size", [101, 107])
def test_the_ends_of_a_logarithmic_axis(size):
    net = nn.Linear(size, 1)
    last = 10 ** math.log10(size)
    assert last > size  # by an ulp
    for options in ({}, {"scope": "local"}, {"iterations": 3}, {"schedule": "cut"}):
        assert sf.prune(net, "synflow", last, **options).kept == 1
        assert sf.prune(net, "synflow", 0.3 / (0.1 + 0.2), **options).kept == size
    assert sf.trajectory(net, "magnitude").at(last).kept == 1
    assert sf.trajectory(net, "magnitude", compression=0.3 / (0.1 + 0.2)).counts == [size]


@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "synflow"])
def test_a_default_device_other_than_the_models_changes_nothing(method):
    net = seeded(lambda: nn.Sequential(nn.Linear(300, 70), nn.ReLU(), nn.Linear(70, 3)))
    batch = torch.randn(6, 300, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3

    def answers():
        masks = sf.prune(net, method, 50, batch)
        return {
            "masks": masks.digest,
            "scores": {n: s.sum() for n, s in sf.score(net, method, batch).items()},
            "path": sf.effective_compression(net, masks),
            "critical": sf.critical_compression(net, method, "path", batch),
            "law": sf.check_conservation(net, sf.score(net, "synflow")).max_relative_error,
            "smaller": repr(sf.surgery.without_dead_units(net, masks)),
            "random": sf.quotas.random(net, sf.quotas.of(masks), 0).digest,
        }

    wanted = answers()
    with torch.device("meta"):
        assert answers() == wanted


def test_numbers_out_of_range_and_names_that_are_none():
    net = mlp(6, 5, 4)
    with pytest.raises(ValueError, match=r"expected 1 <= compression <= N = 50"):
        sf.prune(net, "magnitude", 10**400)
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match=f"seed={seed}; expected a whole number from"):
            sf.prune(net, "random", 2, seed=seed)
    assert sf.prune(net, "random", 2, seed=np.uint64(2**64 - 1)).kept == 25
    with pytest.raises(TypeError, match="keep=5; expected names of layers"):
        sf.prune(net, "magnitude", 2, keep=5)
    for density in (None, "x", [0.5]):
        with pytest.raises(TypeError, match="the schedule gives .*expected densities"):
            sf.prune(net, "magnitude", 2, schedule=lambda t, n, final, d=density: d)


def test_a_layer_alone():
    layer = nn.Linear(4, 3)
    assert sf.prune(layer, "synflow", 12).kept == 1 and sf.max_compression(layer, "path") == 12
    assert not sf.is_collapsed(layer, sf.Masks.ones(layer), "path")
    assert sf.trajectory(layer).counts[-1] == 1
    with pytest.raises(ValueError, match=r"put a layer of its own into torch.nn.Sequential"):
        sf.trajectory(layer, "magnitude", schedule="cut")


def test_the_check_of_operations_can_fail():
    """The control: what is refused above is refused by `check` and by nothing else."""
    known, unknown = (Between(op) for op in (lambda s, x: x, lambda s, x: x**2))
    for net, fails in ((known, False), (unknown, True)):
        traced = network.trace(net)
        try:
            Operations(traced).check()
        except ValueError:
            assert fails
        else:
            assert not fails


# ---------------------------------------------------------------- other names of the same numbers


class Five(nn.Module):
    """Linear layers f, g, h and head without bias, and a forward of them."""

    input_shape = (4,)

    def __init__(self, forward, **more):
        super().__init__()
        for name in ("f", "g", "h", "head"):
            setattr(self, name, nn.Linear(4, 4, bias=False))
        for name, value in more.items():
            setattr(self, name, value)
        self.operation = forward

    def forward(self, x):
        return self.operation(self, x)


def added_under_another_name(s, x):
    h = s.f(x)
    r = h
    h += s.g(x)
    return s.head(h + r)


def multiplied_under_another_name(s, x):
    h = s.f(x)
    y = h.mul_(3.0)
    return s.head(y + h)


def changed_behind_a_view(s, x):
    h = s.f(x)
    part = h[:, :2]
    h *= 2.0
    return s.head(torch.cat([part, h[:, 2:]], 1))


def changed_behind_windows(s, x):
    h = s.f(x)
    windows = h.unfold(1, 2, 2)
    h *= 2.0
    return s.head(h + windows.flatten(1))


def gated_by_itself(s, x):
    h = s.f(x)
    gate = h.sigmoid_()
    return s.head(h * gate)


def added_to_a_sum(s, x):
    h = s.f(x)
    h += s.g(x)
    h = F.relu(h, inplace=True)
    h *= 2
    return s.head(h)


@pytest.mark.parametrize(
    "forward",
    [
        added_under_another_name,
        multiplied_under_another_name,
        changed_behind_a_view,
        changed_behind_windows,
        gated_by_itself,
    ],
)
def test_numbers_that_change_under_two_names_are_refused(forward):
    with pytest.raises(ValueError, match="in place on numbers that are read by another name"):
        sf.score(Five(forward), "synflow")


@pytest.mark.filterwarnings("ignore:every score of")
def test_sums_in_place_are_sums():
    net = seeded(lambda: Five(added_to_a_sum))
    plain = seeded(lambda: Five(lambda s, x: s.head(2 * F.relu(s.f(x) + s.g(x)))))
    found, wanted = sf.score(net, "synflow"), sf.score(plain, "synflow")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: torch.add(s.pos, s.f(x), alpha=0.1) + x,
        lambda s, x: torch.rsub(s.f(x), s.pos, alpha=0.1) + x,
        lambda s, x: torch.rsub(s.f(x), x, alpha=0.1),
        lambda s, x: torch.sub(x, s.f(x), alpha=0.1),
    ],
)
@pytest.mark.filterwarnings("ignore:every score of")
def test_what_a_sum_is_told_to_scale(forward):
    pos = nn.Parameter(torch.ones(4))
    net = seeded(lambda: Five(lambda s, x: s.head(forward(s, x)), pos=pos))
    plain = seeded(lambda: Five(lambda s, x: s.head(x + 0.1 * s.f(x)), pos=pos))
    found, wanted = sf.score(net, "synflow"), sf.score(plain, "synflow")
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: x * (1 + s.g(s.c)),
        lambda s, x: s.f(x) * s.g(s.c),
        lambda s, x: s.f(x) * s.g(torch.zeros(len(x), 4, dtype=x.dtype).add_(1)),
    ],
)
def test_a_factor_that_a_layer_makes_of_constants_is_named(forward):
    net = Five(lambda s, x: s.head(forward(s, x)), c=nn.Parameter(torch.ones(1, 4)))
    with pytest.raises(ValueError, match="a factor that layer g makes of constants") as found:
        sf.score(net, "synflow")
    assert "rule(" not in str(found.value)  # it would be one for every product


def test_a_unit_that_is_spread_over_a_sum_cannot_be_taken_out():
    net = Five(lambda s, x: s.v(s.f(x)) + s.head(s.f(x)), v=nn.Linear(4, 1))
    with pytest.raises(ValueError, match="no conservation law for.*adds 1 to 4 channels"):
        wiring(net, (4,))
    with pytest.warns(UserWarning, match="every score"):
        assert sf.check_conservation(net, sf.score(net, "synflow")).holds()


def lerp(s, x):
    return s.al * x + (1 - s.al) * s.f(x)


AT_ZERO = {  # name: (the signal with a factor al that starts at zero, what counts in its place)
    "another use is not zero": (lerp, lambda s, x: x + s.f(x)),
    "one at zero": (lambda s, x: (1 + s.al * 3) * s.f(x) + x, lambda s, x: s.f(x) + x),
    "exp": (lambda s, x: (s.al * 3).exp() * s.f(x) + x, lambda s, x: s.f(x) + x),
    "sigmoid": (lambda s, x: torch.sigmoid(4 * s.al) * s.f(x) + x, lambda s, x: s.f(x) / 2 + x),
    "tanh": (lambda s, x: s.al.tanh() * s.f(x) + x, lambda s, x: s.f(x) + x),
    "scaled": (lambda s, x: (s.al * 0.1) * s.f(x) + x, lambda s, x: s.f(x) + x),
    "like a signal": (lambda s, x: s.al.expand_as(x) * s.f(x) + x, lambda s, x: s.f(x) + x),
    "by a shape": (
        lambda s, x: s.al.tanh().expand(x.size(0), 4) * s.f(x) + x,
        lambda s, x: s.f(x) + x,
    ),
    "one of several": (lambda s, x: s.two[0] * s.f(x) + s.two[1] * x, lambda s, x: s.f(x) + 2 * x),
    "of a weight": (lambda s, x: F.linear(x, s.f.weight * s.al) + x, lambda s, x: s.f(x) + x),
}


@pytest.mark.parametrize("name", AT_ZERO)
@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*hold zeros only")
def test_a_factor_is_opened_where_it_is_zero_in_the_product(name):
    more = {"al": nn.Parameter(torch.zeros(1)), "two": nn.Parameter(torch.tensor([0.0, 2.0]))}
    nets = [
        seeded(lambda f=f: Five(lambda s, x: s.head(f(s, x)), **copy.deepcopy(more)))
        for f in AT_ZERO[name]
    ]
    for net in nets:
        net.al.data.zero_()
        net.two.data.copy_(torch.tensor([0.0, 2.0]))
    with unchanged(nets[0]):
        found, wanted = (sf.score(net, "synflow") for net in nets)
    for name, score in wanted.items():
        torch.testing.assert_close(found[name], score)


MATRIX = torch.tensor([[1.0, -2.0, 0.5, 3.0]] * 4, dtype=torch.float64)


def written(net, h):
    out = torch.zeros_like(h)
    torch.add(h, h, out=out)
    return net.b(h) + out


def written_through_a_view(net, h):
    out = torch.zeros(1, 4)
    part = out[:, :2].add_(h[:, :2])
    return net.b(out) + part.repeat(1, 2)


@pytest.mark.parametrize(
    "operation, expected",
    [
        (lambda n, h: torch.addmm(n.i.bias, h, n.m, alpha=-3), lambda h: 3 * h @ MATRIX.abs()),
        (lambda n, h: torch.cat(tensors=[h[:, 2:], h[:, :2]], dim=1), lambda h: h.roll(2, 1)),
    ],
)
def test_arguments_that_are_named(operation, expected):
    net = between(operation, 4, {"m": MATRIX}).double()
    total = (expected(ONES @ a(net.i)) @ a(net.o)).sum()
    torch.testing.assert_close(sf.score(net, "synflow")["i.weight"].sum(), total)


@pytest.mark.parametrize("operation", [written, written_through_a_view])
def test_what_is_written_into_another_tensor_is_refused(operation):
    net = between(operation, 4, {"b": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match="do not know add"):
        sf.score(net, "synflow")
    with pytest.raises(ValueError, match="do not know add"):
        sf.is_collapsed(net, sf.Masks.ones(net), "path")


def test_a_weight_that_is_added_is_no_step_of_the_path():
    net = between(lambda n, h: h + n.b.weight.sum(1), 4, {"b": nn.Linear(4, 4)})
    assert sf.max_compression(net, "path") == (16 + 16 + 12) / 2


@pytest.mark.parametrize("part, fewest", [([0, 1, 2, 3], 2), ([2, 3, 3, 2], 3)])
@pytest.mark.parametrize(
    "join", [lambda h, g: torch.cat([h, g[:, 2:]], 1), lambda h, g: F.pad(h, (0, 2)) + g]
)
def test_fewest_weights_behind_slices(join, part, fewest):
    net = between(lambda n, h: join(h[:, :2], n.b(h))[:, part], 4, {"b": nn.Linear(4, 4)})
    assert sf.max_compression(net, "path") == (16 + 16 + 12) / fewest
