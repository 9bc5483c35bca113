from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cdal.models.segmentation.label_maps import interpolation, label_map


def by_definition(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolated logits of all classes, (C, H, W) float64."""
    return functional.interpolate(
        logits[None].double(), size=size, mode="bilinear", align_corners=False
    )[0]


class TestLabelMap:
    def test_two_pixels_by_hand(self) -> None:
        # The right pixel's weights are 0, 0, 1/3, 2/3, 1, 1; from 3/4 on, class 1 is higher.
        logits = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])
        assert label_map(logits, (1, 6)).tolist() == [[0, 0, 0, 0, 1, 1]]

    def test_a_class_can_be_highest_only_between_the_logits(self) -> None:
        logits = torch.tensor([[[10.0, 0.0]], [[9.0, 9.0]], [[0.0, 10.0]]])
        assert label_map(logits, (1, 10)).tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2, 2]]

    def test_the_first_of_equal_classes_wins(self) -> None:
        assert label_map(torch.zeros(3, 2, 2), (4, 5)).tolist() == [[0] * 5] * 4

    def test_the_maximum_number_of_classes(self) -> None:
        logits = torch.zeros(255, 2, 3)
        logits[254] = 1
        found = label_map(logits, (3, 3))
        assert found.dtype == torch.uint8
        assert found.tolist() == [[254] * 3] * 3

    @pytest.mark.parametrize("size", [(64, 64), (7, 90), (90, 7), (3, 2), (1, 1), (8, 8)])
    def test_rows_and_columns_are_not_swapped(self, size: tuple[int, int]) -> None:
        """Class 1 is at the top, class 2 at the bottom right, class 0 at the bottom left."""
        logits = torch.zeros(3, 8, 8)
        logits[1, :3] = 5
        logits[2, 3:, 5:] = 4
        logits[0, 3:, :5] = 3
        assert torch.equal(label_map(logits, size).long(), by_definition(logits, size).argmax(0))

    @settings(max_examples=60)
    @given(
        seed=st.integers(0, 10**6),
        classes=st.integers(1, 6),
        grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    )
    def test_is_the_argmax_of_interpolated_logits(
        self, seed: int, classes: int, grid: tuple[int, int], size: tuple[int, int]
    ) -> None:
        logits = torch.randn((classes, *grid), generator=torch.Generator().manual_seed(seed))
        maps = by_definition(logits, size)
        found = maps.gather(0, label_map(logits, size)[None].long())[0]
        # Rounding may choose another class with an equal logit.
        assert torch.allclose(found, maps.amax(0), atol=1e-5)


class TestInterpolation:
    def test_by_hand(self) -> None:
        matrix = interpolation(2, 4, torch.device("cpu"))
        assert matrix.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]

    def test_a_single_value(self) -> None:
        assert interpolation(1, 3, torch.device("cpu")).tolist() == [[1], [1], [1]]
