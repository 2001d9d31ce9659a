"""Notebook 02: for which activations the law holds, its symmetry, other objectives, GraSP."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import product

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.utils import parameters_to_vector

from ...conservation import check_conservation
from ...methods import synaptic_saliency
from ...scores import Batch, score
from .check import Check, NotOfTheKind, by_name, called, numbers, returns, truth

WHY = {
    "LeakyReLU": "LeakyReLU keeps the law: it is straight on each side of zero, so x phi'(x) is "
    "phi(x)",
    "Tanh": "Tanh breaks the law: it bends, and x phi'(x) is not phi(x)",
    "Identity": "Identity keeps the law: x phi'(x) is phi(x), nothing simpler",
    "Softplus": "Softplus breaks the law: it looks like ReLU, but bends near zero and is not zero "
    "there",
}
HOLDS = {"LeakyReLU": True, "Tanh": False, "Identity": True, "Softplus": False}


def _predicted(prediction: object) -> dict | None:
    if prediction is None or (isinstance(prediction, Mapping) and None in prediction.values()):
        return None
    found = by_name(truth)(prediction)
    if found.keys() != HOLDS.keys():
        raise NotOfTheKind(f"the names are {list(found)}")
    return found


PREDICTIONS = [dict(zip(HOLDS, each, strict=True)) for each in product((True, False), repeat=4)]

check_prediction = Check(
    number=1,
    kind="True or False for LeakyReLU, Tanh, Identity and Softplus",
    cases=lambda: [()],
    observe=_predicted,
    right=HOLDS,
    mistakes={
        "; ".join(WHY[name] for name in HOLDS if each[name] != HOLDS[name]): each
        for each in PREDICTIONS
        if each != HOLDS
    },
)


def _one_hidden() -> Iterator[tuple]:
    for unit, factor in ((1, 3.0), (2, 0.25)):
        yield nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).double(), unit, factor


def _rescaled(answer: object, net: nn.Module, unit: int, factor: float) -> dict | None:
    before = copy.deepcopy(net.state_dict())
    given = called(answer, net, unit, factor)
    after = net.state_dict()  # its tensors may be others now
    if all(torch.equal(before[name], after[name]) for name in before):
        if isinstance(given, nn.Module):
            raise NotOfTheKind("another network is returned, and the one given is as it was")
        return None
    return {name: p.numpy() for name, p in after.items()}


def _scaling(into=1, bias=1, out=-1, other=0, whole=False, into_column=False, out_row=False):
    """The powers of the factor that each part is multiplied by."""

    @torch.no_grad()
    def rescale(net: nn.Module, unit: int, factor: float) -> None:
        u = slice(None) if whole else unit
        net[0].weight[(slice(None), u) if into_column else u] *= factor**into
        net[0].bias[u] *= factor**bias
        net[2].weight[u if out_row else (slice(None), u)] *= factor**out
        net[2].bias[:] *= factor**other

    return rescale


check_rescale = Check(
    number=2,
    kind="a network changed in place: unit times factor, output as before",
    cases=_one_hidden,
    observe=_rescaled,
    right=_scaling(),
    mistakes={
        "the bias of the unit is forgotten: it enters the unit like a weight": _scaling(bias=0),
        "the output has changed: divide what reads the unit, a column of net[2].weight":
            _scaling(out=0),
        "the weights that read the unit are multiplied; divide them": _scaling(out=1),
        "the wrong way round: the unit shrinks where it should grow": _scaling(-1, -1, 1),
        "every hidden unit is scaled; only number `unit` should be": _scaling(whole=True),
        "net[0].weight is (hidden, inputs): the weights into a unit are a row, not a column":
            _scaling(into_column=True),
        "net[2].weight is (outputs, hidden): what reads the unit is a column, not a row":
            _scaling(out_row=True),
        "the output's bias is divided too; it does not read the unit": _scaling(other=-1),
        "neither the bias nor the weights that read the unit are scaled": _scaling(bias=0, out=0),
    },
)  # fmt: skip


def _labelled(bias: bool = True) -> Iterator[tuple]:
    layers = nn.Linear(6, 8, bias=bias), nn.ReLU(), nn.Linear(8, 4, bias=bias)
    yield nn.Sequential(*layers).double(), (torch.randn(9, 6).double(), torch.randint(0, 4, (9,)))


def _judged(answer: object, net: nn.Module, batch: Batch) -> dict | None:
    """What the objective is: a number with a gradient, which scores, and whether they obey."""

    def objective(output: Tensor, y: Tensor) -> object:
        return called(answer, output, y.clone())  # an answer may change the labels

    value = objective(net(batch[0]), batch[1])
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise NotOfTheKind(f"it returns a {type(value).__name__}; without `.item()` or `float`")
    found = {
        "a number": value.ndim == 0 and not bool(value.isnan()),
        "follows the outputs": value.requires_grad,
        "zero scores": False,
        **dict.fromkeys(KNOWN, False),
        "obeys": True,
    }
    if not found["a number"] or not found["follows the outputs"]:
        return found
    gradients = torch.autograd.grad(value, list(net.parameters()), materialize_grads=True)
    found["zero scores"] = max(float(each.abs().max()) for each in gradients) < 1e-12
    if found["zero scores"]:
        return found
    scores = score(net, synaptic_saliency(objective), batch)
    for name, known in KNOWN.items():
        other = score(net, synaptic_saliency(known), batch)
        pair = torch.stack([parameters_to_vector(each.values()) for each in (scores, other)])
        found[name] = abs(float(torch.corrcoef(pair)[0, 1])) > 1 - 1e-9
    return found | {"obeys": check_conservation(net, scores).holds(1e-10)}


KNOWN = {"cross-entropy": nn.functional.cross_entropy, "sum": lambda output, y: output.sum()}

check_objective = Check(
    number=3,
    kind="a number computed from the outputs, as a tensor of shape ()",
    cases=_labelled,
    observe=_judged,
    right=lambda output, y: output.square().sum(),
    mistakes={
        "this is the cross-entropy, or a multiple of it; invent another": KNOWN["cross-entropy"],
        "this is the sum of the outputs, or made of it alone, as a mean is; invent another":
            KNOWN["sum"],
        "this is a tensor of several numbers; R is one for the whole batch: sum or average":
            lambda output, y: output.square(),
        "this does not follow the outputs: argmax, labels or `.detach()` pass on no gradient":
            lambda output, y: (output.argmax(1) == y).double().mean(),
        "all scores are zero: R does not change with the weights":
            lambda output, y: (output * 0).sum(),
    },
)  # fmt: skip


def _second_order(combine):
    """The answer whose scores are combine(theta, g, H g), layer by layer."""

    def scores(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(functional_call(net, weights, batch[0]), batch[1])

        weights = {name: p.detach() for name, p in net.named_parameters()}
        g, h = jvp(grad(loss), (weights,), (grad(loss)(weights),))
        return {name: combine(w, g[name], h[name]) for name, w in weights.items()}

    return scores


check_conserved_grasp = Check(
    number=4,
    kind="a dict: '0.weight' and '2.weight' -> theta * (H g) + g * g",
    cases=lambda: _labelled(bias=False),
    observe=returns(by_name(numbers)),
    right=_second_order(lambda w, g, h: w * h + g * g),
    mistakes={
        "this is theta * (H g) alone, GraSP itself; add g * g":
            _second_order(lambda w, g, h: w * h),
        "this is -theta * (H g), GraSP with another sign; asked is theta * (H g) + g * g":
            _second_order(lambda w, g, h: -w * h),
        "g * g is subtracted; add it": _second_order(lambda w, g, h: w * h - g * g),
        "theta * (H g) has the wrong sign": _second_order(lambda w, g, h: g * g - w * h),
        "twice H g: the derivative of g . g is 2 H g, so detach one of the two":
            _second_order(lambda w, g, h: 2 * w * h + g * g),
        "theta is missing: H g is multiplied by the weight":
            _second_order(lambda w, g, h: h + g * g),
        "g * theta is added instead of g * g": _second_order(lambda w, g, h: w * h + g * w),
        "g instead of g * g is added": _second_order(lambda w, g, h: w * h + g),
        "this is g * g alone; theta * (H g) is missing": _second_order(lambda w, g, h: g * g),
        "absolute values: they break the law, as SNIP's do":
            _second_order(lambda w, g, h: (w * h + g * g).abs()),
    },
)  # fmt: skip
