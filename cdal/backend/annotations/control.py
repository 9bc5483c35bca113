"""The control that is served: the tag whose labels a model learns and predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

ControlTask = Literal["classification", "detection", "segmentation"]

SERVED: Mapping[str, ControlTask] = {
    "Choices": "classification",
    "RectangleLabels": "detection",
    "BrushLabels": "segmentation",
    "PolygonLabels": "segmentation",
}
"""Control tags that this backend serves, each with its task."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control that is served: predictions go from it to its image.

    Attributes:
        tag: its tag, for example ``Choices``.
        from_name: the control's name.
        to_name: the image's name.
        image_key: where a task's ``data`` has the image.
        labels: the classes, in the config's order.
        score_threshold: regions with a lower confidence are not shown (the tag's
            ``model_score_threshold``); None if the tag has none.
        known_as: further names under which a model may know a label (its ``predicted_values``).
    """

    tag: str
    from_name: str
    to_name: str
    image_key: str
    labels: tuple[str, ...]
    score_threshold: float | None = None
    known_as: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )

    @property
    def task(self) -> ControlTask:
        """The task of its networks."""
        return SERVED[self.tag]

    def names_of(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The labels of a model's classes: a class may be one of a label's further names."""
        labels = {name: label for label in reversed(self.labels) for name in self._known(label)}
        return tuple(labels.get(name, name) for name in classes)

    def _known(self, label: str) -> tuple[str, ...]:
        """A label's further names, without those that are labels themselves."""
        return tuple(name for name in self.known_as.get(label, ()) if name not in self.labels)
