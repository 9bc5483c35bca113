"""Findings as JSON, which predictions keep; results are built from them on request."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdal.models.predictions import Classification, Detections, Finding, Multilabel, Segmentation

Size = tuple[int, int]
"""Height and width of an image in pixels."""


def pack(finding: Finding, size: Size) -> dict[str, Any]:
    """A finding and the size of its image, as JSON.

    Label maps and objects are exact; confidences of pixels are rounded to 1/255, other numbers to
    5 digits.
    """
    packed: dict[str, Any] = {"size": list(size)}
    match finding:
        case Classification():
            packed |= {"label": finding.label, "confidence": round(finding.confidence, 5)}
        case Multilabel():
            packed["probabilities"] = _rounded(finding.probabilities)
        case Detections():
            packed |= {
                "boxes": _rounded(finding.boxes),
                "labels": finding.labels.tolist(),
                "confidences": _rounded(finding.confidences),
            }
            if finding.turns is not None:
                packed["turns"] = _rounded(finding.turns)
        case Segmentation():
            confidences = (finding.confidences.clamp(0, 1) * 255).round().to(torch.uint8)
            packed |= {
                "map": _compressed(finding.labels),
                "confidence_map": _compressed(confidences),
            }
            if finding.objects is not None:
                packed["objects"] = _compressed(finding.objects)
    return packed


def unpack(packed: dict[str, Any]) -> tuple[Finding, Size]:
    """Undo `pack`.

    Raises:
        KeyError: it was not packed by `pack`.
    """
    height, width = packed["size"]
    finding: Finding
    if "map" in packed:
        confidences = _decompressed(packed["confidence_map"]).float() / 255
        objects = _decompressed(packed["objects"]) if "objects" in packed else None
        finding = Segmentation(_decompressed(packed["map"]), confidences, objects)
    elif "probabilities" in packed:
        finding = Multilabel(torch.tensor(packed["probabilities"], dtype=torch.float32))
    elif "boxes" in packed:
        finding = Detections(
            boxes=torch.tensor(packed["boxes"], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(packed["labels"], dtype=torch.int64),
            confidences=torch.tensor(packed["confidences"], dtype=torch.float32),
            turns=(
                torch.tensor(packed["turns"], dtype=torch.float32).reshape(-1, 2)
                if "turns" in packed
                else None
            ),
        )
    else:
        finding = Classification(packed["label"], packed["confidence"])
    return finding, (height, width)


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().numpy(), 5).tolist()


def _compressed(pixels: Tensor) -> dict[str, Any]:
    """Compress one byte per pixel, (H, W) uint8."""
    # Label maps consist of runs, so looking for anything else only takes time; a PNG takes three
    # times as long.
    zipped = zlib.compressobj(1, strategy=zlib.Z_RLE)
    data = zipped.compress(pixels.numpy().tobytes()) + zipped.flush()
    return {"shape": list(pixels.shape), "zlib": base64.b64encode(data).decode()}


def _decompressed(packed: dict[str, Any]) -> Tensor:
    data = zlib.decompress(base64.b64decode(packed["zlib"]))
    # A bytearray, because torch shares only writable memory.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(packed["shape"])
