"""Iterative magnitude pruning: nested masks, exact counts, and what a rewind brings back."""

import copy

import numpy as np
import pytest
import torch

import synflow_lib as sf
from synflow_lib.training import alive, iterative
from synflow_lib.training.checkpoints import ForeignCheckpointError
from synflow_lib.training.epochs import Loop
from synflow_lib.training.iterative import imp, imp_many, smallest_pruned
from synflow_lib.training.learners import Learner
from synflow_lib.training.recipes import Recipe
from synflow_lib.training.train import train

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


class Counted(Loop):
    """Notes how many copies every loop trains, epoch by epoch; dies when told to."""

    copies: list[int] = []
    last = None

    def _epoch(self, epoch):
        if len(self.copies) == self.last:
            raise Killed
        self.copies.append(len(self.seeds))
        return super()._epoch(epoch)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rewind", [0, 3, None])
def test_equal_copies_share_the_dense_round(rewind, optimizer, monkeypatch):
    monkeypatch.setattr(iterative, "Loop", Counted)
    monkeypatch.setattr(Counted, "copies", [])
    recipe = Recipe(1, 0.05 if optimizer == "sgd" else 0.003, 64, optimizer)
    which, seeds, goals = (1, 0, 1, 1, 0), (0, 0, 0, 1, 0), (4, 9, 30, 4, 1)
    nets = [perceptron(each).double() for each in which]
    found = imp_many(nets, DIGITS, recipe, goals, rounds=2, rewind=rewind, seeds=seeds)
    assert Counted.copies == [3, 5, 5]  # (1, 0), (0, 0), (1, 1); epochs of three rounds
    for net, each, seed, goal, copies in zip(nets, which, seeds, goals, found, strict=True):
        alone = perceptron(each).double()
        options = {"rounds": 2, "rewind": rewind, "seed": seed}
        for a, b in zip(imp(alone, DIGITS, recipe, goal, **options), copies, strict=True):
            assert (a.number, a.masks) == (b.number, b.masks)
            np.testing.assert_allclose(a.training.history, b.training.history, rtol=1e-9)
        for mine, other in zip(net.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
    histories = [copies[0].training.history for copies in found]
    assert histories[0].equals(histories[2]) and histories[0] is not histories[2]


def test_what_is_alike():
    nets = [perceptron(0) for _ in range(6)]
    with torch.no_grad():
        weight = nets[1][1].weight
        weight[0, 0] = torch.nextafter(weight[0, 0], weight[0, 1])
    nets[3], nets[4] = network(0), network(0)
    nets[4][1].running_mean[0] = 1.0
    assert iterative._alike(nets[:3] + nets[5:], [0, 0, 0, 1]) == [0, 1, 0, 3]
    assert iterative._alike(nets[3:5], [0, 0]) == [0, 1]


# ------------------------------------------------------------------------- living units only


@pytest.mark.in_turn
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rewind", [0, None])
@pytest.mark.parametrize("make", [lambda: perceptron(), lambda: network()])
def test_rounds_without_dead_units_are_those_with_them(make, rewind, optimizer, monkeypatch):
    sizes = []

    class Noted(alive.Alive):
        def __init__(self, model, parts, **options):
            super().__init__(model, parts, **options)
            sizes.append(sum(p.numel() for p in parts.net.parameters()) < 0.9 * total)

    monkeypatch.setattr(alive, "Alive", Noted)
    rate = 0.05 if optimizer == "sgd" else 0.003
    recipe = Recipe(2, rate, 64, optimizer, weight_decay=1e-3)
    options = {"rounds": 3, "rewind": rewind, "seed": 2}
    net = make().double()
    with torch.no_grad():  # or classes that nothing reaches tie, and rounding ranks them
        list(net.parameters())[-1].add_(torch.linspace(0, 0.01, 10))
    small = copy.deepcopy(net)
    total = sum(p.numel() for p in net.parameters())
    wanted = imp(net, DIGITS, recipe, 60, compact=False, **options)
    assert not sizes
    seen = []

    def look(number, epoch, model):
        assert model is small
        seen.append(sf.Masks.from_model(model).kept)

    got = imp(small, DIGITS, recipe, 60, compact=True, after_epoch=look, **options)
    assert len(sizes) == 3 and sizes[-1]
    for a, b in zip(wanted, got, strict=True):
        assert a.masks == b.masks
        np.testing.assert_allclose(a.training.history, b.training.history, rtol=1e-8, atol=1e-8)
    assert seen == [each.masks.kept for each in wanted for _ in range(3)]
    for mine, other in zip(small.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-8)


def test_by_default_long_rounds_are_compact_and_short_ones_are_not(monkeypatch):
    made = []

    class Noted(alive.Alive):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(alive, "Alive", Noted)
    recipe = Recipe(1, 0.05, 64)
    imp(perceptron(), DIGITS, recipe, 60, rounds=1)
    assert not made
    monkeypatch.setattr(alive, "_SAVED", 1e3)
    imp(perceptron(), DIGITS, recipe, 60, rounds=1, rewind=2)
    assert not made  # momentum of units that died since
    imp(perceptron(), DIGITS, recipe, 60, rounds=1)
    assert len(made) == 1
    with pytest.raises(ValueError, match="compact=True with rewind=2; expected"):
        imp(perceptron(), DIGITS, recipe, 60, rounds=1, rewind=2, compact=True)


# ------------------------------------------------------------------------- zeros after a rewind


def perceptron(seed=0):
    return sf.models.fc((1, 8, 8), depth=3, width=20, seed=seed)


class Watched(Loop):
    """Looks at the zeros before the first step of every round and after every epoch."""

    looked = 0

    def run(self, progress=False):
        self.look()
        self.after_epoch = lambda epoch: self.look()
        return super().run(progress)

    def look(self):
        for weight, bits in self.learner.masked:
            gone = bits == 0
            memories = [m for m in self.optimizer.state[weight].values() if m.shape == weight.shape]
            for tensor in (weight, *memories):
                assert not bool((tensor[gone] != 0).any())
                Watched.looked += int(gone.sum())


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rewind", [1, 9, None])
@pytest.mark.parametrize("make", [perceptron, network])
def test_weights_and_optimizer_obey_the_masks_in_every_round(
    make, rewind, optimizer, many, monkeypatch
):
    monkeypatch.setattr(iterative, "Loop", Watched)
    monkeypatch.setattr(Watched, "looked", 0)
    recipe = Recipe(2, 0.05 if optimizer == "sgd" else 0.003, 64, optimizer, weight_decay=1e-3)
    if many:
        nets = [make(0), make(1)]
        found = imp_many(nets, DIGITS, recipe, [9, 4], rounds=2, rewind=rewind)
    else:
        nets = [make()]
        found = [imp(nets[0], DIGITS, recipe, 9, rounds=2, rewind=rewind)]
    assert Watched.looked > 1000
    for net, rounds in zip(nets, found, strict=True):
        left = sf.Masks.from_model(net)
        assert (
            left.kept == rounds[-1].masks.kept == round(left.total / (9 if net is nets[0] else 4))
        )


def test_a_rewind_that_forgets_the_optimizer_would_be_seen(monkeypatch):
    """A control: only weights are cleared after a load, as it once was."""
    monkeypatch.setattr(iterative, "Loop", Watched)
    apply = Learner.apply_masks
    forgetful = torch.optim.SGD([torch.zeros(1)])
    monkeypatch.setattr(Learner, "apply_masks", lambda self, _: apply(self, forgetful))
    with pytest.raises(AssertionError):
        imp(perceptron(), DIGITS, RECIPE, 9, rounds=1, rewind=4)


@pytest.mark.parametrize("rewind", [1, 4, 6])
def test_a_rewound_round_by_hand(rewind):
    """Dense steps, zeros in weights and momentum, then masked steps, in plain torch."""
    recipe = Recipe(2, 0.05, 75, weight_decay=1e-2)
    net = perceptron().double()
    start = copy.deepcopy(net)
    rounds = imp(net, DIGITS, recipe, 4, rounds=1, rewind=rewind, seed=3)
    masks = rounds[1].masks

    optimizer = torch.optim.SGD(
        start.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2
    )
    step = 0
    for epoch in (1, 2):
        order = torch.Generator().manual_seed(3 * 1_000_003 + epoch)
        for x, y in DIGITS.batches("train", 75, order):
            weights = {name: start.get_parameter(name) for name in masks}
            if step == rewind:
                for name, weight in weights.items():
                    weight.data *= masks[name]
                    optimizer.state[weight]["momentum_buffer"] *= masks[name]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(start(x.double()), y).backward()
            if step >= rewind:
                for name, weight in weights.items():
                    weight.grad *= masks[name]
            optimizer.step()
            step += 1
    for name, weight in start.named_parameters():
        torch.testing.assert_close(net.get_parameter(name), weight, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------- divergence


def test_a_round_that_diverges_is_the_last_and_says_why():
    [only] = imp(perceptron(), DIGITS, Recipe(2, 1e9), 9, rounds=2)
    assert only.number == 0
    assert "training loss became" in only.training.reason or "not finite" in only.training.reason


@pytest.mark.parametrize("rewind", [0, 2, None])
def test_finished_rounds_are_kept_when_a_later_one_diverges(rewind):
    def poison(number, epoch, net):
        if (number, epoch) == (2, 0):
            with torch.no_grad():
                next(net.parameters())[:] = torch.inf

    well = imp(perceptron(), DIGITS, RECIPE, 27, rounds=3, rewind=rewind)
    found = imp(perceptron(), DIGITS, RECIPE, 27, rounds=3, rewind=rewind, after_epoch=poison)
    assert [each.number for each in found] == [0, 1, 2]
    assert [each.training.reason is None for each in found] == [True, True, False]
    for a, b in zip(well[:2], found, strict=False):
        assert a.masks == b.masks and a.training.history.equals(b.training.history)


def test_a_copy_that_diverges_ends_alone():
    nets = [perceptron(0), perceptron(1)]
    with torch.no_grad():
        nets[0][1].bias[0] = torch.nan
    bad, good = imp_many(nets, DIGITS, RECIPE, [9, 9], rounds=2)
    assert len(bad) == 1 and bad[0].training.reason
    assert [each.training.reason for each in good] == [None] * 3
    assert good[-1].masks.compression == pytest.approx(9, rel=0.01)


def test_frozen_layers():
    net = perceptron()
    first = next(net.parameters()).requires_grad_(False)
    before = first.clone()
    found = imp(net, DIGITS, RECIPE, 4, rounds=2, rewind=2)
    name = next(iter(found[-1].masks))
    assert torch.equal(first, before * found[-1].masks[name])


def test_numpys_numbers():
    options = {"rounds": np.int64(2), "rewind": np.int32(3), "seed": np.int64(1)}
    found = imp(perceptron(), DIGITS, RECIPE, np.float64(4), **options)
    plain = imp(perceptron(), DIGITS, RECIPE, 4, rounds=2, rewind=3, seed=1)
    assert [a.masks == b.masks for a, b in zip(found, plain, strict=True)] == [True] * 3
    imp_many([perceptron()] * 2, DIGITS, RECIPE, np.array([2, 4]), rounds=1, seeds=np.arange(2))


# ------------------------------------------------------------------------- checkpoints


class Killed(BaseException):
    pass


def assert_same_round(a, b):
    assert a.number == b.number and a.masks == b.masks
    assert a.training.history.equals(b.training.history)
    assert a.training.reason == b.training.reason


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("make", "optimizer", "rewind", "compact"),
    [
        (network, "sgd", 3, None),
        (perceptron, "sgd", None, None),
        (perceptron, "adam", 0, None),
        (network, "adam", 7, None),
        (network, "sgd", None, True),
        (perceptron, "adam", 0, True),
    ],
)
def test_killed_at_any_epoch_it_ends_as_if_never_stopped(
    tmp_path, make, optimizer, rewind, compact
):
    file, recipe = tmp_path / "imp.pt", Recipe(2, 0.01, 64, optimizer)

    def run(net, look, **options):
        return imp(
            net, DIGITS, recipe, 9, rounds=2, rewind=rewind, seed=5, compact=compact,
            after_epoch=lambda number, epoch, _: look((number, epoch)), **options,
        )  # fmt: skip

    straight, calls = make(), []
    expected = run(straight, calls.append)
    starts = [call for k, call in enumerate(calls) if k == 0 or calls[k - 1][0] != call[0]]
    for k, when in enumerate(calls):

        def kill(call, when=when):
            if call == when:
                raise Killed

        with pytest.raises(Killed):
            run(make(), kill, checkpoint=file, save_every=0)
        net, seen = make(), []
        found = run(net, seen.append, checkpoint=file, save_every=0)
        # What was saved is not done again; nothing is saved before the first epoch of a round.
        assert seen[0] == (calls[k - 1] if k and calls[k - 1] in starts else when)
        for a, b in zip(expected, found, strict=True):
            assert_same_round(a, b)
        for name, tensor in straight.state_dict().items():
            assert torch.equal(net.state_dict()[name], tensor), name
        assert not file.exists()
    print(f"{len(calls)} kills")


def test_many_copies_resume(tmp_path, monkeypatch):
    file, recipe = tmp_path / "imp.pt", Recipe(3, 0.05, 64)
    options = {"rounds": 2, "rewind": 2, "seeds": [1, 2]}

    def nets():
        pair = [perceptron(0), perceptron(1)]
        with torch.no_grad():
            pair[0][1].bias[0] = torch.nan  # ended before the kill, and afterwards too
        return pair

    straight = nets()
    expected = imp_many(straight, DIGITS, recipe, [4, 9], **options)
    epochs = []

    class Dying(Loop):
        def _epoch(self, epoch):
            epochs.append(epoch)
            if len(epochs) == 6:
                raise Killed
            return super()._epoch(epoch)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(iterative, "Loop", Dying)
        imp_many(nets(), DIGITS, recipe, [4, 9], **options, checkpoint=file, save_every=0)
    resumed = nets()
    found = imp_many(resumed, DIGITS, recipe, [4, 9], **options, checkpoint=file)
    for a, b in zip(expected, found, strict=True):
        for one, other in zip(a, b, strict=True):
            assert_same_round(one, other)
    for name, tensor in straight[1].state_dict().items():
        assert torch.equal(resumed[1].state_dict()[name], tensor), name
    assert not file.exists()


@pytest.mark.in_turn
@pytest.mark.parametrize("rewind", [0, 7, None])
def test_copies_that_share_a_round_resume_after_any_epoch(tmp_path, rewind, monkeypatch):
    monkeypatch.setattr(iterative, "Loop", Counted)
    file, recipe = tmp_path / "imp.pt", Recipe(2, 0.01, 64, "adam")

    def run(**options):
        monkeypatch.setattr(Counted, "copies", [])
        nets = [perceptron(seed) for seed in (1, 0, 1)]
        found = imp_many(nets, DIGITS, recipe, [4, 9, 30], rounds=2, rewind=rewind, **options)
        return nets, found

    nets, expected = run()
    epochs = Counted.copies
    assert epochs == ([2, 2, 3, 3] if rewind == 7 else [2, 2, 3, 3, 3, 3])
    for last in range(len(epochs)):
        monkeypatch.setattr(Counted, "last", last)
        with pytest.raises(Killed):
            run(checkpoint=file, save_every=0)
        monkeypatch.setattr(Counted, "last", None)
        resumed, found = run(checkpoint=file)
        assert Counted.copies == epochs[last:]
        for a, b in zip(expected, found, strict=True):
            for one, other in zip(a, b, strict=True):
                assert_same_round(one, other)
        for net, other in zip(nets, resumed, strict=True):
            assert all(map(torch.equal, net.parameters(), other.parameters()))
        assert not file.exists()
    print(f"{len(epochs)} kills")


def test_a_checkpoint_of_another_imp_is_refused(tmp_path):
    file = tmp_path / "imp.pt"

    def kill(number, epoch, net):
        if (number, epoch) == (1, 2):
            raise Killed

    def go(compression=9, net=None, **options):
        options = {"rounds": 2, "rewind": 0, "checkpoint": file, "save_every": 0} | options
        return imp(net or perceptron(), DIGITS, RECIPE, compression, **options)

    with pytest.raises(Killed):
        go(after_epoch=kill)
    before = file.read_bytes()
    for message, options in {
        "rounds is 2 there and 3 here": {"rounds": 3}, "rewind": {"rewind": 1},
        "compressions": {"compression": 4}, "seeds": {"seed": 1}, "weights": {"net": perceptron(1)},
        "masks": {"keep": "5"},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"belongs to another run: {message}"):
            go(**options)
    with pytest.raises(ValueError, match="belongs to another run"):
        train(perceptron(), None, DIGITS, RECIPE, checkpoint=file)
    assert file.read_bytes() == before
    assert len(go()) == 3 and not file.exists()


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


def test_a_network_that_was_pruned_before_is_named():
    net = network()
    sf.prune(net, "magnitude", 5).apply_(net)
    with pytest.warns(UserWarning, match="are zero, as pruning leaves them"):
        imp(net, DIGITS, Recipe(1, 0.05, 64), 20, rounds=1)


def test_a_checkpoint_of_a_smaller_network_is_named(tmp_path):
    file = tmp_path / "imp.pt"

    def stop(number, epoch, model):
        if (number, epoch) == (1, 2):
            raise KeyboardInterrupt

    def run(compact, **options):
        net = sf.models.fc((1, 8, 8), depth=3, width=40, batch_norm=True, seed=0)
        return imp(
            net, DIGITS, RECIPE, 20, rounds=2, checkpoint=file, save_every=0, compact=compact,
            **options,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(True, after_epoch=stop)
    with pytest.raises(ForeignCheckpointError, match="round 1 was trained with another compact="):
        run(False)
    assert len(run(True)) == 3
