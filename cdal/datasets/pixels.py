"""From an image file's bytes to pixels, as a person sees them: upright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from cdal.datasets.errors import DatasetError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
MOST_PIXELS = 80_000_000
"""Above about 90 million, Pillow itself warns of files that are made to fill the memory."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""The EXIF orientations that swap width and height."""


def decode(data: bytes, name: str = "The image") -> Tensor:
    """The pixels of an image, turned upright by EXIF, transparency over white.

    16-bit samples keep their upper 8 bits.

    Args:
        data: the file.
        name: what to call it in an error.

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        DatasetError: it is no such image, damaged, too large, or its samples have 32 bits.
    """
    with _opened(data, name) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        elif upright.mode in ("I", "F"):
            raise DatasetError(f"{name} has 32-bit samples, which have no agreed range.")
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        pixels = np.array(upright.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def upright_size(data: bytes, name: str = "The image") -> tuple[int, int]:
    """Height and width as ``decode`` makes them, from the header alone.

    Raises:
        DatasetError: as ``decode``, as far as the header shows it.
    """
    with _opened(data, name) as image:
        width, height = image.size
        sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (width, height) if sideways else (height, width)


def decode_mask(data: bytes, name: str = "The mask") -> Tensor:
    """The values of an image with one channel, (H, W) uint8; of a palette image, its indices.

    Raises:
        DatasetError: it has several channels, more than 8 bits, or is no image.
    """
    with _opened(data, name) as image:
        if image.mode not in ("L", "P", "1"):
            raise DatasetError(
                f"{name} needs one channel of at most 8 bits, with a class index for each pixel."
            )
        return torch.from_numpy(np.array(image).astype(np.uint8))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name)
            yield image
    except DatasetError:
        raise
    except Exception as error:  # what Pillow raises on damaged files is not documented
        raise DatasetError(f"{name} is damaged, or no image.") from error


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise DatasetError(f"{name} has more than {MOST_PIXELS:,} pixels.")
