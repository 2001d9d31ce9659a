"""The methods beside SynFlow: random, magnitude, dR/dtheta * theta on data, any one inverted.

Read `scores` first.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from .batches import Inputs, as_batches, call, check_labels, count_of, logits_of
from .fast.unfolded import unfold_small_maps_
from .graphs.draws import draws
from .graphs.network import BATCH_NORM, along_channels, joined
from .graphs.workspace import UNFIT, Context, Workspace, explained_errors, explained_loss
from .portable_normal import normal
from .randomness import alone
from .scores import METHODS, Method, Scorer, Scores, comparable, resolve


class Random(Method):
    """|N(0, 1)|, drawn anew at every scoring."""

    inexact = False
    draws_nothing = True  # it has a generator of its own

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.generator = torch.Generator().manual_seed(context.seed)

    def flat(self) -> Tensor:
        return normal(self.work.flat.numel(), self.generator).abs_().to(self.work.flat)


class Magnitude(Method):
    """|theta|."""

    inexact = False
    draws_nothing = True

    def flat(self) -> Tensor:
        return self.work.flat.abs()


class Saliency(Method):
    """dR/dtheta * theta for a scalar R of the network's output (equation 1).

    R is the mean cross-entropy, or the ``loss`` that is given; subclasses have their own.
    """

    needs_data = True
    absolute = False
    temperature = 1.0  # divides the outputs in front of the cross-entropy

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        data = isinstance(context.batch, (tuple, list)) and context.loss is None
        return not data or draws(net, training=(context.mode or cls.mode) == "train")

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        if context.batch is None:
            raise ValueError(
                "this method scores on data: pass batch=(x, y), for instance"
                " dataset.scoring_batch()"
            )
        self.batches = as_batches(context.batch, work.flat.device, work.flat.dtype)
        self.images = sum(count_of(x) for x, _ in self.batches)
        self.loss = context.loss
        if isinstance(self.loss, nn.Module):  # its class weights go with the scores' type
            self.loss = copy.deepcopy(self.loss).to(work.flat.dtype)
        unfold_small_maps_(work.net, work.flat.dtype)
        work.net.train((context.mode or self.mode) == "train")
        for module in work.net.modules():
            if isinstance(module, BATCH_NORM):
                module.register_forward_pre_hook(_shifted)
        for parameter in work.parameters:
            parameter.requires_grad_(True)

    def output(self, x: Inputs):
        """The network's output, of a copy: some networks write into what they are given."""
        with explained_errors(x, UNFIT):
            return call(self.work.net, tree_map(Tensor.clone, x))

    def objective(self, x: Inputs, y) -> Tensor:
        """R on one chunk; over chunks it adds up to R on all the data.

        A ``loss`` is a mean over images: a chunk of fewer images counts for less.
        """
        output = self.output(x)
        if self.loss is not None:
            return _scalar(self.loss, output, y) * (count_of(x) / self.images)
        output = logits_of(output)
        check_labels(output, y)
        summed = nn.CrossEntropyLoss(reduction="sum")
        return _scalar(summed, output / self.temperature, y) / self.images

    def slopes(self, targets: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """dR by each of ``targets``, prunable parameters and constants; and `Scores.correction`."""
        sums = [torch.zeros_like(target) for target in targets]
        for x, y in self.batches:
            # In one expression: a name would keep a chunk's graph while the next one runs.
            _add(sums, torch.autograd.grad(self.objective(x, y), targets, materialize_grads=True))
        return sums, {}

    def flat(self) -> Tensor:
        slopes, _ = self.slopes(self.work.parameters)
        return self._product(self.work.flat, joined(slopes))

    def scores(self) -> Scores:
        weights = self.work.parameters
        with constants(self.work) as found:
            slopes, correction = self.slopes([*weights, *(probe for _, probe in found.values())])
        own = zip(found.items(), slopes[len(weights) :], strict=True)
        return Scores(
            self.work.views(self._product(self.work.flat, joined(slopes[: len(weights)]))),
            constants={name: self._product(value, slope) for (name, (value, _)), slope in own},
            correction=correction,
        )

    def _product(self, value: Tensor, slope: Tensor) -> Tensor:
        slope.mul_(value)
        return slope.abs_() if self.absolute else slope


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

    >>> from synflow_lib.scores import score
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 3.0)
    >>> total = synaptic_saliency(lambda output, y: output.sum())
    >>> batch = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    >>> score(layer, total, batch)["weight"].tolist()
    [[3.0, 6.0]]
    """
    if not callable(objective):
        raise TypeError(f"objective is a {type(objective).__name__}; expected a function")
    if mode not in ("train", "eval"):
        raise ValueError(f"mode={mode!r}; expected 'train' or 'eval'")

    def bound(self: Saliency, x: Inputs, y) -> Tensor:
        return _scalar(objective, self.output(x), y)

    return type("SynapticSaliency", (Saliency,), {"objective": bound, "mode": mode})


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

    def output(self, x: Inputs):
        """Attention by its plain formula: fast kernels have no second derivative."""
        with alone(), sdpa_kernel(SDPBackend.MATH):  # a switch of the whole process
            return super().output(x)

    def slopes(self, targets: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """H g by the ``targets``, from the same chunks in both passes; and g * g."""
        sums = [torch.zeros_like(target) for target in targets]
        # The gradient of a single chunk is g already: its pass serves both derivatives.
        several = len(self.batches) > 1
        g = joined(super().slopes(self.work.parameters)[0]) if several else None
        for x, y in self.batches:
            g = self._add_product(sums, targets, g, x, y)
        return sums, self.work.views(g.square_())

    def _add_product(
        self, sums: list[Tensor], targets: list[Tensor], g: Tensor | None, x: Inputs, y
    ) -> Tensor:
        """Add H g of one chunk and return g (N,): None stands for the chunk's own gradient."""
        weights, loss = self.work.parameters, self.objective(x, y)
        gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        if g is None:
            g = joined(gradient.detach() for gradient in gradients)
        parts = zip(gradients, self.work.views(g).values(), strict=True)
        total = sum((gradient * part).sum() for gradient, part in parts)
        try:
            _add(sums, torch.autograd.grad(total, targets, materialize_grads=True))
        except RuntimeError as error:
            if "aot_autograd" in str(error):
                raise ValueError(
                    "GraSP needs second derivatives, which a part compiled by torch.compile has"
                    " not; score the network before that part is compiled"
                ) from error
            what = re.search(r"derivative for aten::(\w+?)(_backward)? is not", str(error))
            if not what:
                raise
            raise ValueError(
                f"GraSP needs second derivatives, and torch has none of {what[1]}; write it out of"
                " operations that have, as hardsigmoid is relu6(x + 3) / 6, or take another method"
            ) from error
        return g


def _add(sums: list[Tensor], parts: Iterable[Tensor]) -> None:
    """Add the ``parts`` to the sums, one by one and in place."""
    for total, part in zip(sums, parts, strict=True):
        total += part


def _scalar(objective: Callable, output, y) -> Tensor:
    """What an objective returns, as a tensor of shape () with a gradient; or a ValueError."""
    with explained_loss():
        value = objective(output, y)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError(
            f"the objective returned {getattr(value, 'shape', type(value))}; expected one number,"
            " a tensor of shape ()"
        )
    if not value.requires_grad:
        raise ValueError(
            "the objective does not depend on a prunable weight by operations with a derivative:"
            " something, such as detach, no_grad or argmax, stands between them"
        )
    return value.reshape(())


def _shifted(norm: nn.Module, inputs: tuple) -> tuple | None:
    """What enters BatchNorm less its first number in each channel, where the batch has the say.

    BatchNorm does not see the shift. It makes zeros of a channel that is constant, as those of a
    pruned network may be: their mean is rounded, so that one processor gives exact zeros behind
    BatchNorm and another numbers as small as 1e-14, of which ReLU passes all gradients or none.
    """
    if not (norm.training or norm.running_mean is None) or not inputs or inputs[0].dim() < 2:
        return None
    x, *others = inputs
    first = (slice(1), slice(None), *[slice(1)] * (x.dim() - 2))
    return x - x.detach()[first], *others


@contextlib.contextmanager
def constants(work: Workspace) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Inside the block R can be differentiated by the constants that take part in conservation.

    Yields name -> (value, probe), two tensors of one shape; value * dR/dprobe is the score. Biases,
    BatchNorm's beta and its gamma with batch statistics are parameters, and their own probes. The
    stored mean is no leaf of autograd, so a shift in front of BatchNorm stands for it. With batch
    statistics a scale in the same place, "eps", measures what BatchNorm's eps lets through: zero if
    eps were zero. Where there is no gamma (affine=False), it is a scale of one behind BatchNorm.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = contextlib.ExitStack()  # takes them away again
    pruned = {id(parameter) for parameter in work.parameters}
    for name, module in work.net.named_modules():
        prefix = f"{name}." if name else ""
        norm = isinstance(module, BATCH_NORM)
        batch_statistics = norm and (module.training or module.running_mean is None)
        for kind in ["bias", "weight"] if batch_statistics else ["bias"]:
            parameter = dict(module.named_parameters(recurse=False)).get(kind)
            if parameter is not None and id(parameter) not in pruned:
                found[prefix + kind] = parameter.detach(), parameter.requires_grad_(True)
        if batch_statistics:
            one = work.flat.new_ones(module.num_features)
            scale = one.clone().requires_grad_(True)
            found[prefix + "eps"] = one, scale
            hooks.enter_context(module.register_forward_pre_hook(_before(torch.mul, scale)))
            if module.weight is None:
                gamma = one.clone().requires_grad_(True)
                found[prefix + "weight"] = one, gamma
                hooks.enter_context(module.register_forward_hook(_behind(torch.mul, gamma)))
        elif norm:
            shift = torch.zeros_like(module.running_mean).requires_grad_(True)
            found[prefix + "running_mean"] = -module.running_mean, shift
            hooks.enter_context(module.register_forward_pre_hook(_before(torch.add, shift)))
    with hooks:
        yield found


def _before(change, probe: Tensor):
    """A hook that changes a module's input by one number a channel."""
    return lambda module, args: (change(args[0], along_channels(probe, args[0])), *args[1:])


def _behind(change, probe: Tensor):
    """A hook that changes a module's output by one number a channel."""
    return lambda module, args, output: change(output, along_channels(probe, output))


class Inverted(Method):
    """Minus the scores of ``inner``; below all of them for weights that are zero already."""

    inner: type[Method]

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.method = type(self).inner(work, context)

    def flat(self) -> Tensor:
        return self._inverted(self.method.flat())

    @property
    def within(self) -> float:
        return self.method.within

    def scores(self) -> Scores:
        original = self.method.scores()
        flat = self._inverted(self.work.flatten({n: comparable(n, s) for n, s in original.items()}))
        return Scores(self.work.views(flat), log2_scale=original.log2_scale)

    def _inverted(self, flat: Tensor) -> Tensor:
        pruned = self.work.flat == 0
        flat = -flat
        if pruned.any():
            worst = flat.amin()
            # Strictly below the others, for scores of any size.
            below = worst - worst.abs() / 8 - 1e-30
            flat = flat.masked_fill(pruned, below.clamp(min=torch.finfo(flat.dtype).min))
        return flat


def inverted(method: str | Scorer | type[Method]) -> type[Method]:
    """The method that keeps what another method would prune first, and prunes what it would keep.

    Scored again and again, as SynFlow is, the order of those that are left is reversed each time;
    a weight that is zero, such as one pruned before, scores lowest and never returns.

    Args:
        method: a name, a function ``(model, batch) -> scores`` or a method class, as in `score`.

    Returns:
        A method for `score`, `prune` and `register`, with the data, the mode and the number of
        iterations of the original. Its scores are negative: Theorem 3, ``schedule="cut"``, has
        nothing to say about them.

    Raises:
        TypeError, ValueError: no such method.

    Paper: the inversion test of Frankle et al. 2021, arXiv 2009.08576.

    >>> from synflow_lib.pruning import prune
    >>> layer = torch.nn.Linear(3, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 1.0, 2.0]]))
    >>> prune(layer, inverted("magnitude"), 3)["weight"]
    tensor([[False,  True, False]])
    """
    inner = resolve(method)
    copied = ("needs_data", "iterations", "mode", "draws", "own_type", "by_paths")
    attributes = {"inner": inner, "__doc__": f"{inner.__name__}, its order reversed."}
    attributes |= {name: getattr(inner, name) for name in copied}
    return type(f"Inverted{inner.__name__}", (Inverted,), attributes)


METHODS.update(
    random=Random,
    magnitude=Magnitude,
    snip=Snip,
    grasp=Grasp,
    signed_snip=SignedSnip,
)
