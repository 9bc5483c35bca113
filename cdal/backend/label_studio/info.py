"""What Label Studio says of a project and of what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project as Label Studio has it now."""

    title: str
    labeling_config: str
    model_version: str
    sampling: str
    tasks: int
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MLBackendInfo:
    """An ML backend that a project is connected to, by the address that Label Studio calls."""

    url: str
    extra_params: Any


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """A webhook of a project."""

    webhook_id: int
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as Label Studio has it now; `annotations` counts submitted ones, `skips` the rest.

    Attributes:
        labelled_at: when the newest annotation was submitted, in UTC.
        annotators: numbers of those who annotated it.
        seconds: that an annotation took, the mean over them.
    """

    task_id: int
    data: Mapping[str, Any]
    annotations: int
    skips: int
    updated_at: str
    labelled_at: datetime | None = None
    annotators: tuple[int, ...] = ()
    seconds: float | None = None
