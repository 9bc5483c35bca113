"""Label Studios that do not answer, beside others that do, and many projects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.offline import add_project, job_of, make_services

from cdal.backend.errors import LabelStudioError
from cdal.backend.jobs import servers as module
from cdal.backend.jobs.servers import FIRST_WAIT_S, LONGEST_WAIT_S, Servers
from cdal.backend.jobs.workers import ONLY
from cdal.backend.loop import runner
from cdal.backend.loop.context import Context
from cdal.backend.loop.runner import HANDLERS, run_job
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Project, now

HUNG, HEALTHY = "http://hung.test", "http://healthy.test"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """Three projects of a Label Studio that hangs, and one of a healthy one."""
    anywhere = {"LABEL_STUDIO_URL": None, "LABEL_STUDIO_API_KEY": None}
    made = make_services(tmp_path, worker_threads=6, **anywhere)
    for number, url in enumerate((HUNG, HUNG, HUNG, HEALTHY), start=1):
        known = {"label_studio_id": number, "access_token": "t"}
        add_project(made, uid=f"{number}.1", url=url, **known)
    return made


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The servers that answer jobs, which a test may change."""
    answering = {HEALTHY}

    def ask(work: Context) -> str:
        if work.project.url not in answering:
            raise LabelStudioError("Label Studio did not answer: ReadTimeout", is_away=True)
        return "well"

    monkeypatch.setattr(runner, "HANDLERS", dict.fromkeys(HANDLERS, ask))
    return answering


def sync(services: Services, project: int) -> Job:
    """Run a sync as the worker does."""
    job_id = services.jobs.ask(project, "sync", "test")
    run_job(services, job_id, lambda: False)
    return job_of(services, job_id)


def let_wait_pass(services: Services, job: Job) -> None:
    with services.store.transaction() as session:
        session.get_one(Job, job.id).not_before = None


def test_a_server_is_left_alone_longer_and_longer(clock: Clock) -> None:
    servers = Servers()
    assert servers.find_away(HUNG) is None
    waits = []
    for _ in range(8):
        servers.note_failure(HUNG, "It did not answer.")
        away = servers.find_away(HUNG)
        assert away is not None
        waits.append(away.wait_s)
        clock.time += away.wait_s
        assert away.wait_s == 0
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S
    assert servers.find_away(HEALTHY) is None
    servers.note_answer(HUNG)
    assert servers.find_away(HUNG) is None


@pytest.mark.usefixtures("answers")
def test_jobs_for_a_server_that_hung_wait_without_a_thread(
    services: Services, clock: Clock
) -> None:
    first = sync(services, 1)
    assert (first.state, first.attempts) == ("pending", 0)
    second = sync(services, 2)  # which does not ask
    assert (second.state, second.started_at) == ("pending", None)
    assert second.not_before is not None
    assert second.not_before > now()
    assert sync(services, 4).state == "done"
    clock.time += FIRST_WAIT_S
    let_wait_pass(services, second)
    assert sync(services, 2).started_at is not None  # now it is this one's turn to try
    third = sync(services, 3)
    assert third.started_at is None
    let_wait_pass(services, third)
    sync(services, 3)
    with services.store.reading() as session:  # what lasts is told, also where nothing asked
        assert "did not answer" in (session.get_one(Project, 3).problem or "")


@pytest.mark.usefixtures("answers")
def test_many_servers_that_hang_leave_a_thread_for_the_others(
    services: Services, clock: Clock
) -> None:
    """With six threads, one finds out whether servers answer again."""
    other = add_project(services, uid="9.1", url="http://other.test", access_token="t")
    first, second = sync(services, 1), sync(services, other.id)
    assert (first.state, second.state) == ("pending", "pending")
    clock.time += FIRST_WAIT_S
    for job in (first, second):
        let_wait_pass(services, job)
    assert services.jobs.claim(first.id) is not None
    assert services.jobs.claim(second.id) is None
    assert sync(services, 4).state == "done"
    services.jobs.put_back(first.id, delay_s=60.0)
    let_wait_pass(services, second)
    assert services.jobs.claim(second.id) is not None


def test_a_server_that_answers_again_is_asked_at_once(
    services: Services, clock: Clock, answers: set[str]
) -> None:
    sync(services, 1)
    second = sync(services, 2)
    let_wait_pass(services, second)
    sync(services, 2)
    clock.time += FIRST_WAIT_S
    answers.add(HUNG)
    let_wait_pass(services, second)
    assert sync(services, 2).state == "done"
    assert sync(services, 3).state == "done"
    with services.store.reading() as session:
        assert session.get_one(Project, 2).problem is None


@pytest.mark.parametrize("status", [404, None])
def test_a_refusal_is_not_silence(
    services: Services, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """Nor is a missing token, for which nobody was asked."""

    def refuse(_: Context) -> str:
        raise LabelStudioError("Refused.", status)

    monkeypatch.setattr(runner, "HANDLERS", dict.fromkeys(HANDLERS, refuse))
    sync(services, 1)
    assert services.jobs.servers.find_away(HUNG) is None


def test_one_server_leaves_a_thread_for_the_others(services: Services) -> None:
    """Six threads: four for the shared lanes, two for the short jobs."""
    jobs = [services.jobs.ask(project, "sync", "test") for project in (1, 2, 3, 4)]
    claimed = [services.jobs.claim(job_id) for job_id in jobs]
    assert [job is not None for job in claimed] == [True, False, False, True]


def test_a_single_server_may_use_all_threads(tmp_path: Path) -> None:
    services = make_services(tmp_path, worker_threads=6)
    for number in range(1, 4):
        add_project(services, uid=f"{number}.1", label_studio_id=number)
    jobs = [services.jobs.ask(project, "sync", "test") for project in (1, 2, 3)]
    assert all(services.jobs.claim(job_id) is not None for job_id in jobs)


def drain(services: Services, run: Callable[[int], None]) -> int:
    """Deliver the messages until there are none; returns how many there were."""
    delivered = 0
    services.jobs.work_as(ONLY, run)
    while (task := services.jobs.huey.dequeue()) is not None:
        delivered += 1
        services.jobs.huey.execute(task)
    return delivered


@pytest.mark.parametrize("kind", ["sync", "score"])
def test_messages_grow_with_the_projects_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """50 projects took 3,675 messages."""
    services = make_services(tmp_path)
    for number in range(1, 51):
        add_project(services, uid=f"{number}.1", label_studio_id=number)
    done: Counter[int] = Counter()

    def count(work: Context) -> str:
        done[work.project.id] += 1
        return "well"

    monkeypatch.setattr(runner, "HANDLERS", dict.fromkeys(HANDLERS, count))
    for number in range(1, 51):
        services.jobs.ask(number, kind, "test")  # type: ignore[arg-type]
    services.jobs.send_pending()  # as the minute's poll does
    delivered = drain(services, lambda job_id: run_job(services, job_id, lambda: False))
    assert done == dict.fromkeys(range(1, 51), 1)
    assert delivered <= 4 * 50


def test_the_end_of_a_job_sends_the_next_one_of_a_shared_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path)
    for number in (1, 2, 3):
        add_project(services, uid=f"{number}.1", label_studio_id=number)
    services.jobs.worker = ONLY
    first = services.jobs.ask(1, "train", "test")
    claimed = services.jobs.claim(first)
    assert claimed is not None
    for number in (2, 3):
        services.jobs.ask(number, "train", "test")
    monkeypatch.setattr(runner, "HANDLERS", dict.fromkeys(HANDLERS, lambda _: "well"))
    assert drain(services, lambda job_id: run_job(services, job_id, lambda: False)) == 3
    services.jobs.finish(first, "done")
    services.jobs.send_next(claimed)
    drain(services, lambda job_id: run_job(services, job_id, lambda: False))
    assert [job_of(services, job_id).state for job_id in (2, 3)] == ["done", "done"]
