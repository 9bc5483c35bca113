"""Actions on the settings: change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdal.backend.actions.done import Done
from cdal.backend.errors import ActionError, LabelStudioError, SettingsError
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.events import note
from cdal.backend.store.queries import find_project


def change_settings(
    services: Services,
    project_id: int,
    settings: Mapping[str, Any],
    by: str,
    backend_url: str | None = None,
) -> Done:
    """Give a project these settings, and the defaults for all others.

    They are written to Label Studio, which keeps them on the project's Model page and sends them
    with every `/setup`.

    Raises:
        ConfigError: one is unknown or impossible; the message names it.
        ActionError: there is no such project, or Label Studio refused them.
    """
    with services.store.reading() as session:
        project = find_project(session, project_id)
    ProjectConfig.accept(project.labeling_config, dict(settings), services.config)
    try:
        services.client(project).write_settings(backend_url, settings)
    except LabelStudioError as error:
        raise ActionError(f"The settings are unchanged. {error}", 502) from None
    changed = _changes(project.extra_params, settings)
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        project.extra_params = dict(settings)
        note(session, project.id, f"Settings changed by {by}: {changed}")
        services.jobs.request(session, project.id, "sync", by)
    services.jobs.send_pending(project_id)
    return Done(text=f"The settings are changed: {changed}.")


def known_settings(extra_params: object) -> dict[str, Any]:
    """The settings that differ from their defaults, by name; empty if they cannot be read."""
    try:
        return ProjectSettings.parse(extra_params).model_dump(exclude_defaults=True)
    except SettingsError:
        return {}


def _changes(before: object, after: Mapping[str, Any]) -> str:
    """The differences, in words."""
    old = known_settings(before)
    names = [name for name in ProjectSettings.model_fields if old.get(name) != after.get(name)]
    words = [f"{name} {_word(old.get(name))} → {_word(after.get(name))}" for name in names]
    return ", ".join(words) or "nothing"


def _word(value: object) -> str:
    return "default" if value is None else str(value)
