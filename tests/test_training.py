"""Training: what stays zero, what is recorded, what resumes, and many copies at once."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.fast.unfolded import unfolded
from synflow_lib.training.epochs import Loop
from synflow_lib.training.learners import Many, One
from synflow_lib.training.recipes import Recipe, paper_recipe
from synflow_lib.training.train import evaluate, train, train_many

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


@pytest.mark.in_turn
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


# ---------------------------------------------------------------------------- zeros, whatever comes


def assert_obeys(learner, optimizer, models, masks):
    """Zeros in weights and in every memory of the optimizer, read apart from the library."""
    many = isinstance(learner, Many)
    looked = 0
    for number, mask in enumerate(masks):
        for name in mask:
            weight = learner.stacked[name] if many else models[0].get_parameter(name)
            memories = [m for m in optimizer.state[weight].values() if m.shape == weight.shape]
            for tensor in (weight.detach(), *memories):
                tensor = tensor[number] if many else tensor
                assert not bool((tensor[~mask[name]] != 0).any()), name  # NaN != 0
                looked += int((~mask[name]).sum())
    return looked


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("make", [perceptron, convolutional])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_loaded_state_obeys_the_masks_of_the_run(make, optimizer, many, steps):
    """A dense run's weights and memories, taken up by a pruned one."""
    recipe = Recipe(2, 0.01, 75, optimizer, weight_decay=0.01)

    def loop(models, masks):
        learner = Many(models, masks) if many else One(models[0], masks)
        return Loop(learner, DIGITS, recipe, [0] * len(models))

    seeds = range(2) if many else range(1)
    dense = loop([make(seed) for seed in seeds], [None] * len(seeds) if many else None)
    dense.snapshot_at = steps
    dense.run()
    models = [make(seed) for seed in seeds]
    masks = [sf.prune(model, "random", 4, seed=k) for k, model in enumerate(models)]
    sparse = loop(models, masks)
    sparse.load_state(dense.snapshot)
    assert assert_obeys(sparse.learner, sparse.optimizer, models, masks) > 1000
    sparse.run()
    assert assert_obeys(sparse.learner, sparse.optimizer, models, masks) > 1000


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("many", [False, True])
def test_pruned_weights_are_zero_in_a_run_that_diverges(optimizer, many):
    nets = [convolutional(seed) for seed in range(2 if many else 1)]
    masks = [sf.prune(net, "random", 4) for net in nets]
    learner = Many(nets, masks) if many else One(nets[0], masks)
    loop = Loop(learner, DIGITS, Recipe(3, 1e30, 50, optimizer, weight_decay=0.1), [0] * len(nets))
    results = loop.run()
    assert all(result.reason for result in results)
    kept = [p for p in learner.parameters if not p.isfinite().all()]
    assert kept, "nothing diverged: the test shows nothing"
    assert assert_obeys(learner, loop.optimizer, nets, masks)


def test_infinite_gradients_do_not_reach_pruned_weights():
    """0 * inf is NaN: a product with the mask would end a run that is well."""
    net = nn.Linear(4, 2)
    masks = sf.Masks({"weight": torch.tensor([[True, False, True, False]] * 2)})
    learner = One(net, [masks])
    optimizer = learner.optimizer(Recipe(1, 0.1))
    net.weight.register_hook(lambda g: torch.where(masks["weight"], g, torch.inf))
    learner.step(net(torch.ones(1, 4)).sum(), optimizer)
    assert bool(net.weight.isfinite().all()) and sf.Masks.from_model(net) == masks


def test_weights_that_end_infinite_are_a_reason():
    """The loss of the last step was still finite."""
    result = train(perceptron(), None, DIGITS, Recipe(1, 1e38, 300, momentum=0.0))
    assert np.isfinite(result.history["train_loss"].iloc[-1])
    assert result.reason == "the weights or the test loss were not finite after epoch 1"


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_copies_may_leave_different_layers_dense(order):
    nets = [perceptron(seed) for seed in range(3)]
    first, last = list(sf.prunable(nets[0]))[0], list(sf.prunable(nets[0]))[-1]
    masks = [
        sf.prune(nets[0], "magnitude", 4, keep=last),
        sf.prune(nets[1], "magnitude", 4, keep=first),
        None,
    ]
    alone = copy.deepcopy(nets)
    for net, mask in zip(alone, masks, strict=True):
        train(net, mask, DIGITS, Recipe(2, 0.1, 50))
    nets, masks, alone = ([these[k] for k in order] for these in (nets, masks, alone))
    train_many(nets, masks, DIGITS, Recipe(2, 0.1, 50))
    for net, mask, one in zip(nets, masks, alone, strict=True):
        assert_same(tensors(one), tensors(net), tolerance=1e-5)
        if mask is not None:
            assert_zero_where_pruned(net, mask)
            assert bool((net.get_parameter(first if first not in mask else last) != 0).all())


class Tied(nn.Module):
    """One weight under two names, of which the forward pass uses the second."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(64, 10)
        self.spare, self.used = nn.Linear(10, 10), nn.Linear(10, 10)
        self.spare.weight = self.used.weight

    def forward(self, x):
        return self.used(torch.relu(self.enter(x.flatten(1))))


def test_tied_weights_stay_pruned_in_company():
    torch.manual_seed(0)
    nets = [Tied(), Tied()]
    masks = [sf.prune(net, "random", 3) for net in nets]
    train_many(nets, masks, DIGITS, Recipe(1, 0.1))
    for net, mask in zip(nets, masks, strict=True):
        assert_zero_where_pruned(net, mask)


# ---------------------------------------------------------------------- frozen, unused, half


class Spare(nn.Module):
    """A layer that the forward pass leaves out."""

    def __init__(self):
        super().__init__()
        self.body = perceptron()
        self.spare = nn.Linear(8, 8)

    def forward(self, x):
        return self.body(x)


def frozen():
    net = perceptron()
    next(net.parameters()).requires_grad_(False)
    return net


@pytest.mark.parametrize("make", [frozen, Spare])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_frozen_and_unused_layers_may_be_masked(make, optimizer):
    recipe = Recipe(2, 0.05 if optimizer == "sgd" else 0.003, 50, optimizer, weight_decay=0.01)
    torch.manual_seed(0)
    start = make()
    masks = sf.prune(start, "magnitude", 4)
    alone, pair = copy.deepcopy(start), [copy.deepcopy(start) for _ in range(2)]
    losses = train(alone, masks, DIGITS, recipe).history["test_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    train_many(pair, [masks, None], DIGITS, recipe)
    assert_same(tensors(alone), tensors(pair[0]), tolerance=1e-5)
    for name, weight in start.named_parameters():
        if not weight.requires_grad or "spare" in name:
            mask = masks.get(name, torch.ones_like(weight))
            assert torch.equal(alone.get_parameter(name), weight * mask)
            assert torch.equal(pair[1].get_parameter(name), weight)


def test_a_layer_that_a_callback_thaws_learns_from_there_on():
    net, seen = frozen(), []
    weight = next(net.parameters())

    def thaw(epoch, model):
        seen.append(weight.detach().clone())
        weight.requires_grad_(epoch >= 1)

    train(net, None, DIGITS, Recipe(2, 0.1), after_epoch=thaw)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_a_callback_writes_stays_except_where_pruned(dtype):
    net = perceptron().to(dtype)
    masks = sf.prune(net, "random", 4)

    def write(epoch, model):
        for parameter in model.parameters():
            parameter.data.fill_(0.25)

    recipe = Recipe(1, 1e-12, momentum=0.0)
    train(net, masks, DIGITS, recipe, after_epoch=lambda e, m: write(e, m) if e == 0 else None)
    for name, mask in masks.items():
        expected = 0.25 * mask.to(dtype)
        torch.testing.assert_close(net.get_parameter(name).detach(), expected)


def test_a_callback_that_replaces_parameters_is_refused():
    def replace(epoch, model):
        model[1].weight = nn.Parameter(model[1].weight.detach().clone())

    with pytest.raises(ValueError, match="after_epoch replaced parameters"):
        train(perceptron(), None, DIGITS, Recipe(1, 0.1), after_epoch=replace)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(3, 5, (3, 1), stride=(2, 1), padding=(2, 0), dilation=(2, 1), bias=False),
        nn.Conv2d(3, 5, 1, stride=2),
    ],
)
def test_products_for_small_maps_are_convolutions_in_bfloat16(layer):
    x = torch.rand(6, 3, 2, 2, requires_grad=True)
    found = {}
    for fast in (False, True):
        with (
            torch.autocast("cpu", torch.bfloat16),
            unfolded(layer, torch.bfloat16 if fast else torch.float32),
        ):
            out = layer(x)
        assert "forward" not in vars(layer)
        loss = (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum()
        found[fast] = out, *torch.autograd.grad(loss, [x, *layer.parameters()])
    for mine, theirs in zip(*found.values(), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02)


def test_products_leave_a_users_model_as_it_was():
    own, shared = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    own.forward = lambda x: x + 7
    net, before = nn.Sequential(own, shared, shared), own.forward
    with unfolded(shared, torch.bfloat16):
        assert shared(torch.rand(0, 1, 2, 2)).shape == (0, 1, 2, 2)
        copied, read = copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))
        with torch.no_grad():
            shared.weight.add_(1.0)
        x = torch.ones(1, 1, 2, 2)
        assert torch.equal(copied(x), read(x)) and not torch.equal(copied(x), shared(x))
        del shared.forward  # as a thread does that shares the layer
    with pytest.raises(RuntimeError, match="on purpose"), unfolded(net, torch.bfloat16):
        assert "forward" in vars(shared)
        raise RuntimeError("on purpose")
    assert own.forward is before and "forward" not in vars(shared)


def test_a_frozen_network_is_evaluated_and_not_trained():
    net = perceptron().requires_grad_(False)
    assert evaluate(net, DIGITS) == evaluate(perceptron(), DIGITS)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        train(net, None, DIGITS, Recipe(1, 0.1))
    with pytest.raises(ValueError, match="which of those are frozen"):
        train_many([net, perceptron()], [None, None], DIGITS, Recipe(1, 0.1))


def test_copies_of_one_shape_that_compute_something_else_are_refused():
    other = sf.models.fc((1, 8, 8), depth=3, width=20)
    swapped = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in other))
    with pytest.raises(ValueError, match="one architecture"):
        train_many([nn.Sequential(*other), swapped], [None, None], DIGITS, Recipe(1, 0.1))


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.body, self.answer = perceptron(), answer

    def forward(self, x):
        return self.answer(self.body(x))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda y: {"logits": y},
            "output is a dict with .*, no tensor; expected one tensor of logits",
        ),
        (lambda y: (y, y), "output is a tuple, no tensor; expected one tensor of logits"),
        (lambda y: [y], "output is a list, no tensor; .* Wrap the network"),
    ],
)
def test_outputs_that_are_no_tensor_say_what_to_do(answer, message):
    net = Answers(answer)
    pair = [Answers(answer), Answers(answer)]
    for act in (
        lambda: train(net, None, DIGITS, Recipe(1, 0.1)),
        lambda: train_many(pair, [None, None], DIGITS, Recipe(1, 0.1)),
        lambda: evaluate(net, DIGITS),
    ):
        with pytest.raises(TypeError, match=message):
            act()


def test_outputs_of_another_shape_are_named():
    net = Answers(lambda y: y[:, :, None])
    with pytest.raises(ValueError, match=r"Answers has shape \(2, 10, 1\); expected logits"):
        train(net, None, DIGITS, Recipe(1, 0.1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("sgd", 0.004), ("adam", 0.002)])
def test_half_precision_learns_as_float32_does(dtype, optimizer, rate):
    data, recipe = sf.data.digits(), Recipe(8, rate, 128, optimizer)
    nets = [sf.models.fc((1, 8, 8), depth=2, seed=0).to(kind) for kind in (torch.float32, dtype)]
    masks = sf.prune(nets[0], "magnitude", 2)
    full, half = (train(net, masks, data, recipe).top1 for net in nets)
    assert full > 70 and abs(full - half) <= 1
    assert_zero_where_pruned(nets[1], masks)
    together = [sf.models.fc((1, 8, 8), depth=2, seed=0).to(dtype) for _ in range(2)]
    found = train_many(together, [masks, masks], data, recipe)
    assert all(abs(full - each.top1) <= 1 for each in found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_optimizer_steps_in_half_precision_too(dtype, optimizer):
    """torch's fused ones skip it on a CPU."""
    weight = nn.Parameter(torch.ones(64, dtype=dtype))
    weight.grad = torch.ones_like(weight)
    Recipe(1, 0.1, optimizer=optimizer, momentum=0.0).build_optimizer([weight]).step()
    assert weight.tolist() == pytest.approx([0.9] * 64, abs=0.01)


def in_bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode, in_bfloat16])
def test_training_is_the_same_whatever_the_caller_switched(outer):
    plain, inside = convolutional(), convolutional()
    masks = sf.prune(plain, "random", 2)
    train(plain, masks, DIGITS, Recipe(1, 0.1))
    pair = [convolutional(), convolutional()]
    with outer():
        train(inside, masks, DIGITS, Recipe(1, 0.1))
        train_many(pair, [masks, None], DIGITS, Recipe(1, 0.1))
        assert torch.is_grad_enabled() == torch.is_autocast_enabled("cpu") == (outer is in_bfloat16)
    assert_same(tensors(plain), tensors(inside))
    assert_same(tensors(plain), tensors(pair[0]), tolerance=1e-5)


def test_mixed_precision_sees_the_weights_of_every_step():
    recipe = Recipe(4, 0.1)
    losses = train(perceptron(), None, DIGITS, recipe).history["train_loss"]
    alone = train(perceptron(), None, DIGITS, recipe, amp=True).history
    with in_bfloat16():  # in which torch keeps cast weights, also after a step
        inside = train(perceptron(), None, DIGITS, recipe, amp=True).history
    assert inside.equals(alone)
    np.testing.assert_allclose(alone["train_loss"], losses, rtol=0.03)


def test_many_with_batch_norm_train_in_mixed_precision():
    """On a CPU torch normalizes no matrix in bfloat16 with statistics in float32."""
    nets = [perceptron(batch_norm=True) for _ in range(2)]
    together = train_many(nets, [None, None], DIGITS, Recipe(2, 0.1), amp=True)
    alone = train(perceptron(batch_norm=True), None, DIGITS, Recipe(2, 0.1), amp=True)
    for each in together:
        np.testing.assert_allclose(
            each.history["train_loss"], alone.history["train_loss"], rtol=0.05
        )


def test_a_network_made_in_inference_mode_is_evaluated_and_refused_by_name():
    with torch.inference_mode():
        net = perceptron()
    assert evaluate(net, DIGITS) == evaluate(perceptron(), DIGITS)
    with pytest.raises(ValueError, match="made under torch.inference_mode"):
        train(net, None, DIGITS, Recipe(1, 0.1))


# ------------------------------------------------------------------------- numbers that numpy made


def test_equal_recipes_are_equal_also_in_json():
    plain = Recipe(3, 1.0, 64, weight_decay=0.0, milestones=(1, 2), decay=0.5)
    variants = [
        Recipe(np.int64(3), 1, np.int32(64), weight_decay=0, milestones=[1, 2], decay=0.5),
        Recipe(3, np.float32(1), 64, weight_decay=-0.0, milestones=np.array([1, 2]), decay=0.5),
        Recipe(3, np.int8(1), 64, "sgd", np.float64(0.9), False * 1.0, (np.int64(1), 2), 0.5),
        Recipe(3, 1.0, 64, np.str_("sgd"), 0.9, 0.0, (1, 2), 0.5, np.bool_(False), np.bool_(0)),
    ]
    text = json.dumps(dataclasses.asdict(plain), allow_nan=False)
    for other in variants:
        assert other == plain and hash(other) == hash(plain)
        assert json.dumps(dataclasses.asdict(other), allow_nan=False) == text
        assert Recipe.from_dict(json.loads(text)) == other


def test_seeds_may_be_numpys():
    recipe, nets = Recipe(1, 0.1, 100), [perceptron() for _ in range(3)]
    three = np.arange(5)[3]
    a, b = copy.deepcopy(nets[:2])
    train(a, None, DIGITS, recipe, seed=three)
    train(b, None, DIGITS, recipe, seed=3)
    assert_same(tensors(a), tensors(b))
    kinds = (np.array([3, 3, 3]), torch.tensor([3, 3, 3]), three, 3, (3, 3, 3))
    for seeds in kinds:
        found = train_many(copy.deepcopy(nets), [None] * 3, DIGITS, recipe, seeds=seeds)
        assert len({result.top1 for result in found}) == 1
    for wrong in (1.0, "3", True, None):
        with pytest.raises(ValueError, match="seed"):
            train(perceptron(), None, DIGITS, recipe, seed=wrong)
        with pytest.raises(ValueError, match="seeds"):
            train_many(nets, [None] * 3, DIGITS, recipe, seeds=[0, 1, wrong])


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
    tied = perceptron()
    tied[1].weight = nets[0][1].weight
    for act in (  # each would train what the other has
        lambda: train_many([nets[0], tied], [None, None], DIGITS, Recipe(1, 0.1)),
        lambda: sf.imp_many([nets[0], tied], DIGITS, Recipe(1, 0.1), [2, 4]),
    ):
        with pytest.raises(ValueError, match="models 0 and 1 share a tensor"):
            act()


def test_a_network_that_stands_twice_is_trained_twice():
    masks = [sf.prune(perceptron(), "random", 4, seed=seed) for seed in range(2)]
    expected = train_many([perceptron(), perceptron()], masks, DIGITS, Recipe(1, 0.1))
    net = perceptron()
    found = train_many([net, net], masks, DIGITS, Recipe(1, 0.1))
    for a, b in zip(expected, found, strict=True):
        assert a.history.equals(b.history)
    assert sf.Masks.from_model(net) == masks[0]
    rounds = sf.imp_many([perceptron(), perceptron()], DIGITS, Recipe(1, 0.1), [2, 8], rounds=1)
    again = sf.imp_many([perceptron()] * 2, DIGITS, Recipe(1, 0.1), [2, 8], rounds=1)
    assert [r[-1].masks for r in rounds] == [r[-1].masks for r in again]


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("epochs", 1.5), ("epochs", True), ("learning_rate", 0.0),
        ("learning_rate", float("nan")), ("batch_size", 1), ("optimizer", "adamw"),
        ("momentum", 1.0), ("weight_decay", -1e-4), ("milestones", (3, 2)), ("decay", 0.0),
        ("augment", "no"), ("one_cycle", 1), ("epochs", np.float64(3)), ("epochs", np.bool_(True)),
        ("learning_rate", "0.1"), ("learning_rate", 10**400), ("learning_rate", True),
        ("milestones", 3), ("milestones", (1.5,)), ("optimizer", None), ("decay", None),
        ("weight_decay", float("inf")),
    ],
)  # fmt: skip
def test_a_recipe_names_the_field_that_is_wrong(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{"epochs": 1, "learning_rate": 0.1, field: value})


def test_too_few_outputs_for_the_classes():
    with pytest.raises(ValueError, match="7 outputs, digits has 10 classes"):
        train(sf.models.fc((1, 8, 8), num_classes=7), None, DIGITS, Recipe(1, 0.1))


def test_arguments_of_another_kind_are_named():
    net, recipe, masks = perceptron(), Recipe(1, 0.1), sf.Masks.ones(perceptron())
    for said, *given in (
        ("model is a NoneType; expected a Module", None, masks, DIGITS, recipe),
        ("masks is a str; expected a Masks", net, "masks", DIGITS, recipe),
        ("dataset is a str; expected a Dataset", net, masks, "digits", recipe),
        ("recipe is a NoneType; expected a Recipe", net, masks, DIGITS, None),
    ):
        with pytest.raises(TypeError, match=said):
            train(*given)
        with pytest.raises(TypeError, match=said):
            train_many([given[0]], [given[1]], *given[2:])
    with pytest.raises(TypeError, match="dataset is a str"):
        evaluate(net, "digits")


def test_networks_that_do_not_fit_the_images_are_named():
    colour = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    double = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 32)), nn.Linear(32, 10))
    for net, said in {
        colour: r"cannot run on images \(.*, 1, 8, 8\) of digits",
        few: "5 outputs, digits has 10 classes",
        double: r"has shape \(.*, 10\); expected logits \(batch, classes\), and the batch",
    }.items():
        with pytest.raises(ValueError, match=said):
            evaluate(net, DIGITS)
        with pytest.raises(ValueError, match=said):
            train(net, None, DIGITS, Recipe(1, 0.1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda net: net.double(), "after_epoch replaced parameters .* or changed their type"),
        (lambda net: net.requires_grad_(False), "nothing to train"),
    ],
)
def test_a_callback_that_leaves_nothing_to_train_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        train(perceptron(), None, DIGITS, Recipe(2, 0.1), after_epoch=lambda _, net: change(net))


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


def test_counted_averages_are_refused_where_copies_are_trained_together():
    def net():
        parts = nn.Linear(64, 5), nn.BatchNorm1d(5, momentum=None), nn.ReLU(), nn.Linear(5, 10)
        return nn.Sequential(nn.Flatten(), *parts)

    train(net(), None, DIGITS, Recipe(1, 0.1))
    with pytest.raises(ValueError, match="2 has momentum=None, whose average needs a count"):
        train_many([net(), net()], [None, None], DIGITS, Recipe(1, 0.1))
