"""Notebooks 00 and 01: scores, the largest compression, empty layers and paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...graphs.network import prunable
from .check import Check, by_name, like, number, numbers, returns, truth, whole

Scores = dict[str, Tensor]

# ---------------------------------------------------------------------------------------------- 00


def _chains() -> Iterator[tuple]:
    for a, b, c in ((3, 8, 5), (1, 4, 7), (6, 11, 3)):
        last = nn.Linear(b, c), nn.ReLU(), nn.Linear(c, 2)
        yield (nn.Sequential(nn.Conv2d(a, b, 3), nn.Flatten(), *last),)


def _sizes(net: nn.Module, every: bool = False) -> list[int]:
    return [p.numel() for name, p in net.named_parameters() if every or name.endswith("weight")]


check_largest_compression = Check(
    number=1,
    kind="a number, N / L",
    cases=_chains,
    observe=returns(number),
    right=lambda net: sum(_sizes(net)) / len(_sizes(net)),
    mistakes={
        "biases are counted among the N weights; look at the name of each parameter":
            lambda net: sum(_sizes(net, every=True)) / len(_sizes(net)),
        "biases are counted as layers: L is the number of weight tensors":
            lambda net: sum(_sizes(net)) / len(_sizes(net, every=True)),
        "biases are counted twice over, as weights and as layers":
            lambda net: sum(_sizes(net, every=True)) / len(_sizes(net, every=True)),
        "this is N; at rho_max one weight is left in each of the L layers":
            lambda net: sum(_sizes(net)),
        "upside down: L / N is the smallest density":
            lambda net: len(_sizes(net)) / sum(_sizes(net)),
        "modules without weights (ReLU, Flatten) are counted as layers":
            lambda net: sum(_sizes(net)) / len(net),
        "rounded down; a compression need not be whole":
            lambda net: sum(_sizes(net)) // len(_sizes(net)),
        "this is the size of the smallest layer": lambda net: min(_sizes(net)),
    },
)  # fmt: skip


def _uneven() -> Iterator[tuple]:
    for a, b, c in ((5, 8, 3), (12, 4, 9)):
        net = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c)).double()
        net[2].weight.data *= 100
        yield net, None


def by_layer(scored: Callable[[Tensor], Tensor]) -> Callable[..., Scores]:
    """The answer whose scores are those of each layer's weights."""
    return lambda net, _: {name: scored(w.detach()) for name, w in prunable(net).items()}


def _by_all(net: nn.Module, _: None) -> Scores:
    mean = torch.cat([w.detach().flatten() for w in prunable(net).values()]).abs().mean()
    return by_layer(lambda w: w.abs() / mean)(net, _)


check_fair_magnitude = Check(
    number=2,
    kind="a dict: parameter name -> scores, with the names that sf.prunable(model) gives",
    cases=_uneven,
    observe=returns(by_name(numbers)),
    right=by_layer(lambda w: w.abs() / w.abs().mean()),
    mistakes={
        "signs are left in: a large negative weight would go first":
            by_layer(lambda w: w / w.abs().mean()),
        "this divides by the mean of the weights, whose signs cancel; take magnitudes first":
            by_layer(lambda w: w.abs() / w.mean()),
        "this divides by the magnitude of the mean; take the mean of the magnitudes":
            by_layer(lambda w: w.abs() / w.mean().abs()),
        "one average for the whole network leaves the order as it was: take each layer's": _by_all,
        "an average of each row; take one of the whole layer":
            by_layer(lambda w: w.abs() / w.abs().mean(1, keepdim=True)),
        "an average of each column; take one of the whole layer":
            by_layer(lambda w: w.abs() / w.abs().mean(0)),
        "divided by the sum instead of the mean: large layers get small scores":
            by_layer(lambda w: w.abs() / w.abs().sum()),
        "divided by the largest magnitude instead of the mean":
            by_layer(lambda w: w.abs() / w.abs().max()),
        "divided by the standard deviation instead of the mean magnitude":
            by_layer(lambda w: w.abs() / w.std()),
        "this is plain magnitude: divide by the average of the layer": by_layer(Tensor.abs),
        "multiplied by the average instead of divided":
            by_layer(lambda w: w.abs() * w.abs().mean()),
        "squares instead of magnitudes": by_layer(lambda w: w.square() / w.square().mean()),
        "biases have scores too; only what sf.prunable(model) gives is pruned": lambda net, _: {
            name: p.detach().abs() / p.detach().abs().mean() for name, p in net.named_parameters()
        },
    },
)  # fmt: skip

# ---------------------------------------------------------------------------------------------- 01


def _random_scores() -> Iterator[tuple]:
    for scale, (a, b, c) in ((0.8, (7, 20, 3)), (1.3, (30, 9, 12)), (0.9, (4, 6, 25))):
        yield ({"0.weight": torch.rand(b, a), "2.weight": torch.rand(c, b) * scale},)


def _at_least(scores: Scores, threshold: Tensor) -> int:
    return sum(int((score >= threshold).sum()) for score in scores.values())


def _fewest(scores: Scores) -> int:
    return _at_least(scores, min(score.max() for score in scores.values()))


def _total(scores: Scores) -> int:
    return sum(score.numel() for score in scores.values())


check_fewest_weights = Check(
    number=1,
    kind="a whole number of weights",
    cases=_random_scores,
    observe=returns(whole),
    right=_fewest,
    mistakes={
        "one too few: the weight at the threshold itself is kept, `>=` and not `>`":
            lambda s: _fewest(s) - 1,
        "one too many: with that weight kept no layer is empty yet": lambda s: _fewest(s) + 1,
        "these are the weights that go; asked are those that stay":
            lambda s: _total(s) - _fewest(s),
        "1 weight: the threshold is the *smallest* of the layers' largest scores, and all layers "
        "are counted": lambda s: 1,
        "this is the number of layers, what the best method would need; ask these scores": len,
        "these are all weights: of each layer the largest score matters, not the smallest": _total,
        "counted with the *first* layer's largest score; which layer is emptied first?":
            lambda s: _at_least(s, next(iter(s.values())).max()),
        "counted with the *last* layer's largest score; which layer is emptied first?":
            lambda s: _at_least(s, list(s.values())[-1].max()),
    },
)  # fmt: skip


def _mask_chains() -> Iterator[tuple]:
    for _ in range(24):
        yield ([torch.rand(5, 5) < 0.22 for _ in range(3)],)
    apart = [torch.zeros(5, 5, dtype=torch.bool) for _ in range(3)]
    apart[0][0, 0] = apart[1][0, 0] = apart[1][1, 1] = apart[2][0, 1] = True
    yield (apart,)  # each two neighbours share a unit


def reached(masks: Iterable[Tensor], units: Tensor | None = None) -> Tensor:
    """The units that paths through all masks reach, from these units (by default from all)."""
    units = torch.tensor(True) if units is None else units
    for mask in masks:
        units = (mask & units).any(1)
    return units


check_is_connected = Check(
    number=2,
    kind="True or False",
    cases=_mask_chains,
    observe=returns(truth),
    right=lambda masks: reached(masks).any(),
    mistakes={
        "this asks whether a layer is empty; a network can be cut with none empty":
            lambda masks: all(mask.any() for mask in masks),
        "this asks for a path to *every* output; one is enough": lambda m: reached(m).all(),
        "this follows paths from the first input only; any input will do":
            lambda masks: reached(masks, torch.arange(5) == 0).any(),
        "rows and columns are swapped: a mask is (outputs, inputs), as nn.Linear's weight":
            lambda masks: reached([mask.T for mask in masks]).any(),
        "each two neighbouring layers share a unit, but one path has to run through all":
            lambda masks: all((b.any(0) & a.any(1)).any() for a, b in pairwise(masks)),
        "the other way round: True where the network is cut": lambda m: not reached(m).any(),
    },
)  # fmt: skip

check_even_odds = Check(
    number=3,
    kind="a compression, a number above 1",
    cases=lambda: [(150,), (1_000,), (4_321,)],
    observe=returns(number),
    right=lambda size: 1 / (1 - 0.5 ** (1 / size)),
    rtol=5e-3,  # size / log(2) is near enough
    mistakes={
        "at this compression one weight is left on average, and the layer is empty in 37%":
            lambda size: size,
        "half a weight is left on average there, and the layer is empty in 61%":
            lambda size: 2 * size,
        "this is the density; a compression is its inverse": lambda size: 1 - 0.5 ** (1 / size),
        "multiplied by log(2) instead of divided": lambda size: size * math.log(2),
        "log10 where the natural logarithm belongs": lambda size: size / math.log10(2),
        "this is the compression at which the weights that go would be kept":
            lambda size: 1 / 0.5 ** (1 / size),
        "half of the weights kept; asked is half of the *networks* with an empty layer":
            lambda size: 2,
    },
)  # fmt: skip


def _any_scores() -> Iterator[tuple]:
    """Also large ones, and such that are all negative."""
    yield from _random_scores()
    for factor, shift in ((50, 0), (1, -9)):
        for (scores,) in _random_scores():
            yield ({name: factor * score + shift for name, score in scores.items()},)


def _protected(answer: object, scores: Scores) -> dict | None:
    """How the new scores order the weights: changed places, those above all others, and where."""
    before = {name: score.clone() for name, score in scores.items()}
    found = returns(by_name(numbers))(answer, scores)
    if found is None:
        return None
    like(found, before, "those given")
    pairs = [(found[name], score.double().numpy()) for name, score in before.items()]
    weakest = min(new.max() for new, _ in pairs)
    kept = sum(int((new >= weakest).sum()) for new, _ in pairs)
    return {
        "the scores given are as before": all(torch.equal(scores[n], before[n]) for n in before),
        "more than one changed in a layer": max((new != old).sum() for new, old in pairs) > 1,
        "some lowered": any((new < old).any() for new, old in pairs),
        "weights kept until a layer is empty": max(kept, len(found)),
    }


def _raised(
    scores: Scores,
    to: Callable[[Scores], object] = lambda scores: max(s.max() for s in scores.values()) + 1,
    which: Callable = Tensor.argmax,
) -> Scores:
    found = {name: score.clone() for name, score in scores.items()}
    for score in found.values():
        score.view(-1)[which(score)] = to(scores)
    return found


check_protect = Check(
    number=4,
    kind="new, finite scores by name, one weight changed in each layer and above all others",
    cases=_any_scores,
    observe=_protected,
    right=_raised,
    mistakes={
        "the scores given have changed; clone them first": lambda scores: {
            name: scores[name].copy_(raised) for name, raised in _raised(scores).items()
        },
        "these are the old scores; in every layer one weight has to come before all others":
            lambda scores: {name: score.clone() for name, score in scores.items()},
        "each layer's largest score is raised by the same amount, and a weak layer stays weak: "
        "raise all to one value": lambda scores: {
            name: score + 0.05 * (score == score.max()) for name, score in scores.items()
        },
        "each layer's largest score is raised by 1, too little where scores are large: "
        "raise all to one value":
            lambda scores: {name: score + (score == score.max()) for name, score in scores.items()},
        "where all scores are negative, twice the largest is below it: add to it instead":
            lambda scores: _raised(scores, lambda s: 2 * max(each.max() for each in s.values())),
        "more weights changed than one a layer: the order of the others must stay":
            lambda scores: {name: score / score.max() for name, score in scores.items()},
        "the value is too small: it has to exceed every score of every layer, not the mean":
            lambda scores: _raised(scores, lambda s: next(iter(s.values())).mean()),
        "the smallest scores are lowered; raise the largest, those are kept":
            lambda scores: _raised(scores, lambda s: -1, Tensor.argmin),
    },
)  # fmt: skip
