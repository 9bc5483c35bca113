"""What each kind of control needs: predictions out, annotations in."""

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
    """What a submitted annotation says of its image, small enough to keep many."""

    @property
    def classes(self) -> frozenset[str]:
        """The labels that occur."""

    @property
    def dropped(self) -> int:
        """Regions that were left out since they are damaged, or too small to mean anything."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for people about regions that were not taken as they are."""

    def unseen(self, side: int) -> int:
        """Regions that are too small to be learnt where a network sees the image at this side."""

    def target(self, height: int, width: int) -> Tensor:
        """What a network is to say of the image at this size, see `cdal.models.predictions`."""

    def digest(self) -> str:
        """A short text that changes when the annotation says something else."""


class Format(Protocol):
    """How one kind of control writes predictions and reads annotations; a module is one."""

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
            classes: the model version's classes in order; one that is no label of the control
                (any more), such as ``BACKGROUND``, gives no region.
            finding: what the network says, of the kind that belongs to the control's task.
            size: height and width of the image in pixels, as it is shown.
            settings: of the project.
        """

    def read(
        self, control: Control, result: Sequence[Any], settings: ProjectSettings
    ) -> Truth | None:
        """What an annotation says; None if nothing can be learnt from it.

        Whatever the JSON of ``result`` holds, this does not raise: what is damaged is left out.
        """


def regions_of(
    control: Control, result: object
) -> Iterator[tuple[Mapping[str, Any], str | None, Mapping[str, Any]]]:
    """The control's own regions, with their label and value.

    A region of several labels has the first that the control knows; the label of one that the
    labeling config no longer has is None.
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
    """Height and width of the image that was annotated, None where the region doesn't say."""
    size = region.get("original_height"), region.get("original_width")
    if all(type(side) is int and 0 < side <= LONGEST_SIDE for side in size):
        return size  # type: ignore[return-value]
    return None


def number(value: object) -> float | None:
    """A finite number of a JSON document, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return value if math.isfinite(value) else None


def counting_annotation(annotations: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The annotation of a task that models learn from, None where it has none.

    Of several submitted annotations the ground truth counts, else the latest; skipped ones never
    do.
    """
    submitted = [a for a in annotations if not a.get("was_cancelled")]
    return max(
        submitted,
        key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")),
        default=None,
    )
