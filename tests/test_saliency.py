"""Scores: by hand, by finite differences, by enumerating paths; data in every form; bad input."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from networks import (
    Decoder,
    Dense,
    LongBranch,
    Mobile,
    Paths,
    PreActivation,
    Residual,
    Shared,
    Tied,
    images,
    mlp,
    narrow_resnet,
    narrow_vgg16,
    plain_scores,
    seeded,
    weights_of,
    with_shape,
)
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils.data import DataLoader, TensorDataset

import synflow_lib as sf

METHODS = ("random", "magnitude", "snip", "grasp", "synflow")


def linear(weights, bias=False):
    weights = torch.tensor(weights, dtype=torch.float64)
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(weights)
    return layer


def total_squared(output, y):
    return (output**2).sum()


def close(one, two, tolerance=1e-12):
    assert list(one) == list(two)
    for name in one:
        assert one[name].shape == two[name].shape
        torch.testing.assert_close(one[name], two[name], rtol=tolerance, atol=1e-14)


# ------------------------------------------------------------------------------ one by one


def test_magnitude_by_hand():
    net = nn.Sequential(linear([[1.0, -3.0]]), linear([[0.0], [-0.5]]))
    found = sf.score(net, "magnitude")
    assert found["0.weight"].tolist() == [[1.0, 3.0]]
    assert found["1.weight"].tolist() == [[0.0], [0.5]]


def test_magnitude_is_of_the_weights_now_and_a_copy():
    net = nn.Sequential(linear([[1.0, -3.0]]))
    found = sf.score(net, "magnitude")
    with torch.no_grad():
        net[0].weight.mul_(2)
    assert found["0.weight"].tolist() == [[1.0, 3.0]]
    assert sf.score(net, "magnitude")["0.weight"].tolist() == [[2.0, 6.0]]


def test_random_is_fixed_by_its_seed_alone():
    net = mlp(30, 20, 10)
    torch.manual_seed(1)
    first = sf.score(net, "random", seed=3)
    torch.manual_seed(2)
    again, other = sf.score(net, "random", seed=3), sf.score(net, "random", seed=4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    flat = torch.cat([scores.flatten() for scores in first.values()])
    assert not any(torch.equal(first[name], other[name]) for name in first)
    # |N(0, 1)| has mean sqrt(2 / pi); 800 draws are within 0.1 of it.
    assert flat.min() >= 0
    assert abs(flat.mean() - math.sqrt(2 / math.pi)) < 0.1
    correlation = torch.corrcoef(torch.stack([flat, sf_flat(sf.score(net, "magnitude"))]))[0, 1]
    assert abs(correlation) < 0.15


def sf_flat(scores):
    return torch.cat([tensor.flatten() for tensor in scores.values()])


def cross_entropy_gradient(weights, x, y):
    """dL/dW of mean cross-entropy behind one Linear layer, from the formula."""
    logits = x @ weights.T
    probabilities = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    return (probabilities - F.one_hot(y, weights.shape[0])).T @ x / len(x)


def test_snip_by_hand():
    weights = [[0.5, -1.0, 2.0], [1.5, 0.0, -0.25]]
    net = nn.Sequential(linear(weights))
    x = torch.tensor([[1.0, 2.0, -1.0], [0.5, -0.5, 3.0], [0.0, 1.0, 1.0]]).double()
    y = torch.tensor([0, 1, 1])
    gradient = cross_entropy_gradient(net[0].weight.detach(), x, y)
    expected = gradient * net[0].weight.detach()
    assert (expected < 0).any()
    close(sf.score(net, "signed_snip", (x, y)), {"0.weight": expected})
    close(sf.score(net, "snip", (x, y)), {"0.weight": expected.abs()})


def test_snip_of_another_loss_by_hand():
    net = nn.Sequential(linear([[2.0, -1.0]]))
    x, y = torch.tensor([[3.0, 1.0]]).double(), torch.zeros(1)
    # R = (2 * 3 - 1)^2 = 25, dR/dtheta = 2 * 5 * x, times theta
    close(
        sf.score(net, "snip", (x, y), loss=total_squared),
        {"0.weight": torch.tensor([[60.0, 10.0]]).double()},
    )


# GraSP against an explicit Hessian, on networks of two and three weights whose loss is written out.


def two_weights(theta, x, y):
    """Mean cross-entropy / temperature of logits (0, b * relu(a * x)), for theta = (a, b)."""
    hidden = torch.relu(theta[0] * x[:, 0])
    logits = torch.stack([torch.zeros_like(hidden), theta[1] * hidden], 1) / 200.0
    return F.cross_entropy(logits, y)


class TwoWeights(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = linear([[a]]), linear([[b]])

    def forward(self, x):
        hidden = self.b(torch.relu(self.a(x)))
        return torch.cat([torch.zeros_like(hidden), hidden], 1)


@pytest.mark.parametrize(("a", "b"), [(0.7, -1.2), (2.0, 0.5), (-0.3, 3.0)])
def test_grasp_is_theta_times_hessian_times_gradient(a, b):
    x = torch.tensor([[1.0], [-2.0], [0.5], [3.0]]).double()
    y = torch.tensor([0, 1, 1, 0])
    theta = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    hessian = torch.autograd.functional.hessian(lambda t: two_weights(t, x, y), theta)
    (gradient,) = torch.autograd.grad(two_weights(theta, x, y), theta)
    expected = theta.detach() * (hessian @ gradient)
    found = sf.score(TwoWeights(a, b), "grasp", (x, y))
    assert expected.abs().min() > 0
    torch.testing.assert_close(sf_flat(found), expected, rtol=1e-10, atol=1e-18)
    torch.testing.assert_close(sf_flat(found.correction), gradient**2, rtol=1e-10, atol=1e-20)


def test_grasp_by_hand_on_three_weights():
    # R = (c (a x1 + b x2))^2 with x = (1, 2), a = 1, b = 0.5, c = 3: u = a + 2b = 2, f = c u = 6.
    net = nn.Sequential(linear([[1.0, 0.5]]), linear([[3.0]]))
    batch = torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1)
    # R = c^2 u^2; dR/da = 2 c^2 u = 36, dR/db = 72, dR/dc = 2 c u^2 = 24
    # H = [[2c^2, 4c^2, 4cu], [4c^2, 8c^2, 8cu], [4cu, 8cu, 2u^2]]
    hessian = torch.tensor([[18.0, 36.0, 24.0], [36.0, 72.0, 48.0], [24.0, 48.0, 8.0]])
    expected = torch.tensor([1.0, 0.5, 3.0]) * (hessian @ torch.tensor([36.0, 72.0, 24.0]))
    found = sf.score(net, "grasp", batch, loss=total_squared)
    torch.testing.assert_close(sf_flat(found), expected.double())


def gradient_flow(net, batch):
    loss = F.cross_entropy(net(batch[0]) / 200.0, batch[1])
    return sum((g**2).sum() for g in torch.autograd.grad(loss, list(net.parameters())))


def test_grasp_keeps_what_gradient_flow_loses_most_without():
    """The sign of Wang et al.: their -theta * Hg ranks by how removal *raises* gradient flow."""
    net = mlp(3, 4, 3, seed=2)
    batch = images(net, 12)
    found = sf_flat(sf.score(net, "grasp", batch))
    loss, step = [], 1e-5
    for weight in net.parameters():
        for position in range(weight.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    old = weight.flatten()[position].item()
                    weight.view(-1)[position] = old * (1 - sign * step)
                ends.append(float(gradient_flow(net, batch)))
                with torch.no_grad():
                    weight.view(-1)[position] = old
            # d |g|^2 / d(removed fraction) = -2 theta (H g): what is lost is twice the score
            loss.append((ends[1] - ends[0]) / (2 * step))
    loss = torch.tensor(loss)
    torch.testing.assert_close(2 * found, loss.double(), rtol=1e-4, atol=1e-9 * float(loss.max()))
    masks = sf.prune(net, "grasp", 3.0, batch)
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    theirs = -found  # the authors remove the largest of these
    assert theirs[~kept].min() >= theirs[kept].max()
    assert (found < 0).any() and (found > 0).any()


def test_grasp_runs_both_passes_on_the_same_images():
    """A loader that shuffles would give H and g of different batches; it is read only once."""
    net = mlp(4, 5, 3, seed=1)
    x, y = images(net, 12)
    reads = []

    class Loader:
        def __iter__(self):
            reads.append(len(reads))
            order = torch.randperm(12)
            return iter([(x[part], y[part]) for part in order.split(5)])

    close(sf.score(net, "grasp", Loader(), mode="eval"), sf.score(net, "grasp", (x, y)), 1e-9)
    assert reads == [0]


def test_synflow_by_enumerating_every_path():
    net = mlp(3, 4, 2, 3, seed=5)
    weights = [weight.detach() for weight in net.parameters()]
    expected = [torch.zeros_like(weight) for weight in weights]
    for i, j, k, o in itertools.product(range(3), range(4), range(2), range(3)):
        path = weights[0][j, i] * weights[1][k, j] * weights[2][o, k]
        for table, place in zip(expected, [(j, i), (k, j), (o, k)], strict=True):
            table[place] += path.abs()
    found = sf.score(net, "synflow")
    for scores, table in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(scores, table, rtol=1e-13, atol=0)


def strided():
    return with_shape(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, 2, dilation=2, padding=1),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        (2, 9, 9),
    )


@pytest.mark.parametrize("make", [strided, Dense, Shared, Tied, Residual])
def test_synflow_by_counting_paths_between_activations(make):
    net = seeded(make)
    unique = {n: w for n, w in weights_of(net).items() if n in dict(net.named_parameters())}
    close(sf.score(net, "synflow"), Paths(net, net.input_shape).flow(unique))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("make", [narrow_vgg16, narrow_resnet])
def test_synflow_uses_stored_statistics_and_no_constants(make, seed):
    """Running means and betas are far from zero here; |running_mean| or beta would show."""
    net = make(seed=seed)
    close(sf.score(net, "synflow"), plain_scores(net, net.input_shape))
    net.train()
    close(sf.score(net, "synflow"), plain_scores(net, net.input_shape))


def odd_convolutions():
    """Every way of padding, a kernel that is not square, steps that differ, maps of many sizes."""
    return with_shape(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Conv2d(4, 4, (3, 2), padding="same"),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
            nn.BatchNorm2d(6),
            nn.Upsample(scale_factor=2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(6, 4, 3, padding=2, dilation=2),
            nn.AdaptiveMaxPool2d((2, 1)),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(8, 3),
            nn.Softmax(1),
        ),
        (2, 12, 11),
    )


def without_softmax(net):
    if isinstance(net, nn.Sequential) and isinstance(net[-1], nn.Softmax):
        return nn.Sequential(*list(net)[:-1])
    return net


UNUSUAL = (Mobile, Decoder, Dense, Shared, PreActivation, LongBranch, odd_convolutions)


@pytest.mark.parametrize("make", UNUSUAL)
def test_synflow_on_unusual_networks(make):
    net = seeded(make)
    shape = getattr(net, "input_shape", (4,))
    close(sf.score(net, "synflow"), plain_scores(without_softmax(net), shape))


@pytest.mark.parametrize(
    "norm", [{"affine": False}, {"track_running_stats": False}, {"eps": 0.5, "momentum": 0.9}]
)
def test_synflow_of_every_kind_of_batch_norm(norm):
    net = narrow_vgg16(**norm)
    found = sf.score(net, "synflow")
    if norm.get("track_running_stats", True):
        close(found, plain_scores(net, net.input_shape))
    else:  # no stored statistics: what is linear in it is its gamma
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_buffer("running_mean", torch.zeros(module.num_features).double())
                ones = torch.ones(module.num_features).double()
                module.register_buffer("running_var", ones - module.eps)
        close(found, plain_scores(net, net.input_shape))


def test_synflow_ignores_input_values_and_classes():
    net = mlp(4, 3, 2)
    x, y = images(net)
    close(sf.score(net, "synflow"), sf.score(net, "synflow", (100 * x, y)))


def test_synflow_of_a_weight_that_is_zero_is_zero():
    net = mlp(4, 3, 2)
    with torch.no_grad():
        net[0].weight[1] = 0
    found = sf.score(net, "synflow")
    assert (found["0.weight"][1] == 0).all()
    assert (found["1.weight"][:, 1] == 0).all()
    assert (found["0.weight"][0] > 0).all()


def test_synflow_with_biases_counts_paths_that_start_at_a_bias():
    net = mlp(2, 2, 1, bias=True, seed=3)
    found = sf.score(net, "synflow", bias=True)
    assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    a, b, c, d = (p.detach().abs() for p in net.parameters())
    close(
        found,
        {
            "0.weight": a * c.T,
            "0.bias": b * c[0],
            "1.weight": c * (a.sum(1) + b),
            "1.bias": d,
        },
    )


# ------------------------------------------------------------------------------ own objectives


def test_synaptic_saliency_of_a_users_objective():
    net = mlp(3, 4, 2, seed=1)
    x, y = images(net)

    def objective(output, y):
        return (output[:, 0] ** 3).sum() - output[:, 1].sum()

    output = objective(net(x), y)
    grads = torch.autograd.grad(output, list(net.parameters()))
    expected = {
        name: (weight * g).detach()
        for (name, weight), g in zip(net.named_parameters(), grads, strict=True)
    }
    close(sf.score(net, sf.synaptic_saliency(objective), (x, y)), expected)
    assert sf.prune(net, sf.synaptic_saliency(objective), 4.0, (x, y)).kept == 5


def test_synaptic_saliency_uses_the_statistics_it_was_told():
    net = narrow_vgg16()
    batch = images(net)

    def square(output, y):
        return (output**2).sum()

    def scores(declared, asked=None):
        method = sf.synaptic_saliency(square, mode=declared)
        return sf_flat(sf.score(net, method, batch, mode=asked))

    assert not torch.allclose(scores("eval"), scores("train"))
    assert torch.equal(scores("eval"), scores("train", asked="eval"))
    assert torch.equal(scores("train"), scores("eval", asked="train"))


def test_a_callable_is_a_method_and_sees_model_and_batch():
    net = mlp(3, 4, 2)
    batch = images(net)
    seen = []

    def largest_first_layer(model, data):
        seen.append(data)
        assert model is not net
        return {n: p.detach().abs() + 10 * n.startswith("0") for n, p in model.named_parameters()}

    found = sf.score(net, largest_first_layer, batch)
    assert seen[0] is batch
    torch.testing.assert_close(found["0.weight"], net[0].weight.detach().abs() + 10)
    masks = sf.prune(net, largest_first_layer, 20 / 12, batch)
    assert masks.table()["kept"].tolist() == [12, 0]


def test_a_callable_may_spoil_its_copy_and_sees_the_pruned_weights_next_time():
    net = mlp(3, 4, 2)
    zeros = []

    def careless(model, batch):
        found = {name: p.detach().abs().clone() for name, p in model.named_parameters()}
        zeros.append(sum(int((p == 0).sum()) for p in model.parameters()))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)
        return found

    counts = sf.trajectory(net, careless, iterations=3, compression=4.0).counts
    assert zeros == [20 - kept for kept in counts[:3]]
    assert sf.prune(net, careless, 4.0) == sf.prune(net, "magnitude", 4.0)


def test_a_callable_may_return_float64_integers_and_more_than_needed():
    net = mlp(3, 4, 2, dtype=torch.float32)

    def ranks(model, batch):
        found = {"0.weight": torch.arange(12).view(4, 3), "extra": torch.zeros(1)}
        return found | {"1.weight": torch.full((2, 4), 5.5, dtype=torch.float64)}

    masks = sf.prune(net, ranks, 20 / 6)
    assert masks["0.weight"].flatten().tolist() == [False] * 6 + [True] * 6
    assert list(masks) == ["0.weight", "1.weight"]


def test_registering_a_method():
    def ones(model, batch):
        return {name: torch.ones_like(p) for name, p in model.named_parameters()}

    sf.register("ones", ones)
    try:
        assert sf.prune(mlp(2, 2), "ones", 4).kept == 1
        with pytest.raises(ValueError, match=r"'ones' exists already.*replace=True"):
            sf.register("ones", ones)
        sf.register("ones", "magnitude", replace=True)
        assert sf.METHODS["ones"] is sf.METHODS["magnitude"]
    finally:
        del sf.METHODS["ones"]


# ------------------------------------------------------------------------------ data, in any form


@pytest.mark.parametrize("method", ["snip", "signed_snip", "grasp"])
def test_several_batches_are_one_batch_in_eval_mode(method):
    net = narrow_vgg16()
    x, y = images(net, 23)
    whole = sf.score(net, method, (x, y), mode="eval")
    pieces = [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6:], y[6:])]
    close(sf.score(net, method, pieces, mode="eval"), whole, 1e-8)
    close(sf.score(net, method, iter(pieces), mode="eval"), whole, 1e-8)
    close(sf.score(net, method, (pair for pair in pieces), mode="eval"), whole, 1e-8)
    close(sf.score(net, method, [[x, y]], mode="eval"), whole, 1e-8)
    loader = DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True)
    close(sf.score(net, method, loader, mode="eval"), whole, 1e-8)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_more_images_than_one_pass_takes_still_are_one_batch(method):
    net = mlp(3, 4, 2)
    x, y = images(net, 600)
    parts = [(x[i : i + 1], y[i : i + 1]) for i in range(600)]
    close(sf.score(net, method, (x, y), mode="eval"), sf.score(net, method, parts, mode="eval"))


@pytest.mark.parametrize("method", ["snip", "grasp", sf.synaptic_saliency(total_squared)])
def test_batches_are_weighted_by_their_images(method):
    """A mean of batch means would weigh the single image of the second batch like seven."""
    net = mlp(3, 4, 2, seed=4)
    x, y = images(net, 8)
    uneven = [(x[:7], y[:7]), (x[7:], y[7:])]
    close(sf.score(net, method, uneven), sf.score(net, method, (x, y)), 1e-9)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_train_mode_is_the_default_and_uses_batch_statistics(method):
    net = narrow_vgg16().eval()
    batch = images(net)
    default = sf_flat(sf.score(net, method, batch))
    assert torch.equal(default, sf_flat(sf.score(net, method, batch, mode="train")))
    assert not torch.allclose(default, sf_flat(sf.score(net, method, batch, mode="eval")))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(3.0)
                module.running_var.mul_(5.0)
    assert torch.equal(default, sf_flat(sf.score(net, method, batch)))


def test_shuffled_loader_and_generator_give_the_same_masks_twice():
    net = narrow_vgg16()
    x, y = images(net, 12)

    def loader():
        return DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)

    first = sf.prune(net, "snip", 10, loader(), seed=1)
    torch.rand(3)
    assert sf.prune(net, "snip", 10, loader(), seed=1) == first
    split = (pair for pair in [(x[:6], y[:6]), (x[6:], y[6:])])
    again = [(x[:6], y[:6]), (x[6:], y[6:])]
    assert sf.prune(net, "snip", 10, split, iterations=3) == sf.prune(
        net, "snip", 10, again, iterations=3
    )


def test_a_generator_lasts_through_all_iterations_of_a_callable():
    net, lengths = mlp(3, 4, 2), []

    def scorer(model, batch):
        lengths.append(len(list(batch)))
        return {name: p.detach().abs() for name, p in model.named_parameters()}

    sf.prune(net, scorer, 8, (images(net) for _ in range(3)), iterations=3)
    assert lengths == [3, 3, 3]


@pytest.mark.parametrize("batch", [torch.ones(2, 3), {"x": torch.ones(2, 3)}, "a note", 7])
def test_a_callable_sees_its_batch_as_it_was_given(batch):
    net, seen = mlp(3, 4, 2), []

    def scorer(model, batch):
        seen.append(batch)
        return {name: p.detach().abs() for name, p in model.named_parameters()}

    sf.prune(net, scorer, 8, batch, iterations=2)
    sf.critical_compression(net, scorer, batch=batch)
    assert len(seen) == 3 and all(each is batch for each in seen)


def test_a_callable_on_a_network_with_a_parameter_of_whole_numbers():
    net = mlp(3, 4, 2)
    net.steps = nn.Parameter(torch.tensor([3]), requires_grad=False)
    found = sf.score(net, lambda model, batch: dict(model.named_parameters()))
    assert torch.equal(found["0.weight"], net[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_every_type_of_number(method, dtype):
    net = mlp(4, 6, 3, dtype=dtype)
    x, y = images(mlp(4, 6, 3))
    found = sf.score(net, method, (x, y))
    assert all(torch.isfinite(scores).all() for scores in found.values())
    assert {scores.dtype for scores in found.values()} == {torch.float64}
    single = sf.score(net, method, (x, y), dtype=torch.float32)
    assert {scores.dtype for scores in single.values()} == {torch.float32}
    assert sf.prune(net, method, 3, (x, y)).kept == 14


@pytest.mark.parametrize("method", METHODS)
def test_scores_do_not_depend_on_gradients_being_switched_on(method):
    net = mlp(4, 6, 3, bias=True)
    batch = images(net)
    expected = sf.score(net, method, batch)
    masks = sf.prune(net, method, 4, batch)
    with torch.no_grad():
        close(sf.score(net, method, batch), expected)
        assert sf.prune(net, method, 4, batch) == masks
    with torch.inference_mode():
        found = sf.score(net, method, images(net))
        pruned = sf.prune(net, method, 4, images(net))
    close(found, expected)
    assert pruned == masks


def test_scores_come_in_forward_order_for_the_parameters_asked_for():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 2)
            self.first = nn.Linear(4, 3)

        def forward(self, x):
            return self.last(F.relu(self.first(x)))

    net = Reversed()
    assert list(sf.score(net, "synflow")) == ["first.weight", "last.weight"]
    with_bias = ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert list(sf.score(net, "magnitude", bias=True)) == with_bias
    assert list(sf.score(net, "magnitude", keep=["last"])) == ["first.weight"]


def test_the_data_that_data_free_methods_get_is_ignored():
    net = mlp(4, 3, 2)
    nonsense = (torch.full((2, 4), 3.0).double(), torch.tensor([9, 9]))
    for method in ("random", "magnitude", "synflow"):
        close(sf.score(net, method, nonsense), sf.score(net, method))


# ------------------------------------------------------------------------------ bad input


def test_unknown_method_lists_the_methods():
    with pytest.raises(ValueError, match="unknown method 'snipp'") as caught:
        sf.score(mlp(2, 2), "snipp")
    assert all(repr(name) in str(caught.value) for name in METHODS)
    with pytest.raises(TypeError, match=r"method is a int.*'synflow'.*function \(model, batch\)"):
        sf.score(mlp(2, 2), 3)
    with pytest.raises(TypeError, match="method is the class Linear; expected one of"):
        sf.score(mlp(2, 2), nn.Linear)


def test_names_and_modes_that_would_never_be_used():
    for name in ("imp", "dense"):  # what a `Run` calls so is something else
        with pytest.raises(ValueError, match="runs know already"):
            sf.register(name, sf.methods.Magnitude)
    with pytest.raises(TypeError, match="name is a NoneType"):
        sf.register(None, sf.methods.Magnitude)
    with pytest.raises(ValueError, match="mode='Train'; expected 'train' or 'eval'"):
        sf.synaptic_saliency(lambda output, y: output.sum(), mode="Train")


@pytest.mark.parametrize("method", ["snip", "grasp", "signed_snip"])
def test_missing_data_says_where_to_get_it(method):
    with pytest.raises(ValueError, match=r"pass batch=\(x, y\).*scoring_batch"):
        sf.score(mlp(2, 2), method)


X, Y = torch.zeros(4, 3).double(), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((X.to("meta"), Y), ValueError, r"batch x lies on meta, the model on cpu.*x.to\('cpu'\)"),
        ((X, Y.to("meta")), ValueError, r"batch y lies on meta.*y.to\('cpu'\)"),
        ((X, Y[:3]), ValueError, r"x has shape \(4, 3\) and y \(3,\).*same n"),
        ((X[:0], Y[:0]), ValueError, r"x has shape \(0, 3\).*n >= 1"),
        ((X[0], Y), ValueError, r"x has shape \(3,\).*expected \(n, \.\.\.\)"),
        ((torch.full((4, 3), torch.nan), Y), ValueError, "x holds NaN or infinite"),
        ((torch.full((4, 3), torch.inf), Y), ValueError, "x holds NaN or infinite"),
        ((torch.zeros(4, 5).double(), Y), ValueError, r"input of shape \(4, 5\).*Check the batch"),
        ((X, torch.tensor([0, 1, 2, 3])), ValueError, "labels run from 0 to 3; expected 0 to 1"),
        ((X, torch.tensor([0, 1, -1, 0])), ValueError, "labels run from -1 to 1; expected 0 to 1"),
        ((X, Y.double()), ValueError, r"torch.float64; cross-entropy expects.*loss="),
        ((X, Y[:, None]), ValueError, r"y shape \(4, 1\).*loss="),
        ((X, Y.bool()), ValueError, "torch.bool; cross-entropy expects"),
        ([], ValueError, "batch is empty.*consumed"),
        (iter([]), ValueError, "batch is empty.*consumed"),
        (3, TypeError, r"batch is a int; expected \(x, y\) or an iterable"),
        ([(X, Y), X], TypeError, r"a batch is a Tensor; expected a pair \(x, y\)"),
        ((X, [0, 1, 0, 1]), TypeError, "expected a pair"),
        ([(X, Y, Y)], TypeError, r"a batch is a tuple; expected a pair \(x, y\)"),
    ],
)
@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_unfit_data(method, batch, error, message):
    if not isinstance(batch, (tuple, list, int)):
        batch = iter([])
    with pytest.raises(error, match=message):
        sf.score(mlp(3, 4, 2), method, batch)


def test_an_unfit_later_batch_is_found():
    with pytest.raises(ValueError, match="labels run from 0 to 2"):
        sf.score(mlp(3, 4, 2), "snip", [(X, Y), (X, torch.tensor([0, 1, 2, 0]))])


def test_a_batch_of_one_image_in_train_mode_says_so():
    net = mlp(3, 4, 2, batch_norm=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        sf.score(net, "snip", (X[:1], Y[:1]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "test"}, ValueError, "mode='test'; expected 'train', 'eval' or None"),
        ({"loss": lambda o, y: o}, ValueError, r"returned torch.Size\(\[4, 2\]\).*one number"),
        ({"loss": lambda o, y: 3.0}, ValueError, "returned <class 'float'>; expected one number"),
        ({"keep": ["4"]}, ValueError, r"keep=\['4'\] names no layer or parameter"),
        ({"keep": ["0", "1"]}, ValueError, r"no prunable layer .*outside keep=\['0', '1'\]"),
    ],
)
def test_unfit_options(options, error, message):
    with pytest.raises(error, match=message):
        sf.score(mlp(3, 4, 2), "snip", (X, Y), **options)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (nn.Sequential(nn.ReLU()), ValueError, r"Sequential has no prunable layer \(Linear or"),
        (lambda x: x, TypeError, "model must be a torch.nn.Module, got function"),
        (nn.Sequential(nn.LazyLinear(3)), ValueError, "0.weight is a lazy parameter: run one"),
        (nn.Linear(2, 2, device="meta"), ValueError, r"lie on \['meta'\]; expected one real"),
    ],
)
def test_unfit_models(model, error, message):
    with pytest.raises(error, match=message):
        sf.score(model, "magnitude")


def test_a_model_under_torch_prune_is_refused_with_the_way_out():
    net = mlp(3, 2)
    torch_prune.l1_unstructured(net[0], "weight", 2)
    with pytest.raises(ValueError, match=r"0.weight is computed from other tensors.*prune.remove"):
        sf.score(net, "magnitude")
    torch_prune.remove(net[0], "weight")
    assert sf.Masks.from_model(net).kept == 4


def test_an_input_shape_that_nothing_tells_is_asked_for():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 2))
    with pytest.raises(ValueError, match=r"pass input_shape=\(channels, height, width\)"):
        sf.score(net, "synflow")
    with pytest.raises(ValueError, match=r"input of shape \(1, 1, 9, 9\).*input_shape="):
        sf.score(net, "synflow", input_shape=(1, 9, 9))
    for shape in [(), (1, 0, 6), (1, 6.0, 6)]:
        with pytest.raises(ValueError, match="expected positive integers without the batch"):
            sf.score(net, "synflow", input_shape=shape)
    expected = sf.score(net, "synflow", input_shape=(1, 6, 6))
    close(sf.score(net, "synflow", (torch.zeros(2, 1, 6, 6), torch.zeros(2))), expected)
    net.input_shape = (1, 6, 6)
    close(sf.score(net, "synflow"), expected)


def returning(change):
    def scorer(model, batch):
        found = {name: p.detach().abs() for name, p in model.named_parameters()}
        return change(found)

    return scorer


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: {"0.weight": s["0.weight"]}, ValueError, "no scores for '1.weight'; it needs"),
        (lambda s: s | {"1.weight": s["0.weight"]}, ValueError, r"\(4, 3\).*shape \(2, 4\)"),
        (lambda s: s | {"1.weight": 3.0}, ValueError, "'1.weight'.*type float"),
        (lambda s: list(s.values()), TypeError, "returned a list; expected a dict"),
        (lambda s: None, TypeError, "returned a NoneType; expected a dict"),
    ],
)
def test_scorers_that_return_something_unfit(change, error, message):
    for call in (sf.score, lambda net, scorer: sf.prune(net, scorer, 2)):
        with pytest.raises(error, match=message):
            call(mlp(3, 4, 2), returning(change))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    def one_bad(scores):
        scores["1.weight"][1, 2] = value
        return scores

    with pytest.raises(ValueError, match="one_bad|returning|scorer.*NaN or infinite"):
        sf.prune(mlp(3, 4, 2), returning(one_bad), 2)


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(method, value):
    net = mlp(3, 4, 2)
    with torch.no_grad():
        net[0].weight[0, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        sf.prune(net, method, 2, images(mlp(3, 4, 2)))


def test_grasp_names_what_has_no_second_derivative():
    net = nn.Sequential(nn.Linear(4, 6), nn.Hardsigmoid(), nn.Linear(6, 3))
    batch = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    with pytest.raises(ValueError, match="has none of hardsigmoid; write it out"):
        sf.score(net, "grasp", batch)
    net[1] = nn.Hardswish()
    assert sf.score(net, "grasp", batch)["0.weight"].isfinite().all()


@pytest.mark.parametrize("method", ["signed_snip", "grasp"])
@pytest.mark.parametrize("maps", [False, True])
def test_a_constant_unit_behind_batch_norm_is_zero_and_not_nearly_zero(method, maps):
    """Its mean is rounded; what is left of it decided whether ReLU passes gradients or none."""
    layer, norm = (nn.Conv2d, nn.BatchNorm2d) if maps else (nn.Linear, nn.BatchNorm1d)
    one = {"kernel_size": 1} if maps else {}
    for seed in range(20):
        torch.manual_seed(seed)
        net = nn.Sequential(
            layer(2, 3, **one), norm(3), nn.ReLU(), layer(3, 3, **one), norm(3), nn.ReLU(),
            *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if maps else []), nn.Linear(3, 2),
        ).double()  # fmt: skip
        x = torch.randn(7 + seed, 2, *([3, 3] if maps else []), dtype=torch.float64)
        x[:, 1] = 0.1 + seed / 7
        with torch.no_grad():
            net[0].weight[0, 0] = 0  # its first unit sees the constant alone
        scores = sf.score(net, method, (x, torch.arange(len(x)) % 2))
        assert not scores["0.weight"][0].any() and not scores["3.weight"][:, 0].any()
        assert scores["0.weight"][1:, 0].any() and scores["3.weight"][:, 1:].any()
