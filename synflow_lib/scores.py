"""What a score is, what a method is, and `score`: what every weight is worth by any method.

A method is one small class with one job: write the scores of all prunable parameters, as one flat
tensor, from the current weights of a `Workspace`. Lowest scores are pruned first. The methods of
the paper are in `methods` and `synflow`, and register themselves here. The private copy that they
work on is `graphs.workspace`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from .batches import Batch, kept_for_passes
from .fast.compact import Take
from .fast.pieces import fixed_order
from .fast.selection import TIES
from .graphs.copies import private_copy
from .graphs.workspace import Context, Workspace, isolated
from .guards import refuse_unfit, warn_of_silence
from .values import instance

Scorer = Callable[[nn.Module, "Batch | list[Batch] | None"], dict[str, Tensor]]


class Scores(dict):
    """Parameter name -> score tensor of the parameter's shape; a dict, with notes beside it.

    Attributes:
        constants: scores c * dR/dc of what is not pruned but takes part in conservation: biases,
            BatchNorm's beta and running mean (its gamma and the leak by eps in train mode).
        correction: what has to be added to the scores before they are conserved; GraSP only,
            the squared gradient (see `synflow_lib.conservation`).
        log2_scale: true scores are these times ``2 ** log2_scale``. Zero, unless the true ones
            would leave the range of their type (SynFlow on very deep networks).
        of_output: whether they are derivatives of the network's own output, as of a loss.
    """

    def __init__(self, scores=(), *, constants=None, correction=None, log2_scale: int = 0) -> None:
        super().__init__(scores)
        self.constants: dict[str, Tensor] = constants or {}
        self.of_output = constants is not None
        self.correction: dict[str, Tensor] = correction or {}
        self.log2_scale = log2_scale


class Method:
    """One way of scoring, bound to a workspace.

    Subclasses write `flat`; those with notes or names of their own also `scores`.
    """

    needs_data = False
    iterations = 1  # the paper's default
    mode = "eval"
    own_type = False  # whether the network keeps the model's type, instead of float64
    nonnegative = False  # then a negative score means an operation that was not understood
    inexact = True  # whether scores carry errors of rounding, so that equal ones come out unequal
    by_paths = False  # whether it sums over paths, on which no gates, queries and keys lie
    draws_nothing = False  # whether it never draws from torch's, numpy's and Python's generators
    cut_size: Tensor | None = None  # the total score of every cut, if the method knows it

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        """Whether scoring this network may draw random numbers from those generators."""
        return not cls.draws_nothing

    def __init__(self, work: Workspace, context: Context) -> None:
        self.work, self.context = work, context

    def flat(self) -> Tensor:
        """Scores (N,) under the current weights, in a tensor that the next call may write to."""
        raise NotImplementedError

    @property
    def within(self) -> float:
        """Relative distance up to which its scores tie (see `synflow_lib.fast.selection`)."""
        return TIES if self.inexact and self.work.flat.dtype == torch.float64 else 0.0

    def compact(self, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Leave dead units out of the workspace and of `flat` (see `Compactor.shrink`), if free."""
        return None

    def scores(self) -> Scores:
        """The same, by name, with the notes that `Scores` describes."""
        return Scores(self.work.views(self.flat()))


class Custom(Method):
    """A user's function ``(model, batch) -> {parameter name: scores}``."""

    function: Scorer
    own_type = True

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        work.net.train(work.training)
        for parameter in work.net.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        context.batch = kept_for_passes(context.batch)

    def flat(self) -> Tensor:
        scores = self.scores()
        # Ranks and counts carry no errors of rounding, however large they are.
        self.inexact = any(score.is_floating_point() for score in scores.values())
        return self.work.flatten({name: comparable(name, s) for name, s in scores.items()})

    @property
    def within(self) -> float:
        return TIES if self.inexact else 0.0

    def scores(self) -> Scores:
        # A copy each time: whatever the function does to it, the next call sees the weights.
        returned = type(self).function(private_copy(self.work.net), self.context.batch)
        if not isinstance(returned, dict):
            raise TypeError(
                f"the scorer returned a {type(returned).__name__}; expected a dict of parameter"
                " name to score tensor"
            )
        scores = Scores()
        if isinstance(returned, Scores):  # with its constants, correction and log2_scale
            vars(scores).update(vars(returned))
        for name, view in self.work.views(self.work.flat).items():
            score = returned.get(name)
            if score is None:
                raise ValueError(
                    f"the scorer returned no scores for {name!r}; it needs {self.work.names}"
                )
            if not isinstance(score, Tensor) or score.shape != view.shape:
                raise ValueError(
                    f"the scorer's {name!r} is {tuple(getattr(score, 'shape', ()))} of type"
                    f" {type(score).__name__}; expected a tensor of shape {tuple(view.shape)}"
                )
            odd = score.is_complex() or score.is_meta or score.layout != torch.strided
            if odd or score.dtype in (torch.uint16, torch.uint32, torch.uint64):
                raise ValueError(
                    f"the scorer's {name!r} is {score.dtype}, {score.layout}, on {score.device};"
                    " expected a dense tensor of real numbers, or of integers with a sign"
                )
            scores[name] = score.detach().to(view.device)
        return scores


def comparable(name: str, score: Tensor) -> Tensor:
    """The same numbers in a type that scores of all kinds can be compared in, float64."""
    if not score.is_floating_point() and score.numel():
        low, high = (int(end) for end in score.aminmax())
        if max(abs(low), abs(high)) > 2**53:
            raise ValueError(
                f"the scorer's {name!r} holds integers from {low} to {high}; beyond 2**53 float64"
                " cannot tell them apart. Return ranks"
            )
    return score if score.device.type == "mps" else score.double()


METHODS: dict[str, type[Method]] = {}
"""Name -> class of every known method; `register` adds to it."""


def register(name: str, method: Scorer | type[Method], *, replace: bool = False) -> None:
    """Make a method known by name, to `score`, `prune` and everything above them.

    Args:
        name: the new name.
        method: a function ``(model, batch) -> {parameter name: scores}`` or a `Method` class.
        replace: allow a name that is taken.

    Raises:
        ValueError: the name is taken, here or by what a `Run` calls "imp" and "dense".
        TypeError: no name.

    >>> def random_sign(model, batch):
    ...     return {name: weight.sign() for name, weight in model.named_parameters()}
    >>> register("sign", random_sign)
    >>> score(nn.Linear(2, 1), "sign")["weight"].shape
    torch.Size([1, 2])
    >>> del METHODS["sign"]
    """
    if instance(name, str, "name") in ("imp", "dense"):
        raise ValueError(f"method {name!r} is a name that runs know already; choose another one")
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
    if callable(method) and not isinstance(method, type):
        name = getattr(method, "__name__", "custom")
        return type(name, (Custom,), {"function": staticmethod(method), "__doc__": method.__doc__})
    kind = (
        f"the class {method.__name__}" if isinstance(method, type) else f"a {type(method).__name__}"
    )
    raise TypeError(
        f"method is {kind}; expected one of {sorted(METHODS)}, a subclass of Method or a function"
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


@contextlib.contextmanager
def scoring(method: type[Method], work: Workspace, context: Context) -> Iterator[Method]:
    """The method on its workspace; what it does in the block leaves no trace outside."""
    draws = method.draws(work.net, context)
    with isolated(work.flat.device, context.seed, draws), fixed_order():
        yield method(work, context)


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
    weights = {name: bool(view.any()) for name, view in work.views(work.flat).items()}
    with scoring(method, work, context) as bound:
        scores = bound.scores()
        if not issubclass(method, Custom):  # what a user's function gives is the user's
            refuse_unfit(bound, *(part.flatten() for part in scores.values()))
        warn_of_silence(scores, weights)
        return scores
