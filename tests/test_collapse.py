"""Collapse by both criteria, against walking every path and against SynFlow's R."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    Dag,
    Decoder,
    Dense,
    Mobile,
    Paths,
    Residual,
    Shared,
    Tied,
    images,
    mlp,
    narrow_resnet,
    narrow_vgg16,
    plain_network,
    seeded,
    unchanged,
    weights_of,
    with_shape,
)
from torch import nn

import synflow_lib as sf
from synflow_lib import collapse
from synflow_lib.collapse import _ladder, _last_true
from synflow_lib.graphs import network


def masks_of(net, density, generator):
    """Random masks on the prunable weights, every weight kept with probability ``density``."""
    return sf.Masks(
        {
            name: torch.rand(p.shape, generator=generator) < density
            for name, p in sf.prunable(net).items()
        }
    )


def flow_under(net, masks):
    """SynFlow's R under the masks with all weights one: positive exactly if a path is left."""
    net = plain_network(net)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name in masks:
                weight.copy_(masks[name])
            elif not name.endswith("bias"):
                weight.fill_(1.0)
        return float(net(torch.ones(1, *net.input_shape, dtype=torch.float64)).sum())


class Strided(nn.Module):
    """A 1x1 shortcut of stride 2 beside a block of stride 2, with BatchNorm, as in ResNets."""

    input_shape = (1, 5, 5)

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.b = nn.Conv2d(2, 2, 3, padding=1)
        self.shortcut = nn.Conv2d(1, 2, 1, stride=2, bias=False)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        out = self.b(F.relu(self.norm(self.a(x))))
        return self.head(F.relu(out + self.shortcut(x)).mean((2, 3)))


def pooled():
    """A 1x1 map under a padded 3x3 convolution: only the tap in the middle sees anything."""
    return with_shape(
        nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(2, 2),
        ),
        (1, 4, 4),
    )  # fmt: skip


def flattened():
    return with_shape(
        nn.Sequential(
            nn.Conv2d(1, 2, 2, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.ReLU(),
            nn.Linear(3, 2),
        ),
        (1, 5, 5),
    )  # fmt: skip


ZOO = {
    "mlp": lambda: mlp(3, 4, 3, 2, bias=True),
    "normed": lambda: mlp(3, 4, 3, 2, batch_norm=True),
    "residual": Residual,
    "strided": Strided,
    "pooled": pooled,
    "flattened": flattened,
    "dense": Dense,
    "mobile": Mobile,
    "shared": Shared,
    "tied": Tied,
    "dag": lambda: Dag([[(0, True), (0, False)], [(1, True), (0, True)], [(2, True)]], 2),
}


def make(name):
    net = seeded(ZOO[name])
    if not hasattr(net, "input_shape"):
        net.input_shape = (3,)
    return net


# ------------------------------------------------------------------------------ paths


@pytest.mark.parametrize("name", ZOO)
def test_paths_are_those_found_by_walking(name):
    net, generator = make(name), torch.Generator().manual_seed(0)
    paths, probe = Paths(net, net.input_shape), sf.PathProbe(net)
    outcomes = []
    for density in (1.0, 0.7, 0.45, 0.3, 0.2, 0.1, 0.02) * 3:
        masks = masks_of(net, density, generator)
        expected = paths.connected(masks)
        outcomes.append(expected)
        assert probe.connected(masks) is expected
        assert sf.is_collapsed(net, masks, "path") is not expected
        found, walked = probe.on_path(masks), paths.on_path(masks)
        assert list(found) == list(masks)
        for key in masks:
            assert torch.equal(found[key], walked[key]), key
        kept = sum(int(mask.sum()) for mask in walked.values())
        expected_compression = masks.total / kept if kept else float("inf")
        assert sf.effective_compression(net, masks) == expected_compression
    assert True in outcomes and False in outcomes  # else nothing was compared


@pytest.mark.parametrize("name", [*ZOO, "decoder"])
def test_paths_are_left_exactly_where_synflows_r_is_positive(name):
    net = seeded(Decoder) if name == "decoder" else make(name)
    generator, probe = torch.Generator().manual_seed(1), sf.PathProbe(net)
    outcomes = []
    for density in (0.9, 0.5, 0.35, 0.25, 0.15, 0.1, 0.02) * 6:
        masks = masks_of(net, density, generator)
        expected = flow_under(net, masks) > 0
        outcomes.append(expected)
        assert probe.connected(masks) is expected
    assert True in outcomes and False in outcomes


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.05, 0.5))
def test_real_architectures_against_synflows_r(seed, density):
    generator = torch.Generator().manual_seed(seed)
    for net in (narrow_vgg16(width=2), narrow_resnet(stages=((2, 1), (3, 1)))):
        masks = masks_of(net, density, generator)
        assert sf.is_collapsed(net, masks, "path") is not (flow_under(net, masks) > 0)


def test_a_tap_that_only_sees_padding_lies_on_no_path():
    net = make("pooled")
    masks = sf.Masks.ones(net)
    middle = torch.zeros(3, 3, dtype=torch.bool)
    middle[1, 1] = True
    assert torch.equal(sf.PathProbe(net).on_path(masks)["6.weight"], middle.expand(2, 2, 3, 3))
    masks["6.weight"].copy_(~middle.expand(2, 2, 3, 3))
    assert masks.empty_layers() == []
    assert sf.is_collapsed(net, masks, "path")
    assert not sf.is_collapsed(net, masks, "layer")


def test_disconnected_without_an_empty_layer_and_alive_with_one():
    net = seeded(Residual)
    masks = sf.Masks.ones(net)
    masks["a.weight"].fill_(False)
    assert sf.is_collapsed(net, masks, "layer") and not sf.is_collapsed(net, masks, "path")
    chain = mlp(3, 4, 2)
    masks = sf.Masks.ones(chain)
    masks["0.weight"][2:] = False
    masks["1.weight"][:, :2] = False
    assert not sf.is_collapsed(chain, masks, "layer") and sf.is_collapsed(chain, masks, "path")
    assert sf.effective_compression(chain, masks) == float("inf")


def test_dead_channels_count_as_pruned():
    net = mlp(3, 4, 2)
    masks = sf.Masks.ones(net)
    masks["0.weight"][0] = False  # unit 0 gets nothing: its two outgoing weights are dead
    masks["1.weight"][:, 3] = False  # unit 3 is read by nobody: its three incoming ones are
    on_path = sf.PathProbe(net).on_path(masks)
    assert on_path.table()["kept"].tolist() == [6, 4]
    assert sf.effective_compression(net, masks) == 20 / 10
    assert masks.compression == 20 / 15


def test_zero_gammas_biases_and_buffers_do_not_decide_about_paths():
    """Which weights are kept decides; a bias carries nothing from input to output."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.register_buffer("gate", torch.tensor([1.0, 1.0, 0.0, 0.0]))

        def forward(self, x):
            return self.fc(x) * self.gate

    net = nn.Sequential(Gated(), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(net[1].weight)
    masks = sf.Masks.ones(net)
    assert not sf.is_collapsed(net, masks, "path")
    assert sf.PathProbe(net).on_path(masks).table()["kept"].tolist() == [6, 4]
    masks["0.fc.weight"][:2] = False
    assert sf.is_collapsed(net, masks, "path")
    with_bias = sf.Masks.ones(net, bias=True)
    with_bias["0.fc.weight"].fill_(False)
    assert sf.is_collapsed(net, with_bias, "path")
    assert not sf.PathProbe(net).on_path(with_bias)["0.fc.bias"].any()


def test_a_layer_without_biases_is_not_empty():
    net = sf.models.fc((4,), depth=2, width=6, num_classes=3, seed=0)  # its biases start at zero
    path = sf.trajectory(net, "synflow", bias=True)
    masks = path.at(4)
    assert not any(mask.any() for name, mask in masks.items() if name.endswith("bias"))
    assert masks.empty_layers() == [] and not sf.is_collapsed(net, masks, "layer")
    assert path.last_of_each_layer() == 2
    total = sum(p.numel() for p in net.parameters())
    assert sf.max_compression(net, bias=True) == sf.max_compression(net, "path", bias=True)
    assert sf.max_compression(net, bias=True) == total / 2


def test_probing_is_the_same_with_gradients_switched_off():
    net = make("strided")
    masks = masks_of(net, 0.6, torch.Generator().manual_seed(3))
    expected = sf.PathProbe(net).on_path(masks)
    assert expected.kept
    with torch.no_grad():
        assert sf.PathProbe(net).on_path(masks) == expected
        assert sf.effective_compression(net, masks) == expected.compression
    with torch.inference_mode():
        assert sf.effective_compression(net, masks) == expected.compression


def test_one_probe_answers_many_masks_in_any_order():
    net = make("mobile")
    generator, probe = torch.Generator().manual_seed(4), sf.PathProbe(net)
    asked = [masks_of(net, density, generator) for density in (0.9, 0.1, 0.5, 0.05, 0.7)]
    fresh = [sf.PathProbe(net).on_path(masks) for masks in asked]
    with unchanged(net):
        assert [probe.on_path(masks) for masks in asked] == fresh
        assert [probe.connected(masks) for masks in asked] == [m.kept > 0 for m in fresh]
        assert [probe.on_path(masks) for masks in asked] == fresh


def test_layers_left_dense_count_as_connected():
    net = mlp(3, 4, 2)
    only = sf.Masks({"0.weight": torch.zeros(4, 3, dtype=torch.bool)})
    assert sf.is_collapsed(net, only, "path")
    only["0.weight"][1, 1] = True
    assert not sf.is_collapsed(net, only, "path")


# ------------------------------------------------------------------------------ rho_max


def test_max_compression_asks_one_probe_and_traces_twice(monkeypatch):
    net, count = narrow_resnet(), {"trace": 0, "probe": 0}
    trace, probe = network.trace, collapse.PathProbe

    def counted(name, function, *args, **kwargs):
        count[name] += 1
        return function(*args, **kwargs)

    for module in (network, collapse):
        monkeypatch.setattr(module, "trace", functools.partial(counted, "trace", trace))
    monkeypatch.setattr(collapse, "PathProbe", functools.partial(counted, "probe", probe))
    sf.max_compression(net, "path")
    assert count == {"trace": 2, "probe": 1}  # what is counted, and on which paths


def test_max_compression_of_chains_and_residual_networks():
    assert sf.max_compression(narrow_vgg16(), "layer") == sf.max_compression(narrow_vgg16(), "path")
    net = seeded(Residual)
    assert sf.max_compression(net) == (20 + 15 + 12 + 6) / 4
    assert sf.max_compression(net, "path") == (20 + 15 + 12 + 6) / 2
    resnet20, resnet18 = sf.models.resnet20(seed=0), sf.models.resnet18(seed=0)
    assert sf.max_compression(resnet20, "path") == 270_896 / 4
    assert sf.max_compression(resnet20, "layer") == 270_896 / 22
    assert sf.max_compression(resnet18, "path") == 11_164_352 / 5
    assert sf.max_compression(sf.models.vgg16(seed=0)) == 14_715_584 / 14
    assert sf.max_compression(mlp(3, 4, 2), keep=["0"]) == 8.0
    assert sf.max_compression(mlp(3, 4, 2), "path", keep=["0"]) == 8.0


# ------------------------------------------------------------------------------ rho_cr


def walked(net, order, criterion):
    """The fewest weights that may be kept of an order of removal; asks at every count."""
    paths = Paths(net, net.input_shape)
    names = {name: p.shape for name, p in sf.prunable(net).items()}
    total = len(order)
    smallest = total
    for kept in range(total, 0, -1):
        flat = torch.zeros(total, dtype=torch.bool)
        flat[order[:kept]] = True
        parts = flat.split([shape.numel() for shape in names.values()])
        masks = {n: p.view(s) for (n, s), p in zip(names.items(), parts, strict=True)}
        if criterion == "layer":
            alive = all(mask.any() for mask in masks.values())
        else:
            alive = paths.connected(masks)
        if not alive:
            break
        smallest = kept
    return smallest


@pytest.mark.in_turn
@pytest.mark.parametrize("criterion", ["layer", "path"])
@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow"])
@pytest.mark.parametrize("name", ["mlp", "residual", "strided", "flattened", "shared", "dag"])
def test_critical_compression_of_one_score_is_exact(name, method, criterion):
    for seed, ties in [(0, False), (1, True)]:
        net = make(name)
        net = seeded(lambda net=net: net, seed)
        if ties:
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.copy_(parameter.clamp(-1.2, 1.2).round())
        batch = images(net)
        scores = torch.cat([s.flatten() for s in sf.score(net, method, batch).values()])
        zero = torch.cat([weight.detach().flatten() for weight in sf.prunable(net).values()]) == 0
        # A weight that is zero is pruned already, whatever its score.
        order = scores.masked_fill(zero, -torch.inf).argsort(descending=True, stable=True)
        found = sf.critical_compression(net, method, criterion, batch, iterations=1)
        assert found.kept == walked(net, order, criterion)
        assert found.compression == len(order) / found.kept
        assert found.criterion == criterion
        assert found.max_compression == sf.max_compression(net, criterion)
        assert found.resolution == 1.0 and found.how.startswith("exact")
        at = sf.prune(net, method, found.compression, batch, iterations=1)
        assert not sf.is_collapsed(net, at, criterion)
        if found.kept > 1:
            below = sf.prune(net, method, len(order) / (found.kept - 1), batch, iterations=1)
            assert sf.is_collapsed(net, below, criterion)


@pytest.mark.parametrize("method", ["magnitude", "random", "snip", "grasp"])
def test_one_shot_methods_stop_short_of_rho_max(method):
    net = narrow_vgg16(width=8)
    found = {
        criterion: sf.critical_compression(net, method, criterion, images(net))
        for criterion in ("layer", "path")
    }
    assert found["path"].compression <= found["layer"].compression < found["layer"].max_compression
    assert not found["layer"].is_maximal and not found["path"].is_maximal


@pytest.mark.parametrize("criterion", ["layer", "path"])
def test_synflow_with_the_cut_schedule_is_maximal(criterion):
    found = sf.critical_compression(narrow_vgg16(), "synflow", criterion)
    assert found.is_maximal and found.kept == 14
    assert found.compression == found.max_compression
    assert "cut schedule" in found.how and found.resolution == 1.0
    if criterion == "path":
        assert sf.critical_compression(narrow_resnet(), "synflow", "path").is_maximal


def test_a_fixed_schedule_is_found_to_a_stated_resolution():
    net = narrow_vgg16()
    options = {"iterations": 3, "resolution": 1.3}
    for method in ("magnitude", "synflow"):
        found = sf.critical_compression(net, method, "path", **options)
        assert found.resolution == 1.3 and "3 iterations" in found.how
        masks = sf.prune(net, method, found.compression, iterations=3)
        assert masks.kept == found.kept
        assert not sf.is_collapsed(net, masks, "path")
        if not found.is_maximal:
            total = masks.total
            ladder = _ladder(total, found.max_compression, 1.3)
            next_kept = ladder[ladder.index(found.kept) + 1]
            assert next_kept >= found.kept / 1.3 - 1
            worse = sf.prune(net, method, total / next_kept, iterations=3)
            assert sf.is_collapsed(net, worse, "path")


@given(st.integers(2, 10**7), st.floats(1.0, 1000.0), st.floats(1.01, 3.0))
def test_the_ladder_goes_from_all_weights_to_rho_max(total, limit, resolution):
    limit = min(limit, total)
    ladder = _ladder(total, limit, resolution)
    assert ladder[0] == total and ladder[-1] == max(1, round(total / limit))
    assert all(a > b for a, b in zip(ladder, ladder[1:], strict=False))


@given(st.integers(1, 60), st.data())
def test_bisection_finds_the_last_place(count, data):
    last = data.draw(st.integers(0, count - 1))
    assert _last_true(lambda place: place <= last, count) == last


def test_seed_mode_loss_and_keep_reach_the_method():
    net = narrow_vgg16(width=2)
    batch = images(net)
    one, two = (sf.critical_compression(net, "random", seed=seed) for seed in (0, 1))
    assert one.kept != two.kept
    train = sf.critical_compression(net, "snip", "layer", batch)
    evaluation = sf.critical_compression(net, "snip", "layer", batch, mode="eval")
    assert train.kept != evaluation.kept
    kept = sf.critical_compression(net, "magnitude", keep=["0"])
    total = sum(p.numel() for n, p in weights_of(net).items() if n != "0.weight")
    assert kept.compression == total / kept.kept


def test_data_that_can_be_read_once_is_enough_for_a_search():
    net = narrow_vgg16(width=2)
    options = {"iterations": 2, "resolution": 3.0}
    whole = sf.critical_compression(net, "snip", "layer", images(net), **options)
    once = sf.critical_compression(net, "snip", "layer", iter([images(net)]), **options)
    assert once == whole


# ------------------------------------------------------------------------------ bad input


def test_unknown_criteria_list_the_known_ones():
    net, masks = mlp(3, 2), sf.Masks.ones(mlp(3, 2))
    for call in (
        lambda: sf.max_compression(net, "empty"),
        lambda: sf.is_collapsed(net, masks, "empty"),
        lambda: sf.critical_compression(net, "magnitude", "empty"),
    ):
        with pytest.raises(ValueError, match=r"criterion='empty'; expected one of .*layer.*path"):
            call()


@pytest.mark.parametrize("resolution", [1.0, 0.5, float("nan"), "2", None])
def test_unfit_resolution(resolution):
    with pytest.raises(ValueError, match="resolution=.*expected a factor above 1"):
        sf.critical_compression(mlp(3, 2), "magnitude", iterations=2, resolution=resolution)


def test_masks_of_another_model_are_refused():
    net = mlp(3, 4, 2)
    for masks in (sf.Masks.ones(mlp(3, 5, 2)), sf.Masks({"x": torch.ones(1).bool()})):
        with pytest.raises(ValueError, match="the masks' '(0.weight|x)' does not fit the model"):
            sf.is_collapsed(net, masks, "path")


def test_an_input_shape_that_nothing_tells_is_asked_for():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    masks = sf.Masks.ones(net)
    for call in (sf.is_collapsed, lambda *a, **k: sf.effective_compression(*a[:2], **k)):
        with pytest.raises(ValueError, match="pass input_shape="):
            call(net, masks, "path")
    assert not sf.is_collapsed(net, masks, "path", input_shape=(1, 6, 6))
    assert sf.effective_compression(net, masks, input_shape=(1, 6, 6)) == 1.0


def test_a_network_whose_output_does_not_depend_on_its_input():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.out = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.out * 2

    with pytest.raises(ValueError, match="no path leads from the input of Constant"):
        sf.max_compression(Constant(), "path")


@pytest.mark.parametrize("criterion", ["layer", "path"])
def test_masks_that_do_not_fit_are_refused_by_name(criterion):
    net = mlp(4, 3, 2)
    other = sf.Masks({"x.weight": torch.ones(3, 4, dtype=torch.bool)})
    turned = sf.Masks({"0.weight": torch.ones(4, 3, dtype=torch.bool)})
    for masks, message in ((other, "no parameter 'x.weight'"), (turned, "'0.weight' does not fit")):
        with pytest.raises(ValueError, match=message):
            sf.is_collapsed(net, masks, criterion)
        with pytest.raises(ValueError, match=message):
            sf.effective_compression(net, masks)


def test_masks_with_the_names_of_a_wrapper_are_probed():
    net = mlp(4, 3, 2)
    bare = sf.prune(net, "magnitude", 2)
    wrapped = sf.Masks({f"module.{name}": mask for name, mask in bare.items()})
    assert not sf.is_collapsed(net, wrapped, "layer")
    assert sf.is_collapsed(net, wrapped, "path") == sf.is_collapsed(net, bare, "path")
    assert sf.effective_compression(net, wrapped) == sf.effective_compression(net, bare)


def test_input_shape_takes_numbers_of_numpy():
    net = mlp(4, 3, 2)
    assert not sf.is_collapsed(net, sf.Masks.ones(net), "path", input_shape=np.array([4]))
