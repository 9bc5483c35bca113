"""Labelled images as a network learns from them."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cdal.backend import dataset
from cdal.backend.dataset import LabelledImage, TaskImages
from cdal.backend.images import AllowedHosts, ImageError, ImageSource, ImageStore


def picture(width: int, height: int, grey: int = 0) -> str:
    file = BytesIO()
    Image.new("L", (width, height), grey).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


ITEMS = [
    LabelledImage(7, picture(4, 3, 10), 1),
    LabelledImage(5, "/etc/passwd", 0),
    LabelledImage(6, picture(2, 2, 20), 0),
]


@pytest.fixture
def images(tmp_path: Path) -> TaskImages:
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    return TaskImages(store, ImageSource("http://label-studio.test", dict), ITEMS)


def first_pixel(image: Tensor) -> Tensor:
    return image[:, :1, :1]


def test_an_image_and_its_class(images: TaskImages) -> None:
    assert len(images) == 3
    image, target = images[0]
    assert (tuple(image.shape), image.dtype, target) == ((3, 3, 4), torch.uint8, 1)
    assert image[0, 0].tolist() == [10] * 4


def test_one_that_cannot_be_had_says_why(images: TaskImages) -> None:
    with pytest.raises(ImageError, match="not a path that Label Studio serves files at"):
        images[1]


def test_sizes_of_those_that_can_be_read(images: TaskImages) -> None:
    assert images.sizes(3) == [(3, 4), (2, 2)]
    assert images.sizes(1) == [(3, 4)]


def test_reading_leaves_out_what_cannot_be_had_and_says_why(images: TaskImages) -> None:
    shares: list[float] = []
    readable, problems = images.read(first_pixel, shares.append)
    assert [item.task_id for item in readable.items] == [7, 6]
    assert list(problems) == [5]
    assert shares == [1 / 3, 2 / 3, 1]
    # What was prepared is kept: it is not read again.
    assert tuple(readable[0][0].shape) == (3, 1, 1)
    assert [readable[n][0].flatten().tolist() for n in (0, 1)] == [[10] * 3, [20] * 3]


def test_beyond_the_memory_limit_images_are_read_anew(
    images: TaskImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MEMORY_LIMIT", 3)  # room for one pixel of three bytes
    readable, _ = images.read(first_pixel, lambda _: None)
    assert tuple(readable[0][0].shape) == (3, 1, 1)
    assert tuple(readable[1][0].shape) == (3, 2, 2)  # as it was sent; the network prepares it


def test_where(images: TaskImages) -> None:
    some = images.where(lambda item: item.target == 0)
    assert [item.task_id for item in some.items] == [5, 6]
    assert len(images.where(lambda _: False)) == 0


def test_nothing_to_read(images: TaskImages) -> None:
    none, problems = images.where(lambda _: False).read(first_pixel, lambda _: None)
    assert (len(none), problems) == (0, {})
