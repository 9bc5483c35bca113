"""Label Studio's projects, tasks, backends and webhooks as the backend sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project in Label Studio; `created_at` is in UTC, as the store keeps times."""

    title: str
    labeling_config: str
    model_version: str
    sampling: str
    skip_queue: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MLBackendInfo:
    """An ML backend that a project is connected to, at the address that Label Studio calls."""

    url: str
    extra_params: Any


@dataclass(frozen=True, slots=True)
class PredictionInfo:
    """A prediction of a task, and the version under which it was imported."""

    model_version: str
    result: Any


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """A webhook of a project; `sends_payload` is whether events have more than their name."""

    webhook_id: int
    url: str
    headers: Mapping[str, str]
    sends_payload: bool = True


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task in Label Studio; `annotations` counts submitted ones, `skips` the cancelled ones.

    Attributes:
        labelled_at: when the newest annotation was submitted, in UTC.
        annotators: numbers of the users who annotated it.
        seconds: mean time that an annotation took.
    """

    task_id: int
    data: Mapping[str, Any]
    annotations: int
    skips: int
    updated_at: str
    labelled_at: datetime | None = None
    annotators: tuple[int, ...] = ()
    seconds: float | None = None


def condition(field: str, operator: str, kind: str, value: object) -> dict[str, object]:
    """A condition on a field of tasks; operator and kind are the Data Manager's names."""
    return {
        "filter": f"filter:tasks:{field}",
        "operator": operator,
        "type": kind,
        "value": value,
    }


def query_of(conditions: Sequence[Mapping[str, object]]) -> str | None:
    """A query for the tasks that meet all conditions; None if there are no conditions."""
    if not conditions:
        return None
    return json.dumps({"filters": {"conjunction": "and", "items": list(conditions)}})


_YEARS = range(1970, 2200)


def moment_of(time: object) -> datetime | None:
    """A time as the store keeps it; None for anything else. The SDK leaves some times as text."""
    try:
        moment = datetime.fromisoformat(time) if isinstance(time, str) else time
        if not isinstance(moment, datetime):
            return None
        if moment.tzinfo is not None:  # a time without a zone is in UTC
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year in _YEARS else None  # one can still be added to it


def unix_second(moment: datetime) -> int:
    """The second of a time in UTC, as Label Studio's "ID.createdAt" has it."""
    return int(moment.replace(tzinfo=UTC).timestamp())


def stamp(time: datetime) -> str:
    """A time in UTC in the only format that Label Studio's filters read."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
