"""What the training loop drives: one masked network, or many copies of one architecture at once."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .masks import Masks
from .recipes import Recipe


@contextlib.contextmanager
def same_mode(*models: nn.Module) -> Iterator[None]:
    """Train or eval mode of the models after as it was before, also after an error."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Learner(ABC):
    """K masked copies of a network, K >= 1, that run forward and take steps together.

    Attributes:
        parameters: what the optimizer sees.
        device: where they lie.
    """

    parameters: list[Tensor]

    def __init__(self, model: nn.Module, amp: bool | None) -> None:
        like = next(model.parameters(), None)
        if like is None:
            raise ValueError(f"{type(model).__name__} has no parameters; nothing to train")
        self.device, self.dtype = like.device, like.dtype
        self.amp = self.device.type == "cuda" if amp is None else amp
        # Before Ampere bfloat16 is emulated and float16 needs its gradients scaled.
        old = self.device.type == "cuda" and torch.cuda.get_device_capability(self.device) < (8, 0)
        self.amp_dtype = torch.float16 if old else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp and old)
        self.masked: list[Tensor] = []
        self.masks: list[Tensor] = []

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """A new optimizer over all copies; elementwise, so each is optimized as if alone."""
        return recipe.build_optimizer(self.parameters)

    def forward(self, x: Tensor, *, train: bool, own: bool = False) -> Tensor:
        """Logits (K, batch, classes) for images (batch, ...); with ``own``, (K, batch, ...)."""
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp):
            return self._forward(x.to(self.dtype), train, own)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One step downhill, by gradients that are zero for pruned weights."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.masked:
            torch._foreach_mul_([parameter.grad for parameter in self.masked], self.masks)
        self.scaler.step(optimizer)
        self.scaler.update()

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Zeros where nothing stays."""
        for parameter, mask in zip(self.masked, self.masks, strict=True):
            parameter.masked_fill_(mask == 0, 0)

    def kept(self) -> list[int]:
        """How many masked weights stay, layer by layer."""
        return [int(mask.sum(dtype=torch.float64)) for mask in self.masks]

    @abstractmethod
    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor: ...

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Weights and statistics, by name."""

    def write_back(self) -> None:  # noqa: B027, only copies have something to give back
        """Give every model its trained weights and statistics."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Back to an earlier `state`, under the present masks."""
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])
        self.apply_masks()


class One(Learner):
    """A single network."""

    def __init__(
        self,
        model: nn.Module,
        masks: Sequence[Masks] | None,
        *,
        amp: bool | None = None,
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__(model, amp)
        self.model = model
        maps = any(parameter.dim() == 4 for parameter in model.parameters())
        # On a CPU measured: VGG-11 a tenth faster in bfloat16, in float32 hardly.
        self.channels_last = self.device.type == "cuda" or (maps and (self.amp or channels_last))
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if masks is not None:
            masks[0].apply_(model)
            named = dict(model.named_parameters(remove_duplicate=False))
            self.masked = [named[name] for name in masks[0]]
            # Of the layout of the weights, or the product falls back to a slow path.
            self.masks = [
                torch.empty_like(p).copy_(m)
                for p, m in zip(self.masked, masks[0].values(), strict=True)
            ]
        self.run = torch.compile(model) if compile else model

    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor:
        self.model.train(train)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.run(x[0] if own else x).unsqueeze(0)

    def state(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in self.model.state_dict().items()}


class Many(Learner):
    """Copies of one architecture with their weights stacked, run by ``vmap``."""

    def __init__(
        self, models: Sequence[nn.Module], masks: Sequence[Masks | None], *, amp: bool | None = None
    ) -> None:
        super().__init__(models[0], amp)
        shapes = [{n: t.shape for n, t in model.state_dict().items()} for model in models]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("the models differ in their parameters; expected one architecture")
        self.models = models
        for model, mask in zip(models, masks, strict=True):
            if mask is not None:
                mask.apply_(model)
        self.stacked, self.buffers = torch.func.stack_module_state(list(models))
        self.parameters = list(self.stacked.values())
        self.skeleton = copy.deepcopy(models[0]).to("meta")
        names = next((list(mask) for mask in masks if mask is not None), [])
        self.masked = [self.stacked[name] for name in names]
        self.masks = [
            torch.stack(
                [
                    torch.ones_like(parameter[0]) if mask is None else mask[name].to(parameter)
                    for mask in masks
                ]
            )
            for name, parameter in zip(names, self.masked, strict=True)
        ]

    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor:
        self.skeleton.train(train)

        def one(parameters: dict, buffers: dict, x: Tensor) -> Tensor:
            return torch.func.functional_call(self.skeleton, (parameters, buffers), (x,))

        run = torch.vmap(one, in_dims=(0, 0, 0 if own else None), randomness="different")
        return run(self.stacked, self.buffers, x)

    def state(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in (self.stacked | self.buffers).items()}

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every model its trained weights and statistics."""
        for number, model in enumerate(self.models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_(self.state()[name][number])
