"""The interface of the formats, predictions out and annotations in, and what they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.settings import ProjectSettings

Region = dict[str, Any]
"""One entry of a Label Studio `result` list."""

LONGEST_SIDE = 65_535
"""Pixels; no browser shows an image with a longer side."""


class Truth(Protocol):
    """What a submitted annotation says about its image, small enough to keep many."""

    @property
    def classes(self) -> frozenset[str]:
        """The labels in the annotation."""

    @property
    def dropped(self) -> int:
        """Number of regions that were left out as damaged or too small to mean anything."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for people about regions that were changed."""

    def unseen(self, side: int) -> int:
        """Number of regions that are too small for a network whose input has this side."""

    def target(self, height: int, width: int) -> Tensor:
        """The target of a network for the image at this size, see `cdal.models.predictions`."""

    def digest(self) -> str:
        """A short text that changes when the content of the annotation changes."""


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

    def read(
        self, control: Control, result: Sequence[Any], settings: ProjectSettings
    ) -> Truth | None:
        """What an annotation says; None if nothing can be learnt from it.

        This does not raise, whatever JSON ``result`` contains: damaged regions are left out.
        """


def regions_of(
    control: Control, result: object
) -> Iterator[tuple[Mapping[str, Any], str | None, Mapping[str, Any]]]:
    """The control's regions, each with its label and value.

    Of several labels, the first that the control knows counts; None if it knows none of them.
    """
    kind = control.tag.lower()
    for region in result if isinstance(result, list | tuple) else ():
        if not isinstance(region, Mapping) or region.get("from_name") != control.from_name:
            continue
        value = region.get("value")
        if region.get("type") != kind or not isinstance(value, Mapping):
            continue
        given = value.get(kind)
        names = given if isinstance(given, list | tuple) else ()
        yield region, next((name for name in names if name in control.labels), None), value


def original_size(region: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the annotated image; None if the region does not contain them."""
    size = region.get("original_height"), region.get("original_width")
    if all(type(side) is int and 0 < side <= LONGEST_SIDE for side in size):
        return size  # type: ignore[return-value]
    return None


def number(value: object) -> float | None:
    """The value as a finite number; None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return value if math.isfinite(value) else None


def counting_annotation(annotations: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The annotation of a task that models learn from; None if there is none.

    Of several submitted annotations, the ground truth counts, otherwise the latest. Skipped ones
    never count.
    """
    submitted = [a for a in annotations if not a.get("was_cancelled")]
    return max(
        submitted,
        key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")),
        default=None,
    )
