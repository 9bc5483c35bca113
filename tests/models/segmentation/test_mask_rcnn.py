from __future__ import annotations

import torch

from cdal.models.segmentation.mask_rcnn import finding_of, objects_in, painted


def rectangle(side: int, left: int, top: int, right: int, bottom: int) -> torch.Tensor:
    mask = torch.zeros((side, side), dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_mask_in_a_box_is_painted_where_the_box_is() -> None:
    half = torch.zeros((1, 28, 28))
    half[:, :, :14] = 1.0
    (mask,) = painted(half, torch.tensor([[8.0, 16.0, 40.0, 48.0]]), 64)
    assert mask.dtype == torch.bool
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert abs(int(rows[0]) - 16) <= 1
    assert abs(int(rows[-1]) - 47) <= 1
    assert abs(int(columns[0]) - 8) <= 1
    assert abs(int(columns[-1]) - 24) <= 1


def test_an_image_without_boxes_has_no_masks() -> None:
    assert painted(torch.zeros((0, 28, 28)), torch.zeros((0, 4)), 32).shape == (0, 32, 32)


def test_a_pixel_belongs_to_the_most_confident_object_on_it() -> None:
    masks = torch.stack((rectangle(8, 0, 0, 4, 8), rectangle(8, 3, 0, 6, 8)))
    found = finding_of(masks, torch.tensor([1, 1]), torch.tensor([0.9, 0.6]), background=2)
    assert found.objects is not None
    assert found.labels[0].tolist() == [1] * 6 + [2] * 2
    assert found.objects[0].tolist() == [1] * 4 + [2] * 2 + [0] * 2
    assert [round(value, 2) for value in found.confidences[0].tolist()] == [
        *([0.9] * 4), *([0.6] * 2), *([1.0] * 2),
    ]  # fmt: skip


def test_what_may_be_an_object_is_background_with_less_confidence() -> None:
    masks = rectangle(4, 0, 0, 2, 4)[None]
    found = finding_of(masks, torch.tensor([0]), torch.tensor([0.3]), background=1)
    assert found.objects is not None
    assert found.labels.unique().tolist() == [1]
    assert found.objects.unique().tolist() == [0]
    assert [round(value, 2) for value in found.confidences[0].tolist()] == [0.7, 0.7, 1.0, 1.0]


def test_the_objects_of_a_target() -> None:
    target = torch.full((2, 6, 6), 2, dtype=torch.int16)
    target[1] = 0
    target[:, 1:3, 2:5] = torch.tensor([1, 7], dtype=torch.int16)[:, None, None]
    target[:, 3, 2] = torch.tensor([0, 3], dtype=torch.int16)
    found = objects_in(target)
    assert found["labels"].tolist() == [0, 1]
    assert found["boxes"].tolist() == [[2, 3, 3, 4], [2, 1, 5, 3]]
    assert found["masks"].sum((1, 2)).tolist() == [1, 6]
    assert torch.equal(found["masks"][1], rectangle(6, 2, 1, 5, 3))
