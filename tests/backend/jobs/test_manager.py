"""Jobs: a burst makes one, one runs at a time, a kill loses none, and nothing is pickled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from support.offline import add_project, job_of, jobs_of, make_services
from support.servers import PostgreSQL, RedisServer

from cdal.backend.jobs.gathering import POLL
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.jobs.lanes import SHARE_S
from cdal.backend.jobs.manager import MAX_DEATHS
from cdal.backend.jobs.rate_limit import Spacing
from cdal.backend.label_studio.webhook import REFUSED
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Project, Round, now


@pytest.fixture(params=["files", "servers"])
def services(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Services]:
    """On files, or on PostgreSQL and Redis."""
    changes = {}
    if request.param == "servers":
        redis_server: RedisServer = request.getfixturevalue("redis_server")
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        changes = {"database_url": postgresql.new_store(), "redis_url": redis_server.url}
    made = make_services(tmp_path, **changes)
    made.jobs.huey.flush()
    add_project(made)
    yield made
    made.store.close()


def ask(services: Services, kind: JobKind, project: int = 1) -> int:
    return services.jobs.ask(project, kind, "test")


def messages(services: Services) -> int:
    """How many messages wait for a worker."""
    return len(services.jobs.huey)


def test_a_burst_of_requests_makes_one_job_and_one_message(services: Services) -> None:
    numbers = {ask(services, "sync") for _ in range(50)}
    assert len(numbers) == 1
    assert jobs_of(services) == [("sync", "pending")]
    assert messages(services) == 1


def test_a_burst_from_many_threads_makes_one_job(services: Services) -> None:
    barrier = threading.Barrier(8)
    numbers = []

    def press() -> None:
        barrier.wait()
        numbers.append(ask(services, "train"))

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 8
    assert len(set(numbers)) == 1


def test_a_job_that_waits_to_be_shared_is_sent_at_once_when_somebody_cannot_wait(
    services: Services,
) -> None:
    shared = services.jobs.ask(1, "sync", "test", wait_s=60)
    assert services.jobs.ask(1, "sync", "test", wait_s=50) == shared
    assert services.jobs.claim(shared) is None
    assert ask(services, "sync") == shared
    job = services.jobs.claim(shared)
    assert job is not None
    assert job.id == shared
    # What waits for another reason goes on waiting.
    services.jobs.put_back(shared, "away", 60)
    assert ask(services, "sync") == shared
    assert services.jobs.claim(shared) is None


def test_a_look_that_several_share_sees_what_each_of_them_is_about(services: Services) -> None:
    """Deletions are not looked for after new labels, and settings only by the poll."""
    shared = services.jobs.ask(1, "sync", "ANNOTATION_CREATED", wait_s=60)
    for asked_by, seen in [
        (REFUSED, "ANNOTATION_CREATED"),  # anybody can cause it
        ("TASKS_DELETED", "TASKS_DELETED"),
        ("ANNOTATION_UPDATED", "TASKS_DELETED"),
        (POLL, POLL),
        ("ANNOTATIONS_DELETED", POLL),
    ]:
        assert services.jobs.ask(1, "sync", asked_by, wait_s=60) == shared
        assert job_of(services, shared).asked_by == seen


def test_a_look_that_was_stopped_hands_on_what_it_is_about(services: Services) -> None:
    stopped = services.jobs.ask(1, "sync", POLL)
    assert services.jobs.claim(stopped)
    another = services.jobs.ask(1, "sync", "ANNOTATION_CREATED")
    services.jobs.put_back(stopped)
    assert job_of(services, stopped).state == "done"
    assert job_of(services, another).asked_by == POLL


def test_a_look_that_has_begun_does_not_do_for_a_request_that_sees_more(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = services.jobs.ask(1, "sync", "ANNOTATION_CREATED")
    still_waits = services.jobs._still_waits

    def begin(waiting: Job, asked_by: str) -> bool:
        assert services.jobs.claim(waiting.id)
        return still_waits(waiting, asked_by)

    monkeypatch.setattr(services.jobs, "_still_waits", begin)
    another = services.jobs.ask(1, "sync", POLL)
    assert another != begun
    assert job_of(services, another).asked_by == POLL


def test_a_job_that_is_requested_too_often_waits_all_the_same(services: Services) -> None:
    spacing = Spacing(1, 60.0)
    first = services.jobs.ask(1, "sync", "test", spacing)
    assert services.jobs.claim(first)
    second = services.jobs.ask(1, "sync", "test", spacing, wait_s=1)
    assert services.jobs.ask(1, "sync", "test", spacing) == second
    assert services.jobs.claim(second) is None


def test_what_comes_while_a_job_runs_makes_one_more(services: Services) -> None:
    first = ask(services, "train")
    assert services.jobs.claim(first)
    assert ask(services, "train") == ask(services, "train") != first
    assert jobs_of(services) == [("train", "running"), ("train", "pending")]


def test_two_claims_of_one_job_give_one(services: Services) -> None:
    job_id = ask(services, "sync")
    barrier = threading.Barrier(8)
    claimed: list[Job] = []

    def claim() -> None:
        barrier.wait()
        job = services.jobs.claim(job_id)
        if job is not None:
            claimed.append(job)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job.id for job in claimed] == [job_id]
    assert job_of(services, job_id).attempts == 1


@pytest.mark.parametrize(
    ("running", "asked", "same_project", "may_run"),
    [
        ("train", "train", True, False),
        ("train", "train", False, False),  # two trainings would only slow each other down
        ("train", "score", True, True),
        ("train", "sync", True, True),
        ("train", "queue", True, True),
        ("score", "select", True, False),
        ("score", "score", False, False),
        ("sync", "queue", True, False),  # both write the project's queue
        ("queue", "sync", True, False),
        ("sync", "queue", False, True),
        ("sync", "sync", False, True),
        # Otherwise those of a few projects would leave no thread for a sync.
        ("comparison", "pool_map", False, False),
        ("prune", "recheck", False, False),
        ("prune", "comparison", True, True),
    ],
)
def test_lanes(
    services: Services, running: JobKind, asked: JobKind, same_project: bool, may_run: bool
) -> None:
    add_project(services, uid="13.1", label_studio_id=13)
    assert services.jobs.claim(ask(services, running))
    waiting = ask(services, asked, project=1 if same_project else 2)
    assert (services.jobs.claim(waiting) is not None) == may_run


def began_long_ago(services: Services, job_id: int) -> None:
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        job.started_at = now() - timedelta(seconds=SHARE_S + 1)


def test_a_long_selection_of_one_project_holds_up_no_other(tmp_path: Path) -> None:
    """Fifty projects: one trains its policy for hours, and the others take turns beside it."""
    services = make_services(tmp_path)
    for number in range(1, 51):
        add_project(services, uid=f"{number}.1", label_studio_id=number)
    long = ask(services, "select", project=1)
    assert services.jobs.claim(long)
    others = [ask(services, "score", project=number) for number in range(2, 51)]
    assert services.jobs.claim(others[0]) is None  # it has its share first
    began_long_ago(services, long)
    for job_id in others:
        assert services.jobs.claim(job_id)
        late = ask(services, "select", project=50 if job_id == others[0] else 2)
        assert services.jobs.claim(late) is None  # these still take turns
        services.jobs.finish(job_id, "done")
    # A newer round of the same project waits all the same.
    assert services.jobs.claim(ask(services, "score", project=1)) is None


def test_long_selections_leave_threads_for_labels(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    for number in range(1, 6):
        add_project(services, uid=f"{number}.1", label_studio_id=number)
    for number in range(1, 4):
        job_id = ask(services, "select", project=number)
        assert services.jobs.claim(job_id)
        began_long_ago(services, job_id)
    assert services.jobs.claim(ask(services, "select", project=4)) is None
    assert services.jobs.claim(ask(services, "sync", project=4))


def test_unknown_and_finished_jobs_cannot_be_claimed(services: Services) -> None:
    assert services.jobs.claim(99) is None
    job_id = ask(services, "sync")
    services.jobs.claim(job_id)
    services.jobs.finish(job_id, "done", outcome="all well")
    assert services.jobs.claim(job_id) is None
    job = job_of(services, job_id)
    assert (job.state, job.outcome, job.progress) == ("done", "all well", 1.0)
    assert job.started_at is not None
    assert job.finished_at is not None


def test_of_looks_that_went_well_the_last_one_is_remembered(services: Services) -> None:
    """Every submitted label requests one."""
    services.jobs.finish(ask(services, "sync"), "failed", error="Label Studio was away.")
    for _ in range(3):
        services.jobs.finish(ask(services, "sync"), "done")
    services.jobs.finish(ask(services, "train"), "done")
    services.jobs.finish(ask(services, "train"), "done")
    kept = [("sync", "failed"), ("sync", "done"), ("train", "done"), ("train", "done")]
    assert jobs_of(services) == kept


def test_progress(services: Services) -> None:
    job_id = ask(services, "train")
    services.jobs.report(job_id, 0.25, "reading")
    assert (job_of(services, job_id).progress, job_of(services, job_id).message) == (
        0.25,
        "reading",
    )


def test_after_a_kill_the_job_waits_again_and_its_attempts_count(services: Services) -> None:
    job_id = ask(services, "train")
    for attempt in range(1, MAX_DEATHS + 1):
        job = services.jobs.claim(job_id)
        assert job is not None
        assert job.attempts == attempt
        # A new worker; the last one was killed.
        assert services.jobs.recover() == (["train (job 1)"] if attempt < MAX_DEATHS else [])
    job = job_of(services, job_id)
    assert job.state == "failed"
    assert job.error == "The worker died 10 times while it ran this job."
    assert services.jobs.recover() == []
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
        assert project.problem == job.error
        assert "ran out of memory" in (project.problem_advice or "")


def test_a_round_whose_job_kills_every_worker_is_given_up(services: Services) -> None:
    with services.store.transaction() as session:
        values = {"selector": "x", "budget": 5, "seed": 0}
        session.add(Round(project_id=1, ranking=2, number=2, state="scoring", **values))
    job_id = ask(services, "score")
    for _ in range(MAX_DEATHS):
        services.jobs.claim(job_id)
        services.jobs.recover()
    with services.store.reading() as session:
        assert session.scalars(select(Round.state)).all() == ["closed"]


def test_after_a_kill_a_job_goes_on_as_the_one_requested_meanwhile(
    services: Services,
) -> None:
    first = ask(services, "train")
    services.jobs.claim(first)
    second = ask(services, "train")
    services.jobs.recover()
    assert jobs_of(services) == [("train", "done"), ("train", "pending")]
    assert job_of(services, first).outcome == f"Goes on as job {second}."


def test_put_back_with_a_delay_waits_for_it(services: Services) -> None:
    job_id = ask(services, "sync")
    services.jobs.claim(job_id)
    services.jobs.huey.flush()
    before = now()
    services.jobs.put_back(job_id, error="Label Studio was away", delay_s=60)
    after = now()
    assert services.jobs.claim(job_id) is None  # its message may come early, from `send_pending`
    job = job_of(services, job_id)
    assert (job.state, job.error) == ("pending", "Label Studio was away")
    assert job.not_before is not None
    minute = timedelta(seconds=60)
    assert before + minute <= job.not_before <= after + minute
    message = services.jobs.huey.dequeue()
    assert job.not_before <= message.eta <= after + minute

    with services.store.transaction() as session:
        session.get_one(Job, job_id).not_before = now() - timedelta(seconds=1)
    assert services.jobs.claim(job_id)


def test_a_job_that_was_stopped_waits_for_the_next_worker(services: Services) -> None:
    job_id = ask(services, "train")
    services.jobs.claim(job_id)
    services.jobs.huey.flush()
    services.jobs.put_back(job_id, counts=False)
    services.jobs.put_back(job_id, counts=False)  # recorded again, since the disk was full
    assert jobs_of(services) == [("train", "pending")]
    assert job_of(services, job_id).attempts == 0  # it is not one that failed
    assert messages(services) == 0
    services.jobs.send_pending()
    assert messages(services) == 1


def test_lost_messages_are_sent_again(services: Services) -> None:
    ask(services, "sync")
    ask(services, "train")
    services.jobs.huey.flush()
    services.jobs.send_pending(project_id=2)
    assert messages(services) == 0
    services.jobs.send_pending()
    assert messages(services) == 2


def test_a_request_is_part_of_its_transaction(services: Services) -> None:
    with pytest.raises(ZeroDivisionError), services.store.transaction() as session:  # noqa: PT012
        services.jobs.request(session, 1, "train", "test")
        1 / 0  # noqa: B018
    assert jobs_of(services) == []


def test_the_web_process_runs_no_job(services: Services) -> None:
    with pytest.raises(RuntimeError, match="sends jobs and runs none"):
        services.jobs._run(1)
