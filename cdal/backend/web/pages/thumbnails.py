"""Thumbnails: small copies of the images, made once and cached in a folder of limited size."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO

from flask import Response
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from cdal.backend.errors import LabelStudioError
from cdal.backend.images.store import ImageError
from cdal.backend.services import Services
from cdal.backend.store.tables import Project, Task
from cdal.backend.web.pages.site import project_or_404, site
from cdal.backend.web.request import ID, services

SIDE = 320
"""The longer side in pixels; smaller images are not enlarged."""
KEPT_SECONDS = 3600

NO_IMAGE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 120"><rect width="160" height="120" '
    'fill="#8884"/><path d="M30 20l100 80M130 20L30 100" stroke="#888" stroke-width="3"/></svg>'
)


@site.get(f"/projects/<{ID}:number>/tasks/<{ID}:task>/thumbnail")
def thumbnail(number: int, task: int) -> Response:
    with services().store.reading() as session:
        project = project_or_404(session, number)
        known = session.get(Task, (number, task))
    missing = Response(NO_IMAGE, 404, content_type="image/svg+xml")
    if known is None:
        return missing
    try:
        data = thumbnail_of(services(), project, known)
    except (ImageError, LabelStudioError):
        return missing
    answer = Response(data, content_type="image/webp")
    answer.headers["Cache-Control"] = f"private, max-age={KEPT_SECONDS}"
    return answer


def thumbnail_of(backend: Services, project: Project, task: Task) -> bytes:
    """A task's thumbnail as WebP.

    Raises:
        ImageError: the image is not available.
    """
    text = f"{project.url}\0{project.id}\0{task.task_id}\0{task.image}\0{SIDE}"
    key = sha256(text.encode(errors="surrogatepass")).hexdigest()
    kept = backend.thumbnails.get(key)
    if kept is not None:
        return kept
    source = backend.image_source(project)
    made = backend.images.prepared(source, task.task_id, task.image, _as_webp, SIDE)
    backend.thumbnails.put(key, made)
    return made


def _as_webp(pixels: Tensor) -> bytes:
    image = to_pil_image(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "WEBP", quality=82)
    return file.getvalue()
