"""The paper's networks, with the paper's parameter counts, as plain `nn.Module`s.

Every network is a `nn.Sequential` of PyTorch's own layers (residual blocks are the one class of
ours), registered in the order in which they run, and can be traced by `torch.fx`. Convolutions and
Linear layers in front of a BatchNorm have no bias, all others have one. `seed=` fixes the weights
without touching torch's global generator; without it they come from that generator, so
`torch.manual_seed` fixes them: both ways give the same weights on a CPU.
"""

from torch import nn

from .build import check_choice
from .plain import conv, fc, vgg11, vgg13, vgg16, vgg19
from .resnet import (
    resnet18,
    resnet20,
    resnet50,
    resnet110,
    wide_resnet18,
    wide_resnet18_as_published,
)

_NETWORKS = {
    "fc": fc,
    "conv": conv,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "resnet20": resnet20,
    "resnet110": resnet110,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "wide_resnet18": wide_resnet18,
    "wide_resnet18_as_published": wide_resnet18_as_published,
}
NAMES = tuple(_NETWORKS)

__all__ = ["NAMES", "by_name", *NAMES]


def by_name(name: str, **arguments) -> nn.Module:
    """The network called `name`, made with `arguments`; for sweeps that name their networks.

    Raises:
        ValueError: no such network; the error lists `NAMES`.

    >>> by_name("vgg16", num_classes=100, seed=0).classifier
    Linear(in_features=512, out_features=100, bias=True)
    """
    check_choice("name", name, NAMES)
    return _NETWORKS[name](**arguments)
