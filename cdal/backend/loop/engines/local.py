"""The engine that computes in the worker's own process, on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cdal.backend.images.inputs import InputReader, Inputs, OnProblem
from cdal.backend.loop.inference import Scored, score_images
from cdal.mixture_kind import MixtureKind
from cdal.models import Dataset, FitProgress, FitReport, Recipe, TaskNetwork, fit
from cdal.models.features import LabelledFeatures
from cdal.models.head import HeadNetwork


class LocalEngine:
    """See `Engine`."""

    def inputs(
        self,
        reader: InputReader,
        network: HeadNetwork,
        items: Sequence[tuple[int, object]],
        on_problem: OnProblem,
    ) -> Iterator[Inputs]:
        return reader.batches(network, items, on_problem)

    def scored(
        self,
        reader: InputReader,
        network: TaskNetwork,
        items: Sequence[tuple[int, object]],
        kind: MixtureKind,
        on_problem: OnProblem,
    ) -> Iterator[Scored]:
        return score_images(network, reader.batches(network, items, on_problem), kind)

    def fit(
        self,
        network: TaskNetwork,
        train: Dataset | LabelledFeatures,
        held_out: Dataset | LabelledFeatures | None,
        recipe: Recipe,
        progress: Callable[[FitProgress], None],
        stop: Callable[[], bool],
    ) -> FitReport:
        return fit(network, train, held_out, recipe, progress, stop)
