"""What users could plausibly write: the right answer, or a refusal by name."""

import copy
import functools
import pickle

import pytest
import torch
from networks import mlp, seeded
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

import synflow_lib as sf
from synflow_lib import pruning
from synflow_lib.graphs import checked, copies

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


# ---------------------------------------------------------- branches that tracing takes wrongly


class Asks(nn.Module):
    """Runs its second layer where ``question`` is true of a tensor, as it always is."""

    def __init__(self, question):
        super().__init__()
        self.question = question
        self.a, self.b, self.o = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x)
        if self.question(h):
            h = self.b(h).relu()
        return self.o(h)


@pytest.mark.parametrize(
    "question",
    [
        lambda h: isinstance(h, torch.Tensor),
        torch.is_tensor,
        lambda h: not hasattr(h, "no_such_thing"),
    ],
)
def test_a_value_that_is_traced_is_a_tensor_to_the_forward(question):
    net = seeded(lambda: Asks(question))
    plain = nn.Sequential(net.a, net.b, nn.ReLU(), net.o)
    found, expected = sf.score(net, "synflow"), sf.score(plain, "synflow")
    for mine, right in zip(("a", "b", "o"), ("0", "1", "3"), strict=True):
        torch.testing.assert_close(found[f"{mine}.weight"], expected[f"{right}.weight"])
    ones = sf.Masks.ones(net)
    cut = sf.Masks({**ones, "b.weight": torch.zeros(4, 4, dtype=torch.bool)})
    assert sf.is_collapsed(net, cut, "path") and not sf.is_collapsed(net, ones, "path")
    assert sf.max_compression(net, "path") == 40 / 3


# ---------------------------------------------------------- parameters: shared, computed, views


class Shared(nn.Module):
    """Attention whose queries and keys are one layer's, as in Reformer."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))
        self.k.weight = self.q.weight

    def forward(self, x):
        weights = torch.softmax(self.q(x) @ self.k(x).mT, -1)
        return self.o((weights @ self.v(x)).mean(1))


def test_a_shared_parameter_is_kept_by_each_of_its_names():
    net = seeded(Shared)
    for name in ("q", "k", "q.weight", "k.weight"):
        assert list(sf.prunable(net, keep=[name])) == ["v.weight", "o.weight"]
    masks = sf.prune(net, "synflow", 4, input_shape=(3, 6))
    assert set(masks) == {"v.weight", "o.weight"} and masks.kept == 18
    assert sf.critical_compression(net, "synflow", input_shape=(3, 6)).compression == 36
    twice = nn.Sequential(layer := nn.Linear(3, 3), nn.ReLU(), layer, nn.Linear(3, 2))
    assert list(sf.prunable(twice, keep=["2"])) == ["3.weight"]


class Noise(nn.Module):
    def forward(self, weight):
        return weight + 0.1 * torch.randn_like(weight)


def test_looking_at_a_computed_weight_does_not_compute_it():
    net = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert list(sf.prunable(net, keep=["0"])) == ["2.weight"]
    sf.prune(net, "magnitude", 2, keep=["0"])
    with pytest.raises(ValueError, match="0.weight is computed.*remove_parametrizations"):
        sf.prune(net, "magnitude", 2)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    parametrize.register_parametrization(net[2], "weight", Noise())
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="2.weight is computed"):
        sf.prunable(net, keep=["0"])
    assert torch.equal(state, torch.get_rng_state())


class Tied(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.e, self.o = nn.Linear(4, 3, bias=False), nn.Linear(4, 2, bias=False)
        view = self.e.weight.data.t()
        self.register_buffer("d", view) if how == "buffer" else setattr(self, "d", view)

    def forward(self, x):
        return self.o(nn.functional.linear(self.e(x).relu(), self.d))


@pytest.mark.parametrize("how", ["buffer", "attribute"])
def test_a_view_of_a_weight_is_refused(how):
    for call in (sf.prunable, lambda net: sf.score(net, "synflow")):
        with pytest.raises(ValueError, match="d is a view of e.weight"):
            call(Tied(how))


def test_an_expanded_parameter_is_refused():
    net = nn.Linear(4, 3, bias=False)
    net.weight = nn.Parameter(torch.randn(1, 4).expand(3, 4))
    with pytest.raises(ValueError, match="weight is expanded.*contiguous"):
        sf.prune(net, "magnitude", 2)


# ---------------------------------------------------------- shapes that are guessed


class Frames(nn.Module):
    """24 numbers are six frames of four."""

    def __init__(self, rearrange):
        super().__init__()
        self.rearrange = rearrange
        self.l, self.c, self.o = nn.Linear(4, 5), nn.Conv1d(5, 5, 3, padding=1), nn.Linear(5, 2)

    def forward(self, x):
        frames = self.l(self.rearrange(x)).relu()
        return self.o(self.c(frames.transpose(1, 2)).relu().mean(2))


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda x: x.view(x.shape[0], -1, 4),
        lambda x: x.reshape((-1, 6, 4)),
        lambda x: x.unfold(1, 4, 4),
    ],
)
def test_an_input_that_is_rearranged_has_no_shape_to_guess(rearrange):
    net = seeded(lambda: Frames(rearrange))
    for call in (
        lambda **s: sf.prune(net, "synflow", 2, **s),
        lambda **s: sf.surgery.flops(net, **s),
    ):
        with pytest.raises(ValueError, match="pass input_shape="):
            call()
        call(input_shape=(24,))


@pytest.mark.parametrize(
    "flat", [lambda x: x.view(x.shape[0], -1), lambda x: x.reshape(-1, 4), lambda x: x.flatten(1)]
)
def test_an_input_that_is_flattened_has_one(flat):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = mlp(4, 5, 2)

        def forward(self, x):
            return self.layers(flat(x))

    assert sf.prune(Net(), "synflow", 3).kept == 10


def test_similarities_of_examples_leave_the_shape_of_an_input_to_guess():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = mlp(4, 5, 2)

        def forward(self, x):
            h = self.layers(x)
            return h @ h.T

    assert sf.network.find_input_shape(Pairs()) == (4,)


# ---------------------------------------------------------- modules used twice


class Again(nn.Module):
    """One normalization behind two layers, or two of one scale."""

    def __init__(self, shared):
        super().__init__()
        self.a, self.b, self.o = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.n = nn.BatchNorm1d(6, affine=shared != "without a scale")
        self.m = nn.BatchNorm1d(6) if shared == "scale" else self.n
        if shared == "scale":
            self.m.weight = self.n.weight
        if shared == "bias":
            self.b.bias = self.a.bias
            self.n, self.m = nn.Identity(), nn.Identity()

    def forward(self, x):
        return self.o(self.m(self.b(self.n(self.a(x)).relu())).relu())


@pytest.mark.parametrize("shared", ["module", "without a scale", "scale", "bias"])
@pytest.mark.parametrize("compression", [3, 6, 12])
def test_what_two_layers_share_is_not_cut_out_twice(shared, compression, monkeypatch):
    net = seeded(lambda: Again(shared))
    fast = sf.prune(net, "synflow", compression)
    monkeypatch.setattr(pruning, "Context", functools.partial(pruning.Context, fast=False))
    assert fast == sf.prune(net, "synflow", compression) and fast.kept == round(84 / compression)
    assert sf.trajectory(net, "synflow", compression=compression).at(compression).kept == fast.kept


# ---------------------------------------------------------- biases


@pytest.mark.parametrize("more", [{"bias": True}, {"bias": True, "keep": ["0.bias"]}])
def test_laws_hold_with_biases_that_stay(more):
    net = mlp(4, 6, 3, batch_norm=True, bias=True)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    assert sf.check_conservation(net, sf.score(net, "synflow", **more)).holds(1e-12)


def test_nothing_is_lost_by_biases():
    net = mlp(4, 6, 3)
    masks = sf.Masks.ones(net, bias=True)
    assert sf.effective_compression(net, masks) == 1
    half = sf.prune(net, "magnitude", 2, bias=True)
    weights = sf.Masks({name: mask for name, mask in half.items() if name.endswith("weight")})
    assert sf.effective_compression(net, half) == sf.effective_compression(net, weights)


# ---------------------------------------------------------- refusals that name the value


def test_a_network_without_any_path_has_no_largest_compression():
    padded = nn.Conv2d(1, 3, 1, stride=3, padding=1)  # looks at nothing but padding
    net = nn.Sequential(padded, nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="no path leads from the input"):
        sf.max_compression(net, "path", input_shape=(1, 1, 1))


def test_the_device_of_a_weight_is_no_weight():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.o(self.a(x.to(self.a.weight.device).type(self.a.weight.dtype)).relu())

    net = seeded(Net).double()
    assert sf.check_conservation(net, sf.score(net, "synflow")).holds(1e-12)


@pytest.mark.parametrize("kept", [37, -1, 2.0, True, None])
def test_how_many_stay_is_checked(kept):
    path = sf.trajectory(mlp(4, 6, 2), "magnitude")
    with pytest.raises(ValueError, match=f"kept={kept}"):
        path.keeping(kept)


def test_weights_made_elsewhere():
    with torch.device("meta"):
        far = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="weight lies on meta"):
        sf.Masks.from_model(far)
    with torch.inference_mode():
        net = nn.Linear(4, 2)
    masks = sf.prune(net, "magnitude", 2)
    assert int((masks.apply_(net).weight != 0).sum()) == masks.kept == 4


def test_an_input_shape_of_the_model_is_checked():
    net = mlp(4, 4, 2)
    net.input_shape = (None, 4)
    with pytest.raises(ValueError, match="input_shape=.*positive integers"):
        sf.prune(net, "synflow", 2)


@pytest.mark.parametrize(
    "change", [lambda p: p.to_sparse(), lambda p: p.abs().to(torch.uint64), lambda p: p.to("meta")]
)
def test_scores_of_odd_kinds_are_refused(change):
    def scorer(model, batch):
        return {name: change(p.detach()) for name, p in model.named_parameters()}

    with pytest.raises(ValueError, match="the scorer's '0.weight' is.*expected a dense tensor"):
        sf.prune(mlp(4, 4, 2), scorer, 2)


def test_a_rule_is_for_a_class_and_returns_a_tensor(put_back):
    class Square(nn.Module):
        def forward(self, x):
            return x * x

    with pytest.raises(TypeError, match="expected a class of modules"):
        sf.layers.rule(Square(), "passes")
    sf.layers.rule(Square, lambda module, x: None)
    with pytest.raises(ValueError, match="returned None"):
        sf.prune(nn.Sequential(nn.Linear(4, 4), Square(), nn.Linear(4, 2)), "synflow", 2)


# ------------------------------------------------- layers with a forward of their own, and wrappers


class Causal(nn.Conv1d):
    """The usual idiom; torch.fx looks into it, as it is no module of torch's."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (self.kernel_size[0] - 1, 0)))


class Functional(nn.Module):
    """A perceptron whose layers are run by what ``how`` makes of layer and input."""

    def __init__(self, how, depth=2, width=12):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.how = how

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(self.how(layer, x))
        return x


def test_a_later_linear_layer_does_not_tell_the_input_shape():
    net = seeded(lambda: nn.Sequential(Causal(1, 4, 3), nn.Flatten(), nn.Linear(64, 10)))
    assert list(sf.prunable(net)) == ["0.weight", "2.weight"]
    with pytest.raises(ValueError, match="cannot be told from its first layer"):
        sf.prune(net, "synflow", 3)
    scores = sf.score(net, "synflow", input_shape=(1, 16))
    weights = [net[i].weight.detach().double().abs().requires_grad_() for i in (0, 2)]
    x = nn.functional.pad(torch.ones(1, 1, 16).double(), (2, 0))
    (nn.functional.conv1d(x, weights[0]).flatten(1) @ weights[1].T).sum().backward()
    for name, weight in zip(scores, weights, strict=True):
        torch.testing.assert_close(scores[name].double(), weight.detach() * weight.grad)


@pytest.mark.parametrize(
    ("how", "found"),
    [
        (lambda layer, x: nn.functional.linear(x, layer.weight, layer.bias), (12,)),
        (lambda layer, x: x @ layer.weight.T, (12,)),
        (lambda layer, x: layer.forward(x), (12,)),
        (lambda layer, x: nn.functional.linear(x.transpose(1, 2), layer.weight), None),
        (lambda layer, x: layer(x.view(-1, 4, 12)), None),
    ],
)
def test_where_a_layer_meets_the_input(how, found):
    net = Functional(how)
    assert list(sf.prunable(net)) == ["layers.0.weight", "layers.1.weight"]
    if found is None:
        with pytest.raises(ValueError, match="pass input_shape="):
            sf.network.find_input_shape(net)
    else:
        assert sf.network.find_input_shape(net) == found


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_layers_run_by_their_weight_are_rescaled_too(scale):
    def deep(how):
        net = seeded(lambda: Functional(how, depth=60, width=8))
        for layer in net.layers:
            layer.weight.data *= scale
        return sf.prune(net, "synflow", 16, iterations=3, input_shape=(8,))

    plain = deep(lambda layer, x: layer(x))
    by_weight = deep(lambda layer, x: nn.functional.linear(x, layer.weight, layer.bias))
    assert plain == by_weight and plain.kept == 240


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (8, 8), (3, 8)])
def test_a_shape_that_no_convolution_takes_is_named(shape):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(ValueError, match="cannot run on an input of shape"):
        sf.prune(net, "synflow", 2, input_shape=shape)


def test_a_wrapper_within_a_network_is_seen_through():
    def net():
        return nn.Sequential(mlp(6, 5, 4), nn.ReLU(), nn.Linear(4, 2)).double()

    plain, wrapped = seeded(net), seeded(net)
    wrapped[0] = nn.DataParallel(wrapped[0])
    for method in ("synflow", "magnitude"):
        expected = sf.prune(plain, method, 4)
        found = sf.prune(wrapped, method, 4, input_shape=(6,))
        assert list(found) == ["0.module.0.weight", "0.module.1.weight", "2.weight"]
        assert [*map(torch.equal, found.values(), expected.values())] == [True] * 3
    assert sf.max_compression(wrapped, "path", input_shape=(6,)) == 58 / 3
    small = sf.surgery.without_dead_units(wrapped, found, input_shape=(6,))
    x = torch.randn(7, 6).double()
    torch.testing.assert_close(small(x), found.apply_(wrapped).eval()(x))
    assert expected.apply_(wrapped) is wrapped  # by the names of the network without the wrapper


class Named(nn.Module):
    """Has a part that is called as wrappers call the network."""

    def __init__(self):
        super().__init__()
        self.module = nn.Module()
        self.module.fc, self.fc = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.module.fc(x)))


@pytest.mark.parametrize(
    "wrap",
    [lambda net: net, nn.DataParallel, lambda net: torch.compile(net, backend="eager")],
)
def test_a_part_that_is_called_module(wrap):
    net = seeded(Named)
    outer = wrap(net)
    masks = sf.prune(outer, "magnitude", 4)
    masks.apply_(outer)
    for name, mask in masks.items():
        assert torch.equal(net.get_parameter(name) != 0, mask)


def test_names_that_may_be_two_are_refused():
    masks = sf.Masks({"_orig_mod.fc.weight": torch.ones(4, 4, dtype=torch.bool)})
    with pytest.raises(ValueError, match="may be of module.fc.weight or of fc.weight"):
        masks.apply_(Named())


def test_layers_to_keep_that_may_be_two_are_refused():
    for net in (Named(), nn.DataParallel(Named())):
        with pytest.raises(ValueError, match="'_orig_mod.fc' may be of module.fc or of fc; use"):
            sf.prunable(net, keep="_orig_mod.fc")
        assert list(sf.prunable(net, keep="module.fc")) == ["fc.weight"]
    with pytest.raises(ValueError, match="'_orig_mod.fc.weight' may be of module.fc.weight or of"):
        sf.Masks({"_orig_mod.fc.weight": torch.ones(4, 4, dtype=torch.bool)}).apply_(net)
    inside = nn.Sequential(nn.DataParallel(nn.Linear(4, 4)), nn.Linear(4, 2))
    for name in ("0", "_orig_mod.0", "0.module", "module.0.weight"):
        assert list(sf.prunable(inside, keep=name)) == ["1.weight"]


def test_layers_to_keep_may_be_named_as_in_the_wrapper():
    net = nn.DataParallel(mlp(4, 4, 2))
    assert list(sf.prunable(net, keep="module.0")) == ["1.weight"]
    with pytest.raises(ValueError, match=r"keep=\['module.7', 'nothing'\] names no layer"):
        sf.prunable(net, keep=["nothing", "module.7"])


def test_masks_of_two_layers_that_are_one():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    masks = sf.prune(net, "random", 4, seed=0)
    net[1].weight = net[0].weight
    before = net[0].weight.clone()
    with pytest.raises(ValueError, match="'0.weight' and '1.weight' are one parameter"):
        masks.apply_(net)
    with pytest.raises(ValueError, match="are one parameter"):
        sf.is_collapsed(net, masks, "path")
    assert torch.equal(net[0].weight, before)
    sf.Masks(dict.fromkeys(masks, masks["0.weight"])).apply_(net)
    assert torch.equal(net[0].weight != 0, masks["0.weight"])


def test_masks_of_what_is_computed_now_say_so():
    net = mlp(4, 4, 2)
    masks = sf.prune(net, "magnitude", 2)
    masks.to_torch_prune(net)
    with pytest.raises(ValueError, match="computed of '0.weight_orig'.*prune.remove"):
        sf.is_collapsed(net, masks, "path")
    other = mlp(4, 4, 2)
    spectral_norm(other[0])
    with pytest.raises(ValueError, match="'0.parametrizations.weight.original'"):
        masks.apply_(other)


def test_what_was_pruned_before_is_no_path():
    net = seeded(lambda: mlp(4, 4, 4, 2))
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    nothing[0, 0] = True
    sf.Masks({"1.weight": nothing}).apply_(net)
    part = sf.Masks({"0.weight": ~nothing, "2.weight": torch.ones(2, 4, dtype=torch.bool)})
    probe = sf.PathProbe(net)
    assert probe.connected(part)  # by way of other units into the one
    part["0.weight"][0] = False
    assert not probe.connected(part) and sf.is_collapsed(net, part, "path")
    # What masks say of a layer stands, and is forgotten with them.
    assert probe.connected(sf.Masks.ones(net)) and not probe.connected(part)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"x": torch.ones(2, 4), "labels": torch.ones(2)}, "batch is a dict of 2"),
        ((torch.ones(2, 4), torch.ones(2), torch.ones(2)), "batch is a tuple of 3"),
        (torch.ones(2, 4), "batch is a Tensor of 2"),
    ],
)
def test_a_batch_that_is_no_pair(batch, said):
    with pytest.raises(TypeError, match=f"{said}; expected"):
        sf.score(mlp(4, 4, 2), "snip", batch)


def test_files_of_masks_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    masks = sf.Masks.ones(mlp(4, 4, 2))
    masks.save("~/a.safetensors")
    assert (tmp_path / "home" / "a.safetensors").exists() and not (tmp_path / "~").exists()
    assert sf.Masks.load("~/a.safetensors") == masks


def test_a_flat_mask_of_another_size():
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(4,\)"):
        sf.Masks.from_flat(torch.ones(3, dtype=torch.bool), {"w": torch.Size([2, 2])})


def test_a_probe_is_not_copied():
    for copied in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="make another one"):
            copied(sf.PathProbe(mlp(4, 4, 2)))


def test_a_layer_on_every_position_does_not_tell_how_many_there_are():
    class Frames(nn.Module):  # (batch, time, 4)
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Linear(4, 6), nn.Conv1d(6, 5, 3, padding=1)

        def forward(self, x):
            return self.mix(torch.relu(self.embed(x)).transpose(-1, -2)).mean(2)

    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    for net in (Frames(), nn.Sequential(nn.Linear(4, 4), layer)):
        with pytest.raises(ValueError, match="cannot be told from its first layer"):
            sf.score(net, "synflow")
        assert all(bool(s.any()) for s in sf.score(net, "synflow", input_shape=(7, 4)).values())


class OneNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        h = torch.relu(self.norm(self.a(x)))
        return self.c(torch.relu(self.norm(self.b(h))))


@pytest.mark.parametrize("level", ["unit", "layer", "cut"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_one_score_of_two_places_says_nothing_of_either(level, mode):
    net = seeded(OneNorm).double()
    batch = torch.randn(20, 6).double(), torch.arange(20) % 3
    net(batch[0])  # running statistics that are not zero
    with pytest.raises(ValueError, match="norm.*is used at several places"):
        sf.check_conservation(net, sf.score(net, "signed_snip", batch, mode=mode), level)
    # SynFlow's score of all constants is zero.
    assert sf.check_conservation(net, sf.score(net, "synflow"), level).holds()


def test_a_branch_that_touches_no_layer():
    class Keeps(nn.Module):
        def __init__(self, take):
            super().__init__()
            self.a, self.b, self.take = nn.Linear(4, 4), nn.Linear(4, 2), take

        def forward(self, x):
            h = torch.relu(self.a(x))
            return self.b(h * 0.5 if self.take(h) else h[:, :1].expand(-1, 4))

    net = seeded(lambda: Keeps(lambda h: isinstance(h, torch.Tensor)))
    plain = seeded(lambda: Keeps(lambda h: True))
    found, expected = (sf.score(one, "synflow") for one in (net, plain))
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_dense_blocks_that_take_a_tensor_or_a_list():
    class Layer(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.conv = nn.Conv2d(inputs, 4, 3, padding=1)

        def forward(self, features):
            features = [features] if isinstance(features, torch.Tensor) else features
            return torch.relu(self.conv(torch.cat(features, 1)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = Layer(3), Layer(7), nn.Linear(11, 5)

        def forward(self, x):
            a = self.first(x)
            b = self.second([x, a])
            return self.head(torch.cat([x, a, b], 1).mean((2, 3)))

    net = seeded(Block)
    for size in (8, 128):  # on large images without numbers
        masks = sf.prune(net, "synflow", 4, input_shape=(3, size, size))
        assert masks.kept == round(masks.total / 4)


def test_a_forward_that_remembers_its_calls_is_as_it_was(capfd):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.times = nn.Linear(4, 2), 0

        def forward(self, x):
            self.times += 1
            return self.a(x) * self.times

    net = seeded(Counts)
    assert sf.prune(net, "synflow", 2).kept == 4 and net.times == 0
    assert capfd.readouterr().err == ""


class Once(nn.Module):
    """Raises at its second call, or counts its calls in a buffer."""

    def __init__(self, how):
        super().__init__()
        self.how, self.a = how, nn.Linear(4, 2)
        self.register_buffer("times", torch.zeros(1))

    def forward(self, x):
        if self.how == "raises" and self.times > 1:
            raise RuntimeError("the second call")
        if self.how == "replaced":
            self.times = self.times + 1
        else:
            self.times.add_(1)
        return self.a(x) * self.times, self.times


@pytest.mark.parametrize("how", ["raises", "written", "replaced"])
def test_a_forward_is_compared_as_on_its_first_call(how, monkeypatch):
    net, runs = seeded(lambda: Once(how)), []
    outputs = checked._outputs
    monkeypatch.setattr(checked, "_outputs", lambda *a: runs.append(1) or outputs(*a))
    traced = sf.network.trace(net, (4,))
    assert net.times == 0 and len(runs) == 2  # the forward and the graph, once each
    x = torch.randn(3, 4).double()
    assert torch.equal(traced(x)[0], net.a(x))
    assert sf.prune(net, "synflow", 2, input_shape=(4,)).kept == 4 and net.times == 0


def test_a_forward_that_fails_when_it_runs_again_is_as_it_was():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.times = nn.Linear(4, 2), 0

        def forward(self, x):
            self.times += 1
            if self.times > 2:
                raise RuntimeError("again")
            return self.a(x) * self.times

    assert sf.network.trace(Fails(), (4,)).graph


# ------------------------------------------------------- what a review of these repairs found


@pytest.mark.filterwarnings("ignore")
def test_a_head_that_starts_at_zero_and_is_kept_is_no_pruned_layer():
    net = seeded(lambda: mlp(6, 8, 3))
    nn.init.zeros_(net[2].weight)
    masks = sf.prune(net, "magnitude", 4, keep=["1"])
    for one in (net, masks.apply_(copy.deepcopy(net))):
        assert not sf.is_collapsed(one, masks, "path")
        assert sf.effective_compression(one, masks) == sf.effective_compression(net, masks) < 99


def test_which_rows_steer_does_not_depend_on_what_was_pruned():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(4, 12, bias=False)
            self.proj = nn.Linear(4, 3, bias=False)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            return self.proj((q @ k.transpose(-2, -1)).softmax(-1) @ v).mean(1)

    net = seeded(Attends)
    ones = sf.Masks.ones(net)
    dead = ones["proj.weight"].clone()
    dead[:, 0] = False  # nothing reads the first value
    masks = sf.Masks({**ones, "proj.weight": dead})
    for one in (net, masks.apply_(copy.deepcopy(net))):
        probe = sf.PathProbe(one, (5, 4))
        assert probe.steering["qkv.weight"].any(1).tolist() == [True] * 8 + [False] * 4
        assert probe.on_path(masks).kept == 12 * 4 - 4 + 9


def test_multiply_adds_under_inference_mode():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.inference_mode():
        assert sf.surgery.flops(net)["dense"].tolist() == [20, 15]


@pytest.mark.parametrize("how", [lambda h: h.to_sparse(), lambda h: h.to(torch.float8_e4m3fn)])
def test_outputs_of_odd_kinds_are_traced(how):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 6)

        def forward(self, x):
            return how(self.layer(x))

    assert "call_module" in [node.op for node in sf.network.trace(Odd(), (8,)).graph.nodes]


def test_names_of_wrappers_stand_for_one_layer_each():
    assert list(sf.prunable(nn.DataParallel(Named()), keep=["module.module"])) == ["fc.weight"]
    with pytest.raises(ValueError, match=r"keep=\['module'\] names no layer"):
        sf.prunable(nn.Sequential(nn.Linear(3, 2)), keep=["module"])


def test_what_is_unflattened_may_turn():
    class Turns(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    net = nn.Sequential(nn.Linear(8, 64), nn.Unflatten(1, (4, 4, 4)), Turns())
    assert sf.network.find_input_shape(net) == (8,)


# ------------------------------------------------------------------- activations by differences


class Two(nn.Module):
    """``mix`` of two branches with weights of their own."""

    def __init__(self, mix):
        super().__init__()
        self.mix = mix
        self.a, self.b, self.o = (nn.Linear(*s, bias=False) for s in ((4, 6), (4, 6), (6, 2)))

    def forward(self, x):
        return self.o(self.mix(self.a(x), self.b(x)))


def beside(activation):
    """SynFlow's scores of an activation beside a branch; counted twice it would outweigh it."""
    return sf.score(seeded(lambda: Two(lambda y, z: y + activation(z))), "synflow")


@pytest.mark.parametrize(
    "activation",
    [
        lambda h: h + (torch.relu(h) - h).detach(),
        lambda h: (torch.relu(h) - h).detach() + h,
        lambda h: h - h.clamp(max=0),
        lambda h: h - h.clamp(-0.5, 0.5),
        lambda h: h - torch.tanh(h),
        lambda h: h.sub(nn.functional.hardtanh(h)),
        lambda h: h + (torch.relu(h) - h).detach().clone(),
    ],
)
def test_what_is_written_as_a_difference_is_an_activation(activation):
    found, expected = beside(activation), beside(torch.relu)
    for name, right in expected.items():
        torch.testing.assert_close(found[name], right)


@pytest.mark.parametrize(
    "both",
    [
        lambda h: torch.relu(h) + torch.tanh(h),
        lambda h: h - h.clamp(min=0),  # x - relu(x) is no relu
        lambda h: torch.sub(h, torch.tanh(h), alpha=-1),
    ],
)
def test_a_sum_of_activations_stays_one(both):
    found, single = beside(both), beside(torch.relu)
    assert float(found["o.weight"].sum()) > float(single["o.weight"].sum())


@pytest.mark.parametrize(
    "mix",
    [
        lambda y, z: torch.add(y, z - y, alpha=0.1),  # lerp
        lambda y, z: y.add(z - y, alpha=0.1),
        lambda y, z: y + torch.sub(z, y, alpha=0.5),
        lambda y, z: y + (z - y).abs(),
        lambda y, z: y + -(z - y),
        lambda y, z: y + torch.rsub(z, y),
        lambda y, z: z + torch.rsub(y, z),
    ],
)
def test_a_difference_that_is_not_taken_back_whole_leaves_both_branches(mix):
    net = seeded(lambda: Two(mix))
    scores, ones = sf.score(net, "synflow"), sf.Masks.ones(net)
    for name in ("a.weight", "b.weight"):
        assert bool((scores[name] > 0).all())
        without = sf.Masks({n: m & (n != name) for n, m in ones.items()})
        assert not sf.is_collapsed(net, without, "path")


def test_behind_a_cut_nothing_overflows():
    """The gradient of the dense rest is infinite; times the zeros that reach it it was NaN."""
    net = mlp(*[4] * 60, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e30)
    assert sf.prune(net, "synflow", 18, iterations=2).kept == round(sf.Masks.ones(net).total / 18)
    with torch.no_grad():
        net[0].weight[:2], net[2].weight[:, 2:] = 0, 0
    scores = sf.score(net, "synflow")
    assert not any(bool(score.any()) for score in scores.values())


# --------------------------------------------------------------------- what is no name, no shape


def test_keep_holds_names():
    net = seeded(lambda: mlp(4, 3, 2))
    for odd in ([0], [net[0]], [None], b"0"):
        with pytest.raises(TypeError, match="expected names of layers"):
            sf.prune(net, "magnitude", 2, keep=odd)


def test_lazy_layers_are_named_wherever_a_shape_is_asked_for():
    def lazy():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

    digits, recipe = sf.data.digits().subset(100, 50), sf.Recipe(1, 0.1)
    masks = sf.Masks({"1.weight": torch.ones(10, 64, dtype=torch.bool)})
    for call in (
        lambda: sf.evaluate(lazy(), digits),
        lambda: masks.apply_(lazy()),
        lambda: sf.train(lazy(), None, digits, recipe),
        lambda: sf.imp(lazy(), digits, recipe, 2),
        lambda: sf.is_collapsed(lazy(), masks, "path"),
    ):
        with pytest.raises(ValueError, match=r"1\.weight is a lazy parameter"):
            call()


def test_small_words_of_errors():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    x, y = sf.data.digits().scoring_batch()
    with pytest.raises(TypeError, match=r"schedule=.*expected a function \(t, n"):
        sf.prune(net, "magnitude", 2, schedule=lambda t: t)
    with pytest.raises(ValueError, match="more images, or mode='eval'"):
        sf.prune(net, "snip", 2, (x[:1], y[:1]), mode="train")
    assert sf.prune(net, "snip", 2, (x[:1], y[:1]), mode="eval").compression == pytest.approx(2)
    assert sf.Masks({"w": torch.ones(0, dtype=torch.bool)}).density == 0.0


# ------------------------------------------------------------------------ copies and their paths


def test_copies_that_hold_the_same_are_told_at_a_glance():
    def other(change):
        net = seeded(lambda: mlp(4, 3, 2))
        change(net)
        return net

    same, here = copies.same_beside_tensors, other(lambda net: None)
    assert same(here, other(lambda net: net[0].weight.data.zero_()))
    for change in (
        lambda net: net[1].eval(),
        lambda net: setattr(net, "factor", 2),
        lambda net: setattr(net[1], "inplace", True),
        lambda net: net[0].register_forward_hook(lambda *given: None),
        lambda net: setattr(net[0], "forward", functools.partial(nn.Linear.forward, net[0])),
        lambda net: net.append(nn.ReLU()),
        lambda net: net.__setitem__(1, nn.Tanh()),
    ):
        assert not same(here, other(change))


class Wired(nn.Module):
    """Has a table of its own that cuts its only path, with odd seeds."""

    def __init__(self, seed):
        super().__init__()
        self.a, self.o = nn.Linear(64, 8), nn.Linear(8, 10)
        self.register_buffer("open", torch.full((8,), float(seed % 2 == 0)))

    def forward(self, x):
        return self.o(self.a(x.flatten(1)) * self.open)


def test_copies_with_tables_of_their_own_are_asked_one_by_one(tmp_path):
    def make(_, seed):
        return seeded(lambda: Wired(seed), seed, dtype=torch.float32)

    recipe = sf.Recipe(1, 0.1)
    runs = [sf.Run("digits", "wired", "magnitude", 2.0, recipe, seed=seed) for seed in range(3)]
    table = sf.sweep(runs, tmp_path, models={"wired": make}, progress=False)
    assert table.sort_values("seed")["disconnected"].tolist() == [False, True, False]
    plain = [sf.Run("digits", "fc", "random", c, recipe) for c in (2.0, 30_000.0)]
    table = sf.sweep(plain, tmp_path, progress=False)
    assert table.sort_values("compression")["disconnected"].tolist() == [False, True]


class KeepsItsMode(nn.Dropout):
    def train(self, mode=True):
        return self


def test_copies_whose_parts_keep_another_mode_are_not_trained_together():
    def make(mode):
        net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), KeepsItsMode(0.99)))
        net[2].training = mode
        return net.float()

    digits = sf.data.digits().subset(100, 50)
    with pytest.raises(ValueError, match="model 1"):
        sf.train_many([make(False), make(True)], [None, None], digits, sf.Recipe(1, 0.1))


# ------------------------------------------------------------ what scales a weight is no threshold


class Scaled(nn.Linear):
    """Equalized learning rate: the weight is used times ``by``."""

    by = 0.2

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.by, self.bias)


@pytest.mark.parametrize("by", [0.2, -0.3, 3.0, 1e-6])
def test_a_scaled_weight_is_on_the_paths_of_the_plain_one(by):
    def net(layer):
        torch.manual_seed(0)
        return nn.Sequential(layer(6, 8), nn.ReLU(), layer(8, 3))

    scaled, plain = net(type("Other", (Scaled,), {"by": by})), net(nn.Linear)
    masks = sf.prune(scaled, "synflow", 36)
    assert all(map(torch.equal, masks.values(), sf.prune(plain, "synflow", 36).values()))
    for one in (scaled, plain):
        assert not sf.is_collapsed(one, masks, "path")
        assert sf.effective_compression(one, masks) == 36
        found = sf.critical_compression(one, "magnitude", "path").compression
        assert found == sf.critical_compression(plain, "magnitude", "path").compression
    masks["2.weight"][:] = False
    assert sf.is_collapsed(scaled, masks, "path")


class Features(nn.Module):
    """Random Fourier features: a fixed matrix of small numbers, one of its inputs unread."""

    def __init__(self):
        super().__init__()
        matrix = 0.1 * torch.randn(2, 8)
        matrix[1] = 0
        self.register_buffer("matrix", matrix)
        self.a, self.o = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.o(torch.tanh(self.a(x @ self.matrix)).relu())


class Upsampled(nn.Module):
    """A fixed kernel of small numbers between two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.o = nn.Conv2d(2, 4, 1), nn.Conv2d(1, 3, 1)
        self.register_buffer("kernel", torch.full((4, 1, 2, 2), 0.05))

    def forward(self, x):
        h = nn.functional.conv_transpose2d(self.a(x).relu(), self.kernel, stride=2)
        return self.o(h).mean((2, 3))


@pytest.mark.parametrize("made, shape", [(Features, (2,)), (Upsampled, (2, 4, 4))])
def test_fixed_numbers_of_any_size_carry_paths(made, shape):
    net, how = seeded(made), {"input_shape": shape}
    layers = sf.prunable(net)
    N = sum(weight.numel() for weight in layers.values())
    assert not sf.is_collapsed(net, sf.Masks.ones(net), "path", **how)
    assert sf.effective_compression(net, sf.Masks.ones(net), **how) == 1
    assert sf.max_compression(net, "path", **how) == N / 2
    masks = sf.prune(net, "synflow", N / 2, **how)
    carries = sum(
        float(s.sum())
        for s in sf.score(masks.apply_(copy.deepcopy(net)), "synflow", **how).values()
    )
    assert sf.is_collapsed(net, masks, "path", **how) == (carries == 0)


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_kernel_used_the_other_way_round_has_no_law_of_its_layer(layer, transposed):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.t, self.o = nn.Conv2d(2, 4, 1), layer(4, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            run = nn.functional.conv_transpose2d if transposed else nn.functional.conv2d
            return self.o(run(self.i(x).relu(), self.t.weight, padding=1).mean((2, 3)))

    net, how = seeded(Tied).double(), {"input_shape": (2, 5, 5)}
    scores = sf.score(net, "synflow", **how)
    if transposed == (layer is nn.ConvTranspose2d):
        assert sf.check_conservation(net, scores, "unit", **how).holds(1e-12)
    else:
        with pytest.raises(ValueError, match=r"t\.weight and does not use it as its layer does"):
            sf.check_conservation(net, scores, "unit", **how)


def test_copies_with_group_norm_train_on_augmented_images():
    data = sf.data.digits().subset(n_train=100, n_test=50)
    nets = [
        seeded(
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 10)
            )
        )
        for _ in range(2)
    ]
    recipe = sf.Recipe(1, 0.1, 64, augment=True)
    alone = sf.train(copy.deepcopy(nets[0]), None, data, recipe).history
    for together in sf.train_many(nets, [None, None], data, recipe):
        assert together.history["test_loss"].tolist() == pytest.approx(alone["test_loss"], rel=1e-3)


# --------------------------------------------------------------- draws, hooks, names of one weight


def test_a_draw_by_a_method_of_a_tensor_is_seeded():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = self.a(x)
            return self.o(h + 0.1 * torch.zeros_like(h).normal_())

    net, batch = seeded(Noisy), (torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 2)
    scores = []
    for _ in range(2):
        before = torch.random.get_rng_state()
        scores.append(sf.score(net, "snip", batch, seed=3))
        assert torch.equal(before, torch.random.get_rng_state())
        torch.rand(5)
    assert all(map(torch.equal, scores[0].values(), scores[1].values()))


def test_a_copy_runs_the_layer_of_its_own_that_a_hook_holds_in_a_list():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    through = functools.partial(lambda layers, x: layers[0](x), [net[0]])
    net[1].register_forward_hook(lambda module, inputs, output: output + through(inputs[0]))
    copied = copies.private_copy(net)
    with torch.no_grad():
        copied[0].weight.zero_(), copied[0].bias.zero_()
        x = torch.ones(1, 3)
        assert torch.equal(copied(x), copied[1].bias + torch.zeros(1, 3))
        assert not torch.equal(net(x), copied(x))


@pytest.mark.parametrize("spelling", range(6))
def test_a_mean_subtracted_anywhere_in_a_sum_centres_it(spelling):
    """Dueling networks: a value, and advantages less their mean."""

    class Dueling(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.a, self.v = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 1)

        def forward(self, x):
            h = self.f(x).relu()
            a, v = self.a(h), self.v(h)
            m = a.mean(1, keepdim=True)
            return [v + (a - m), v + a - m, a + (v - m), a - m + v, -m + v + a, v - (m - a)][
                spelling
            ]

    net = seeded(Dueling)
    f, a, v = (getattr(net, name).weight.detach().abs() for name in "fav")
    paths = (a @ f).sum() + 3 * (v @ f).sum()  # the value counts in all three outputs
    scores = sf.score(net, "synflow")
    assert scores["f.weight"].sum().item() == pytest.approx(paths.item())
    assert scores["a.weight"].sum().item() == pytest.approx((a @ f).sum().item())


@pytest.mark.parametrize("spelling", range(6))
def test_a_mean_added_or_of_another_sign_is_a_branch_of_its_own(spelling):
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            h, one = self.a(x), torch.ones(4, dtype=x.dtype)
            m = h.mean(1, keepdim=True)
            return self.o(
                [h + m, (1 - h) - m, m - (1 - h), one - h - m, torch.sub(h, m, alpha=0.5), -m - h][
                    spelling
                ]
            )

    net = seeded(Apart)
    a, o = (getattr(net, name).weight.detach().abs() for name in "ao")
    by_mean = a.mean(0).expand(4, 4) * (0.5 if spelling == 4 else 1)
    wanted = (o @ (a + by_mean)).sum().item()
    assert sf.score(net, "synflow")["a.weight"].sum().item() == pytest.approx(wanted)


def test_sums_of_sums_are_looked_at_once():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(40))

        def forward(self, x):
            seen = [x]
            for layer in self.layers:
                seen.append(sum(seen) + layer(seen[-1]))
            return seen[-1] - seen[-1].mean(-1, keepdim=True)

    assert len(sf.score(Dense(), "synflow")) == 40


def test_a_factor_of_the_product_itself_cuts_no_path():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.o = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.o(torch.addmm(self.a.bias, x, self.a.weight.t(), alpha=0.1))

    net = Product()
    assert sf.effective_compression(net, sf.Masks.ones(net), input_shape=(4,)) == 1


# ------------------------------------------------------------------------- words of other errors


def test_errors_name_the_shape_that_was_given():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match=r"an input of shape \(1, 2, 6, 6\)"):
        sf.score(net, "synflow", input_shape=(2, 6, 6))


def test_a_sparse_weight_is_refused_by_name():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net[0].weight = nn.Parameter(net[0].weight.detach().to_sparse())
    with pytest.raises(ValueError, match=r"0\.weight is a tensor of layout torch\.sparse_coo"):
        sf.prune(net, "magnitude", 2)


def test_a_forward_that_reads_numbers_cannot_be_followed_by_shapes_alone():
    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("chosen", torch.tensor([True, False] * 4))
            self.i, self.o = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x):
            return self.o(self.i(x).relu()[:, self.chosen])

    net = Picks()
    scores = sf.score(net, "synflow")  # which runs on numbers
    assert not scores["i.weight"][1::2].any()
    for ask in (sf.surgery.flops, functools.partial(sf.check_conservation, scores=scores)):
        with pytest.raises(ValueError, match="reads the numbers of a tensor"):
            ask(net)
