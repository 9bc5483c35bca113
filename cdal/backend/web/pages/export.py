"""A model version as a zip, for other programs: its request, and its download."""

from __future__ import annotations

from flask import abort, request, send_file, url_for
from werkzeug.wrappers import Response

from cdal.backend import actions
from cdal.backend.loop.export import exports_of
from cdal.backend.web.pages.actions import back
from cdal.backend.web.pages.site import project_or_404, site
from cdal.backend.web.request import ID, asked_by, services


@site.post(f"/projects/<{ID}:number>/versions/<{ID}:version>/export")
def export(number: int, version: int) -> Response:
    file_format = request.form.get("format", "")
    done = actions.request_export(services(), number, version, file_format, asked_by())
    return back(url_for("pages.project", number=number), done)


@site.get(f"/projects/<{ID}:number>/versions/<{ID}:version>/exports/<file_format>")
def download(number: int, version: int, file_format: str) -> Response:
    with services().store.reading() as session:
        found = exports_of(session, services().config, project_or_404(session, number))
    made = found.get(version, {}).get(file_format)
    if made is None or made.made_at is None:
        abort(404, "There is no such file. Request it on the project's page.")
    file = services().config.export_file(number, version, file_format)
    name = f"project-{number}-{file.name}"
    return send_file(file, "application/zip", as_attachment=True, download_name=name)
