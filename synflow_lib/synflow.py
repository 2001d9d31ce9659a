r"""SynFlow: scores from the sum over all paths, without data (section 6, equation 2, algorithm 1).

R = 1^T (prod \|W\|) 1 is what comes out of the network with the absolute values of its weights for
an input of ones; the score of a weight is theta * dR/dtheta, the share of R that flows through it.
The copy that runs has no constants and no activations (`linearize_`), every node does what
`graphs.layers` says, and powers of two keep deep networks in range (`Rescaler`).

Read `scores` and `paths` first; `fast.shortcuts` is the fast path, without which it runs as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from .batches import Inputs, first_input, inflow, is_plain
from .fast.compact import Take
from .fast.shortcuts import Shortcuts
from .graphs.layers import reached
from .graphs.network import BATCH_NORM, find_input_shape, is_bias, layer_weights, some, trace, warn
from .graphs.workspace import Context, Workspace, explained_errors
from .graphs.zeros import ones_for_zeros_
from .paths import PathSum
from .scores import METHODS, Method, Scores


class SynFlow(Method):
    """R = 1^T (prod |W|) 1: the sum over all paths of the product of their weights (section 6)."""

    iterations = 100
    nonnegative = True
    by_paths = True
    draws_nothing = True

    def __init__(self, work: Workspace, context: Context) -> None:
        super().__init__(work, context)
        shape = find_input_shape(work.net, context.input_shape, first_input(context.batch))
        self.biases = any(map(is_bias, work.names))
        if self.biases:  # then rescaling is not exact, so only a wider range can help
            _compute_in_double(work)
        self.asked = inflow(shape, work.flat.new_empty(0, device="meta"))  # for its shapes
        self._make_linear(shape)
        fast = None
        if context.fast and not self.biases and is_plain(shape):
            fast = Shortcuts(work, shape, lambda name: self.targets[name])
        parts = {"skip": fast.folded, "layer": fast.layer} if fast else {}
        self.paths = PathSum(work.net, names=work.names, biases=self.biases, **parts)
        # The shortest paths may carry a very different total, so they have powers of their own.
        self.rescaler = None if self.biases else Rescaler(self.paths)
        self.rescaler_of_shortest = None if self.biases else Rescaler(self.paths)
        self.shortcuts = fast
        self.inflow = inflow(fast.prepare(self.paths) if fast else shape, work.flat)
        self.R = work.flat.new_zeros(())  # R of the last pass of `flat`
        self._bind()

    def _make_linear(self, shape: Inputs) -> None:
        """Replace the private network by its graph, with |W| and without biases."""
        # In evaluation mode: in train mode the graph would hold dropout.
        self.work.net = linearize_(trace(self.work.net.eval(), shape), biases=self.biases)
        if opened := ones_for_zeros_(self.work.net):
            warn(
                f"{some(opened)} hold zeros only, as what is initialized to zero: SynFlow takes"
                " such a factor as one, since the structure counts and not where it starts"
            )

    def _bind(self) -> None:
        """Hook the parameters, so that the backward pass writes scores into ``out``."""
        self.out = torch.zeros_like(self.work.flat)  # zero for what the network never uses
        self.targets = self.work.views(self.out)
        for parameter, view in zip(self.work.parameters, self.targets.values(), strict=True):
            parameter.requires_grad_(True)
            parameter.register_post_accumulate_grad_hook(_score_into(view))
        self.constants = {}  # biases that stay: paths begin at them as well
        for name, parameter in self.work.net.named_parameters() if self.biases else ():
            if is_bias(name) and name not in self.targets:
                self.constants[name] = torch.zeros_like(parameter)
                parameter.requires_grad_(True)
                parameter.register_post_accumulate_grad_hook(_score_into(self.constants[name]))

    @property
    def cut_size(self) -> Tensor | None:
        """R, which every cut carries. With biases paths begin inside: the first cuts carry less.

        A weight that several layers share counts once in R and more often in its score.
        """
        return None if self.biases else self.R

    def compact(self, alive: Tensor) -> tuple[Take, Tensor] | None:
        """Leave out what is dead by the last scores."""
        smaller = self.shortcuts.shrink(self.out, alive) if self.shortcuts else None
        if smaller:
            self._bind()
        return smaller

    def flat(self) -> Tensor:
        self.R = self._flow(self.rescaler)
        if self.paths.tokens:  # learned tokens join behind the first cuts, which do not carry them
            with torch.no_grad():
                self.R = self.paths(self.inflow, self.rescaler, tokens=False)
        return self.out

    def shortest(self) -> tuple[Tensor, Tensor]:
        """Scores of the sum over the paths through the fewest weights only, and that sum."""
        usual = self.out.clone()
        self.out.zero_()  # weights of longer paths get no gradient that would overwrite it
        total = self._flow(self.rescaler_of_shortest, shortest=True)
        short = self.out.clone()
        self.out.copy_(usual)
        return short, total

    def _flow(self, rescaler: Rescaler | None, *, shortest: bool = False) -> Tensor:
        """R as the rescaler scales it; its scores go into ``out``."""

        def outflow(after: Rescaler | None = None) -> Tensor:
            return self.paths(self.inflow, after, shortest=shortest)

        with explained_errors(self.asked):
            total = rescaler.run(outflow) if rescaler else outflow()
        if rescaler and not rescaler.outflow:
            self.out.zero_()  # a gradient from behind the cut may be infinite, and times zero NaN
        elif total.requires_grad:
            total.backward()
        return total.detach()

    def scores(self) -> Scores:
        flat = self.flat()
        log2_scale = self.rescaler.log2_scale if self.rescaler else 0
        limits = torch.finfo(flat.dtype)
        low, high = flat[flat > 0].aminmax() if bool((flat > 0).any()) else (flat.new_ones(()),) * 2
        unscaled = torch.ldexp(
            torch.stack([low, high]).double(), torch.tensor(log2_scale, device=flat.device)
        )
        if unscaled[0] >= limits.tiny and unscaled[1] <= limits.max / 2:
            flat, log2_scale = _times_power_of_two(flat, log2_scale), 0
        scores = Scores(self.work.views(flat.clone()), log2_scale=log2_scale)
        scores.constants = {name: score.clone() for name, score in self.constants.items()}
        return scores


def _score_into(view: Tensor) -> Callable[[nn.Parameter], None]:
    """A hook that writes theta * gradient to ``view`` and frees the gradient."""

    def hook(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:  # a fused layer has written its scores itself
            torch.mul(parameter.detach(), parameter.grad, out=view)
            parameter.grad = None

    return hook


def _compute_in_double(work: Workspace) -> None:
    work.net.double()
    work.flat = work.flat.double()
    for parameter, view in zip(work.parameters, work.views(work.flat).values(), strict=True):
        parameter.data = view


def linearize_(net: fx.GraphModule, biases: bool = False) -> fx.GraphModule:
    """Make a traced working copy linear and non-negative, in place.

    Weights become |W|. Biases become zero (|b| with ``biases``). BatchNorm is used in
    evaluation mode with its *stored* variance, so it multiplies by |gamma| / sqrt(var + eps);
    its running mean and beta are constants and go to zero like biases: the absolute value of a
    running mean would be a bias that the network does not have. What the input does not reach
    (``softmax(alpha)``) keeps its sign: a function of constants is computed as it is.
    """
    net.eval()
    signed = _read_as_constants(net)
    with torch.no_grad():
        for module in net.modules():
            module._backward_hooks.clear()  # they are no part of the function
            module._backward_pre_hooks.clear()
            if isinstance(module, BATCH_NORM) and module.running_mean is not None:
                module.running_mean.zero_()
        for name, parameter in net.named_parameters():
            if id(parameter) not in signed:
                parameter.zero_() if is_bias(name) and not biases else parameter.abs_()
    return net


def _read_as_constants(net: fx.GraphModule) -> set[int]:
    """Ids of parameters that only constants are made of, such as alpha in softmax(alpha)."""
    modules, flows = dict(net.named_modules()), reached(net.graph)
    named = dict(net.named_parameters(remove_duplicate=False))
    weights = {id(named[name]) for name in layer_weights(net) if name in named}
    constant, flowing = set(), set()
    for node in net.graph.nodes:
        if node.op == "get_attr" and str(node.target) in named:
            constant.add(id(named[str(node.target)]))
        elif node.op == "call_module":  # maybe on both, as a recurrent layer that starts on zeros
            kind = flowing if node in flows else constant
            kind.update(map(id, modules[str(node.target)].parameters()))
    return constant - weights - flowing


class Rescaler:
    """Keeps activations near 1 by exact powers of two, and remembers their product.

    Where an activation leaves 2^-24 to 2^24 behind a weight layer, every live value is divided by
    the same power of two. The live values are a cut, so all paths, and with them all scores, are
    scaled alike: the order of the scores is that of the unscaled network while R of ResNet-1202
    would overflow float64. The powers are measured in one pass and used until R has shrunk by
    2^16, so that most passes do not wait for the device.
    """

    max_exponent, stale = 24, 2.0**-16

    def __init__(self, paths: PathSum) -> None:
        self.weighted = paths.weighted
        self.shifts: dict[fx.Node, int] = {}
        self.outflow = 0.0  # when the powers were measured; 0: not yet
        self.measuring = True

    @property
    def log2_scale(self) -> int:
        """True activations at the output are the rescaled ones times 2 to this."""
        return sum(self.shifts.values())

    def run(self, outflow: Callable[[Rescaler], Tensor]) -> Tensor:
        """``outflow(self)``, a pass with this as its ``after``; measured anew where it must be."""
        total = outflow(self)
        level = float(total.detach())
        if not self.measuring and not level > self.stale * self.outflow:
            self.measuring, self.shifts = True, {}
            total = outflow(self)
            level = float(total.detach())
        if self.measuring:
            self.measuring, self.outflow = False, level
        return total

    def __call__(self, node: fx.Node, live: dict[fx.Node, Tensor]) -> None:
        if node not in self.weighted:
            return
        if self.measuring:
            exponent = int(torch.frexp(live[node].detach().amax())[1])
            if abs(exponent) > self.max_exponent:
                self.shifts[node] = exponent
        shift = self.shifts.get(node)
        if not shift:
            return
        for key, value in live.items():
            live[key] = _times_power_of_two(value, -shift)


def _times_power_of_two(value: Any, exponent: int) -> Any:
    """A tensor, or a structure of tensors, times 2**exponent, which itself may be out of range."""

    def one(part: Any) -> Any:
        # Not the indices that a max-pooling gives beside its values.
        if isinstance(part, Tensor) and part.is_floating_point():
            for step in steps:
                part = part * 2.0**step
        return part

    half = exponent // 2
    steps = [exponent] if abs(exponent) < 100 else [half, exponent - half]
    # Nearly always a tensor; looking for tensors inside takes longer.
    return one(value) if isinstance(value, Tensor) else tree_map(one, value)


METHODS["synflow"] = SynFlow
