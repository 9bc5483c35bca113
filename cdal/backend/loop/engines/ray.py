"""The engine that computes on a Ray cluster: scoring by Ray Data, full training by Ray Train.

What comes back is written by the worker. So nodes need no shared folder, and a kill of either side
leaves what it leaves with the local engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from cdal.backend.config import ServerConfig
from cdal.backend.errors import ImageError
from cdal.backend.images.inputs import InputReader, Inputs, OnProblem
from cdal.backend.loop.context import Context
from cdal.backend.loop.engines.cluster import connect, in_background
from cdal.backend.loop.engines.pipeline import run_through
from cdal.backend.loop.engines.stages import Fetching, Items, PackedNetwork, Seen
from cdal.backend.loop.engines.training import fit_on_cluster
from cdal.backend.loop.inference import Scored, score_images
from cdal.mixture_kind import MixtureKind
from cdal.models import Dataset, FitProgress, FitReport, Recipe, TaskNetwork, WeightSources, fit
from cdal.models.features import LabelledFeatures
from cdal.models.head import HeadNetwork

PASS = 65_536
"""Images in one pass through the cluster, in whose memory their addresses lie."""


@dataclass(frozen=True, slots=True)
class RayEngine:
    """See `Engine`.

    Attributes:
        config: of the server.
        sources: where nodes may find pretrained weights.
        url: Label Studio's address.
        token: for Label Studio.
        public_url: see `ImageSource`.
        check_stop: raises `Stopped` once the job is to end.
    """

    config: ServerConfig
    sources: WeightSources
    url: str
    token: str
    public_url: str | None
    check_stop: Callable[[], None]

    @classmethod
    def of(cls, work: Context) -> Self:
        """The engine for a job."""
        services, project = work.services, work.project
        return cls(
            config=services.config,
            sources=services.weight_sources,
            url=project.url,
            token=services.token(project) or "",
            public_url=project.public_url,
            check_stop=work.check_stop,
        )

    def inputs(
        self, reader: InputReader, network: HeadNetwork, items: Items, on_problem: OnProblem
    ) -> Iterator[Inputs]:
        new: list[tuple[int, object]] = []
        yield from reader.kept(network, items, new)
        for seen in self._seen(network, new, None, on_problem):
            _keep(reader, network, new, seen)
            yield from seen.inputs
        reader.flush()

    def scored(
        self,
        reader: InputReader,
        network: TaskNetwork,
        items: Items,
        kind: MixtureKind,
        on_problem: OnProblem,
    ) -> Iterator[Scored]:
        if not isinstance(network, HeadNetwork):
            for seen in self._seen(network, items, kind, on_problem):
                yield from seen.scored
            return
        new: list[tuple[int, object]] = []
        yield from score_images(network, reader.kept(network, items, new), kind)
        for seen in self._seen(network, new, kind, on_problem):
            _keep(reader, network, new, seen)
            yield from seen.scored
        reader.flush()

    def fit(
        self,
        network: TaskNetwork,
        train: Dataset | LabelledFeatures,
        held_out: Dataset | LabelledFeatures | None,
        recipe: Recipe,
        progress: Callable[[FitProgress], None],
        stop: Callable[[], bool],
    ) -> FitReport:
        if isinstance(network, HeadNetwork):  # it takes seconds
            return fit(network, train, held_out, recipe, progress, stop)
        assert not isinstance(train, LabelledFeatures)  # noqa: S101 — a head's
        assert not isinstance(held_out, LabelledFeatures)  # noqa: S101
        connect(self.config.ray_address)
        packed = PackedNetwork.of(network, self.sources)
        return fit_on_cluster(
            network, packed, train, held_out, recipe, self.config.device, progress, stop
        )

    def _seen(
        self, network: TaskNetwork, items: Items, kind: MixtureKind | None, on_problem: OnProblem
    ) -> Iterator[Seen]:
        """What the network makes of images on the cluster, in any order."""
        how = Fetching(
            url=self.url,
            token=self.token,
            public_url=self.public_url,
            image_hosts=self.config.image_hosts,
        )
        for start in range(0, len(items), PASS):
            some = items[start : start + PASS]
            connect(self.config.ray_address)
            packed = PackedNetwork.of(network, self.sources)
            results = run_through(
                some, how, packed, kind, self.config.device, network.prediction_batch_size
            )
            for seen in in_background(results, self.check_stop):
                for task_id, reason, passes in seen.problems:
                    on_problem(task_id, ImageError(reason, passes))
                yield seen


def _keep(reader: InputReader, network: HeadNetwork, items: Items, seen: Seen) -> None:
    values = dict(items)
    for batch in seen.inputs:
        reader.keep(network, [(task_id, values[task_id]) for task_id in batch.ids], batch)
