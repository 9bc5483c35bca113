"""The worker: one a data folder, and what it does at its start and every minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.offline import add_project, jobs_of, make_config, make_services
from support.processes import worker_runs

from cdal.backend.errors import WorkerError
from cdal.backend.worker import _only_worker, _poll_with, run_worker


def test_one_worker_a_data_folder(tmp_path: Path) -> None:
    with _only_worker(tmp_path):
        assert worker_runs(tmp_path)
        with pytest.raises(WorkerError) as caught, _only_worker(tmp_path):
            pass
        assert str(caught.value) == (
            f"Another worker runs on the data folder {tmp_path}; stop it, or set MODEL_DIR."
        )
    with _only_worker(tmp_path):
        pass


def test_a_device_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as caught:
        run_worker(make_config(tmp_path, device="gpu"))
    assert str(caught.value) == (
        'CDAL_DEVICE: The device "gpu" is not one of auto, cpu, cuda and cuda:N.'
    )


def test_the_poll_asks_for_a_look_at_every_project_and_sends_what_waits(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    add_project(services)
    add_project(services, uid="13.1")
    services.jobs.ask(1, "train", "test")
    services.jobs.huey.flush()
    poll = _poll_with(services)
    poll()
    assert jobs_of(services) == [("train", "pending"), ("sync", "pending"), ("sync", "pending")]
    poll()
    assert len(jobs_of(services)) == 3
