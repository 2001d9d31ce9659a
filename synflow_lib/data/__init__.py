"""Data sets in memory: uint8 until they reach the device, normalized and augmented there.

`digits` needs no download. `mnist`, `fashion_mnist`, `cifar10`, `cifar100` and `tiny_imagenet` are
downloaded once into `env.data_dir()`. `image_folder` reads images of your own.
"""

from .dataset import DataError, Dataset
from .folder import image_folder
from .sources import cifar10, cifar100, digits, fashion_mnist, import_torchvision, mnist
from .tiny import tiny_imagenet

_LOADERS = (digits, mnist, fashion_mnist, cifar10, cifar100, tiny_imagenet)
_DATA_SETS = {loader.__name__: loader for loader in _LOADERS}
NAMES = tuple(_DATA_SETS)

__all__ = ["NAMES", "DataError", "Dataset", "by_name", "image_folder", "import_torchvision", *NAMES]


def by_name(name: str, size: int | None = None, channels: int | None = None) -> Dataset:
    """The data set called `name` (such as `env.settings().scoring_data`), in the shape asked for.

    Args:
        name: one of `NAMES`.
        size, channels: as in `Dataset.resized`; None keeps the data set's own.

    Raises:
        ValueError: no such data set; the error lists `NAMES`.

    >>> by_name("digits", size=32, channels=3).input_shape
    (3, 32, 32)
    """
    if name not in NAMES:
        raise ValueError(f"there is no data set {name!r}; expected one of {', '.join(NAMES)}.")
    return _DATA_SETS[name]().resized(size, channels)
