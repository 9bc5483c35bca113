"""The comparison's page: what two selectors would pick in this round; nothing is queued."""

from __future__ import annotations

from flask import request, url_for
from werkzeug.wrappers import Response

from cdal.backend.actions import Done
from cdal.backend.errors import ActionError
from cdal.backend.loop.comparison import SELECTORS, want
from cdal.backend.loop.rounds import open_round
from cdal.backend.reports.comparison import comparison_view
from cdal.backend.reports.project import project_view
from cdal.backend.store.events import note
from cdal.backend.web.pages.actions import back
from cdal.backend.web.pages.queue import Drawings
from cdal.backend.web.pages.site import page, project_or_404, site
from cdal.backend.web.request import ID, asked_by, services

SHOWN = 18
"""Images shown per selector."""


@site.get(f"/projects/<{ID}:number>/comparison")
def comparison(number: int) -> str:
    with services().store.reading() as session:
        found = project_or_404(session, number)
        project = project_view(session, found)
        current = open_round(session, found)
        names = _names(current.selector if current is not None else SELECTORS[0])
        view = comparison_view(session, services().config, found, names)
        draw = None
        if current is not None and view is not None:
            shown = [task for one in view.selectors for task in one.picks[:SHOWN]]
            draw = Drawings.of(session, found, current, shown)
    return page(
        "comparison.html",
        project=project,
        names=names,
        every=SELECTORS,
        comparison=view,
        draw=draw,
        most=SHOWN,
    )


@site.post(f"/projects/<{ID}:number>/comparison")
def compare(number: int) -> Response:
    names = _names(None)
    with services().store.transaction() as session:
        project = project_or_404(session, number)
        current = open_round(session, project)
        if current is None or current.model_version_id is None:
            raise ActionError("There is no open round with a model to compare selectors for.")
        want(session, services().jobs, project, current, names, asked_by())
        note(session, project.id, f"Comparison of {' and '.join(names)} requested by {asked_by()}")
    services().jobs.send_pending(number)
    address = url_for("pages.comparison", number=number, a=names[0], b=names[1])
    return back(
        address,
        Done(
            text=f"Both selectors will rank the pool of round {current.number}; nothing is queued."
        ),
    )


def _names(first: str | None) -> list[str]:
    """The two requested selectors; by default the round's own and another."""
    first = first or SELECTORS[0]
    other = "entropy" if first != "entropy" else "cdal-cs"
    names = [request.values.get("a", first), request.values.get("b", other)]
    return [name if name in SELECTORS else first for name in names]
