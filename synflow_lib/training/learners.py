"""What the training loop drives: one masked network, or many copies of one architecture at once."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..batches import check_output
from ..fast.unfolded import unfolded
from ..graphs.copies import private_copy, same_beside_tensors
from ..graphs.network import first_weight, refuse_lazy
from ..masks import Masks
from ..randomness import own_random_numbers
from ..values import instance, is_bool
from .recipes import Recipe

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a number -> as integers


@contextlib.contextmanager
def gradients(*models: nn.Module) -> Iterator[None]:
    """Autograd at work in the block, also within the caller's ``no_grad`` or inference mode.

    And no autocast of the caller's, in which gradients would be rounded as well.

    Raises:
        ValueError: weights made in inference mode, which autograd refuses for good.
    """
    for model in models:
        refuse_lazy(instance(model, nn.Module, "model"))
        if any(parameter.is_inference() for parameter in model.parameters()):
            raise ValueError(
                f"the weights of {type(model).__name__} were made under torch.inference_mode and"
                " cannot be trained; make the network outside of it"
            )
    kinds = {parameter.device.type for model in models for parameter in model.parameters()}
    with contextlib.ExitStack() as off, torch.inference_mode(False), torch.enable_grad():
        for kind in kinds - {"meta"}:
            off.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def same_mode(model: nn.Module) -> Iterator[None]:
    """Train or eval mode of all modules after as it was before, also after an error."""
    modes = {module: module.training for module in instance(model, nn.Module, "model").modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def apply_masks(model: nn.Module, masks: Masks | None) -> dict[str, Tensor]:
    """Write the zeros of the masks; the masks by the model's names, on its device.

    Those of a tied weight are one, under its first name.
    """
    found: dict[str, Tensor] = {}
    if masks is not None:
        instance(masks, Masks, "masks").apply_(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for name, parameter in masks.parameters_of(model):
            mask, first = masks[name].to(parameter.device), names[id(parameter)]
            found[first] = mask & found.get(first, True)
    return found


class Learner(ABC):
    """K masked copies of a network, K >= 1, that run forward and take steps together.

    Attributes:
        copies: K.
        parameters: what the optimizer sees.
        masked: pairs of a parameter and the `_bits` of its mask.
        device: where they lie.
        kind: a digest of all that makes an architecture.
    """

    parameters: list[Tensor]

    def __init__(self, model: nn.Module, amp: bool | None, copies: int = 1) -> None:
        self.name, self.copies = type(model).__name__, copies
        like = first_weight(model)
        self.kind = hashlib.sha256(repr(_kind(model)).encode()).hexdigest()[:16]
        self.masked: list[tuple[Tensor, Tensor]] = []
        self.device, self.dtype = like.device, like.dtype
        if amp is not None and not is_bool(amp):
            raise ValueError(f"amp={amp!r}; expected True, False or None")
        self.amp = self.device.type == "cuda" if amp is None else bool(amp)
        # Before Ampere bfloat16 is emulated and float16 needs its gradients scaled.
        old = self.device.type == "cuda" and torch.cuda.get_device_capability(self.device) < (8, 0)
        self.amp_dtype = torch.float16 if old else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp and old)
        self.full: dict[Tensor, Tensor] = {}  # parameter in half precision -> float32 for it

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """A new optimizer over all copies; elementwise, so each is optimized as if alone.

        Weights in half precision are stepped as copies in float32, and rounded after each step: a
        step below the last bit would be lost (bfloat16, 15 epochs at rate 0.001: 74 for 86
        percent), and Adam's squares are below the smallest float16.
        """
        if not any(p.requires_grad for p in self.parameters):
            raise ValueError(
                f"{self.name} has no parameter that requires a gradient; nothing to train"
            )
        self.full = {p: p.detach().float() for p in self.parameters if p.element_size() < 4}
        return recipe.build_optimizer([self.full.get(p, p) for p in self.parameters])

    def mixed_precision(self) -> torch.autocast:
        """What the forward pass runs in.

        Within another autocast torch would keep the weights that it has cast, also after a step.
        """
        kind = self.device.type
        return torch.autocast(kind, self.amp_dtype, enabled=self.amp, cache_enabled=False)

    def forward(self, x: Tensor, *, train: bool, own: bool = False) -> Tensor:
        """Logits (K, batch, classes) for images (batch, ...); with ``own``, (K, batch, ...)."""
        with self.mixed_precision():
            logits = self._forward(x.to(self.dtype), train, own)
        images = x.shape[int(own)]
        if logits.dim() != 3 or logits.shape[1] != images:
            raise ValueError(
                f"the output of {self.name} has shape {tuple(logits.shape[1:])}; expected logits"
                f" (batch, classes), and the batch is of {images} images"
            )
        return logits

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One step downhill, by gradients that are zero for pruned weights."""
        for parameter in self.parameters:
            parameter.grad = None
        if not loss.requires_grad:
            raise ValueError(
                f"the output of {self.name} depends on nothing that requires a gradient; nothing"
                " to train"
            )
        self.scaler.scale(loss).backward()
        for parameter, bits in self.masked:
            if parameter.grad is not None:  # frozen, or not used by the forward pass
                _clear(parameter.grad, bits)
        for parameter, full in self.full.items():
            full.grad = None if parameter.grad is None else parameter.grad.float()
        self.scaler.step(optimizer)
        self.scaler.update()
        for parameter, full in self.full.items():
            parameter.detach().copy_(full)

    def apply_masks(self, optimizer: torch.optim.Optimizer) -> None:
        """Zeros where nothing stays: in weights, and in what the optimizer remembers of them."""
        for parameter, bits in self.masked:
            stepped = self.full.get(parameter, parameter)
            for tensor in (parameter, stepped, *optimizer.state.get(stepped, {}).values()):
                if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                    _clear(tensor, bits)

    def finite(self) -> list[bool]:
        """For each copy whether all that it trains is finite."""
        found = torch.ones(self.copies, dtype=torch.bool, device=self.device)
        for p in self.parameters:
            if p.requires_grad:
                found &= p.isfinite().reshape(self.copies, p.numel() // self.copies).all(1)
        return found.tolist()

    @abstractmethod
    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor: ...

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Weights and statistics, by name."""

    def state(self) -> dict[str, Tensor]:
        """Weights and statistics, by name, and what stands for weights in half precision."""
        full = {f"float32 {number}": t for number, t in enumerate(self.full.values())}
        return {name: tensor.detach() for name, tensor in (self._tensors() | full).items()}

    def check_copies(self, x: Tensor, found: Tensor) -> None:  # noqa: B027, one has no company
        """Whether the copies say of images ``x`` what their models say, ``found``."""

    def write_back(self) -> None:  # noqa: B027, only copies have something to give back
        """Give every model its trained weights and statistics."""

    @torch.no_grad()
    def read_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over what a callback wrote into the weights, except where nothing stays."""
        for parameter, full in self.full.items():
            written = full.to(parameter.dtype) != parameter
            full.copy_(torch.where(written, parameter.float(), full))
        if optimizer.state and optimizer.defaults.get("momentum"):
            for parameter in self.parameters:  # torch's fused SGD wants none or all to have one
                stepped = self.full.get(parameter, parameter)
                optimizer.state[stepped].setdefault("momentum_buffer", torch.zeros_like(stepped))
        self.apply_masks(optimizer)

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Back to an earlier `state`, under the present masks, with what ``optimizer`` remembers.

        Memories may be those of a denser network: momentum would move pruned weights again.
        """
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.apply_masks(optimizer)


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
        self.parameters = list(model.parameters())  # a callback may thaw those that are frozen
        self.own = [(id(p), p.dtype) for p in self.parameters]
        for name, mask in apply_masks(model, masks and masks[0]).items():
            parameter = model.get_parameter(name)
            self.masked.append((parameter, _bits(mask, parameter)))
        self.run = torch.compile(model) if compile else model

    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor:
        self.model.train(train)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        half = self.amp_dtype if self.amp and self.run is self.model else torch.float32
        with unfolded(self.model, half):
            return check_output(self.run(x[0] if own else x)).unsqueeze(0)

    def read_back(self, optimizer: torch.optim.Optimizer) -> None:
        if [(id(p), p.dtype) for p in self.model.parameters()] != self.own:
            raise ValueError(
                f"after_epoch replaced parameters of {self.name} or changed their type,"
                " which the optimizer would not see; write into them instead (parameter.data.copy_)"
            )
        super().read_back(optimizer)

    def _tensors(self) -> dict[str, Tensor]:
        return tensors_of(self.model)


class Many(Learner):
    """Copies of one architecture with their weights stacked, run by ``vmap``."""

    def __init__(
        self, models: Sequence[nn.Module], masks: Sequence[Masks | None], *, amp: bool | None = None
    ) -> None:
        super().__init__(models[0], amp, len(models))
        kind = _kind(models[0])
        if any(_kind(model) != kind for model in models):
            raise ValueError(
                "the models differ in their layers, their parameters or in which of those are"
                " frozen; expected one architecture"
            )
        for name, part in [p for m in models for p in (*m.named_parameters(), *m.named_modules())]:
            after = getattr(part, "_post_accumulate_grad_hooks", None)
            hooked = part._backward_hooks or getattr(part, "_backward_pre_hooks", None) or after
            if hooked or getattr(part, "momentum", 0) is None:
                hook = "a hook of the backward, which does not run"
                average = "momentum=None, whose average needs a count that cannot be read"
                raise ValueError(
                    f"{name or type(part).__name__} has {hook if hooked else average} where copies"
                    " are trained together; change it, or train the models one by one"
                )
        owners: dict[int, int] = {}
        for number, model in enumerate(models):
            for tensor in {*model.parameters(), *model.buffers()}:
                if owners.setdefault(id(tensor), number) != number:
                    raise ValueError(
                        f"models {owners[id(tensor)]} and {number} share a tensor; expected"
                        " networks of their own, such as copy.deepcopy gives"
                    )
        self.models = models
        kept = [apply_masks(*each) for each in zip(models, masks, strict=True)]
        self.stacked, self.buffers = torch.func.stack_module_state(list(models))
        self.parameters = [p for p in self.stacked.values() if p.requires_grad]
        self.skeleton = private_copy(models[0]).to("meta")
        if self.amp and self.device.type == "cpu":
            # torch normalizes there no matrix in bfloat16 with statistics in float32.
            for module in self.skeleton.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        # Weights that are tied in the models are not tied any more there.
        first = {id(parameter): name for name, parameter in models[0].named_parameters()}
        names = [name for name, _ in self.skeleton.named_parameters()]
        self.names = {name: first[id(models[0].get_parameter(name))] for name in names}
        for name, stack in self.stacked.items():
            if any(name in each for each in kept):  # the others keep this layer dense
                dense = torch.ones_like(stack[0], dtype=torch.bool)
                mask = torch.stack([each.get(name, dense) for each in kept])
                self.masked.append((stack, _bits(mask, stack)))

    def _forward(self, x: Tensor, train: bool, own: bool) -> Tensor:
        self.skeleton.train(train)

        def one(stacked: dict, buffers: dict, x: Tensor) -> Tensor:
            tensors = {name: stacked[source] for name, source in self.names.items()} | buffers
            return check_output(torch.func.functional_call(self.skeleton, tensors, (x,)))

        if not own and x.dim() == 4:  # by strides of another order some layers ask what vmap lacks
            x = x.clone(memory_format=torch.contiguous_format)
        run = torch.vmap(one, in_dims=(0, 0, 0 if own else None), randomness="different")
        return run(self.stacked, self.buffers, x)

    def _tensors(self) -> dict[str, Tensor]:
        return self.stacked | self.buffers

    @torch.no_grad()
    def check_copies(self, x: Tensor, found: Tensor) -> None:
        """ValueError where more than parameters and buffers tells the models apart."""
        room = 0.01 * float(found.abs().nan_to_num(0, 0, 0).max())  # mixed precision rounds
        for number, (model, mine) in enumerate(zip(self.models, found, strict=True)):
            with same_mode(model), self.mixed_precision():
                own = model.eval()(x.clone().to(self.dtype))
            if not torch.allclose(own.float(), mine.float(), 0.01, room, equal_nan=True):
                raise ValueError(
                    f"model {number} computes something else than the first one with its weights:"
                    " they differ in an attribute that is no parameter and no buffer. Make it a"
                    " buffer (register_buffer), or train the models one by one"
                )
        twin = private_copy(self.models[0])
        for number, model in enumerate(self.models[1:], 1):
            if same_beside_tensors(self.models[0], model):
                continue
            twin.load_state_dict(model.state_dict())
            pair = (twin, private_copy(model))
            own, mine = (_in_training(one, x.to(self.dtype)) for one in pair)
            if not torch.allclose(own, mine, 1e-3, room, equal_nan=True):
                raise ValueError(
                    f"model {number} trains as something else than the first one with its weights:"
                    " they differ in what is no parameter and no buffer, such as an attribute, a"
                    " hook or what train() sets. Train the models one by one"
                )

    @torch.no_grad()
    def write_back(self) -> None:
        trained = self._tensors()
        for number, model in enumerate(self.models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_(trained[name][number])


def _in_training(model: nn.Module, x: Tensor) -> Tensor:
    with own_random_numbers(0):
        return check_output(model.train()(x.clone())).float()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network, without what modules keep there besides (``get_extra_state``)."""
    return {name: t for name, t in model.state_dict().items() if isinstance(t, Tensor)}


def _kind(model: nn.Module) -> tuple:
    shapes = {name: (t.shape, t.dtype) for name, t in tensors_of(model).items()}
    return repr(model), shapes, [parameter.requires_grad for parameter in model.parameters()]


def _bits(mask: Tensor, like: Tensor) -> Tensor:
    """All bits set where ``mask`` is True, none elsewhere; of the layout and size of ``like``."""
    return torch.empty_like(like, dtype=_BITS[like.element_size()]).copy_(mask).neg_()


def _clear(tensor: Tensor, bits: Tensor) -> None:
    """Zeros where no bit is set.

    A product would be NaN where the tensor is infinite or NaN; ``torch.where`` takes four times as
    long on a CPU, ``masked_fill_`` longer still.
    """
    bits = bits.to(_BITS[tensor.element_size()])  # -1 has all bits set at any size
    tensor.detach().view(bits.dtype).bitwise_and_(bits)
