from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cdal.models.detection.metrics import (
    PrecisionMeter,
    box_confusion,
    mean_over_classes,
    resampled_precision,
    turned_precision,
)
from cdal.models.errors import ModelError, Stopped


def found(rows: list[list[float]]) -> dict[str, Tensor]:
    """The found boxes of an image, from rows of left, top, right, bottom, class and score."""
    table = torch.tensor(rows).view(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]}


def test_rotated_boxes_are_compared_as_such() -> None:
    """One bar is found in its direction, and one in the other, whose spread is the same."""
    bars = torch.tensor([[0.0, 0, 40, 40, 0, 1.5], [50.0, 50, 90, 90, 0, 1.5]])
    found = {
        "boxes": bars[:, :4],
        "labels": torch.tensor([0, 0]),
        "scores": torch.tensor([0.9, 0.8]),
        "tilts": torch.tensor([1.5, -1.5]),
    }
    precision = turned_precision([found], [bars], 1)
    # Found at recalls up to a half: 51 of 101.
    assert precision.at_50 == pytest.approx((51 / 101,))
    assert precision.at_all == pytest.approx((51 / 101,))
    assert resampled_precision([found], [bars], 1, [[1]]) == pytest.approx([51 / 101])
    right = {**found, "tilts": bars[:, 5]}
    assert turned_precision([right], [bars], 1).at_all == pytest.approx((1.0,))
    # A class without objects has no precision.
    assert turned_precision([right], [bars], 2).at_50 == (pytest.approx(1.0), None)
    # A detector of upright boxes finds neither.
    upright = {name: value for name, value in right.items() if name != "tilts"}
    assert turned_precision([upright], [bars], 1).at_50 == (0.0,)


def test_one_box_found_and_one_missed() -> None:
    meter = PrecisionMeter(3)
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0], [20.0, 20.0, 40.0, 40.0, 1.0]])
    meter.update([found([[0, 0, 10, 10, 0, 0.9]])], [truth])
    precision = meter.compute()
    assert list(precision.at_50) == [pytest.approx(1), 0, None]
    assert list(precision.at_all) == [pytest.approx(1), 0, None]
    assert mean_over_classes(precision.at_50) == pytest.approx(0.5)


def test_a_box_that_overlaps_by_two_thirds_counts_at_four_of_ten_thresholds() -> None:
    # 10 by 10 pixels and 10 by 15 have an intersection over union of 100 / 150, which is above
    # 0.50, 0.55, 0.60 and 0.65.
    meter = PrecisionMeter(1)
    meter.update([found([[0, 0, 10, 15, 0, 0.9]])], [torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0]])])
    precision = meter.compute()
    assert list(precision.at_50) == [pytest.approx(1)]
    assert list(precision.at_all) == [pytest.approx(0.4)]


def test_a_class_without_objects_has_no_precision() -> None:
    meter = PrecisionMeter(2)
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0]])
    meter.update([found([[0, 0, 10, 10, 0, 0.9], [0, 0, 9, 9, 1, 0.8]])], [truth])
    assert list(meter.compute().at_50) == [pytest.approx(1), None]


def test_wrong_boxes_before_right_ones_cost_precision() -> None:
    # The first of two boxes is wrong, so the precision is a half at every recall.
    meter = PrecisionMeter(1)
    rows = [[50.0, 50.0, 60.0, 60.0, 0.0, 0.9], [0.0, 0.0, 10.0, 10.0, 0.0, 0.8]]
    meter.update([found(rows)], [torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0]])])
    assert list(meter.compute().at_50) == [pytest.approx(0.5)]


def test_images_without_objects_and_without_found_boxes() -> None:
    meter = PrecisionMeter(2)
    meter.update([found([])], [torch.zeros(0, 5)])
    assert list(meter.compute().at_50) == [None, None]
    assert mean_over_classes(meter.compute().at_50) == 0


def test_measuring_needs_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PYCOCOTOOLS_AVAILABLE", "_FASTER_COCO_EVAL_AVAILABLE"):
        monkeypatch.setattr(f"torchmetrics.detection.mean_ap.{name}", False)
    with pytest.raises(ModelError, match="pip install pycocotools"):
        PrecisionMeter(1)


def test_a_sample_counts_an_image_as_often_as_it_occurs() -> None:
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0]])
    images = [found([[0, 0, 10, 10, 0, 0.9]]), found([[50, 50, 60, 60, 0, 0.8]])]
    targets = [truth, truth]
    samples = [[1, 1], [2, 0], [0, 2], [3, 1]]
    # The right box comes first, so the precision is 1 up to its recall.
    wanted = [51 / 101, 1, 0, 76 / 101]
    assert resampled_precision(images, targets, 1, samples) == pytest.approx(wanted)


@pytest.mark.filterwarnings("ignore:Encountered more than 100 detections")
@pytest.mark.parametrize("seed", range(5))
def test_resampled_values_are_those_of_the_meter(seed: int) -> None:
    """Few places, so that boxes compete for objects, and more boxes than count."""
    draws = np.random.default_rng(seed)

    def boxes(count: int, *columns: Any) -> Tensor:
        corners = draws.integers(0, 4, (count, 2)) * 5
        sides = draws.integers(2, 4, (count, 2)) * 5
        return torch.from_numpy(np.column_stack((corners, corners + sides, *columns))).float()

    images = [
        found(boxes(n, draws.integers(0, 3, n), draws.permutation(n) / 500).tolist())
        for n in (0, 3, 12, 500)
    ]
    targets = [boxes(n, draws.integers(0, 3, n)) for n in (2, 0, 5, 9)]
    samples = draws.multinomial(4, [0.25] * 4, size=5).tolist()
    wanted = []
    for sample in samples:
        meter = PrecisionMeter(4, [0.5])
        for image, target, count in zip(images, targets, sample, strict=True):
            meter.update([image] * count, [target] * count)
        wanted.append(mean_over_classes(meter.compute().at_50))
    assert resampled_precision(images, targets, 4, samples) == pytest.approx(wanted)


def test_resampling_can_be_stopped() -> None:
    with pytest.raises(Stopped):
        resampled_precision([], [], 1, [[]], lambda: True)


TRUTH = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0], [20.0, 20.0, 40.0, 40.0, 1.0]])


def test_the_most_confident_box_decides_the_predicted_class() -> None:
    both = found([[0, 0, 10, 11, 1, 0.9], [0, 0, 10, 10, 0, 0.8]])
    assert box_confusion([both], [TRUTH], 2).tolist() == [[0, 1, 0], [0, 0, 1]]


def test_a_box_that_overlaps_by_less_than_half_does_not_count() -> None:
    aside = found([[5, 0, 15, 10, 0, 0.9], [20, 20, 40, 40, 1, 0.1]])
    assert box_confusion([aside], [TRUTH], 2).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_counts_add_up_over_images() -> None:
    nothing = found([])
    images = [nothing, found([[0, 0, 10, 10, 0, 0.9]]), nothing]
    targets = [TRUTH, TRUTH, torch.zeros(0, 5)]
    assert box_confusion(images, targets, 2).tolist() == [[1, 0, 1], [0, 0, 2]]
