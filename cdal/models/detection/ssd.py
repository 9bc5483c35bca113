"""SSD: class scores, one of them background's, and a box for each of many anchors."""

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
from cdal.models.manifest import Manifest


class Ssd(Family):
    """Single shot: class scores, one of them background's, and a box for each of many anchors."""

    def build(
        self,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG002 — the same layers for all
    ) -> Model:
        return torchvision_detector(
            manifest, self.background, score_thresh=MIN_SCORE, detections_per_img=MAX_BOXES
        )

    def class_rows(self, model: Model) -> dict[str, ClassRows]:
        convolutions = model.head.classification_head.module_list.named_modules()
        anchors = model.anchor_generator.num_anchors_per_location()
        found = {}
        for name, layer in convolutions:
            # Those of ssdlite are preceded by a convolution that knows nothing of classes.
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
        # The second map is the end of the network that classifies; those after it are ever smaller.
        return Detected.of(candidates, maps[1], found, self.background)

    def losses(
        self, model: Model, images: Tensor, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Torchvision's, and one of the images without boxes, which have none there.

        SSD learns of background from the three hardest anchors for each that has an object, so
        from nothing where there is no object. Here an image without boxes has as many of them as
        the others have on average, at least three, and no more than there are.
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
            # Divided by what torchvision divides its own losses by.
            hard = background.topk(min(hardest, background.shape[1]), 1).values
            losses["negatives"] = hard.sum() / max(1, objects)
        return losses

    def backbone_name(self, name: str) -> str:
        """The layers up to the fourth pooling, then the rest."""
        found = re.fullmatch(r"features\.(\d+)\.(.*)", name)
        if found is None:
            return name
        after = int(found[1]) - 23
        return f"backbone.{name}" if after < 0 else f"backbone.extra.0.{after}.{found[2]}"


class SsdLite(Ssd):
    """SSD with depthwise convolutions on a mobilenet_v3_large."""

    last_strided = 13
    """The block of mobilenet_v3_large that leads from stride 16 to 32; it is cut in two."""

    of_wide_blocks = (960, 160, 1, 1)
    """The shape of a tensor that only a mobilenet_v3_large has whose last blocks are wide."""

    def build(self, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> Model:
        """As torchvision builds it, which builds it with its own pretrained weights only.

        Without such weights the last blocks are half as wide (Table 6 of the mobilenet's paper):
        from scratch, and in whole detectors that others have trained.
        """
        norm = partial(nn.BatchNorm2d, eps=0.001)
        if weights is None:
            wide = manifest.pretrained
        else:
            wide = any(tensor.shape == self.of_wide_blocks for tensor in weights.values())
        trunk = torchvision.models.mobilenet_v3_large(
            weights=None, norm_layer=norm, reduced_tail=not wide
        )
        backbone = SSDLiteFeatureExtractorMobileNet(trunk.features, self.last_strided, norm)
        anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
        size = (manifest.image_size, manifest.image_size)
        channels = retrieve_out_channels(backbone, size)
        head = SSDLiteHead(
            channels, anchors.num_anchors_per_location(), 1 + len(manifest.classes), norm
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
        """The blocks up to the first layer of the one that is cut in two, then the rest."""
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
