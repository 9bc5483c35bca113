"""Decode image files to upright pixels, as people see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.orientation import SIDEWAYS, orientation_of, upright

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
MAX_PIXELS = 80_000_000
"""Above about 90 million pixels, Pillow itself warns of decompression bombs."""


def decode(data: bytes, name: str = "The image") -> Tensor:
    """Decode an image, turned upright where browsers do so; transparency becomes white.

    16-bit samples keep their upper 8 bits.

    Args:
        data: the bytes of the file.
        name: its name in error messages.

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        DatasetError: it is not an image, damaged, too large, or has 32-bit samples.
    """
    with _opened(data, name) as image:
        found = upright(image)
        if found.mode.startswith("I;16"):
            found = Image.fromarray((np.asarray(found) >> 8).astype(np.uint8))
        elif found.mode in ("I", "F"):
            raise DatasetError(f"{name} has 32-bit samples, whose range is not defined.")
        if found.has_transparency_data:
            found = found.convert("RGBA")
            white = Image.new("RGBA", found.size, "white")
            found = Image.alpha_composite(white, found)
        pixels = np.array(found.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def upright_size(data: bytes, name: str = "The image") -> tuple[int, int]:
    """The height and width of the upright image, read from the header alone.

    Raises:
        DatasetError: the header shows that it is not an image, damaged or too large.
    """
    with _opened(data, name) as image:
        width, height = image.size
        sideways = orientation_of(image) in SIDEWAYS
    return (width, height) if sideways else (height, width)


def decode_mask(data: bytes, name: str = "The mask") -> Tensor:
    """Decode an image with one channel, (H, W) uint8; a palette image gives palette indices.

    Raises:
        DatasetError: it has several channels or more than 8 bits, or is not an image.
    """
    with _opened(data, name) as image:
        if image.mode not in ("L", "P", "1"):
            raise DatasetError(
                f"{name} must have one channel of at most 8 bits, with a class index per pixel."
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
    except Exception as error:  # Pillow does not document what it raises for damaged files
        raise DatasetError(f"{name} is damaged or not an image.") from error


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(f"{name} has more than {MAX_PIXELS:,} pixels.")
