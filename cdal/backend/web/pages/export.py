"""A model version as a zip, for other programs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from flask import Response, request, send_file

from cdal.backend import actions
from cdal.backend.web.pages.site import site
from cdal.backend.web.request import ID, services


@site.post(f"/projects/<{ID}:number>/versions/<{ID}:version>/export")
def export(number: int, version: int) -> Response:
    """Not a GET, which another site's page could request: an export takes seconds."""
    file_format = request.form.get("format", "")
    name = f"project-{number}-version-{version}-{file_format}"
    with tempfile.TemporaryDirectory(prefix="cdal-export-") as folder:
        made = Path(folder) / "model"
        actions.export(services(), number, version, file_format, made)
        packed = shutil.make_archive(str(Path(folder) / "packed"), "zip", made)
        # Still open when its folder is gone.
        file = Path(packed).open("rb")  # noqa: SIM115
    return send_file(
        file, mimetype="application/zip", as_attachment=True, download_name=f"{name}.zip"
    )
