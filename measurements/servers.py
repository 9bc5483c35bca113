"""Label Studio and the backend, for measurements of both."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared import say

from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.process import free_port


@contextmanager
def both_started(folder: Path) -> Iterator[tuple[LabelStudioServer, BackendServer]]:
    """Label Studio, whose tasks may name what is in `folder / "images"`, and the backend."""
    token = secrets.token_hex(20)
    label_studio = LabelStudioServer(folder / "label-studio", free_port(), token, folder / "images")
    backend = BackendServer(folder / "backend", free_port(), label_studio.url, token)
    try:
        say("starting Label Studio and the backend")
        label_studio.start()
        label_studio.wait_until_up(f"{label_studio.url}/health", START_SECONDS)
        backend.start()
        backend.wait_until_up(f"{backend.url}/health", BACKEND_SECONDS)
        yield label_studio, backend
    finally:
        backend.stop()
        label_studio.stop()
