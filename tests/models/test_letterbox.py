from __future__ import annotations

import pytest
import torch

from cdal.models.letterbox import content_size, contents, letterbox, on_grid, padded


@pytest.mark.parametrize(
    ("height", "width", "content"),
    [(480, 640, (96, 128)), (640, 480, (128, 96)), (64, 64, (128, 128)), (1, 900, (1, 128))],
)
def test_the_longer_side_fills_the_square(
    height: int, width: int, content: tuple[int, int]
) -> None:
    assert content_size(height, width, 128) == content
    image = torch.zeros((3, height, width), dtype=torch.uint8)  # black is not padding
    square = letterbox(image, 128)
    assert square.shape == (3, 128, 128)
    assert contents(square[None]) == [content]
    assert int((square > 0).sum()) == 3 * content[0] * content[1]


def test_an_image_without_padding_keeps_its_pixels() -> None:
    image = torch.randint(1, 256, (3, 64, 64), dtype=torch.uint8)
    assert torch.equal(letterbox(image, 64), image)


def test_images_of_a_batch_end_where_each_ends() -> None:
    sizes = [(30, 60), (60, 30), (60, 60)]
    batch = torch.stack(
        [letterbox(torch.full((3, *size), 7, dtype=torch.uint8), 60) for size in sizes]
    )
    assert contents(batch) == sizes


def test_a_backbone_is_shown_multiples_of_its_coarsest_stride() -> None:
    assert on_grid((1, 32)) == (32, 32)
    assert on_grid((33, 96)) == (64, 96)


def test_smaller_tensors_are_padded_below_and_to_the_right() -> None:
    joined = padded([torch.ones(1, 2, 3), torch.ones(1, 1, 1)])
    assert joined.tolist() == [[[[1, 1, 1], [1, 1, 1]]], [[[1, 0, 0], [0, 0, 0]]]]
