"""VOC 2007's rules on a few boxes, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cdal.benchmark.voc_metrics import average_precisions

NONE = torch.zeros(0, 5)
LEFT, RIGHT, FAR = [0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def found(*boxes: list[float]) -> dict[str, Tensor]:
    """Boxes of class 0, the most confident first."""
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "scores": scores,
        "labels": torch.zeros(len(boxes), dtype=torch.int64),
    }


def objects(*boxes: list[float]) -> Tensor:
    return torch.tensor([[*box, 0.0] for box in boxes])


def test_precision_at_eleven_recalls() -> None:
    # Right, wrong, right: precision 1 up to a recall of 1/2, and 2/3 up to 1.
    values = average_precisions([found(LEFT, FAR, RIGHT)], [objects(LEFT, RIGHT)], [NONE], 2)
    assert values == [pytest.approx((6 * 1 + 5 * 2 / 3) / 11), None]


def test_a_box_on_a_difficult_object_does_not_count() -> None:
    hard = [objects(FAR)]
    values = average_precisions([found(FAR, LEFT)], [objects(LEFT)], hard, 1)
    assert values == [pytest.approx(1)]
    assert average_precisions([found(FAR, LEFT)], [objects(LEFT)], [NONE], 1) == [
        pytest.approx(0.5)
    ]


def test_a_difficult_object_need_not_be_found() -> None:
    assert average_precisions([found(LEFT)], [objects(LEFT)], [objects(FAR)], 1) == [
        pytest.approx(1)
    ]
