"""Reports on the quality of a network and on its training, as JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cdal.models.recipe import Plan, Recipe


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well a network recognises one class.

    Attributes:
        count: the number of images, pixels or boxes of that class.
        score: for classification the share that is recognised, or, if classes are independent, the
            F1 score; for segmentation the intersection over union; for detection the average
            precision at 0.5. None if there are none.
    """

    count: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The quality of a network on N labelled images.

    Attributes:
        main_name: the key in ``values`` by which networks are compared; higher is better.
        values: by name. For classification: "accuracy", "macro_accuracy" (the mean over the
            classes that have images) and "loss" (cross entropy, nats). For multi-label
            classification: "macro_f1" and "map" (means over the classes that images have) and
            "loss" (binary cross entropy, nats, summed over the classes). For segmentation: those
            of classification, per pixel, and "miou", the mean intersection over union of the
            classes that have pixels. For detection: "map_50" and "map", see ``AveragePrecision``.
        per_class: by class name.
        confusion: the number of images, pixels or boxes whose class is the row's and that were
            predicted as the column's; for detection, the last column counts missed objects. Empty
            if classes are independent.
        images: N.
    """

    main_name: str
    values: Mapping[str, float]
    per_class: Mapping[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...]
    images: int

    @property
    def main(self) -> float:
        """The value of the main metric."""
        return self.values[self.main_name]

    def overall(self) -> dict[str, Any]:
        """What does not grow with the classes, as JSON data."""
        return {
            "main_name": self.main_name,
            "values": dict(self.values),
            "images": self.images,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FitProgress:
    """The progress of a training.

    Attributes:
        epoch: the current epoch, from 1; 0 while the images are read.
        epochs: the total number of epochs.
        share: the completed share of all work, in [0, 1].
        loss: the mean loss of the last complete epoch.
        metric: the main metric on the held-out images after the last complete epoch.
    """

    epoch: int
    epochs: int
    share: float
    loss: float | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True)
class FitReport:
    """The report of a finished training.

    Attributes:
        recipe: the recipe that was requested.
        plan: the recipe with every value settled.
        images: the number of training images.
        held_out_images: the number of held-out images.
        seconds: wall-clock time, including reading the images.
        losses: the mean training loss of each epoch.
        held_out: the main metric after each epoch; empty without held-out images.
        metrics: the metrics on the held-out images after the last epoch; None without any.
    """

    recipe: Recipe
    plan: Plan
    images: int
    held_out_images: int
    seconds: float
    losses: tuple[float, ...]
    held_out: tuple[float, ...]
    metrics: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)
