"""Methods that score on data: synaptic saliency dR/dtheta * theta, SNIP, GraSP."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .batches import as_batches, check_labels
from .fast.unfolded import unfold_small_maps_
from .graph import draws
from .methods import Method
from .probes import Constants
from .workspace import Context, Scores, Workspace, clear_errors, clear_types


class Saliency(Method):
    """dR/dtheta * theta for a scalar R of the network's output (equation 1)."""

    needs_data = True
    absolute = False

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
        self.extras: list[Tensor] = []  # constants to differentiate by, only for `scores`

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
                return scalar(self.loss(output, y)) * (len(y) / self.images)
        check_labels(output, y)
        return nn.functional.cross_entropy(output, y, reduction="sum") / self.images

    def gradients(self) -> tuple[Tensor, list[Tensor]]:
        """Gradient of R by the prunable parameters (N,), and by the extra constants."""
        targets = self.work.parameters + self.extras
        sums = [torch.zeros_like(target) for target in targets]
        for x, y in self.batches:
            # No name may hold what a chunk leaves behind while the next one runs.
            _add(sums, torch.autograd.grad(self.objective(x, y), targets, allow_unused=True))
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
        if self.loss is not None:
            return super().objective(x, y)
        output = self.output(x)
        check_labels(output, y)
        return (
            nn.functional.cross_entropy(output / self.temperature, y, reduction="sum") / self.images
        )

    def hessian_gradient(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """H g and g by the prunable parameters, (N,) each, and the extras of H g."""
        sums = [torch.zeros_like(target) for target in self.work.parameters + self.extras]
        # The gradient of a single chunk is g already: its pass serves both derivatives.
        flow = self.gradients()[0] if len(self.batches) > 1 else None
        for x, y in self.batches:
            flow = self._add_product(sums, flow, x, y)
        weights = len(self.work.parameters)
        return torch.cat([h.reshape(-1) for h in sums[:weights]]), flow, sums[weights:]

    def _add_product(
        self, sums: list[Tensor], direction: Tensor | None, x: Tensor, y: Tensor
    ) -> Tensor:
        """Add H v of one chunk; the direction v, which is the chunk's own gradient if None."""
        weights, targets = self.work.parameters, self.work.parameters + self.extras
        gradients = torch.autograd.grad(
            self.objective(x, y), weights, create_graph=True, allow_unused=True
        )
        if direction is None:
            found = [torch.zeros_like(w) for w in weights]
            _add(found, tuple(None if g is None else g.detach() for g in gradients))
            direction = torch.cat([g.reshape(-1) for g in found])
        pieces = self.work.views(direction).values()
        slope = sum((g * v).sum() for g, v in zip(gradients, pieces, strict=True) if g is not None)
        _add(sums, torch.autograd.grad(slope, targets, allow_unused=True))
        return direction

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


def _add(sums: list[Tensor], found: tuple[Tensor | None, ...]) -> None:
    for total, gradient in zip(sums, found, strict=True):
        if gradient is not None:
            total += gradient


def scalar(value) -> Tensor:
    """``value`` as a tensor of shape (), or a ValueError: what an objective must return."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError(
            f"the objective returned {getattr(value, 'shape', type(value))}; expected one number,"
            " a tensor of shape ()"
        )
    return value.reshape(())
