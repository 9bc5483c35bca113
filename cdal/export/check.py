"""Whether an exported network says what the original says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from cdal.export.layers import Exported
from cdal.models import Detections, Prediction, Segmentation, TaskNetwork
from cdal.models.classification.network import ClassificationPrediction
from cdal.models.detection.family import MIN_SCORE
from cdal.models.letterbox import contents, on_grid
from cdal.models.multilabel.network import MultilabelPrediction

TOLERANCE = 0.02
"""The largest difference of a probability: a head's features are kept in half precision, and its
export computes in float32."""

SAME_BOX = 0.8
"""The intersection over union from which two boxes are the same."""

BOXES = 20
"""The most confident boxes of an image that are compared."""

MATCHED = 0.9
"""The share of these that must be found: where two boxes overlap by just about what
non-maximum suppression allows, the last digit decides."""

Run = Callable[[Tensor], Mapping[str, Tensor]]
"""Runs what was written: normalised images to outputs by name."""


class CheckError(Exception):
    """What was written does not do what the network does."""


def check(network: TaskNetwork, exported: Exported, run: Run) -> float:
    """Compare what was written with the network, on made-up images.

    Args:
        network: the original.
        exported: as one module; its class says what is compared.
        run: runs what was written.

    Returns:
        The largest difference of a probability.

    Raises:
        CheckError: they differ.
    """
    worst = 0.0
    for image in _images(network, exported):
        prepared = network.prepare(image)[None]
        prediction = network.predict(prepared)
        outputs = run(network_input(network, prepared, exported))
        difference = _difference(prediction, outputs, _shown(prepared, exported))
        if not difference <= TOLERANCE:  # nor is NaN
            raise CheckError(f"A probability differs by {difference:.3f} from that of the model.")
        worst = max(worst, difference)
    return worst


def network_input(network: TaskNetwork, prepared: Tensor, exported: Exported) -> Tensor:
    """A prepared image, (1, 3, H, W) uint8, as what was written takes it."""
    normalised = network.normalise(prepared).contiguous()
    if not exported.fits:
        return normalised
    rows, columns = _shown(prepared, exported)
    height, width = on_grid((rows, columns))
    normalised = normalised[:, :, :rows, :columns]
    return functional.pad(normalised, (0, width - columns, 0, height - rows))


def _images(network: TaskNetwork, exported: Exported) -> list[Tensor]:
    """Smooth noise, since white noise is grey to a network.

    A square, and half a square; of networks that see tiles, some beside each other, and some below.
    """
    draws = torch.Generator().manual_seed(0)
    side = network.image_size
    shapes = [(side, side)] * 2
    if exported.tiling is not None:
        tile = exported.tiling.tile
        shapes = [(tile // 2, 2 * tile), (3 * tile // 2, tile)]
    elif exported.fits:
        shapes = [(side, side), (max(32, side // 64 * 32), side)]
    coarse = torch.rand((2, 3, 8, 8), generator=draws) * 255
    return [
        functional.interpolate(one[None], shape, mode="bilinear")[0].to(torch.uint8)
        for one, shape in zip(coarse, shapes, strict=True)
    ]


def _shown(prepared: Tensor, exported: Exported) -> tuple[int, int]:
    """The rows and columns that the image takes in its square."""
    return contents(prepared)[0] if exported.fits else (prepared.shape[2], prepared.shape[3])


def _difference(
    prediction: Prediction, outputs: Mapping[str, Tensor], shown: tuple[int, int]
) -> float:
    """The largest difference between what the network predicts for an image and the outputs."""
    if isinstance(prediction, ClassificationPrediction | MultilabelPrediction):
        return float((outputs["probabilities"] - prediction.probabilities).abs().max())
    (finding,) = prediction.findings()
    if isinstance(finding, Segmentation):
        probabilities = outputs["probabilities"][0, :, : shown[0], : shown[1]]
        own = probabilities.gather(0, finding.labels[None].long())[0]
        # How much more probable another class is than the network's.
        return float((probabilities.amax(0) - own).max())
    if isinstance(finding, Detections):
        return _of_boxes(finding, outputs, shown)
    raise TypeError(f"{type(finding).__name__} cannot be compared")


def _of_boxes(finding: Detections, outputs: Mapping[str, Tensor], shown: tuple[int, int]) -> float:
    """The difference of the scores of the confident boxes; 1 if too many of them are not there."""
    wanted = finding.boxes[:BOXES] * torch.tensor([shown[1], shown[0]] * 2)
    scores = outputs["scores"]
    if not len(wanted):
        return float((scores - MIN_SCORE).clamp(min=0).amax()) if len(scores) else 0.0
    if not len(scores):
        return float(finding.confidences[0]) - MIN_SCORE
    same = outputs["labels"][None] == finding.labels[:BOXES, None]
    overlap, which = torch.where(same, box_iou(wanted, outputs["boxes"]), 0).max(1)
    matched = overlap >= SAME_BOX
    if matched.float().mean() < MATCHED:
        return 1.0
    differences = scores[which] - finding.confidences[:BOXES]
    return float(differences[matched].abs().max())
