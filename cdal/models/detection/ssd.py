"""Single-shot detectors: SSD and SSDlite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.detection._utils import retrieve_out_channels
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops import box_iou

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
from cdal.models.efficientnet import SixMaps
from cdal.models.manifest import Manifest


class Ssd(Family):
    """For each anchor, a box and class scores that include background."""

    def build(
        self,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG002 — does not depend on them
    ) -> Model:
        return torchvision_detector(
            manifest, self.background, score_thresh=MIN_SCORE, detections_per_img=MAX_BOXES
        )

    def class_rows(self, model: Model) -> dict[str, ClassRows]:
        convolutions = model.head.classification_head.module_list.named_modules()
        anchors = model.anchor_generator.num_anchors_per_location()
        found = {}
        for name, layer in convolutions:
            # In SSDlite, a depthwise convolution without rows for classes precedes each of these.
            if isinstance(layer, nn.Conv2d) and layer.groups == 1:
                rows = ClassRows(groups=anchors[int(name.split(".")[0])], before=1)
                for part in ("weight", "bias"):
                    found[f"head.classification_head.module_list.{name}.{part}"] = rows
        return found

    def heads(self, model: Model) -> list[nn.Module]:
        return [model.head]

    def detect(self, model: Model, images: Tensor) -> Detected:
        listed = image_list(images)
        maps = list(model.backbone(images).values())
        outputs = model.head(maps)
        anchors = model.anchor_generator(listed, maps)
        candidates = BoxCandidates.of(outputs["cls_logits"].softmax(-1), self.background)
        found = model.postprocess_detections(outputs, anchors, listed.image_sizes)
        # The second map is the last of the classification backbone; later maps shrink further.
        return Detected.of(candidates, maps[1], found, self.background)

    def losses(
        self, model: Model, images: Tensor, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Torchvision's losses, and one for images without boxes, which torchvision ignores.

        For each anchor with an object, SSD learns background from the three hardest anchors
        without one, so it learns nothing from an image without objects. Here such an image
        contributes as many anchors as the other images do on average, and at least three.
        """
        maps = list(model.backbone(images).values())
        outputs = model.head(maps)
        anchors = model.anchor_generator(image_list(images), maps)
        matched = [
            model.proposal_matcher(box_iou(target["boxes"], of_image))
            if len(target["boxes"])
            else torch.full((len(of_image),), -1, device=images.device)
            for target, of_image in zip(targets, anchors, strict=True)
        ]
        losses: dict[str, Tensor] = model.compute_loss(targets, outputs, anchors, matched)
        empty = torch.tensor([len(target["boxes"]) == 0 for target in targets])
        if empty.any():
            objects = int(sum((found >= 0).sum() for found in matched))
            hardest = round(model.neg_to_pos_ratio * max(1, objects / max(1, int((~empty).sum()))))
            background = -outputs["cls_logits"][empty.to(images.device)].log_softmax(-1)[..., 0]
            # Normalised as torchvision normalises its own losses.
            hard = background.topk(min(hardest, background.shape[1]), 1).values
            losses["negatives"] = hard.sum() / max(1, objects)
        return losses

    def backbone_name(self, name: str) -> str:
        """The layers before the fourth pooling are in one part, the rest in another."""
        found = re.fullmatch(r"features\.(\d+)\.(.*)", name)
        if found is None:
            return name
        after = int(found[1]) - 23
        return f"backbone.{name}" if after < 0 else f"backbone.extra.0.{after}.{found[2]}"


class SsdLite(Ssd):
    """SSD with depthwise separable convolutions, on a mobilenet_v3_large."""

    last_strided = 13
    """The block of mobilenet_v3_large that goes from stride 16 to 32; it is split in two."""

    wide_block_shape = (960, 160, 1, 1)
    """The shape of a tensor that only a mobilenet_v3_large with wide last blocks has."""

    def build(self, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> Model:
        """The detector as torchvision builds it, with wide or narrow last blocks.

        The last blocks are wide with ImageNet weights, and half as wide (Table 6 of the MobileNetV3
        paper) from scratch and in published detectors. torchvision's own function only builds the
        wide ones together with its own weights.
        """
        norm = partial(nn.BatchNorm2d, eps=0.001)
        if weights is None:
            wide = manifest.pretrained
        else:
            wide = any(tensor.shape == self.wide_block_shape for tensor in weights.values())
        trunk = torchvision.models.mobilenet_v3_large(
            weights=None, norm_layer=norm, reduced_tail=not wide
        )
        return self.on(
            SSDLiteFeatureExtractorMobileNet(trunk.features, self.last_strided, norm), manifest
        )

    @staticmethod
    def on(backbone: nn.Module, manifest: Manifest) -> Model:
        """The detector on a backbone with six maps."""
        anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
        size = (manifest.image_size, manifest.image_size)
        channels = retrieve_out_channels(backbone, size)
        head = SSDLiteHead(
            channels,
            anchors.num_anchors_per_location(),
            1 + len(manifest.classes),
            partial(nn.BatchNorm2d, eps=0.001),
        )
        return SSD(
            backbone,
            anchors,
            size,
            1 + len(manifest.classes),
            head=head,
            score_thresh=MIN_SCORE,
            nms_thresh=0.55,
            detections_per_img=MAX_BOXES,
            topk_candidates=300,
        )

    def backbone_name(self, name: str) -> str:
        """The blocks up to the split are in one part, the rest in another."""
        cut = self.last_strided
        found = re.fullmatch(r"features\.(\d+)\.(.*)", name)
        if found is None:
            return name
        after, rest = int(found[1]) - cut, found[2]
        if after != 0:
            part = f"0.{found[1]}" if after < 0 else f"1.{after}"
            return f"backbone.features.{part}.{rest}"
        if rest.startswith("block.0."):
            return f"backbone.features.0.{cut}.{rest.removeprefix('block.0.')}"
        return f"backbone.features.1.0.{rest.removeprefix('block.')}"


class SsdLiteOnEfficientNet(SsdLite):
    """SSDlite on EfficientNet-Lite0, whose ImageNet weights are installed."""

    def build(
        self,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG002 — does not depend on them
    ) -> Model:
        return self.on(SixMaps(), manifest)

    def backbone_name(self, name: str) -> str:
        """Timm's layers are in one part."""
        return f"backbone.layers.{name}"
