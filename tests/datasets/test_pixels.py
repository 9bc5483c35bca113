from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support.drawn_files import encoded, mask, picture

from cdal.datasets import DatasetError, decode, upright_size
from cdal.datasets import pixels as module
from cdal.datasets.pixels import decode_mask


def test_pixels_by_hand() -> None:
    image = decode(picture(width=3, height=2))
    assert (image.shape, image.dtype) == ((3, 2, 3), torch.uint8)
    assert image[:, 0, 0].tolist() == [255, 0, 0]
    assert image[:, 1, 2].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("orientation", "red"),
    # The row and column of the first stored pixel of an image stored 3 wide and 2 high.
    [(1, (0, 0)), (2, (0, 2)), (3, (1, 2)), (4, (1, 0)),
     (5, (0, 0)), (6, (0, 1)), (7, (2, 1)), (8, (2, 0))],
)  # fmt: skip
def test_images_are_rotated_upright(orientation: int, red: tuple[int, int]) -> None:
    data = picture(3, 2, "PNG", orientation)
    image = decode(data)
    assert image.shape[1:] == ((3, 2) if orientation >= 5 else (2, 3))
    assert upright_size(data) == tuple(image.shape[1:])
    assert (image[0] > 128).nonzero().tolist() == [list(red)]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP"])
def test_other_formats(kind: str) -> None:
    image = decode(encoded(Image.new("RGB", (16, 8), (0, 200, 0)), kind))
    assert image.shape == (3, 8, 16)
    assert (image.float().mean((1, 2)) - torch.tensor([0.0, 200, 0])).abs().max() < 4


def test_transparency_becomes_white_and_grey_stays_grey() -> None:
    clear = encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "PNG")
    assert (decode(clear) == 255).all()
    assert (decode(encoded(Image.new("L", (2, 2), 7), "PNG")) == 7).all()


def test_16_bit_samples_keep_their_upper_bits() -> None:
    grey = Image.fromarray(np.array([[0, 255, 256], [25_600, 51_200, 65_535]], np.uint16))
    image = decode(encoded(grey, "PNG"))
    assert image[0].tolist() == [[0, 0, 1], [100, 200, 255]]
    assert (image == image[:1]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_samples_are_refused(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # TIFF has such samples; none of the supported formats does.
    monkeypatch.setattr(module, "FORMATS", ("TIFF",))
    with pytest.raises(DatasetError, match=r"^x has 32-bit samples"):
        decode(encoded(Image.new(mode, (2, 2)), "TIFF"), "x")


@pytest.mark.parametrize("data", [b"", b"hello", picture(30, 30)[:-40]])
def test_the_error_names_a_file_that_is_not_an_image(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"^x\.png is damaged or not an image"):
        decode(data, "x.png")


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 5)
    for read in (decode, upright_size, decode_mask):
        with pytest.raises(DatasetError, match=r"^x has more than 5 pixels\.$"):
            read(mask([[0, 1, 2], [3, 4, 5]]), "x")


def test_a_mask_has_the_values_of_the_file() -> None:
    assert decode_mask(mask([[0, 1], [2, 255]])).tolist() == [[0, 1], [2, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 8, 8, 8])
    palette.putpixel((1, 0), 1)
    assert decode_mask(encoded(palette, "PNG")).tolist() == [[0, 1]]
    assert decode_mask(encoded(Image.new("1", (2, 1), 1), "PNG")).tolist() == [[1, 1]]


@pytest.mark.parametrize("mode", ["RGB", "I;16", "LA"])
def test_a_mask_with_several_channels_or_16_bits_is_refused(mode: str) -> None:
    with pytest.raises(DatasetError, match="one channel of at most 8 bits"):
        decode_mask(encoded(Image.new(mode, (2, 2)), "PNG"))


def test_webp_is_not_turned_since_browsers_do_not_turn_it() -> None:
    data = picture(4, 2, "WEBP", 6)
    assert decode(data).shape == (3, 2, 4)
    assert upright_size(data) == (2, 4)
