"""Mask mAP of predicted regions on drawn objects that touch each other: per class, part and object.

python measurements/instances.py
python measurements/instances.py --necks 0.6 0.7 0.75 0.8 0.9 --only-true --seed 1
python measurements/instances.py --mask-rcnn --device cuda
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from shared import print_header, print_row, say
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from cdal.backend.annotations import touching
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.masks import LabelMap, enlarge
from cdal.backend.annotations.parts import Part, parts_of
from cdal.backend.settings import ProjectSettings
from cdal.demo.scenes.brush import Brush
from cdal.demo.scenes.objects import OBJECTS, paint_colour
from cdal.demo.scenes.surroundings import SURROUNDINGS, Ground
from cdal.models import (
    BACKGROUND,
    Recipe,
    Segmentation,
    SegmentationNetwork,
    TaskNetwork,
    choose_device,
    fit,
    make_network,
)
from cdal.models.segmentation.architectures import MASK_RCNN

CELL = "cell"
CLASSES = (CELL, *OBJECTS)
NAMES = (*CLASSES, BACKGROUND)
CONTROL = Control("BrushLabels", "what", "image", "image", CLASSES)
WAYS: Mapping[str, ProjectSettings] = {
    "one region per class": ProjectSettings(),
    "per connected part": ProjectSettings(split_regions=True),
    "touching": ProjectSettings(split_regions="touching"),
}
SIZE = 256
FINENESS = 2


@dataclass(frozen=True)
class Crowd:
    """A drawn image of objects in rows, in which each touches or covers a little of the next.

    Attributes:
        image: (3, S, S) uint8.
        labels: the class of each, (K,).
        masks: the visible pixels of each, (K, S, S) bool.
    """

    image: Tensor
    labels: list[int]
    masks: npt.NDArray[np.bool_]

    @property
    def objects(self) -> Tensor:
        """The target of a network that learns objects, (2, S, S) int16."""
        target = np.stack((self.label_map, np.zeros_like(self.label_map))).astype(np.int16)
        for number, mask in enumerate(self.masks, start=1):
            target[1][mask] = number
        return torch.from_numpy(target)

    @property
    def label_map(self) -> LabelMap:
        found = np.full(self.masks.shape[1:], len(CLASSES), np.uint8)
        for label, mask in zip(self.labels, self.masks, strict=True):
            found[mask] = label
        return found


def draw(seed: int, index: int) -> Crowd:
    """Two to four rows of two to four objects of a class, side by side on one ground."""
    rng = Random(f"{seed}/{index}")
    ground = Ground(SIZE * FINENESS, rng)
    SURROUNDINGS[rng.choice(tuple(SURROUNDINGS))](ground)
    labels: list[int] = []
    masks: list[npt.NDArray[np.bool_]] = []
    rows = rng.randint(2, 4)
    for row in range(rows):
        label = rng.randrange(len(CLASSES))
        width, left = rng.uniform(0.12, 0.2), rng.uniform(0.1, 0.4)
        for _ in range(rng.randint(2, 4)):
            foot = (row + 0.9) / rows + rng.uniform(-0.03, 0.03)
            layer = _object(CLASSES[label], ground, left, foot, width * rng.uniform(0.85, 1.15))
            left += width * rng.uniform(0.75, 1.0)
            ground.image.paste(layer, mask=layer)
            small = layer.getchannel("A").resize((SIZE, SIZE), Image.Resampling.BOX)
            mask = np.asarray(small) >= 128
            for other in masks:
                other &= ~mask
            labels.append(label)
            masks.append(mask)
    seen = [number for number, mask in enumerate(masks) if mask.sum() > 30]
    image = np.asarray(ground.image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    return Crowd(
        torch.from_numpy(image.copy()).permute(2, 0, 1),
        [labels[number] for number in seen],
        np.stack([masks[number] for number in seen]),
    )


def _object(name: str, ground: Ground, x: float, foot: float, width: float) -> Image.Image:
    rng, side = ground.rng, ground.pixels
    brush = Brush(
        side,
        origin=(x * side, foot * side),
        scale=width * side / 2,
        degrees=rng.uniform(-8, 8),
        mirrored=rng.random() < 0.5,
    )
    if name == CELL:
        colour = paint_colour(rng)
        brush.ellipse(colour, (0, 1), (rng.uniform(0.8, 1.05), rng.uniform(0.8, 1.05)))
    else:
        OBJECTS[name](brush, rng)
    return brush.layer


def judged(
    maps: Sequence[Segmentation], crowds: Sequence[Crowd], settings: ProjectSettings
) -> tuple[float, float, dict[str, float], int]:
    """Mask mAP, mask mAP@0.5, mAP@0.5 of each class, and the number of regions."""
    meters = [MeanAveragePrecision(iou_type="segm", class_metrics=True) for _ in range(2)]
    at_50 = MeanAveragePrecision(iou_type="segm", iou_thresholds=[0.5], class_metrics=True)
    count = 0
    for found, crowd in zip(maps, crowds, strict=True):
        regions = list(_regions(found, settings))
        count += len(regions)
        said = {
            "masks": torch.from_numpy(
                np.stack([mask for mask, _, _ in regions])
                if regions
                else np.zeros((0, SIZE, SIZE), np.bool_)
            ),
            "scores": torch.tensor([score for _, _, score in regions]),
            "labels": torch.tensor([label for _, label, _ in regions], dtype=torch.int64),
        }
        true = {"masks": torch.from_numpy(crowd.masks), "labels": torch.tensor(crowd.labels)}
        for meter in (meters[0], at_50):
            meter.update([said], [true])
    each = at_50.compute()
    classes = {
        CLASSES[label]: value
        for label, value in zip(
            each["classes"].tolist(), each["map_per_class"].tolist(), strict=True
        )
    }
    return float(meters[0].compute()["map"]), float(each["map"]), classes, count


def _regions(
    found: Segmentation, settings: ProjectSettings
) -> Iterator[tuple[npt.NDArray[np.bool_], int, float]]:
    """The mask, the class and the confidence of each region that would be written."""
    parts = list(parts_of(found, CONTROL, NAMES, settings))
    groups: list[list[Part]] = [[part] for part in parts]
    if found.objects is not None:
        groups = [[p for p in parts if p.number == n] for n in {p.number for p in parts}]
    elif not settings.split_regions:
        groups = [[p for p in parts if p.value == value] for value in {p.value for p in parts}]
    for group in groups:
        mask = np.zeros(found.labels.shape, np.bool_)
        for part in group:
            mask[part.window] |= part.mask > 0
        area = sum(part.area for part in group)
        yield mask, group[0].value, sum(part.confidence * part.area for part in group) / area


def report(
    maps: Sequence[Segmentation],
    crowds: Sequence[Crowd],
    what: str,
    ways: Mapping[str, ProjectSettings] = WAYS,
) -> None:
    for way, settings in ways.items():
        whole, at_50, classes, count = judged(maps, crowds, settings)
        cells = (what, way, str(count), f"{whole:.3f}", f"{at_50:.3f}")
        print_row([*cells, *(f"{classes.get(name, 0):.2f}" for name in CLASSES)])


def predicted(crowds: Sequence[Crowd], network: TaskNetwork) -> list[Segmentation]:
    """A network's label maps, at the images' size."""
    found = []
    for crowd in crowds:
        (finding,) = network.predict(network.prepare(crowd.image)[None]).findings()
        assert isinstance(finding, Segmentation)
        labels = enlarge(finding.labels.numpy(), (SIZE, SIZE))
        found.append(Segmentation(torch.from_numpy(labels), finding.confidences, finding.objects))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="to measure on")
    parser.add_argument("--train", type=int, default=150, help="to train a head on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--necks", type=float, nargs="+", default=[touching.NECK])
    parser.add_argument("--only-true", action="store_true", help="only the true class maps")
    parser.add_argument("--mask-rcnn", action="store_true", help="Mask R-CNN instead of a head")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    crowds = [draw(arguments.seed, index) for index in range(arguments.images)]
    say(f"{sum(len(crowd.labels) for crowd in crowds)} objects in {len(crowds)} images")
    print_header(("class maps", "regions", "count", "mask mAP", "mask mAP@0.5", *CLASSES))
    sure = torch.ones(1, 1)
    true = [Segmentation(torch.from_numpy(crowd.label_map), sure) for crowd in crowds]
    for neck in arguments.necks:
        vars(touching)["NECK"] = neck
        report(true, crowds, "true" if len(arguments.necks) == 1 else f"true, neck {neck:g}")
    if arguments.only_true:
        return
    learnt = [draw(arguments.seed + 1000, index) for index in range(arguments.train)]
    if arguments.mask_rcnn:
        device = choose_device(arguments.device)
        masks = make_network("segmentation", MASK_RCNN, NAMES, SIZE, device)
        fit(masks, [(crowd.image, crowd.objects) for crowd in learnt], None, Recipe())
        report(predicted(crowds, masks), crowds, "of Mask R-CNN", {"its objects": WAYS["touching"]})
        return
    network = make_network(
        task="segmentation",
        architecture="timm:tf_efficientnet_lite0",
        classes=NAMES,
        image_size=SIZE,
        pretrained=True,
    )
    assert isinstance(network, SegmentationNetwork)
    examples = [(crowd.image, torch.from_numpy(crowd.label_map)) for crowd in learnt]
    fit(network, examples, None, Recipe())
    report(predicted(crowds, network), crowds, "of a head")


if __name__ == "__main__":
    main()
