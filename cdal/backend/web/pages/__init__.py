"""The HTML pages: what the backend is doing, its results, and why an image comes next."""

from cdal.backend.web.pages import (
    actions,
    comparison,
    export,
    pool_map,
    project,
    queue,
    settings,
    thumbnails,
)
from cdal.backend.web.pages.site import site

__all__ = [
    "actions",
    "comparison",
    "export",
    "pool_map",
    "project",
    "projects",
    "queue",
    "settings",
    "site",
    "thumbnails",
]
