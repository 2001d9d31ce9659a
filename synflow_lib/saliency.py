"""What a weight is worth: `score` by any method, by name, by function, or by your own R."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .batches import Batch
from .fast.pieces import fixed_order
from .fast.selection import TIES
from .gradients import Grasp, Saliency, SignedSnip, Snip, scalar
from .guards import refuse_unfit, warn_of_silence
from .methods import Magnitude, Method, Random
from .synflow import SynFlow
from .workspace import Context, Scores, Workspace, no_trace

Scorer = Callable[[nn.Module, "Batch | list[Batch] | None"], dict[str, Tensor]]


class Custom(Method):
    """A user's function ``(model, batch) -> {parameter name: scores}``."""

    function: Scorer
    own_type = True

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        work.net.train(work.training)
        work.net.requires_grad_(True)
        if context.batch is not None and not isinstance(context.batch, (tuple, list)):
            context.batch = list(context.batch)  # a generator would be empty in the second pass

    def flat(self) -> Tensor:
        found = self.scores()
        # Ranks and counts carry no errors of rounding, however large they are.
        self.rounds = any(score.is_floating_point() for score in found.values())
        return self.work.flatten({name: _exact(name, score) for name, score in found.items()})

    @property
    def within(self) -> float:
        return TIES if self.rounds else 0.0

    def scores(self) -> Scores:
        # A copy each time: whatever the function does to it, the next call sees the weights.
        found = type(self).function(copy.deepcopy(self.work.net), self.context.batch)
        notes = vars(found) if isinstance(found, Scores) else {}
        return Scores(check_scores(found, self.work.views(self.work.flat)), **notes)


def check_scores(scores, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of ``scores`` for the names of ``like``; ValueError where they do not fit."""
    if not isinstance(scores, dict):
        raise TypeError(
            f"the scorer returned a {type(scores).__name__}; expected a dict of parameter name to"
            " score tensor"
        )
    checked = {}
    for name, parameter in like.items():
        score = scores.get(name)
        if score is None:
            raise ValueError(f"the scorer returned no scores for {name!r}; it needs {list(like)}")
        if not isinstance(score, Tensor) or score.shape != parameter.shape:
            raise ValueError(
                f"the scorer's {name!r} is {tuple(getattr(score, 'shape', ()))} of type"
                f" {type(score).__name__}; expected a tensor of shape {tuple(parameter.shape)}"
            )
        checked[name] = score.detach().to(parameter.device)
    return checked


def _exact(name: str, score: Tensor) -> Tensor:
    """The same numbers in a type that scores of all kinds can be compared in, float64."""
    if score.is_complex():
        raise ValueError(f"the scorer's {name!r} is {score.dtype}; expected real numbers")
    if not score.is_floating_point() and score.numel():
        low, high = (int(end) for end in score.aminmax())
        if max(abs(low), abs(high)) > 2**53:
            raise ValueError(
                f"the scorer's {name!r} holds integers from {low} to {high}; beyond 2**53 float64"
                " cannot tell them apart. Return ranks"
            )
    return score if score.device.type == "mps" else score.double()


METHODS: dict[str, type[Method]] = {
    "random": Random,
    "magnitude": Magnitude,
    "snip": Snip,
    "grasp": Grasp,
    "synflow": SynFlow,
    "signed_snip": SignedSnip,
}
"""Name -> class of every known method; `register` adds to it."""


def register(name: str, method: Scorer | type[Method], *, replace: bool = False) -> None:
    """Make a method known by name, to `score`, `prune` and everything above them.

    Args:
        name: the new name.
        method: a function ``(model, batch) -> {parameter name: scores}`` or a `Method` class.
        replace: allow a name that is taken.

    Raises:
        ValueError: the name is taken.

    >>> def random_sign(model, batch):
    ...     return {name: weight.sign() for name, weight in model.named_parameters()}
    >>> register("sign", random_sign)
    >>> score(nn.Linear(2, 1), "sign")["weight"].shape
    torch.Size([1, 2])
    >>> del METHODS["sign"]
    """
    if name in METHODS and not replace:
        raise ValueError(f"method {name!r} exists already; choose another name or replace=True")
    METHODS[name] = resolve(method)


def resolve(method: str | Scorer | type[Method]) -> type[Method]:
    """The `Method` class behind a name, a class or a function."""
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; expected one of {sorted(METHODS)}")
        return METHODS[method]
    if isinstance(method, type) and issubclass(method, Method):
        return method
    if callable(method):
        name = getattr(method, "__name__", "custom")
        return type(name, (Custom,), {"function": staticmethod(method), "__doc__": method.__doc__})
    raise TypeError(
        f"method is a {type(method).__name__}; expected one of {sorted(METHODS)} or a function"
        " (model, batch) -> {parameter name: scores}"
    )


def precision(model: nn.Module, method: type[Method], context: Context) -> torch.dtype | None:
    """The type to score in: what was asked for, else float64; None leaves it to the model.

    In float32 rounding decides which weights stay, and differs by processor. A function of the
    user's may hold float32 tensors of its own, so it sees the network as it is.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    no_float64 = any(parameter.device.type == "mps" for parameter in model.parameters())
    return context.dtype or (None if method.own_type or no_float64 else torch.float64)


def synaptic_saliency(
    objective: Callable[[Tensor, Tensor], Tensor], *, mode: str = "eval"
) -> type[Method]:
    """The method dR/dtheta * theta for your own R, the paper's synaptic saliency (equation 1).

    Args:
        objective: R, a function ``(output, y) -> scalar tensor`` of the network's output; over
            several batches it is summed.
        mode: BatchNorm with stored ("eval") or batch ("train") statistics, unless `score` or
            `prune` says otherwise.

    Returns:
        A method for `score`, `prune`, `register`.

    >>> import torch
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 3.0)
    >>> total = synaptic_saliency(lambda output, y: output.sum())
    >>> batch = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    >>> score(layer, total, batch)["weight"].tolist()
    [[3.0, 6.0]]
    """
    if not callable(objective):
        raise TypeError(f"objective is a {type(objective).__name__}; expected a function")

    def bound(self: Saliency, x: Tensor, y: Tensor) -> Tensor:
        return scalar(objective(self.output(x), y))

    return type("SynapticSaliency", (Saliency,), {"objective": bound, "mode": mode})


def score(
    model: nn.Module,
    method: str | Scorer | type[Method],
    batch: Batch | Iterable[Batch] | None = None,
    *,
    mode: str | None = None,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    input_shape: tuple[int, ...] | None = None,
    bias: bool = False,
    batch_norm: bool = False,
    keep: Iterable[str] = (),
    dtype: torch.dtype | None = None,
) -> Scores:
    """Score every prunable parameter of a network; nothing of the network changes.

    Args:
        model: any module; its weights decide, gradients are not used.
        method: ``"random"``, ``"magnitude"``, ``"snip"``, ``"grasp"``, ``"synflow"``,
            ``"signed_snip"``, a registered name, a function ``(model, batch) -> scores``, or what
            `synaptic_saliency` returns.
        batch: data for methods that need it, ``(x, y)`` or an iterable of such pairs; the others
            ignore it. Gradients add up over all of it, 256 images at a time.
        mode: BatchNorm while scoring on data: ``"train"`` (batch statistics; the default of SNIP
            and GraSP, as their authors had it) or ``"eval"`` (stored statistics).
        seed: of random scores and of dropout in train mode.
        loss: ``(output, y) -> scalar`` instead of mean cross-entropy, itself a mean over images:
            over several chunks it is weighted by their numbers of images.
        input_shape: of one input, for SynFlow on networks whose first layer does not tell it.
        bias, batch_norm, keep: which parameters are prunable (see `synflow_lib.prunable`).
        dtype: the type to compute in, and of the scores. None is float64 whatever the model's: the
            same masks on every machine. ``torch.float32`` is faster on data and takes half the
            memory. A function of your own sees the network in its own type unless this is given.

    Returns:
        Parameter name -> scores of the parameter's shape, in forward order (`Scores`, a dict).

    Raises:
        ValueError, TypeError: unknown method, no prunable layer, unfit data.

    Paper: section 4 (synaptic saliency), section 6 and equation 2 (SynFlow).

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.constant_(net[0].weight, -2.0), nn.init.constant_(net[1].weight, 5.0)
    >>> {name: scores.tolist() for name, scores in score(net, "synflow").items()}
    {'0.weight': [[10.0, 10.0]], '1.weight': [[20.0]]}
    """
    method = resolve(method)
    context = Context(batch, mode, seed, loss, input_shape, dtype)
    select = {"bias": bias, "batch_norm": batch_norm, "keep": keep}
    work = Workspace(model, precision(model, method, context), **select)
    draws = method.draws(work.net, context)
    with no_trace(work.flat.device, context.seed, draws), fixed_order():
        weights = {name: bool(view.any()) for name, view in work.views(work.flat).items()}
        bound = method(work, context)
        scores = bound.scores()
        if not issubclass(method, Custom):  # what a user's function gives is the user's
            refuse_unfit(bound, *(part.flatten() for part in scores.values()))
        warn_of_silence(scores, weights)
        return scores
