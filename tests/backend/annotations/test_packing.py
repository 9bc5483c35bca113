"""Findings kept as JSON."""

from __future__ import annotations

import json

import pytest
import torch

from cdal.backend.annotations.packing import pack, unpack
from cdal.models.predictions import Classification, Detections, Segmentation


def test_a_classification() -> None:
    packed = pack(Classification(3, 0.123456789), (10, 20))
    assert packed == {"size": [10, 20], "label": 3, "confidence": 0.12346}
    assert unpack(json.loads(json.dumps(packed))) == (Classification(3, 0.12346), (10, 20))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_detections(count: int) -> None:
    finding = Detections(
        torch.rand(count, 4), torch.arange(count, dtype=torch.int64), torch.rand(count)
    )
    found, size = unpack(json.loads(json.dumps(pack(finding, (480, 640)))))
    assert size == (480, 640)
    assert isinstance(found, Detections)
    assert torch.equal(found.labels, finding.labels)
    torch.testing.assert_close(found.boxes, finding.boxes, atol=6e-6, rtol=0)
    torch.testing.assert_close(found.confidences, finding.confidences, atol=6e-6, rtol=0)


def test_numbers_of_detections_are_short() -> None:
    finding = Detections(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([2]), torch.ones(1))
    assert pack(finding, (1, 1)) == {
        "size": [1, 1],
        "boxes": [[0.1, 0.2, 0.3, 0.4]],
        "labels": [2],
        "confidences": [1.0],
    }


def test_a_segmentation() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 256, (37, 53), generator=generator).to(torch.uint8)
    finding = Segmentation(labels, torch.rand(5, 7, generator=generator))
    found, size = unpack(json.loads(json.dumps(pack(finding, (370, 530)))))
    assert size == (370, 530)
    assert isinstance(found, Segmentation)
    assert torch.equal(found.labels, labels)
    assert found.labels.dtype == torch.uint8
    torch.testing.assert_close(found.confidences, finding.confidences, atol=0.5 / 255, rtol=0)


def test_a_map_is_compact() -> None:
    """A square on background, 480 by 360 pixels."""
    labels = torch.zeros(360, 480, dtype=torch.uint8)
    labels[100:200, 50:300] = 7
    packed = pack(Segmentation(labels, torch.ones(45, 60)), (360, 480))
    assert len(json.dumps(packed)) < 2500


@pytest.mark.parametrize("packed", [{}, {"size": [1, 1]}, {"label": 1, "confidence": 0.5}])
def test_anything_else_is_refused(packed: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        unpack(packed)
