"""What a weight is worth: `score` by any method, by name, by function, or by your own R."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from .batches import Batch
from .gradients import Grasp, Saliency, SignedSnip, Snip, scalar
from .methods import Magnitude, Method, Random, SynFlow
from .pieces import fixed_order
from .workspace import Context, Scores, Workspace, no_trace

Scorer = Callable[[nn.Module, "Batch | list[Batch] | None"], dict[str, Tensor]]


class Custom(Method):
    """A user's function ``(model, batch) -> {parameter name: scores}``."""

    function: Scorer

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        work.net.train(work.training)
        work.net.requires_grad_(True)
        if context.batch is not None and not isinstance(context.batch, (tuple, list)):
            context.batch = list(context.batch)  # a generator would be empty in the second pass

    def flat(self) -> Tensor:
        # A copy each time: whatever the function does to it, the next call sees the weights.
        found = type(self).function(copy.deepcopy(self.work.net), self.context.batch)
        return self.work.flatten(check_scores(found, self.work.views(self.work.flat)))

    def scores(self) -> Scores:
        found = type(self).function(copy.deepcopy(self.work.net), self.context.batch)
        check_scores(found, self.work.views(self.work.flat))
        return found if isinstance(found, Scores) else Scores(found)


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
        score = score.detach().to(parameter.device)
        if not score.is_floating_point():
            score = score.to(parameter.dtype)
        checked[name] = score
    return checked


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
    >>> score(layer, total, batch)["weight"]
    tensor([[3., 6.]])
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

    Returns:
        Parameter name -> scores of the parameter's shape, in forward order (`Scores`, a dict).

    Raises:
        ValueError, TypeError: unknown method, no prunable layer, unfit data.

    Paper: section 4 (synaptic saliency), section 6 and equation 2 (SynFlow).

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.constant_(net[0].weight, -2.0), nn.init.constant_(net[1].weight, 5.0)
    >>> score(net, "synflow")
    {'0.weight': tensor([[10., 10.]]), '1.weight': tensor([[20.]])}
    """
    method = resolve(method)
    context = Context(batch, mode, seed, loss, input_shape)
    work = Workspace(model, bias=bias, batch_norm=batch_norm, keep=keep)
    with no_trace(work.flat.device, seed, method.draws(work.net, context)), fixed_order():
        return method(work, context).scores()
