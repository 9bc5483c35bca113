"""What heads of dense tasks have in common."""

from __future__ import annotations

import pytest
import torch

from cdal.models.dense_head import Standardise, inside, mirrored, no_finer
from cdal.models.features import ImageFeatures


def test_training_images_are_standardised() -> None:
    maps = [torch.randn(3, 4, 5) * 7 + 2, torch.randn(3, 1, 2)]
    layer = Standardise(3)
    layer.measure(maps)
    places = torch.cat([layer(level).flatten(1) for level in maps], 1)
    assert places.mean(1).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert places.std(1, correction=0).tolist() == pytest.approx([1] * 3, abs=1e-5)


def test_a_channel_that_never_changes() -> None:
    layer = Standardise(1)
    layer.measure([torch.full((1, 2, 2), 3.0)])
    assert layer(torch.full((1, 2, 2), 3.0)).tolist() == [[[0, 0], [0, 0]]]


def test_finer_maps_are_averaged() -> None:
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    assert no_finer(maps, (2, 2)).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert no_finer(maps, (4, 4)) is maps
    assert no_finer(maps, (8, 8)) is maps


@pytest.mark.parametrize(
    ("content", "stride", "shape"),
    [
        ((64, 96), 8, (8, 12)),
        ((50, 70), 8, (7, 9)),  # of 64 by 96
        ((50, 70), 32, (2, 3)),
        ((1, 96), 16, (1, 6)),
    ],
)
def test_padding_is_cut_off(content: tuple[int, int], stride: int, shape: tuple[int, int]) -> None:
    grid = torch.zeros(2, 64 // stride, 96 // stride)
    if content[0] == 1:
        grid = grid[:, : 32 // stride]
    assert inside(grid, content).shape == (2, *shape)


def test_features_are_mirrored_from_left_to_right() -> None:
    image = ImageFeatures((torch.tensor([[[1.0, 2, 3]]]),), (8, 24))
    assert mirrored(image, flip=True).maps[0].tolist() == [[[3, 2, 1]]]
    assert mirrored(image, flip=False) is image
