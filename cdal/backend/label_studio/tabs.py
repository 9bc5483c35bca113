"""The tabs that the backend keeps in a project's Data Manager: the queue, and the second look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from cdal.backend.label_studio.asking import asking_to
from cdal.backend.label_studio.data import condition

QUEUE_TITLE = "CDAL queue"
ALL_TASKS_TITLE = "All tasks"
SECOND_LOOK_TITLE = "Worth a second look"

NO_TASK = 0
"""No task has this id."""

_HIDDEN = [
    f"tasks:{column}"
    for column in (
        "inner_id",
        "completed_at",
        "total_annotations",
        "cancelled_annotations",
        "total_predictions",
        "annotators",
        "annotations_results",
        "annotations_ids",
        "predictions_results",
        "file_upload",
        "storage_filename",
        "created_at",
        "updated_at",
        "updated_by",
        "avg_lead_time",
        "draft_exists",
    )
]
_COLUMNS = {"explore": _HIDDEN, "labeling": [*_HIDDEN, "tasks:predictions_model_versions"]}
"""Columns that the tab hides, in its table and beside an open task: all but the task's data and
number, its place in the queue, and the round that it comes from."""

Tab = tuple[Mapping[str, object], object | None]
"""What a tab shows, and the columns that it hides when it is new; None: those that Label Studio
hides."""


def queue_tab(queue_version: str) -> Tab:
    """The unlabelled tasks of a queue version, in their order."""
    shown = [
        condition("predictions_model_versions", "contains", "List", [queue_version]),
        condition("total_annotations", "equal", "Number", 0),
    ]
    tab = {
        "title": QUEUE_TITLE,
        "ordering": ["tasks:predictions_score"],
        "filters": {"conjunction": "and", "items": shown},
    }
    return tab, _COLUMNS


def second_look_tab(tasks: Sequence[int]) -> Tab:
    """These tasks, or none."""
    shown = [condition("id", "equal", "Number", task) for task in tasks or (NO_TASK,)]
    filters = {"conjunction": "or", "items": shown}
    return {"title": SECOND_LOOK_TITLE, "filters": filters}, None


def write_tab(
    sdk: LabelStudio,
    project: int,
    data: Mapping[str, object],
    hidden: object | None,
    view_id: int | None,
) -> int:
    """Create or update a tab; returns its id.

    What people have changed in the tab stays, except for its title, filters and order. Where there
    is no tab at all, Label Studio would show this one as the project, so it gets another one of all
    tasks.

    Args:
        sdk: of the server.
        project: its number there.
        data: what the tab shows.
        hidden: the columns that a new tab hides, see `Tab`.
        view_id: the tab, if there is one.
    """
    with asking_to("write the Data Manager tab"):
        if view_id is not None:
            try:
                kept = sdk.views.get(id=str(view_id)).data or {}
                return int(sdk.views.update(id=str(view_id), data={**kept, **data}).id)
            except ApiError as error:
                if error.status_code != 404:  # somebody deleted the tab
                    raise
        if not sdk.views.list(project=project):
            # Without "hiddenColumns", the tab would show every column.
            everything = {"title": ALL_TASKS_TITLE, "hiddenColumns": None}
            sdk.views.create(project=project, data=everything)
        created = {**data, "hiddenColumns": hidden}
        return int(sdk.views.create(project=project, data=created).id)
