"""One image file as 8-bit pixels: what a viewer shows of it, whatever the file holds."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import numpy as np

from .dataset import DataError

if TYPE_CHECKING:
    from PIL import Image

# Formats whose suffixes Pillow knows, but of which it makes no pixels by itself.
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# What files with more than 8 bits of grey hold at white; other formats do not say.
WHITE = {"JPEG2000": 65535, "PNG": 65535, "PPM": 65535, "TIFF": 65535}
# Tags of TIFF.
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Endings of the files that Pillow opens, in lower case, with the dot.

    >>> sorted({".jfif", ".tiff", ".txt"} & picture_suffixes())
    ['.jfif', '.tiff']
    """
    from PIL import Image

    known = Image.registered_extensions()  # loads all formats; only then is Image.OPEN complete
    opened = {*Image.OPEN, "MPO"} - NO_PICTURES  # MPO is opened as the JPEG that it begins with
    return frozenset(suffix for suffix, kind in known.items() if kind in opened)


def readable_name(path: str | os.PathLike[str]) -> str:
    r"""The name of a file for messages, also where it is not UTF-8 and could not be printed.

    >>> readable_name(os.fsdecode(b"caf\xe9.png"))
    'caf\\xe9.png'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def read_picture(path: str | os.PathLike[str], size: int | None, channels: int) -> np.ndarray:
    """The pixels of an image file, as a viewer shows them.

    - Turned as the camera's note in the file (EXIF) says.
    - Transparent parts lie on **white**, as on a page; colours hidden under them do not show.
    - More than 8 bits are scaled so that white is 255.
    - CMYK, palettes and other colour models become RGB without colour management.
    - Of an animation or a file with several pages, the first picture.

    For the arguments see `image_folder`. Returns uint8, [channels, height, width].

    Raises:
        ValueError: (`DataError`) damaged, truncated, no image, more pixels than Pillow's guard
            against decompression bombs allows, or grey values whose white the file does not say.
    """
    from PIL import Image

    try:
        # Not by its name: Pillow would map a turned TIFF into memory with width and height swapped.
        with open(path, "rb") as file, Image.open(file) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ValueError(
                    f"{image.width}x{image.height} pixels are more than "
                    f"PIL.Image.MAX_IMAGE_PIXELS = {limit}; raise that if you trust the file"
                )
            image = _shown(image).convert("RGB" if channels == 3 else "L")
            if size is not None and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow lets through whatever damage leads to
        reason = str(error).encode(errors="backslashreplace").decode() or type(error).__name__
        raise DataError(
            f"{readable_name(path)} is not a readable image ({reason}). Copy it again or delete it."
        ) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _shown(image: Image.Image) -> Image.Image:
    """The picture with 8 bits, turned upright, opaque; black and white, grey or RGB."""
    from PIL import Image, ImageOps

    # Asked before loading, which forgets them.
    kind, layout, tags = image.format, str(image.tile), getattr(image, "tag_v2", {})
    image = ImageOps.exif_transpose(image)
    one_color = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image, kind, tags, one_color))
    if image.mode in ("L", "RGB") and one_color is not None and ";" in layout:
        # Of 2, 4 or 16 bits Pillow makes 8 in the pixels, but not in the transparent colour.
        raise ValueError("it has one transparent colour, of other than 8 bits; save it with 8 bits")
    if one_color is not None or image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("1", "L", "RGB") else image.convert("RGB")


def _eight_bits(image: Image.Image, kind: str, tags, transparent: int | None) -> np.ndarray:
    """uint8 [h, w] of an image with more than 8 bits of grey."""
    white = WHITE.get(kind)
    if kind == "TIFF":
        bits = tags.get(BITS_PER_SAMPLE, (16,))
        white = 2 ** bits[0] - 1 if image.mode.startswith("I;16") else None
    if white is None or image.mode == "F":
        raise ValueError(
            f"{kind} with pixels of kind {image.mode} does not say which value is white; "
            "save it with 8 bits"
        )
    values = np.asarray(image).astype(np.float64)
    grey = np.rint(values * (255 / white)).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    if transparent is not None:
        grey[values == transparent] = 255
    return grey
