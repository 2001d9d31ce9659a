"""Conservation laws at unit, layer and cut, on every kind of layer; and what must violate them."""

import pytest
import torch
import torch.nn.functional as F
from networks import (
    Dag,
    Decoder,
    Dense,
    Mobile,
    PreActivation,
    Residual,
    Shared,
    images,
    mlp,
    narrow_resnet,
    narrow_vgg16,
    seeded,
    train_a_little,
    with_shape,
)
from torch import nn

import synflow_lib as sf

LEVELS = ("unit", "layer", "cut")
TOLERANCE = 1e-10
# What is conserved. SNIP and GraSP on data, in both modes of BatchNorm.
CONSERVED = [
    ("synflow", None),
    ("signed_snip", "train"),
    ("signed_snip", "eval"),
    ("grasp", "train"),
    ("grasp", "eval"),
]


def sequential(shape, *layers):
    return lambda: with_shape(nn.Sequential(*layers), shape)


def classifier(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)


ZOO = {
    "mlp": lambda: with_shape(mlp(5, 7, 6, 4), (5,)),
    "biases": lambda: with_shape(mlp(5, 7, 6, 4, bias=True), (5,)),
    "batch norm 1d": lambda: with_shape(mlp(5, 7, 6, 4, bias=True, batch_norm=True), (5,)),
    "stride and padding": sequential(
        (2, 9, 9), nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 1, 2), nn.ReLU(),
        *classifier(5),
    ),
    "dilation": sequential(
        (2, 9, 9), nn.Conv2d(2, 4, 3, dilation=2, padding=1), nn.ReLU(), *classifier(4)
    ),
    "groups": sequential(
        (2, 6, 6), nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU(),
        *classifier(4),
    ),
    "depthwise with a multiplier": sequential(
        (3, 6, 6), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(),
        nn.Conv2d(6, 4, 1), nn.ReLU(), *classifier(4),
    ),
    "transposed": lambda: Decoder(),
    "transposed, one group": sequential(
        (2, 4, 4), nn.Conv2d(2, 3, 1), nn.ReLU(),
        nn.ConvTranspose2d(3, 5, 3, 2, 1, output_padding=1), nn.ReLU(), *classifier(5),
    ),
    "circular padding": sequential(
        (2, 5, 5), nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        *classifier(4),
    ),
    "max pooling": sequential(
        (2, 8, 8), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 2),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 4),
    ),
    "average pooling, flatten": sequential(
        (2, 8, 8), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(36, 5), nn.LeakyReLU(0.1), nn.Linear(5, 4),
    ),
    "1d": sequential(
        (2, 9), nn.Conv1d(2, 4, 3, 2), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(4, 4),
    ),
    "3d": sequential(
        (1, 4, 4, 4), nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.ReLU(), nn.MaxPool3d(2),
        nn.Flatten(), nn.Linear(3, 4),
    ),
    "dropout": sequential(
        (5,), nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.0), nn.Linear(6, 4)
    ),
    "no activation": sequential((5,), nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)),
    "norm without affine": lambda: narrow_vgg16(affine=False),
    "norm without stored statistics": lambda: narrow_vgg16(track_running_stats=False),
    "norm of the input": sequential(
        (2, 5, 5), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(), *classifier(4)
    ),
    "two norms in a row": sequential(
        (2, 5, 5), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(),
        *classifier(4),
    ),
    "residual": lambda: Residual(bias=True),
    "concatenation": Dense,
    "mobile": Mobile,
    "shared": Shared,
    "identity from the input": lambda: Dag(
        [[(0, True), (0, False)], [(1, True)], [(2, True), (1, False)]], 4, bias=True
    ),
    "norms before layers": PreActivation,
    "vgg": narrow_vgg16,
    "resnet": narrow_resnet,
}  # fmt: skip


def trained(name):
    """The network after a few steps: no gamma, beta, bias or running statistic is trivial."""
    net = seeded(ZOO[name], 1)
    batch = images(net, 10)
    return train_a_little(net, batch), batch


def errors(net, scores, **options):
    return {
        level: sf.check_conservation(net, scores, level, **options).max_relative_error
        for level in LEVELS
    }


@pytest.mark.in_turn
@pytest.mark.parametrize("name", ZOO)
def test_every_law_holds_on_every_layer(name):
    net, batch = trained(name)
    statistics = name != "norm without stored statistics"
    for method, mode in CONSERVED:
        scores = sf.score(net, method, batch, mode=mode)
        for level, error in errors(net, scores).items():
            if not statistics and method == "synflow":
                continue  # no stored statistics to linearize with; tested on its own
            assert error <= TOLERANCE, (method, mode, level)
            report = sf.check_conservation(net, scores, level)
            assert report.level == level and report.holds()
            if level != "cut":
                assert len(report.table) and report.table["outgoing"].abs().max() > 0


@pytest.mark.parametrize("name", ZOO)
def test_what_is_not_a_saliency_is_reported_as_broken(name):
    net, batch = trained(name)
    for method in ("magnitude", "random", "snip"):
        scores = sf.score(net, method, batch)
        report = sf.check_conservation(net, scores, "unit")
        assert report.max_relative_error > 1e-3, method
        assert not report.holds(1e-3)


@pytest.mark.parametrize("method", ["synflow", "signed_snip", "grasp"])
@pytest.mark.parametrize("name", ["vgg", "resnet", "concatenation", "mobile", "biases"])
def test_one_wrong_score_is_noticed(method, name):
    """Any single weight behind and before a hidden unit; the size of the error is told exactly."""
    net, batch = trained(name)
    clean = sf.score(net, method, batch, mode="eval")
    layer = list(clean)[1]
    sums = sf.check_conservation(net, clean, "unit").table[["incoming", "outgoing"]]
    step = 1e-6 * float(sums.abs().to_numpy().max())
    clean[layer].view(-1)[3] += step
    # incoming of one unit and outgoing of another: two units are off by the step
    table = sf.check_conservation(net, clean, "unit").table
    off = table["difference"].abs() > step / 2
    assert off.sum() == 2
    torch.testing.assert_close(
        torch.tensor(sorted(table["difference"][off]), dtype=torch.float64),
        torch.tensor([-step, step], dtype=torch.float64),
        rtol=1e-3,
        atol=0,
    )
    assert not sf.check_conservation(net, clean, "unit").holds(1e-8)


@pytest.mark.parametrize("level", LEVELS)
def test_a_scaled_layer_is_noticed_at_every_level(level):
    net, batch = trained("vgg")
    scores = sf.score(net, "synflow")
    scores["10.weight"] *= 1.001
    error = sf.check_conservation(net, scores, level).max_relative_error
    assert 1e-4 < error < 1e-2


def test_synflow_without_stored_statistics_is_linear_in_gamma():
    net, _ = trained("norm without stored statistics")
    assert max(errors(net, sf.score(net, "synflow")).values()) <= TOLERANCE


# ------------------------------------------------------------------- sequences, norms, attention

TOKENS, WIDE = 3, 4


class Block(nn.Module):
    """Something between two layers on [batch, tokens, features], whose mean is read."""

    input_shape = (TOKENS, 5)

    def __init__(self, part, wide=WIDE, **layers):
        super().__init__()
        self.i, self.o = nn.Linear(5, WIDE), nn.Linear(wide, 3)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.part = part

    def forward(self, x):
        return self.o(self.part(self, self.i(x)).mean(1))


def heads(x):
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


def attend(s, x, how):
    q, k, v = map(heads, s.qkv(x).chunk(3, -1))
    return x + s.p(how(q, k, v).transpose(1, 2).flatten(2))


def dot(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def by_hand(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def attention(how):
    layers = {"qkv": nn.Linear(WIDE, 3 * WIDE), "p": nn.Linear(WIDE, WIDE)}
    return Block(lambda s, x: attend(s, x, how), **layers)


def mixed(s, x):
    return x + s.b(F.gelu(s.a(s.n(x).transpose(1, 2)))).transpose(1, 2)


def shuffled(s, x):
    x = s.a(x.transpose(1, 2)).unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)
    return s.b(x).transpose(1, 2)


def token(s, x):
    return s.n(torch.cat([s.t.expand(len(x), -1, -1), s.a(x)], 1) + s.places)


# Each with the number of hidden units that carry paths and have a law of their own.
SEQUENCES = {
    "linear": (lambda: Block(lambda s, x: s.a(x).relu(), a=nn.Linear(WIDE, WIDE)), 8),
    "layer norm": (lambda: Block(lambda s, x: s.n(x), n=nn.LayerNorm(WIDE)), 4),
    "rms": (lambda: Block(lambda s, x: s.n(x), n=nn.RMSNorm(WIDE)), 4),
    "rms by hand": (
        lambda: Block(lambda s, x: x * (x.square().mean(-1, True) + 1e-6).rsqrt() * s.g,
                      g=nn.Parameter(torch.ones(WIDE))), 4,
    ),
    "chunks": (
        lambda: Block(lambda s, x: sum(s.a(x).split(2, -1)), 2, a=nn.Linear(WIDE, WIDE)), 6
    ),
    "index": (
        lambda: Block(lambda s, x: s.a(x)[..., torch.tensor([2, 0, 0])], 3, a=nn.Linear(WIDE, 4)),
        6,
    ),
    "gate": (lambda: Block(lambda s, x: F.glu(s.a(x)), 3, a=nn.Linear(WIDE, 6)), 7),
    "mixer": (
        lambda: Block(mixed, n=nn.LayerNorm(WIDE), a=nn.Linear(TOKENS, 6), b=nn.Linear(6, TOKENS)),
        7,
    ),
    "shuffle": (
        lambda: Block(shuffled, a=nn.Conv1d(WIDE, 4, 1, groups=2), b=nn.Conv1d(4, 4, 1, groups=2)),
        12,
    ),
    "dot product": (lambda: attention(dot), 8),
    "attention by hand": (lambda: attention(by_hand), 8),
    "attention as a module": (
        lambda: Block(lambda s, x: x + s.a(x, x, x)[0],
                      a=nn.MultiheadAttention(WIDE, 2, batch_first=True)), 1,
    ),
    "encoder": (
        lambda: Block(lambda s, x: s.e(x), e=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDE, 2, 6, batch_first=True), 2, enable_nested_tensor=False,
        )), 13,
    ),
    "class token": (
        lambda: Block(token, a=nn.Linear(WIDE, WIDE), n=nn.LayerNorm(WIDE),
                      t=nn.Parameter(torch.ones(1, 1, WIDE)),
                      places=nn.Parameter(torch.ones(1, TOKENS + 1, WIDE))), 4,
    ),
    "standardized": (
        lambda: Block(lambda s, x: F.linear(x, (s.a.weight - s.a.weight.mean()) / 2),
                      a=nn.Linear(WIDE, WIDE)), 8,
    ),
    "a factor": (
        lambda: Block(lambda s, x: x + s.g * s.a(x), a=nn.Linear(WIDE, WIDE),
                      g=nn.Parameter(torch.ones(WIDE))), 4,
    ),
}  # fmt: skip


def flows(net):
    """Of every layer what flows into and out of each feature, over all tokens: x * dR/dx."""
    seen = {}

    def record(module, given, out):
        seen[next(name for name, m in net.named_modules() if m is module)] = given[0], out

    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            module.register_forward_hook(record)
    total = net(torch.ones(1, *net.input_shape, dtype=torch.float64, requires_grad=True)).sum()
    found = {}
    for name, both in seen.items():
        slopes = torch.autograd.grad(total, both, retain_graph=True)
        dim = -1 if isinstance(net.get_submodule(name), nn.Linear) else 1
        parts = [value * slope for value, slope in zip(both, slopes, strict=True)]
        found[name] = [part.movedim(dim, 0).flatten(1).sum(1).detach() for part in parts]
    return found


@pytest.mark.in_turn
@pytest.mark.filterwarnings("ignore:.*only steer", "ignore:every score of")
@pytest.mark.parametrize("name", SEQUENCES)
def test_laws_of_sequences_hold_and_an_error_is_noticed(name):
    make, laws = SEQUENCES[name]
    net = seeded(make)
    scores = sf.score(net, "synflow")
    table = sf.check_conservation(net, scores).table
    assert (table["outgoing"] > 0).sum() == laws  # what steers carries nothing
    assert max(errors(net, scores).values()) <= TOLERANCE
    for layer in ("i.weight", "o.weight"):
        wrong = dict(scores)
        wrong[layer] = scores[layer] * (1 + 1e-3 * torch.rand_like(scores[layer]))
        broken = sf.check_conservation(net, wrong).max_relative_error
        assert broken > 1e-5 or name == "class token"  # whose stream is an input, too
    with pytest.raises(ValueError, match="cannot be removed"):
        sf.surgery.without_dead_units(net, sf.Masks.ones(net))


@pytest.mark.parametrize("name", ["linear", "layer norm", "shuffle", "chunks"])
def test_a_unit_of_a_sequence_is_a_feature_over_all_tokens(name):
    """Scores and sums against activations of a network of |W| without norms, by their own flow."""
    net = seeded(SEQUENCES[name][0])
    if hasattr(net, "n"):
        net.n = nn.Identity()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            parameter.zero_() if key.endswith("bias") else parameter.abs_()
    scores = sf.score(net, "synflow")
    table, there = sf.check_conservation(net, scores).table, flows(net)
    for layer, (into, out) in there.items():
        weight = scores[f"{layer}.weight"].flatten(1)
        torch.testing.assert_close(weight.sum(1), out, rtol=1e-12, atol=0)
        if name != "shuffle":  # whose weights are grouped
            torch.testing.assert_close(weight.sum(0), into, rtol=1e-12, atol=0)
    if name in ("linear", "layer norm"):  # one writer and one reader: the numbers of the table
        wanted = torch.cat([out for layer, (_, out) in there.items() if layer != "o"])
        for side in ("incoming", "outgoing"):
            torch.testing.assert_close(torch.tensor(table[side]), wanted, rtol=1e-12, atol=0)


def test_a_network_that_is_one_layer_has_a_cut_and_no_unit():
    net = nn.Linear(4, 2)
    scores = sf.score(net, "synflow")
    cut = sf.check_conservation(net, scores, "cut")
    assert cut.table["cut"].tolist() == ["weight"] and cut.holds()
    with pytest.warns(UserWarning, match="nothing to check"):
        assert not sf.check_conservation(net, scores, "unit").holds()


class TokenAtTheOutput(nn.Module):
    """What is learned joins the output, and no layer follows that could be cut."""

    def __init__(self):
        super().__init__()
        self.layer, self.token = nn.Linear(4, 3), nn.Parameter(torch.ones(1, 2))

    def forward(self, x):
        return torch.cat([self.layer(x), self.token.expand(len(x), 2)], 1)


def test_no_cut_is_no_law_and_says_so():
    net = TokenAtTheOutput()
    report = sf.check_conservation(
        net, sf.score(net, "synflow", input_shape=(4,)), "cut", input_shape=(4,)
    )
    assert report.table.empty and "no cut lies between" in str(report)


def test_behind_a_norm_scores_on_data_have_no_law():
    net = seeded(SEQUENCES["layer norm"][0])
    with pytest.raises(ValueError, match="behind n only sums over paths are conserved"):
        sf.check_conservation(net, sf.score(net, "signed_snip", images(net)))
    assert sf.check_conservation(net, sf.score(net, "magnitude")).max_relative_error > 1e-3


# ------------------------------------------------------------------------------ by hand


def test_the_numbers_of_a_report_by_hand():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    scores = {
        "0.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "2.weight": torch.tensor([[3.0, 8.0]]),
    }
    unit = sf.check_conservation(net, scores, "unit")
    assert unit.table.to_dict("list") == {
        "layer": ["0", "0"],
        "unit": [0, 1],
        "incoming": [3.0, 7.0],
        "outgoing": [3.0, 8.0],
        "difference": [0.0, -1.0],
    }
    assert unit.max_relative_error == 1 / 8
    layer = sf.check_conservation(net, scores, "layer")
    assert layer.table[["incoming", "outgoing", "difference"]].to_numpy().tolist() == [[10, 11, -1]]
    assert layer.max_relative_error == 1 / 11
    cut = sf.check_conservation(net, scores, "cut")
    assert cut.table[["cut", "size", "total"]].to_numpy().tolist() == [["0", 10, 10], ["2", 11, 11]]
    assert cut.max_relative_error == 1 / 11
    assert isinstance(unit.max_relative_error, float)
    assert str(unit) == "unit level: 2 laws, largest relative error 1.2e-01"


def test_biases_count_as_incoming_score():
    net, batch = trained("biases")
    scores = sf.score(net, "signed_snip", batch)
    assert set(scores.constants) == {"0.bias", "1.bias", "2.bias"}
    grads = torch.autograd.grad(F.cross_entropy(net.eval()(batch[0]), batch[1]), net[0].bias)
    torch.testing.assert_close(scores.constants["0.bias"], (net[0].bias * grads[0]).detach())
    assert sf.check_conservation(net, dict(scores), "unit").max_relative_error > 1e-3
    together = dict(scores) | scores.constants
    assert sf.check_conservation(net, together, "unit").holds(TOLERANCE)
    pruned_as_well = sf.score(net, "signed_snip", batch, bias=True)
    assert list(pruned_as_well) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "2.weight",
        "2.bias",
    ]
    assert sf.check_conservation(net, pruned_as_well, "cut").holds(TOLERANCE)
    grasp = sf.score(net, "grasp", batch, bias=True)  # its gradient now runs along biases too
    assert max(errors(net, grasp).values()) <= TOLERANCE


def test_stored_statistics_enter_by_beta_and_running_mean():
    net, batch = trained("batch norm 1d")
    scores = sf.score(net, "signed_snip", batch, mode="eval")
    for left_out in ("norm0.running_mean", "norm0.bias", "0.bias"):
        partial = dict(scores) | {k: v for k, v in scores.constants.items() if k != left_out}
        assert sf.check_conservation(net, partial, "unit").max_relative_error > 1e-6, left_out
    assert "norm0.weight" not in scores.constants  # gamma is a factor


def test_batch_statistics_leave_the_incoming_weights_no_score():
    """The loss does not change when weights before BatchNorm are scaled: their sum is zero, up to
    eps; gamma and beta are what comes in."""
    net, batch = trained("vgg")
    scores = sf.score(net, "signed_snip", batch, mode="train")
    largest = max(float(s.abs().sum()) for s in scores.values())
    for name in list(scores)[:-1]:
        per_channel = scores[name].flatten(1).sum(1).abs().max()
        assert float(per_channel) < 1e-4 * largest
    assert sf.check_conservation(net, scores, "unit").holds(TOLERANCE)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-14
    scores = sf.score(net, "signed_snip", batch, mode="train")
    for name in list(scores)[:-1]:
        assert float(scores[name].flatten(1).sum(1).abs().max()) < 1e-10 * largest


def test_grasp_is_conserved_with_its_correction_only():
    net, batch = trained("vgg")
    for mode in ("train", "eval"):
        scores = sf.score(net, "grasp", batch, mode=mode)
        assert max(errors(net, scores).values()) <= TOLERANCE
        assert errors(net, scores, corrected=False)["unit"] > 1e-4


def test_cuts_carry_the_same_total_and_the_layers_of_a_chain_are_the_cuts():
    net, _ = trained("vgg")
    scores = sf.score(net, "synflow")
    table = sf.check_conservation(net, scores, "cut").table
    assert [f"{name}.weight" for name in table["cut"]] == list(scores)
    sums = [float(s.sum()) for s in scores.values()]
    assert table["size"].tolist() == pytest.approx(sums, rel=1e-12)
    assert table["total"].max() == pytest.approx(table["total"].min(), rel=1e-12)


def test_the_cuts_of_a_residual_network_sum_over_its_branches():
    net, _ = trained("residual")
    scores = sf.score(net, "synflow")
    table = sf.check_conservation(net, scores, "cut").table.set_index("cut")
    total = {name: float(scores[f"{name}.weight"].sum()) for name in ("a", "b", "shortcut", "head")}
    assert len(table) == 3
    for names, size in table["size"].items():
        assert size == pytest.approx(sum(total[name] for name in names.split(" + ")), rel=1e-12)
        assert size == pytest.approx(total["head"], rel=1e-12)


def test_float32_scores_and_scores_out_of_range_are_checked_too():
    net = sf.models.resnet110(seed=0)
    scores = sf.score(net, "synflow")
    assert sf.check_conservation(net, scores, "layer").holds(1e-4)
    assert sf.check_conservation(net, scores, "cut").holds(1e-4)


def test_one_layer_has_no_hidden_unit():
    net = mlp(3, 2)
    report = sf.check_conservation(net, sf.score(net, "synflow"), "unit")
    assert len(report.table) == 0 and report.max_relative_error == 0.0
    assert len(sf.check_conservation(net, sf.score(net, "synflow"), "cut").table) == 1


# ---------------------------------------------------------------------- the paper's networks


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_on_the_papers_networks_before_and_after_training(name):
    net = sf.models.by_name(name, seed=0).double()
    x, y = images(net, 5)
    x = x[:, :, ::2, ::2]  # they take any size; a quarter of the pixels, a quarter of the time
    for steps in (0, 2):
        if steps:
            train_a_little(net, (x, y), steps, rate=0.01)
        for method, mode in CONSERVED:
            scores = sf.score(net, method, (x, y), mode=mode)
            for level, error in errors(net, scores).items():
                assert error <= TOLERANCE, (steps, method, mode, level)
        for method in ("snip", "magnitude", "random"):
            assert errors(net, sf.score(net, method, (x, y)))["unit"] > 1e-3


# ------------------------------------------------------------------------------ bad input


def test_scores_of_another_kind_are_named():
    net = mlp(4, 3, 2)
    scores = dict(sf.score(net, "synflow"))
    for given, error, said in (
        (None, TypeError, "scores is a NoneType"),
        ({n: s.numpy() for n, s in scores.items()}, TypeError, "is a ndarray; expected a Tensor"),
        ({n: s + 0j for n, s in scores.items()}, ValueError, "or complex ones"),
        (scores | {"0.bias": torch.ones(5)}, ValueError, r"has shape \(5,\); expected \(3,\)"),
    ):
        with pytest.raises(error, match=said):
            sf.check_conservation(net, given)


def test_a_tied_weight_has_one_score():
    net = mlp(4, 4, 4, 2).double()
    net[2].weight = net[0].weight
    again = nn.Sequential(net[0], net[1], net[0], net[3], net[4])
    for level in ("unit", "layer", "cut"):
        one, other = (sf.check_conservation(n, sf.score(n, "synflow"), level) for n in (net, again))
        assert str(one) == str(other)


def test_unfit_levels_and_scores():
    net = mlp(3, 4, 2)
    scores = sf.score(net, "synflow")
    with pytest.raises(ValueError, match=r"level='neuron'; expected one of .*unit.*layer.*cut"):
        sf.check_conservation(net, scores, "neuron")
    with pytest.raises(ValueError, match=r"scores hold no '1.weight'; conservation needs every"):
        sf.check_conservation(net, {"0.weight": scores["0.weight"]})
    with pytest.raises(ValueError, match=r"scores\['0.weight'\] has shape \(2, 4\).*\(4, 3\)"):
        sf.check_conservation(net, scores | {"0.weight": scores["1.weight"]})
    with pytest.raises(ValueError, match=r"scores\['0.weight'\] holds NaN or infinite"):
        sf.check_conservation(net, dict(scores) | {"0.weight": torch.full((4, 3), torch.nan)})
    with pytest.raises(ValueError, match="holds no|hold no '0.weight'"):
        sf.check_conservation(net, {})
    with pytest.raises(ValueError, match=r"scores\['0.bias'\] holds NaN or infinite"):
        sf.check_conservation(net, dict(scores) | {"0.bias": torch.full((4,), torch.nan)})
    with pytest.raises(TypeError, match=r"scores\['0.bias'\] is a list; expected a Tensor"):
        sf.check_conservation(net, dict(scores) | {"0.bias": [0.0] * 4})
    for odd in (scores["0.weight"].to_sparse(), scores["0.weight"].to("meta")):
        with pytest.raises(ValueError, match=r"scores\['0.weight'\] is sparse or on meta"):
            sf.check_conservation(net, dict(scores) | {"0.weight": odd})
    with pytest.raises(ValueError, match="tolerance='a'; expected a finite number"):
        sf.check_conservation(net, scores).holds("a")


class WithAuxiliaryHead(nn.Module):
    """Has a second output in train mode, as Inception has."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.aux = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h) + self.aux(h) if self.training else self.b(h)


def test_layers_that_run_in_training_alone_are_no_part_of_the_law():
    net = seeded(WithAuxiliaryHead)
    batch = torch.randn(8, 3, dtype=torch.float64), torch.randint(0, 3, (8,))
    with pytest.raises(ValueError, match="'aux.weight' has scores.*score with mode='eval'"):
        sf.check_conservation(net, sf.score(net, "signed_snip", batch))
    with pytest.warns(UserWarning, match="every score of .*aux.weight"):
        found = sf.score(net, "signed_snip", batch, mode="eval")
    assert sf.check_conservation(net, found).holds()


class Added(nn.Module):
    """A constant is added to the input and, with ``inside``, to hidden units."""

    input_shape = (4,)

    def __init__(self, inside):
        super().__init__()
        self.inside, self.a, self.b = inside, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.inside(torch.relu(self.a(x - 0.5))))


@pytest.mark.parametrize(
    "inside",
    [
        lambda h: 1 - h,
        lambda h: torch.addmm(h.new_ones(4), h, torch.eye(4).to(h), alpha=2.0),
        lambda h: F.linear(h, torch.eye(4).to(h), h.new_ones(4)),
        lambda h: torch.where(torch.arange(4) > 1, h, h.new_ones(4)),
    ],
)
def test_constants_without_a_score_leave_no_law_to_scores_of_a_loss(inside):
    total = sf.synaptic_saliency(lambda output, y: output.square().sum())
    batch = torch.ones(2, 4), torch.zeros(2, dtype=torch.long)
    net = seeded(lambda: Added(lambda h: h))
    assert sf.check_conservation(net, sf.score(net, total, batch)).holds(1e-5)
    net = seeded(lambda: Added(inside))
    assert sf.check_conservation(net, sf.score(net, "synflow")).holds(1e-5)
    with pytest.raises(ValueError, match="only sums over paths are conserved"):
        sf.check_conservation(net, sf.score(net, total, batch))


def test_units_beside_constants_in_a_sum_stay_units():
    class Padded(nn.Module):
        input_shape = (4,)

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = torch.relu(self.a(x))
            return self.c(torch.max(h.new_zeros(()), F.pad(h[:, :2], (0, 2)) + self.b(h)))

    net = seeded(Padded)
    report = sf.check_conservation(net, sf.score(net, "synflow"))
    # Units 0 and 1 of a are those of b as well, by the sum.
    assert len(report.table) == 6 and report.holds(1e-6)


class Viewed(nn.Module):
    """Attention that torch.export traces, and a view of it as its kernel happens to lay it out."""

    input_shape = (5, 8)

    def __init__(self):
        super().__init__()
        self.q, self.v, self.o = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        if x.dim() != 3:
            raise ValueError("expected rows of tokens")
        q, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.v))
        y = F.scaled_dot_product_attention(q, q, v)
        return self.o(y.transpose(1, 2).contiguous().view(len(x), 5, 8))


def test_a_view_does_not_depend_on_the_kernel_that_export_met():
    net = Viewed().double()
    assert sf.check_conservation(net, sf.score(net, "synflow"), level="unit").holds(1e-12)
