"""Training without dead units: the same weights, statistics and history as masked training."""

import copy
import itertools

import numpy as np
import pytest
import torch
from networks import seeded
from torch import nn

import synflow_lib as sf
from synflow_lib.training import alive
from synflow_lib.training.alive import Alive, living_parts
from synflow_lib.training.learners import One
from synflow_lib.training.recipes import Recipe

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
            *(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU()),
            nn.Conv2d(8, 8, 3),
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


@pytest.mark.in_turn
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


def test_a_constant_that_learns_stays_and_a_silent_one_goes():
    """Three units without inputs, drawn by hand: bias above zero, zero, and below."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10)).double()
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([0.0, 0.5, 0.0, -0.5]))
    first = torch.zeros(4, 64, dtype=torch.bool)
    first[0] = True
    masks = sf.Masks({"1.weight": first, "3.weight": torch.ones(10, 4, dtype=torch.bool)})
    small = living_parts(copy.deepcopy(net), masks, SHAPE).net
    assert small[1].bias.tolist() == [0.0, 0.5]
    assert_same_training(net, masks, RECIPE)
    leaky = copy.deepcopy(net)
    leaky[2] = nn.LeakyReLU()  # lets the gradient of a bias of zero through
    assert living_parts(copy.deepcopy(leaky), masks, SHAPE).net[1].out_features == 4
    assert_same_training(leaky, masks, RECIPE)


@pytest.mark.parametrize(
    ("activation", "bias", "recipe", "leaves"),
    [
        (nn.ReLU, -0.002, Recipe(3, 0.05, 20, weight_decay=5e-3), True),
        (nn.ReLU, -0.002, Recipe(3, 0.01, 20, "adam"), True),
        (nn.ReLU, -0.002, Recipe(3, 0.01, 20, "adam", weight_decay=5e-3), False),  # steps past 0
        (nn.ReLU, -0.002, Recipe(5, 0.9, 20, weight_decay=0.9), False),  # as a pendulum does
        (nn.ReLU, -0.002, Recipe(5, 0.9, 20, momentum=0.0, weight_decay=0.9), True),
        (nn.Hardswish, -3.02, Recipe(3, 0.05, 20, weight_decay=0.04), False),  # silent below -3
    ],
)
def test_weight_decay_may_wake_a_silent_unit(activation, bias, recipe, leaves):
    net = seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), activation(), nn.Linear(4, 10))
    ).double()
    masks = sf.Masks.ones(net)
    masks["1.weight"][2] = False
    with torch.no_grad():
        net[1].bias[2] = bias
    assert_same_training(net, masks, recipe)
    learner = alive.learner_for(copy.deepcopy(net), masks, DIGITS, recipe, compact=True)
    assert learner.parts.net[1].out_features == (3 if leaves else 4)
    biases = []  # a control: those that stay do wake
    sf.train(
        net, masks, DIGITS, recipe, compact=False,
        after_epoch=lambda _, model: biases.append(model[1].bias[2].item()),
    )  # fmt: skip
    assert (activation()(torch.tensor(biases)) != 0).any().item() is not leaves


def test_how_much_decay_only_shrinks():
    """By hand: a number with no gradient but its own decay, at rates that rise and fall."""
    generator = torch.Generator().manual_seed(0)
    crossed = {True: 0, False: 0}
    for trial in range(200):
        momentum, share = (float(v) for v in torch.rand(2, generator=generator))
        decay = 3 * share * (1 - momentum**0.5) ** 2
        recipe = Recipe(1, 1.0, momentum=momentum, weight_decay=decay)
        number = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = recipe.build_optimizer([number])
        lowest = 1.0
        for _ in range(60):
            rate = 1.0 if trial % 2 else float(torch.rand((), generator=generator))
            optimizer.param_groups[0]["lr"] = rate
            number.grad = torch.zeros(1, dtype=torch.float64)
            optimizer.step()
            lowest = min(lowest, float(number.detach()))
        crossed[alive._flips(recipe)] += lowest < 0
    assert crossed[False] == 0 and crossed[True] > 10


def test_statistics_from_before_fade_as_in_masked_training():
    net, masks = pruned("VGG", "random", 30)
    sf.train(net, None, DIGITS, Recipe(1, 0.05, 20))  # beta and running mean no longer zero
    assert_same_training(net, masks, RECIPE)
    net, masks = pruned("VGG", "random", 30)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain averages
            module.running_var.fill_(2.0)
    parts = living_parts(copy.deepcopy(net), masks, SHAPE)
    assert sum(int(rows.sum()) for rows in parts.fading.values()) > 3
    assert_same_training(net, masks, RECIPE)


def test_the_whole_network_is_seen_after_each_epoch_and_left_in_its_mode():
    net, masks = pruned("VGG", "synflow", 20)
    net.eval()
    seen = {True: [], False: []}
    for compact, states in seen.items():
        sf.train(
            copy.deepcopy(net), masks, DIGITS, RECIPE, compact=compact,
            after_epoch=lambda epoch, model, states=states: states.append(
                (epoch, model.training, model[0].weight.detach().clone())
            ),
        )  # fmt: skip
    for (epoch, mode, weight), (same_epoch, same_mode, other) in zip(*seen.values(), strict=True):
        assert (epoch, mode) == (same_epoch, same_mode)
        assert torch.allclose(weight, other, rtol=1e-8, atol=1e-10)
    sf.train(net, masks, DIGITS, RECIPE, compact=True)
    assert not net.training


def biased(momentum):
    """Convolutions with a bias in front of BatchNorm: without inputs, constants that it sees."""
    return seeded(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(128, 10)),
        )
    ).double()


@pytest.mark.parametrize("momentum", [None, 0.1, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_where_rounding_decides_batch_norm_is_named_and_the_whole_is_trained(
    momentum, optimizer, monkeypatch
):
    net = biased(momentum)
    with torch.no_grad():  # at the kink of ReLU
        net[1].bias.zero_()
    masks = sf.Masks.ones(net)
    masks["0.weight"][:4] = False
    masks["3.weight"][4:] = False
    recipe = Recipe(3, 0.01, 20, optimizer, weight_decay=0.01)
    with pytest.raises(ValueError, match=r"BatchNorm \(1\) makes rounding errors"):
        sf.train(copy.deepcopy(net), masks, DIGITS, recipe, compact=True)
    monkeypatch.setattr(alive, "_SAVED", 0.0)
    histories = [
        sf.train(copy.deepcopy(net), masks, DIGITS, recipe, compact=compact).history
        for compact in (None, False)
    ]
    np.testing.assert_array_equal(*histories)


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_a_constant_that_running_means_follow_stays(momentum):
    """Decay takes it towards zero, past its running mean: what was silent sounds."""
    net = biased(momentum)
    masks = sf.Masks.ones(net)
    masks["0.weight"][:2] = False
    with torch.no_grad():
        net[0].bias.fill_(-0.3)
        net[1].bias.fill_(-0.01)
        net[1].running_mean.zero_()
    net[1].requires_grad_(False)
    assert_same_training(net, masks, Recipe(12, 0.1, 20, momentum=0.0, weight_decay=0.5))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_plain_averages_under_any_optimizer(optimizer):
    net, masks = pruned("VGG", "random", 30)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    assert_same_training(net, masks, Recipe(3, 0.01, 20, optimizer, weight_decay=0.01))


def write_weight(model):
    with torch.no_grad():
        model[0].weight.mul_(0.5).add_(0.01)


def write_statistics(model):
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).running_mean.add_(0.5)


def freeze(model):
    model[0].weight.requires_grad_(False)


def set_momentum(model):
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).momentum = 0.5


@pytest.mark.parametrize("change", [write_weight, write_statistics, freeze, set_momentum])
def test_what_a_callback_changes_counts_or_is_refused(change, monkeypatch):
    net, masks = pruned("VGG", "synflow", 20)
    monkeypatch.setattr(alive, "_SAVED", 0.0)

    def trained(compact, act=change):
        mine = copy.deepcopy(net)
        call = act and (lambda epoch, model: act(model) if epoch == 1 else None)
        history = sf.train(mine, masks, DIGITS, RECIPE, compact=compact, after_epoch=call).history
        assert not mine[0].weight[~masks["0.weight"]].any()
        return history, mine.state_dict()

    (history, state), (whole, wanted) = trained(None), trained(False)
    np.testing.assert_array_equal(history, whole)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    _, untouched = trained(False, None)
    assert any(not torch.equal(untouched[name], wanted[name]) for name in wanted)
    with pytest.raises(ValueError, match="after_epoch changed"):
        trained(True)


class Killed(Exception):
    pass


def test_deterministic_algorithms_do_all_of_it():
    net, masks = pruned("VGG", "synflow", 20)
    wanted = sf.train(copy.deepcopy(net), masks, DIGITS, RECIPE, compact=True)
    torch.use_deterministic_algorithms(True)
    try:
        got = sf.train(net, masks, DIGITS, RECIPE, compact=True)
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_array_equal(got.history, wanted.history)


def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path):
    net, masks = pruned("VGG", "synflow", 20)
    whole, first, second = (copy.deepcopy(net) for _ in range(3))
    options = {"compact": True, "checkpoint": tmp_path / "run.pt", "save_every": 0.0}
    wanted = sf.train(whole, masks, DIGITS, RECIPE, compact=True)

    def kill(epoch, model):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        sf.train(first, masks, DIGITS, RECIPE, after_epoch=kill, **options)
    assert not torch.equal(first[0].weight, net[0].weight)  # what it has reached is kept
    got = sf.train(second, masks, DIGITS, RECIPE, **options)
    assert got.resumed == 1
    np.testing.assert_array_equal(got.history, wanted.history)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def dropout():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 9), nn.Linear(9, 10))


def hooked():
    net = mlp_with(nn.ReLU())
    net[1].register_forward_hook(lambda *_: None)
    return net


def mlp_with(activation):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), activation, nn.Linear(9, 10))


class Sized(nn.Module):
    """Spells the number of its units out."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 9), nn.Linear(9, 10)

    def forward(self, x):
        return self.b(self.a(x.flatten(1)).relu().view(-1, 9))


class Counting(nn.Module):
    """Divides by the number of its units, which nothing in its graph shows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 9), nn.Linear(9, 10)

    def forward(self, x):
        return self.b(self.a(x.flatten(1)).relu() / self.a.out_features)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (dropout, "dropout"),
        (hooked, "hooks"),
        (lambda: mlp_with(nn.LayerNorm(9)), "LayerNorm"),
        (lambda: mlp_with(nn.Softmax(1)), "Softmax"),
        (Sized, "fewer units"),
        (Counting, "train otherwise"),
    ],
)
def test_what_cannot_be_taken_apart_is_named_and_trained_whole(make, why, monkeypatch):
    net = seeded(make)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    masks = sf.Masks.ones(net)
    for mask in masks.values():  # of every layer one unit lives; the others go
        mask.zero_()[0, 0] = True
    with pytest.raises(ValueError, match=why):
        sf.train(copy.deepcopy(net), masks, DIGITS, RECIPE, compact=True)
    monkeypatch.setattr(alive, "_SAVED", 0.0)
    results = [
        sf.train(copy.deepcopy(net), masks, DIGITS, RECIPE, compact=c) for c in (None, False)
    ]
    np.testing.assert_array_equal(*(result.history for result in results))


def test_by_default_only_long_trainings_are_compact(monkeypatch):
    net, masks = pruned("VGG", "synflow", 20)

    def chosen(compact=None, masks=masks):
        return type(alive.learner_for(copy.deepcopy(net), masks, DIGITS, RECIPE, compact=compact))

    assert chosen() is One and chosen(True) is Alive and chosen(False) is One
    monkeypatch.setattr(alive, "_SAVED", 1e6)
    assert chosen() is Alive
    assert chosen(masks=None) is One
    assert chosen(masks=sf.Masks.ones(net)) is One  # nothing saved
    with pytest.raises(TypeError, match="compact='yes'"):
        chosen("yes")


def test_masks_of_another_network_are_an_error_as_ever():
    net, _ = pruned("VGG", "random", 2)
    other = sf.Masks({"0.weight": torch.ones(1, 1, 3, 3, dtype=torch.bool)})
    for compact in (True, False):
        with pytest.raises(ValueError, match=r"'0\.weight' has shape"):
            sf.train(net, other, DIGITS, RECIPE, compact=compact)
