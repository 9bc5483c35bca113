"""What pruning removes, and what it keeps."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_version,
    jobs_of,
    make_services,
    make_work,
    serve,
)

from cdal.backend.loop import prune
from cdal.backend.loop.context import Context
from cdal.backend.loop.prune import forget_old_scores, forget_old_weights
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Job, Pick, Prediction, Project, Round, now


def test_only_what_earlier_versions_said_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    said = {7: "cat", 8: "dog", 9: "dog"}
    versions = [add_version(services, project, said, number) for number in (1, 2, 3)]
    folders = [services.config.scores_folder(project.id, number) for number in (1, 2, 3)]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.setattr(prune, "CHUNK", 2)  # of three
    current = add_round(services, project, [7], model_version_id=versions[1].id)

    forget_old_scores(make_work(services, project, FakeLabelStudio(), "queue"), current)

    assert [folder.exists() for folder in folders] == [False, True, True]
    with services.store.reading() as session:
        kept = session.scalars(select(Prediction.model_version_id)).all()
    assert sorted(kept) == [versions[1].id] * 3 + [versions[2].id] * 3


def test_a_random_round_forgets_nothing(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    version = add_version(services, project, {7: "cat"})
    current = add_round(services, project, [7])
    forget_old_scores(make_work(services, project, FakeLabelStudio(), "queue"), current)
    with services.store.reading() as session:
        assert session.scalars(select(Prediction.model_version_id)).all() == [version.id]


LONG_AGO = now() - timedelta(days=100)


def prune_work(services: Services, project: Project, label_studio: FakeLabelStudio) -> Context:
    return make_work(services, project, label_studio, "prune")


def test_the_newest_weights_and_those_in_use_are_kept(tmp_path: Path) -> None:
    services = make_services(tmp_path, keep_versions=2)
    project = add_project(services)
    versions = [add_version(services, project, number=number) for number in range(1, 7)]
    folders = [services.config.version_folder(project.id, v.number) for v in versions]
    for folder in folders:
        folder.mkdir(parents=True)
    add_round(services, project, [7], model_version_id=versions[2].id)
    with services.store.transaction() as session:  # rolled back to the first
        serve(session, versions[0].id)
        for version in versions:
            session.add(VersionImages(frozenset({b"x" * 16})).row(version.id))
    work = prune_work(services, project, FakeLabelStudio())
    assert forget_old_weights(work) == 2
    assert [folder.exists() for folder in folders] == [True, False, True, False, True, True]
    with services.store.reading() as session:
        kept = [VersionImages.read(session, version.id) is not None for version in versions]
    assert kept == [True, False, True, False, True, True]
    assert forget_old_weights(work) == 0


def test_old_records_go_and_what_is_decided_by_stays(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    old = add_round(services, project, [7], state="closed", closed_at=LONG_AGO)
    new = add_round(services, project, [7, 8], number=2, state="closed", closed_at=now())
    with services.store.transaction() as session:
        for created_at in (LONG_AGO, now()):
            session.add(Event(level="info", text="happened", created_at=created_at))
        for kind, finished_at in [("train", LONG_AGO), ("score", LONG_AGO), ("train", LONG_AGO)]:
            session.add(
                Job(
                    project_id=project.id,
                    kind=kind,
                    state="failed",
                    asked_by="",
                    finished_at=finished_at,
                )
            )
    prune.run(prune_work(services, project, FakeLabelStudio()))
    with services.store.reading() as session:
        assert session.scalars(select(Pick.round_id)).all() == [new.id] * 2
        assert session.get(Round, old.id) is not None
        assert len(session.scalars(select(Event)).all()) == 1
    # Whether a job of a kind has failed is asked of the newest one.
    assert jobs_of(services) == [("score", "failed"), ("train", "failed"), ("prune", "running")]


def test_what_a_round_queued_in_an_earlier_order_is_kept_as_long_as_it_is_open(
    tmp_path: Path,
) -> None:
    """Its deleted images count as settled, and its random draws for their share."""
    services = make_services(tmp_path)
    project = add_project(services)
    add_round(services, project, [7], queued=1, state="closed", closed_at=LONG_AGO)
    add_round(services, project, [8], queued=1, queue_version="CDAL round 1.2")
    prune.run(prune_work(services, project, FakeLabelStudio()))
    with services.store.reading() as session:
        assert session.scalars(select(Pick.task_id).order_by(Pick.task_id)).all() == [7, 8]


def test_weights_that_begin_to_serve_meanwhile_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody rolls back at the moment of the pruning."""
    services = make_services(tmp_path, keep_versions=2)
    project = add_project(services)
    versions = [add_version(services, project, number=number) for number in (1, 2, 3, 4)]
    folders = [services.config.version_folder(project.id, v.number) for v in versions]
    for folder in folders:
        folder.mkdir(parents=True)
    work = prune_work(services, project, FakeLabelStudio())
    begin = services.store.transaction

    def rolled_back() -> Any:
        monkeypatch.undo()
        with begin() as session:
            serve(session, versions[0].id)
        return begin()

    monkeypatch.setattr(services.store, "transaction", rolled_back)
    assert forget_old_weights(work) == 1
    assert [folder.exists() for folder in folders] == [True, False, True, True]


def removes_an_old_queue(folder: Path, labelled_at: str) -> bool:
    """Whether pruning does, where the queue's only task was labelled at this time."""
    services = make_services(folder)
    project = add_project(services)
    add_round(services, project, [7], state="closed", closed_at=LONG_AGO)
    label_studio = FakeLabelStudio()
    label_studio.add_tasks([7])
    label_studio.imports = [[{"task": 7, "model_version": "CDAL round 1.1"}]]
    label_studio.label(7, at=labelled_at)
    prune.run(prune_work(services, project, label_studio))
    return label_studio.prediction_counts() == {}


def test_nobody_is_disturbed(tmp_path: Path) -> None:
    """Label Studio on SQLite answers annotators with errors while it deletes predictions."""
    at = now()
    assert not removes_an_old_queue(tmp_path / "1", f"{at.isoformat()}Z")
    assert removes_an_old_queue(tmp_path / "2", f"{(at - prune.IDLE).isoformat()}Z")


def test_a_task_whose_time_has_no_zone_or_cannot_be_read(tmp_path: Path) -> None:
    """It may have been labelled just now."""
    assert not removes_an_old_queue(tmp_path / "1", now().isoformat())
    assert not removes_an_old_queue(tmp_path / "2", "today")


def test_old_queues_leave_label_studio_while_nobody_labels(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    for number, closed_at in [(1, LONG_AGO), (2, LONG_AGO), (3, now()), (4, None)]:
        add_round(
            services,
            project,
            [7],
            state="open" if closed_at is None else "closed",
            number=number,
            closed_at=closed_at,
            queue_version=f"CDAL round {number}.1",
        )
    label_studio = FakeLabelStudio()
    label_studio.add_tasks([7])
    # One of them is the half of an import that was interrupted, two are not ours.
    versions = [*(f"CDAL round {n}.1" for n in (4, 3, 2, 1)), "CDAL round 2.2", "mine", "CDAL"]
    label_studio.imports = [[{"task": 7, "model_version": version} for version in versions]]
    work = prune_work(services, project, label_studio)
    assert "the predictions of 3 old queues" in prune.run(work)
    assert [call for call in label_studio.calls if call.startswith("delete")] == [
        "delete CDAL round 1.1",
        "delete CDAL round 2.1",
        "delete CDAL round 2.2",
    ]
    assert set(label_studio.prediction_counts()) == {
        "CDAL round 4.1",
        "CDAL round 3.1",
        "mine",
        "CDAL",
    }


def test_it_is_requested_once_per_day(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    work = make_work(services, project, FakeLabelStudio())
    for _ in range(2):
        with services.store.transaction() as session:
            prune.request_if_due(work, session)
    assert jobs_of(services)[1:] == [("prune", "pending")]
    with services.store.transaction() as session:
        job = session.get_one(Job, 2)
        job.state, job.created_at = "done", now() - timedelta(hours=25)
        prune.request_if_due(work, session)
    assert jobs_of(services)[1:] == [("prune", "done"), ("prune", "pending")]
