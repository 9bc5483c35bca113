"""The serving model version: if its weights are damaged, the last good version serves."""

from __future__ import annotations

from sqlalchemy import select

from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.tables import ModelVersion, Project
from cdal.models import ModelError, check_weights


def serve_last_good(services: Services, project_id: int) -> bool:
    """If the serving version's weights are damaged, let the last version with good ones serve.

    Returns:
        Whether the serving version was replaced, or none serves now.
    """
    with services.store.reading() as session:
        project = session.get_one(Project, project_id)
        if project.serving_version_id is None:
            return False
        serving = session.get_one(ModelVersion, project.serving_version_id)
        earlier = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=project_id, promoted=True)
            .where(ModelVersion.number < serving.number)
            .order_by(ModelVersion.number.desc())
        ).all()
    problem = _problem(services, serving)
    if problem is None:
        return False
    good = next((version for version in earlier if _problem(services, version) is None), None)
    goes_on = f"model version {good.number} serves again" if good else "no model serves now"
    with services.store.transaction() as session:
        project = session.get_one(Project, project_id)
        project.serving_version_id = good.id if good else None
        broken = session.get_one(ModelVersion, serving.id)
        broken.promoted, broken.verdict = False, "does not serve, since its weights are damaged"
        # So that the next training does not count as a repetition of the one that made it.
        broken.fingerprint = ""
        text = f"Model version {serving.number} cannot be loaded, so {goes_on}: {problem}"
        note(session, project_id, text, "error")
    return True


def _problem(services: Services, version: ModelVersion) -> str | None:
    try:
        check_weights(services.config.version_folder(version.project_id, version.number))
    except ModelError as error:
        return str(error)
    return None
