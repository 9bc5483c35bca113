"""Label Studio, alone or with the backend, for measurements of them."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared import say

from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.process import free_port


@contextmanager
def label_studio_started(folder: Path) -> Iterator[LabelStudioServer]:
    """Label Studio, whose tasks may name what is in `folder / "images"`."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    # As Ctrl-C does: `timeout` would otherwise leave the servers running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = LabelStudioServer(folder / "label-studio", free_port(), secrets.token_hex(20), images)
    try:
        say("starting Label Studio")
        server.start()
        server.wait_until_up(f"{server.url}/health", START_SECONDS)
        yield server
    finally:
        server.stop()


@contextmanager
def both_started(folder: Path) -> Iterator[tuple[LabelStudioServer, BackendServer]]:
    """The same, and the backend."""
    with label_studio_started(folder) as label_studio:
        url, token = label_studio.url, label_studio.token
        backend = BackendServer(folder / "backend", free_port(), url, token)
        try:
            say("starting the backend")
            backend.start()
            backend.wait_until_up(f"{backend.url}/health", BACKEND_SECONDS)
            yield label_studio, backend
        finally:
            backend.stop()
