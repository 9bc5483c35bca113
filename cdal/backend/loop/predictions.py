"""Predictions as Label Studio keeps them: an image's regions, and its place in the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.annotations import Region, to_result
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.packing import unpack
from cdal.backend.loop.rounds import versions_of
from cdal.backend.project_config import paired
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.queries import IDS_PER_QUERY, chunks
from cdal.backend.store.tables import ModelVersion, Pick, Prediction, Round
from cdal.models import Classification, Detections, Finding, Multilabel, Segmentation

QUEUED_SHARE = 0.9

NOT_QUEUED_SCORE = 1.0
"""The label stream serves ascending scores: first the queue, up to 0.9, then other predictions."""

FINDINGS: Mapping[str, type[Finding]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "detection": Detections,
    "segmentation": Segmentation,
}
"""The kind of finding, by the network's task."""


def rank_score(rank: int, ranked: int) -> float:
    """The score that makes the label stream serve this rank, among so many, in its turn."""
    return QUEUED_SHARE * (rank + 1) / (ranked + 1)


def count_ranked(session: Session, current: Round) -> int:
    """How many images a round ranked."""
    return session.scalar(select(func.count()).where(Pick.round_id == current.id)) or 0


def queue_scores(session: Session, current: Round, task_ids: Sequence[int]) -> dict[int, float]:
    """The scores of those of the tasks that the round ranked, by task id."""
    ranked = count_ranked(session, current)
    found: dict[int, float] = {}
    for ids in chunks(task_ids, IDS_PER_QUERY):
        rows = session.execute(
            select(Pick.task_id, Pick.rank).where(
                Pick.round_id == current.id, Pick.task_id.in_(ids)
            )
        )
        found.update({task_id: rank_score(rank, ranked) for task_id, rank in rows})
    return found


Findings = dict[int, dict[str, Any]]
"""Packed findings on images, by task id."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a round predicts for one control.

    Attributes:
        control: of the labeling config as it is now.
        version: the model version that found it.
        findings: what it found.
    """

    control: Control
    version: ModelVersion
    findings: Findings

    def result(self, settings: ProjectSettings, task_id: int) -> list[Region]:
        """The regions on an image; none where there is no finding."""
        packed = self.findings.get(task_id)
        if packed is None:
            return []
        return result_of(self.control, settings, self.version.classes, packed)


def parts_of(
    session: Session, current: Round, controls: Sequence[Control], task_ids: Sequence[int]
) -> list[Part]:
    """What a round predicts for some tasks, by control: the main one first.

    Args:
        session: to read with.
        current: the round.
        controls: those that are served now.
        task_ids: of the tasks.
    """
    versions = versions_of(session, current)
    pairs = paired({version.control: version.classes for version in versions}, controls)
    return [
        Part(pairs[v.control], v, stored_findings(session, v, task_ids))
        for v in versions
        if v.control in pairs
    ]


def joined(results: Sequence[list[Region]]) -> list[Region]:
    """Regions of several controls as one result, with ids that are unique in it."""
    return [
        {**region, "id": f"{region['from_name']}-{region['id']}"} if "id" in region else region
        for result in results
        for region in result
    ]


def stored_findings(session: Session, version: ModelVersion, task_ids: Sequence[int]) -> Findings:
    """What a model version found on those of the tasks that it has scored."""
    found: Findings = {}
    for ids in chunks(task_ids, IDS_PER_QUERY):
        rows = session.execute(
            select(Prediction.task_id, Prediction.finding).where(
                Prediction.model_version_id == version.id, Prediction.task_id.in_(ids)
            )
        )
        found.update((task_id, finding) for task_id, finding in rows)
    return found


def result_of(
    control: Control, settings: ProjectSettings, classes: Sequence[str], packed: dict[str, Any]
) -> list[Region]:
    """A packed finding as the regions that Label Studio draws.

    Empty if a model for another task found it: the labeling config has changed since.
    """
    finding, size = unpack(packed)
    if not isinstance(finding, FINDINGS[control.task]):
        return []
    return to_result(control, classes, finding, size, settings)
