"""Actions: what an admin may do on the pages; what cannot be undone is asked again."""

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
        title: what its button says.
        does: does it, to a project or, where `of` says so, to a version or a job of it.
        of: the field of the form that names the version or the job.
        warning: what cannot be undone about it, which is shown first; None: nothing.
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
        warning="A new round begins: the pool is scored and selected anew, and its queue takes the "
        "place of the one that people label from now. No label is lost, but the present order does "
        "not come back.",
    ),
    "cancel": Action(
        "Cancel the job",
        lambda s, _, job, by: actions.cancel(s, job, by),
        of="job",
        warning="What the job has done so far is thrown away; a training has to begin from the "
        "start. What serves and what is queued stays as it is.",
    ),
    "retry": Action("Try again", lambda s, _, job, by: actions.retry(s, job, by), of="job"),
    "roll-back": Action(
        "Let it serve",
        actions.roll_back,
        of="version",
        warning="This model version serves instead of the present one, and a new round begins with "
        "it, whose queue takes the place of the present one. A training that is under way is kept "
        "but will not serve.",
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
    """Go on to a page, which says what was done."""
    answer = redirect(address, 303)
    answer.set_cookie(
        SAID, quote(done.text), max_age=60, httponly=True, samesite="Lax", path="/projects"
    )
    return answer
