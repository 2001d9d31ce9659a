"""The paper's networks: counts, shapes, order of layers, initialization, seeds, bad input."""

import operator

import numpy as np
import pytest
import torch
from torch import nn

from synflow_lib import models
from synflow_lib.data import import_torchvision
from synflow_lib.models.resnet import BasicBlock, Bottleneck

IMAGENET_FAMILY = ("resnet18", "resnet50", "wide_resnet18")
SIZES = {
    "fc": (28,),
    "conv": (28,),
    **{name: (32, 64, 224) for name in models.NAMES if name.startswith("vgg")},
    **{name: (32, 64) for name in models.NAMES if name.startswith("resnet")},
    **dict.fromkeys((*IMAGENET_FAMILY, "wide_resnet18_as_published"), (32, 64, 224)),
}
ALL = [(name, size) for name, sizes in SIZES.items() for size in sizes]
# Every network also in the variant that its defaults leave out.
VARIANTS = [(name, size, {}) for name, size in ALL]
VARIANTS += [(name, 32, {"batch_norm": False}) for name in SIZES if name.startswith("vgg")]
VARIANTS += [(name, 28, {"batch_norm": True}) for name in ("fc", "conv")]
VARIANTS += [("vgg16", 64, {"head": "mlp"}), ("vgg16", 224, {"head": "linear"})]


def make(name, size, device="meta", **arguments):
    """The network on `device` and the shape of one image; nothing is allocated on "meta"."""
    if size == 28:
        shape = (1, 28, 28)
    else:
        shape = (3, size, size)
        arguments["input_size"] = size
    with torch.device(device):
        return models.by_name(name, **arguments), shape


def prunable(model):
    return [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def leaves(model):
    return [m for m in model.modules() if not list(m.children())]


@pytest.mark.parametrize(
    ("name", "size", "arguments", "n", "layers"),
    [
        ("vgg11", 32, {}, 9_222_848, 9),
        ("vgg13", 32, {}, 9_407_168, 11),
        ("vgg16", 32, {}, 14_715_584, 14),
        ("vgg16", 32, {"num_classes": 100}, 14_761_664, 14),
        ("vgg16", 32, {"batch_norm": False}, 14_715_584, 14),
        ("vgg16", 64, {"num_classes": 200}, 14_710_464 + 512 * 200, 14),
        (
            *("vgg16", 64, {"num_classes": 200, "head": "mlp"}),
            *(14_710_464 + 2048 * 1024 + 1024 * 1024 + 1024 * 200, 16),
        ),
        ("vgg19", 32, {}, 20_018_880 + 5_120, 17),
        ("vgg19", 224, {"num_classes": 1000, "batch_norm": False}, 143_652_544, 19),
        ("resnet20", 32, {}, 270_896, 22),
        ("resnet18", 32, {}, 11_164_352, 21),
        ("fc", 28, {}, 784 * 100 + 4 * 100 * 100 + 100 * 10, 6),
        ("conv", 28, {}, 9 * 32 + 9 * 32 * 32 + 32 * 28 * 28 * 10, 3),
    ],
)
def test_counts(name, size, arguments, n, layers):
    weights = prunable(make(name, size, **arguments)[0])
    assert sum(w.numel() for w in weights) == n
    assert len(weights) == layers


@pytest.mark.parametrize("depth", [20, 110])
def test_cifar_resnet_depth_is_the_one_in_its_name(depth):
    weights = prunable(make(f"resnet{depth}", 32)[0])
    # Two of the convolutions are the 1x1 shortcuts, which the name does not count.
    assert sum(tuple(w.shape[2:]) == (1, 1) for w in weights) == 2
    assert len(weights) - 2 == depth


@pytest.mark.parametrize(("name", "size", "arguments"), VARIANTS)
def test_shapes_order_tracing_and_layers(name, size, arguments):
    """Everything about the structure, with one forward pass that computes nothing."""
    model, shape = make(name, size, num_classes=7, **arguments)
    calls = []
    for module in leaves(model):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    assert model(torch.empty(2, *shape, device="meta")).shape == (2, 7)
    # registered in the order of execution, and no module twice
    assert [id(m) for m in calls] == [id(m) for m in leaves(model)]
    # PyTorch's own layers; no bias in front of a BatchNorm, one everywhere else
    for module in model.modules():
        own = (BasicBlock, Bottleneck)
        assert type(module).__module__.startswith("torch.nn.modules") or type(module) in own
    for module, follower in zip(calls, [*calls[1:], None], strict=True):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            normalized = isinstance(follower, (nn.BatchNorm1d, nn.BatchNorm2d))
            assert (module.bias is None) == normalized
    assert not any(getattr(module, "inplace", False) for module in calls)
    graph = torch.fx.symbolic_trace(model).graph
    kinds = {node.op for node in graph.nodes}
    assert kinds <= {"placeholder", "call_module", "call_function", "output"}
    functions = {node.target for node in graph.nodes if node.op == "call_function"}
    assert functions <= {operator.add}


@pytest.mark.parametrize(
    ("size", "head", "side"),
    [(32, None, 2), (64, None, 4), (64, "mlp", 2), (224, None, 7), (224, "linear", 14)],
)
def test_map_in_front_of_the_vgg_head(size, head, side):
    model, shape = make("vgg11", size, head=head)
    features = model.features(torch.empty(1, *shape, device="meta"))
    assert features.shape == (1, 512, side, side)


@pytest.mark.parametrize("name", ["conv", "vgg11", "resnet20", "resnet50"])
def test_trace_computes_the_same(name):
    model, shape = make(name, SIZES[name][0], device="cpu", seed=0)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    model.eval()
    y = model(x)
    assert y.isfinite().all()
    assert y.std() > 0
    assert torch.equal(torch.fx.symbolic_trace(model)(x), y)


@pytest.mark.parametrize("name", [name for name, sizes in SIZES.items() if 32 in sizes])
def test_in_channels(name):
    model, _ = make(name, 32, in_channels=1)
    assert model(torch.empty(2, 1, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((f"vgg{depth}", {"batch_norm": False}) for depth in (11, 13, 16, 19)),
        *((f"resnet{depth}", {}) for depth in (18, 50)),
    ],
)
def test_imagenet_parameters_are_torchvisions(name, arguments):
    theirs = import_torchvision("torchvision.models")
    ours, _ = make(name, 224, num_classes=1000, **arguments)
    with torch.device("meta"):
        expected = getattr(theirs, name)(num_classes=1000)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in expected.state_dict().items()}
    if name.startswith("vgg"):
        plain = str(expected).replace("inplace=True", "")
        for part in ("features", "classifier"):
            assert str(getattr(ours, part)) in plain.replace("\n  ", "\n")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_resnet_computes_what_torchvisions_does(name):
    expected = getattr(import_torchvision("torchvision.models"), name)(num_classes=10).eval()
    ours, _ = make(name, 224, device="cpu")
    ours.load_state_dict(expected.state_dict())
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.eval()(x), expected(x))


def test_wide_is_wide_and_the_published_one_is_not():
    plain = [tuple(w.shape) for w in prunable(make("resnet18", 64)[0])]
    published = [tuple(w.shape) for w in prunable(make("wide_resnet18_as_published", 64)[0])]
    assert published == plain
    for width in (1, 2, 3):
        wide = [tuple(w.shape) for w in prunable(make("wide_resnet18", 64, width=width)[0])]
        for (n_out, n_in, *kernel), shape in zip(plain[1:-1], wide[1:-1], strict=True):
            assert shape == (width * n_out, width * n_in, *kernel)


def test_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second, other = (models.resnet20(seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_manual_seed_gives_the_weights_of_the_same_seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        drawn = models.conv().state_dict()
        again = models.conv().state_dict()
    seeded = models.conv(seed=3).state_dict()
    assert all(torch.equal(drawn[key], seeded[key]) for key in seeded)
    assert not torch.equal(drawn["0.weight"], again["0.weight"])


def test_default_dtype_is_respected():
    torch.set_default_dtype(torch.float64)
    try:
        model = models.conv(seed=0, batch_norm=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("name", "size", "arguments", "conv_fan"),
    [
        ("vgg11", 32, {}, "fan_in"),
        ("vgg11", 64, {"head": "mlp"}, "fan_out"),
        ("resnet20", 32, {}, "fan_in"),
        ("resnet18", 32, {}, "fan_out"),
    ],
)
def test_initialization(name, size, arguments, conv_fan):
    model, _ = make(name, size, device="cpu", seed=0, **arguments)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight.detach()
            fan = weight[0].numel()
            if isinstance(module, nn.Conv2d) and conv_fan == "fan_out":
                fan = weight[:, 0].numel()
            std = (2 / fan) ** 0.5
            if isinstance(module, nn.Linear) and arguments:
                std = 0.01
            # four standard errors of the standard deviation of a normal sample
            assert abs(weight.std().item() / std - 1) < 4 / (2 * weight.numel()) ** 0.5
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.running_var == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert module.num_batches_tracked == 0
            assert module.weight.requires_grad
    assert model.training


def test_initialization_empties_layers_where_the_published_runs_did():
    """VGG-16, 100 classes, magnitude: empty layers published at alpha 2.75, 3 and 4.75 (fig. 1).

    They depend on the initialization alone: fan_out would give 5, 8 and 13.
    """
    weights = [w.detach().abs().flatten() for w in prunable(models.vgg16(100, seed=0))]
    n = sum(w.numel() for w in weights)
    largest = torch.cat(weights).topk(round(n / 10**2.75)).values  # falling
    empty = {}
    for alpha in (2.75, 3.0, 4.75):
        threshold = largest[round(n / 10**alpha) - 1]
        empty[alpha] = sum(bool(w.max() < threshold) for w in weights)
    assert empty[2.75] == 0
    assert empty[3.0] in (4, 5)
    assert empty[4.75] == 13


def test_initializing_draws_each_weight_once_in_forward_order():
    """The draws depend on the shapes only: a plain loop over the layers repeats them."""
    generator = torch.Generator().manual_seed(5)
    for weight in prunable(models.vgg11(seed=5)):
        expected = torch.empty_like(weight).detach()
        nn.init.kaiming_normal_(expected, nonlinearity="relu", generator=generator)
        # Ours are the same on every processor, torch's up to its rounding in float32.
        torch.testing.assert_close(
            weight.detach(), expected, rtol=0, atol=3e-6 * float(expected.std())
        )


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_numbers_of_numpy_and_torch(kind):
    one = models.fc(num_classes=5, depth=2, seed=3)
    two = models.fc(num_classes=kind(5), depth=kind(2), seed=kind(3))
    assert all(map(torch.equal, one.parameters(), two.parameters()))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vgg16", {"input_size": 48}, "input_size is 48; expected one of 32, 64, 224"),
        ("vgg16", {"input_size": True}, "input_size is True"),
        ("resnet18", {"input_size": 28}, "input_size is 28; expected one of 32, 64, 224"),
        ("resnet20", {"input_size": 224}, "input_size is 224; expected one of 32, 64"),
        ("vgg11", {"head": "mlp"}, "head is 'mlp'; expected one of 'linear'"),
        ("vgg11", {"batch_norm": "False"}, "batch_norm is 'False'; expected one of True, False"),
        ("fc", {"batch_norm": None}, "batch_norm is None"),
        ("conv", {"batch_norm": "yes"}, "batch_norm is 'yes'"),
        ("vgg19", {"num_classes": 0}, "num_classes=0"),
        ("resnet50", {"num_classes": 2.0}, "num_classes=2.0"),
        ("resnet110", {"in_channels": -1}, "in_channels=-1"),
        ("wide_resnet18", {"width": 0}, "width=0"),
        ("fc", {"width": 0}, "width=0"),
        ("fc", {"depth": 0}, "depth=0"),
        ("fc", {"input_shape": (1, 0)}, r"input_shape is \(1, 0\)"),
        ("fc", {"input_shape": 28}, "input_shape is 28"),
        ("conv", {"depth": 1}, "depth=1; expected a whole number from 2"),
        ("conv", {"input_shape": (28, 28)}, "expected 3 positive integers"),
        ("conv", {"seed": -1}, "seed=-1"),
        ("conv", {"seed": "0"}, "seed='0'"),
        ("vgg12", {}, "name is 'vgg12'.*'vgg11'.*'resnet20'"),
    ],
)
def test_bad_input(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        models.by_name(name, **arguments)


def test_every_public_model_is_listed():
    public = set(models.__all__) - {"NAMES", "by_name"}
    assert set(models.NAMES) == public
    assert set(SIZES) == public
