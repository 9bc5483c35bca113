"""The interface of the formats, predictions out and annotations in, and what they share."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.settings import ProjectSettings
from cdal.text import one_line

Region = dict[str, Any]
"""One entry of a Label Studio `result` list."""

LONGEST_SIDE = 65_535
"""Pixels; no browser shows an image with a longer side."""

DAMAGED = "damaged"
UNKNOWN = "with the unknown label"
TOO_SMALL = "less than a pixel wide or high"
WITHOUT_PIXEL = "covering no pixel"


class Truth(Protocol):
    """What a submitted annotation says about its image, small enough to keep many."""

    @property
    def classes(self) -> frozenset[str]:
        """The labels in the annotation."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for people about regions that were changed."""

    def unseen(self, height: int, width: int) -> int:
        """Number of regions too small for a network that sees the image at this size."""

    def target(self, height: int, width: int) -> Tensor:
        """The target of a network for the image at this size, see `cdal.models.predictions`."""

    def fit(self, height: int, width: int) -> tuple[Tensor | None, Sequence[str]]:
        """The target, or None if nothing is left to learn at this size; and why further regions
        were left out, which shows only at the image's size.
        """

    def digest(self) -> str:
        """A short text that changes when the content of the annotation changes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of an annotation.

    Attributes:
        truth: what it teaches; None if nothing.
        left_out: for each region that cannot be read, what is wrong with it, as words that fit
            behind "a region".
        sizes: heights and widths of the image as the annotated regions name them.
    """

    truth: Truth | None
    left_out: tuple[str, ...] = ()
    sizes: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Labelled:
    """A region of the control that is served.

    Attributes:
        region: the region.
        value: its value.
        label: its label; None if that is not known.
        why: what is wrong with a region of which no label is known; "" otherwise.
    """

    region: Mapping[str, Any]
    value: Mapping[str, Any]
    label: str | None
    why: str = ""


class Format(Protocol):
    """How one kind of control writes predictions and reads annotations; implemented by modules."""

    def to_result(
        self,
        control: Control,
        classes: Sequence[str],
        finding: Any,
        size: tuple[int, int],
        settings: ProjectSettings,
    ) -> list[Region]:
        """A prediction's regions.

        Args:
            control: the control that they are shown in.
            classes: the model version's classes in order; a class that is not a label of the
                control, such as ``BACKGROUND``, gives no region.
            finding: the network's output, of the kind of the control's task.
            size: height and width of the image in pixels, as it is shown.
            settings: the project's settings.
        """

    def read(self, control: Control, result: Sequence[Any], settings: ProjectSettings) -> Reading:
        """What an annotation says.

        This does not raise, whatever JSON ``result`` contains. A region that cannot be read is
        left out, and nothing is learnt of what it may cover.
        """


def regions_of(control: Control, result: object) -> Iterator[Labelled]:
    """The control's regions, and drawn ones of controls that the labeling config no longer has."""
    for region in result if isinstance(result, list | tuple) else ():
        found = _labelled(control, region)
        if found is not None:
            yield found


def _labelled(control: Control, region: object) -> Labelled | None:
    """A region with its label; None if it is another control's, or no region, as a relation is."""
    if not isinstance(region, Mapping):
        return Labelled({}, {}, None, DAMAGED)
    name, kind, own = region.get("from_name"), region.get("type"), control.tag.lower()
    if name != control.from_name:
        if isinstance(name, str) and name in control.controls:
            return None
        if kind != own and (control.tag == "Choices" or not _is_drawn(kind)):
            return None
        return Labelled(region, {}, None, f'of a control "{_short(name)}", which is not there')
    value = region.get("value")
    if kind != own:
        return Labelled(region, {}, None, f'of the type "{_short(kind)}", not "{own}"')
    if not isinstance(value, Mapping):
        return Labelled(region, {}, None, DAMAGED)
    given = value.get(own)
    names = given if isinstance(given, list | tuple) else ()
    if not names:
        return Labelled(region, value, None, "without a label")
    labels = [control.label_of(name) for name in names]
    if None in labels:
        unknown = names[labels.index(None)]
        return Labelled(region, value, None, f'{UNKNOWN} "{_short(unknown)}"')
    if len(set(labels)) > 1:
        return Labelled(region, value, None, "with several labels")
    return Labelled(region, value, labels[0])


def is_of_others(control: Control, result: Iterable[object]) -> bool:
    """Whether there are regions of other controls that are served, and none of this one.

    Somebody labelled those, and said nothing about this one.
    """
    names = {region.get("from_name") for region in _named(result)}
    return not control.beside.isdisjoint(names) and control.from_name not in names


def _named(result: Iterable[object]) -> Iterator[Mapping[str, Any]]:
    """The regions that name their control."""
    for region in result:
        if isinstance(region, Mapping) and isinstance(region.get("from_name"), str):
            yield region


def labels_of(control: Control, value: Mapping[str, Any]) -> frozenset[str] | None:
    """The labels that a region names, all of which must be known; None if one is not, or none."""
    given = value.get(control.tag.lower())
    names = given if isinstance(given, list | tuple) else ()
    labels = {control.label_of(name) for name in names}
    known = frozenset(label for label in labels if label is not None)
    return known if known and len(known) == len(labels) else None


_SHAPES = ("rectangle", "polygon", "brush", "ellipse", "keypoint", "bitmask", "vector", "magicwand")


def _is_drawn(kind: object) -> bool:
    """Whether regions of a type cover a part of the image: "rectangle", "rectanglelabels", ..."""
    return isinstance(kind, str) and kind.removesuffix("labels") in _SHAPES


def _short(name: object) -> str:
    return one_line(name if isinstance(name, str) else "", 60)


def original_size(region: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the annotated image; None if the region does not contain them."""
    height, width = (_side(region.get(f"original_{side}")) for side in ("height", "width"))
    return None if height is None or width is None else (height, width)


def sizes_of(regions: Iterable[Labelled]) -> frozenset[tuple[int, int]]:
    """The sizes of the annotated image that regions name."""
    found = map(original_size, (each.region for each in regions))
    return frozenset(size for size in found if size is not None)


def _side(given: object) -> int | None:
    """A side in pixels; some tools write whole numbers as 64.0."""
    side = number(given)
    if side is None or side != int(side) or not 0 < side <= LONGEST_SIDE:
        return None
    return int(side)


def number(value: object) -> float | None:
    """The value as a finite number; None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return value if math.isfinite(value) else None


def mark_of(control: Control, annotations: Iterable[Mapping[str, Any]]) -> str | None:
    """A hash of what a task's annotations say about its image; None if they say nothing.

    It changes if a label is corrected, if another opinion comes, or if another annotation becomes
    the ground truth. Ids of regions, regions of controls that are not served and whatever else
    models do not learn from are left out.

    Args:
        control: any of those that are served.
        annotations: of the task.
    """
    counting = counting_annotations(annotations)
    if not counting:
        return None
    said = [_said(control, annotation.get("result")) for annotation in counting]
    try:
        texts = [json.dumps(regions, sort_keys=True, default=str) for regions in said]
    except RecursionError:  # nested more deeply than any region is
        return None
    text = texts[0] if len(texts) == 1 else json.dumps(sorted(texts))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _said(control: Control, result: object) -> list[object]:
    return [
        {key: region.get(key) for key in SAYING} if isinstance(region, Mapping) else region
        for region in (result if isinstance(result, list | tuple) else ())
        if _labelled(control, region) is not None or _is_beside(control, region)
    ]


def _is_beside(control: Control, region: object) -> bool:
    return any(each["from_name"] in control.beside for each in _named([region]))


SAYING = ("from_name", "type", "value", "original_width", "original_height")
"""The keys of a region that say something about the image."""


def counting_annotations(
    annotations: Iterable[Mapping[str, Any]],
) -> list[Mapping[str, Any]]:
    """The annotations of a task that models learn from, the latest last.

    The ground truth counts alone; otherwise the latest of each annotator, of whom those that are
    not known are one. Skipped ones never count.
    """
    submitted = sorted(
        (one for one in annotations if not one.get("was_cancelled")),
        key=lambda one: str(one.get("updated_at") or ""),
    )
    truths = [one for one in submitted if one.get("ground_truth")]
    if truths:
        return truths[-1:]
    # Of each person the latest, where that one stands among the others'.
    latest = {person_of(one): one for one in submitted}
    return [one for one in submitted if latest[person_of(one)] is one]


def person_of(annotation: Mapping[str, Any]) -> int | None:
    """The number of an annotation's author, whom Label Studio names by it or as a whole user."""
    given = annotation.get("completed_by")
    number = given.get("id") if isinstance(given, Mapping) else given
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    return number if 0 <= number < 2**63 else None
