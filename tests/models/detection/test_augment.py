from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cdal.models.detection.augment import augment_boxes, place, place_boxes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_rectangle(rows: list[list[int]], size: int = 64) -> tuple[Tensor, Tensor]:
    """A black image with a white rectangle for each row."""
    image = torch.zeros(3, size, size, dtype=torch.uint8)
    for left, top, right, bottom, _ in rows:
        image[:, top:bottom, left:right] = 255
    return image, torch.tensor(rows, dtype=torch.float32)


def bounds(image: Tensor) -> list[int]:
    """Left, top, right and bottom of the pixels above the mean of minimum and maximum."""
    bright = image.mean(0) > (image.max() + image.min()) / 2
    rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def moved(
    row: list[int], zoom: float, shift: tuple[float, float], flip: float
) -> tuple[Tensor, Tensor]:
    image, target = with_rectangle([row])
    shifts = torch.tensor(shift)
    result = place(image[None].float(), torch.tensor([zoom]), shifts[:, None], torch.tensor([flip]))
    return result[0], place_boxes(target, 64, zoom, shifts, flip)


@pytest.mark.parametrize(
    ("zoom", "shift", "flip", "expected"),
    [
        (1.0, (0.0, 0.0), 1.0, [8, 16, 24, 40]),
        (1.0, (0.0, 0.0), -1.0, [40, 16, 56, 40]),
        (1.0, (0.125, -0.25), 1.0, [16, 0, 32, 24]),
        (1.0, (0.125, 0.0), -1.0, [48, 16, 64, 40]),  # mirrored first, then shifted
        (0.5, (0.0, 0.0), 1.0, [20, 24, 28, 36]),
        (1.5, (0.25, 0.0), 1.0, [12, 8, 36, 44]),
    ],
)
def test_boxes_move_with_their_objects(
    zoom: float, shift: tuple[float, float], flip: float, expected: list[int]
) -> None:
    image, target = moved([8, 16, 24, 40, 1], zoom, shift, flip)
    assert target.tolist() == [[*expected, 1]]
    assert bounds(image) == expected


def test_random_changes_keep_boxes_on_their_objects() -> None:
    image, target = with_rectangle([[20, 24, 44, 44, 1]])
    images, targets = augment_boxes(image.expand(32, -1, -1, -1), [target] * 32, generator())
    assert images.shape == (32, 3, 64, 64)
    assert images.dtype == torch.float32
    for changed, rows in zip(images, targets, strict=True):
        assert len(rows) == 1
        assert rows[0, :4].tolist() == pytest.approx(bounds(changed), abs=1.01)


def test_each_image_changes_independently() -> None:
    image, target = with_rectangle([[20, 24, 44, 44, 1]])
    _, targets = augment_boxes(image.expand(8, -1, -1, -1), [target] * 8, generator())
    assert len({tuple(rows[0].tolist()) for rows in targets}) == 8


def test_changes_depend_on_the_generator_only() -> None:
    image, target = with_rectangle([[20, 24, 44, 44, 1]])
    batch = image.expand(4, -1, -1, -1)
    first, boxes = augment_boxes(batch, [target] * 4, generator(3))
    torch.rand(5)  # the process's own generator does not matter
    again, same = augment_boxes(batch, [target] * 4, generator(3))
    assert torch.equal(first, again)
    assert all(torch.equal(*pair) for pair in zip(boxes, same, strict=True))


def test_boxes_that_nearly_leave_the_image_are_dropped() -> None:
    # After a shift of 16 pixels to the left, 4 of 16 columns of the first remain, 8 of the second.
    target = torch.tensor([[4.0, 0.0, 20.0, 16.0, 0.0], [8.0, 20.0, 24.0, 36.0, 1.0]])
    rows = place_boxes(target, 64, 1.0, torch.tensor([-0.25, 0.0]), 1.0)
    assert rows.tolist() == [[0, 20, 8, 36, 1]]


def test_gaps_have_the_mean_colour() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 32:] = 200
    right = torch.tensor([[0.25], [0.0]])
    shifted = place(image, torch.ones(1), right, torch.ones(1))
    assert torch.allclose(shifted[:, :, :, :16], torch.tensor(100.0))


def test_an_image_without_boxes() -> None:
    image, _ = with_rectangle([])
    _, targets = augment_boxes(image[None], [torch.zeros(0, 5)], generator())
    assert [rows.shape for rows in targets] == [(0, 5)]
