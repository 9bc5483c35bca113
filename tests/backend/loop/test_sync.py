"""What sync reads from Label Studio and begins, against a fake; see offline.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from support.offline import (
    FakeLabelStudio,
    add_failure,
    add_project,
    add_round,
    add_tasks,
    add_version,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.label_studio.data import stamp
from cdal.backend.loop import due, queue, rounds, saved_tasks, sync
from cdal.backend.loop import select as select_job
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Job, Prediction, Project, Round, Task, now
from cdal.backend.web.model import CDALModel


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    # What finds typical images for the first order is tested in test_due.py and test_embed.py.
    settings = {"budget": 2, "reserve": 2, "min_labels": 2, "first_round": "random"}
    return add_project(services, extra_params=settings)


@pytest.fixture
def label_studio() -> FakeLabelStudio:
    fake = FakeLabelStudio()
    fake.add_tasks(range(1, 11))
    return fake


def run(services: Services, project: Project, label_studio: FakeLabelStudio, **more: Any) -> str:
    work = make_work(services, project, label_studio, **more)
    outcome = sync.run(work)
    services.jobs.finish(work.job.id, "done")
    return outcome


def requested(services: Services) -> list[tuple[str, str]]:
    return [job for job in jobs_of(services) if job[0] != "sync"]


def problem_of(services: Services, project: Project) -> str | None:
    with services.store.reading() as session:
        return session.get_one(Project, project.id).problem


def known(services: Services) -> dict[int, tuple[int, int]]:
    with services.store.reading() as session:
        return {t.task_id: (t.annotations, t.skips) for t in session.scalars(select(Task))}


def test_the_first_sync_reads_everything_and_begins_a_round(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    assert run(services, project, label_studio) == "10 tasks read; a round is due"
    assert known(services) == dict.fromkeys(range(1, 11), (0, 0))
    assert requested(services) == [("select", "pending")]


def test_without_tasks_nothing_is_due(services: Services, project: Project) -> None:
    outcome = run(services, project, FakeLabelStudio())
    assert outcome == "0 tasks read; the project has no tasks yet"


@pytest.fixture
def open_round(services: Services, project: Project, label_studio: FakeLabelStudio) -> Round:
    add_tasks(services, project, list(range(1, 11)))
    with services.store.transaction() as session:
        session.get_one(Project, project.id).changes_seen = "2026-01-01T00:00:01Z"
    return add_round(services, project, list(range(1, 11)), queued=4)


@pytest.mark.usefixtures("open_round")
class TestAnOpenRound:
    def test_new_labels_are_noticed(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        label_studio.label(1)
        assert run(services, project, label_studio).startswith("1 tasks read; nothing to do")
        assert known(services)[1] == (1, 0)

    def test_the_budget_makes_a_training_and_only_one(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        label_studio.label(1)
        label_studio.label(2)
        assert "2 new labels, a training is due" in run(services, project, label_studio)
        for _ in range(3):
            run(services, project, label_studio)
        assert requested(services) == [("train", "pending")]

    def test_a_failed_training_is_not_requested_again_until_more_is_labelled(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        for task_id in (1, 2):
            label_studio.label(task_id)
        run(services, project, label_studio)
        services.jobs.finish(2, "failed", error="Out of memory.")
        label_studio.label(3)
        run(services, project, label_studio)
        assert requested(services) == [("train", "failed")]
        label_studio.label(4)
        run(services, project, label_studio)
        assert requested(services) == [("train", "failed"), ("train", "pending")]

    def test_labels_share_a_sync_until_the_last_that_is_due(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        run(services, project, label_studio)

        def label(task_id: int) -> bool:
            """Label a task; whether Label Studio's event has a sync begin at once."""
            label_studio.label(task_id)
            with services.store.reading() as session:
                model = CDALModel(services, session.get_one(Project, project.id))
            return services.jobs.claim(model.fit("ANNOTATION_CREATED")) is not None

        assert not label(1)
        assert label(2)
        assert requested(services) == []
        assert "a training is due" in run(services, project, label_studio)

    def test_a_deletion_that_left_no_newer_time_is_noticed(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        label_studio.label(1)
        run(services, project, label_studio)
        label_studio.label(1, annotations=0, at="2026-01-01T00:00:00Z")
        run(services, project, label_studio)
        assert known(services)[1] == (0, 0)

    def test_a_task_that_was_deleted_is_forgotten(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        del label_studio.known[7]
        run(services, project, label_studio)
        assert set(known(services)) == set(range(1, 11)) - {7}

    @pytest.mark.parametrize("event", ["ANNOTATIONS_DELETED", "TASKS_DELETED", sync.POLL])
    def test_after_new_labels_deletions_are_not_looked_for(
        self, services: Services, project: Project, label_studio: FakeLabelStudio, event: str
    ) -> None:
        """To count a large project's tasks costs Label Studio more than all the rest."""
        del label_studio.known[7]
        run(services, project, label_studio, asked_by="ANNOTATION_CREATED")
        assert 7 in known(services)
        run(services, project, label_studio, asked_by=event)
        assert 7 not in known(services)

    def test_a_label_whose_time_was_taken_before_a_later_one_was_seen_is_noticed(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        """Two people submit at once, and the database lets the later one write first."""
        second = datetime.now(UTC)
        label_studio.label(2, at=stamp(second))
        run(services, project, label_studio)
        label_studio.label(1, at=stamp(second - timedelta(seconds=3)))
        run(services, project, label_studio)
        assert [known(services)[task] for task in (1, 2)] == [(1, 0), (1, 0)]

    def test_labels_that_a_hint_missed_are_found_by_the_poll(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        label_studio.label(1, at="2026-01-01T00:00:00Z")  # older than what is known
        run(services, project, label_studio)
        assert known(services)[1] == (0, 0)
        run(services, project, label_studio, asked_by=sync.POLL)
        assert known(services)[1] == (1, 0)

    def test_a_label_stream_off_the_queue_is_reported_once_and_until_fixed(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        with services.store.transaction() as session:
            session.get_one(Project, project.id).queue_version = "CDAL round 1.1"
        for _ in range(2):
            run(services, project, label_studio)
        with services.store.reading() as session:
            problem = session.get_one(Project, project.id).problem
            advice = session.get_one(Project, project.id).problem_advice
            assert len(session.scalars(select(Event).filter_by(level="warning")).all()) == 1
        assert problem is not None
        assert problem.startswith('The project\'s model version in Label Studio is "", not')
        assert advice is not None
        assert '"Rescore"' in advice
        label_studio.serve("CDAL round 1.1")
        run(services, project, label_studio)
        assert problem_of(services, project) is None

    def test_another_sampling_is_reported_until_fixed(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        """Label Studio's settings page offers only other values, and always saves one of them."""
        with services.store.transaction() as session:
            session.get_one(Project, project.id).queue_version = "CDAL round 1.1"
        label_studio.serve("CDAL round 1.1")
        label_studio.info = replace(label_studio.info, sampling="Sequential sampling")
        run(services, project, label_studio)
        assert problem_of(services, project) == (
            'The project\'s task sampling in Label Studio is "Sequential sampling", not '
            '"Uncertainty sampling", so the label stream does not follow the queue; the next '
            "round sets it again."
        )
        label_studio.serve("CDAL round 1.1")
        run(services, project, label_studio)
        assert problem_of(services, project) is None

    def test_new_images_do_not_put_a_training_off(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        """An order that is refreshed for new images keeps the round's count of labels."""
        label_studio.label(1)
        assert "a training" not in run(services, project, label_studio)
        with services.store.transaction() as session:
            begun = rounds.begin_round(session, services.jobs, project.id)
        assert (begun.is_refresh, begun.round.number) == (True, 1)
        selecting = make_work(services, project, label_studio, "select")
        select_job.run(selecting)
        services.jobs.finish(selecting.job.id, "done")
        with services.store.transaction() as session:
            session.get_one(Round, begun.round.id).state = "open"
        label_studio.label(2)
        assert "2 new labels, a training is due" in run(services, project, label_studio)

    def test_labels_that_were_deleted_are_not_made_up_for(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        with services.store.transaction() as session:
            session.scalars(select(Round)).one().labels = 3
            session.get_one(Project, project.id).training_labels = 3
        for task_id in (1, 2):  # of three that there were
            label_studio.label(task_id)
        run(services, project, label_studio)
        label_studio.label(3)
        assert "a training" not in run(services, project, label_studio)
        label_studio.label(4)
        assert "2 new labels, a training is due" in run(services, project, label_studio)

    def test_all_images_are_read_from_the_field_that_a_new_config_names(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        for task_id, task in label_studio.known.items():
            data = {**task.data, "full": f"/data/upload/full-{task_id}.png"}
            label_studio.known[task_id] = replace(task, data=data)
        config = label_studio.info.labeling_config.replace("$image", "$full")
        label_studio.info = replace(label_studio.info, labeling_config=config)
        run(services, project, label_studio)
        with services.store.reading() as session:
            images = {task.task_id: task.image for task in session.scalars(select(Task))}
        assert images == {number: f"/data/upload/full-{number}.png" for number in range(1, 11)}

    def test_a_training_does_not_take_a_queue_that_is_being_written_for_a_lost_one(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        with services.store.transaction() as session:
            session.get_one(Project, project.id).queue_version = "CDAL round 1.1"
        label_studio.serve("CDAL round 2.1")
        sync.read_changes(make_work(services, project, label_studio, "train"))
        assert problem_of(services, project) is None


def test_an_image_that_changed_is_no_longer_a_bad_one(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    add_tasks(services, project, [1], image="/data/upload/old.png", image_problem="Not there.")
    add_tasks(services, project, [2], image_problem="Not there.")
    run(services, project, label_studio)
    with services.store.reading() as session:
        assert session.get_one(Task, (1, 1)).image_problem is None
        assert session.get_one(Task, (1, 2)).image_problem == "Not there."


def test_the_end_of_a_pool_with_an_ended_and_a_bad_image_is_an_end(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    """It must not begin empty rounds one after another."""
    label_studio.info = replace(label_studio.info, skip_queue="IGNORE_SKIPPED")
    for task_id in range(1, 9):
        label_studio.label(task_id)
    label_studio.label(9, annotations=0, skips=1)
    add_version(services, project)
    add_tasks(services, project, list(range(1, 9)), annotations=1)
    add_tasks(services, project, [9], skips=1)
    add_tasks(services, project, [10], image_problem="It is not there.")
    add_round(services, project, [], state="closed")
    with services.store.transaction() as session:
        session.get_one(Project, project.id).training_labels = 8
    for _ in range(3):
        outcome = run(services, project, label_studio)
        assert outcome.endswith("every image that can be used is labelled")
    assert requested(services) == []


def test_one_person_who_skips_everything_ends_nothing_for_others(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    label_studio.info = replace(label_studio.info, skip_queue="REQUEUE_FOR_OTHERS")
    label_studio.label(1)
    for task_id in range(2, 11):
        label_studio.label(task_id, annotations=0, skips=1)
    assert run(services, project, label_studio).endswith("a round is due")
    work = make_work(services, project, label_studio, "select")
    assert select_job.run(work) == "9 images ranked by random"
    services.jobs.finish(work.job.id, "done")
    work = make_work(services, project, label_studio, "queue")
    assert queue.run(work).startswith("9 images queued")
    services.jobs.finish(work.job.id, "done")
    before = requested(services)
    for _ in range(3):
        assert run(services, project, label_studio).endswith("nothing to do")
    assert requested(services) == before


def test_more_is_ranked_than_one_person_skipped(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a ranking of skipped images alone would be used up at once, round after round."""
    monkeypatch.setattr(select_job, "RANKED_AT_LEAST", 2)
    monkeypatch.setattr(select_job, "RANKED_QUEUES", 1)
    for task_id in range(1, 6):
        label_studio.label(task_id, annotations=0, skips=1)
    run(services, project, label_studio)
    work = make_work(services, project, label_studio, "select")
    assert select_job.run(work) == "9 images ranked by random"


def test_a_training_and_a_round_for_new_images_begin_together(
    services: Services, project: Project, label_studio: FakeLabelStudio, open_round: Round
) -> None:
    """People go on labelling while the model trains."""
    label_studio.add_tasks([11])
    for task_id in range(1, 11):
        label_studio.label(task_id)
    outcome = run(services, project, label_studio)
    assert "10 new labels, a training is due" in outcome
    assert "had not ranked" in outcome
    assert requested(services) == [("train", "pending"), ("select", "pending")]
    assert run(services, project, label_studio).endswith("nothing to do")


@pytest.fixture
def exhausted(services: Services, project: Project, label_studio: FakeLabelStudio) -> Round:
    """40 of 41 images are labelled and were trained on; the open round holds the last one."""
    label_studio.add_tasks(range(1, 42))
    for task_id in range(1, 41):
        label_studio.label(task_id)
    add_version(services, project)
    add_tasks(services, project, list(range(1, 41)), annotations=1)
    add_tasks(services, project, [41])
    with services.store.transaction() as session:
        known = session.get_one(Project, project.id)
        known.training_labels, known.changes_seen = 40, "2026-01-01T00:00:01Z"
    return add_round(services, project, [41], queued=1, labels=40, budget=50)


def label_last(label_studio: FakeLabelStudio, task_id: int, age: timedelta) -> None:
    label_studio.label(task_id, at=stamp(datetime.now(UTC)))
    label_studio.known[task_id] = replace(
        label_studio.known[task_id], labelled_at=now() - age, annotators=(1,)
    )


@pytest.mark.usefixtures("exhausted")
class TestAnExhaustedPool:
    def test_one_more_label_makes_no_training_while_others_may_follow(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        label_last(label_studio, 41, age=timedelta(seconds=1))
        run(services, project, label_studio)
        assert requested(services) == []

    @pytest.mark.parametrize("minutes", [3, -60])  # the latter by a clock that is ahead
    def test_it_makes_one_when_none_has_followed(
        self, services: Services, project: Project, label_studio: FakeLabelStudio, minutes: int
    ) -> None:
        label_last(label_studio, 41, age=timedelta(minutes=minutes))
        assert "1 new labels, a training is due" in run(services, project, label_studio)

    def test_several_make_one_at_once(
        self, services: Services, project: Project, label_studio: FakeLabelStudio
    ) -> None:
        label_studio.add_tasks([42, 43])
        for task_id in (41, 42, 43):
            label_last(label_studio, task_id, age=timedelta(seconds=1))
        assert "3 new labels, a training is due" in run(services, project, label_studio)

    def test_a_budget_that_is_met_waits_for_nothing(
        self, services: Services, project: Project, label_studio: FakeLabelStudio, exhausted: Round
    ) -> None:
        with services.store.transaction() as session:
            session.get_one(Round, exhausted.id).budget = 1
            session.get_one(Project, project.id).extra_params = {"budget": 50, "min_labels": 2}
        label_last(label_studio, 41, age=timedelta(seconds=1))
        assert "1 new labels, a training is due" in run(services, project, label_studio)

    def test_without_an_open_round_it_is_the_same(
        self, services: Services, project: Project, label_studio: FakeLabelStudio, exhausted: Round
    ) -> None:
        with services.store.transaction() as session:
            session.get_one(Round, exhausted.id).state = "closed"
        label_last(label_studio, 41, age=timedelta(seconds=1))
        outcome = run(services, project, label_studio)
        assert outcome.endswith("every image that can be used is labelled")
        label_last(label_studio, 41, age=timedelta(minutes=3))
        assert run(services, project, label_studio).endswith("a training is due")


@pytest.mark.parametrize(
    ("state", "kind"), [("scoring", "score"), ("selecting", "select"), ("queueing", "queue")]
)
def test_a_round_whose_job_has_failed_goes_on_after_a_while(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    state: str,
    kind: Any,
) -> None:
    """Such a round comes from an older data folder: now it is given up together with its job."""
    version = add_version(services, project)
    add_round(services, project, [], state=state, model_version_id=version.id)
    job_id = services.jobs.ask(project.id, kind, "test")
    assert run(services, project, label_studio).endswith("nothing to do")  # on its way
    add_failure(services, job_id, "Label Studio was away.")
    assert run(services, project, label_studio).endswith("nothing to do")  # not at once
    with services.store.transaction() as session:
        session.get_one(Job, job_id).finished_at = now() - due.RESUME_AFTER - timedelta(seconds=1)
    assert run(services, project, label_studio).endswith("round 1 goes on")
    assert requested(services) == [(kind, "failed"), (kind, "pending")]
    assert run(services, project, label_studio).endswith("nothing to do")


def test_a_round_without_any_job_goes_on_at_once(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    """Such a round comes from a restored backup whose old jobs were pruned."""
    add_round(services, project, [], state="selecting")
    assert run(services, project, label_studio).endswith("round 1 goes on")
    assert requested(services) == [("select", "pending")]


def test_the_open_round_goes_on_when_the_next_one_fails(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    version = add_version(services, project)
    add_tasks(services, project, range(1, 11))
    add_round(services, project, range(1, 11), queued=4)
    add_round(services, project, [], state="scoring", number=2, model_version_id=version.id)
    failing = services.jobs.ask(project.id, "score", "test")
    services.jobs.finish(failing, "failed", error="The weights are of another network.")
    label_studio.label(1)
    assert run(services, project, label_studio).endswith("nothing to do")
    label_studio.label(2)
    assert run(services, project, label_studio).endswith("2 new labels, a training is due")


def test_a_first_round_that_failed_is_not_begun_again_at_every_label(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    run(services, project, label_studio)
    with services.store.transaction() as session:
        rounds.give_up_unfinished(session, project.id)
    (failed,) = [job for job in range(1, 9) if kind_of(services, job) == "select"]
    services.jobs.finish(failed, "failed", error="The options don't fit.")
    outcome = run(services, project, label_studio)
    assert outcome.endswith("a round failed, and is tried again in a few minutes")
    with services.store.transaction() as session:
        job = session.get_one(Job, failed)
        job.finished_at = now() - due.RESUME_AFTER
    assert run(services, project, label_studio).endswith("a round is due")


def kind_of(services: Services, job_id: int) -> str | None:
    with services.store.reading() as session:
        job = session.get(Job, job_id)
        return None if job is None else job.kind


def test_a_kill_while_changes_are_written_loses_none(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Changes that were not written are older than those that were, and must be read again."""
    monkeypatch.setattr(saved_tasks, "CHUNK", 4)
    label_studio.add_tasks(range(1, 11))
    run(services, project, label_studio)
    label_studio.label(1, skips=1, annotations=0, at="2026-03-02T00:00:00Z")
    label_studio.known[9] = replace(label_studio.known[9], updated_at="2026-03-01T00:00:00Z")
    label_studio.known[9] = replace(label_studio.known[9], skips=1)
    for number in range(2, 6):  # so that the two are not written together
        label_studio.label(number, at="2026-03-01T12:00:00Z")
    transaction = services.store.transaction
    writing = 0

    @contextmanager
    def killed() -> Iterator[Session]:
        nonlocal writing
        writing += 1
        if writing == 3:  # the project, the first chunk, and then
            raise KeyboardInterrupt
        with transaction() as session:
            yield session

    work = make_work(services, project, label_studio)
    object.__setattr__(services.store, "transaction", killed)
    with pytest.raises(KeyboardInterrupt):
        sync.read_changes(work)
    object.__setattr__(services.store, "transaction", transaction)
    assert known(services)[9] == (0, 0)
    run(services, project, label_studio)
    assert known(services)[9] == (0, 1)


def test_an_image_that_changed_is_scored_again(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    run(services, project, label_studio)
    add_version(services, project, {1: "cat", 2: "dog"})
    data = {"image": "/data/upload/another.png"}
    label_studio.known[1] = replace(
        label_studio.known[1], data=data, updated_at="2026-03-01T00:00:00Z"
    )
    run(services, project, label_studio)
    with services.store.reading() as session:
        assert session.scalars(select(Prediction.task_id)).all() == [2]


def test_a_label_stream_that_is_ahead_of_a_restored_store_is_written_again(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    add_tasks(services, project, range(1, 11))
    made = add_round(
        services, project, [3, 4, 5, 6], queued=4, queue_version="CDAL round 1.1", editions=1
    )
    # What Label Studio knows of the time after the backup.
    lost = {"task": 3, "score": 0.5, "result": []}
    label_studio.imports = [
        [{**lost, "model_version": f"CDAL round {version}"} for version in ("1.2", "2.1")]
    ]
    label_studio.serve("CDAL round 2.1")
    run(services, project, label_studio)
    assert requested(services) == [("queue", "pending")]
    queue.run(make_work(services, project, label_studio, "queue"))
    with services.store.reading() as session:
        # Not 1.2, which has been used: nobody is to have two predictions of one queue version.
        assert session.get_one(Round, made.id).queue_version == "CDAL round 1.3"
    assert label_studio.info.model_version == "CDAL round 1.3"
    assert label_studio.stream() == [3, 4, 5, 6]


def test_the_poll_has_bad_images_looked_at_again(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    run(services, project, label_studio)
    with services.store.transaction() as session:
        session.get_one(Task, (project.id, 1)).image_problem = "The host cannot be reached."
    run(services, project, label_studio)
    assert ("recheck", "pending") not in jobs_of(services)
    for _ in range(2):
        run(services, project, label_studio, asked_by=sync.POLL)
    assert jobs_of(services).count(("recheck", "pending")) == 1
