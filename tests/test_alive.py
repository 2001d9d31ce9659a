"""Training without dead units: the same weights, statistics and history as masked training."""

import copy
import itertools

import numpy as np
import pytest
import torch
from networks import seeded
from torch import nn

import synflow_lib as sf
from synflow_lib.alive import living_parts
from synflow_lib.recipes import Recipe

SHAPE = (1, 8, 8)
DIGITS = sf.data.digits().subset(60, 20)
RECIPE = Recipe(3, 0.05, 20, weight_decay=5e-3, milestones=(1, 2))
METHODS = ("random", "magnitude", "snip", "grasp", "synflow")
COMPRESSIONS = (2, 6, 20, 60)


def vgg():
    return sf.models.conv(SHAPE, depth=4, width=8, batch_norm=True, seed=0)


class Residual(nn.Module):
    """Two blocks on a stream, the second with a shortcut; ReLU behind each sum."""

    input_shape = SHAPE

    def __init__(self):
        super().__init__()

        def conv(a, b, size, stride=1):
            return nn.Sequential(
                nn.Conv2d(a, b, size, stride, size // 2, bias=False), nn.BatchNorm2d(b)
            )

        self.stem = conv(1, 6, 3)
        self.a1, self.a2 = conv(6, 6, 3), conv(6, 6, 3)
        self.b1, self.b2, self.short = conv(6, 10, 3, 2), conv(10, 10, 3), conv(6, 10, 1, 2)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(10, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.a2(self.a1(x).relu()) + x).relu()
        x = (self.b2(self.b1(x).relu()) + self.short(x)).relu()
        return self.fc(self.pool(x).flatten(1))


NETWORKS = {
    "VGG": vgg,
    "ResNet": lambda: seeded(Residual),
    "perceptron": lambda: sf.models.fc(SHAPE, depth=4, width=16, seed=0),
    "perceptron with biases": lambda: seeded(
        lambda: nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)),
        )
    ),
    "LeakyReLU": lambda: seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.LeakyReLU(), nn.Conv2d(8, 8, 3)),
            *(nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)),
        )
    ),
}  # fmt: skip


def pruned(name, method, compression):
    net = NETWORKS[name]().double()
    with torch.no_grad():  # or classes that nothing reaches tie, and rounding ranks them
        list(net.parameters())[-1].add_(torch.linspace(0, 0.01, 10))
    options = {"iterations": 10} if method == "synflow" else {}
    batch = DIGITS.scoring_batch(2)
    return net, sf.prune(net, method, compression, batch, input_shape=SHAPE, **options)


def unread(net, masks):
    """BatchNorm channels from which no kept path leads to the output: an oracle by gradients.

    Positive weights and inputs, no biases, evaluation mode: nothing cancels.
    """
    net = masks.apply_(copy.deepcopy(net)).eval()
    norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.abs_() if name in masks else parameter.fill_(1.0)
    net(torch.rand(2, *SHAPE).double()).sum().backward()
    return {name: module.bias.grad == 0 for name, module in norms.items()}


def assert_same_training(net, masks, recipe, **options):
    plain, small = copy.deepcopy(net), copy.deepcopy(net)
    wanted = sf.train(plain, masks, DIGITS, recipe, compact=False, **options)
    got = sf.train(small, masks, DIGITS, recipe, compact=True, **options)
    np.testing.assert_allclose(got.history, wanted.history, rtol=1e-8, atol=1e-8)
    free = unread(net, masks)
    for name, tensor in plain.state_dict().items():
        mine = small.state_dict()[name].double()
        owner, _, kind = name.rpartition(".")
        if kind in ("running_mean", "running_var") and owner in free:
            mine, tensor = mine[~free[owner]], tensor[~free[owner]]
        scale = tensor.abs().max() if tensor.numel() else 1.0
        assert bool(((mine - tensor).abs() <= 1e-8 * scale).all()), name
    for name, mask in masks.items():
        assert not small.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_five_methods_at_four_compressions_train_as_masked(name):
    tried = 0
    few = name in ("LeakyReLU", "perceptron with biases")
    grid = [*itertools.product(METHODS, COMPRESSIONS)]
    for method, compression in grid[2::4] if few else grid:
        net, masks = pruned(name, method, compression)
        assert_same_training(net, masks, RECIPE)
        tried += bool(living_parts(net, masks, SHAPE).aside)
    print(f"{name}: {len(grid)} trainings, {tried} of them smaller")
    assert tried >= (2 if few else 8)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_what_no_path_reaches_shrinks_as_under_any_optimizer(optimizer, decay):
    net, masks = pruned("VGG", "random", 30)
    recipe = Recipe(2, 0.01, 30, optimizer, weight_decay=decay)
    assert_same_training(net, masks, recipe)
    parts = living_parts(copy.deepcopy(net), masks, SHAPE)
    name, where = next((n, w) for n, w in parts.aside.items() if n in masks)
    before = masks.apply_(copy.deepcopy(net)).get_parameter(name)[where]
    sf.train(net, masks, DIGITS, recipe, compact=True)
    after = net.get_parameter(name)[where]
    assert bool((after.abs() < before.abs()).any()) is (decay > 0)
    assert torch.equal(after, before) is (decay == 0)
