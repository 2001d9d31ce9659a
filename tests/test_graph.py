"""What is read off a network: prunable parameters, order, input shape, fewest weights, units."""

import itertools
import types
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from networks import (
    Branching,
    Dag,
    Decoder,
    Dense,
    Mobile,
    Paths,
    Residual,
    Shared,
    Tied,
    fewest,
    images,
    mlp,
    narrow_resnet,
    seeded,
    unchanged,
)
from torch import nn

import synflow_lib as sf
from synflow_lib.graphs import copies, network, workspace
from synflow_lib.graphs.follow import wiring


def test_prunable_are_weights_of_layers_in_forward_order():
    assert list(sf.prunable(seeded(Mobile))) == [
        f"{name}.weight" for name in ("stem", "depth", "point", "group", "head")
    ]
    found = sf.prunable(seeded(Decoder))
    assert list(found) == ["down.weight", "up1.weight", "up2.weight", "head.weight"]
    net = seeded(Decoder)
    assert sf.prunable(net)["up1.weight"] is net.up1.weight


def test_forward_order_is_not_the_order_of_registration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(1, 1)
            self.last, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.first(x))

    assert list(sf.prunable(Backwards())) == ["first.weight", "last.weight", "unused.weight"]


def test_shared_weights_and_modules_count_once():
    assert list(sf.prunable(seeded(Shared))) == ["enter.weight", "again.weight", "leave.weight"]
    assert list(sf.prunable(seeded(Tied))) == ["first.weight", "leave.weight"]


def test_biases_and_batch_norm_on_request():
    net = seeded(Mobile)
    assert "norm.weight" in sf.prunable(net, batch_norm=True)
    assert "norm.bias" not in sf.prunable(net, batch_norm=True)
    both = list(sf.prunable(net, bias=True, batch_norm=True))
    assert both[:4] == ["stem.weight", "stem.bias", "norm.weight", "norm.bias"]
    assert "depth.bias" not in both  # it has none


def test_keep_takes_layers_parameters_and_their_parents_refused():
    net = narrow_resnet()
    names = list(sf.prunable(net))
    assert list(sf.prunable(net, keep=["fc", "layer1.0.conv1.weight"])) == [
        name for name in names if name not in ("fc.weight", "layer1.0.conv1.weight")
    ]
    with pytest.raises(ValueError, match=r"keep=\['classifier'\] names no layer or parameter"):
        sf.prunable(net, keep=["fc", "classifier"])


def test_embeddings_and_norms_are_not_prunable():
    net = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert list(sf.prunable(net)) == ["2.weight"]


def test_a_network_that_cannot_be_traced_says_what_to_do():
    with pytest.raises(ValueError, match=r"Branching cannot be traced.*pass the GraphModule"):
        network.trace(Branching())
    assert list(sf.prunable(Branching())) == ["fc.weight", "out.weight"]


@pytest.mark.parametrize(
    "call",
    [
        lambda net: sf.PathProbe(net),
        lambda net: sf.is_collapsed(net, sf.Masks.ones(net), "path"),
        lambda net: sf.effective_compression(net, sf.Masks.ones(net)),
        lambda net: sf.max_compression(net, "path"),
        lambda net: sf.critical_compression(net, "magnitude", "path"),
        lambda net: sf.check_conservation(net, sf.score(net, "synflow")),
        lambda net: sf.trajectory(net),
    ],
)
def test_what_needs_the_graph_says_so(call):
    with pytest.raises(ValueError, match=r"cannot be traced by torch.fx.*Write its forward"):
        call(seeded(Branching))


def test_a_graph_module_traced_by_the_user_is_taken():
    net = mlp(4, 3, 2)
    traced = torch.fx.symbolic_trace(net)
    assert network.trace(traced) is traced
    assert sf.prune(traced, "synflow", 9, schedule="cut") == sf.prune(
        net, "synflow", 9, schedule="cut"
    )
    assert not sf.is_collapsed(traced, sf.Masks.ones(net), "path")


def test_tracing_leaves_the_model_as_it_is():
    net = narrow_resnet()
    with unchanged(net):
        traced = network.trace(net)
        copies.skeleton(net)
        workspace.working_copy(net)
    assert traced.get_parameter("fc.weight") is net.fc.weight


def test_working_copy_is_private_and_wide_enough():
    net = narrow_resnet().half()
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    copy = workspace.working_copy(net)
    assert {p.dtype for p in copy.parameters()} == {torch.float32}
    assert all(p.grad is None for p in copy.parameters())
    with torch.no_grad():
        copy.fc.weight.add_(1)
    assert not torch.equal(copy.fc.weight.half(), net.fc.weight)
    net.fc.double()
    assert {p.dtype for p in workspace.working_copy(net).parameters()} == {torch.float64}


def test_a_model_on_several_devices_is_refused():
    net = mlp(4, 3, 2)
    net[0].to("meta")
    with pytest.raises(ValueError, match=r"lie on \['cpu', 'meta'\]; expected one real device"):
        workspace.working_copy(net)


def test_a_model_that_cannot_be_copied_says_why():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies of me")

    with pytest.raises(ValueError, match="Stubborn cannot be copied .no copies of me"):
        workspace.working_copy(Stubborn(2, 2))


def test_input_shape_from_first_to_last_resort():
    net = mlp(7, 3, 2)
    assert network.find_input_shape(net) == (7,)
    net.input_shape = (1, 7)
    assert network.find_input_shape(net) == (1, 7)
    assert network.find_input_shape(net, example=torch.zeros(5, 2, 3)) == (2, 3)
    assert network.find_input_shape(net, [9], torch.zeros(5, 2)) == (9,)
    with pytest.raises(ValueError, match=r"Conv2d cannot be told.*pass input_shape="):
        network.find_input_shape(nn.Conv2d(3, 4, 3))


@pytest.mark.parametrize(
    "make",
    [
        *(Dense, Mobile, Residual),
        lambda: Dag([[(0, True), (0, False)], [(1, True), (0, True)], [(2, True), (1, False)]], 2),
        lambda: Dag([[(0, True)], [(1, True)], [(2, True), (0, True)], [(3, True)]], 2),
        lambda: Dag([[(0, False)], [(1, True), (0, False)]], 3),
    ],
)
def test_fewest_weights_from_input_to_output(make):
    net = seeded(make)
    total = sum(p.numel() for p in sf.prunable(net).values())
    assert sf.max_compression(net, "path") == total / fewest(Paths(net, net.input_shape))


def test_fewest_weights_where_a_weight_is_used_twice():
    # One weight from a unit to itself serves both uses.
    net = seeded(Tied)
    assert sf.max_compression(net, "path") == 15 / 2
    net = seeded(Shared)
    assert sf.max_compression(net, "path") == (12 + 9 + 6) / 3


class Between(nn.Module):
    """One weight twice; which units the input, the middle and the output see, masks say."""

    input_shape = (2,)

    def __init__(self, masks, late):
        super().__init__()
        self.a, self.late = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.masks, self.goes_late = torch.tensor(masks).float(), late

    def forward(self, x):
        before, middle, behind = self.masks
        h = self.a(x * before) * middle
        return (self.a(h) + (self.late(h) if self.goes_late else 0)) * behind


def brute_force_fewest(net):
    probe, names = sf.PathProbe(net), [n for n, _ in net.named_parameters()]
    if not net.goes_late:
        names.remove("late.weight")
    places = [(name, i) for name in names for i in range(4)]
    for count in range(1, 9):
        for chosen in itertools.combinations(places, count):
            masks = sf.Masks({n: torch.zeros(2, 2, dtype=torch.bool) for n in names})
            for name, i in chosen:
                masks[name].view(-1)[i] = True
            if probe.connected(masks):
                return count
    return None


@pytest.mark.parametrize("late", [False, True])
def test_fewest_weights_where_the_uses_of_a_weight_do_not_fit_each_other(late):
    outcomes = Counter()
    for masks in itertools.product([(1, 1), (1, 0), (0, 1)], repeat=3):
        net, right = Between(masks, late), brute_force_fewest(Between(masks, late))
        try:
            assert sf.max_compression(net, "path") == 8 / right
            outcomes[right] += 1
        except ValueError as error:
            assert "a.weight is used more than once" in str(error)
            outcomes["refused"] += 1
    assert outcomes[1] >= 7 and outcomes["refused"] <= 18
    assert late or outcomes["refused"]


class UsedLater(nn.Module):
    """The way through ``a`` is the shorter one only because ``a`` comes again."""

    input_shape = (2,)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def forward(self, x):
        return self.a(self.b(x) + self.a(x))


def test_a_weight_that_comes_again_is_the_shorter_way():
    assert sf.max_compression(UsedLater(), "path") == 8


class Beside(nn.Module):
    """A path without any weight; the weight beside it is used twice."""

    input_shape = (2,)

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False)

    def forward(self, x):
        return x + self.a(self.a(x))


def test_a_path_may_need_no_weight():
    assert sf.max_compression(Beside(), "path") == 4  # of one weight that has to be kept


class Functional(nn.Module):
    """Layers used through their weights."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.a.weight, self.a.bias)), self.b.weight)


def test_weights_used_through_functions_count_for_paths():
    net = seeded(Functional)
    assert sf.max_compression(net, "path") == 16
    masks = sf.Masks.ones(net)
    assert not sf.is_collapsed(net, masks, "path")
    masks["b.weight"].fill_(False)
    assert sf.is_collapsed(net, masks, "path")


def test_weights_used_through_functions_have_laws_and_cannot_be_taken_out():
    net = seeded(Functional)
    with pytest.raises(ValueError, match="a.weight is an argument of .*linear.*call the layer"):
        sf.trajectory(net, "magnitude", schedule="cut")
    for method in ("synflow", "signed_snip"):
        assert sf.check_conservation(net, sf.score(net, method, images(net))).holds()
    assert sf.prune(net, "synflow", 8).kept == 4
    assert sf.trajectory(net).counts[-1] == 2  # R is all that SynFlow's cut schedule asks for


def test_units_of_a_chain():
    wires = wiring(mlp(3, 4, 2), (3,))
    assert wires.units == 3 + 4 + 2
    assert [layer.name for layer in wires.layers] == ["0", "1"]
    assert wires.layers[0].reads.tolist() == wires.inputs.tolist()
    assert wires.layers[0].writes.tolist() == wires.layers[1].reads.tolist()
    assert wires.layers[1].writes.tolist() == wires.outputs.tolist()
    assert [names for names, _ in wires.cuts()] == [["0"], ["1"]]


def test_units_of_a_residual_stream_are_written_by_both_branches():
    wires = wiring(seeded(Residual), (4,))
    by_name = {layer.name: layer for layer in wires.layers}
    assert by_name["b"].writes.tolist() == by_name["shortcut"].writes.tolist()
    assert [set(names) for names, _ in wires.cuts()] == [
        {"a", "shortcut"},
        {"b", "shortcut"},
        {"head"},
    ]


class Odd(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.a, self.b, self.operation = nn.Linear(4, 4), nn.Linear(4, 2), operation

    def forward(self, x):
        return self.b(self.operation(self.a(x)))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda x: x * x, "no conservation law for call_function mul"),
        (lambda x: x.softmax(1), "no conservation law for call_method softmax"),
        (lambda x: x[:, [0, 1, 3, 2]], "no conservation law for call_function getitem"),
        (lambda x: torch.cat([x[None], x[None]], 0)[0], "getitem|torch.cat outside the channel"),
        (lambda x: x - F.relu(x), "no conservation law for call_function sub"),
        (lambda x: x.view(-1, 2, 2).transpose(1, 2).reshape(-1, 4), "turns 4 channels into"),
    ],
)
def test_operations_without_a_law_are_named(operation, message):
    net = Odd(operation)
    with pytest.raises(ValueError, match=message):
        wiring(net, (4,))  # where a unit must be taken out
    if message.endswith("mul"):
        with pytest.raises(ValueError, match=message):
            sf.check_conservation(net, sf.score(net, "magnitude"), input_shape=(4,))
    else:
        report = sf.check_conservation(net, sf.score(net, "synflow"), input_shape=(4,))
        assert report.holds() and len(report.table)


class Maps(nn.Module):
    """An operation on four channels of maps as high and wide, 4 x 4."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.LazyLinear(3)
        self.operation = operation

    def forward(self, x):
        return self.last(self.operation(self.first(x)))


def maps(operation):
    net = Maps(operation)
    net(torch.randn(2, 1, 4, 4))  # the last layer learns its size
    return net


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.mean(1).flatten(1),
        lambda x: x.sum(dim=(1, 2)),
        lambda x: torch.amax(x, -3).flatten(1),
        lambda x: x.mean(0).flatten(1).T,
        lambda x: F.pad(x, (0, 0, 0, 0, 1, -1)).mean((2, 3)),
        lambda x: x.flatten(0, 1).mean(2),
        lambda x: F.max_pool2d(x.flatten(2), 3, 1, 1).mean(2),
        lambda x: nn.functional.avg_pool3d(x, 3, 1, 1).mean((2, 3)),
    ],
)
def test_a_direction_of_equal_length_is_not_that_of_the_channels(operation):
    net = maps(operation)
    with pytest.raises(ValueError, match="turns 4 channels into|no conservation law"):
        wiring(net, (1, 4, 4))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.mean((2, 3)),
        lambda x: torch.sum(x, dim=[-1, -2]),
        lambda x: x.amax(3).mean(2),
        lambda x: F.pad(x, (1, 1, 1, 1)).flatten(1),
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1).squeeze(2),
    ],
)
def test_channels_are_followed_through_reductions_of_maps(operation):
    net = maps(operation)
    scores = sf.score(net, "synflow", input_shape=(1, 4, 4))
    assert sf.check_conservation(net, scores, input_shape=(1, 4, 4)).holds(1e-10)


def test_modules_without_a_law_are_named():
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="no conservation law for 1, a LayerNorm"):
        wiring(net, (4,))
    net = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"Linear on \(batch, features\).*\(2, 3, 2\)"):
        wiring(net, (3, 4))
    net = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Fold((2, 2), 1), nn.Conv2d(2, 1, 1))
    with pytest.raises(ValueError, match="no conservation law for 1, a Fold"):
        sf.check_conservation(net, sf.score(net, "synflow", input_shape=(2, 4)), input_shape=(2, 4))


def test_an_input_that_does_not_fit_names_its_shape():
    net = mlp(4, 3, 2)
    with pytest.raises(ValueError, match=r"cannot run on an input of shape \(5,\)"):
        sf.check_conservation(net, sf.score(net, "magnitude"), input_shape=(5,))
    x, y = images(net)
    with pytest.raises(ValueError, match=r"cannot run on an input of shape \(8, 2\)"):
        sf.score(net, "snip", (x[:, :2], y))


CHANGES = {
    "moves": lambda x: x.roll(1, 1),
    "scales": lambda x: x * torch.arange(1.0, 9.0, dtype=x.dtype),
    "removes": lambda x: torch.cat([x[:, :5], torch.zeros_like(x[:, 5:])], 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("where, before", [(0, False), (1, False), (1, True), (2, True)])
def test_what_a_hook_changes_is_part_of_the_network(change, where, before):
    def hooked(net):
        if before:
            net[where].register_forward_pre_hook(lambda _, args: (change(args[0]),))
        else:
            net[where].register_forward_hook(lambda *given: change(given[2]))
        return net

    net, plain = hooked(mlp(6, 8, 8, 3)), mlp(6, 8, 8, 3)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.abs_() if name.endswith("weight") else parameter.zero_()
    hooked(plain)(torch.ones(1, 6, dtype=torch.float64)).sum().backward()
    scores = sf.score(net, "synflow", input_shape=(6,))
    for name, parameter in sf.prunable(plain).items():
        found = scores[name] * 2.0 ** getattr(scores, "log2_scale", 0)
        torch.testing.assert_close(found, parameter.detach() * parameter.grad)
    assert sf.check_conservation(net, scores, level="unit", input_shape=(6,)).holds(1e-10)


class Writes(nn.Module):
    """Clips its own weights in every pass, by one of several spellings."""

    def __init__(self, write):
        super().__init__()
        self.layers, self.write = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), write

    def forward(self, x):
        self.write(self)
        return self.layers(x)


def by_data(net):
    for parameter in net.parameters():
        parameter.data.clamp_(-0.1, 0.1)


def by_assignment(net):
    weight = net.layers[0].weight
    weight.data = weight.data.clamp(-0.1, 0.1)


def by_another_assignment(net):
    for parameter in net.parameters():
        parameter.data = parameter.data.clamp(-0.1, 0.1)


def by_detach(net):
    for parameter in net.parameters():
        parameter.detach().clamp_(-0.1, 0.1)


@torch.no_grad()
def in_place(net):
    for parameter in net.parameters():
        parameter.clamp_(-0.1, 0.1)


@pytest.mark.parametrize(
    "write", [by_data, by_assignment, by_another_assignment, by_detach, in_place]
)
def test_a_forward_that_writes_into_its_weights_is_refused_and_writes_nothing(write):
    net = Writes(write)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for call in (
        lambda: sf.score(net, "synflow", input_shape=(4,)),
        lambda: sf.max_compression(net, input_shape=(4,), criterion="path"),
        lambda: sf.prune(net, "synflow", 2, input_shape=(4,)),
    ):
        with pytest.raises(ValueError, match="its own parameters|a weight that clamp has"):
            call()
        for was, parameter in zip(before, net.parameters(), strict=True):
            assert torch.equal(was, parameter)


def test_a_forward_may_read_the_numbers_of_its_weights():
    net = Writes(lambda net: [parameter.data.norm() for parameter in net.parameters()])
    plain = sf.score(net.layers, "synflow", input_shape=(4,))
    found = sf.score(net, "synflow", input_shape=(4,))
    for name, score in plain.items():
        assert torch.equal(found[f"layers.{name}"], score)


class AsksHowMany(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first, self.a, self.b = first, nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        if x.shape[0] > 1:
            x = self.a(x) if self.first == "layer" else x - x.mean(0)
        return self.b(x.relu())


def test_a_forward_that_does_something_else_for_one_image_is_refused():
    for first, what in (("layer", "one: a"), ("mean", "one: mean, sub")):
        with pytest.raises(ValueError, match=f"for two images than for {what}"):
            sf.score(AsksHowMany(first), "synflow", input_shape=(4,))


def test_a_loop_over_images_is_the_same_for_any_number():
    class Loops(AsksHowMany):
        def forward(self, x):
            return self.b(torch.stack([self.a(image) for image in x]).relu())

    scores = sf.score(Loops("loop"), "synflow", input_shape=(4,))
    assert all(score.any() for score in scores.values())


def test_a_hook_that_looks_changes_nothing_and_is_left_alone():
    seen, net = [], mlp(6, 8, 3)
    before = sf.score(net, "synflow", input_shape=(6,))
    net[1].register_forward_hook(lambda *given: seen.append(given[2].detach().sum().item()))
    for name, score in sf.score(net, "synflow", input_shape=(6,)).items():
        assert torch.equal(score, before[name])
    assert seen and all(isinstance(one, float) for one in seen)


def test_a_forward_of_one_module_alone_is_followed():
    def shifted(net):
        net[1].forward = types.MethodType(lambda _, x: 2 * x.roll(1, 1), net[1])
        return net

    net, plain = shifted(mlp(6, 8, 3)), shifted(mlp(6, 8, 3))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.abs_()
    plain(torch.ones(1, 6, dtype=torch.float64)).sum().backward()
    scores = sf.score(net, "synflow", input_shape=(6,))
    for name, parameter in sf.prunable(plain).items():
        found = scores[name] * 2.0 ** getattr(scores, "log2_scale", 0)
        torch.testing.assert_close(found, parameter.detach() * parameter.grad)
