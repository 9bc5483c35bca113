"""Actions: what an admin may do on the pages, with a confirmation where it cannot be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from cdal.backend import actions
from cdal.backend.actions import Done, queue_next
from cdal.backend.errors import ActionError
from cdal.backend.reports.project import project_view
from cdal.backend.reports.view import LARGEST_ID
from cdal.backend.services import Services
from cdal.backend.web.pages.site import SAID, page, project_or_404, site
from cdal.backend.web.request import ID, asked_by, services


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        title: the text of its button.
        does: performs it on a project or, where `of` is given, on a version or job of it.
        of: the form field that holds the number of the version or job.
        warning: what cannot be undone, shown before it is done; None: nothing.
    """

    title: str
    does: Callable[[Services, int, int, str], Done]
    of: str | None = None
    warning: str | None = None


ACTIONS: Mapping[str, Action] = {
    "train": Action("Start training", lambda s, project, _, by: actions.retrain(s, project, by)),
    "pause": Action("Pause", lambda s, project, _, by: actions.pause(s, project, by)),
    "resume": Action("Resume", lambda s, project, _, by: actions.resume(s, project, by)),
    "rescore": Action(
        "Rescore",
        lambda s, project, _, by: actions.rescore(s, project, by),
        warning="The pool is scored and selected again, and the new order replaces the current "
        "one, which does not come back. No label is lost.",
    ),
    "cancel": Action(
        "Cancel the job",
        lambda s, _, job, by: actions.cancel(s, job, by),
        of="job",
        warning="The job's work so far is lost; a training has to start over. The serving model "
        "and the queue stay as they are.",
    ),
    "retry": Action("Try again", lambda s, _, job, by: actions.retry(s, job, by), of="job"),
    "roll-back": Action(
        "Let it serve",
        actions.roll_back,
        of="version",
        warning="This model version replaces the serving one. It ranks the pool again, and the new "
        "order replaces the current one. A running training will be kept but not serve.",
    ),
}


@site.get(f"/projects/<{ID}:number>/confirm/<name>")
def confirm(number: int, name: str) -> str:
    action = ACTIONS.get(name) or abort(404, "There is no such action.")
    with services().store.reading() as session:
        project = project_view(session, project_or_404(session, number))
    return page(
        "confirm.html",
        project=project,
        action=action,
        name=name,
        target=request.args.get(action.of, type=_id) if action.of else None,
    )


@site.post(f"/projects/<{ID}:number>/actions/<name>")
def act(number: int, name: str) -> Response:
    action = ACTIONS.get(name) or abort(404, "There is no such action.")
    target = request.form.get(action.of, type=_id) if action.of else 0
    if target is None:
        raise ActionError(f"Which {action.of}? Go back and choose one.", 400)
    done = action.does(services(), number, target, asked_by())
    return back(url_for("pages.project", number=number), done)


@site.post(f"/projects/<{ID}:number>/first")
def put_first(number: int) -> Response:
    texts = request.form.get("tasks", "").split(",")
    tasks = [int(text) for text in texts if text.isdecimal() and len(text) < 16]
    done = queue_next(services(), number, tasks, asked_by())
    return back(url_for("pages.project", number=number), done)


def _id(text: str) -> int:
    number = int(text)
    if not 0 <= number <= LARGEST_ID:
        raise ValueError(text)
    return number


def back(address: str, done: Done) -> Response:
    """Redirect to a page that says what was done."""
    answer = redirect(address, 303)
    answer.set_cookie(
        SAID, quote(done.text), max_age=60, httponly=True, samesite="Lax", path="/projects"
    )
    return answer
