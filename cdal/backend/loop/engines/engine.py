"""An engine: where networks see many images, and where all of a network's weights are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from cdal.backend.images.inputs import InputReader, Inputs, OnProblem
from cdal.backend.loop.inference import Scored
from cdal.mixture_kind import MixtureKind
from cdal.models import Dataset, FitProgress, FitReport, Recipe, TaskNetwork
from cdal.models.features import LabelledFeatures
from cdal.models.head import HeadNetwork


class Engine(Protocol):
    """Computes for a running job; what comes of it is written by the job itself."""

    def inputs(
        self,
        reader: InputReader,
        network: HeadNetwork,
        items: Sequence[tuple[int, object]],
        on_problem: OnProblem,
    ) -> Iterator[Inputs]:
        """The features of images, batch by batch, in any order; see `InputReader.batches`."""
        ...

    def scored(
        self,
        reader: InputReader,
        network: TaskNetwork,
        items: Sequence[tuple[int, object]],
        kind: MixtureKind,
        on_problem: OnProblem,
    ) -> Iterator[Scored]:
        """The scores of images, batch by batch, in any order.

        Args:
            reader: reads the project's images.
            network: the model.
            items: for each image, its task and the image in the task's data.
            kind: of the class mixtures.
            on_problem: called with the task of each image that cannot be used, and why.
        """
        ...

    def fit(
        self,
        network: TaskNetwork,
        train: Dataset | LabelledFeatures,
        held_out: Dataset | LabelledFeatures | None,
        recipe: Recipe,
        progress: Callable[[FitProgress], None],
        stop: Callable[[], bool],
    ) -> FitReport:
        """Train a network; see `cdal.models.fit`."""
        ...
