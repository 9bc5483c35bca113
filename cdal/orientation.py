"""How image files say that they are to be turned, as far as browsers heed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from PIL import ExifTags, Image, TiffTags
from torch import Tensor


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation that browsers heed; 1 is upright.

    They turn JPEG by its EXIF, PNG by its eXIf chunk and AVIF by its irot and imir boxes, which
    Pillow hands over as EXIF; they do not turn WebP, nor anything by its XMP or text, which
    Pillow's own ``exif_transpose`` would. TIFF, which few browsers show, is turned by Pillow as it
    loads.

    Args:
        image: not loaded yet: a PNG's eXIf behind its pixels, which browsers do not heed, would
            count otherwise.
    """
    if image.format not in ("JPEG", "MPO", "PNG", "AVIF"):
        return 1
    exif = image.info.get("exif")
    return _orientation_in(exif) if isinstance(exif, bytes) else 1


def _orientation_in(exif: bytes) -> int:
    """The orientation in a file's EXIF, read as strictly as browsers do: one 16-bit number.

    Pillow and torchvision also take numbers of other types, and the latter, of a JPEG, nothing but
    the first segment, which may be XMP.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return 1

    def number(at: int, length: int) -> int:
        return int.from_bytes(tiff[at : at + length], order)

    first = number(4, 4)
    for entry in range(first + 2, len(tiff) - 11, 12)[: number(first, 2)]:
        if number(entry, 2) == ExifTags.Base.Orientation:
            is_one_short = number(entry + 2, 2) == TiffTags.SHORT and number(entry + 4, 4) == 1
            return number(entry + 8, 2) if is_one_short else 1
    return 1


_ORDERS: Mapping[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
"""The byte order that EXIF begins with."""


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image of each EXIF orientation is turned upright."""


def upright(image: Image.Image) -> Image.Image:
    """The image turned as browsers turn it; itself where they do not."""
    turn = TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """Decoded pixels, (3, H, W), turned upright; themselves where the orientation is 1."""
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 2)
    mirrored = [dim for dim, of in ((1, _UPSIDE_DOWN), (2, _RIGHT_TO_LEFT)) if orientation in of]
    return pixels.flip(mirrored) if mirrored else pixels.contiguous()


SIDEWAYS = frozenset({5, 6, 7, 8})
"""The EXIF orientations that swap width and height."""

_UPSIDE_DOWN = frozenset({3, 4, 7, 8})
_RIGHT_TO_LEFT = frozenset({2, 3, 6, 7})
"""Those that mirror, once width and height are swapped."""
