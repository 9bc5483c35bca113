"""How image files say that they are to be turned, as far as browsers heed it."""

from __future__ import annotations

from PIL import ExifTags, Image


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation that browsers heed; 1 is upright.

    They turn JPEG by its EXIF, PNG by its eXIf chunk and AVIF by its irot and imir boxes, which
    Pillow hands over as EXIF; they do not turn WebP, nor anything by its XMP or text, which
    Pillow's own ``exif_transpose`` would. TIFF, which few browsers show, is turned by Pillow as it
    loads.
    """
    if image.format not in ("JPEG", "MPO", "PNG", "AVIF"):
        return 1
    exif = Image.Exif()
    exif.load(image.info.get("exif") or b"")
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    return orientation if isinstance(orientation, int) else 1


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
