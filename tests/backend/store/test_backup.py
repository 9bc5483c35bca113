"""Backups, and continuing from them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.exc import OperationalError
from support.forked import command
from support.held import HeldBackend
from support.offline import add_project, add_tasks, add_version, jobs_of, make_config, make_services
from support.processes import environment

from cdal.backend.errors import BackupError
from cdal.backend.services import Services
from cdal.backend.store import backup
from cdal.backend.store.backup import back_up
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.process import free_port
from cdal.models import load_network, make_network

Make = Callable[..., Any]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A data folder in use: two versions, of which one was pruned, and one half written."""
    made = make_services(tmp_path / "data")
    project = add_project(made)
    add_tasks(made, project, [1, 2])
    add_version(made, project, {1: "cat"}, number=1)
    add_version(made, project, {1: "cat"}, number=2)
    config = made.config
    make_network("classification", "mobilenet_v3_small", ("cat", "dog"), 32).save(
        config.version_folder(1, 2)
    )
    for name in ("00000000.safetensors", "00000001.unfinished"):
        config.scores_folder(1, 2).mkdir(parents=True, exist_ok=True)
        (config.scores_folder(1, 2) / name).write_bytes(b"scores")
    config.version_folder(1, 3).mkdir()
    made.jobs.ask(1, "train", "test")
    return made


def test_a_backup_holds_database_weights_and_scores_only(
    services: Services, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    with services.store.transaction():  # somebody writes at this moment
        assert back_up(services.config, target) == 1
    found = sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())
    assert found == [
        "cdal.sqlite",
        "projects/1/scores/2/00000000.safetensors",
        "projects/1/versions/2/manifest.json",
        "projects/1/versions/2/weights.safetensors",
        "projects/1/versions/2/weights.sha256",
    ]
    assert target.stat().st_mode & 0o777 == 0o700  # it holds tokens
    restored = make_services(target)
    assert jobs_of(restored) == [("train", "pending")]
    load_network(restored.config.version_folder(1, 2), torch.device("cpu"))


def test_nothing_is_overwritten_and_nothing_half_is_left(
    services: Services, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BackupError, match="there exists"):
        back_up(services.config, tmp_path / "there")
    with pytest.raises(BackupError, match="There is no database in the data folder"):
        back_up(make_config(tmp_path / "new"), tmp_path / "backup")
    (services.config.version_folder(1, 2) / "weights.safetensors").write_bytes(b"lost")
    with pytest.raises(BackupError, match="A model that serves could not be backed up"):
        back_up(services.config, tmp_path / "backup")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "new", "there"]


def test_it_is_on_the_disk_before_it_has_its_name(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss must not leave a backup with empty files."""
    target, synced, fsync = tmp_path / "backup", set(), os.fsync

    def note(descriptor: int) -> None:
        assert not target.exists() or synced >= {"weights.safetensors", "cdal.sqlite", "projects"}
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    back_up(services.config, target)
    assert synced >= {path.name for path in target.rglob("*")}
    assert tmp_path.name in synced


def test_a_disk_that_is_full_when_the_copy_is_opened_is_said(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("disk is full"))

    monkeypatch.setattr(backup, "Store", full)
    with pytest.raises(BackupError, match=r"could not be written: disk is full\.$"):
        back_up(services.config, tmp_path / "backup")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.label_studio
@pytest.mark.data
def test_a_loop_goes_on_from_a_backup_that_was_taken_while_it_ran(
    make_scenario: Make, label_studio: LabelStudioServer, tmp_path: Path
) -> None:
    port = free_port()
    server = HeldBackend(tmp_path / "old", label_studio.url, label_studio.token, port)
    server.start()
    try:
        scenario = make_scenario(80, server=server, budget=6, reserve=6, min_labels=4, epochs=2)
        scenario.wait_for_round(1)
        scenario.label_stream(6)
        scenario.wait_for_round(2)
        with server.trainings.held():
            scenario.label_stream(6)
            server.trainings.wait_for_training()
            said = command(environment(server.data_folder), "backup", tmp_path / "backup")
        assert said.startswith(f"{tmp_path / 'backup'} holds the database and ")
        scenario.wait_for_round(3)
        scenario.label_stream(6)  # of which the backup knows nothing
        scenario.wait_for_round(4)
    finally:
        server.stop()
    shutil.rmtree(server.data_folder)

    shutil.move(tmp_path / "backup", tmp_path / "new" / "data")
    restored = HeldBackend(tmp_path / "new", label_studio.url, label_studio.token, port)
    scenario.backend = restored
    restored.start()
    try:
        scenario.wait("labels", lambda s: s["labelled"] == 18)
        # The stream followed a queue that the backup does not know; it gets one that it does.
        project = scenario.project.sdk.projects
        status = scenario.wait(
            "a queue of its own",
            lambda s: (
                s["queue_version"] == project.get(id=scenario.number).model_version
                and scenario.is_idle(s)
            ),
        )
        queue = scenario.queue()
        served = scenario.label_stream(6)
        assert served == [task for task in queue if task in served]
        number = status["rounds"][-1]["number"]
        scenario.wait_for_round(number + 1)
        assert scenario.settle()["problem"] is None
        assert scenario.status()["versions"][-1]["labels"] == 24
    finally:
        restored.stop()
