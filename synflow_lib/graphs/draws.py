"""Whether a forward pass may draw random numbers."""

from __future__ import annotations

from torch import nn

from .copies import private_copy
from .nodes import calls
from .tracing import graph_of

# Layers whose forward pass draws no random numbers, in any mode: all in these files of torch, but
# four. Any other layer, of which that is not known, counts as one that draws.
_FILES = (
    "linear conv batchnorm activation pooling padding flatten normalization instancenorm"
    " pixelshuffle upsampling sparse"
)
_PLACES = {f"torch.nn.modules.{file}" for file in _FILES.split()}
_STEADY = {kind for kind in vars(nn).values() if getattr(kind, "__module__", "") in _PLACES}
_STEADY -= {nn.RReLU, nn.MultiheadAttention, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d}


def draws(net: nn.Module, training: bool) -> bool:
    """Whether a forward pass of ``net`` may draw random numbers, as dropout does in train mode."""
    shared = {id(parameter): parameter for parameter in net.parameters()}
    try:
        traced = graph_of(private_copy(net, shared).train(training))
    except Exception:  # without a graph it is not known
        return True
    modules = map(traced.get_submodule, calls(traced.graph))
    return traced.meta["drew"] or not all(
        type(module) in _STEADY
        or (not training and isinstance(module, nn.modules.dropout._DropoutNd))
        for module in modules
    )
