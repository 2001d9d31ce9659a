"""Deep networks: in float32 finite and in order, in float64 the masks of the plain algorithm."""

import math

import pytest
import torch
from networks import mlp, narrow_resnet, plain_scores, plain_synflow, seeded, with_shape
from torch import nn

import synflow_lib as sf


def relative_error(found, expected):
    """Largest error of a score relative to itself, scores scaled back in float64.

    ``found`` float32 with its `log2_scale`, ``expected`` float64 and unscaled.
    """
    worst = 0.0
    for name, reference in expected.items():
        pieces = zip(
            found[name].flatten().split(2**22), reference.flatten().split(2**22), strict=True
        )
        for scores, exact in pieces:  # in pieces, to keep the memory down
            exact = torch.ldexp(exact, torch.tensor(-float(found.log2_scale)))
            error = (scores.double() - exact).abs() / exact.clamp_min(1e-300)
            worst = max(worst, float(error.max()))
    return worst


def assert_finite(scores):
    for name, tensor in scores.items():
        assert torch.isfinite(tensor).all(), name
        assert float(tensor.max()) > 0, name


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("make", "log10"),
    [
        (lambda: sf.models.resnet110(seed=0), 139),
        pytest.param(
            lambda: sf.models.resnet50(num_classes=200, input_size=64, seed=0),
            72,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_deep_residual_networks_in_float32(make, log10):
    net = make()
    found = sf.score(net, "synflow", dtype=torch.float32)
    expected = plain_scores(net, net.input_shape)
    total = float(expected["fc.weight"].sum())
    assert abs(math.log10(total) - log10) < 3  # far above the 38 that float32 reaches
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert_finite(found)
    assert relative_error(found, expected) < 1e-4
    masks = sf.prune(net, "synflow", 1e3, iterations=2, dtype=torch.float32)
    assert masks.kept == round(masks.total / 1e3)


@pytest.mark.in_turn
@pytest.mark.slow
def test_vgg19_at_224_in_float32():
    """N = 143,652,544; also exact counts and the memory of an iteration at that size."""
    net = sf.models.vgg19(num_classes=1000, input_size=224, batch_norm=False, seed=0)
    found = sf.score(net, "synflow", dtype=torch.float32)
    expected = plain_scores(net, net.input_shape)
    assert_finite(found)
    assert relative_error(found, expected) < 1e-4
    del expected, found
    masks = sf.prune(net, "synflow", 10**2.5, iterations=1, dtype=torch.float32)
    assert (masks.kept, masks.total) == (round(143_652_544 / 10**2.5), 143_652_544)


def deep(depth, gain, dtype=torch.float32):
    """A chain whose R grows like gain ** depth."""

    def make():
        layers = []
        for _ in range(depth):
            layers += [nn.Linear(4, 4, bias=False), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    net = with_shape(seeded(make, dtype=torch.float64), (4,))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(gain)
    return net.to(dtype)


@pytest.mark.parametrize("gain", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_scores_neither_overflow_nor_vanish(gain):
    """R from 1e-360 to 1e+360; scaling all weights must not change the order of the scores."""
    net = deep(60, gain)
    found = sf.score(net, "synflow", dtype=torch.float32)
    assert_finite(found)
    assert all((scores > 0).all() for scores in found.values())
    reference = sf.score(deep(60, 1.0, torch.float64), "synflow")
    shift = found.log2_scale + math.log2(float(found["0.weight"][0, 0]))
    expected = 60 * math.log2(gain) + math.log2(float(reference["0.weight"][0, 0]))
    assert shift == pytest.approx(expected, abs=1e-3)
    for name, scores in found.items():
        ratio = scores.double() / reference[name]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)


def test_deeper_than_float64_reaches():
    net = deep(100, 1e5, torch.float64)
    scores = sf.score(net, "synflow")
    assert_finite(scores)
    assert scores.log2_scale > 1024
    assert sf.trajectory(net).counts[-1] == 100
    assert sf.check_conservation(net, scores, "layer").holds(1e-12)


@pytest.mark.parametrize("sizes", [(1e9, 1e9, 1e-15), (1e-15, 1e9, 1e9), (1e30, 1e30, 1e-37)])
def test_layers_of_very_different_size_of_weights(sizes):
    net = mlp(6, 8, 8, 5, dtype=torch.float32)
    with torch.no_grad():
        for weight, size in zip(net.parameters(), sizes, strict=True):
            weight.mul_(size)
    found = sf.score(net, "synflow", dtype=torch.float32)
    assert_finite(found)
    assert relative_error(found, plain_scores(net, (6,))) < 1e-4


def test_scores_in_range_are_told_unscaled():
    net = mlp(6, 8, 5)
    assert sf.score(net, "synflow").log2_scale == 0
    assert sf.score(narrow_resnet(), "synflow").log2_scale == 0


@pytest.mark.in_turn
@pytest.mark.slow
def test_vgg16_in_float64_is_the_plain_algorithm_to_the_last_weight():
    net = sf.models.vgg16(seed=0).double()
    expected, certain = plain_synflow(net, 1e3, 5, net.input_shape)
    assert certain
    masks = sf.prune(net, "synflow", 1e3, iterations=5)
    assert sum(int((masks[name] ^ expected[name]).sum()) for name in expected) == 0


@pytest.mark.in_turn
def test_resnet20_in_float64_is_the_plain_algorithm_over_a_hundred_iterations():
    net = sf.models.resnet20(seed=0).double()
    expected, certain = plain_synflow(net, 50.0, 100, net.input_shape)
    assert certain
    masks = sf.prune(net, "synflow", 50.0)
    assert sum(int((masks[name] ^ expected[name]).sum()) for name in expected) == 0


def test_one_iteration_in_float32_agrees_with_float64_but_for_ties_by_rounding():
    net = sf.models.resnet20(seed=0)
    for kept in (100, 5_000, 100_000):
        compression = 270_896 / kept
        one = sf.prune(net, "synflow", compression, iterations=1, dtype=torch.float32)
        two = sf.prune(net, "synflow", compression, iterations=1)
        differ = sum(int((one[name] ^ two[name]).sum()) for name in one)
        assert differ <= 2 + kept // 10_000
