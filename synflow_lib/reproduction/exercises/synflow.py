"""Notebooks 03 and 04: what training conserves, schedules, one step, overflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..paper import loglog_slope
from .check import Check, NotOfTheKind, number, numbers, returns, switches, whole

# ---------------------------------------------------------------------------------------------- 03


def _with_gradients() -> Iterator[tuple]:
    """True gradients, of which as much enters a unit as leaves it, and random ones."""
    for true in (False, True, False):
        net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).double()
        loss = nn.functional.cross_entropy(net(torch.randn(9, 6).double()), torch.arange(9) % 6)
        loss.backward()
        for parameter in net.parameters():
            parameter.grad = parameter.grad if true else torch.randn_like(parameter)
        yield (net,)


def _balance(
    bias: float = 1.0,
    leaving: float = -1.0,
    sign: float = 1.0,
    times: Callable[[Tensor, Tensor], Tensor] = torch.mul,
    into: int = 1,
    out: int = 0,
    gather: Callable[..., Tensor] = Tensor.sum,
):
    def imbalance(net: nn.Module) -> Tensor:
        saliency = {name: times(p.detach(), p.grad) for name, p in net.named_parameters()}
        entering = gather(saliency["0.weight"], into) + bias * saliency["0.bias"]
        return sign * (entering + leaving * gather(saliency["2.weight"], out))

    return imbalance


check_imbalance = Check(
    number=1,
    kind="a tensor, one number for each hidden unit",
    cases=_with_gradients,
    observe=returns(numbers),
    right=_balance(),
    mistakes={
        "the unit's bias is forgotten: its saliency enters too": _balance(bias=0.0),
        "the other sign: what enters minus what leaves": _balance(sign=-1.0),
        "entering and leaving are added: take the difference": _balance(leaving=1.0),
        "only what enters: subtract what leaves by net[2].weight": _balance(leaving=0.0),
        "the gradients alone: saliency is gradient times weight": _balance(times=lambda w, g: g),
        "absolute values, as SNIP's: the law needs the signs":
            _balance(times=lambda w, g: (w * g).abs()),
        "net[0].weight is (hidden, inputs): sum over its inputs, dimension 1": _balance(into=0),
        "net[2].weight is (outputs, hidden): sum over its outputs, dimension 0": _balance(out=1),
        "rows and columns swapped: nn.Linear keeps its weight as (outputs, inputs)":
            _balance(into=0, out=1),
        "means instead of sums: the law is one of sums": _balance(gather=Tensor.mean),
        "one number for the layer: keep one for each hidden unit":
            lambda net: _balance()(net).sum()[None],
    },
)  # fmt: skip


def _tapered_layers() -> Iterator[tuple]:
    for sizes in ((6400, 8000, 1200, 200), (3200, 900, 300, 250)):
        norms = 10 + 20 * np.random.default_rng(0).random(4)
        yield np.array(sizes, float), norms, 35.0


check_predicted_slope = Check(
    number=3,
    kind="one number, the slope",
    cases=_tapered_layers,
    observe=returns(number),
    right=lambda sizes, norms, gain: loglog_slope(sizes, (norms + gain) / sizes),
    rtol=1e-3,
    mistakes={
        "this is the slope before training (a factor common to all layers changes no slope): every "
        "layer *gains* the same amount": lambda n, w, g: loglog_slope(n, w / n),
        "squared norms are sums: divide by the layer's size for the mean of a weight":
            lambda n, w, g: loglog_slope(n, w + g),
        "the gain is that of a whole layer, not of each weight: add it before dividing":
            lambda n, w, g: loglog_slope(n, w / n + g),
        "the gain is shared among the layers; each of them gains all of it":
            lambda n, w, g: loglog_slope(n, (w + g / len(n)) / n),
        "the gain is subtracted; norms grow": lambda n, w, g: loglog_slope(n, np.abs(w - g) / n),
        "axes swapped: the mean squared weight is fitted against 1 / size":
            lambda n, w, g: loglog_slope((w + g) / n, n),
        "the other sign: the axis is 1 / size, as in figure 5b, so the slope is positive":
            lambda n, w, g: -loglog_slope(n, (w + g) / n),
        "a slope without logarithms": lambda n, w, g: np.polyfit(1 / n, (w + g) / n, 1)[0],
        "1 is the line that training approaches; how far does this gain bring it?":
            lambda n, w, g: 1.0,
    },
)  # fmt: skip

check_shrinking = Check(
    number=2,
    kind="a number from 0 to 1",
    cases=lambda: [(0.0012, 0.4, 200), (0.0025, 0.9, 280)],
    observe=returns(number),
    right=lambda rate, decay, steps: math.exp(-2 * decay * rate * steps),
    rtol=0.01,  # (1 - rate * decay) ** (2 * steps) is the same thing
    mistakes={
        "weights shrink by this factor; norms are *squared*, so they shrink twice as fast":
            lambda r, d, n: math.exp(-d * r * n),
        "the factor grows with decay; the sign of the exponent is wrong":
            lambda r, d, n: math.exp(2 * d * r * n),
        "this is one step after the other along a straight line: shrinking is exponential":
            lambda r, d, n: 1 - 2 * d * r * n,
        "a difference is conserved without decay; what does decay take from each norm?":
            lambda r, d, n: 1.0,
        "the learning rate is missing": lambda r, d, n: math.exp(-2 * d * n),
        "this is what is lost; asked is what is left of the difference":
            lambda r, d, n: 1 - math.exp(-2 * d * r * n),
        "shrunk twice too fast: a squared norm shrinks with twice the exponent, not four times":
            lambda r, d, n: math.exp(-4 * d * r * n),
    },
)  # fmt: skip

# ---------------------------------------------------------------------------------------------- 04


def _safe(layers: int, compression: float) -> int:
    n = 1
    while layers * (1 - compression ** (-1 / n)) >= 1:
        n += 1
    return n


check_safe_iterations = Check(
    number=1,
    kind="a whole number",
    cases=lambda: [(2, 4.0), (2, 16.0), (14, 100.0), (17, 12345.6), (3, 5.5), (60, 1e6)],
    observe=returns(whole),
    right=_safe,
    mistakes={
        "the sum may equal the cut size here; the theorem needs `<`, so try L=2, rho=4":
            lambda n, c: math.ceil(math.log(c) / -math.log(1 - 1 / n)),
        "one too few: rounded down, and the condition fails there": lambda n, c: _safe(n, c) - 1,
        "one too many: the condition holds one iteration earlier": lambda n, c: _safe(n, c) + 1,
        "L log(rho) is enough, but not the smallest: log(1 - 1/L) is not -1/L":
            lambda n, c: math.floor(n * math.log(c)) + 1,
        "log10 in one place and the natural logarithm in the other":
            lambda n, c: math.floor(math.log10(c) / -math.log(1 - 1 / n)) + 1,
        "a hundred, the paper's number, is too few for some and more than enough for others":
            lambda n, c: 100,
        "the number of layers is missing: this bounds 1 - rho^(-1/n) by 1/2":
            lambda n, c: math.floor(math.log2(c)) + 1,
        "the density of one step is rho^(-1/n), not rho^(1/n)": lambda n, c: 1,
    },
)  # fmt: skip


def _steps() -> Iterator[tuple]:
    """Eighths, so that sums are exact; in half of the cases a sum equals the cut size."""
    for seed in range(8):
        random = torch.Generator().manual_seed(seed)
        scores = torch.randint(1, 9, (30,), generator=random).double() / 8
        sums = scores.sort().values.cumsum(0)
        yield scores, float(sums[4 + 3 * seed]) + (seed % 2) * 1 / 16


def _gone(mask: np.ndarray, scores: Tensor, cut_size: float) -> dict:
    """The scores that go: of equal ones any may."""
    if mask.shape != (len(scores),):
        raise NotOfTheKind(f"the mask has shape {mask.shape}")
    gone = np.sort(scores.numpy()[mask])
    return {"weights that go": len(gone), "their scores": gone}


def _going(
    order: Callable = torch.argsort, below: Callable = torch.lt, add: Callable = torch.cumsum
):
    """Along an order of the scores those whose sum so far is below the cut size."""

    def may_go(scores: Tensor, cut_size: float) -> Tensor:
        along = order(scores)
        gone = torch.zeros_like(scores, dtype=torch.bool)
        gone[along[below(add(scores[along], 0), cut_size)]] = True
        return gone

    return may_go


check_may_go = Check(
    number=2,
    kind="a bool tensor of shape (N,), True for the weights to remove",
    cases=_steps,
    observe=returns(switches, _gone),
    right=_going(),
    mistakes={
        "the sum may equal the cut size here (`<=`); the theorem needs it below (`<`), else "
        "a whole layer could go": _going(below=torch.le),
        "the weight itself is not in the sum, so the last one reaches the cut size":
            _going(add=lambda s, _: s.cumsum(0) - s),
        "one more could go and the sum would still be below the cut size":
            _going(add=lambda s, _: torch.cat([s.cumsum(0)[1:], torch.tensor([torch.inf])])),
        "each score is compared with the cut size; it bounds their *sum*": lambda s, cut: s < cut,
        "the largest scores go; sort upwards":
            _going(lambda scores: scores.argsort(descending=True)),
        "True marks the weights that stay; mark those that go": lambda s, cut: ~_going()(s, cut),
        "the scores are not sorted before they are summed":
            _going(lambda scores: torch.arange(len(scores))),
        "the mask is in sorted order; write it back to where the scores stood":
            lambda s, cut: s.sort().values.cumsum(0) < cut,
        "of scores equal to the largest that goes, all go; only as many as fit may":
            lambda s, cut: s <= s[_going()(s, cut)].max(),
        "means where sums belong: cumsum alone": _going(add=lambda s, _: s.cumsum(0) / len(s)),
    },
)  # fmt: skip


def _flow(layers: list[Tensor], of: Callable = abs) -> list[int]:
    flow = [1] * layers[0].shape[1]
    for layer in layers:
        rows = layer.long().tolist()
        flow = [sum(of(w) * x for w, x in zip(row, flow, strict=True)) for row in rows]
    return flow


def _log2(layers: list[Tensor]) -> float:
    return math.log2(sum(_flow(layers)))


check_log2_flow = Check(
    number=3,
    kind="one number, log2 of R",
    # Small whole numbers as weights, so that Python's integers know the flow exactly.
    cases=lambda: [(list(torch.randint(-1, 5, (n, 4, 4)).double()),) for n in (400, 430)],
    observe=returns(number),
    right=_log2,
    rtol=1e-6,
    mistakes={
        "the flow itself left the range of float64; take the power of two out after every "
        "layer": lambda layers: math.nan,  # infinity times the zeros among the weights
        "the natural logarithm where log2 belongs": lambda layers: _log2(layers) * math.log(2),
        "log10 where log2 belongs": lambda layers: _log2(layers) * math.log10(2),
        "signs are left in: SynFlow takes |W| of every layer":
            lambda layers: math.log2(sum(_flow(layers, lambda w: w))),
        "the mean of the outputs, not their sum: log2(4) is missing":
            lambda layers: _log2(layers) - 2,
        "the largest output alone; R is the sum of all":
            lambda layers: math.log2(max(_flow(layers))),
        "whole powers of two alone: what is left in the mantissa counts too":
            lambda layers: math.floor(_log2(layers)),
        "from the wrong end: W_1 comes first, and a layer is (outputs, inputs), so `layer @ x`":
            lambda layers: _log2(layers[::-1]),
        "the sizes of the layers are multiplied; a sum over paths is no product of sums":
            lambda layers: sum(math.log2(float(layer.abs().sum())) for layer in layers),
        "the last layer is missing": lambda layers: _log2(layers[:-1]),
    },
)  # fmt: skip
