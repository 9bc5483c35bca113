"""The site: one blueprint with its templates and static files, and what all pages share."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import unquote

from flask import Blueprint, Response, abort, g, redirect, render_template, request, url_for
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from cdal.backend.errors import ActionError
from cdal.backend.reports.project import ProjectView
from cdal.backend.reports.view import timestamp
from cdal.backend.store.tables import Project
from cdal.backend.text import duration
from cdal.backend.web.pages import wording
from cdal.backend.web.request import ID, services
from cdal.version import VERSION

log = logging.getLogger(__name__)

site = Blueprint(
    "pages",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/pages",
)

MOVED = {"pool": "pages.pool_map", "compare": "pages.comparison"}
"""Old last part of a page's address, and the endpoint that answers now."""

site.add_app_template_filter(wording.seconds, "seconds")
site.add_app_template_filter(wording.ago, "ago")
site.add_app_template_filter(timestamp, "timestamp")
site.add_app_template_filter(duration, "duration")
site.add_app_template_filter(wording.metric_name, "metric_name")
site.add_app_template_filter(wording.moved, "moved")
site.add_app_template_filter(wording.count, "count")


@site.app_template_filter("label_studio")
def label_studio(project: Project | ProjectView) -> str:
    """Where people open a project in Label Studio.

    The public address is what a caller of `/setup` said. A link must not lead people to a server
    that anybody could have named.
    """
    is_known = project.public_url is not None and services().config.basic_auth_user is not None
    home = project.public_url if is_known else project.url
    return f"{home}/projects/{project.label_studio_id}"


def is_browser() -> bool:
    """Whether the request prefers a page to JSON, as those of browsers do."""
    best = request.accept_mimetypes.best_match(["application/json", "text/html"])
    return best == "text/html"


SAID = "cdal-said"
"""The cookie that tells the next page what was done."""


def page(template: str, **values: Any) -> str:
    """Render a page, which starts with what was just done, if anything."""
    said = None
    if "X-Live" not in request.headers and SAID in request.cookies:
        said = g.said = unquote(request.cookies[SAID])[:500]
    return render_template(f"pages/{template}", said=said, version=VERSION, **values)


@site.get("/projects/<path:address>")
def without_slash(address: str) -> BaseResponse:
    """Redirect an address with a trailing slash to the page without it; any other is not found."""
    if not address.endswith("/"):
        abort(404)
    return redirect(f"/projects/{address.strip('/')}")


@site.get(f"/projects/<{ID}:number>/<any({', '.join(MOVED)}):old>")
def moved(number: int, old: str) -> BaseResponse:
    """Redirect a bookmark of a page that has a new address."""
    return redirect(url_for(MOVED[old], number=number), 301)


@site.after_request
def forget_said(answer: Response) -> Response:
    if "said" in g:
        answer.delete_cookie(SAID, path="/projects")
    return answer


@site.errorhandler(ActionError)
def impossible(error: ActionError) -> tuple[str, int]:
    return _failed("This is not possible", str(error), error.status)


@site.errorhandler(HTTPException)
def refused(error: HTTPException) -> tuple[str, int]:
    return _failed(error.name, error.description or "", error.code or 500)


@site.errorhandler(Exception)
def broken(error: Exception) -> tuple[str, int]:
    log.exception("%s %s failed", request.method, request.path, exc_info=error)
    return _failed("Internal error", "See the backend's log for details.", 500)


def _failed(title: str, text: str, status: int) -> tuple[str, int]:
    return page("error.html", title=title, text=text, back=url_for("pages.projects")), status


def project_or_404(session: Session, number: int) -> Project:
    """A project by the backend's own number; aborts the request with 404 where there is none."""
    found = session.get(Project, number)
    if found is None:
        abort(404, f"There is no project {number} here.")
    return found
