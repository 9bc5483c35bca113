"""What a network reports of its training and of its quality, all of it JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cdal.models.recipe import Plan, Recipe


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is recognised.

    Attributes:
        count: images of that class; for segmentation pixels.
        score: for classification the share of them that are recognised, for segmentation the
            intersection over union; None without any.
    """

    count: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The quality of a network on N labelled images.

    Attributes:
        main_name: the one of ``values`` by which networks are compared; more is better.
        values: by name; for classification "accuracy", "macro_accuracy" (the mean over the
            classes that have images) and "loss" (cross entropy, nats); for segmentation the same
            of pixels, and "miou", the mean intersection over union of the classes that have any.
        per_class: by class name.
        confusion: images (pixels, boxes) of the class of the row that were taken for the class of
            the column; for detection the last column is for boxes where nothing was found.
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

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FitProgress:
    """How far a training is.

    Attributes:
        epoch: the epoch that is running, from 1; 0 while the images are read.
        epochs: how many there will be.
        share: of the whole work, in [0, 1].
        loss: mean over the steps of the last whole epoch.
        metric: the main metric on the held-out images after the last whole epoch.
    """

    epoch: int
    epochs: int
    share: float
    loss: float | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a training did.

    Attributes:
        recipe: that was followed.
        plan: what it came to.
        images: trained on.
        held_out_images: measured on.
        seconds: wall clock, reading the images included.
        losses: mean training loss of each epoch.
        held_out: main metric of each epoch; empty without held-out images.
        metrics: of the last epoch on the held-out images; None without any.
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
