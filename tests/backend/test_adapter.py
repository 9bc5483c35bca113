"""A real Label Studio connects the adapter for label-studio-ml, whose server is a stand-in."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import select
from support.label_studio_ml import app, load_adapter
from werkzeug.serving import make_server

from cdal.backend.config import server_config
from cdal.backend.store.tables import Job, Project
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.project import LabelStudioProject, choices_config


@pytest.mark.label_studio
def test_label_studio_connects_and_calls_it(
    label_studio: LabelStudioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = load_adapter(monkeypatch, tmp_path, label_studio.url, label_studio.token)
    server = make_server("127.0.0.1", 0, app(adapter.CDALModel), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = choices_config(["cat", "dog"])
    project = LabelStudioProject.create(label_studio.url, label_studio.token, "adapter", config)
    try:
        backend = project.connect(f"http://127.0.0.1:{server.server_port}", {"budget": 5})
        (connected,) = project.sdk.ml.list(project=project.number)
        assert (connected.id, connected.state) == (backend, "CO")
        project.start_training(backend)
        with adapter.SERVICES.store.reading() as session:
            known = session.scalars(select(Project)).one()
            assert known.label_studio_id == project.number
            assert known.extra_params == {"budget": 5}
            assert session.scalars(select(Job)).first() is not None
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        project.close()
        adapter.SERVICES.store.close()
        server_config.cache_clear()
