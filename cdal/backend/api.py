"""The JSON API: what the backend is at."""

from __future__ import annotations

from flask import Blueprint, Response, abort, jsonify
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.request import services
from cdal.backend.status import project_status, queue_status
from cdal.backend.tables import Project

api = Blueprint("api", __name__, url_prefix="/api/v1")


@api.get("/projects")
def projects() -> Response:
    with services().store.reading() as session:
        found = session.scalars(select(Project).order_by(Project.id)).all()
        return jsonify(projects=[project_status(session, project) for project in found])


@api.get("/projects/<int:number>")
def project(number: int) -> Response:
    with services().store.reading() as session:
        return jsonify(project_status(session, _project(session, number)))


@api.get("/projects/<int:number>/queue")
def queue(number: int) -> Response:
    with services().store.reading() as session:
        return jsonify(queue_status(session, _project(session, number)))


def _project(session: Session, number: int) -> Project:
    found = session.get(Project, number)
    if found is None:
        abort(404, f"There is no project {number}.")
    return found
