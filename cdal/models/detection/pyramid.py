"""Detectors on a feature pyramid: RetinaNet and Faster R-CNN."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cdal.models.class_rows import ClassRows
from cdal.models.detection.family import (
    MAX_BOXES,
    MIN_SCORE,
    Detected,
    Family,
    Model,
    image_list,
    torchvision_detector,
)
from cdal.models.detection.regions import BoxCandidates
from cdal.models.manifest import Manifest

USUAL_SIDE = 512
"""The image side that torchvision's anchors, which are in pixels, are assumed to suit: the largest
one covers such an image. For other sides the anchors are scaled."""


FASTER_RCNN: Mapping[str, int] = {
    "rpn_pre_nms_top_n_train": 1000,
    "rpn_post_nms_top_n_train": 300,
    "rpn_pre_nms_top_n_test": 500,
    "rpn_post_nms_top_n_test": 200,
    "box_batch_size_per_image": 128,
}
"""Fewer proposals than torchvision's 1,000 to 2,000, which suit photographs of 800 to 1,333 pixels:
with smaller images, the second stage would cost more than everything else."""


class RetinaNet(Family):
    """For each anchor, a box and a sigmoid per class; there is no background class."""

    background = 0

    def build(
        self,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG002 — does not depend on them
    ) -> Model:
        model = torchvision_detector(
            manifest, self.background, score_thresh=MIN_SCORE, detections_per_img=MAX_BOXES
        )
        model.anchor_generator = scaled(model.anchor_generator, manifest.image_size)
        return model

    def class_rows(self, model: Model) -> dict[str, ClassRows]:
        rows = ClassRows(groups=model.head.classification_head.num_anchors)
        return {f"head.classification_head.cls_logits.{part}": rows for part in ("weight", "bias")}

    def heads(self, model: Model) -> list[nn.Module]:
        return [model.head]

    def detect(self, model: Model, images: Tensor) -> Detected:
        listed = image_list(images)
        maps = list(model.backbone(images).values())
        outputs = model.head(maps)
        anchors = model.anchor_generator(listed, maps)
        candidates = BoxCandidates.of(outputs["cls_logits"].sigmoid(), self.background)
        each = model.head.classification_head.num_anchors
        levels = [each * level.shape[2] * level.shape[3] for level in maps]
        found = model.postprocess_detections(
            {name: list(output.split(levels, 1)) for name, output in outputs.items()},
            [list(image.split(levels)) for image in anchors],
            listed.image_sizes,
        )
        return Detected.of(candidates, deepest(model, maps), found, self.background)

    def backbone_name(self, name: str) -> str:
        return f"backbone.body.{name.removeprefix('features.')}"


class FasterRcnn(Family):
    """Proposes boxes first, then scores the classes of each, including background."""

    def build(
        self,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG002 — does not depend on them
    ) -> Model:
        model = torchvision_detector(
            manifest,
            self.background,
            box_score_thresh=MIN_SCORE,
            box_detections_per_img=MAX_BOXES,
            # Otherwise an image may have no proposals, and so no regions.
            rpn_score_thresh=0.0,
            **FASTER_RCNN,
        )
        model.rpn.anchor_generator = scaled(model.rpn.anchor_generator, manifest.image_size)
        return model

    def class_rows(self, model: Model) -> dict[str, ClassRows]:  # noqa: ARG002
        found = {}
        for part in ("weight", "bias"):
            found[f"roi_heads.box_predictor.cls_score.{part}"] = ClassRows(before=1)
            found[f"roi_heads.box_predictor.bbox_pred.{part}"] = ClassRows(before=1, each=4)
        return found

    def heads(self, model: Model) -> list[nn.Module]:
        return [model.rpn.head, model.roi_heads.box_predictor]

    def detect(self, model: Model, images: Tensor) -> Detected:
        return self.detect_with_maps(model, images)[0]

    def detect_with_maps(
        self, model: Model, images: Tensor
    ) -> tuple[Detected, Mapping[str, Tensor]]:
        """Run the detector, and return the maps of its pyramid, too."""
        listed = image_list(images)
        maps: Mapping[str, Tensor] = model.backbone(images)
        proposals, _ = model.rpn(listed, maps)
        heads = model.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(maps, proposals, listed.image_sizes))
        logits, regression = heads.box_predictor(pooled)
        counts = [len(image) for image in proposals]
        candidates = BoxCandidates.of(logits.softmax(-1).split(counts), self.background)
        boxes, scores, labels = heads.postprocess_detections(
            logits, regression, proposals, listed.image_sizes
        )
        found = [
            {"boxes": b, "scores": s, "labels": n}
            for b, s, n in zip(boxes, scores, labels, strict=True)
        ]
        last = deepest(model, list(maps.values()))
        return Detected.of(candidates, last, found, self.background), maps

    def backbone_name(self, name: str) -> str:
        return f"backbone.body.{name.removeprefix('features.')}"


def scaled(anchors: AnchorGenerator, image_size: int) -> AnchorGenerator:
    """The anchors scaled to images of this side; see ``USUAL_SIDE``."""
    sizes = tuple(
        tuple(side * image_size / USUAL_SIDE for side in level) for level in anchors.sizes
    )
    return AnchorGenerator(sizes, anchors.aspect_ratios)


def deepest(model: Model, maps: list[Tensor]) -> Tensor:
    """The pyramid's map of the body's last layer; the later maps are reductions of it."""
    return maps[len(model.backbone.body.return_layers) - 1]
