"""What a method is, and those that need no data: random, magnitude, SynFlow.

A method is one small class with one job: write the scores of all prunable parameters, as one flat
tensor, from the current weights of a `Workspace`. Lowest scores are pruned first.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .batches import first_input
from .fast.borders import narrow
from .fast.compact import Compactor, Take
from .fast.fused import fused
from .fast.selection import TIES
from .flow import Pipes
from .graph import input_shape, trace
from .linear import fold_norms_, linearize_
from .normal import normal
from .rescaling import Rescaler
from .workspace import Context, Scores, Workspace, clear_errors


class Method:
    """One way of scoring, bound to a workspace. Subclasses write `flat`."""

    needs_data = False
    iterations = 1  # the paper's default
    mode = "eval"
    own_type = False  # whether it sees the network in its own type, instead of in float64
    positive = False  # whether a negative score is a sign of something not understood
    zero_scores_zero = False  # whether a weight that is zero always scores zero
    rounds = True  # whether its scores carry errors of rounding, so that ties come out uneven
    through: Tensor | None = None  # what every cut of the network carries, where that is known

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        """Whether scoring may draw from the generators that all of a process's threads share."""
        return True

    def __init__(self, work: Workspace, context: Context) -> None:
        self.work, self.context = work, context

    def flat(self) -> Tensor:
        """Scores of all prunable parameters under the current weights, shape (N,)."""
        raise NotImplementedError

    @property
    def within(self) -> float:
        """Relative distance up to which its scores tie (see `synflow_lib.fast.selection`)."""
        return TIES if self.rounds and self.work.flat.dtype == torch.float64 else 0.0

    def compact(self, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Make `flat` shorter if that is free, keeping all that is alive (see `Compactor`)."""
        return None

    def scores(self) -> Scores:
        """The same, by name, with the notes that `Scores` describes."""
        return Scores(self.work.views(self.flat()))


class Random(Method):
    """|N(0, 1)|, drawn anew at every scoring."""

    rounds = False

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        self.generator = torch.Generator().manual_seed(context.seed)

    def flat(self) -> Tensor:
        return normal(self.work.flat.numel(), self.generator).abs_().to(self.work.flat)


class Magnitude(Method):
    """|theta|."""

    rounds = False
    zero_scores_zero = True

    @classmethod
    def draws(cls, net: nn.Module, context: Context) -> bool:
        return False

    def flat(self) -> Tensor:
        return self.work.flat.abs()


class SynFlow(Method):
    """R = 1^T (prod |W|) 1: the sum over all paths of the product of their weights (section 6)."""

    iterations = 100
    positive = True
    zero_scores_zero = True

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
