"""Images that need no server, and some of a colour that are not near-duplicates of each other."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np
from PIL import Image


def patterned(colour: str | tuple[int, int, int], number: int) -> Image.Image:
    """An image in a colour, with a coarse pattern that the number decides."""
    draws = np.random.default_rng(number)
    coarse = Image.fromarray(draws.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pattern = coarse.resize((40, 30), Image.Resampling.NEAREST)
    return Image.blend(Image.new("RGB", (40, 30), colour), pattern, 0.4)


def as_address(image: Image.Image) -> str:
    """The image itself as its address, which needs no server."""
    file = BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
