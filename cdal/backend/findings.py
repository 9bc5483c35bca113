"""Findings as JSON, to be kept with the predictions: results are built of them when asked for."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cdal.models.findings import Classification, Detections, Finding, Segmentation

Size = tuple[int, int]
"""Height and width of an image in pixels."""


def pack(finding: Finding, size: Size) -> dict[str, Any]:
    """A finding and the size of its image, as JSON.

    Label maps lose nothing; confidences are rounded to 1/255, boxes and theirs to 5 digits.
    """
    packed: dict[str, Any] = {"size": list(size)}
    match finding:
        case Classification():
            packed |= {"label": finding.label, "confidence": round(finding.confidence, 5)}
        case Detections():
            packed |= {
                "boxes": _rounded(finding.boxes),
                "labels": finding.labels.tolist(),
                "confidences": _rounded(finding.confidences),
            }
        case Segmentation():
            confidences = (finding.confidences.clamp(0, 1) * 255).round().to(torch.uint8)
            packed |= {"map": _to_png(finding.labels), "confidence_map": _to_png(confidences)}
    return packed


def unpack(packed: dict[str, Any]) -> tuple[Finding, Size]:
    """What `pack` has packed.

    Raises:
        KeyError: it is something else.
    """
    height, width = packed["size"]
    finding: Finding
    if "map" in packed:
        confidences = _from_png(packed["confidence_map"]).float() / 255
        finding = Segmentation(_from_png(packed["map"]), confidences)
    elif "boxes" in packed:
        finding = Detections(
            boxes=torch.tensor(packed["boxes"], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(packed["labels"], dtype=torch.int64),
            confidences=torch.tensor(packed["confidences"], dtype=torch.float32),
        )
    else:
        finding = Classification(packed["label"], packed["confidence"])
    return finding, (height, width)


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().numpy(), 5).tolist()


def _to_png(pixels: Tensor) -> str:
    """A byte a pixel, (H, W) uint8, as a PNG in base64."""
    # Runs are all that there is in a label map: smaller and faster than looking for more.
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG", compress_type=zlib.Z_RLE)
    return base64.b64encode(file.getvalue()).decode()


def _from_png(text: str) -> Tensor:
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
        pixels: npt.NDArray[np.uint8] = np.array(image)
    return torch.from_numpy(pixels)
