"""A pre-annotation submitted unchanged on Label Studio's own page, and its export."""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from io import BytesIO
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from support.label_studio_page import LabelStudioPage
from support.processes import PATIENCE

from cdal.backend.annotations import Region, read_annotations, read_result, to_result
from cdal.backend.annotations.agreement import agreement
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.annotations.masks import enlarge
from cdal.backend.images.decode import decode
from cdal.backend.reports.pre_annotations import UNCHANGED
from cdal.backend.settings import ProjectSettings
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.project import (
    LabelStudioProject,
    brush_config,
    choices_config,
    rectangle_config,
)
from cdal.models import Detections, Finding, Multilabel, Segmentation
from cdal.models.predictions import BACKGROUND

pytestmark = pytest.mark.label_studio

LABELS = ("cat", "dog")
SETTINGS = ProjectSettings(smallest_region=0.0)
SPLIT = ProjectSettings(smallest_region=0.0, split_regions="touching")
CONFIGS = {
    "BrushLabels": brush_config(LABELS),
    "BitmaskLabels": brush_config(LABELS).replace("BrushLabels", "BitmaskLabels"),
    "PolygonLabels": brush_config(LABELS).replace("BrushLabels", "PolygonLabels"),
    "RectangleLabels": rectangle_config(LABELS),
    "Choices": choices_config(LABELS).replace('"single"', '"multiple"'),
}


def lying_down() -> bytes:
    """A photograph with odd sides that must be rotated by a quarter turn."""
    tags = Image.Exif()
    tags[0x0112] = 6
    file = BytesIO()
    Image.new("RGB", (301, 203), "white").save(file, "JPEG", exif=tags)
    return file.getvalue()


def label_map() -> torch.Tensor:
    """A square with a hole, a thin line across it, and two discs that touch, in a corner."""
    labels = np.full((64, 64), 2, np.uint8)
    labels[8:40, 8:40] = 0
    labels[16:24, 20:30] = 2
    labels[np.arange(10, 60), np.arange(10, 60)] = 1
    rows, columns = np.ogrid[:64, :64]
    for at in (6, 18):
        labels[(rows - 55) ** 2 + (columns - at) ** 2 <= 6**2] = 1
    return torch.from_numpy(labels)


def parts_in(mask: torch.Tensor) -> int:
    """How many connected parts a mask has."""
    return cv2.connectedComponents(mask.numpy().astype(np.uint8), connectivity=4)[0] - 1


def finding(tag: str) -> Finding:
    if tag == "Choices":
        return Multilabel(torch.tensor([0.7, 0.6, 0.1]))
    if tag == "RectangleLabels":
        boxes = torch.tensor([[0.0, 0.1, 0.5, 0.7], [0.31, 0.22, 1.0, 1.0]])
        turns = torch.tensor([[0.0, 0.0], [0.2, 0.0606]])  # of a rotated box with right angles
        return Detections(boxes, torch.tensor([0, 1]), torch.tensor([0.9, 0.8]), turns)
    return Segmentation(label_map(), torch.full((8, 8), 0.9))


def exported(
    said: list[Region], config: str, label_studio: LabelStudioServer, page: LabelStudioPage
) -> list[dict[str, Any]]:
    """The annotations of a project's only image, of which this was predicted."""
    address = f"data:image/jpeg;base64,{b64encode(lying_down()).decode()}"
    url, token = label_studio.url, label_studio.token
    with closing(LabelStudioProject.create(url, token, "as it is", config)) as made:
        (task,) = made.import_images([address])
        shown = made.sdk.predictions.create(task=task, result=said, score=0.5, model_version="v")
        made.sdk.projects.update(id=made.number, model_version="v", show_collab_predictions=True)
        page.submit_next(made.number)
    answer = httpx.get(
        f"{url}/api/projects/{made.number}/export?exportType=JSON",
        headers={"Authorization": f"Token {token}"},
        timeout=PATIENCE,
    )
    (item,) = answer.json()
    found: list[dict[str, Any]] = item["annotations"]
    assert [annotation["parent_prediction"] for annotation in found] == [shown.id]
    return found


@pytest.mark.parametrize("tag", CONFIGS)
def test_nothing_is_lost(
    tag: str, label_studio: LabelStudioServer, label_studio_page: LabelStudioPage
) -> None:
    image = decode(lying_down())
    size = image.shape[1], image.shape[2]
    assert size == (301, 203)
    control = served_control(CONFIGS[tag])
    settings = SPLIT if tag == "BitmaskLabels" else SETTINGS
    said = to_result(control, (*LABELS, BACKGROUND), finding(tag), size, settings)
    annotations = exported(said, CONFIGS[tag], label_studio, label_studio_page)
    (annotation,) = annotations
    assert len(annotation["result"]) == len(said)
    if settings is SPLIT:  # the discs are one connected part
        assert len(said) > sum(parts_in(label_map() == index) for index in range(2))
    found = read_annotations(control, annotations, settings)
    truth = found.truth
    assert truth is not None
    assert found.left_out == ()
    predicted = read_result(control, said, settings).truth
    assert predicted is not None
    assert agreement(predicted, truth) >= UNCHANGED
    target = truth.target(*size)
    if tag == "Choices":
        assert control.multiple
        assert target.tolist() == [1, 1]
    elif tag == "RectangleLabels":
        boxes = torch.tensor([[0, 30.1, 101.5, 210.7, 0], [62.93, 66.22, 203, 301, 1]])
        expected = torch.cat((boxes, torch.tensor([[0.0, 0.0], [0.2, 0.0606]])), 1)
        torch.testing.assert_close(target, expected, atol=0.02, rtol=0)
    elif tag in ("BrushLabels", "BitmaskLabels"):
        assert (target.numpy() == enlarge(label_map().numpy(), size)).all()
    else:
        small = truth.target(64, 64).numpy()
        for value in range(3):
            found, wanted = small == value, label_map().numpy() == value
            assert (found & wanted).sum() / (found | wanted).sum() >= 0.99
