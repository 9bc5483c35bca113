"""A full disk under a running backend: reported in a sentence, no damage, and it recovers.

The disk is full for real where a small file system can be mounted, which takes root. Elsewhere
that part is skipped with this reason; what the libraries raise then is tested in
loop/test_runner.py.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from support.forked import ForkedBackend
from support.offline import UID, URL, add_project, add_round, add_version, make_services
from support.processes import PATIENCE, wait_until

from cdal.models import make_network

pytestmark = pytest.mark.slow

ATTEMPTED = """
SELECT coalesce(max(started_at), '') FROM jobs
WHERE project_id = ? AND kind = 'sync' AND error LIKE '%Label Studio%'
"""
"""When the worker last found that there is no Label Studio, which jobs wait for."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Write until the disk has no room for another byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while shutil.disk_usage(folder).free:  # the processes that use it may give some back
            with contextlib.suppress(OSError):
                file.write(b"0" * 4096)
    return ballast


@contextmanager
def started(backend: ForkedBackend) -> Iterator[None]:
    try:
        backend.start()
        yield
    finally:
        backend.stop()


def test_it_goes_on_serving_and_takes_up_work_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    services = make_services(small_disk)
    project = add_project(services)
    version = add_version(services, project, {7: "cat"})
    make_network("classification", "mobilenet_v3_small", ("cat", "dog"), 32).save(
        services.config.version_folder(1, 1)
    )
    add_round(services, project, [7], queue_version="CDAL round 1.1", model_version_id=version.id)
    other = add_project(services, uid="another", label_studio_id=13)
    services.store.close()
    services.jobs.huey.storage.close()
    backend = ForkedBackend(tmp_path / "logs", URL, "no-token", {"MODEL_DIR": str(small_disk)})
    with (
        started(backend),
        httpx.Client(base_url=backend.url, timeout=PATIENCE) as client,
        closing(sqlite3.connect(small_disk / "cdal.sqlite", timeout=PATIENCE)) as store,
    ):

        def attempted(project_id: int) -> str:
            return str(store.execute(ATTEMPTED, (project_id,)).fetchone()[0])

        hint = {"action": "ANNOTATION_CREATED", "project": {"id": 13}}
        assert client.post("/webhook", json=hint).status_code == 200
        # Until then the worker starts, which it cannot do on a full disk.
        wait_until("the worker's first job", lambda: attempted(other.id) > "")
        ballast = fill(small_disk)
        hint = {"action": "ANNOTATION_CREATED", "project": {"id": 12}}
        answers = [client.post("/webhook", json=hint) for _ in range(3)]
        refused = [answer for answer in answers if answer.status_code != 200]
        for answer in refused:
            assert answer.status_code == 503
            assert answer.json()["error"].startswith("The disk of the data folder is full")
        asked = {"tasks": [{"id": 7, "data": {}}], "project": UID}
        predicted = client.post("/predict", json=asked).json()["results"]
        assert predicted[0]["result"][0]["value"]["choices"] == ["cat"]
        assert client.get("/health").status_code == 200
        assert client.get("/api/v1/projects").status_code == 200
        time.sleep(3)  # so that the worker meets it, too
        backend.check_alive()

        before = attempted(project.id)
        ballast.unlink()
        assert client.post("/webhook", json=hint).status_code == 200
        wait_until("an attempt", lambda: attempted(project.id) > before)
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        backend.check_alive()
    assert "Traceback" not in backend.log.read_text()
