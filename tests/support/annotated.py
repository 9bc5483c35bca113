"""Labeling configs, controls and annotations for tests of formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from cdal.backend.annotations import FORMATS, Reading, Region, Truth
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import BACKGROUND, Segmentation
from support.patterned import as_address

LABELS = ("sky", "road", "car")


def config_of(tag: str, labels: Sequence[str] = LABELS, attributes: str = "") -> str:
    kind = "Choice" if tag == "Choices" else "Label"
    inner = "".join(f'<{kind} value="{label}"/>' for label in labels)
    control = f'<{tag} name="what" toName="image" {attributes}>{inner}</{tag}>'
    return f'<View><Image name="image" value="$image"/>{control}</View>'


def control_of(tag: str, labels: Sequence[str] = LABELS, attributes: str = "") -> Control:
    return served_control(config_of(tag, labels, attributes))


def region(tag: str, value: dict[str, Any], size: tuple[int, int] | None = None) -> Region:
    """One of the control's regions, as Label Studio's page submits it; size: height, width."""
    sizes = {"original_height": size[0], "original_width": size[1]} if size else {}
    made = {"from_name": "what", "to_name": "image", "type": tag.lower(), "value": value}
    return {**made, **sizes}


def png_of(alpha: npt.ArrayLike) -> str:
    """A bitmask of these opacities, as Label Studio's page writes it."""
    opacities = np.array(alpha, np.uint8)
    return as_address(Image.fromarray(np.dstack([np.zeros_like(opacities)] * 3 + [opacities])))


def reading(tag: str, result: Sequence[Any], **settings: Any) -> Reading:
    return FORMATS[tag].read(control_of(tag), result, ProjectSettings(**settings))


def read(tag: str, result: Sequence[Any], **settings: Any) -> Truth:
    truth = reading(tag, result, **settings).truth
    assert truth is not None
    return truth


def refusals(config: str, result: list[Region]) -> list[str]:
    """What Label Studio's own validation finds wrong with a prediction."""
    prediction = {"result": result, "score": 0.5, "model_version": "v"}
    return list(LabelInterface(config).validate_prediction(prediction, return_errors=True))


def segmentation(labels: npt.ArrayLike, confidences: npt.ArrayLike = ((0.5,),)) -> Segmentation:
    return Segmentation(
        torch.from_numpy(np.array(labels, np.uint8)),
        torch.from_numpy(np.array(confidences, np.float32)),
    )


def predicted(
    tag: str,
    finding: Segmentation,
    size: tuple[int, int] | None = None,
    attributes: str = "",
    labels: Sequence[str] = LABELS,
    **settings: Any,
) -> list[Region]:
    """The regions of a prediction whose last class is background."""
    made = FORMATS[tag].to_result(
        control_of(tag, labels, attributes),
        (*labels, BACKGROUND),
        finding,
        size or tuple(finding.labels.shape),  # type: ignore[arg-type]
        ProjectSettings(**settings),
    )
    assert refusals(config_of(tag, labels, attributes), made) == []
    assert len({item["id"] for item in made}) == len(made)
    return made


def returned(
    tag: str, finding: Segmentation, labels: Sequence[str] = LABELS, **settings: Any
) -> npt.NDArray[np.uint8]:
    """A label map after it went to Label Studio and came back."""
    result = predicted(tag, finding, labels=labels, **settings)
    control = control_of(tag, labels)
    found = FORMATS[tag].read(control, result, ProjectSettings(**settings))
    assert found.truth is not None
    assert found.left_out == ()
    height, width = finding.labels.shape
    target, left_out = found.truth.fit(height, width)
    assert target is not None
    assert left_out == ()
    assert target.dtype == torch.uint8
    return np.asarray(target)


def mean_iou(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> float:
    """The mean of intersection over union over the values that are wanted."""
    shares = [
        ((found == value) & (wanted == value)).sum() / ((found == value) | (wanted == value)).sum()
        for value in np.unique(wanted)
    ]
    return float(np.mean(shares))
