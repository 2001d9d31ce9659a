"""Iterative magnitude pruning: nested masks, exact counts, and what a rewind brings back."""

import copy

import pytest
import torch

import synflow_lib as sf
from synflow_lib.iterative import imp, imp_many, smallest_pruned
from synflow_lib.recipes import Recipe
from synflow_lib.training import train

DIGITS = sf.data.digits().subset(300, 100)
RECIPE = Recipe(2, 0.05, 64, weight_decay=1e-3)


def network(seed=0):
    return sf.models.conv((1, 8, 8), depth=3, width=8, batch_norm=True, seed=seed)


@pytest.mark.parametrize("rewind", [0, 3, None])
def test_masks_are_nested_and_exact(rewind):
    rounds = imp(network(), DIGITS, RECIPE, 27, rounds=3, rewind=rewind)
    total = rounds[0].masks.total
    assert [each.number for each in rounds] == [0, 1, 2, 3]
    assert [each.masks.kept for each in rounds] == [total, *(round(total / c) for c in (3, 9, 27))]
    for earlier, later in zip(rounds, rounds[1:], strict=False):
        assert all(bool((later.masks[n] <= m).all()) for n, m in earlier.masks.items())


def test_the_largest_trained_weights_stay():
    net = network()
    trained = copy.deepcopy(net)
    train(trained, None, DIGITS, RECIPE)
    rounds = imp(net, DIGITS, RECIPE, 5, rounds=1)
    assert rounds[1].masks == sf.prune(trained, "magnitude", 5)


def starts(rewind, rounds=2):
    """Weights, statistics and running momentum at the start of every round's training."""
    seen = []

    def look(number, epoch, net):
        if epoch == 0:
            seen.append({k: v.clone() for k, v in net.state_dict().items()})

    net = network()
    found = imp(net, DIGITS, RECIPE, 4, rounds=rounds, rewind=rewind, after_epoch=look)
    return seen, found


def test_rewinding_to_initialization_restores_weights_and_statistics():
    seen, found = starts(rewind=0)
    for each, state in zip(found[1:], seen[1:], strict=True):
        for name, first in seen[0].items():
            mask = each.masks.get(name, torch.ones_like(first, dtype=torch.bool))
            assert torch.equal(state[name], first * mask), name


def test_without_rewinding_the_trained_weights_go_on():
    seen, found = starts(rewind=None, rounds=1)
    trained = network()
    train(trained, None, DIGITS, RECIPE)
    for name, tensor in trained.state_dict().items():
        mask = found[1].masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(seen[1][name], tensor * mask), name
    assert len(found[1].training.history) == 3  # the whole schedule again


def test_rewinding_to_a_step_is_training_with_the_mask_from_there():
    """With the dense mask, a rewound round must end exactly where the first training ended."""
    net = network()
    ends = []
    imp(
        net, DIGITS, RECIPE, 1.0, rounds=2, rewind=3,
        after_epoch=lambda number, epoch, net: ends.append(
            (number, epoch, copy.deepcopy(net.state_dict()))
        ),
    )  # fmt: skip
    last = [state for number, epoch, state in ends if epoch == 2]
    assert len(last) == 3
    for state in last[1:]:
        for name, tensor in last[0].items():
            assert torch.equal(tensor, state[name]), name


def test_many_copies_are_each_as_if_alone():
    nets = [network(seed).double() for seed in (0, 1)]
    alone = [copy.deepcopy(net) for net in nets]
    expected = [
        imp(net, DIGITS, RECIPE, c, rounds=2, rewind=2, seed=s)
        for net, c, s in zip(alone, (4, 30), (0, 1), strict=True)
    ]
    found = imp_many(nets, DIGITS, RECIPE, (4, 30), rounds=2, rewind=2, seeds=(0, 1))
    for one, many in zip(expected, found, strict=True):
        for a, b in zip(one, many, strict=True):
            assert a.masks == b.masks
            assert a.training.top1 == b.training.top1


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_left_as_it_was(mode):
    net = sf.models.fc((1, 8, 8), depth=2, batch_norm=True, seed=0).train(mode)
    imp(net, sf.data.digits(), Recipe(1, 0.1), compression=4, rounds=1)
    assert net.training is mode


def test_what_was_pruned_stays_pruned_when_survivors_are_zero():
    layer = torch.nn.Linear(6, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    masks = sf.Masks({"weight": torch.tensor([[False, False, True, True, True, False]])})
    left = smallest_pruned(layer, masks, 3)
    assert left.kept == 2 and bool((left["weight"] <= masks["weight"]).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"rewind": 10_000}, "rewind=10000; expected a step from 0 to 9"),
        ({"rewind": -1}, "rewind=-1"),
        ({"compression": 0.5}, "compression"),
        ({"compression": 1e9}, "compression"),
    ],
)
def test_bad_input(options, message):
    options = {"compression": 2, **options}
    with pytest.raises(ValueError, match=message):
        imp(network(), DIGITS, RECIPE, **options)
