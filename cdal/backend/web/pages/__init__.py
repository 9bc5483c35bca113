"""The pages: what the backend is doing, what came of it, and why an image comes next."""

from cdal.backend.web.pages import actions, comparison, pool, project, queue, settings, thumbnails
from cdal.backend.web.pages.site import site

__all__ = [
    "actions",
    "comparison",
    "pool",
    "project",
    "projects",
    "queue",
    "settings",
    "site",
    "thumbnails",
]
