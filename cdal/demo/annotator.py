"""A simulated annotator, who labels through Label Studio's API as a person does in the browser."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from torch import Tensor

from cdal.datasets import Example, ImageSet
from cdal.demo.process import NO_TLS
from cdal.demo.project import CONTROL, IMAGE, TIMEOUT_S

Region = dict[str, Any]
"""One entry of an annotation's "result"."""


class Annotator:
    """A user who works through a project's label stream."""

    def __init__(self, url: str, token: str, project: int) -> None:
        self.url = url
        self.project = project
        self._headers = {"Authorization": f"Token {token}"}

    def next_task(self) -> int | None:
        """Request the next task, as "Label All Tasks" does; None if there is none."""
        answer = httpx.get(
            f"{self.url}/api/projects/{self.project}/next",
            headers=self._headers,
            timeout=TIMEOUT_S,
            verify=NO_TLS,
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        return int(answer.json()["id"])

    def submit(self, task: int, labels: str | Sequence[Region]) -> None:
        """Submit an annotation: the class of the image, or its regions."""
        result = choice(labels) if isinstance(labels, str) else list(labels)
        self._annotate(task, {"result": result, "lead_time": 1.0})

    def skip(self, task: int) -> None:
        """Skip a task, as the button "Skip" does."""
        self._annotate(task, {"result": [], "was_cancelled": True})

    def _annotate(self, task: int, annotation: Mapping[str, Any]) -> None:
        answer = httpx.post(
            f"{self.url}/api/tasks/{task}/annotations",
            json=annotation,
            headers=self._headers,
            timeout=TIMEOUT_S,
            verify=NO_TLS,
        )
        answer.raise_for_status()


def truth(images: ImageSet, example: Example) -> list[Region]:
    """The correct annotation of an example.

    Raises:
        DatasetError: the labels cannot be read.
    """
    target = example.target()
    if images.task == "classification":
        return choice(images.classes[int(target)])
    if images.task == "multilabel":
        return choice(*(images.classes[index] for index in target.nonzero().flatten().tolist()))
    if images.task == "segmentation":
        return painted(target, images.classes)
    return rectangles(target, images.classes, example.size())


def choice(*names: str) -> list[Region]:
    """The result for an image of these classes."""
    control = {"from_name": CONTROL, "to_name": IMAGE, "type": "choices"}
    return [{**control, "value": {"choices": list(names)}}] if names else []


def painted(mask: Tensor, classes: Sequence[str]) -> list[Region]:
    """One brush region per class in a mask.

    Args:
        mask: class indices, (H, W) uint8; pixels with other values stay unpainted.
        classes: the class names.
    """
    # Imported here because it imports NLTK, which takes seconds.
    from label_studio_sdk.converter.brush import mask2rle

    regions = []
    for index, name in enumerate(classes):
        covered = (mask == index).numpy()
        if covered.any():
            # The brush paints at full opacity.
            rle = mask2rle(covered.astype(np.uint8) * 255)
            value = {"format": "rle", "rle": rle, "brushlabels": [name]}
            regions.append(_region("brushlabels", value, mask.shape[0], mask.shape[1]))
    return regions


def rectangles(boxes: Tensor, classes: Sequence[str], size: tuple[int, int]) -> list[Region]:
    """One rectangle region per box.

    Args:
        boxes: left, top, right, bottom in pixels and a class index, (K, 5).
        classes: the class names.
        size: the image's height and width.
    """
    height, width = size
    regions = []
    for left, top, right, bottom, index in boxes.tolist():
        value = {
            "x": 100 * left / width,
            "y": 100 * top / height,
            "width": 100 * (right - left) / width,
            "height": 100 * (bottom - top) / height,
            "rotation": 0,
            "rectanglelabels": [classes[int(index)]],
        }
        regions.append(_region("rectanglelabels", value, height, width))
    return regions


def _region(kind: str, value: dict[str, Any], height: int, width: int) -> Region:
    return {
        "id": secrets.token_hex(5),
        "from_name": CONTROL,
        "to_name": IMAGE,
        "type": kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
