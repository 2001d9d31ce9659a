"""The plain part of the zoo: small networks written by hand, one for every way of writing one."""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLAIN: dict[str, tuple] = {}  # name -> (what makes the network, its input: shapes, or tensors)


def plain(shape, *more, **named):
    def add(make):
        PLAIN[make.__name__.lower()] = (make, more and (shape, *more) or named or shape)
        return make

    return add


def _mlp(act):
    return lambda: nn.Sequential(
        nn.Linear(12, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 4)
    )


for act in (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
            nn.Hardswish):  # fmt: skip
    PLAIN[f"mlp_{act.__name__.lower()}"] = (_mlp(act), (12,))
PLAIN["mlp_prelu"] = (lambda: nn.Sequential(nn.Linear(12, 8), nn.PReLU(8), nn.Linear(8, 4)), (12,))
PLAIN["mlp_dropout_bn"] = (
    lambda: nn.Sequential(
        nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)
    ),
    (12,),
)
PLAIN["mlp_ln"] = (
    lambda: nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4)), (12,)
)  # fmt: skip
PLAIN["mlp_rms"] = (
    lambda: nn.Sequential(nn.Linear(12, 8), nn.RMSNorm(8), nn.SiLU(), nn.Linear(8, 4)), (12,)
)  # fmt: skip


def _conv(dims, pool, norm=None):
    conv = getattr(nn, f"Conv{dims}d")
    norm = norm or getattr(nn, f"BatchNorm{dims}d")
    return lambda: nn.Sequential(
        conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), getattr(nn, f"{pool}{dims}d")(2),
        conv(8, 12, 3, padding=1, groups=4), nn.ReLU(), getattr(nn, f"AdaptiveAvgPool{dims}d")(1),
        nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


PLAIN |= {
    "conv1d": (_conv(1, "MaxPool"), (3, 16)),
    "conv2d": (_conv(2, "MaxPool"), (3, 8, 8)),
    "conv3d": (_conv(3, "AvgPool"), (3, 4, 4, 4)),
    "conv2d_groupnorm": (_conv(2, "AvgPool", lambda n: nn.GroupNorm(2, n)), (3, 8, 8)),
    "conv2d_instancenorm": (
        _conv(2, "AvgPool", lambda n: nn.InstanceNorm2d(n, affine=True)), (3, 8, 8)),
    "gan_generator": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(16, 8, 4, 1, 0), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()), (16, 1, 1)),
    "gan_discriminator": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1),
            nn.InstanceNorm2d(16), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4)), (3, 16, 16)),
    "autoencoder": (
        lambda: nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 12), nn.Sigmoid()), (12,)),
    "pixel_shuffle": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2),
            nn.Conv2d(4, 3, 3, padding=1)), (3, 8, 8)),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8),
            nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(256, 4)), (3, 8, 8)),
    "glu": (lambda: nn.Sequential(nn.Linear(12, 16), nn.GLU(), nn.Linear(8, 4)), (12,)),
    "lrn": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(3), nn.Flatten(),
            nn.Linear(288, 4)), (3, 8, 8)),
    "padding": (
        lambda: nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ZeroPad2d(2),
            nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(400, 4)), (3, 8, 8)),
    "upsample": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(4, 2, 3)), (3, 8, 8)),
    "encoder_torch": (
        lambda: nn.Sequential(
            nn.Linear(6, 16),
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2,
                enable_nested_tensor=False),
            nn.Linear(16, 4)), (5, 6)),
}  # fmt: skip


@plain((3, 16, 16))
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.last, self.out = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        return self.out(F.relu(self.last(torch.cat([a, self.up(b)], 1))))


class _Residual(nn.Module):
    def __init__(self, channels, norm=nn.BatchNorm2d):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels))  # fmt: skip

    def forward(self, x):
        return F.relu(x + self.body(x))


def _net(*middle, channels=8, size=8):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), *middle, nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(channels, 4))  # fmt: skip


def _add(name, middle, shape=(3, 8, 8)):
    PLAIN[name] = (lambda: _net(middle()), shape)


_add("residual_bn", lambda: _Residual(8))
_add("residual_gn", lambda: _Residual(8, lambda n: nn.GroupNorm(2, n)))


class _SE(nn.Module):
    def __init__(self, channels, gate=torch.sigmoid):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate = gate

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.excite(F.relu(self.squeeze(s))))


_add("se", lambda: _SE(8))
_add("se_three", lambda: nn.Sequential(_SE(8), _Residual(8), _SE(8), nn.Conv2d(8, 8, 1), _SE(8)))
_add("se_hardsigmoid", lambda: _SE(8, F.hardsigmoid))


class _ECA(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        y = x.mean((2, 3)).unsqueeze(1)
        return x * torch.sigmoid(self.conv(y)).transpose(1, 2).unsqueeze(-1)


_add("eca", _ECA)


class _Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


_add("handwritten_swish", _Swish)


class _HardSwish(nn.Module):
    def forward(self, x):
        return x * F.relu6(x + 3) / 6


_add("handwritten_hardswish", _HardSwish)


class _Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        x = torch.cat([a, F.relu(self.conv(b))], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


_add("shuffle", lambda: nn.Sequential(_Shuffle(), _Shuffle()))


class _Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(12, 4, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)

    def forward(self, x):
        x = torch.cat([x, F.relu(self.a(x))], 1)
        x = torch.cat([x, F.relu(self.b(x))], 1)
        return self.c(x)


_add("dense", _Dense)


class _CReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 8, 1)

    def forward(self, x):
        return self.conv(F.relu(torch.cat([x, -x], 1)))


_add("crelu", _CReLU)


class _LayerScale(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(8, 8, 1), nn.Parameter(value * torch.ones(8, 1, 1))

    def forward(self, x):
        return x + self.scale * F.gelu(self.conv(x))


_add("layer_scale", lambda: _LayerScale(1e-5))
_add("layer_scale_zero", lambda: _LayerScale(0.0))


class _LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias)
        return x.permute(0, 3, 1, 2)


_add("layernorm2d", lambda: nn.Sequential(_LayerNorm2d(8), nn.Conv2d(8, 8, 1)))


class _HandNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        return self.scale * ((x - mean) / torch.sqrt(var + 1e-6))


_add("handwritten_norm", lambda: nn.Sequential(_HandNorm(), nn.Conv2d(8, 8, 1)))


class _HandRMS(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.scale


_add("handwritten_rms", lambda: nn.Sequential(_HandRMS(), nn.Conv2d(8, 8, 1)))


class _FrozenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(8) + 0.5)

    def forward(self, x):
        scale = self.weight * (self.var + 1e-5).rsqrt()
        bias = self.bias - self.mean * scale
        return x * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


_add("frozen_norm", _FrozenNorm)


class _Standardized(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


_add("standardized", lambda: nn.Sequential(_Standardized(8, 8, 3), nn.ReLU()))


class _Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.paths = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.alpha = nn.Parameter(torch.randn(3))

    def forward(self, x):
        weights = torch.softmax(self.alpha, 0)
        return sum(w * p(x) for w, p in zip(weights, self.paths, strict=True))


_add("softmax_of_parameters", _Mixture)


class _Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.h, self.t = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        t = torch.sigmoid(self.t(x))
        return t * F.relu(self.h(x)) + (1 - t) * x


PLAIN["highway"] = (lambda: nn.Sequential(_Highway(), _Highway(), nn.Linear(12, 4)), (12,))


class _SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(12, 16), nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, x):
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


PLAIN["swiglu"] = (lambda: nn.Sequential(_SwiGLU(), _SwiGLU(), nn.Linear(12, 4)), (12,))


class _GEGLUChunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 32), nn.Linear(16, 12)

    def forward(self, x):
        a, b = self.up(x).chunk(2, -1)
        return self.down(a * F.gelu(b))


PLAIN["geglu_chunk"] = (lambda: nn.Sequential(_GEGLUChunk(), nn.Linear(12, 4)), (12,))


class Attention(nn.Module):
    """One head or several, in three spellings."""

    def __init__(self, spelling, dim=12, heads=2, mask=None):
        super().__init__()
        self.spelling, self.heads, self.mask = spelling, heads, mask
        if spelling == "module":
            self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        else:
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        if self.spelling == "module":
            return self.attention(x, x, x, need_weights=False)[0]
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.spelling == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.mask == "causal")
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads)
            if self.mask == "causal":
                scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
            elif self.mask == "large":
                scores = scores + torch.ones(n, n).triu(1) * -1e9
            y = scores.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, spelling, mask=None):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention = Attention(spelling, mask=mask)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def _attention(spelling, mask=None):
    return lambda: nn.Sequential(Block(spelling, mask), Mean(), nn.Linear(12, 4)), (5, 12)


PLAIN |= {
    f"attention_{spelling}": _attention(spelling) for spelling in ("module", "sdpa", "matmul")
}
PLAIN |= {
    f"attention_{spelling}_{mask}": _attention(spelling, mask)
    for mask, spelling in (("causal", "sdpa"), ("causal", "matmul"), ("large", "matmul"))
}


@plain((3, 8, 8))
class ClassToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.position = nn.Parameter(0.02 * torch.randn(1, 5, 12))
        self.blocks = nn.Sequential(Block("sdpa"), Block("sdpa"))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


@plain((5, 6))
class LSTM(nn.Module):
    kind = nn.LSTM

    def __init__(self):
        super().__init__()
        self.rnn = self.kind(6, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@plain((5, 6))
class GRU(LSTM):
    kind = nn.GRU


TOKENS = torch.arange(5)[None] % 4


@plain(TOKENS)
class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(F.relu(self.body(self.embed(x))).mean(1))


@plain(TOKENS)
class TokensTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(20, 12), nn.Embedding(5, 12)
        self.block, self.head = Block("sdpa", "causal"), nn.Linear(12, 20, bias=False)

    def forward(self, x):
        h = self.embed(x) + self.position(torch.arange(x.shape[1]))
        return self.head(self.block(h))


@plain(TOKENS)
class TiedHead(TokensTransformer):
    def __init__(self):
        super().__init__()
        self.head.weight = self.embed.weight


@plain(TOKENS)
class TokensLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.rnn(self.embed(x))[0][:, -1])


@plain(TOKENS)
class EmbeddingBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(20, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.bag(x))


@plain((12,), (6,))
class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(12, 8), nn.Linear(6, 8), nn.Linear(16, 4)

    def forward(self, x, y):
        return self.head(F.relu(torch.cat([self.a(x), self.b(y)], 1)))


@plain((), image=(12,), words=TOKENS)
class ImageAndWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.embed, self.head = nn.Linear(12, 8), nn.Embedding(20, 8), nn.Linear(8, 4)

    def forward(self, image, words, scale=1.0):
        return self.head(F.relu(self.a(image) + scale * self.embed(words).mean(1)))


@plain((12,))
class OptionalInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.t, self.head = nn.Linear(12, 8), nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, x, t=None):
        h = self.a(x)
        if t is not None:
            h = h + self.t(t)
        return self.head(F.relu(h))


@plain((12,))
class DictOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4), nn.Linear(8, 2)

    def answer(self, a, b):
        return {"logits": a, "other": b}

    def forward(self, x):
        h = F.relu(self.body(x))
        return self.answer(self.a(h), self.b(h))


@plain((12,))
class TupleOutput(DictOutput):
    def answer(self, a, b):
        return a, b


@dataclass
class Answer:
    logits: Tensor
    other: Tensor


@plain((12,))
class DataclassOutput(DictOutput):
    def answer(self, a, b):
        return Answer(a, b)


Named = namedtuple("Named", "logits other")


@plain((12,))
class NamedTupleOutput(DictOutput):
    def answer(self, a, b):
        return Named(a, b)


@plain((3, 8, 8))
class Auxiliary(nn.Module):
    """A second head in train mode, as in Inception."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.aux, self.head = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        h = F.relu(self.a(x))
        out = self.head(F.relu(self.b(h)).mean((2, 3)))
        return (out, self.aux(h.mean((2, 3)))) if self.training else out


@plain((12,))
class TiedAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(12, 6)

    def forward(self, x):
        return F.linear(F.relu(self.body(x)), self.body.weight.t())


@plain((12,))
class RawParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.head = nn.Parameter(torch.randn(12, 8)), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(F.relu(x @ self.w))


@plain((12,))
class Branches(nn.Module):
    """A branch on the values of a tensor: no graph."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        h = F.relu(self.a(x))
        if h.sum() < 0:
            h = -h
        return self.b(h)


@plain((12,))
class ShapeBranch(nn.Module):
    """A branch and a loop on the shape of a tensor."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        if x.shape[0] > 100 or x.dim() != 2:
            raise ValueError("expected a batch of vectors")
        h = sum(self.a(x) for _ in range(x.dim()))
        h = torch.cat(h.split([3, 5], 1)[::-1], 1)  # export's split_with_sizes
        return self.b(F.relu(h))


@plain((4, 6))
class LoopOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(14, 8), nn.Linear(8, 4)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 8)
        for t in range(x.shape[1]):
            h = torch.relu(self.cell(torch.cat([x[:, t], h], 1)))
        return self.head(h)


@plain((3, 8, 8))
class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.c, self.d = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        parts = [self.a(x), self.b(x), self.c(x), self.d(F.max_pool2d(x, 3, 1, 1))]
        return self.head(F.relu(torch.cat(parts, 1)).mean((2, 3)))


@plain((12,))
class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 6), nn.Bilinear(6, 6, 4)

    def forward(self, x):
        h = F.relu(self.a(x))
        return self.b(h, h)


@plain((12,))
class WritesInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        x.mul_(2)
        h = self.a(x)
        h += 1
        h[:, 0] = 0
        return self.b(h.relu_())


@plain((8, 12))
class SequenceBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(12, 6), nn.BatchNorm1d(8), nn.Linear(6, 4)

    def forward(self, x):
        return self.b(F.relu(self.norm(self.a(x)))).mean(1)


@plain((1, 8, 8))
class Unpool(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        y, where = self.pool(F.relu(self.a(x)))
        return self.b(self.unpool(y, where))


@plain((5, 12))
class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.head = nn.Parameter(torch.randn(12, 2, 6)), nn.Linear(12, 4)

    def forward(self, x):
        return self.head(torch.einsum("bnc,chd->bnhd", x, self.w).flatten(2).mean(1))


@plain((3, 8, 8))
class Functional(nn.Module):
    """Weights as parameters of the network, everything a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.lin = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(4, 8))
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        h = F.adaptive_avg_pool2d(F.relu(F.conv2d(x, self.conv)), 1).flatten(1)
        return self.layer(F.linear(h, self.lin))


@plain((3, 8, 8))
class MixerBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.tokens, self.channels = nn.Linear(4, 4), nn.Linear(12, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2)
        x = x + F.gelu(self.tokens(x))
        x = x.transpose(1, 2)
        x = x + F.gelu(self.channels(x))
        return self.head(x.mean(1))


class _Affine(nn.Module):
    """ResMLP's norm, in one call."""

    def __init__(self):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.rand(12)), nn.Parameter(torch.zeros(12))

    def forward(self, x):
        return torch.addcmul(self.beta, self.alpha, x, value=-0.5)


PLAIN["affine"] = (
    lambda: nn.Sequential(nn.Linear(6, 12), _Affine(), nn.ReLU(), nn.Linear(12, 4)), (6,)
)  # fmt: skip


@plain((12,))
class Selections(nn.Module):
    """What takes some numbers out of others, by fixed places or by their size."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 6)
        self.head = nn.Linear(3, 4)
        self.register_buffer("places", torch.tensor([[5, 0, 3, 3, 1, 7]]))

    def forward(self, x):
        low = torch.minimum(self.a(x), self.b(x)).minimum(torch.ones(8))
        some = self.c(low) + low.gather(1, self.places.expand(x.shape[0], -1))
        return self.head(F.relu(some).topk(3, dim=1)[0])


@plain((4, 12))
class SmallestOfRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.b(torch.amin(self.a(x), 1))


class _Encoded(nn.Module):
    """torch's encoder and decoder, on the input and on what a layer makes of it."""

    def __init__(self, **how):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)
        self.body = nn.Transformer(8, 2, 1, 2, 12, batch_first=True, **how)
        self.head = nn.Linear(8, 4)
        self.mask = nn.Transformer.generate_square_subsequent_mask(5)

    def forward(self, x):
        return self.head(self.body(self.a(x), self.b(x), tgt_mask=self.mask))


PLAIN["transformer_torch"] = (_Encoded, (5, 6))
PLAIN["transformer_torch_norm_first"] = (lambda: _Encoded(norm_first=True), (5, 6))


@plain((5, 6))
class Decoded(_Encoded):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerDecoder(self.body.decoder.layers[0], 1)

    def forward(self, x):
        return self.head(self.body(self.a(x), self.b(x), memory_mask=self.mask))


@plain((3, 4, 4))
class Enlarged(nn.Module):
    """A branch on shapes, so that torch.export traces it, and interpolation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x):
        if x.dim() != 4:
            raise ValueError("expected a batch of images")
        x = F.interpolate(F.relu(self.a(x)), size=6, mode="bilinear")
        return self.b(F.interpolate(x, scale_factor=2.0, mode="nearest"))
