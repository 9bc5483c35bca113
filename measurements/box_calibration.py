"""Would a temperature make a detection head's boxes mean what they say, and which images change?

    python measurements/box_calibration.py --data ../shared/data/bccd.zip --threads 1
    python measurements/box_calibration.py --data ../shared/data/bccd.zip --images 24 --curve 24

Heads learn from four fifths of the labelled images. The other fifth teaches a temperature, and a
temperature with a shift of the logits (Platt), by the cross entropy of whether found boxes are
right; and a temperature by the cross entropy of the class of boxes before non-maximum suppression
that lie on an object. Validation images are drawn from the training images and are in nobody's
labels. A row has the calibration error of found boxes, that of the classes of boxes on an object,
of which class mixtures are made, the F1 of the boxes that are shown from each of the CUTS, and how
many of 16 picks of CDAL-CS are the same. For the numbers of labels of --curve, it also has the
mAP@0.5 of a head that learns from the labels and these picks; the fitted scalings are left out.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from heads import calibration, matched
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from cdal.datasets import LabelledImages, open_images
from cdal.models import Recipe, choose_device, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.detection.boxes import within
from cdal.models.detection.head import OVERLAP, DetectionHead, suppressed
from cdal.models.detection.places import Places
from cdal.models.detection.regions import BoxCandidates
from cdal.models.features import LabelledFeatures
from cdal.selectors import Pool, make_selector, mixtures_of_boxes

VALIDATION = 0.3
MOST_LABELS = 52
"""Labels are drawn from as many images, and picks from the others."""

MOST_PLACES = 600
"""Of an image's places, the most confident ones count."""

PICKS = 16

CUTS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
"""Confidences from which boxes are shown."""

Scaling = tuple[float, float]
"""The factor and the shift of all logits; the temperature is one divided by the factor."""

AS_THEY_ARE: Scaling = (1.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a head says about images, (A, C) logits and (A, 4) boxes each, and their targets."""

    logits: Sequence[Tensor]
    boxes: Sequence[Tensor]
    targets: Sequence[Tensor]

    def found(self) -> tuple[Tensor, Tensor]:
        """Confidences of found boxes, and whether they are right, (K,) each."""
        confidences, right = [], []
        for logits, boxes, target in zip(self.logits, self.boxes, self.targets, strict=True):
            kept = suppressed(logits.sigmoid(), boxes)
            confidences.append(kept.scores)
            right.append(matched(kept.boxes, kept.labels, target))
        return torch.cat(confidences), torch.cat(right)

    def scaled(self, by: Scaling) -> Judged:
        """The same with all logits scaled."""
        factor, shift = by
        return Judged([each * factor + shift for each in self.logits], self.boxes, self.targets)

    def precision(self, network: DetectionHead) -> float:
        """The mAP@0.5 of found boxes."""
        found = []
        for logits, boxes in zip(self.logits, self.boxes, strict=True):
            kept = suppressed(logits.sigmoid(), boxes)
            found.append({"boxes": kept.boxes, "labels": kept.labels, "scores": kept.scores})
        return network.metrics_of(found, self.targets).main

    def f1(self) -> list[float]:
        """The F1 of found boxes of all classes, from each of the ``CUTS``."""
        confidence, right = self.found()
        objects = sum(map(len, self.targets))
        shown = [confidence >= cut for cut in CUTS]
        return [2 * float(right[each].sum()) / (int(each.sum()) + objects) for each in shown]

    def on_objects(self) -> tuple[Tensor, Tensor]:
        """The logits (K, C) of regions that lie on an object, and its class, (K,)."""
        found, true = [], []
        for logits, boxes, target in zip(self.logits, self.boxes, self.targets, strict=True):
            vectors = logits.sigmoid()
            best = vectors.amax(1).topk(100).indices
            best = best[vectors[best].amax(1) >= 0.05]
            if not len(best) or not len(target):
                continue
            overlap, which = box_iou(boxes[best], target[:, :4]).max(1)
            on = overlap >= OVERLAP
            found.append(logits[best[on]])
            true.append(target[which[on], 4].long())
        return torch.cat(found), torch.cat(true)


@torch.inference_mode()
def judged(network: DetectionHead, images: LabelledFeatures) -> Judged:
    """What a head says before its probabilities are made."""
    logits, boxes = [], []
    for image in images.features:
        ((_, maps),) = network.alike([image])
        size = network.merged_size([image])
        places = Places.of(size, network.device)
        shown = places.inside(image.content)
        said, distances = network.module(maps, size)
        said, found = said[0][shown].float(), places.boxes(distances[0].float())[shown]
        best = said.amax(1).topk(min(MOST_PLACES, len(said))).indices
        logits.append(said[best])
        boxes.append(within(found[best], image.content))
    return Judged(logits, boxes, images.targets)


def scaling(confidence: Tensor, right: Tensor, shifted: bool) -> Scaling:
    """The scaling of logits with the lowest cross entropy."""
    logits = confidence.double().logit()
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    learnt = [factor, shift] if shifted else [factor]
    optimiser = torch.optim.LBFGS(learnt, max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = functional.binary_cross_entropy_with_logits(logits * factor + shift, right.double())
        torch.autograd.backward(found)
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return float(factor.detach()), float(shift.detach())


def shares(logits: Tensor) -> Tensor:
    """What Eq. 1 takes of boxes: the sigmoids of the classes, divided by their sum."""
    return functional.normalize(logits.sigmoid(), p=1, dim=1)


def class_scaling(logits: Tensor, true: Tensor) -> Scaling:
    """The temperature, from a quarter to four, with the lowest cross entropy of the class."""

    def loss(factor: float) -> float:
        of_class = shares(logits * factor)[torch.arange(len(true)), true]
        return -float(of_class.clamp(min=1e-9).log().mean())

    return min((2 ** (step / 4) for step in range(-8, 9)), key=loss), 0.0


def class_calibration(logits: Tensor, true: Tensor) -> tuple[float, float]:
    """Calibration of the classes of regions that lie on an object."""
    confidence, label = shares(logits).max(1)
    return calibration(confidence, label == true)


def picks(labelled: Judged, pool: Judged, seed: int) -> list[int]:
    """Rows of the pool that CDAL-CS picks."""
    vectors = [each.sigmoid() for each in (*labelled.logits, *pool.logits)]
    mixtures = mixtures_of_boxes(BoxCandidates.of(vectors, background=0).regions())
    known = torch.arange(len(vectors)) < len(labelled.logits)
    seen = Pool(mixtures.mixtures, mixtures.present, known)
    selection = make_selector("cdal-cs").select(seen, PICKS, seed)
    return [pick.index - len(labelled.logits) for pick in selection.picks]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", nargs="+", type=int, default=[8, 24, 52])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--curve", nargs="+", type=int, default=[], help="train on the picks, too")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = open_images(options.data, "detection")
    examples = list(images.train)
    random.Random(1234).shuffle(examples)
    apart = int(VALIDATION * len(examples))

    def head(seed: int) -> DetectionHead:
        device = choose_device("auto")
        made = make_network("detection", DEFAULT_BACKBONE, images.classes, None, device, seed)
        assert isinstance(made, DetectionHead)
        return made

    first = head(0)
    data = first.read(LabelledImages(images, examples), lambda: False)
    features, targets = first.seen(data, lambda: False)

    def some(rows: Sequence[int]) -> LabelledFeatures:
        of_rows = [features[row] for row in rows], [targets[row] for row in rows]
        return LabelledFeatures(first.extraction, *of_rows)

    def trained(rows: Sequence[int], seed: int) -> DetectionHead:
        network = head(seed)
        fit(network, some(rows), None, Recipe(seed=seed))
        return network

    validation, others = some(range(apart)), range(apart, len(examples))
    print(
        "| labels | seed | what | scaling | boxes | class of regions | mAP@0.5 "
        f"| F1 from {', '.join(map(str, CUTS))} | picks left | mAP@0.5 with these |"
    )
    print("|---" * 10 + "|")
    for seed in options.seeds:
        order = list(others)
        random.Random(seed).shuffle(order)
        for count in options.images:
            labels, rest = order[:count], order[MOST_LABELS:]
            held = round(count / 5)
            network = trained(labels[held:], seed)
            held_out = judged(network, some(labels[:held]))
            confidence, right = held_out.found()
            scalings = {"as they are": AS_THEY_ARE, "temperature 1/2": (2.0, 0.0)}
            if count not in options.curve:
                scalings |= {
                    "temperature": scaling(confidence, right, shifted=False),
                    "temperature and shift": scaling(confidence, right, shifted=True),
                    "temperature of the class": class_scaling(*held_out.on_objects()),
                }
            said = judged(network, validation)
            known, pool = judged(network, some(labels)), judged(network, some(rest))
            before = picks(known, pool, seed)
            confidence, right = said.found()
            for what, by in scalings.items():
                factor, shift = by
                error, excess = calibration((confidence.logit() * factor + shift).sigmoid(), right)
                scaled = said.scaled(by)
                of_class = class_calibration(*scaled.on_objects())
                now = picks(known.scaled(by), pool.scaled(by), seed)
                quality = ""
                if count in options.curve:
                    learner = trained([*labels, *(rest[row] for row in now)], seed)
                    quality = f"{learner.evaluate(validation).main:.3f}"
                row = (
                    f"{count} | {seed} | {what} | {factor:.2f}, {shift:+.2f} | "
                    f"{error:.3f}, {excess:+.3f} | {of_class[0]:.3f}, {of_class[1]:+.3f} | "
                    f"{scaled.precision(network):.3f} | "
                    f"{', '.join(f'{f1:.3f}' for f1 in scaled.f1())} | "
                    f"{len(set(before) & set(now))} of {PICKS} | {quality}"
                )
                print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
