"""When all weights of a network are due to be trained, in the background, after a head."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.settings import ProjectSettings
from cdal.backend.store.queries import count_labelled, of_control, serving_versions
from cdal.backend.store.tables import Job, ModelVersion, Project
from cdal.models import is_backbone

FULL_TRAINING_LABELS = 1000
"""Where there is a GPU, all weights are trained after a head from this many labels on. With so
many, full training gains 9 points of accuracy over a head, and with 300 hardly any
(docs/training.md, "Full training from the installed weights"); the tasks of VTAB-1k, which have
1,000 images each, agree (Jia et al., ECCV 2022, table 1)."""

FULL_TRAINING_GROWTH = 0.1
"""All weights are trained again once there are more labels by this share."""


def full_training_is_due(
    session: Session, project_id: int, settings: ProjectSettings, device: str
) -> bool:
    """Whether all weights of a network are to be trained in the background, after a head.

    That is so where there is a GPU and labels are enough, and where a network serves all of whose
    weights were trained: it goes on learning.

    Args:
        session: of the transaction in which the head is recorded.
        project_id: of the project.
        settings: of the project.
        device: the type of device that trains, such as "cuda".
    """
    if settings.training != "auto" or settings.network is not None or not settings.trains_head:
        return False
    if settings.tile is not None:
        return False  # a network that is trained in full sees images as a whole
    project = session.get_one(Project, project_id)
    if project.paused_at is not None:
        return False
    given_up = _labels_when_given_up(session, project_id)
    serving = serving_versions(session, project_id)
    # With several controls, an image may be labelled for others alone.
    labelled = count_labelled(session, project_id) if len(serving) == 1 else None
    return any(_is_due_in_full(session, one, labelled, given_up, device) for one in serving)


def _is_due_in_full(
    session: Session, serving: ModelVersion, labelled: int | None, given_up: int, device: str
) -> bool:
    """The same for the control of a serving version; its newest version knows how many labels there
    are, unless `labelled` does.
    """
    rows = session.execute(
        select(ModelVersion.architecture, ModelVersion.labels)
        .filter_by(project_id=serving.project_id)
        .where(of_control(serving.control))
        .order_by(ModelVersion.number)
    ).all()
    labels = rows[-1].labels if labelled is None else labelled
    if is_backbone(serving.architecture) and (device != "cuda" or labels < FULL_TRAINING_LABELS):
        return False
    last = max((row.labels for row in rows if not is_backbone(row.architecture)), default=0)
    return labels > max(last, given_up) * (1 + FULL_TRAINING_GROWTH)


def _labels_when_given_up(session: Session, project_id: int) -> int:
    """Labels of the newest version when the last full training that came to nothing was requested.

    It was cancelled, or failed, so the next head must not bring it back at once.
    """
    requested = select(func.max(Job.created_at)).where(
        Job.project_id == project_id,
        Job.kind == "full_training",
        Job.state.in_(("cancelled", "failed")),
    )
    query = select(func.max(ModelVersion.labels)).where(
        ModelVersion.project_id == project_id,
        ModelVersion.created_at <= requested.scalar_subquery(),
    )
    return session.scalar(query) or 0
