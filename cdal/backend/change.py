"""A change of a project's settings: checked, then written where Label Studio keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdal.backend.actions import ActionError, Done, find_project
from cdal.backend.label_studio.error import LabelStudioError
from cdal.backend.labeling import LabelingError, served_control
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.settings_error import SettingsError
from cdal.backend.store import note


def change_settings(
    services: Services,
    project_id: int,
    settings: Mapping[str, Any],
    by: str,
    backend_url: str | None = None,
) -> Done:
    """Give a project these settings, and its defaults for the others.

    Label Studio holds them, on the project's Model page, and sends them with every set-up; so that
    is where they are written.

    Raises:
        SettingsError: one is unknown or impossible; the message names it.
        ActionError: there is no such project, or Label Studio did not take them.
    """
    with services.store.reading() as session:
        project = find_project(session, project_id)
    try:
        parsed = ProjectSettings.parse(dict(settings))
        parsed.check_control(served_control(project.labeling_config, parsed.control))
        services.config.weights_file(parsed.weights)
    except LabelingError as error:
        raise SettingsError(str(error)) from None
    try:
        services.client(project).write_settings(backend_url, settings)
    except LabelStudioError as error:
        raise ActionError(f"The settings are as they were. {error}", 502) from None
    changed = _changes(project.extra_params, settings)
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        project.extra_params = dict(settings)
        note(session, project.id, f"Settings changed by {by}: {changed}")
        services.jobs.request(session, project.id, "sync", by)
    services.jobs.send_pending(project_id)
    return Done(f"The settings are changed: {changed}.")


def known_settings(extra_params: object) -> dict[str, Any]:
    """The settings that differ from their defaults, by name; none where they cannot be read."""
    try:
        return ProjectSettings.parse(extra_params).model_dump(exclude_defaults=True)
    except SettingsError:
        return {}


def _changes(before: object, after: Mapping[str, Any]) -> str:
    """What changed, in words."""
    old = known_settings(before)
    names = [name for name in ProjectSettings.model_fields if old.get(name) != after.get(name)]
    words = [f"{name} {_word(old.get(name))} → {_word(after.get(name))}" for name in names]
    return ", ".join(words) or "nothing"


def _word(value: object) -> str:
    return "default" if value is None else str(value)
