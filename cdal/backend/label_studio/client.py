"""Label Studio's API, called through its SDK."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.request_options import RequestOptions
from label_studio_sdk.types import RoleBasedTask

from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio.asking import asking_to
from cdal.backend.label_studio.data import (
    MLBackendInfo,
    PredictionInfo,
    ProjectInfo,
    TaskInfo,
    WebhookInfo,
    condition,
    moment_of,
    query_of,
    stamp,
)
from cdal.backend.label_studio.tabs import queue_tab, second_look_tab, write_tab
from cdal.backend.label_studio.transport import MOST_BYTES, WHOLE_S, open_http

PAGE = 1000

ANNOTATED_PAGE = 100
"""Tasks per page with their annotations: brush strokes may take hundreds of kilobytes per task."""

LAST_ID = 2**31 - 1
"""The largest id that a task can have."""

ALL_IDS = (1, LAST_ID)

DELETING_SECONDS = 600.0

UNCERTAINTY_SAMPLING = "Uncertainty sampling"

ENDLESS = "Label Studio returned the same tasks again instead of the next page."

# A bulk import that is sent twice is done twice, so the SDK must not retry it by itself.
_ONCE = RequestOptions(max_retries=0)

# Without them, Label Studio would also count the project's tasks, annotations and predictions.
_PROJECT_FIELDS = RequestOptions(
    additional_query_parameters={
        "include": "title,label_config,model_version,sampling,skip_queue,created_at"
    }
)

_TASK_NUMBER = RequestOptions(additional_query_parameters={"include": "task_number"})

_HAS_ANNOTATION = condition("total_annotations", "greater", "Number", 0)


class LabelStudioClient:
    """One project of one Label Studio."""

    def __init__(
        self,
        url: str,
        api_key: str,
        project: int,
        timeout_s: float = 60.0,
        retries: int = 2,
        whole_s: float = WHOLE_S,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.url = url.rstrip("/")
        self.project = project
        with asking_to("connect"):
            self._http = open_http(self.url, timeout_s, whole_s, most_bytes)
        self._sdk = LabelStudio(
            base_url=self.url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=retries,
            httpx_client=self._http,
        )
        self._owner: LabelStudioClient | None = None
        # Whoever drops a client cannot know whether a job still uses it, so the last one closes it.
        weakref.finalize(self, self._http.close)

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._http.close()

    def for_project(self, project: int) -> LabelStudioClient:
        """A client for another project of the same server, which shares the connections."""
        other = copy.copy(self)
        other.project = project
        other._owner = self  # which closes them when nobody uses them any more
        return other

    def authorization(self) -> dict[str, str]:
        """The header that a request to Label Studio needs."""
        with asking_to("sign in"):
            headers: dict[str, str] = self._sdk._client_wrapper.get_headers()
        return {"Authorization": headers["Authorization"]}

    def read_project(self) -> ProjectInfo:
        with asking_to("read the project"):
            project = self._sdk.projects.get(id=self.project, request_options=_PROJECT_FIELDS)
        return ProjectInfo(
            title=project.title or "",
            labeling_config=project.label_config or "",
            model_version=project.model_version or "",
            sampling=str(project.sampling or ""),
            skip_queue=project.skip_queue,
            created_at=moment_of(project.created_at),
        )

    def ml_backends(self) -> list[MLBackendInfo]:
        """ML backends that the project is connected to."""
        with asking_to("list the ML backends"):
            found = self._sdk.ml.list(project=self.project)
        return [MLBackendInfo(backend.url, backend.extra_params) for backend in found]

    def webhooks(self) -> list[WebhookInfo]:
        """The project's webhooks."""
        with asking_to("list the webhooks"):
            found = self._sdk.webhooks.list(project=str(self.project))
        return [
            WebhookInfo(w.id, w.url, dict(w.headers or {}), w.send_payload is not False)
            for w in found
            if w.id is not None
        ]

    def change_webhook(self, webhook: WebhookInfo) -> None:
        """Have Label Studio send these headers with a webhook's events, and a payload or none."""
        with asking_to("change the webhook"):
            self._sdk.webhooks.update(
                id=webhook.webhook_id,
                url=webhook.url,
                headers=dict(webhook.headers),
                send_payload=webhook.sends_payload,
            )

    def tasks(
        self, changed_since: str | None = None, after: int = 0, until: int = LAST_ID
    ) -> Iterator[TaskInfo]:
        """Tasks in the order of their ids, read page by page.

        Each page begins after the last id of the one before, and not at an offset: so a task that
        is deleted meanwhile makes no other be left out, and a page deep in a large project takes no
        longer than the first.

        Args:
            changed_since: only those changed at or after a time that Label Studio gave.
            after: only those with a larger id.
            until: only those with this id or a smaller one.
        """
        include = (
            "id,data,total_annotations,cancelled_annotations,updated_at,"
            "completed_at,annotators,avg_lead_time"
        )
        conditions = [] if changed_since is None else [_changed_since(changed_since)]
        for task in self._listed("list the tasks", include, conditions, after, until):
            yield _task_info(task)

    def newest_change(self) -> str | None:
        """The newest time of change of a task, as Label Studio gave it; None without tasks."""
        with asking_to("find the newest change"):
            page = self._sdk.tasks.list(
                project=self.project,
                page_size=1,
                include="id,updated_at",
                query=json.dumps({"ordering": ["-tasks:updated_at"]}),
            )
            newest = [moment_of(task.updated_at) for task in page.items or ()]
        return stamp(newest[0]) if newest and newest[0] is not None else None

    def count(self, labelled: bool = False, among: tuple[int, int] = ALL_IDS) -> int:
        """How many tasks there are, or only how many of them have a submitted annotation.

        Args:
            labelled: whether only those count.
            among: the first and the last id that count.
        """
        conditions = [_HAS_ANNOTATION] if labelled else []
        if among != ALL_IDS:
            conditions.append(_among(*among))
        with asking_to("count the tasks"):
            if not conditions:  # a quarter of what a list takes
                found = self._sdk.projects.get(id=self.project, request_options=_TASK_NUMBER)
                if found.task_number is not None:
                    return int(found.task_number)
            pager = self._sdk.tasks.list(
                project=self.project,
                page_size=1,
                fields="task_only",
                include="id",
                resolve_uri=False,
                query=query_of(conditions),
            )
        return int(pager.response.total)

    def _listed(
        self,
        what: str,
        include: str,
        conditions: Sequence[dict[str, object]],
        after: int = 0,
        until: int = LAST_ID,
        page_size: int | None = None,
    ) -> Iterator[RoleBasedTask]:
        """Tasks in the order of their ids; see `tasks`."""
        page_size = page_size or PAGE
        while after < until:
            some = [*conditions]
            if (after, until) != (0, LAST_ID):
                some.append(_among(after + 1, until))
            with asking_to(what):
                page = self._sdk.tasks.list(
                    project=self.project,
                    page_size=page_size,
                    include=include,
                    resolve_uri=False,
                    query=query_of(some),
                )
            tasks = page.items or []
            yield from tasks
            if len(tasks) < page_size:
                return
            if int(tasks[-1].id) <= after:
                raise LabelStudioError(ENDLESS)
            after = int(tasks[-1].id)

    def annotations(
        self, changed_since: str | None = None, among: tuple[int, int] = ALL_IDS
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Annotations, without drafts, of every task that has a submitted one.

        Args:
            changed_since: only of tasks changed at or after this time, as Label Studio gave it.
            among: the first and the last id of these tasks.
        """
        conditions = [_HAS_ANNOTATION]
        if changed_since is not None:
            conditions.append(_changed_since(changed_since))
        # Task and annotation fields together: Label Studio filters both levels by one list.
        include = (
            "id,annotations,result,was_cancelled,ground_truth,updated_at,"
            "parent_prediction,completed_by"
        )
        first, last = among
        for task in self._listed(
            "read the annotations", include, conditions, first - 1, last, ANNOTATED_PAGE
        ):
            yield int(task.id), [dict(annotation) for annotation in task.annotations or ()]

    def prediction(self, number: int) -> PredictionInfo | None:
        """A prediction by its number; None if there is none, as after it was deleted."""
        try:
            with asking_to("read a prediction"):
                found = self._sdk.predictions.get(id=number)
        except LabelStudioError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return PredictionInfo(found.model_version or "", found.result)

    def people(self) -> dict[int, str]:
        """Every user's name by number; the e-mail address of those without a name."""
        with asking_to("list the people"):
            users = self._sdk.users.list()
        return {
            int(user.id): f"{user.first_name or ''} {user.last_name or ''}".strip() or user.email
            for user in users
        }

    def write_settings(self, backend_url: str | None, settings: Mapping[str, Any]) -> None:
        """Write the backend's settings, the extra params of Label Studio's Model page.

        Before it stores them, Label Studio calls the backend's `/setup` with them.

        Args:
            backend_url: the backend's address as Label Studio may know it; only needed where a
                project has several backends.
            settings: the new extra params.

        Raises:
            LabelStudioError: it is not clear which backend this is, or Label Studio refused.
        """
        with asking_to("list the project's backends"):
            found = self._sdk.ml.list(project=self.project)
        if len(found) > 1:
            found = [one for one in found if one.url and one.url.rstrip("/") == backend_url]
        if len(found) != 1:
            raise LabelStudioError(
                "Label Studio lists no backend or several for this project, so it is not clear "
                "which one this is; change the settings on its Model page."
            )
        backend = found[0]
        login: dict[str, Any] = {}
        if str(backend.auth_method) == "BASIC_AUTH":  # an empty password keeps the old one
            login = {"basic_auth_user": backend.basic_auth_user, "basic_auth_pass": ""}
        with asking_to("write the settings"):
            self._sdk.ml.update(
                id=backend.id,
                project=self.project,
                url=backend.url,
                title=backend.title,
                auth_method=backend.auth_method,
                extra_params=dict(settings),
                request_options=_ONCE,
                **login,
            )

    def import_predictions(
        self, predictions: Sequence[Mapping[str, Any]], one_by_one: bool = False
    ) -> int:
        """Import predictions in one call, or a call for each; returns how many were accepted."""
        with asking_to("import the predictions"):
            if one_by_one:
                for each in predictions:
                    self._sdk.predictions.create(
                        **each, project=self.project, request_options=_ONCE
                    )
                return len(predictions)
            answer = self._sdk.projects.import_predictions(
                id=self.project, request=[dict(p) for p in predictions], request_options=_ONCE
            )
        return int(answer.created or 0)

    def prediction_counts(self) -> dict[str, int]:
        """Number of predictions of the project's tasks by version."""
        counts: dict[str, int] = self._call("GET", "count the predictions")
        return counts

    def delete_predictions(self, version: str) -> None:
        """Delete a version's predictions; it is slow and locks Label Studio's SQLite meanwhile."""
        self._call("DELETE", "delete old predictions", {"model_version": version})

    def _call(self, method: str, what: str, body: Mapping[str, str] | None = None) -> Any:
        """Call the API of the project's model versions, for which the SDK has no method."""
        address = f"{self.url}/api/projects/{self.project}/model-versions/"
        headers = self.authorization()
        with asking_to(what):
            answer = self._http.request(
                method, address, headers=headers, json=body, timeout=DELETING_SECONDS
            )
            if answer.status_code >= httpx.codes.BAD_REQUEST:
                raise ApiError(status_code=answer.status_code, body=None)
            return answer.json()

    def tasks_with(self, version: str) -> set[int]:
        """Ids of the tasks that have a prediction of a version."""
        # The filter also matches parts of versions: 1.1 finds 1.10.
        having = condition("predictions_model_versions", "contains", "List", [version])
        found = set()
        include = "id,predictions_model_versions"
        for task in self._listed("list the predicted tasks", include, [having]):
            versions = task.predictions_model_versions or ""
            names = versions.split(",") if isinstance(versions, str) else versions
            if version in names:
                found.add(int(task.id))
        return found

    def serve(self, queue_version: str) -> None:
        """Make the label stream follow the predictions of this queue version."""
        with asking_to("set the project's model version"):
            self._sdk.projects.update(
                id=self.project, model_version=queue_version, sampling=UNCERTAINTY_SAMPLING
            )

    def show_queue(self, queue_version: str, view_id: int | None) -> int:
        """Create or update the Data Manager tab of the queue; returns its id."""
        return write_tab(self._sdk, self.project, *queue_tab(queue_version), view_id)

    def show_second_look(self, tasks: Sequence[int], view_id: int | None) -> int:
        """Create or update the Data Manager tab of tasks worth a second look; returns its id."""
        return write_tab(self._sdk, self.project, *second_look_tab(tasks), view_id)

    def task_ids(self, among: tuple[int, int] = ALL_IDS) -> set[int]:
        """Ids of all tasks, or of those from one id to another."""
        first, last = among
        tasks = self._listed("list the tasks", "id", [], first - 1, last)
        return {int(task.id) for task in tasks}


def _changed_since(time: str) -> dict[str, object]:
    return condition("updated_at", "greater_or_equal", "Datetime", time)


def _among(first: int, last: int) -> dict[str, object]:
    return condition("id", "in", "Number", {"min": first, "max": last})


def _task_info(task: RoleBasedTask) -> TaskInfo:
    updated = moment_of(task.updated_at)
    return TaskInfo(
        task_id=int(task.id),
        data=dict(task.data or {}),
        annotations=int(task.total_annotations or 0),
        skips=int(task.cancelled_annotations or 0),
        updated_at=stamp(updated) if updated else "",
        labelled_at=moment_of(task.completed_at),
        annotators=tuple(n for n in task.annotators or () if isinstance(n, int)),
        seconds=task.avg_lead_time,
    )
