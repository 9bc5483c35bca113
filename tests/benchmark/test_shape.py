from __future__ import annotations

import pytest
import torch

from cdal.benchmark.shape import fitted, shape_for
from cdal.models import IGNORED


@pytest.mark.parametrize(
    ("sizes", "longer", "shape"),
    [
        ([(1024, 2048)], 1024, (512, 1024)),
        ([(720, 1280)], 1024, (576, 1024)),
        ([(2048, 1024)], 64, (64, 32)),
        ([(10, 10), (10, 20), (10, 20)], 64, (32, 64)),
        ([(1, 100)], 64, (32, 64)),
    ],
)
def test_the_aspect_ratio_is_that_of_most_images(
    sizes: list[tuple[int, int]], longer: int, shape: tuple[int, int]
) -> None:
    assert shape_for(sizes, longer) == shape


def test_an_image_of_this_shape_fills_it() -> None:
    image, mask = torch.ones(3, 36, 64, dtype=torch.uint8), torch.ones(36, 64, dtype=torch.uint8)
    pixels, labels = fitted(image, mask, (64, 128))
    assert pixels.shape == (3, 64, 128)
    assert labels.unique().tolist() == [1]


def test_a_square_image_is_not_stretched() -> None:
    image, mask = torch.ones(3, 8, 8, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.uint8)
    pixels, labels = fitted(image, mask, (32, 64))
    assert bool((labels[:, :32] == 1).all())
    assert bool((labels[:, 32:] == IGNORED).all())
    assert int(pixels[:, :, 32:].sum()) == 0
