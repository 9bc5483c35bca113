"""Results of the simulated annotator are valid for the labeling config, and correct."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
from torch import Tensor

from cdal.demo.annotator import Region, choice, painted, rectangles, truth
from cdal.demo.project import LABELING_CONFIGS

CLASSES = ("road", "car", "tree")


class FakeExample:
    """An example without files."""

    def __init__(self, target: Tensor, size: tuple[int, int]) -> None:
        self._target, self._size = target, size

    def target(self) -> Tensor:
        return self._target

    def size(self) -> tuple[int, int]:
        return self._size


class FakeSet:
    def __init__(self, task: str) -> None:
        self.task, self.classes = task, CLASSES


def is_valid(task: str, result: list[Region]) -> bool:
    interface = LabelInterface(LABELING_CONFIGS[task](CLASSES))
    return bool(interface.validate_annotation({"result": result}))


def decoded(region: Region) -> list[list[int]]:
    """The pixels that a brush region covers."""
    shape = (region["original_height"], region["original_width"], 4)
    alpha = brush.decode_rle(region["value"]["rle"]).reshape(shape)[:, :, 3]
    rows: list[list[int]] = (alpha // 255).tolist()
    return rows


def test_a_choice() -> None:
    (region,) = choice("car")
    assert region["value"] == {"choices": ["car"]}
    assert is_valid("classification", [region])


def test_a_mask_is_one_region_per_visible_class() -> None:
    mask = torch.tensor([[0, 2, 2], [255, 0, 2]], dtype=torch.uint8)
    road, tree = painted(mask, CLASSES)
    assert decoded(road) == [[1, 0, 0], [0, 1, 0]]
    assert decoded(tree) == [[0, 1, 1], [0, 0, 1]]
    assert tree["value"]["brushlabels"] == ["tree"]
    assert tree["value"]["format"] == "rle"
    assert (tree["original_width"], tree["original_height"]) == (3, 2)
    assert (tree["image_rotation"], tree["type"]) == (0, "brushlabels")
    assert road["id"] != tree["id"]
    assert is_valid("segmentation", [road, tree])


def test_boxes_are_percentages_of_the_image() -> None:
    boxes = torch.tensor([[10.0, 5, 20, 10, 1], [0, 0, 40, 20, 2]])
    first, second = rectangles(boxes, CLASSES, size=(20, 40))
    assert first["value"] == {
        "x": 25, "y": 25, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["car"],
    }  # fmt: skip
    assert (first["original_width"], first["original_height"]) == (40, 20)
    assert second["value"]["width"] == second["value"]["height"] == 100
    assert is_valid("detection", [first, second])


def test_an_image_without_objects_is_an_empty_annotation() -> None:
    assert painted(torch.full((2, 2), 255, dtype=torch.uint8), CLASSES) == []
    assert rectangles(torch.empty(0, 5), CLASSES, (2, 2)) == []
    assert choice() == []


@pytest.mark.parametrize(
    ("task", "target", "key", "labels"),
    [
        ("classification", torch.tensor(2), "choices", [["tree"]]),
        ("multilabel", torch.tensor([1.0, 0, 1]), "choices", [["road", "tree"]]),
        ("segmentation", torch.tensor([[0, 1]], dtype=torch.uint8), "brushlabels",
         [["road"], ["car"]]),
        ("detection", torch.tensor([[0.0, 0, 1, 1, 1]]), "rectanglelabels", [["car"]]),
    ],
)  # fmt: skip
def test_the_correct_annotation_of_an_example(
    task: str, target: Tensor, key: str, labels: Any
) -> None:
    example: Any = FakeExample(target, (1, 2))
    images: Any = FakeSet(task)
    result = truth(images, example)
    assert [region["value"][key] for region in result] == labels
    assert is_valid(task, result)


def test_a_result_of_another_control_is_invalid() -> None:
    """The checks above can fail."""
    assert not is_valid("detection", choice("car"))
    assert not is_valid("classification", choice("boat"))
