"""The pages: what the backend is doing, what came of it, and why an image comes next."""

from cdal.backend.pages import (  # each adds its own address to the site
    actions,
    comparison,
    pool,
    project,
    projects,
    queue,
    settings,
    thumbnails,
)
from cdal.backend.pages.site import site

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
