"""What users do with modules: functions that name layers, computed parameters, hooks, copies."""

import copy
import functools
import types
import weakref

import pytest
import torch
import torch.nn.functional as F
from networks import mlp, seeded
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

import synflow_lib as sf

SHAPE = {"input_shape": (6,)}
GAIN = torch.arange(1.0, 9.0, dtype=torch.float64)


def expected(net):
    """SynFlow's scores, by autograd on a network that is made anew."""
    net.eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.zero_() if "bias" in name else parameter.abs_()
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
    net(torch.ones(1, 6, dtype=torch.float64)).sum().backward()
    return {name: p.detach() * p.grad for name, p in sf.prunable(net).items()}


def check(make):
    net, right = make(), expected(make())
    scores = sf.score(net, "synflow", **SHAPE)
    assert set(right) == set(scores)
    for name, score in scores.items():
        torch.testing.assert_close(score * 2.0 ** getattr(scores, "log2_scale", 0), right[name])
    return net, scores


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def in_the_forward(net):
    net.forward = lambda x: net[2](2 * net[1](net[0](x)))


def as_a_default(net):
    net.forward = lambda x, net=net: net[2](2 * net[1](net[0](x)))


def by_a_helper(net):
    def last(x):
        return net[2](2 * x)

    net.forward = lambda x: last(net[1](net[0](x)))


def in_a_list(net):
    layers = [net[1], net[2]]
    net.forward = types.MethodType(lambda self, x: layers[1](2 * layers[0](self[0](x))), net)


def by_itself(net):
    def run(x, number=0):
        return run(2 * net[number](x), number + 1) if number < 3 else x

    net.forward = run


def by_a_partial(net):
    net.forward = functools.partial(lambda factor, x: net[2](factor * net[1](net[0](x))), 2)


class Behind(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = weakref.ref(net)

    def forward(self, x):
        return self.net()[2].forward(x) + x[:, :3]


def by_a_weak_reference(net):
    net.forward = types.MethodType(lambda self, x: self.behind(self[1](self[0](x))), net)
    net.behind = Behind(net)


def in_a_hook(net):
    net[2].register_forward_hook(lambda _, args, out: net[2].forward(args[0]) + out)


def in_a_module(net):
    own = [net[0], net[1]]
    net[0] = Apply(lambda x: 2 * own[0](x))
    net[0].layer = own[0]


HOLDS = [
    in_the_forward,
    as_a_default,
    by_a_helper,
    by_itself,
    by_a_partial,
    by_a_weak_reference,
    in_a_list,
    in_a_hook,
    in_a_module,
]


@pytest.mark.parametrize("hold", HOLDS)
def test_functions_that_name_layers_run_those_of_the_copy(hold):
    def make():
        net = mlp(6, 8, 3)
        hold(net)
        return net

    net, _ = check(make)
    x, y = torch.randn(12, 6).double(), torch.arange(12) % 3
    found, fresh = sf.score(net, "snip", (x, y)), make()
    F.cross_entropy(fresh(x), y).backward()
    for name, parameter in sf.prunable(fresh).items():
        torch.testing.assert_close(found[name], (parameter * parameter.grad).detach().abs())


def test_a_hook_that_writes_to_its_network_leaves_the_user_s_alone():
    net = mlp(6, 8, 3)
    net.seen = 0
    net[1].register_forward_hook(lambda *_: setattr(net, "seen", net.seen + 1))
    sf.prune(net, "synflow", 3, **SHAPE)
    sf.score(net, "snip", (torch.randn(6, 6, dtype=torch.float64), torch.arange(6) % 3))
    assert net.seen == 0


LAYER = nn.Linear(8, 8).double()


class Outside(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 8), layer, nn.Linear(8, 3)
        self.double()

    def forward(self, x):
        return self.last(LAYER(self.first(x).relu()).relu())


def test_a_class_that_names_the_network_s_layers_from_outside_is_refused():
    for method in ("synflow", "magnitude"):
        with pytest.raises(ValueError, match="Outside, the class of 'Outside', names.*self"):
            sf.prune(Outside(LAYER), method, 3, **SHAPE)


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(6, 8), [nn.Linear(8, 8)], nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.hidden:
            x = layer(self.first(x).relu()).relu()
        return self.last(x)


def test_layers_in_a_plain_list_are_said_to_be_left_out():
    with pytest.warns(UserWarning, match="parameters that are not its own.*ModuleList"):
        assert sf.prune(Held(), "synflow", 3, **SHAPE).kept == 24


class Called(nn.Sequential):
    def __call__(self, x):
        return super().__call__(x * torch.arange(1.0, 7.0, dtype=x.dtype))


class Doubled(nn.Module):
    def forward(self, values):
        return values * torch.arange(1.0, 9.0, dtype=values.dtype)


def parametrized(part, name):
    parametrize.register_parametrization(part, name, Doubled())


def of_torch_prune(part, name):
    torch.manual_seed(0)
    torch_prune.random_unstructured(part, name, 0.5)


def test_what_a_class_does_around_its_forward_is_followed():
    check(lambda: Called(*mlp(6, 8, 3)))


@pytest.mark.parametrize("compute", [parametrized, of_torch_prune])
@pytest.mark.parametrize("part, name", [(0, "bias"), (1, "weight"), (1, "bias")])
def test_computed_parameters_that_are_not_pruned_are_followed(compute, part, name):
    def make():
        net = mlp(6, 8, 3, bias=True, batch_norm=True)
        with torch.no_grad():
            net[1].weight.copy_(torch.linspace(-1, 2, 8))
        compute(net[part], name)
        return net

    net, scores = check(make)
    assert sf.check_conservation(net, scores, level="unit", **SHAPE).holds(1e-9)
    masks = sf.prune(net, "magnitude", 3, **SHAPE)
    fresh, lie = make(), 0
    masks.apply_(fresh)
    for score in expected(fresh).values():
        lie += int((score != 0).sum())
    assert sf.effective_compression(net, masks, **SHAPE) == 72 / lie
    last = sf.trajectory(net, "synflow", schedule="cut", **SHAPE)
    assert not sf.is_collapsed(net, last.at(last.max_compression), "path", **SHAPE)


def test_hooks_of_the_backward_are_no_part_of_the_scores():
    right = sf.score(mlp(6, 8, 8, 3), "synflow", **SHAPE)
    net = mlp(6, 8, 8, 3)
    net[2].register_full_backward_pre_hook(lambda _, slopes: (3 * slopes[0],))
    net[0].register_full_backward_hook(lambda _, slopes, __: (2 * slopes[0],))
    found = sf.score(net, "synflow", **SHAPE)
    assert all(torch.equal(found[name], right[name]) for name in right)
    assert len(net[2]._backward_pre_hooks) == len(net[0]._backward_hooks) == 1


def test_a_hook_that_writes_past_autograd_is_seen():
    def scale(module, args, out):
        out.data.mul_(GAIN)

    net = mlp(6, 8, 3)
    net[1].register_forward_hook(scale)
    with pytest.raises(ValueError, match="cannot be traced"):
        sf.score(net, "synflow", **SHAPE)


def test_what_was_changed_in_a_graph_of_the_user_s_is_followed_or_refused():
    net = torch.fx.symbolic_trace(mlp(6, 8, 3))
    net.relu0.forward = lambda x: x.relu() * GAIN
    with pytest.raises(ValueError, match="do not know relu0, a ReLU"):
        sf.score(net, "synflow", **SHAPE)

    def make():
        net = torch.fx.symbolic_trace(mlp(6, 8, 3))
        net.relu0.register_forward_hook(lambda *given: given[2] * GAIN)
        return net

    check(make)


class Remade(nn.Module):
    """Its copy is made as it was, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.net = mlp(6, 8, 3)
        nn.Linear(2, 2)

    def __deepcopy__(self, memo):
        memo[id(self)] = new = Remade()
        new.net = copy.deepcopy(self.net, memo)
        return new

    def forward(self, x):
        return self.net(x)


def test_a_copy_that_draws_leaves_the_random_numbers():
    net = Remade()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    sf.prune(net, "synflow", 3, **SHAPE)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_activation_may_be_scored_on_data():
    net = mlp(6, 8, 3)
    net[1] = torch.jit.script(nn.ReLU())
    batch = torch.randn(6, 6, dtype=torch.float64), torch.arange(6) % 3
    right = sf.score(mlp(6, 8, 3), "snip", batch)
    assert all(torch.equal(s, right[n]) for n, s in sf.score(net, "snip", batch).items())


def test_a_lazy_norm_is_named():
    net = nn.Sequential(nn.Linear(6, 8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(8, 3))
    for method in ("synflow", "magnitude"):
        with pytest.raises(ValueError, match="^1.weight is a lazy parameter"):
            sf.prune(net, method, 3, **SHAPE)


def forget(weight):
    weight.grad.zero_()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("of", ["weight", "after", "module"])
def test_hooks_of_the_backward_keep_copies_from_being_trained_together(of):
    def make():
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        if of == "weight":
            net[1].weight.register_hook(torch.zeros_like)
        elif of == "after":
            net[1].weight.register_post_accumulate_grad_hook(forget)
        else:
            net[1].register_full_backward_pre_hook(lambda _, slopes: (0 * slopes[0],))
        return net

    digits, recipe = sf.data.digits().subset(100, 50), sf.Recipe(1, 0.1)
    with pytest.raises(ValueError, match="hook of the backward.*one by one"):
        sf.train_many([make(), make()], [None, None], digits, recipe)
    net = make()
    before = net[1].weight.detach().clone()
    sf.train(net, None, digits, recipe)
    assert torch.equal(net[1].weight, before)


class Perceptrons(nn.TransformerEncoderLayer):
    """torch's layer with a forward of its own, which attends to nothing."""

    def forward(self, src, **_):
        return self.linear2(F.relu(self.linear1(src)))


class WithoutFeedForward(nn.TransformerEncoderLayer):
    def _ff_block(self, x):
        return x


def packed(kind=nn.TransformerEncoderLayer, **options):
    torch.manual_seed(0)
    return kind(6, 2, 8, dropout=0.0, batch_first=True, **options).double()


def test_what_stands_inside_of_torch_s_packed_layers_is_looked_at():
    stack = nn.TransformerEncoder(packed(Perceptrons), 2, enable_nested_tensor=False)
    plain = nn.Sequential(*(part for layer in stack.layers for part in (
        layer.linear1, nn.ReLU(), layer.linear2)))  # fmt: skip
    scores = sf.score(stack, "synflow", input_shape=(3, 6))
    right = sf.score(plain, "synflow", input_shape=(3, 6))
    found = [scores[f"layers.{i}.linear{j}.weight"] for i in (0, 1) for j in (1, 2)]
    for score, other in zip(found, right.values(), strict=True):
        torch.testing.assert_close(score, other)


def test_an_overridden_part_of_a_packed_layer_counts():
    net = nn.Sequential(packed(WithoutFeedForward), nn.Linear(6, 2).double())
    with pytest.warns(UserWarning, match="every score of"):
        scores = sf.score(net, "synflow", input_shape=(3, 6))
    assert not scores["0.linear1.weight"].any() and scores["0.self_attn.out_proj.weight"].any()


@pytest.mark.parametrize("part", ["linear1", "norm1"])
def test_a_packed_layer_with_another_part_is_refused(part):
    net = nn.Sequential(packed(), nn.Linear(6, 2).double())
    setattr(net[0], part, nn.Sequential(getattr(net[0], part)))
    with pytest.raises(ValueError, match="cannot be traced"):
        sf.score(net, "synflow", input_shape=(3, 6))


def test_a_packed_layer_s_activation_has_to_be_known():
    net = nn.Sequential(packed(activation=lambda x: x * x), nn.Linear(6, 2).double())
    with pytest.raises(ValueError, match="mul of 2 values"):
        sf.score(net, "synflow", input_shape=(3, 6))


class Chosen(nn.Module):
    def __init__(self, largest):
        super().__init__()
        self.first, self.last, self.largest = nn.Linear(6, 5), nn.Linear(2, 3), largest

    def forward(self, x):
        return self.last(self.first(x).topk(2, dim=1, largest=self.largest)[0])


def test_signs_are_no_part_of_the_paths_of_the_smallest_either():
    largest, smallest = (sf.score(seeded(lambda o=o: Chosen(o)), "synflow", **SHAPE)
                         for o in (True, False))  # fmt: skip
    assert largest["first.weight"].any()
    for name, score in largest.items():
        torch.testing.assert_close(score, smallest[name])


class SignalAsBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(F.linear(torch.ones(1, 2), torch.ones(5, 2), self.first(x)[0]))


def test_a_signal_in_the_place_of_a_bias_is_refused():
    with pytest.raises(ValueError, match="linear whose bias comes from the input"):
        sf.score(SignalAsBias(), "synflow", **SHAPE)


def _wrapping(forward):
    return functools.wraps(forward)(lambda *args: forward(*args))


WRAPPERS = {
    "compiled": lambda forward: torch.compile(forward, backend="eager"),
    "not compiled": torch.compiler.disable,
    "without gradients": lambda forward: torch.no_grad()(forward),
    "functools.wraps": _wrapping,
    "partial": functools.partial,
    "function": lambda forward: lambda x: forward(x),
    "cached": functools.lru_cache(4),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_forward_runs_the_layers_of_the_copy(name):
    def made(batch_norm=False):
        return mlp(6, 5, 4, batch_norm=batch_norm)

    net = made()
    net.forward = WRAPPERS[name](net.forward)
    torch.testing.assert_close(
        dict(sf.score(net, "synflow", **SHAPE)), dict(sf.score(made(), "synflow", **SHAPE))
    )
    net, generator = made(batch_norm=True), torch.Generator().manual_seed(0)
    batch = torch.randn(8, 6, generator=generator), torch.arange(8) % 4
    wanted = sf.score(made(batch_norm=True), "snip", batch)
    net.forward = WRAPPERS[name](net.forward)
    if name == "without gradients":
        with pytest.raises(ValueError, match="detach, no_grad"):
            sf.score(net, "snip", batch)
    else:
        torch.testing.assert_close(dict(sf.score(net, "snip", batch)), dict(wanted))
    assert net[1].num_batches_tracked == 0  # its own statistics are as they were


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.empty_like(x).uniform_(0.5, 1.5))


def test_draws_that_write_in_place_are_draws():
    net, before = seeded(Noisy), torch.get_rng_state()
    with pytest.raises(ValueError, match="uniform, random numbers that differ in every pass"):
        sf.score(net, "synflow", **SHAPE)
    assert torch.equal(before, torch.get_rng_state())


def test_a_learned_key_beside_the_tokens_is_refused():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(6, 2, add_bias_kv=True, batch_first=True)
            self.last = nn.Linear(6, 2)

        def forward(self, x):
            return self.last(self.attend(x, x, x, need_weights=False)[0])

    with pytest.raises(ValueError, match="add_bias_kv=True"):
        sf.score(Attends(), "synflow", input_shape=(3, 6))


class Louder(nn.Sequential):
    """Another network in training, the same one in evaluation."""

    def __init__(self, factor):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        self.factor = factor

    def forward(self, x):
        return super().forward(x) * (self.factor if self.training else 1.0)


def test_copies_that_differ_in_training_alone_are_not_trained_together():
    recipe, digits = sf.Recipe(1, 0.1), sf.data.digits().subset(100, 50)
    nets = [seeded(lambda f=f: Louder(f), dtype=torch.float32) for f in (1.0, 1.0, 0.1)]
    assert len(sf.train_many(nets[:2], [None, None], digits, recipe)) == 2
    with pytest.raises(ValueError, match="model 1 trains as something else"):
        sf.train_many(nets[1:], [None, None], digits, recipe)


@pytest.mark.parametrize("amp", [1, "yes"])
def test_mixed_precision_is_a_bool(amp):
    digits = sf.data.digits().subset(100, 50)
    with pytest.raises(ValueError, match=f"amp={amp!r}"):
        sf.train(seeded(lambda: Louder(1.0)), None, digits, sf.Recipe(1, 0.1), amp=amp)
