"""The page of all projects: what each is doing, whether it gets better, what needs a person."""

from __future__ import annotations

from sqlalchemy import select

from cdal.backend.pages.advice import advice_on
from cdal.backend.pages.site import page, site
from cdal.backend.request import services
from cdal.backend.status import project_status
from cdal.backend.tables import Project


@site.get("/projects", strict_slashes=False)
def projects() -> str:
    with services().store.reading() as session:
        found = session.scalars(select(Project).order_by(Project.id)).all()
        statuses = [project_status(session, project) for project in found]
    advice = {status["id"]: advice_on(status["problem"]) for status in statuses}
    return page("projects.html", projects=statuses, advice=advice)
