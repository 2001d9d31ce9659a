"""Dead units taken out, multiply-adds counted, effective compression of networks drawn by hand."""

import copy

import pytest
import torch
from networks import (
    Decoder,
    Mobile,
    everything,
    mlp,
    narrow_resnet,
    narrow_vgg16,
    seeded,
    with_shape,
)
from torch import nn

import synflow_lib as sf
from synflow_lib.surgery import flops, without_dead_units


def difference(net, small, masks, shape, count=6):
    """The largest difference of the outputs, relative to the largest output."""
    wanted_of, small = masks.apply_(copy.deepcopy(net)).eval(), copy.deepcopy(small).eval()
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        wanted, got = wanted_of(x), small(x)
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))


def size(net):
    return sum(p.numel() for p in net.parameters())


NETWORKS = {
    "perceptron": lambda: (mlp(6, 12, 12, 4), (6,)),
    "with biases": lambda: (mlp(6, 12, 12, 4, bias=True), (6,)),
    "with BatchNorm": lambda: (mlp(6, 12, 12, 4, bias=True, batch_norm=True), (6,)),
    "VGG": lambda: (narrow_vgg16(batch_norm=False), (3, 16, 16)),
    "VGG with BatchNorm": lambda: (narrow_vgg16(), (3, 16, 16)),
    "ResNet": lambda: (narrow_resnet(), narrow_resnet().input_shape),
    "flattened maps": lambda: (
        seeded(
            lambda: nn.Sequential(
                nn.Conv2d(2, 6, 3, stride=2, padding=1),
                nn.BatchNorm2d(6),
                nn.GELU(),
                nn.AvgPool2d(3, 1, padding=1),
                nn.Conv2d(6, 6, 3),
                nn.Sigmoid(),
                nn.Flatten(),
                nn.Linear(6 * 2 * 2, 3),
            )
        ),
        (2, 8, 8),
    ),
}


class Contiguous(nn.Sequential):
    input_shape = (6,)

    def forward(self, x):
        return self[1](self[0](x).relu().contiguous())


NETWORKS["contiguous"] = lambda: (
    seeded(lambda: Contiguous(nn.Linear(6, 9), nn.Linear(9, 3))),
    (6,),
)


@pytest.mark.in_turn
@pytest.mark.parametrize("method", ["random", "magnitude", "synflow"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_is_the_same_function(name, method):
    net, shape = NETWORKS[name]()
    before = everything(net)
    for compression in (2, 8, 40):
        masks = sf.prune(net, method, compression, input_shape=shape)
        small = without_dead_units(net, masks, input_shape=shape)
        assert difference(net, small, masks, shape) <= 1e-12
        assert size(small) <= size(net) + sum(m.numel() for m in masks.values())
    assert everything(net).keys() == before.keys()
    assert torch.equal(next(net.parameters()), next(NETWORKS[name]()[0].parameters()))


def test_a_chain_without_constants_keeps_exactly_the_units_on_paths():
    net = narrow_vgg16(batch_norm=False)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.zero_() if name.endswith("bias") else parameter.abs_()
    masks = sf.prune(net, "magnitude", 8)
    on_path = sf.PathProbe(net).on_path(masks)
    assert on_path.kept < masks.kept  # else nothing is tested
    small = without_dead_units(net, masks)
    layers = [m for m in small if isinstance(m, (nn.Conv2d, nn.Linear))]
    for layer, mask in zip(layers[:-1], on_path.values(), strict=False):
        assert layer.weight.shape[0] == int(mask.flatten(1).any(1).sum())
    assert difference(net, small, masks, (3, 16, 16)) <= 1e-12


def test_the_masks_can_be_read_back():
    net = mlp(5, 9, 3)
    masks = sf.prune(net, "magnitude", 4)
    small = without_dead_units(net, masks)
    assert sf.Masks.from_model(small).kept == sf.PathProbe(net).on_path(masks).kept


def test_an_output_may_hold_what_is_no_tensor():
    class Counted(nn.Sequential):
        def forward(self, x):
            return {"logits": super().forward(x), "layers": 2, "loss": None}

    net = Counted(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 3))
    masks = sf.prune(net, "magnitude", 4)
    assert without_dead_units(net, masks)(torch.rand(1, 5))["layers"] == 2


def test_a_dead_unit_with_a_bias_becomes_a_bias():
    net = mlp(2, 2, 1)
    net[0].bias = nn.Parameter(torch.tensor([0.0, 3.0], dtype=torch.float64))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[2].weight.copy_(torch.tensor([[1.0, 10.0]]))
    first = torch.tensor([[True, False], [False, False]])
    masks = sf.Masks({"0.weight": first, "1.weight": torch.ones(1, 2, dtype=torch.bool)})
    small = without_dead_units(net, masks)
    assert small[0].out_features == 1
    assert small[2].bias.tolist() == [30.0]
    x = torch.tensor([[4.0, 7.0], [-1.0, 2.0]], dtype=torch.float64)
    assert small(x).flatten().tolist() == [34.0, 30.0]


def constant_channel(padding):
    """Channel 1 of the first layer is a constant 2 for the second one."""
    net = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=padding))
    )
    nn.init.constant_(net[0].bias, 2.0)
    masks = sf.Masks.ones(net)
    masks["0.weight"][1] = False
    return net, masks


def test_a_constant_seen_through_zero_padding_stays():
    for padding, channels in ((0, 1), (1, 2)):
        net, masks = constant_channel(padding)
        small = without_dead_units(net, masks, input_shape=(1, 5, 5))
        assert small[0].out_channels == channels
        assert difference(net, small, masks, (1, 5, 5)) <= 1e-12


def test_a_disconnected_network_still_runs():
    net = mlp(4, 6, 6, 2, bias=True)
    masks = sf.Masks.ones(net)
    masks["1.weight"].fill_(False)
    small = without_dead_units(net, masks)
    assert [m.out_features for m in small if isinstance(m, nn.Linear)] == [1, 1, 2]
    assert difference(net, small, masks, (4,)) <= 1e-12


def test_type_mode_and_buffers_are_those_of_the_model():
    net = mlp(4, 8, 2, batch_norm=True, dtype=torch.float32).train()
    small = without_dead_units(net, sf.prune(net, "magnitude", 6))
    assert small.training and small[0].weight.dtype == torch.float32
    assert small[1].num_features == len(small[1].running_mean) == small[0].out_features
    assert small[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize(
    ("net", "shape", "named"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1), nn.Linear(3, 3)), (3,), "Softmax"),
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3)), (3,), "LayerNorm"),
        (nn.Sequential(*[nn.Linear(3, 3)] * 2), (3,), "used 2 times"),
    ],
)
def test_networks_that_are_not_supported_are_refused(net, shape, named):
    with pytest.raises(ValueError, match=named):
        without_dead_units(net, sf.Masks.ones(net), input_shape=shape)


@pytest.mark.parametrize("make", [Mobile, Decoder])
@pytest.mark.parametrize("seed", range(4))
def test_grouped_and_transposed_convolutions(make, seed):
    """Depthwise ones lose channels, grouped ones whole groups, all of them nothing that counts."""
    net = seeded(make, seed).eval()
    masks = sf.prune(net, "random", 3, seed=seed)
    for mask in masks.values():  # in each layer a unit that hears nothing, and one nobody reads
        mask[0] = False
        mask[:, -1:] &= mask.shape[1] == 1
    small = without_dead_units(net, masks)
    assert difference(net, small, masks, net.input_shape) <= 1e-12
    assert size(small) <= size(net)


def test_a_depthwise_convolution_is_as_wide_as_what_it_reads():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.ReLU(), nn.Conv2d(12, 2, 1)
        )
    )
    masks = sf.Masks.ones(net)
    masks["0.weight"][:2] = False  # two channels are constants
    masks["3.weight"][:, 6:8] = False  # both that one channel writes are read by nobody
    small = without_dead_units(net, masks, input_shape=(3, 5, 5))
    assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (3, 3, 6)
    assert difference(net, small, masks, (3, 5, 5)) <= 1e-12


def test_a_network_may_count_its_parameters():
    class Counted(nn.Sequential):
        def num_parameters(self):
            return sum(p.numel() for p in self.parameters())

    net = Counted(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = sf.prune(net, "magnitude", 6)
    assert without_dead_units(net, masks).num_parameters() < net.num_parameters()


def test_masks_of_another_network_are_refused():
    with pytest.raises(ValueError, match="no parameter|has shape"):
        without_dead_units(mlp(3, 2, 1), sf.Masks.ones(mlp(3, 4, 1)))


class Rolls(nn.Module):
    """Moves channels by two places, and is told to be like an activation: no check can see that."""

    def forward(self, x):
        return x.roll(2, 1)


def test_a_network_that_mixes_units_by_place_is_found_out(put_back):
    net = seeded(
        lambda: nn.Sequential(nn.Linear(2, 3, bias=False), Rolls(), nn.Linear(3, 1, bias=False))
    )
    masks = sf.Masks.ones(net)
    masks["0.weight"][1:] = False
    masks["2.weight"][:, :2] = False
    with pytest.raises(ValueError, match="no conservation law"):
        without_dead_units(net, masks, input_shape=(2,))
    sf.layers.rule(Rolls, "passes")
    with pytest.raises(ValueError, match="differs by"):
        without_dead_units(net, masks, input_shape=(2,))


# ----------------------------------------------------------------------------- multiply-adds


def test_multiply_adds_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 4, 7)
    )
    masks = sf.Masks.ones(net)
    masks["0.weight"][3:] = False  # 3 of 8 filters stay
    table = flops(net, masks, input_shape=(3, 10, 8))
    assert table["layer"].tolist() == ["0.weight", "3.weight"]
    assert table["dense"].tolist() == [5 * 4 * 8 * 3 * 9, 160 * 7]
    assert table["pruned"].tolist() == [5 * 4 * 3 * 3 * 9, 160 * 7]
    assert flops(net, input_shape=(3, 10, 8))["pruned"].tolist() == table["dense"].tolist()


def test_multiply_adds_of_grouped_and_single_layers():
    net = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, bias=False))
    assert flops(net, input_shape=(4, 6, 6))["dense"].tolist() == [4 * 4 * 8 * 2 * 9]
    assert flops(nn.Linear(3, 5))["dense"].tolist() == [15]


def test_multiply_adds_of_a_tied_weight_count_at_every_use():
    net = mlp(4, 4, 4)
    net[-1].weight = net[0].weight
    assert len(net) == 3 and flops(net).values.tolist() == [["0.weight", 32, 32]]


def test_of_a_wrapped_network_the_inner_one_is_taken_apart():
    net = mlp(4, 6, 3)
    masks = sf.prune(net, "synflow", 20)
    small = without_dead_units(nn.DataParallel(net), masks)
    assert type(small) is type(net) and repr(small) == repr(without_dead_units(net, masks))


def test_multiply_adds_of_a_known_network():
    # 0.31 billion for CIFAR's VGG-16 at 32x32, the usual figure.
    assert flops(sf.models.vgg16(seed=0))["dense"].sum() == pytest.approx(3.13e8, rel=0.01)


def test_multiply_adds_refuse_what_does_not_fit():
    net = mlp(3, 4, 2)
    with pytest.raises(ValueError, match="no parameter"):
        flops(net, sf.Masks({"else": torch.ones(3, dtype=torch.bool)}))
    with pytest.raises(ValueError, match="shape"):
        flops(net, input_shape=(5,))


# ------------------------------------------------------------- effective compression, by hand


class Branches(nn.Module):
    """y = last(a(x) + b(c(x))), three units wide, 9 weights a layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.last = (nn.Linear(3, 3, bias=False) for _ in range(4))

    def forward(self, x):
        return self.last(self.a(x) + self.b(self.c(x)))


def test_a_dead_branch_counts_as_pruned():
    net = with_shape(seeded(Branches), (3,))
    masks = sf.Masks.ones(net)
    masks["c.weight"].fill_(False)  # the nine weights of b lead nowhere now
    assert masks.compression == 36 / 27
    assert sf.effective_compression(net, masks) == 36 / 18
    small = without_dead_units(net, masks)
    assert small.c.out_features == small.b.in_features == 1
    assert difference(net, small, masks, (3,)) <= 1e-12


def test_a_kernel_that_only_sees_padding_counts_as_pruned():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Flatten()))
    masks = sf.Masks.ones(net)
    masks["0.weight"][1, 0, 1, 1] = False  # on a 1x1 image only the middle tap sees anything
    assert masks.compression == 18 / 17
    assert sf.effective_compression(net, masks, input_shape=(1, 1, 1)) == 18 / 1


class Frozen(nn.Module):
    """A BatchNorm as constants, as in networks for detection."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 3, 1)
        self.register_buffer("scale", torch.rand(6) + 0.5)

    def forward(self, x):
        return self.b(self.a(x) * self.scale.reshape(1, -1, 1, 1)).mean((2, 3))


def test_a_constant_of_each_channel_stops_removal_and_no_question():
    net = seeded(Frozen)
    masks = sf.prune(net, "synflow", 6, iterations=20, input_shape=(2, 4, 4))
    assert masks.kept == 5
    scores = sf.score(net, "synflow", input_shape=(2, 4, 4))
    assert sf.check_conservation(net, scores, input_shape=(2, 4, 4)).holds()
    with pytest.raises(ValueError, match="taken out of .*, a constant of shape"):
        without_dead_units(net, masks, input_shape=(2, 4, 4))


def test_batch_norm_without_stored_statistics_is_cut_like_any_other():
    net = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 3)
    )
    masks = sf.prune(net, "magnitude", 4)
    small = without_dead_units(net, masks)
    assert small[0].out_features < 8
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = masks.apply_(copy.deepcopy(net))(x)
        torch.testing.assert_close(small(x), expected)
    assert flops(net)["dense"].tolist() == [32, 24] and net[1].running_mean is None


def test_what_is_no_network_is_refused():
    for of in (flops, lambda thing: without_dead_units(thing, None)):
        with pytest.raises(TypeError, match="model is a str; expected a Module"):
            of("vgg16")


class Drawing(nn.Module):
    """Makes a tensor of its own, and may draw or ask for another type."""

    def __init__(self, dropped: float = 0.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.dropped, self.dtype = dropped, dtype

    def forward(self, x):
        x = nn.functional.dropout(self.first(x).relu(), self.dropped, training=True)
        return self.last(x.to(self.dtype or x.dtype)) * torch.ones(1)


def test_a_tensor_that_the_forward_makes_is_no_hindrance():
    assert flops(seeded(Drawing))["dense"].tolist() == [24, 12]


def test_what_the_forward_draws_leaves_the_random_numbers():
    net, before = seeded(Drawing), torch.get_rng_state()
    without_dead_units(net, sf.prune(net, "magnitude", 4))
    assert torch.equal(before, torch.get_rng_state())


def test_a_forward_that_asks_for_float32_is_refused_by_name():
    net = seeded(lambda: Drawing(dtype=torch.float32))
    masks = sf.prune(net, "magnitude", 4)
    with pytest.raises(ValueError, match="cannot run in float64"):
        without_dead_units(net, masks)


def test_operations_under_masks_named_by_a_wrapper():
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    masks = sf.prune(net, "synflow", 20)
    expected = flops(net, masks)
    assert expected["pruned"].tolist() == masks.table()["kept"].tolist()
    renamed = sf.Masks({f"module.{name}": mask for name, mask in masks.items()})
    assert flops(net, renamed).equals(expected)
    net[0] = torch.compile(net[0], backend="eager")
    assert flops(net, masks)["pruned"].tolist() == expected["pruned"].tolist()
