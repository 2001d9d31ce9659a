"""The methods beside SynFlow: random, magnitude, and dR/dtheta * theta on data: SNIP, GraSP."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .batches import as_batches, check_labels, first_input
from .constants import constants
from .fast.borders import narrow
from .fast.compact import Compactor, Take
from .fast.fused import fused
from .fast.unfolded import unfold_small_maps_
from .flow import Pipes
from .graph import draws, input_shape, trace
from .linear import fold_norms_, linearize_
from .randomness import normal
from .rescaling import Rescaler
from .scores import METHODS, Method, Scores
from .workspace import Context, Workspace, clear_errors, clear_types


class Random(Method):
    """|N(0, 1)|, drawn anew at every scoring."""

    rounds = False

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False  # it has a generator of its own

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.generator = torch.Generator().manual_seed(context.seed)

    def flat(self) -> Tensor:
        return normal(self.work.flat.numel(), self.generator).abs_().to(self.work.flat)


class Magnitude(Method):
    """|theta|."""

    rounds = False

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False

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
        self.images = sum(len(y) for _, y in self.batches)
        self.loss = context.loss
        if isinstance(self.loss, nn.Module):  # its class weights go with the scores' type
            self.loss = copy.deepcopy(self.loss).to(work.flat.dtype)
        unfold_small_maps_(work.net, work.flat.dtype)
        work.net.train((context.mode or self.mode) == "train")
        for parameter in work.parameters:
            parameter.requires_grad_(True)

    def output(self, x: Tensor) -> Tensor:
        """The network's output, of a copy: some networks write into what they are given."""
        with clear_errors(x.shape):
            return self.work.net(x.clone())

    def objective(self, x: Tensor, y: Tensor) -> Tensor:
        """R on one chunk; over chunks it adds up to R on all the data.

        A ``loss`` is a mean over images: a chunk of fewer images counts for less.
        """
        output = self.output(x)
        if self.loss is not None:
            with clear_types():
                return _scalar(self.loss(output, y)) * (len(y) / self.images)
        check_labels(output, y)
        output = output / self.temperature
        return nn.functional.cross_entropy(output, y, reduction="sum") / self.images

    def slopes(self, targets: list[Tensor]) -> list[Tensor]:
        """dR by each of ``targets``, the prunable parameters and constants of the network."""
        sums = [torch.zeros_like(target) for target in targets]
        for x, y in self.batches:
            # No name may hold what a chunk leaves behind while the next one runs.
            _add(sums, torch.autograd.grad(self.objective(x, y), targets, materialize_grads=True))
        return sums

    def flat(self) -> Tensor:
        return self._product(self.work.flat, _joined(self.slopes(self.work.parameters)))

    def scores(self) -> Scores:
        weights = self.work.parameters
        with constants(self.work) as found:
            slopes = self.slopes([*weights, *(probe for _, probe in found.values())])
        own = zip(found.items(), slopes[len(weights) :], strict=True)
        return Scores(
            self.work.views(self._product(self.work.flat, _joined(slopes[: len(weights)]))),
            constants={name: self._product(value, slope) for (name, (value, _)), slope in own},
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

    def bound(self: Saliency, x: Tensor, y: Tensor) -> Tensor:
        return _scalar(objective(self.output(x), y))

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

    def slopes(self, targets: list[Tensor]) -> list[Tensor]:
        """H g by the ``targets``, from the same chunks in both passes; ``flow`` becomes g, (N,)."""
        sums = [torch.zeros_like(target) for target in targets]
        # The gradient of a single chunk is g already: its pass serves both derivatives.
        several = len(self.batches) > 1
        self.flow = _joined(super().slopes(self.work.parameters)) if several else None
        for x, y in self.batches:
            self._add_product(sums, targets, x, y)
        return sums

    def _add_product(self, sums: list[Tensor], targets: list[Tensor], x: Tensor, y: Tensor) -> None:
        """Add H g of one chunk; where g is not known yet, it is the chunk's own gradient."""
        weights, loss = self.work.parameters, self.objective(x, y)
        found = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        if self.flow is None:
            self.flow = _joined(gradient.detach() for gradient in found)
        flow = self.work.views(self.flow).values()
        total = sum((gradient * g).sum() for gradient, g in zip(found, flow, strict=True))
        _add(sums, torch.autograd.grad(total, targets, materialize_grads=True))

    def scores(self) -> Scores:
        found = super().scores()
        found.correction = self.work.views(self.flow.square_())
        return found


class SynFlow(Method):
    """R = 1^T (prod |W|) 1: the sum over all paths of the product of their weights (section 6)."""

    iterations = 100
    positive = True

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        shape = input_shape(work.net, context.input_shape, first_input(context.batch))
        constants = any(name.endswith("bias") for name in work.names)
        if constants:  # with constants R is not homogeneous, so only more range can help
            double = {name: view.double() for name, view in work.views(work.flat).items()}
            work.net.double()
            work.flat = work.flatten(double)
            for parameter, view in zip(
                work.parameters, work.views(work.flat).values(), strict=True
            ):
                parameter.data = view
        with contextlib.suppress(ValueError):  # its own forward runs where it cannot be traced
            # Once, for all that reads the graph, in the mode that counts: it would keep dropout.
            work.net = trace(work.net.eval())
        linearize_(work.net, constants=constants)
        folded = [] if constants else fold_norms_(work.net, shape, keep=work.names)
        fast = context.fast and not constants
        on_cpu = work.flat.device.type == "cpu"  # a GPU has its own way of working in pieces
        self.modules = weight_layers(work) if fast and on_cpu else {}
        self.pipes = Pipes(
            work.net, names=work.names, skip=folded, layer=self._layer, biases=constants
        )
        rescales = self.pipes.graph is not None and not constants
        # The shortest paths may carry a very different total: powers of their own.
        self.rescalers = [Rescaler(self.pipes), Rescaler(self.pipes)] if rescales else None
        image = narrow(self.pipes, shape) if fast and rescales else shape
        self.inflow = work.flat.new_ones(1, *image)
        self.total = work.flat.new_zeros(())
        self.log2_scale = 0
        self.constants = constants
        self.compactor = Compactor.of(work, shape) if fast and rescales else None
        self._bind()

    def _layer(self, module: nn.Module) -> Callable[[Tensor], Tensor] | None:
        name = self.modules.get(module)
        return None if name is None else fused(module, lambda: self.targets[name])

    def _bind(self) -> None:
        self.out = torch.zeros_like(self.work.flat)  # zero for what the network never uses
        self.targets = self.work.views(self.out)
        for parameter, view in zip(self.work.parameters, self.targets.values(), strict=True):
            parameter.requires_grad_(True)
            parameter.register_post_accumulate_grad_hook(_score_into(view))

    @property
    def through(self) -> Tensor | None:
        """R, which every cut carries. With biases paths begin inside: the first cuts carry less.

        A weight that several layers share counts once in R and more often in its score.
        """
        return None if self.constants else self.total

    def compact(self, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Leave out what is dead by the last scores."""
        smaller = self.compactor.shrink(self.out, alive) if self.compactor else None
        if smaller:
            self._bind()
        return smaller

    def flat(self) -> Tensor:
        return self._flow(shortest=False)

    def shortest(self) -> Tensor:
        """Scores of the sum over the paths through the fewest weights only; a tensor of its own."""
        usual = self.out.clone()
        self.out.zero_()  # the longer branches get no gradient to overwrite it with
        short = self._flow(shortest=True).clone()
        self.out.copy_(usual)
        return short

    def _flow(self, *, shortest: bool) -> Tensor:
        def outflow(after: Rescaler | None = None) -> Tensor:
            return self.pipes(self.inflow, after, shortest=shortest)

        rescaler = self.rescalers[shortest] if self.rescalers else None
        with clear_errors(self.inflow.shape):
            total = rescaler.run(outflow) if rescaler else outflow()
        if total.requires_grad:
            total.backward()
        self.total, self.log2_scale = total.detach(), rescaler.log2_scale if rescaler else 0
        return self.out

    def scores(self) -> Scores:
        flat = self.flat()
        log2_scale = self.log2_scale
        limits = torch.finfo(flat.dtype)
        low, high = flat[flat > 0].aminmax() if bool((flat > 0).any()) else (flat.new_ones(()),) * 2
        unscaled = torch.ldexp(torch.stack([low, high]).double(), torch.tensor(float(log2_scale)))
        if unscaled[0] >= limits.tiny and unscaled[1] <= limits.max / 2:
            flat, log2_scale = _times_power_of_two(flat, log2_scale), 0
        return Scores(self.work.views(flat.clone()), log2_scale=log2_scale)


def weight_layers(work: Workspace) -> dict[nn.Module, str]:
    """Modules that own a prunable weight alone and run once a pass -> the weight's name."""
    named, owners = dict(work.net.named_modules()), Counter()
    for module in named.values():
        owners.update(id(p) for p in module.parameters(recurse=False))
    try:
        calls = Counter(str(n.target) for n in trace(work.net).graph.nodes if n.op == "call_module")
    except ValueError:
        return {}
    paths = {name: name.rpartition(".") for name in work.names}
    return {
        named[path]: name
        for (name, (path, _, attribute)), parameter in zip(
            paths.items(), work.parameters, strict=True
        )
        if attribute == "weight" and owners[id(parameter)] == 1 and calls[path] == 1
    }


def _score_into(view: Tensor) -> Callable[[nn.Parameter], None]:
    """A hook that turns a gradient into a score as soon as it exists, and lets go of it."""

    def hook(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:  # a fused layer has written its scores itself
            torch.mul(parameter.detach(), parameter.grad, out=view)
            parameter.grad = None

    return hook


def _times_power_of_two(tensor: Tensor, exponent: int) -> Tensor:
    half = exponent // 2  # in two steps: 2**exponent itself may be out of range
    return tensor * 2.0**half * 2.0 ** (exponent - half)


def _add(sums: list[Tensor], found: Iterable[Tensor]) -> None:
    """Add what was ``found`` to the sums, one by one and in place."""
    for total, part in zip(sums, found, strict=True):
        total += part


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """The parts as one flat tensor."""
    return torch.cat([part.reshape(-1) for part in parts])


def _scalar(value) -> Tensor:
    """``value`` as a tensor of shape (), or a ValueError: what an objective must return."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError(
            f"the objective returned {getattr(value, 'shape', type(value))}; expected one number,"
            " a tensor of shape ()"
        )
    return value.reshape(())


METHODS.update(
    random=Random,
    magnitude=Magnitude,
    snip=Snip,
    grasp=Grasp,
    synflow=SynFlow,
    signed_snip=SignedSnip,
)
