"""Gates, attention, norms written by hand, and weights that only steer.

Every network stands beside its linear surrogate, written out by hand in plain torch: the path of
the values alone. The oracle for a score is |W| * dR/d|W| of that surrogate, in float64.
"""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from networks import seeded, unchanged
from torch import nn

import synflow_lib as sf
from synflow_lib.probe import steering

TOKENS, WIDE = 4, 6
pytestmark = pytest.mark.filterwarnings("ignore:compression counts")


class Net(nn.Module):
    """Two layers around a part; ``forward`` is the network's, ``surrogate`` that of its paths."""

    input_shape = (TOKENS, WIDE)

    def __init__(self, part):
        super().__init__()
        self.i, self.part, self.o = nn.Linear(WIDE, WIDE), part(), nn.Linear(WIDE, 4)
        # Tokens of ones are all alike: only with a factor of each is a mask seen.
        self.register_buffer("factor", torch.arange(1.0, TOKENS + 1)[:, None])

    def forward(self, x):
        return self.o(self.part(self.i(x) * self.factor))


def lin(layer, x):
    return x @ layer.weight.T


class Part(nn.Module):
    layers = "abc"

    def __init__(self):
        super().__init__()
        for name in self.layers:
            setattr(self, name, nn.Linear(WIDE, WIDE))


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)

    def paths(self, x):
        return x


class Mish(Swish):
    def forward(self, x):
        return x * torch.tanh(F.softplus(x))


class HardSwish(Swish):
    def forward(self, x):
        return x * F.relu6(x + 3) / 6


class HardSwishOtherwise(Swish):
    def forward(self, x):
        return x * (F.relu6(x + 3) / 6)


class OwnGELU(Swish):
    def forward(self, x):
        return 0.5 * x * (1 + torch.erf(x / 2**0.5))


class OwnReLU(Swish):
    def forward(self, x):
        return x * (x > 0)


class SqueezeExcite(Part):
    def forward(self, x):
        return x * self.b(F.relu(self.a(x.mean(1, keepdim=True)))).sigmoid() + self.c(x)

    def paths(self, x):
        return x + lin(self.c, x)


class Excite(Part):
    """A gate that says the same for all tokens, in place and expanded."""

    layers = "ab"

    def forward(self, x):
        gate = F.hardsigmoid(self.a(x).amax(1))
        return self.b(x).mul_(gate[:, None].expand_as(x))

    def paths(self, x):
        return lin(self.b, x)


class HalfGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.gate = nn.Linear(WIDE, 2 * WIDE), nn.GLU()

    def forward(self, x):
        return self.gate(self.a(x))

    def paths(self, x):
        return lin(self.a, x)[..., :WIDE]


class HalfGateFunction(HalfGate):
    def forward(self, x):
        return F.glu(self.a(x), dim=-1)


class SwiGLU(Part):
    def forward(self, x):
        return self.c(F.silu(self.a(x)) * self.b(x))

    def paths(self, x):
        return lin(self.c, lin(self.b, x))


class GeGLU(SwiGLU):
    def forward(self, x):
        return self.c(self.b(x) * F.dropout(F.gelu(self.a(x)), 0.5, self.training))


class DroppedModule(SwiGLU):
    """The gate lies behind a module that changes nothing of it in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.drop = nn.AlphaDropout(0.5)

    def forward(self, x):
        return self.c(self.drop(self.a(x).sigmoid()).cpu().contiguous() * self.b(x))


class SwishOfSwish(SwiGLU):
    """SwiGLU whose activation is written by hand."""

    def forward(self, x):
        gate = self.a(x)
        return self.c(gate * gate.sigmoid() * self.b(x))


class Shared(SwiGLU):
    """Gates that add up to one: shares, as those of a softmax are."""

    def paths(self, x):
        return super().paths(x) / WIDE

    def forward(self, x):
        gate = self.a(x).sigmoid()
        return self.c(gate / gate.sum(-1, keepdim=True) * self.b(x))


class Clamped(SwiGLU):
    def forward(self, x):
        return self.c(self.a(x).clamp(torch.zeros(WIDE), torch.ones(WIDE)) * self.b(x))


class WaveNet(SwiGLU):
    def forward(self, x):
        return self.c(self.a(x).sigmoid() * self.b(x).tanh())


class Highway(Part):
    layers = "ab"

    def forward(self, x):
        gate = self.a(x).sigmoid()
        return gate * F.relu(self.b(x)) + (1 - gate) * x

    def paths(self, x):
        return lin(self.b, x) + x


class Mixture(Part):
    """Two branches that a softmax mixes."""

    def forward(self, x):
        share = self.a(x)[..., :2].softmax(-1)
        return share[..., :1] * self.b(x) + share[..., 1:] * self.c(x)

    def paths(self, x):
        return 0.5 * lin(self.b, x) + 0.5 * lin(self.c, x)


class RootMeanSquare(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDE))

    def forward(self, x):
        size = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.gain * (x * size).type_as(x)

    def paths(self, x):
        return self.gain.abs() * x


class OwnLayerNorm(RootMeanSquare):
    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6) * self.gain + 1


class OwnVariance(RootMeanSquare):
    def forward(self, x):
        variance, mean = torch.var_mean(x, -1, keepdim=True)
        return (x - mean) * (variance + 1e-6) ** -0.5 * self.gain


class ResponseNorm(RootMeanSquare):
    """The global response norm of ConvNeXt V2."""

    def forward(self, x):
        size = x.norm(p=2, dim=1, keepdim=True)
        return x + self.gain * (x * (size / (size.mean(-1, keepdim=True) + 1e-6)))

    def paths(self, x):
        return x + self.gain.abs() * x


class Standardized(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.gain = nn.Linear(WIDE, WIDE), nn.Parameter(torch.full((WIDE, 1), -2.0))

    def forward(self, x):
        weight = self.a.weight
        weight = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
        return F.linear(x, weight * self.gain, self.a.bias)

    def paths(self, x):
        return lin(self.a, x) * self.gain.abs().T


class Normalized(Standardized):
    """As timm's ScaledStdConv: the norm of a function, on the weight."""

    def forward(self, x):
        flat = self.a.weight.reshape(1, WIDE, -1)
        weight = F.batch_norm(flat, None, None, weight=self.gain.view(-1), training=True)
        return F.linear(x, weight.reshape_as(self.a.weight), self.a.bias)


PARTS = [
    Swish, Mish, HardSwish, HardSwishOtherwise, OwnReLU, OwnGELU, SqueezeExcite, Excite, HalfGate,
    HalfGateFunction, SwiGLU, GeGLU, DroppedModule, SwishOfSwish, Shared, Clamped, WaveNet, Highway,
    Mixture, RootMeanSquare, OwnLayerNorm, OwnVariance, ResponseNorm, Standardized, Normalized,
]  # fmt: skip

# ------------------------------------------------------------------------------------ attention


class Attention(nn.Module):
    """One head of attention, written with a softmax between two products."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.p = (nn.Linear(WIDE, WIDE) for _ in range(4))

    def seen(self):
        return torch.ones(TOKENS, TOKENS, dtype=torch.float64)

    def paths(self, x):
        seen = self.seen()
        return lin(self.p, seen / seen.sum(1, keepdim=True) @ lin(self.v, x))

    def masked(self, scores):
        return scores

    def forward(self, x):
        scores = self.masked(self.q(x) @ self.k(x).transpose(1, 2) * WIDE**-0.5)
        return self.p(F.dropout(scores.softmax(-1), 0.1, self.training) @ self.v(x))


class Einsum(Attention):
    def forward(self, x):
        scores = torch.einsum("bqc,bkc->bqk", self.q(x), self.k(x)) / WIDE**0.5
        return self.p(torch.einsum("bqk,bkc->bqc", F.softmax(scores, dim=-1), self.v(x)))


class Cosine(Attention):
    def forward(self, x):
        q, k = (F.normalize(part(x), dim=-1) for part in (self.q, self.k))
        return self.p(torch.bmm((q @ k.mT).softmax(-1), self.v(x)))


class Dot(Attention):
    def forward(self, x):
        return self.p(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


class DotOwnMask(Attention):
    """A mask computed of the input takes nothing away: nobody knows which tokens."""

    def forward(self, x):
        mask = (x.sum(-1) > -1e9)[:, None, :]
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.p(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


class Strongest(Attention):
    def masked(self, scores):
        return torch.where(scores > scores.mean(), scores, float("-inf"))


class Causal(Attention):
    def __init__(self):
        super().__init__()
        self.register_buffer("future", torch.ones(TOKENS, TOKENS).triu(1).bool())

    def seen(self):
        return super().seen().tril()


class Filled(Causal):
    def masked(self, scores):
        return scores.masked_fill(self.future, -1e9)


class FilledInfinite(Causal):
    def masked(self, scores):
        return torch.where(self.future, float("-inf"), scores)


class Added(Causal):
    def masked(self, scores):
        return scores + torch.zeros(TOKENS, TOKENS).masked_fill(self.future, -100.0)


class DotCausal(Causal):
    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.p(F.scaled_dot_product_attention(q, k, v, is_causal=True))


class DotMask(Causal):
    def forward(self, x):
        q, k, v = (part(x)[:, None] for part in (self.q, self.k, self.v))
        return self.p(F.scaled_dot_product_attention(q, k, v, attn_mask=~self.future)[:, 0])


class Module(Attention):
    """``nn.MultiheadAttention`` with the weights of the others."""

    options = {"batch_first": True}
    mask = None

    def __init__(self):
        super().__init__()
        self.m = nn.MultiheadAttention(WIDE, 2, **self.options)
        with torch.no_grad():
            self.m.in_proj_weight.copy_(torch.cat([p.weight for p in (self.q, self.k, self.v)]))
        self.m.out_proj = self.p

    def forward(self, x):
        return self.m(x, x, x, attn_mask=self.mask)[0]

    def copied(self):
        """Of a seeded network the weights are others than at its making."""
        weights = torch.cat([p.weight.detach() for p in (self.q, self.k, self.v)])
        self.m.in_proj_weight.data.copy_(weights)


class ModuleCausal(Module):
    mask = torch.ones(TOKENS, TOKENS).triu(1).bool()

    def seen(self):
        return super().seen().tril()


class ModuleTokensFirst(Module):
    options = {}

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.m(query=x, key=x, value=x, need_weights=False)[0].transpose(0, 1)


class Encoder(nn.Module):
    """Blocks of a transformer as torch has them, one or several; ``first``: norms in front."""

    first, depth = False, 1

    def __init__(self):
        super().__init__()
        self.e = nn.TransformerEncoderLayer(WIDE, 2, 8, batch_first=True, norm_first=self.first)
        if self.depth > 1:
            layers = [copy.deepcopy(self.e) for _ in range(self.depth)]
            self.e = nn.TransformerEncoder(self.e, self.depth, nn.LayerNorm(WIDE))
            self.e.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.e(x)

    def paths(self, x):
        blocks = [self.e] if self.depth == 1 else self.e.layers
        for block in blocks:
            heads, gains = block.self_attn, [block.norm1.weight.abs(), block.norm2.weight.abs()]
            value = heads.in_proj_weight[2 * WIDE :].abs()
            attend = lambda x, v=value, p=heads.out_proj: lin(p, (x @ v.T).mean(1, keepdim=True))  # noqa: E731
            for step, gain in zip(
                (attend, lambda x, b=block: lin(b.linear2, lin(b.linear1, x))), gains, strict=True
            ):
                x = x + step(gain * x) if self.first else gain * (x + step(x))
        return x if self.depth == 1 else x * self.e.norm.weight.abs()


class NormsInFront(Encoder):
    first = True


class Encoders(NormsInFront):
    depth = 2


PLAIN = [Attention, Einsum, Cosine, Dot, DotOwnMask, Strongest, Module, ModuleTokensFirst]
ENCODERS = [Encoder, NormsInFront, Encoders]
CAUSAL = [Filled, FilledInfinite, Added, DotCausal, DotMask, ModuleCausal]


def made(part):
    net = seeded(lambda: Net(part))
    if hasattr(net.part, "copied"):
        net.load_state_dict(seeded(lambda: Net(Attention)).state_dict(), strict=False)
        net.part.copied()
    return net


def oracle(net):
    """Name -> |W| * dR/d|W| of the surrogate, for all prunable weights; zero for what steers."""
    own = [p for p in net.parameters() if p.requires_grad]
    signed = {n: p.detach().clone() for n, p in net.named_parameters()}
    weights = dict(sf.prunable(net))
    with torch.no_grad():
        for weight in weights.values():
            weight.abs_()
    x = torch.ones(1, TOKENS, WIDE, dtype=torch.float64)
    total = lin(net.o, net.part.paths(lin(net.i, x) * net.factor)).sum()
    found = torch.autograd.grad(total, list(weights.values()), materialize_grads=True,
                                allow_unused=True)  # fmt: skip
    scores = {n: (w * g).detach() for (n, w), g in zip(weights.items(), found, strict=True)}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(signed[name])
    assert own
    return float(total), scores


@pytest.mark.filterwarnings("ignore:every score of")
@pytest.mark.parametrize("part", PARTS + PLAIN + CAUSAL + ENCODERS)
def test_scores_are_those_of_the_paths_of_values(part):
    net = made(part)
    total, wanted = oracle(net)
    if hasattr(net.part, "m"):  # its own weights, which no layer holds
        wanted = {n: w for n, w in wanted.items() if n.split(".")[-2] in "iop"}
    with unchanged(net):
        scores = sf.score(net, "synflow")
    assert float(scores["o.weight"].sum()) == pytest.approx(total, rel=1e-12)
    for name in wanted:
        torch.testing.assert_close(scores[name], wanted[name], rtol=1e-11, atol=0)


@pytest.mark.parametrize("part", PARTS + PLAIN + CAUSAL)
def test_questions_about_paths(part):
    net = made(part)
    masks = sf.Masks.ones(net)
    if hasattr(net.part, "m"):
        masks = sf.Masks({n: m for n, m in masks.items() if n.split(".")[-2] in "iop"})
    assert not sf.is_collapsed(net, masks, "path") and sf.max_compression(net, "path") > 1
    assert sf.effective_compression(net, masks) == 1
    steers = steering(net)
    for name, mask in masks.items():  # a path runs through every layer but those that steer
        alone = sf.Masks({n: m & (n != name) for n, m in masks.items()})
        cut = name[0] in "io" or name in ("part.v.weight", "part.p.weight")
        assert sf.is_collapsed(net, alone, "path") or not cut
        if name in steers and bool(steers[name].all()):
            assert not sf.is_collapsed(net, alone, "path")
        assert mask.all()


@pytest.mark.filterwarnings("ignore:.*only steer")
@pytest.mark.parametrize("part", PARTS + PLAIN + CAUSAL)
def test_the_cut_schedule_ends_connected(part):
    net = made(part)
    path = sf.trajectory(net, "synflow")
    last = path.keeping(path.counts[-1])
    assert not sf.is_collapsed(net, last, "path")
    ends = sf.effective_compression(net, last)
    assert ends == pytest.approx(path.max_compression)  # every weight that is left lies on a path


def test_masked_positions_bring_nothing_in_all_spellings():
    for spellings in (PLAIN, CAUSAL):
        totals = {p: float(sf.score(made(p), "synflow")["o.weight"].sum()) for p in spellings}
        first = totals[spellings[0]]
        assert all(value == pytest.approx(first, rel=1e-12) for value in totals.values()), totals


# ------------------------------------------------------------------------------- what only steers


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDE, 3 * WIDE)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)


def test_steering_layers_stay_dense_and_are_named_once():
    net = made(SqueezeExcite)
    names = "part.a.weight, part.b.weight"
    for call in (
        lambda **how: sf.prune(net, "synflow", 4, **how),
        lambda **how: sf.trajectory(net, "synflow", **how).at(4),
    ):
        with pytest.warns(UserWarning, match=f"^{names} only steer") as seen:
            masks = call()
        assert len(seen) == 1 and seen[0].filename == __file__
        assert list(masks) == ["i.weight", "part.c.weight", "o.weight"]
        assert masks.kept == round(masks.total / 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert call(keep=["part.a", "part.b"]) == masks  # said before
            both = call(steering="layer")
            assert sf.prune(net, "magnitude", 4).total == both.total  # it sees all weights
        assert len(both) == 5 and both.kept == round(both.total / 4)


@pytest.mark.parametrize("schedule", ["exponential", "cut"])
@pytest.mark.parametrize("part", [SqueezeExcite, Attention, Packed])
def test_steering_layers_are_pruned_by_magnitude(part, schedule):
    net = made(part)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = sf.prune(net, "synflow", 4, steering="layer", schedule=schedule)
    assert masks.kept == round(masks.total / 4) and not sf.is_collapsed(net, masks, "path")
    found = steering(net)
    assert found
    for name, steers in found.items():
        weight = net.get_parameter(name).detach().abs()
        kept, gone = weight[steers & masks[name]], weight[steers & ~masks[name]]
        assert kept.min() > gone.max()
        if schedule == "exponential":
            assert len(kept) == round(int(steers.sum()) / 4)


def test_packed_queries_and_keys_are_told_from_values():
    net = made(Packed)
    rows = steering(net)["part.qkv.weight"].all(1)
    assert rows[: 2 * WIDE].all() and not rows[2 * WIDE :].any()
    with pytest.warns(UserWarning, match=r"part.qkv.weight only steer.*all of their rows"):
        masks = sf.prune(net, "synflow", 4)
    assert list(masks) == ["i.weight", "o.weight"]
    values = sf.prune(net, "synflow", 4, steering="layer")["part.qkv.weight"][2 * WIDE :]
    assert 0 < int(values.sum()) < values.numel()


def test_what_may_become_of_weights_that_steer():
    with pytest.raises(ValueError, match=r"steering='none'; expected 'dense' or 'layer'"):
        sf.prune(made(Attention), "synflow", 2, steering="none")
    for net in (sf.models.vgg11(seed=0), nn.LSTM(2, 2)):
        assert steering(net) == {}


def test_the_critical_compression_leaves_what_steers_out():
    with pytest.warns(UserWarning, match="only steer"):
        found = sf.critical_compression(made(Attention), "synflow")
    assert found.is_maximal and found.kept == 4


@pytest.mark.filterwarnings("ignore:.*only steer")
def test_local_pruning_of_what_steers():
    net = made(Packed)
    masks = sf.prune(net, "synflow", 4, scope="local", steering="layer")
    assert set(masks.table()["density"]) == {0.25}
    assert masks["part.qkv.weight"][: 2 * WIDE].sum() == 2 * WIDE**2 / 4


class Excited(nn.Module):
    """A residual block with squeeze and excitation behind a swish written by hand."""

    input_shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.a, self.n, self.b = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 3, padding=1),
        )
        self.s, self.t, self.o = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.n(self.a(x))
        x = x * x.sigmoid()
        y = self.b(x)
        y = y * self.t(F.relu(self.s(F.adaptive_avg_pool2d(y, 1)))).sigmoid()
        return self.o((x + y).mean((2, 3)))


class Ungated(Excited):
    """Its twin of layers and sums alone."""

    def forward(self, x):
        x = self.n(self.a(x))
        return self.o((x + self.b(x)).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer")
@pytest.mark.parametrize("size", [6, 20])  # the larger has rows that repeat
def test_a_gated_network_scores_as_its_twin_without_gates(size):
    net, twin = seeded(Excited), seeded(Excited)
    twin.__class__ = Ungated
    scores, wanted = (sf.score(n, "synflow", input_shape=(3, size, size)) for n in (net, twin))
    for name in ("a.weight", "b.weight", "o.weight"):
        torch.testing.assert_close(scores[name], wanted[name], rtol=1e-11, atol=0)
    masks = sf.prune(net, "synflow", 20, input_shape=(3, size, size))
    same = sf.prune(twin, "synflow", 20, input_shape=(3, size, size), keep=["s", "t"])
    assert masks == same


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer")
def test_what_a_gate_opens_is_conserved():
    net = seeded(Excited)
    scores = sf.score(net, "synflow")
    for level, laws in (("unit", 4), ("layer", 1), ("cut", 2)):
        report = sf.check_conservation(net, scores, level)
        assert report.holds(1e-12) and len(report.table) == laws
    assert not sf.check_conservation(net, sf.score(net, "magnitude")).holds(1e-3)
    with pytest.raises(ValueError, match="no conservation law for call_function mul.*steers"):
        sf.trajectory(net, "magnitude", schedule="cut")  # its cuts are not known
    with pytest.raises(ValueError, match="steers"):
        sf.surgery.without_dead_units(net, sf.Masks.ones(net))


class Star(nn.Module):
    def forward(self, x, y):
        return x * y


class Starred(Part):
    layers = "ab"

    def __init__(self):
        super().__init__()
        self.star = Star()

    def forward(self, x):
        return self.star(self.a(x), self.b(x))


def test_who_is_the_gate_can_be_said(put_back):
    net = made(Starred)
    with pytest.raises(ValueError, match="mul of 2 values .*nobody can tell.*a module of its own"):
        sf.score(net, "synflow")
    sf.layers.rule(Star, lambda module, value, gate: value)
    with pytest.warns(UserWarning, match=r"every score of \['part.b.weight'\] is zero"):
        scores = sf.score(net, "synflow")
    h = torch.ones(TOKENS, WIDE, dtype=torch.float64) @ net.i.weight.detach().abs().T * net.factor
    total = h @ net.part.a.weight.detach().abs().T @ net.o.weight.detach().abs().T
    assert float(scores["o.weight"].sum()) == pytest.approx(float(total.sum()))


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer", "ignore:.*zeros only")
def test_windows_of_torchvision():
    """Of a window that is the whole map the attention is that of all its positions."""
    swin = sf.data.sources.import_torchvision("torchvision.models.swin_transformer")
    for kind in (swin.ShiftedWindowAttention, swin.ShiftedWindowAttentionV2):
        block = kind(WIDE, [2, 2], [0, 0], 2)
        net = seeded(lambda block=block: nn.Sequential(nn.Linear(WIDE, WIDE), block))
        net.input_shape = (2, 2, WIDE)
        scores = sf.score(net, "synflow")
        i, v, p = (w.detach().abs() for w in (net[0].weight, net[1].qkv.weight, net[1].proj.weight))
        total = 4 * (p @ v[2 * WIDE :] @ i).sum()
        assert float(scores["1.proj.weight"].sum()) == pytest.approx(float(total))
        found = steering(net)
        assert found["1.qkv.weight"][: 2 * WIDE].all()
        assert not found["1.qkv.weight"][2 * WIDE :].any()
        assert {"1.cpb_mlp.0.weight"} <= set(found) or kind is swin.ShiftedWindowAttention
        assert sf.effective_compression(net, sf.Masks.ones(net)) == 1


# --------------------------------------------------------------------------- zero, and tokens


class ZeroAtFirst(nn.Module):
    """A residual block whose last norm, layer scale and gate start at zero, and a zero head."""

    input_shape = (3, 5, 5)

    def __init__(self, value):
        super().__init__()
        self.c, self.d, self.e = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norm, self.scale = nn.BatchNorm2d(3), nn.Parameter(torch.zeros(3, 1, 1))
        self.gate, self.head = nn.Parameter(torch.zeros(1)), nn.Linear(3, 2)
        self.last = nn.LayerNorm(3)
        self.value = value

    def begin(self):
        with torch.no_grad():
            self.scale.fill_(self.value)
            self.gate.fill_(self.value)
            self.norm.weight.fill_(self.value)
            self.last.weight.fill_(self.value)
            self.head.weight.fill_(self.value)
        return self

    def forward(self, x):
        x = x + self.norm(self.c(x))
        x = x + self.scale * self.d(x)
        x = x + torch.mul(self.e(x), self.gate.view(1, 1, 1))
        return self.head(self.last(x.mean((2, 3))))


def test_what_starts_at_zero_counts_as_one():
    zero, one = (seeded(lambda v=v: ZeroAtFirst(v)).begin() for v in (0.0, 1.0))
    names = ["norm.weight", "last.weight", "head.weight", "scale", "gate"]
    for call in (
        lambda net: sf.score(net, "synflow"),
        lambda net: sf.prune(net, "synflow", 3),
        lambda net: sf.trajectory(net, "synflow").at(3),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wanted = call(one)
        with unchanged(zero), pytest.warns(UserWarning, match="hold zeros only.*as one") as seen:
            found = call(zero)
        assert len(seen) == 1 and all(name in str(seen[0].message) for name in names)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.warns(UserWarning, match=r"'head.weight'\] hold zeros only: taken as zero-init"):
        sf.prune(zero, "magnitude", 3)


def test_zeros_in_part_and_zeros_that_are_added_stay():
    net = seeded(lambda: Net(RootMeanSquare))
    net.part.gain.data[1:] = 0
    net.i.bias.data.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not sf.score(net, "synflow")["i.weight"][1:].any()


class Token(nn.Module):
    """A class token that joins late and in front, and alone is read by the head."""

    input_shape = (TOKENS, WIDE)

    def __init__(self, depth=1):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, WIDE))
        self.place = nn.Parameter(torch.zeros(1, TOKENS + 1, WIDE))
        self.i = nn.Sequential(*(nn.Linear(WIDE, WIDE) for _ in range(depth)))
        self.part, self.o = Attention(), nn.Linear(WIDE, 4)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.i(x)], 1) + self.place
        return self.o((x + self.part(x))[:, 0])


@pytest.mark.filterwarnings("ignore:.*only steer", "ignore:every score of")
@pytest.mark.parametrize("scale", [1.0, 1e-5])  # the second is rescaled before the token joins
def test_a_class_token_is_an_input_of_ones_and_no_source_of_paths(scale):
    net = seeded(lambda: Token(depth=3))
    for layer in net.i:
        layer.weight.data.mul_(scale)
    part, x = net.part, torch.ones(TOKENS, WIDE, dtype=torch.float64)
    for layer in net.i:
        x = x @ layer.weight.detach().abs().T
    x = torch.cat([torch.ones(1, WIDE, dtype=torch.float64), x])
    v, p, o = (layer.weight.detach().abs().T for layer in (part.v, part.p, net.o))
    wanted = float(((x[0] + x.mean(0) @ v @ p) @ o).sum())
    scores = sf.score(net, "synflow")
    total = float(scores["o.weight"].sum()) * 2.0**scores.log2_scale
    assert total == pytest.approx(wanted, rel=1e-12)
    first = float(scores["i.0.weight"].sum()) * 2.0**scores.log2_scale
    assert 0 < first < total  # the token's share does not run through the first layers
    masks = sf.Masks.ones(net)
    assert sf.effective_compression(net, masks) == 1
    masks["i.0.weight"].fill_(False)
    assert sf.is_collapsed(net, masks, "path")
    path = sf.trajectory(net, "synflow")
    assert not sf.is_collapsed(net, path.keeping(path.counts[-1]), "path")
    assert not path.keeping(path.counts[-1]).empty_layers()


# ---------------------------------------------------------------- masks, means and constants


class Seen(nn.Module):
    """Causal attention whose first position alone is read: it sees `a` and never `b`."""

    input_shape = (TOKENS, WIDE)

    def __init__(self, attend):
        super().__init__()
        self.a, self.b, self.q, self.k, self.w = (nn.Linear(WIDE, WIDE) for _ in range(5))
        self.m = nn.MultiheadAttention(WIDE, 2, batch_first=True)
        self.attend = attend
        self.rel = nn.Parameter(torch.randn(TOKENS, TOKENS))
        future = torch.ones(TOKENS, TOKENS).triu(1).bool()
        self.register_buffer("future", future)
        mask = torch.zeros(TOKENS, TOKENS).masked_fill(future, -torch.inf)
        self.register_buffer("mask", mask)

    def forward(self, x):
        v = torch.cat([self.a(x[:, :1]), self.b(x[:, 1:])], 1)
        return self.attend(self, x, self.q(x), self.k(x), v)[:, 0]


def _filled(scores, stay):
    return scores.masked_fill(~stay, -torch.inf).softmax(-1)


def _dot(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


MASKED = {
    "method": lambda s, x, q, k, v: (q @ k.mT).where(~s.future, torch.tensor(-1e9)).softmax(-1) @ v,
    "least number": lambda s, x, q, k, v: (
        (q @ k.mT).masked_fill(s.future, torch.finfo(torch.float64).min).softmax(-1) @ v
    ),
    "addmm": lambda s, x, q, k, v: (
        torch.addmm(s.mask, q.flatten(0, 1), k.flatten(0, 1).t()).softmax(-1)[None] @ v
    ),
    "float": lambda s, x, q, k, v: _dot(q, k, v, s.mask + s.w(x) @ x.mT),
    "clamped": lambda s, x, q, k, v: (q @ k.mT + s.mask).clamp(-50, 50).softmax(-1) @ v,
    "clamped below": lambda s, x, q, k, v: (q @ k.mT + s.mask).clamp_min(-1e4).softmax(-1) @ v,
    "sigmoid": lambda s, x, q, k, v: torch.sigmoid(q @ k.mT) * (~s.future) @ v,
    "sigmoid of floats": lambda s, x, q, k, v: (q @ k.mT).sigmoid() * (~s.future).double() @ v,
    "sigmoid behind": lambda s, x, q, k, v: torch.sigmoid(q @ k.mT + s.mask) @ v,
    "learned": lambda s, x, q, k, v: (q @ k.mT + (s.rel + s.mask)).softmax(-1) @ v,
    "softmin": lambda s, x, q, k, v: F.softmin(q @ k.mT - s.mask, dim=-1) @ v,
}


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer")
@pytest.mark.parametrize("name", MASKED)
def test_fixed_masks_stay_in_all_spellings(name):
    net = seeded(lambda: Seen(MASKED[name]))
    scores, masks = sf.score(net, "synflow"), sf.Masks.ones(net)
    assert not scores["b.weight"].any() and scores["a.weight"].all()
    masks["a.weight"].fill_(False)
    assert sf.is_collapsed(net, masks, "path")


@pytest.mark.parametrize("attend", [
    lambda s, x, q, k, v: _dot(q, k, v, ~s.future & (x.sum(-1) > 0)[:, None]),
    lambda s, x, q, k, v: _dot(q, k, v, torch.logical_or(~s.future, (x.sum(-1) > 0)[:, None])),
    lambda s, x, q, k, v: s.m(x, x, v, attn_mask=s.future | (x[0].sum(-1) > 0)[None])[0],
    lambda s, x, q, k, v: _dot(q, k, v, ~s.future * (x.sum(-1) > 0)[:, None]),
    lambda s, x, q, k, v: _dot(q, k, v, (q @ k.mT > 0).masked_fill(s.future, False)),
    lambda s, x, q, k, v: _dot(q, k, v, (q @ k.mT > 0).tril()),
    lambda s, x, q, k, v: _filled(q @ k.mT, ~s.future * (x.sum(-1) > 0)[:, None]) @ v,
    lambda s, x, q, k, v: _filled(q @ k.mT, (q @ k.mT > 0).tril()) @ v,
    lambda s, x, q, k, v: _filled(q @ k.mT, torch.where(s.future, False, q @ k.mT > 0)) @ v,
    lambda s, x, q, k, v: _filled(q @ k.mT, torch.where(q @ k.mT > 0, ~s.future, False)) @ v,
    lambda s, x, q, k, v: (
        q @ k.mT + (1 - (~s.future).double() * (x.sum(-1) > 0)[:, None].double()) * -1e9
    ).softmax(-1) @ v,
])  # fmt: skip
def test_a_fixed_mask_mixed_with_one_of_the_input_is_refused(attend):
    with pytest.raises(ValueError, match="of a fixed mask and one computed of the input"):
        sf.score(seeded(lambda: Seen(attend)), "synflow")


@pytest.mark.parametrize("attend", [
    lambda s, x, q, k, v: (50 * torch.tanh((q @ k.mT + s.mask) / 50)).softmax(-1) @ v,
    lambda s, x, q, k, v: (q @ k.mT + s.mask).clamp(-5, 5).softmax(-1) @ v,
    lambda s, x, q, k, v: torch.where(q > 0, q @ k.mT + s.mask, 0.0).softmax(-1) @ v,
])  # fmt: skip
def test_what_loses_a_fixed_mask_is_refused(attend):
    with pytest.raises(ValueError, match="(tanh|clamp|where) of what a fixed mask has taken away"):
        sf.score(seeded(lambda: Seen(attend)), "synflow")


SHARES = {
    "softmax": lambda w, v: (w.softmax(1) * v).sum(1, keepdim=True),
    "before": lambda w, v: (w.sigmoid() / w.sigmoid().sum(1, True) * v).sum(1, keepdim=True),
    "behind": lambda w, v: (w.sigmoid() * v).sum(1, True) / w.sigmoid().sum(1, True),
    "not below": lambda w, v: (w.sigmoid() * v).sum(1, True) / w.sigmoid().sum(1, True).clamp(1e-6),
}


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer")
def test_shares_are_a_mean_in_all_spellings():
    totals = {
        name: sf.score(seeded(lambda p=pool: Seen(lambda s, x, q, k, v: p(q, v))), "synflow")
        for name, pool in SHARES.items()
    }
    right = totals["softmax"]["a.weight"]
    for name, scores in totals.items():
        torch.testing.assert_close(scores["a.weight"], right, rtol=1e-12, atol=0, msg=name)


class Gated(nn.Module):
    """Two layers ``f`` and ``g`` and what is made of them."""

    input_shape = (TOKENS, WIDE)

    def __init__(self, part):
        super().__init__()
        self.f, self.g = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)
        self.gamma = nn.Parameter(torch.arange(1.0, WIDE + 1))
        self.part = part
        self.register_buffer("mk", torch.diag(torch.tensor([1.0] + [0.0] * (WIDE - 1))))

    def forward(self, x):
        return self.part(self, self.f(x), self.g(x), x)


def _root(y):
    return torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)


# What is written -> the part that counts as a value, of h = |f|(1), x = 1 and gamma.
VALUES = {
    "relu6 with a bias": (lambda s, f, g, x: F.relu6(g + s.gamma) * f, lambda h, x, c: h),
    "hard sigmoid": (lambda s, f, g, x: F.relu6(g + 3) / 6 * f, lambda h, x, c: h),
    "detached mean": (lambda s, f, g, x: f - f.mean(-1, True).detach(), lambda h, x, c: h),
    "cast mean": (lambda s, f, g, x: f - f.mean(-1, True).to(torch.float64), lambda h, x, c: h),
    "added mean": (lambda s, f, g, x: f + (-f.mean(-1, True)), lambda h, x, c: h),
    "sum": (lambda s, f, g, x: f - f.sum(-1, keepdim=True) / WIDE, lambda h, x, c: h),
    "sum by size": (
        lambda s, f, g, x: f - f.sum(-1, keepdim=True) / f.size(-1),
        lambda h, x, c: h,
    ),
    "mean on top": (
        lambda s, f, g, x: f - (-f.mean(-1, True)),
        lambda h, x, c: h + h.mean(-1, keepdim=True),
    ),
    "norm and gate": (lambda s, f, g, x: f * _root(f) * F.silu(g), lambda h, x, c: h),
    "excited": (
        lambda s, f, g, x: f * (1 + torch.sigmoid(f.mean(-1, keepdim=True))) + x,
        lambda h, x, c: h + x,
    ),
    "factor on a gate": (
        lambda s, f, g, x: f * (torch.sigmoid(g) * s.gamma),
        lambda h, x, c: h * c,
    ),
    "divided gate": (lambda s, f, g, x: f * (F.silu(g) / s.gamma), lambda h, x, c: h / c),
    "hard gate with a factor": (
        lambda s, f, g, x: F.relu6(g + 3) / 6 * s.gamma[None] * f,
        lambda h, x, c: h * c,
    ),
    "masked gate": (
        lambda s, f, g, x: f * torch.sigmoid(g).masked_fill(s.mk[0] > 0, 0.0),
        lambda h, x, c: h * (torch.arange(WIDE) > 0),
    ),
    "mask before a gate": (
        lambda s, f, g, x: f * torch.sigmoid(g.masked_fill(s.mk[0] > 0, -1e9)),
        lambda h, x, c: h * (torch.arange(WIDE) > 0),
    ),
    "added mask before a gate": (
        lambda s, f, g, x: f * F.hardsigmoid(g + s.mk[0] * -1e9),
        lambda h, x, c: h * (torch.arange(WIDE) > 0),
    ),
    "factor on a norm": (lambda s, f, g, x: f * (_root(f) * s.gamma), lambda h, x, c: h * c),
    "norm of a gate": (
        lambda s, f, g, x: f * (_root(F.silu(g)) * F.silu(g)),
        lambda h, x, c: h,
    ),
    "divided by the largest": (
        lambda s, f, g, x: f / f.max(-1, keepdim=True)[0],
        lambda h, x, c: h,
    ),
    "divided by itself and one": (
        lambda s, f, g, x: (lambda z: z / (1 + z.abs()))(f * s.gamma),
        lambda h, x, c: h * c,
    ),
    "mixture": (lambda s, f, g, x: f + torch.sigmoid(g) * (x - f), lambda h, x, c: h + x),
    "mixture, subtracted": (
        lambda s, f, g, x: f.sub((f - x).mul(torch.sigmoid(g))),
        lambda h, x, c: h + x,
    ),
    "mixture by addcmul": (
        lambda s, f, g, x: torch.addcmul(f, torch.sigmoid(g), x - f),
        lambda h, x, c: h + x,
    ),
    "lerp": (lambda s, f, g, x: torch.lerp(f, x, torch.sigmoid(g)), lambda h, x, c: h + x),
    "lerp by a number": (lambda s, f, g, x: f.lerp(x, 0.25), lambda h, x, c: 0.75 * h + 0.25 * x),
    "mixture in place": (
        lambda s, f, g, x: f.add_(torch.sigmoid(g) * (x - f)),
        lambda h, x, c: h + x,
    ),
    "mixture of what is used again": (
        lambda s, f, g, x: (lambda d: f + torch.sigmoid(g) * d + d)(x - f),
        lambda h, x, c: 3 * h + 2 * x,
    ),
    "mask": (
        lambda s, f, g, x: f + (s.mk[0] > 0) * (x - f),
        lambda h, x, c: h * (1 + (torch.arange(WIDE) == 0)),
    ),
    "divided": (
        lambda s, f, g, x: f / torch.sqrt((f**2).mean(-1) + 1e-6)[:, :, None],
        lambda h, x, c: h,
    ),
}


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer")
@pytest.mark.parametrize("name", VALUES)
def test_what_counts_as_a_value(name):
    part, paths = VALUES[name]
    net = seeded(lambda: Gated(part))
    x = torch.ones(TOKENS, WIDE, dtype=torch.float64)
    h = (x @ net.f.weight.detach().abs().T).requires_grad_()
    total = paths(h, x, net.gamma.detach().abs()).sum()
    wanted = float((torch.autograd.grad(total, h)[0] * h).sum())
    assert float(sf.score(net, "synflow")["f.weight"].sum()) == pytest.approx(wanted)


@pytest.mark.filterwarnings("ignore:every score of", "ignore:.*only steer")
def test_weights_of_attention_that_are_returned_are_no_path():
    class Returned(Seen):
        def forward(self, x):
            h, w = self.m(x, x, x)
            return self.a(h[:, 0]), w

    net = seeded(lambda: Returned(None))
    masks = sf.Masks.ones(net)
    masks["a.weight"].fill_(False)
    assert sf.is_collapsed(net, masks, "path")


def test_a_factor_that_may_not_be_told_is_refused():
    for part in (
        lambda s, f, g, x: f / (f.norm(dim=-1, keepdim=True) * s.gamma),
        lambda s, f, g, x: f * (g.sigmoid() / g.sigmoid().sum(-1, True) * s.gamma),
    ):
        with pytest.raises(ValueError, match="a tensor that mul has on a gate"):
            sf.score(seeded(lambda part=part: Gated(part)), "synflow")


@pytest.mark.parametrize("gate", [F.silu, torch.tanh, lambda g: 1 + torch.sigmoid(g)])
def test_a_mask_before_a_gate_that_does_not_know_it_is_refused(gate):
    net = seeded(lambda: Gated(lambda s, f, g, x: f * gate(g + s.mk[0] * -1e9)))
    with pytest.raises(ValueError, match="of what a fixed mask has taken away"):
        sf.score(net, "synflow")


FIXED_ZEROS = {  # all but the first column, or row, of a learned matrix is zero for good
    "product": lambda s: s.rel * s.mk,
    "transposed": lambda s: (s.rel * s.mk).t(),
    "of another type": lambda s: (s.rel * s.mk).to(torch.float64).contiguous(),
    "quotient": lambda s: (s.rel * s.mk) / 2,
    "padded": lambda s: F.pad(s.rel[:, :1], (0, WIDE - 1)),
    "joined": lambda s: torch.cat([s.rel[:, :1], torch.zeros(WIDE, WIDE - 1)], 1),
    "rolled": lambda s: (s.rel * s.mk.roll(1, 1)).roll(-1, 1),
    "diagonal": lambda s: torch.diag(s.rel[0] * s.mk[0]),
    "product of matrices": lambda s: s.rel @ torch.diag_embed(s.rel[0] * s.mk[0]),
}


@pytest.mark.filterwarnings("ignore:.*only steer")
@pytest.mark.parametrize("name", FIXED_ZEROS)
def test_a_fixed_mask_on_a_learned_tensor_cuts_paths(name):
    net = seeded(lambda: Gated(lambda s, f, g, x: s.f(x @ FIXED_ZEROS[name](s))))
    net.rel = nn.Parameter(torch.randn(WIDE, WIDE, dtype=torch.float64))
    masks = sf.Masks({"f.weight": torch.ones(WIDE, WIDE, dtype=torch.bool)})
    assert sf.effective_compression(net, masks) == WIDE


@pytest.mark.filterwarnings("ignore:.*only steer")
@pytest.mark.parametrize(
    "factor",
    [lambda s: 1 - s.gamma, lambda s: s.rel[0] @ torch.tensor([[1.0], [-1]] * (WIDE // 2))],
)
def test_learned_numbers_that_may_add_up_to_zero_cut_none(factor):
    net = seeded(lambda: Gated(lambda s, f, g, x: f * factor(s)))
    net.rel = nn.Parameter(torch.ones(WIDE, WIDE, dtype=torch.float64))
    masks = sf.Masks({"f.weight": torch.ones(WIDE, WIDE, dtype=torch.bool)})
    assert sf.effective_compression(net, masks) == 1


def test_a_mask_of_numbers_that_is_an_input_is_refused():
    class Given(Seen):
        def forward(self, x, mask):
            v = torch.cat([self.a(x[:, :1]), self.b(x[:, 1:])], 1)
            return ((self.q(x) @ self.k(x).mT + mask[:, None]).softmax(-1) @ v)[:, 0]

    shapes = ((TOKENS, WIDE), (TOKENS,))
    with pytest.raises(ValueError, match="the input 'mask', a mask of numbers"):
        sf.score(seeded(lambda: Given(None)), "synflow", input_shape=shapes)


class Recurrent(nn.Module):
    """Three steps of a cell by hand, whose gates come out of one layer."""

    input_shape = (3, 3)

    def __init__(self, cell):
        super().__init__()
        self.cell, self.gates = cell, nn.Linear(7, 12, bias=False)
        self.new, self.head = nn.Linear(7, 4, bias=False), nn.Linear(4, 2, bias=False)
        self.register_buffer("start", torch.zeros(1, 4))

    def forward(self, x):
        h = c = self.start.expand(x.shape[0], 4)
        for step in x.unbind(1):
            h, c = self.cell(self, step, h, c)
        return self.head(h)

    def all(self, x, h):
        return self.gates(torch.cat([x, h], 1))

    def candidate(self, x, h):
        return torch.tanh(self.new(torch.cat([x, h], 1)))


def lstm(gates):
    def cell(s, x, h, c):
        i, f, o = gates(s.all(x, h))
        c = f * c + i * s.candidate(x, h)
        return o * torch.tanh(c), c

    return cell


def gru(gates):
    def cell(s, x, h, c):
        z, r, _ = gates(s.all(x, h))
        return (1 - z) * h + z * s.candidate(x, r * h), c

    return cell


def mgu(gates):
    def cell(s, x, h, c):
        f, *_ = gates(s.all(x, h))
        return h + f * (s.candidate(x, f * h) - h), c

    return cell


def packed(u):
    return torch.sigmoid(u).chunk(3, 1)


def separate(u):
    return map(torch.sigmoid, u.chunk(3, 1))


@pytest.mark.filterwarnings("ignore:every score of")
@pytest.mark.parametrize("cell", [lstm, gru, mgu])
def test_gates_of_a_cell_steer_however_they_are_made(cell):
    """Where the state starts at zero, they scale zeros in the first step; and o is behind h."""
    nets = [seeded(lambda g=g: Recurrent(cell(g))) for g in (packed, separate)]
    x = torch.randn(20, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(nets[0](x), nets[1](x))
    for net in nets:
        scores, ones = sf.score(net, "synflow"), sf.Masks.ones(net)
        assert list(scores["gates.weight"].unique()) == [0]
        assert sf.effective_compression(net, ones) == 1
        assert steering(net)["gates.weight"].all()
        with pytest.warns(UserWarning, match="gates.weight only steer"):
            masks = sf.prune(net, "synflow", 2)
        assert "gates.weight" not in masks
        for name in ("gates.weight", "new.weight"):  # without candidates the output is constant
            without = sf.Masks({n: m & (n != name) for n, m in ones.items()})
            assert sf.is_collapsed(net, without, "path") == (name == "new.weight")
            constant = without.apply_(copy.deepcopy(net))(x).std(0).max() < 1e-12
            assert constant == (name == "new.weight")
    first, second = (sf.score(net, "synflow") for net in nets)
    for name in first:
        torch.testing.assert_close(first[name], second[name])


@pytest.mark.parametrize("f", [torch.relu, torch.tanh, F.silu, lambda x: x])
def test_one_gate_before_and_after_a_layer(f):
    class Twice(Gated):
        def forward(self, x):
            gate = torch.sigmoid(self.g(x))
            return gate * f(self.f(gate * x))

    net = seeded(lambda: Twice(None))
    assert list(steering(net)) == ["g.weight"]
    assert float(sf.score(net, "synflow")["f.weight"].sum()) == pytest.approx(
        float(net.f.weight.abs().sum()) * TOKENS
    )


def test_a_weight_that_carries_at_one_place_and_steers_at_another():
    class Shared(Gated):
        def forward(self, x):
            return self.g(
                self.f(x)[..., :3].repeat(1, 1, 2)
                * torch.sigmoid(self.f(x)[..., 2:]).repeat(1, 1, 2)[..., :6]
            )

    net = seeded(lambda: Shared(None))
    where = steering(net)  # the first three rows carry; the third steers besides
    assert list(where) == ["f.weight"]
    assert where["f.weight"].any(1).tolist() == [False] * 3 + [True] * 3


ACTIVATIONS = [torch.sigmoid, torch.tanh, F.silu, F.gelu, F.relu, F.relu6, F.hardsigmoid]


@pytest.mark.parametrize("second", ACTIVATIONS)
@pytest.mark.parametrize("first", ACTIVATIONS)
def test_a_layer_over_an_activated_signal_gates_it_or_nobody_does(first, second):
    """The activation of the signal is behind both factors: it makes neither a gate."""

    class Over(Gated):
        def forward(self, x):
            h = first(self.f(x))
            return h * second(self.g(h))

    net = seeded(lambda: Over(None))
    if second is F.relu:
        with pytest.raises(ValueError, match="do not know mul of 2 values of the input"):
            sf.score(net, "synflow")
    else:
        assert list(steering(net)) == ["g.weight"]


@pytest.mark.parametrize("view", [lambda y: y, lambda y: y.view(-1, TOKENS, WIDE)])
def test_a_mixture_in_place_of_what_is_read_by_another_name_is_refused(view):
    class InPlace(Gated):
        def forward(self, x):
            r = self.f(x)
            y = view(r)
            y += torch.sigmoid(self.g(x)) * (x - y)
            return y + r

    with pytest.raises(ValueError, match="in place on numbers that are read by another name"):
        sf.score(seeded(lambda: InPlace(None)), "synflow")
