"""An accelerator that is not there, to run a GPU's code paths on a machine without one.

A tensor on `DEVICE` holds CPU memory and says that it lies elsewhere; the library then takes the
ways it takes on a GPU, and every number is still computed. As on a real one

- a tensor there and a tensor on the CPU do not meet (numbers and indices may),
- ``numpy`` is refused, and what makes the CPU wait for results, such as ``.item()``, is counted.

torch's own `FakeTensorMode` computes no numbers, and its backward passes need CUDA's driver.
"""

from __future__ import annotations

import collections

import torch
from torch import Tensor
from torch.library import Library, fallthrough_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# Between devices; or by indices, which torch lets lie on the CPU.
MEETINGS = (aten._to_copy, aten.copy_, aten.index, aten.index_put, aten.index_put_)
WAITS = (
    aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.equal, aten.masked_select,
    aten._unique2,
)  # fmt: skip
HALF = "linear conv1d conv2d conv3d mm bmm addmm baddbmm matmul"  # in half precision by autocast
KEY = "AutocastPrivateUse1"


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend("pretend", backend_module=_Backend())
DEVICE = torch.device("pretend", 0)


def _half(op):
    def run(*args, **kwargs):
        keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEY))
        with torch._C._ExcludeDispatchKeyGuard(keys):
            dtype = torch.get_autocast_dtype("pretend")
            cast = lambda t: t.to(dtype) if _is_float32(t) else t  # noqa: E731
            return op(*tree_map(cast, args), **tree_map(cast, kwargs))

    return run


def _is_float32(value) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32


_autocast = Library("aten", "IMPL", KEY), Library("_", "IMPL", KEY)  # as long as this module lives
for _name in HALF.split():
    _autocast[0].impl(_name, _half(getattr(aten, _name).default))
_autocast[1].fallback(fallthrough_kernel)


class Pretend(Tensor):
    """A tensor on `DEVICE`; ``held`` is its memory."""

    @staticmethod
    def __new__(cls, held: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=DEVICE,
        )  # fmt: skip
        made.held = held
        return made

    def __init__(self, *_) -> None:
        pass

    @property
    def data(self):
        return Pretend(self.held)

    @data.setter
    def data(self, value) -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    def numpy(self, *_, **__):
        raise TypeError("can't convert pretend:0 device type tensor to numpy")

    def tolist(self):
        Machine.waits["tolist"] += 1
        return self.held.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, Pretend)]
    packet = function.overloadpacket
    away = [tensor for tensor in tensors if not isinstance(tensor, Pretend) and tensor.dim()]
    if here and away and packet not in MEETINGS:
        raise RuntimeError(
            f"{function}: expected all tensors on the same device, found pretend:0 and cpu"
            f" {[tuple(tensor.shape) for tensor in away]}"
        )
    if here and packet in WAITS:
        Machine.waits[packet.__name__] += 1
    there = bool(here)
    if kwargs.get("device") is not None:
        there = _is_pretend(kwargs["device"])
        kwargs = kwargs | {"device": torch.device("cpu") if there else kwargs["device"]}
    held = tree_map(lambda t: t.held if isinstance(t, Pretend) else t, (args, kwargs))
    out = function(*held[0], **held[1])
    if packet is aten.copy_:
        return args[0]
    if packet is aten._to_copy and not here and out is args[0]:
        out = out.clone()
    known = {id(tensor.held): tensor for tensor in here}  # what works in place

    def lie(tensor):
        if not isinstance(tensor, Tensor) or not there:
            return tensor
        return known.get(id(tensor)) if id(tensor) in known else Pretend(tensor)

    return tree_map(lie, out)


def _is_pretend(device) -> bool:
    return torch.device(device).type == "pretend"


_Generator = torch.Generator


class _CpuGenerator(torch.Generator):
    """A generator "on the device" draws on the CPU."""

    def __new__(cls, device="cpu"):
        return _Generator.__new__(_Generator, "cpu" if _is_pretend(device) else device)


class _Makers(TorchFunctionMode):
    """``torch.tensor`` and ``as_tensor`` make their tensor where no dispatch mode sees it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if function in (torch.tensor, torch.as_tensor) and device and _is_pretend(device):
            del kwargs["device"]
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


class Machine(TorchDispatchMode):
    """Within it there is such a device; ``waits`` counts how often the CPU waited for it."""

    waits: collections.Counter = collections.Counter()

    def __enter__(self):
        torch.Generator = _CpuGenerator
        self._makers = _Makers()
        self._makers.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._makers.__exit__(*error)
        torch.Generator = _Generator

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})
