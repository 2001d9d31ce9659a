"""What a weight is worth: random, magnitude, SNIP, GraSP, SynFlow, and dR/dtheta * theta for any R.

A method is one small class with one job: write the scores of all prunable parameters, as one flat
tensor, from the current weights of a `Workspace`. Lowest scores are pruned first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .batches import Batch, as_batches, check_labels
from .compact import Compactor
from .flow import Pipes, Rescaler, fold_norms_, linearize_
from .graph import input_shape
from .probes import Constants
from .workspace import Context, Scores, Workspace, clear_errors, no_trace

Scorer = Callable[[nn.Module, "Batch | list[Batch] | None"], dict[str, Tensor]]


class Method:
    """One way of scoring, bound to a workspace. Subclasses write `flat`."""

    needs_data = False
    iterations = 1  # the paper's default
    mode = "eval"

    def __init__(self, work: Workspace, context: Context) -> None:
        self.work, self.context = work, context

    def flat(self) -> Tensor:
        """Scores of all prunable parameters under the current weights, shape (N,)."""
        raise NotImplementedError

    def compact(self) -> Tensor | None:
        """Make `flat` shorter if that is free; where each entry went, or None (see `compact`)."""
        return None

    def scores(self) -> Scores:
        """The same, by name, with the notes that `Scores` describes."""
        return Scores(self.work.views(self.flat()))


class Random(Method):
    """|N(0, 1)|, drawn anew at every scoring."""

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.generator = torch.Generator(work.flat.device).manual_seed(context.seed)

    def flat(self) -> Tensor:
        flat = self.work.flat
        return torch.empty_like(flat).normal_(generator=self.generator).abs_()


class Magnitude(Method):
    """|theta|."""

    def flat(self) -> Tensor:
        return self.work.flat.abs()


class SynFlow(Method):
    """R = 1^T (prod |W|) 1: the sum over all paths of the product of their weights (section 6)."""

    iterations = 100

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        example = context.batch[0] if isinstance(context.batch, (tuple, list)) else None
        example = example[0] if isinstance(example, (tuple, list)) else example
        shape = input_shape(work.net, context.input_shape, example)
        constants = any(name.endswith("bias") for name in work.names)
        if constants:  # with constants R is not homogeneous, so only more range can help
            double = {name: view.double() for name, view in work.views(work.flat).items()}
            work.net.double()
            work.flat = work.flatten(double)
            for parameter, view in zip(
                work.parameters, work.views(work.flat).values(), strict=True
            ):
                parameter.data = view
        linearize_(work.net, constants=constants)
        folded = [] if constants else fold_norms_(work.net, keep=work.names)
        self.pipes = Pipes(work.net, names=work.names, skip=folded)
        self.rescales = self.pipes.graph is not None and not constants
        self.inflow = work.flat.new_ones(1, *shape)
        self.total = work.flat.new_zeros(())
        self.log2_scale: Tensor | int = 0
        self.compactor = Compactor.of(work, shape) if self.rescales else None
        self._bind()

    def _bind(self) -> None:
        self.out = torch.empty_like(self.work.flat)
        views = self.work.views(self.out).values()
        for parameter, view in zip(self.work.parameters, views, strict=True):
            parameter.requires_grad_(True)
            parameter.register_post_accumulate_grad_hook(_score_into(view))

    def compact(self) -> Tensor | None:
        """Leave out what is dead by the last scores; the new place of every weight, or None."""
        places = self.compactor.shrink(self.out) if self.compactor else None
        if places is not None:
            self._bind()
        return places

    def flat(self, *, shortest: bool = False) -> Tensor:
        """Scores; with ``shortest`` of the sum over the paths through the fewest weights only."""
        rescaler = Rescaler(self.pipes) if self.rescales else None
        self.out.zero_()
        with clear_errors(self.inflow.shape):
            total = self.pipes(self.inflow, rescaler, shortest=shortest)
        if total.requires_grad:
            total.backward()
        self.total, self.log2_scale = total.detach(), rescaler.log2_scale if rescaler else 0
        return self.out

    def scores(self) -> Scores:
        flat = self.flat()
        log2_scale = int(self.log2_scale)
        limits = torch.finfo(flat.dtype)
        low, high = flat[flat > 0].aminmax() if bool((flat > 0).any()) else (flat.new_ones(()),) * 2
        unscaled = torch.ldexp(torch.stack([low, high]).double(), torch.tensor(float(log2_scale)))
        if unscaled[0] >= limits.tiny and unscaled[1] <= limits.max / 2:
            flat, log2_scale = _times_power_of_two(flat, log2_scale), 0
        return Scores(self.work.views(flat.clone()), log2_scale=log2_scale)


def _score_into(view: Tensor) -> Callable[[nn.Parameter], None]:
    """A hook that turns a gradient into a score as soon as it exists, and lets go of it."""

    def hook(parameter: nn.Parameter) -> None:
        torch.mul(parameter.detach(), parameter.grad, out=view)
        parameter.grad = None

    return hook


def _times_power_of_two(tensor: Tensor, exponent: int) -> Tensor:
    half = exponent // 2  # in two steps: 2**exponent itself may be out of range
    return tensor * 2.0**half * 2.0 ** (exponent - half)


class Saliency(Method):
    """dR/dtheta * theta for a scalar R of the network's output (equation 1)."""

    needs_data = True
    absolute = False

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        if context.batch is None:
            raise ValueError(
                "this method scores on data: pass batch=(x, y), for instance"
                " dataset.scoring_batch()"
            )
        self.batches = as_batches(context.batch, work.flat.device, work.flat.dtype)
        self.images = sum(len(y) for _, y in self.batches)
        work.net.train((context.mode or self.mode) == "train")
        for parameter in work.parameters:
            parameter.requires_grad_(True)
        self.extras: list[Tensor] = []  # constants to differentiate by, only for `scores`

    def objective(self, x: Tensor, y: Tensor) -> Tensor:
        """R on one chunk; over chunks it adds up to R on all the data."""
        with clear_errors(x.shape):
            output = self.work.net(x)
        if self.context.loss is not None:
            return scalar(self.context.loss(output, y))
        check_labels(output, y)
        return nn.functional.cross_entropy(output, y, reduction="sum") / self.images

    def gradients(self) -> tuple[Tensor, list[Tensor]]:
        """Gradient of R by the prunable parameters (N,), and by the extra constants."""
        targets = self.work.parameters + self.extras
        sums = [torch.zeros_like(target) for target in targets]
        for x, y in self.batches:
            found = torch.autograd.grad(self.objective(x, y), targets, allow_unused=True)
            for total, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    total += gradient
        weights = len(self.work.parameters)
        return torch.cat([g.reshape(-1) for g in sums[:weights]]), sums[weights:]

    def flat(self) -> Tensor:
        scores = self.gradients()[0].mul_(self.work.flat)
        return scores.abs_() if self.absolute else scores

    def scores(self) -> Scores:
        with Constants(self) as constants:
            flat, extras = self.gradients()
        scores = flat.mul_(self.work.flat)
        sign = Tensor.abs if self.absolute else Tensor.clone
        return Scores(
            self.work.views(sign(scores)),
            constants={name: sign(value) for name, value in constants.scores(extras).items()},
        )


class Snip(Saliency):
    """|dL/dtheta * theta| (Lee et al. 2019)."""

    mode = "train"
    absolute = True


class SignedSnip(Saliency):
    """dL/dtheta * theta: SNIP without its absolute value."""

    mode = "train"


class Grasp(Saliency):
    """theta * (H g): twice this is what gradient flow loses without the weight (Wang et al. 2020).

    Their score is the negative and its *largest* values go; this one's smallest values go.
    """

    mode = "train"
    temperature = 200.0

    def objective(self, x: Tensor, y: Tensor) -> Tensor:
        if self.context.loss is not None:
            return super().objective(x, y)
        with clear_errors(x.shape):
            output = self.work.net(x)
        check_labels(output, y)
        return (
            nn.functional.cross_entropy(output / self.temperature, y, reduction="sum") / self.images
        )

    def hessian_gradient(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """H g and g by the prunable parameters, (N,) each, and the extras of H g."""
        flow, _ = self.gradients()
        pieces = list(self.work.views(flow).values())
        targets = self.work.parameters + self.extras
        sums = [torch.zeros_like(target) for target in targets]
        for x, y in self.batches:
            gradients = torch.autograd.grad(
                self.objective(x, y), self.work.parameters, create_graph=True, allow_unused=True
            )
            product = sum(
                (g * v).sum() for g, v in zip(gradients, pieces, strict=True) if g is not None
            )
            found = torch.autograd.grad(product, targets, allow_unused=True)
            for total, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    total += gradient
        weights = len(self.work.parameters)
        return torch.cat([h.reshape(-1) for h in sums[:weights]]), flow, sums[weights:]

    def flat(self) -> Tensor:
        return self.hessian_gradient()[0].mul_(self.work.flat)

    def scores(self) -> Scores:
        with Constants(self) as constants:
            product, flow, extras = self.hessian_gradient()
        views = self.work.views
        return Scores(
            views(product.mul_(self.work.flat)),
            constants=constants.scores(extras),
            correction=views(flow.square_()),
        )


def scalar(value) -> Tensor:
    """``value`` as a tensor of shape (), or a ValueError: what an objective must return."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError(
            f"the objective returned {getattr(value, 'shape', type(value))}; expected one number,"
            " a tensor of shape ()"
        )
    return value.reshape(())


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
        with clear_errors(x.shape):
            output = self.work.net(x)
        return scalar(objective(output, y))

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
        loss: ``(output, y) -> scalar`` instead of mean cross-entropy.
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
    with no_trace(work.flat.device, seed):
        return method(work, context).scores()
