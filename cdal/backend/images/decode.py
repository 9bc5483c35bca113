"""Decoding image files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.transforms.v2.functional import pil_to_tensor

from cdal.backend.errors import ImageError
from cdal.orientation import orientation_of, turned, upright

# What browsers show in Label Studio, and TIFF. Pillow knows more formats, but each is more code
# that hostile bytes would reach.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_JPEG = b"\xff\xd8\xff"

_BAND_PIXELS = 2**21

# Measured, see measurements/decoding.py. WebP takes the most.
_BYTES_PER_PIXEL = {"JPEG": 4, "PNG": 12, "GIF": 12, "BMP": 12, "TIFF": 12}
_MOST_BYTES_PER_PIXEL = 18
_BYTES_PER_PIXEL_OF_SCANS = 12  # of a JPEG whose coefficients are kept until its last scan
_BYTES_PER_PIXEL_TO_TURN = 4  # besides, for a turned copy

_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # TIFF's tags

_START_OF_FRAME = (0xC0, 0xC1)
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_START_OF_SCAN = 0xDA


def inspect(data: bytes, max_pixels: int) -> None:
    """Check from its header, without decoding, that a file is an image and not too large.

    Raises:
        ImageError: it is empty, not an image, or has more pixels than allowed.
    """
    with _open(data) as image:
        width, height = image.size
        tile_width, tile_height = _tile(image)
    if width * height > max_pixels:
        raise ImageError(
            f"The image has {width:,} x {height:,} pixels; at most {max_pixels:,} are allowed."
        )
    if tile_width * tile_height > max_pixels:
        raise ImageError(
            f"The image has tiles of {tile_width:,} x {tile_height:,} pixels; at most "
            f"{max_pixels:,} are allowed."
        )


def memory_to_decode(data: bytes) -> int | None:
    """Bytes of memory that `decode` takes at most for a file, by its header.

    None if the header does not tell: an AVIF of few pixels may hold frames of many, which are
    decoded before they are cut.

    Raises:
        ImageError: it is not an image.
    """
    with _open(data) as image:
        width, height = image.size
        tile_width, tile_height = _tile(image)
        is_turned = orientation_of(image) != 1
    if image.format == "AVIF":
        return None
    per_pixel = _BYTES_PER_PIXEL.get(image.format or "", _MOST_BYTES_PER_PIXEL)
    if image.format == "JPEG" and not _is_in_one_scan(data):
        per_pixel = _BYTES_PER_PIXEL_OF_SCANS
    if is_turned:
        per_pixel += _BYTES_PER_PIXEL_TO_TURN
    return (width * height + tile_width * tile_height) * per_pixel


def _tile(image: Image.Image) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, each of which is decoded whole; 0 without any."""
    if not isinstance(image, TiffImageFile):
        return 0, 0
    sides = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    width, height = (side if isinstance(side, int) else 0 for side in sides)
    return width, height


def _is_in_one_scan(data: bytes) -> bool:
    """Whether a JPEG can be decoded row by row; otherwise all of its coefficients are kept.

    False, too, where its header is unusual.
    """
    at, components = 2, 0
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _START_OF_FRAME:
            components = data[at + 9]
        if marker == _START_OF_SCAN:
            return data[at + 4] == components
        if marker in _PROGRESSIVE or marker == 0xFF:
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


def decode(data: bytes) -> Tensor:
    """Decode an image that `inspect` has passed.

    What a person sees in Label Studio is what the network sees: turned upright where browsers do
    so, the first frame of an animation, transparency over white. 16-bit samples keep their upper 8
    bits.

    JPEG, the bulk of all photographs, is decoded by torchvision in a quarter to a half of Pillow's
    time. The rest goes through Pillow: torchvision's PNG decoder crashes the process on some
    damaged files, its GIF decoder decodes every frame, all of them drop transparency rather than
    blend it, and it has no BMP or TIFF.

    Returns:
        uint8 (3, H, W), RGB.

    Raises:
        ImageError: it is damaged or of a kind that has no RGB meaning.
    """
    try:
        with _open(data) as image:
            if data.startswith(_JPEG):
                return _by_torchvision(data, orientation_of(image))
            return _by_pillow(image)
    except ImageError:
        raise
    except Exception as error:  # what the decoders raise on damaged files is not documented
        raise ImageError("The image is damaged or incomplete.") from error


def decode_small(data: bytes, side: int) -> Tensor:
    """Decode an image for a picture whose longer side is this many pixels.

    A large JPEG is decoded at a half, a quarter or an eighth of its size, in a fraction of the time
    and memory. Other images are as `decode` returns them.

    Returns:
        uint8 (3, H, W), RGB.

    Raises:
        ImageError: as for `decode`.
    """
    if not data.startswith(_JPEG):
        return decode(data)
    with _open(data) as image:
        # Twice the size leaves enough detail to be reduced well.
        image.draft("RGB", (2 * side, 2 * side))
        try:
            pixels: Tensor = pil_to_tensor(upright(image).convert("RGB"))
        except Exception as error:  # as in decode
            raise ImageError("The image is damaged or incomplete.") from error
    return pixels


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("The image is empty: it has zero bytes.")
    try:
        return Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(_what_else(data)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("The image has too many pixels.") from error
    except Exception as error:  # as in decode
        raise ImageError("The image is damaged: its header cannot be read.") from error


def _what_else(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "The address returns a web page, perhaps a login page, instead of an image."
    if b"<svg" in start:
        return "The image is an SVG drawing, which has no pixels."
    known = ", ".join(_FORMATS)
    return f"The file is not an image in a supported format ({known})."


def _by_torchvision(data: bytes, orientation: int) -> Tensor:
    # A bytearray, since torch shares memory only with what can be written.
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    # The operator below torchvision.io.decode_image, which since 0.29 warns at each call that
    # image decoding is moving to TorchCodec.
    # It does not turn the image, since it looks for EXIF in the first segment alone.
    image: Tensor = torch.ops.image.decode_image(encoded, ImageReadMode.RGB.value, False)
    return turned(image, orientation)


def _by_pillow(image: Image.Image) -> Tensor:
    image = upright(image)
    image.load()  # this turns a TIFF, and so changes its size
    width, height = image.size
    pixels = torch.empty((3, height, width), dtype=torch.uint8)
    # Band by band: several copies of a whole image would take twice its memory or more.
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        pixels[:, top:below] = _rgb(image.crop((0, top, width, below)))
    return pixels


def _rgb(image: Image.Image) -> Tensor:
    """An image, or a part of one, as uint8 (3, H, W)."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ImageError("The image has 32-bit samples, which have no agreed range.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    pixels: Tensor = pil_to_tensor(image.convert("RGB"))
    return pixels
