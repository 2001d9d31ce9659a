"""Training: what stays zero, what is recorded, what resumes, and many copies at once."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.learners import One
from synflow_lib.recipes import Recipe, paper_recipe
from synflow_lib.training import Loop, evaluate, train, train_many

DIGITS = sf.data.digits().subset(300, 100)


def perceptron(seed=0, **options):
    return sf.models.fc((1, 8, 8), depth=3, width=20, seed=seed, **options)


def convolutional(seed=0):
    return sf.models.conv((1, 8, 8), depth=3, width=8, batch_norm=True, seed=seed)


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(30, 10)

    def forward(self, x):
        return self.head(self.body(x))


def assert_zero_where_pruned(model, masks):
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert bool((weight[~mask] == 0).all()), name
        assert bool((weight[mask] != 0).any()), name


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(a, b, tolerance=0.0):
    for name, tensor in a.items():
        difference = (tensor.double() - b[name].double()).abs().max()
        assert difference <= tolerance, f"{name} differs by {difference:.1e}"


# ------------------------------------------------------------------------------------- one network


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_pruned_weights_stay_exactly_zero(make, amp, optimizer):
    net = make()
    masks = sf.prune(net, "random", 4)
    seen = []

    def look(epoch, model):
        assert_zero_where_pruned(model, masks)
        seen.append(epoch)

    rate = 0.1 if optimizer == "sgd" else 0.003
    recipe = Recipe(2, rate, 32, optimizer, weight_decay=0.1, momentum=0.9)
    train(net, masks, DIGITS, recipe, amp=amp, after_epoch=look)
    assert seen == [0, 1, 2]


def test_the_optimizer_knows_nothing_of_pruned_weights():
    net = perceptron()
    masks = sf.prune(net, "random", 4)
    loop = Loop(One(net, [masks]), DIGITS, Recipe(1, 0.1, weight_decay=0.1), [0])
    loop.run()
    for name, mask in masks.items():
        momentum = loop.optimizer.state[net.get_parameter(name)]["momentum_buffer"]
        assert bool((momentum[~mask] == 0).all()) and bool((momentum[mask] != 0).any())


def test_one_step_is_plain_sgd_with_masked_gradients():
    """By hand: w - lr * mask * gradient, for the only batch of an epoch."""
    data = sf.data.digits().subset(50, 20)
    net = perceptron().double()
    masks = sf.prune(net, "magnitude", 3)
    masks.apply_(net)
    reference = copy.deepcopy(net)
    x, y = next(data.batches("train", 50))
    nn.functional.cross_entropy(reference(x.double()), y).backward()
    train(net, masks, data, Recipe(1, 0.5, 50, momentum=0.0))
    for name, weight in reference.named_parameters():
        mask = masks.get(name, torch.ones_like(weight))
        expected = weight - 0.5 * weight.grad * mask
        assert torch.allclose(net.get_parameter(name), expected, atol=1e-12), name


def test_history_before_and_after():
    net = convolutional()
    before = evaluate(net, DIGITS)
    result = train(net, None, DIGITS, Recipe(3, 0.05))
    history = result.history
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["train_loss"].isna().tolist() == [True, False, False, False]
    assert result.before == before["top1"]
    after = evaluate(net, DIGITS)
    assert history.iloc[-1][["test_loss", "test_top1", "test_top5"]].tolist() == pytest.approx(
        list(after.values())
    )
    assert result.top1 == after["top1"] > 60
    assert result.best == history["test_top1"][1:].max()
    assert (history["test_top5"] >= history["test_top1"]).all()
    assert result.reason is None


def test_evaluate_counts_right_answers():
    class Knows(nn.Module):
        def __init__(self, labels):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.register_buffer("labels", labels)

        def forward(self, x):
            logits = torch.zeros(len(x), 10)
            logits[torch.arange(len(x)), self.labels[: len(x)]] = 1.0
            return logits * self.scale

    truth = DIGITS.test_y.clone()
    assert evaluate(Knows(truth), DIGITS)["top1"] == 100
    wrong = truth.clone()
    wrong[:25] = (wrong[:25] + 1) % 10
    assert evaluate(Knows(wrong), DIGITS)["top1"] == 75


def test_the_learning_rate_falls_at_milestones():
    history = train(
        perceptron(), None, DIGITS, Recipe(4, 1e-3, milestones=(1, 3), decay=0.5)
    ).history
    assert history["learning_rate"].tolist()[1:] == [1e-3, 5e-4, 5e-4, 2.5e-4]


@pytest.mark.parametrize("mode", [True, False])
def test_train_and_evaluate_leave_the_mode(mode):
    net = convolutional().train(mode)
    train(net, None, DIGITS, Recipe(1, 0.05))
    assert net.training is mode
    evaluate(net, DIGITS)
    assert net.training is mode


def test_a_compiled_network_trains_to_the_same_weights(monkeypatch):
    """Dynamo's graph run by autograd's own kernels: no C++ compiler is needed to test the path."""
    compiled = []

    def compile(model):
        compiled.append(model)
        return torch_compile(model, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile)
    plain, fast = convolutional().double(), convolutional().double()
    fast.load_state_dict(plain.state_dict())
    masks = sf.prune(plain, "magnitude", 4)
    recipe = Recipe(2, 0.05, momentum=0.9)
    expected = train(plain, masks, DIGITS, recipe)
    found = train(fast, masks, DIGITS, recipe, compile=True)
    assert compiled == [fast]
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], weight, rtol=1e-8, atol=1e-10)
    assert found.top1 == expected.top1
    assert all((fast.get_parameter(name)[~mask] == 0).all() for name, mask in masks.items())


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(Dropped(), None, DIGITS, Recipe(1, 0.1))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    Dropped()
    assert torch.equal(state, torch.get_rng_state()) and not torch.equal(state, before)


@pytest.mark.parametrize("make", [perceptron, convolutional, Dropped])
def test_the_seed_fixes_everything(make):
    torch.manual_seed(0)
    start = make()
    nets = [copy.deepcopy(start) for _ in range(3)]
    recipe = Recipe(2, 0.05, 64, augment=True)
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        train(net, None, DIGITS, recipe, seed=seed)
    assert_same(tensors(nets[0]), tensors(nets[1]))
    with pytest.raises(AssertionError):
        assert_same(tensors(nets[0]), tensors(nets[2]))


def test_a_nan_ends_the_run_with_a_reason():
    net = perceptron()
    result = train(net, None, DIGITS, Recipe(6, 1e6))
    assert "training loss became" in result.reason
    assert 1 < len(result.history) < 7


def test_a_single_left_over_image_does_not_break_batch_norm():
    odd = sf.data.digits().subset(65, 10)
    net = sf.models.fc((1, 8, 8), depth=2, batch_norm=True, seed=0)
    assert len(train(net, None, odd, Recipe(1, 0.1, 64)).history) == 2


# ------------------------------------------------------------------------------------- checkpoints


class Killed(BaseException):
    """A kill that no handler takes for an error of the run."""


@pytest.mark.parametrize("make", [convolutional, Dropped])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_killed_run_resumes_as_if_never_stopped(tmp_path, make, optimizer):
    torch.manual_seed(0)
    start = make()
    masks = sf.prune(start, "magnitude", 2)
    recipe = Recipe(5, 0.01, 64, optimizer, milestones=(2,), augment=True)
    straight = copy.deepcopy(start)
    expected = train(straight, masks, DIGITS, recipe, seed=4)

    def kill(epoch, model):
        if epoch == 3:
            raise Killed

    file = tmp_path / "run.pt"
    with pytest.raises(Killed):
        train(
            copy.deepcopy(start), masks, DIGITS, recipe, seed=4, checkpoint=file, save_every=0,
            after_epoch=kill,
        )  # fmt: skip
    fresh = copy.deepcopy(start)
    result = train(fresh, masks, DIGITS, recipe, seed=4, checkpoint=file)
    assert result.resumed == 2
    assert_same(tensors(straight), tensors(fresh))
    np.testing.assert_array_equal(result.history.to_numpy(), expected.history.to_numpy())
    assert not file.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file, recipe = tmp_path / "run.pt", Recipe(3, 0.1)

    def kill(epoch, model):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(perceptron(), None, DIGITS, recipe, checkpoint=file, save_every=0, after_epoch=kill)
    with pytest.raises(ValueError, match="another run: seeds"):
        train(perceptron(), None, DIGITS, recipe, seed=1, checkpoint=file)
    with pytest.raises(ValueError, match="another run: recipe"):
        train(perceptron(), None, DIGITS, Recipe(3, 0.2), checkpoint=file)
    masks = sf.prune(perceptron(), "random", 2)
    with pytest.raises(ValueError, match="another run: masks"):
        train(perceptron(), masks, DIGITS, recipe, checkpoint=file)


# ------------------------------------------------------------------------------------- many copies


@pytest.mark.parametrize("make", [perceptron, convolutional])
@pytest.mark.parametrize("seeds", [[0, 0, 0], [0, 5, 0]])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_many_at_once_are_each_as_if_alone(make, seeds, optimizer):
    nets = [make(seed).double() for seed in (0, 1, 1)]
    masks = [sf.prune(nets[0], "synflow", 3, iterations=3), None, sf.prune(nets[2], "random", 2)]
    recipe = Recipe(
        2, 0.05 if optimizer == "sgd" else 0.002, 64, optimizer, weight_decay=1e-3, augment=True
    )
    alone = [copy.deepcopy(net) for net in nets]
    expected = [
        train(net, mask, DIGITS, recipe, seed=seed)
        for net, mask, seed in zip(alone, masks, seeds, strict=True)
    ]
    found = train_many(nets, masks, DIGITS, recipe, seeds=seeds)
    for one, many in zip(alone, nets, strict=True):
        assert_same(tensors(one), tensors(many), tolerance=1e-8)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a.history.to_numpy(), b.history.to_numpy(), atol=1e-8)
    for net, mask in zip(nets, masks, strict=True):
        if mask is not None:
            assert_zero_where_pruned(net, mask)


def test_one_nan_among_many_ends_alone():
    nets = [perceptron(), perceptron()]
    with torch.no_grad():
        nets[0][1].weight[0, 0] = float("nan")
    bad, good = train_many(nets, [None, None], DIGITS, Recipe(2, 0.1))
    assert bad.reason and len(bad.history) == 2
    assert good.reason is None and good.top1 > good.before + 20
    alone = perceptron()
    train(alone, None, DIGITS, Recipe(2, 0.1))
    assert_same(tensors(alone), tensors(nets[1]), tolerance=1e-5)


def test_many_wants_one_of_each():
    nets = [perceptron(), perceptron()]
    with pytest.raises(ValueError, match="2 models, 1 masks"):
        train_many(nets, [None], DIGITS, Recipe(1, 0.1))
    with pytest.raises(ValueError, match="one architecture"):
        train_many([perceptron(), convolutional()], [None, None], DIGITS, Recipe(1, 0.1))


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("epochs", 1.5), ("epochs", True), ("learning_rate", 0.0),
        ("learning_rate", float("nan")), ("batch_size", 1), ("optimizer", "adamw"),
        ("momentum", 1.0), ("weight_decay", -1e-4), ("milestones", (3, 2)), ("decay", 0.0),
        ("augment", "no"), ("one_cycle", 1),
    ],
)  # fmt: skip
def test_a_recipe_names_the_field_that_is_wrong(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{"epochs": 1, "learning_rate": 0.1, field: value})


def test_too_few_outputs_for_the_classes():
    with pytest.raises(ValueError, match="7 outputs, digits has 10 classes"):
        train(sf.models.fc((1, 8, 8), num_classes=7), None, DIGITS, Recipe(1, 0.1))


def test_masks_of_another_network():
    with pytest.raises(ValueError, match="no parameter|shape"):
        train(perceptron(), sf.prune(convolutional(), "random", 2), DIGITS, Recipe(1, 0.1))


def test_the_papers_recipes():
    recipe = paper_recipe("cifar100", "vgg16")
    assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay) == (160, 0.1, 1e-4)
    recipe = paper_recipe("cifar10", "resnet18")
    assert (recipe.learning_rate, recipe.decay, recipe.weight_decay) == (0.01, 0.2, 5e-4)
    assert paper_recipe("tiny_imagenet", "resnet18").milestones == (30, 60, 80)
    with pytest.raises(ValueError, match="no recipe for 'fc'"):
        paper_recipe("mnist", "fc")
