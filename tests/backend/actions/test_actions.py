"""What an admin may do: what comes of it, and what is said where it cannot be done."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from support.offline import (
    FakeLabelStudio,
    add_failure,
    add_project,
    add_round,
    add_tasks,
    add_version,
    job_of,
    jobs_of,
    make_services,
    make_work,
    serving_id,
    write_network,
)
from support.pooled import add_scores
from support.processes import PATIENCE

from cdal.backend import actions
from cdal.backend.actions import project as project_actions
from cdal.backend.errors import ActionError
from cdal.backend.loop import runner as run_module
from cdal.backend.loop import sync
from cdal.backend.loop.context import Context
from cdal.backend.loop.rounds import MADE_BY
from cdal.backend.loop.runner import HANDLERS, run_job
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.tables import (
    Annotator,
    Base,
    Comparison,
    Event,
    ModelVersion,
    Project,
    RandomLabel,
    Round,
    Savings,
    Submission,
    now,
)
from cdal.models import Stopped


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


def events(services: Services) -> list[str]:
    with services.store.reading() as session:
        return list(session.scalars(select(Event.text).order_by(Event.id)))


def rounds(services: Services) -> list[tuple[int, str, int | None]]:
    with services.store.reading() as session:
        found = session.scalars(select(Round).order_by(Round.ranking))
        return [(r.number, r.state, r.model_version_id) for r in found]


ACTIONS: list[Callable[[Services], object]] = [
    lambda services: actions.retrain(services, 9, "ann"),
    lambda services: actions.rescore(services, 9, "ann"),
    lambda services: actions.roll_back(services, 9, 1, "ann"),
    lambda services: actions.pause(services, 9, "ann"),
    lambda services: actions.forget(services, 9, "ann"),
    lambda services: actions.resume(services, 9, "ann"),
    lambda services: actions.cancel(services, 9, "ann"),
    lambda services: actions.retry(services, 9, "ann"),
]


@pytest.mark.parametrize("action", ACTIONS)
def test_what_does_not_exist_is_named(
    services: Services, action: Callable[[Services], object]
) -> None:
    with pytest.raises(ActionError, match=r"^There is no (project|job) 9\.$") as caught:
        action(services)
    assert caught.value.status == 404
    assert events(services) == []


def test_a_training_is_asked_for_once(services: Services, project: Project) -> None:
    done = actions.retrain(services, project.id, "ann\n\x1b[31m")
    again = actions.retrain(services, project.id, "bob")
    assert done == again
    assert done.text == "Job 1 trains on the current labels."
    assert jobs_of(services) == [("train", "pending")]
    assert len(services.jobs.huey) >= 1
    assert events(services) == ["Training requested by ann [31m"]

    services.jobs.claim(1)
    later = actions.retrain(services, project.id, "bob")
    assert later.text == "Job 2 trains again when the running training has ended."


def test_rescoring_refreshes_the_order_with_the_serving_model(
    services: Services, project: Project
) -> None:
    version = add_version(services, project)
    add_round(services, project, [1], model_version_id=version.id)
    done = actions.rescore(services, project.id, "{ann}")
    assert done.text == "A new order of round 1 requested by {ann}."
    assert rounds(services) == [(1, "open", version.id), (1, "scoring", version.id)]
    assert jobs_of(services) == [("score", "pending")]
    assert done.job == 1

    with pytest.raises(ActionError) as caught:
        actions.rescore(services, project.id, "ann")
    assert str(caught.value) == (
        "An order of round 1 is already being prepared: job 1 (score) is waiting. Wait for it, or "
        "cancel it first."
    )


def test_a_round_that_stands_still_does_not_keep_from_rescoring(
    services: Services, project: Project
) -> None:
    add_round(services, project, [1], state="queueing")
    add_failure(services, services.jobs.ask(project.id, "queue", "test"), "away")
    actions.rescore(services, project.id, "ann")
    assert rounds(services) == [(1, "closed", None), (2, "selecting", None)]


def test_another_version_serves_and_the_order_is_refreshed_with_it(
    services: Services, project: Project
) -> None:
    first, second = (add_version(services, project, number=number) for number in (1, 2))
    for number in (1, 2):
        write_network(services, project, number)
    add_round(services, project, [1], model_version_id=second.id)
    done = actions.roll_back(services, project.id, 1, "{ann}")
    assert done.text == "Model version 1 serves, by {ann}; a new order of round 1 starts with it."
    assert rounds(services) == [(1, "open", second.id), (1, "scoring", first.id)]
    with pytest.raises(ActionError, match=r"^Model version 1 already serves\.$"):
        actions.roll_back(services, project.id, 1, "ann")

    actions.roll_back(services, project.id, 2, "ann")  # forward again
    assert rounds(services) == [
        (1, "open", second.id),
        (1, "closed", first.id),
        (1, "scoring", second.id),
    ]
    assert jobs_of(services) == [("score", "pending")]


def test_the_version_of_a_removed_control_may_serve_the_remaining_one(
    services: Services, project: Project
) -> None:
    """It still serves its own, in case that comes back, but not this one."""
    versions = [add_version(services, project, number=number) for number in (1, 2)]
    write_network(services, project, 1)
    with services.store.transaction() as session:
        for version, control in zip(versions, ("removed", "label"), strict=True):
            row = session.get_one(ModelVersion, version.id)
            row.serves, row.control = True, control
    actions.roll_back(services, project.id, 1, "ann")
    with services.store.reading() as session:
        rows = [session.get_one(ModelVersion, version.id) for version in versions]
        assert [(row.serves, row.control) for row in rows] == [(True, "label"), (False, "label")]


def test_a_version_that_is_pruned_meanwhile_cannot_serve(
    services: Services, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        add_version(services, project, number=number)
        write_network(services, project, number)
    load = project_actions.load_network

    def pruned(folder: Path, *others: Any, **options: Any) -> Any:
        network = load(folder, *others, **options)
        shutil.rmtree(folder)
        return network

    monkeypatch.setattr(project_actions, "load_network", pruned)
    with pytest.raises(ActionError, match="Model version 1 cannot serve: its weights"):
        actions.roll_back(services, project.id, 1, "ann")
    with services.store.reading() as session:
        assert serving_id(session, project.id) == 2


def test_versions_that_cannot_serve(services: Services, project: Project) -> None:
    for number in (1, 2, 3):
        add_version(services, project, number=number)
    write_network(services, project, 1, "segmentation")
    for number, sentence in [
        (7, "There is no model version 7 of project 1."),
        (
            2,
            "Model version 2 cannot serve: the data folder/projects/1/versions/2/manifest.json is "
            "missing.",
        ),
        (
            1,
            "Model version 1 cannot serve: it was trained for segmentation, and the project's "
            "labels are now for classification.",
        ),
    ]:
        with pytest.raises(ActionError) as caught:
            actions.roll_back(services, project.id, number, "ann")
        assert str(caught.value) == sentence
    with services.store.reading() as session:
        serving = serving_id(session, project.id)
        assert session.get_one(ModelVersion, serving).number == 3
    assert rounds(services) == []


def test_a_paused_project_begins_nothing_and_resumes(services: Services, project: Project) -> None:
    label_studio = FakeLabelStudio()
    label_studio.add_tasks(range(1, 6))
    assert actions.pause(services, project.id, "ann").text == (
        "Project 1 is paused: nothing new starts automatically."
    )
    with pytest.raises(ActionError, match="already paused"):
        actions.pause(services, project.id, "ann")
    outcome = sync.run(make_work(services, project, label_studio))
    assert outcome == "5 tasks read; the project is paused"
    assert rounds(services) == []

    done = actions.resume(services, project.id, "bob")
    assert job_of(services, done.job or 0).kind == "sync"
    with pytest.raises(ActionError, match="is not paused"):
        actions.resume(services, project.id, "bob")
    sync.run(make_work(services, project, label_studio))
    assert rounds(services) == [(1, "selecting", None)]
    assert events(services)[:2] == ["Paused by ann", "Resumed by bob"]


def test_what_is_queued_in_a_paused_project_is_topped_up(
    services: Services, project: Project
) -> None:
    label_studio = FakeLabelStudio()
    label_studio.add_tasks(range(1, 7))
    add_tasks(services, project, range(1, 7))
    add_round(services, project, range(1, 6), queued=2, queue_version="CDAL round 1.1")
    actions.pause(services, project.id, "ann")
    outcome = sync.run(make_work(services, project, label_studio, reserve=3))
    assert outcome == "6 tasks read; the project is paused, 3 more images queued"
    # Task 6 is ranked by no round, and none begins for it.
    outcome = sync.run(make_work(services, project, label_studio, reserve=9))
    assert rounds(services) == [(1, "open", None)]


def test_a_job_that_waits_is_cancelled_at_once(services: Services, project: Project) -> None:
    services.jobs.ask(project.id, "train", "test")
    assert actions.cancel(services, 1, "ann").text == "Job 1 (train) is cancelled."
    assert job_of(services, 1).outcome == "Cancelled by ann."
    run_job(services, 1, lambda: False)  # its message is still on the way
    assert jobs_of(services) == [("train", "cancelled")]
    with pytest.raises(ActionError) as caught:
        actions.cancel(services, 1, "ann")
    assert str(caught.value) == "Job 1 (train) has already ended: it is cancelled."
    assert events(services) == ["Job 1 (train): cancelled by ann"]


@pytest.mark.parametrize("kind", ["score", "select", "queue"])
def test_cancelling_a_round_in_the_making_leaves_the_open_one(
    services: Services, project: Project, kind: str
) -> None:
    add_round(services, project, [1], number=1)
    state = {"score": "scoring", "select": "selecting", "queue": "queueing"}[kind]
    add_round(services, project, [1], state=state, number=2)
    services.jobs.ask(project.id, kind, "test")  # type: ignore[arg-type]
    actions.cancel(services, 1, "ann")
    assert rounds(services) == [(1, "open", None), (2, "closed", None)]


def test_the_open_round_goes_on_if_somebody_cancels_that_its_queue_is_written_again(
    services: Services, project: Project
) -> None:
    add_round(services, project, [1], state="queueing", queue_version="CDAL round 1.1")
    services.jobs.ask(project.id, "queue", "test")
    actions.cancel(services, 1, "ann")
    assert rounds(services) == [(1, "open", None)]


def test_a_newer_round_outlives_the_job_of_an_older_one(
    services: Services, project: Project
) -> None:
    version = add_version(services, project)
    add_round(services, project, [1], state="closed", number=1)
    services.jobs.ask(project.id, "score", "round 1")
    services.jobs.claim(1)
    actions.rescore(services, project.id, "ann")
    actions.cancel(services, 1, "ann")
    services.jobs.put_back(1)
    assert jobs_of(services) == [("score", "cancelled"), ("score", "pending")]
    assert rounds(services)[-1] == (2, "scoring", version.id)


def test_a_cancelled_job_does_not_come_back_after_a_kill(
    services: Services, project: Project
) -> None:
    services.jobs.ask(project.id, "train", "test")
    services.jobs.claim(1)
    assert actions.cancel(services, 1, "ann").text == (
        "Job 1 (train) stops when a worker starts; none is running."
    )
    assert jobs_of(services) == [("train", "running")]
    services.jobs.recover()
    assert jobs_of(services) == [("train", "cancelled")]
    assert "Resumed after a kill" not in " ".join(events(services))


def test_only_what_failed_is_tried_again(services: Services, project: Project) -> None:
    services.jobs.ask(project.id, "train", "test")
    with pytest.raises(ActionError) as caught:
        actions.retry(services, 1, "ann")
    assert str(caught.value) == (
        "Job 1 (train) is pending; only a job that failed or was cancelled can be tried again."
    )
    services.jobs.finish(1, "failed", error="out of memory")
    done = actions.retry(services, 1, "ann")
    assert (done.text, done.job) == ("Job 2 repeats job 1 (train).", 2)
    assert jobs_of(services) == [("train", "failed"), ("train", "pending")]


def test_a_job_of_a_round_is_tried_again_where_the_round_stands(
    services: Services, project: Project
) -> None:
    add_round(services, project, [1], state="queueing")
    add_failure(services, services.jobs.ask(project.id, "score", "test"), "away")
    actions.retry(services, 1, "ann")
    assert jobs_of(services) == [("score", "failed"), ("queue", "pending")]


def test_a_job_whose_round_was_given_up_is_tried_again_with_a_new_round(
    services: Services, project: Project
) -> None:
    add_round(services, project, [1], state="closed")
    services.jobs.finish(services.jobs.ask(project.id, "select", "test"), "failed", error="odd")
    done = actions.retry(services, 1, "{ann}")
    assert done.text == "Job 1 (select) tried again by {ann}, as round 2."
    assert rounds(services)[-1] == (2, "selecting", None)


def test_a_job_that_runs_sees_from_another_process_that_it_is_cancelled(
    services: Services, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def work_long(work: Context) -> str:
        begun.set()
        while True:
            work.report(0.5, "training")
            time.sleep(0.01)

    monkeypatch.setattr(run_module, "HANDLERS", {"train": work_long})
    services.jobs.ask(project.id, "train", "test")
    worker = threading.Thread(target=run_job, args=(services, 1, lambda: False))
    worker.start()
    assert begun.wait(PATIENCE)
    other = make_services(tmp_path)  # as the web process has it
    actions.cancel(other, 1, "ann")
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert jobs_of(services) == [("train", "cancelled")]
    other.store.close()


@pytest.mark.parametrize("state", ["scoring", "selecting", "queueing"])
def test_a_job_that_is_cancelled_at_its_very_end_changes_nothing(
    services: Services, project: Project, state: str
) -> None:
    version = add_version(services, project, {1: "cat"})
    label_studio = FakeLabelStudio()
    if state != "scoring":  # which is at its end with nothing to score
        add_tasks(services, project, [1])
        label_studio.add_tasks([1])
    add_scores(services, project, {1: (0.9, 0.1)})
    add_round(services, project, [1], state=state, model_version_id=version.id)
    work = make_work(services, project, label_studio, MADE_BY[state])
    actions.cancel(services, work.job.id, "ann")  # its watch has not looked since
    with pytest.raises(Stopped):
        HANDLERS[MADE_BY[state]](work)
    services.jobs.put_back(work.job.id)
    assert rounds(services) == [(1, "closed", version.id)]
    assert jobs_of(services) == [(MADE_BY[state], "cancelled")]
    assert label_studio.info.model_version == ""  # the label stream follows what it followed


def test_a_forgotten_project_leaves_nothing_and_its_number_is_not_given_again(
    services: Services, project: Project
) -> None:
    kept = add_project(services, uid="13.1", label_studio_id=13)
    lost = add_project(services, uid="14.1", label_studio_id=14)
    for each in (kept, lost):
        add_tasks(services, each, [1, 2], annotations=1)
        version = add_version(services, each, {1: "cat"})
        begun = add_round(services, each, [1, 2], model_version_id=version.id)
        services.config.version_folder(each.id, 1).mkdir(parents=True)
        with services.store.transaction() as session:
            of = {"project_id": each.id}
            session.add(Submission(**of, task_id=1, labelled_at=now(), annotators=[7], seconds=2.0))
            session.add(Annotator(**of, number=7, name="ann"))
            session.add(RandomLabel(**of, task_id=1))
            session.add(Savings(**of, version=1, result={}))
            session.add(Comparison(round_id=begun.id, selector="entropy"))
            note(session, each.id, "something")
    before = rows(services)
    job_id = services.jobs.ask(lost.id, "sync", "ann")
    services.jobs.claim(job_id)
    with pytest.raises(ActionError, match=f"Job {job_id} .sync. of project 3 is running."):
        actions.forget(services, lost.id, "ann")
    services.jobs.finish(job_id, "done")

    done = actions.forget(services, lost.id, "ann")

    assert done.text.startswith("Project 3 is forgotten. What is in Label Studio stays;")
    assert events(services)[-1] == 'Project 3 ("") forgotten by ann'
    # Half of each table is left: the other project's, and the first project is nothing but itself.
    halves = {name: count // 2 for name, count in before.items() if name != "projects"}
    assert rows(services) == {**halves, "projects": 2, "events": halves["events"] + 1}
    assert services.config.project_folder(kept.id).exists()
    assert not services.config.project_folder(lost.id).exists()
    assert add_project(services, uid="15.1", label_studio_id=15).id == 4


def rows(services: Services) -> dict[str, int]:
    """How many rows each table has that has any."""
    with services.store.reading() as session:
        tables = Base.metadata.sorted_tables
        counts = {t.name: session.scalar(select(func.count()).select_from(t)) for t in tables}
    return {name: count for name, count in counts.items() if count}
