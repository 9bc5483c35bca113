"""A control that is served: a tag whose labels a model learns and predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from unicodedata import normalize

ControlTask = Literal["classification", "multilabel", "detection", "segmentation"]

SERVED: Mapping[str, ControlTask] = {
    "Choices": "classification",
    "RectangleLabels": "detection",
    "BrushLabels": "segmentation",
    "BitmaskLabels": "segmentation",
    "PolygonLabels": "segmentation",
}
"""Control tags that this backend serves, each with its task."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control that is served: predictions go from it to its image.

    Attributes:
        tag: its tag, for example ``Choices``.
        from_name: the control's name.
        to_name: the image's name.
        image_key: where a task's ``data`` has the image.
        labels: the classes, in the config's order.
        score_threshold: regions with a lower confidence are not shown (the tag's
            ``model_score_threshold``); None if the tag has none.
        known_as: further names under which models and annotations may know a label: its
            ``predicted_values``, and its ``value`` where an ``alias`` stands for it.
        controls: the names of all controls of the labeling config.
        multiple: whether an image may have several labels, or none (``choice="multiple"``).
        beside: the names of the other controls that are served.
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
    controls: frozenset[str] = field(default=frozenset(), compare=False)
    multiple: bool = False
    beside: frozenset[str] = field(default=frozenset(), compare=False)
    _exact: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _folded: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [(name, label) for label in reversed(self.labels) for name in self._known(label)]
        exact = {**dict(names), **{label: label for label in self.labels}}
        folded: dict[str, set[str]] = {}
        for name, label in exact.items():
            folded.setdefault(_fold(name), set()).add(label)
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(
            self, "_folded", {name: found.pop() for name, found in folded.items() if len(found) < 2}
        )

    @property
    def task(self) -> ControlTask:
        """The task of its networks."""
        return "multilabel" if self.multiple else SERVED[self.tag]

    def label_of(self, name: object) -> str | None:
        """The label that a name stands for; None if there is none.

        That is the label itself, the first label that lists it among its further names, or else the
        only label of which either differs in nothing but case, white space and how Unicode encodes
        its characters: "é" as one character or as two.
        """
        if not isinstance(name, str):
            return None
        return self._exact.get(name) or self._folded.get(_fold(name))

    def names_of(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The labels of a model's classes, or a class's own name where it has none."""
        return tuple(self.label_of(name) or name for name in classes)

    def former_names(self, classes: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """For each label, the names under which a model may know it, the most likely first.

        These are its further names, and those of the model's classes that stand for it.
        """
        return {
            label: (
                *self.known_as.get(label, ()),
                *(name for name in classes if self.label_of(name) == label),
            )
            for label in self.labels
        }

    def _known(self, label: str) -> tuple[str, ...]:
        """A label's further names, without those that are labels themselves."""
        return tuple(name for name in self.known_as.get(label, ()) if name not in self.labels)


def _fold(name: str) -> str:
    return normalize("NFKC", " ".join(normalize("NFKC", name).split()).casefold())
