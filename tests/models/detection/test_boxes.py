from __future__ import annotations

import torch

from cdal.models.detection.boxes import clipped, rescaled


def test_boxes_are_scaled_by_each_side_of_the_image() -> None:
    # From 200 wide and 100 high to 50 by 50: x by a quarter, y by a half.
    target = torch.tensor([[20.0, 10.0, 120.0, 60.0, 2.0]])
    assert rescaled(target, 100, 200, 50).tolist() == [[5, 5, 30, 30, 2]]


def test_boxes_are_clipped() -> None:
    target = torch.tensor([[-10.0, 5.0, 20.0, 70.0, 1.0]])
    assert clipped(target, 64).tolist() == [[0, 5, 20, 64, 1]]


def test_boxes_shorter_than_a_pixel_are_dropped() -> None:
    target = torch.tensor(
        [
            [10.0, 10.0, 10.9, 30.0, 0.0],  # too narrow
            [10.0, 10.0, 30.0, 10.5, 0.0],  # too flat
            [70.0, 10.0, 90.0, 30.0, 0.0],  # outside
            [63.5, 10.0, 90.0, 30.0, 0.0],  # half a pixel inside
            [30.0, 30.0, 10.0, 10.0, 0.0],  # its corners are swapped
            [10.0, 10.0, 11.0, 11.0, 3.0],
        ]
    )
    assert clipped(target, 64).tolist() == [[10, 10, 11, 11, 3]]


def test_no_boxes() -> None:
    assert rescaled(torch.zeros(0, 5), 10, 20, 64).shape == (0, 5)
