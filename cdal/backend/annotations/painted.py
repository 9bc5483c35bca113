"""What brushes and bitmasks share: predictions as one mask of the image's size per region."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import Region
from cdal.backend.annotations.masks import LabelMap, Mask, enlarge, shares
from cdal.backend.annotations.parts import Part, parts_of
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import IGNORED, Segmentation


def regions_of_masks(
    control: Control,
    classes: Sequence[str],
    finding: Segmentation,
    size: tuple[int, int],
    settings: ProjectSettings,
    kind: str,
    value_of: Callable[[Mask], dict[str, Any]],
) -> list[Region]:
    """A region for each class, for each of its connected parts, or for each object, where the
    network tells objects apart; the largest first.

    Args:
        control: see `Format.to_result`, as are the next four.
        classes: the model version's.
        finding: the label map.
        size: of the image.
        settings: say whether classes are split.
        kind: what the ids of the regions begin with.
        value_of: encodes a mask.
    """
    result: list[Region] = []
    for name, mask, confidence in _masks_of(control, classes, finding, size, settings):
        result.append(
            {
                "id": f"{kind}{len(result)}",
                "from_name": control.from_name,
                "to_name": control.to_name,
                "type": control.tag.lower(),
                "original_width": size[1],
                "original_height": size[0],
                "image_rotation": 0,
                "value": {**value_of(mask), control.tag.lower(): [name]},
                "score": round(confidence, 4),
            }
        )
    return result


def _masks_of(
    control: Control,
    classes: Sequence[str],
    finding: Segmentation,
    size: tuple[int, int],
    settings: ProjectSettings,
) -> Iterator[tuple[str, Mask, float]]:
    """The class, the mask and the confidence of each region."""
    parts = list(parts_of(finding, control, classes, settings))
    told_apart = finding.objects is not None
    groups = (
        [[part] for part in parts]
        if settings.split_regions and not told_apart
        else [list(group) for _, group in groupby(parts, attrgetter("value", "number"))]
    )
    groups.sort(key=lambda group: -sum(part.area for part in group))
    shape = finding.labels.shape[0], finding.labels.shape[1]
    large = enlarge(_painted(parts, shape), size)
    several = settings.split_regions or told_apart
    owners = _owners(groups, shape, large, size) if several else None
    for number, group in enumerate(groups):
        area = sum(part.area for part in group)
        confidence = sum(part.confidence * part.area for part in group) / area
        if confidence < (control.score_threshold or 0):
            continue
        mask = (large == group[0].value).view(np.uint8)
        if owners is not None:
            mask &= owners == number
        if mask.any():  # the image may be much smaller than the map
            yield classes[group[0].value], mask, confidence


def _owners(
    groups: Sequence[Sequence[Part]],
    shape: tuple[int, int],
    large: LabelMap,
    size: tuple[int, int],
) -> npt.NDArray[np.int32]:
    """Of the groups of each pixel's class, the one that covers most of its surroundings, (H, W).

    Args:
        groups: the parts of each region.
        shape: height and width of the label map that they are parts of.
        large: the class of each pixel of the image, (H, W).
        size: H and W.
    """
    owners = np.full(size, -1, np.int32)
    most = np.zeros(size, np.uint8)
    for number, group in enumerate(groups):
        own = (_painted(group, shape) != IGNORED).view(np.uint8)
        share = shares(own, size) * (large == group[0].value)
        np.copyto(owners, number, where=share > most)
        np.maximum(most, share, out=most)
    return owners


def _painted(parts: Iterable[Part], size: tuple[int, int]) -> LabelMap:
    """The parts, painted on an empty map."""
    labels = np.full(size, IGNORED, np.uint8)
    for part in parts:
        labels[part.window][part.mask > 0] = part.value
    return labels
