"""Findings as JSON, to be kept with the predictions: results are built of them when asked for."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdal.models.predictions import Classification, Detections, Finding, Segmentation

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
            packed |= {
                "map": _compressed(finding.labels),
                "confidence_map": _compressed(confidences),
            }
    return packed


def unpack(packed: dict[str, Any]) -> tuple[Finding, Size]:
    """What `pack` has packed.

    Raises:
        KeyError: it is something else.
    """
    height, width = packed["size"]
    finding: Finding
    if "map" in packed:
        confidences = _decompressed(packed["confidence_map"]).float() / 255
        finding = Segmentation(_decompressed(packed["map"]), confidences)
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


def _compressed(pixels: Tensor) -> dict[str, Any]:
    """A byte a pixel, (H, W) uint8."""
    # Runs are all that there is in a label map, so that looking for more takes time and finds
    # nothing; a PNG of it takes three times as long.
    zipped = zlib.compressobj(1, strategy=zlib.Z_RLE)
    data = zipped.compress(pixels.numpy().tobytes()) + zipped.flush()
    return {"shape": list(pixels.shape), "zlib": base64.b64encode(data).decode()}


def _decompressed(packed: dict[str, Any]) -> Tensor:
    data = zlib.decompress(base64.b64decode(packed["zlib"]))
    # A bytearray, since torch shares memory only with what can be written.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(packed["shape"])
