"""Checkpoints: a run goes on from its own, never from another's or from a damaged one."""

import copy
import dataclasses
import errno
import resource
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.training import checkpoints
from synflow_lib.training.checkpoints import Checkpoint, sketch
from synflow_lib.training.recipes import Recipe
from synflow_lib.training.train import train, train_many

DIGITS = sf.data.digits().subset(300, 100)


def perceptron(seed=0, width=20):
    return sf.models.fc((1, 8, 8), depth=3, width=width, seed=seed)


def convolutional(seed=0):
    return sf.models.conv((1, 8, 8), depth=3, width=8, batch_norm=True, seed=seed)


def dropped(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Dropout(0.5), nn.Linear(30, 10))


class Killed(BaseException):
    """A kill that no handler takes for an error of the run."""


def killed(file, recipe=None, epoch=2, net=None, masks=None, data=DIGITS, **options):
    """A run that dies after that epoch and leaves the checkpoint of the one before."""

    def kill(number, _):
        if number == epoch:
            raise Killed

    net, recipe = net or perceptron(), recipe or Recipe(3, 0.1)
    with pytest.raises(Killed):
        train(
            net, masks, data, recipe, checkpoint=file, save_every=0, after_epoch=kill, **options
        )  # fmt: skip
    assert file.exists()


def assert_same_weights(a, b):
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


@pytest.mark.parametrize("make", [convolutional, dropped])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_killed_run_resumes_as_if_never_stopped(tmp_path, make, optimizer):
    start = make()
    masks = sf.prune(start, "magnitude", 2)
    recipe = Recipe(5, 0.01, 64, optimizer, milestones=(2,), augment=True)
    straight = copy.deepcopy(start)
    expected = train(straight, masks, DIGITS, recipe, seed=4)

    file = tmp_path / "run.pt"
    killed(file, recipe, 3, copy.deepcopy(start), masks, seed=4)
    fresh = copy.deepcopy(start)
    result = train(fresh, masks, DIGITS, recipe, seed=4, checkpoint=file)
    assert result.resumed == 2
    assert_same_weights(straight, fresh)
    np.testing.assert_array_equal(result.history.to_numpy(), expected.history.to_numpy())
    assert not file.exists()


def test_half_precision_and_groups_resume_to_the_same_bits(tmp_path, monkeypatch):
    file, recipe = tmp_path / "run.pt", Recipe(4, 0.05)
    half = perceptron().bfloat16()
    straight = copy.deepcopy(half)
    train(straight, None, DIGITS, recipe)
    killed(file, recipe, net=copy.deepcopy(half))
    assert train(half, None, DIGITS, recipe, checkpoint=file).resumed == 1
    assert_same_weights(straight, half)

    def group():
        nets = [perceptron(seed) for seed in range(3)]
        return nets, [sf.prune(nets[0], "random", 4), None, sf.prune(nets[2], "magnitude", 9)]

    nets, masks = group()
    expected = train_many(nets, masks, DIGITS, recipe, seeds=[0, 1, 1])
    save, saved = Checkpoint.save, []

    def dying(self, content):
        save(self, content)
        saved.append(1)
        if len(saved) == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoint, "save", dying)
        train_many(*group(), DIGITS, recipe, seeds=[0, 1, 1], checkpoint=file, save_every=0)
    others, masks = group()
    found = train_many(others, masks, DIGITS, recipe, seeds=[0, 1, 1], checkpoint=file)
    assert [each.resumed for each in found] == [2, 2, 2]
    for a, b, one, other in zip(expected, found, nets, others, strict=True):
        assert a.history.equals(b.history)
        assert_same_weights(one, other)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------- whose is it?


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file, recipe = tmp_path / "run.pt", Recipe(3, 0.1)
    net, other = perceptron(), perceptron(7)
    masks = sf.prune(net, "random", 4)
    killed(file, recipe, net=perceptron(), masks=masks)
    before = file.read_bytes()
    fewer = sf.data.digits().subset(300, 100, seed=7)  # same numbers, other images
    moved = {"weight": perceptron(), "bias": perceptron()}
    with torch.no_grad():
        moved["weight"][3].weight[0] *= 1.01
        moved["bias"][1].bias[0] += 0.01
    cases = {
        "seeds is [0] there and [1] here": {"seed": 1},
        "recipe.learning_rate is 0.1 there and 0.2 here": {"recipe": Recipe(3, 0.2)},
        "recipe.epochs": {"recipe": Recipe(4, 0.1)},
        "data": {"data": fewer},
        "masks": {"masks": masks.shuffled(0)},  # equal counts
        "masks ": {"masks": None},
        "weights is": {"net": other},
        "weights is 6": {"net": moved["weight"]},
        "weights is 6 ": {"net": moved["bias"]},
        "masks is": {"net": perceptron(width=24), "masks": sf.Masks.ones(perceptron(width=24))},
    }
    for message, what in cases.items():
        arguments = {"net": perceptron(), "masks": masks, "data": DIGITS, "recipe": recipe} | what
        net, seed = arguments["net"], arguments.get("seed", 0)
        with pytest.raises(ValueError) as raised:
            train(
                net, arguments["masks"], arguments["data"], arguments["recipe"], seed=seed,
                checkpoint=file,
            )  # fmt: skip
        assert f"belongs to another run: {message.rstrip()}" in str(raised.value)
    assert file.read_bytes() == before
    print(f"{len(cases)} foreign runs refused")
    assert train(perceptron(), masks, DIGITS, recipe, checkpoint=file).resumed == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net[2], "p", 0.1),
        lambda net: net[1].requires_grad_(False),
        lambda net: net.double(),
    ],
)
def test_equal_weights_in_another_network_are_refused(tmp_path, change):
    killed(tmp_path / "run.pt", net=dropped())
    net = dropped()
    change(net)
    with pytest.raises(ValueError, match="another run: network .layers, settings, types, what is"):
        train(net, None, DIGITS, Recipe(3, 0.1), checkpoint=tmp_path / "run.pt")
    assert train(dropped(), None, DIGITS, Recipe(3, 0.1), checkpoint=tmp_path / "run.pt").resumed


@pytest.mark.parametrize("width", [8, 19, 21, 64])
def test_another_width_is_refused_and_crashes_nothing(tmp_path, width):
    killed(tmp_path / "run.pt")
    net = perceptron(width=width)
    before = copy.deepcopy(net)
    with pytest.raises(ValueError, match="another run: weights"):
        train(net, None, DIGITS, Recipe(3, 0.1), checkpoint=tmp_path / "run.pt")
    assert_same_weights(before, net)


def test_the_same_run_by_another_device_name_or_processor_is_taken(tmp_path):
    """Devices are no part of the identity; neither is the last bit of initial weights."""
    file, recipe = tmp_path / "run.pt", Recipe(3, 0.1)
    killed(file, recipe)
    net = perceptron()
    with torch.no_grad():
        for weight in net.parameters():  # as another processor would draw them
            weight.copy_(torch.nextafter(weight, weight * 2))
    renamed = dataclasses.replace(DIGITS, name="moved")
    assert train(net, None, renamed, recipe, checkpoint=file).resumed == 1


def test_sketches_tell_weights_apart():
    torch.manual_seed(0)
    weight = torch.randn(500, 300)
    same = {
        "copy": weight.clone(),
        "rounded": weight * (1 + 1e-6 * torch.rand(500, 300)),
        "double": weight.double(),
    }
    others = {
        "permuted": weight.flip(0), "transposed": weight.T.contiguous(), "negative": -weight,
        "scaled": weight * 1.001, "another": torch.randn(500, 300), "view": weight.view(300, 500),
        "one": weight.clone().index_put_((torch.tensor(3), torch.tensor(4)), torch.tensor(5.0)),
    }  # fmt: skip
    mine = sketch({"w": weight})
    assert all(checkpoints.agree(mine, sketch({"w": each})) for each in same.values())
    assert not any(checkpoints.agree(mine, sketch({"w": each})) for each in others.values())
    assert not checkpoints.agree(mine, sketch({"v": weight}))


# ------------------------------------------------------------------------- damage


def test_every_truncation_and_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "small.pt"
    Checkpoint(path, {"seed": 1}, save_every=0).save(lambda: {"weight": torch.arange(3.0)})
    whole = path.read_bytes()
    assert checkpoints._read(whole, "cpu")["identity"] == {"seed": 1}
    unnoticed = sum(checkpoints._read(whole[:n], "cpu") is not None for n in range(len(whole)))
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            unnoticed += checkpoints._read(bytes(damaged), "cpu") is not None
    print(f"{len(whole)} truncations and {8 * len(whole)} flips: {unnoticed} unnoticed")
    assert unnoticed == 0


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "of an earlier version", "text"])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_afresh(tmp_path, kind):
    file, recipe = tmp_path / "run.pt", Recipe(3, 0.1)
    straight, net = perceptron(), perceptron()
    train(straight, None, DIGITS, recipe)
    killed(file, recipe)
    whole = file.read_bytes()
    damaged = {
        "empty": b"", "cut": whole[: len(whole) // 2], "text": b"weights",
        "flipped": whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:],
        "of an earlier version": whole[whole.index(b"PK") :],
    }[kind]  # fmt: skip
    file.write_bytes(damaged)
    with pytest.warns(UserWarning, match="run.pt is damaged or of another version.*run.pt.damaged"):
        result = train(net, None, DIGITS, recipe, checkpoint=file, save_every=0)
    assert result.resumed == 0
    assert_same_weights(straight, net)
    assert [each.name for each in tmp_path.iterdir()] == ["run.pt.damaged"]
    assert (tmp_path / "run.pt.damaged").read_bytes() == damaged


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


def test_a_checkpoint_cannot_run_code(tmp_path, monkeypatch):
    """Not even with a right checksum."""
    monkeypatch.chdir(tmp_path)
    Checkpoint("evil.pt", {}, save_every=0).save(lambda: {"step": Evil()})
    with pytest.warns(UserWarning, match="evil.pt is damaged"):
        assert Checkpoint("evil.pt", {}, save_every=0).load("cpu") is None
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------------- trouble with the disk


def test_a_full_disk_is_a_warning_and_the_run_goes_on(tmp_path):
    """A limit on the size of files stands for it: writing fails half-way, as on a full disk."""
    file, recipe = tmp_path / "run.pt", Recipe(4, 0.1)
    straight, net = perceptron(width=100), perceptron(width=100)
    expected = train(straight, None, DIGITS, recipe)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
        with pytest.warns(UserWarning) as caught:
            result = train(net, None, DIGITS, recipe, checkpoint=file, save_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.history.equals(expected.history)
    assert_same_weights(straight, net)
    assert len(caught) == 1 and "cannot be written" in str(caught[0].message)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_keeps_the_former_checkpoint(tmp_path, monkeypatch):
    file, recipe = tmp_path / "run.pt", Recipe(4, 0.1)
    killed(file, recipe, epoch=3)
    replacing, calls = checkpoints.replacing, []

    def full(path):
        calls.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    def kill(epoch, _):
        if epoch == 4:
            raise Killed

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="No space left"):
        patch.setattr(checkpoints, "replacing", full)
        with pytest.raises(Killed):
            train(
                perceptron(), None, DIGITS, recipe, checkpoint=file, save_every=0,
                after_epoch=kill,
            )  # fmt: skip
    assert calls and checkpoints.replacing is replacing
    assert train(perceptron(), None, DIGITS, recipe, checkpoint=file).resumed == 2


def test_a_folder_or_a_device_is_left_alone(tmp_path):
    for path in (tmp_path, "/dev/null"):
        with pytest.raises(ValueError, match="is no file; name another"):
            train(perceptron(), None, DIGITS, Recipe(1, 0.1), checkpoint=path)


def test_a_file_that_cannot_be_deleted_costs_no_result(tmp_path, monkeypatch):
    def refuse(self, missing_ok=False):
        raise PermissionError(errno.EACCES, "Permission denied")

    Path = type(tmp_path)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="cannot be deleted"):
        patch.setattr(Path, "unlink", refuse)
        result = train(perceptron(), None, DIGITS, Recipe(1, 0.1), checkpoint=tmp_path / "run.pt")
    assert result.top1 > 0


def test_a_run_without_trouble_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(
            perceptron(), None, DIGITS, Recipe(2, 0.1), checkpoint=tmp_path / "new" / "run.pt",
            save_every=0,
        )  # fmt: skip
    assert not list((tmp_path / "new").iterdir())
