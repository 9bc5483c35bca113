"""Fifty projects on one backend: each gets its turn, and none waits longer than for the others'."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from support.offline import add_project, add_round, make_services

from cdal.backend.jobs.kinds import JobKind
from cdal.backend.jobs.lanes import SHARE_S
from cdal.backend.jobs.workers import ONLY
from cdal.backend.loop import runner
from cdal.backend.loop.context import Context
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Project, now

PROJECTS = 50

WAIT_S = 500.0
"""How long a job that gave way waits here: so long that it never passes by itself."""


def services_of(folder: Path, projects: int, threads: int) -> Services:
    made = make_services(folder, worker_threads=threads)
    for number in range(1, projects + 1):
        add_project(made, uid=f"{number}.1", label_studio_id=number)
    return made


def let_share_pass(services: Services, job_id: int) -> None:
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        assert job.started_at is not None
        job.started_at -= timedelta(seconds=SHARE_S)


def let_waits_pass(services: Services) -> None:
    with services.store.transaction() as session:
        for job in session.scalars(select(Job).where(Job.not_before > now())):
            assert job.not_before is not None
            job.not_before -= timedelta(seconds=WAIT_S)


def runs(services: Services, project: int, kind: JobKind = "score") -> int | None:
    """Request a job for a project; returns its number if it runs now."""
    job = services.jobs.claim(services.jobs.ask(project, kind, "test"))
    return None if job is None else job.id


def long_running(services: Services, project: int, kind: JobKind = "score") -> int:
    job_id = runs(services, project, kind)
    assert job_id is not None
    let_share_pass(services, job_id)
    return job_id


def sent(services: Services) -> list[int]:
    """The numbers of the jobs that were sent."""
    found = []
    while (message := services.jobs.huey.dequeue()) is not None:
        found.append(message.args[0])
    return found


@pytest.mark.slow
def test_fifty_projects_take_turns_however_long_each_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five have pools that take three shares; a single one is scored at a time."""
    services = services_of(tmp_path, PROJECTS, threads=9)
    everyone, large = list(range(1, PROJECTS + 1)), [1, 2, 20, 49, 50]
    shares = {number: 3 if number in large else 1 for number in everyone}
    turns: list[int] = []

    def score(work: Context) -> str:
        turns.append(work.project.id)
        while shares[work.project.id]:
            shares[work.project.id] -= 1
            let_share_pass(services, work.job.id)
            let_waits_pass(services)
            if shares[work.project.id]:
                work.give_way()
        return "scored"

    monkeypatch.setattr(runner, "HANDLERS", {"score": score})
    monkeypatch.setattr(runner, "FIRST_WAIT_S", WAIT_S)
    services.jobs.work_as(ONLY, lambda job_id: runner.run_job(services, job_id, lambda: False))
    huey = services.jobs.huey
    for number in everyone:
        services.jobs.ask(number, "score", "test")
    while any(shares.values()):
        while (message := huey.dequeue()) is not None:
            if huey.ready_to_run(message):
                huey.execute(message)
        services.jobs.send_pending()  # the minute's poll
    # Messages that came twice may change the order within a lap.
    assert turns[:PROJECTS] == everyone
    assert sorted(turns[PROJECTS : PROJECTS + 5]) == large
    assert sorted(turns[PROJECTS + 5 :]) == large


def test_the_longest_running_of_three_gives_way_to_a_fourth(tmp_path: Path) -> None:
    services = services_of(tmp_path, 5, threads=11)
    first, second, third = (long_running(services, number) for number in (1, 2, 3))
    jobs = services.jobs
    assert not jobs.must_give_way(first)  # nobody waits
    assert jobs.ask(1, "select", "test")
    assert not jobs.must_give_way(first)  # only for itself
    assert runs(services, 4) is None
    assert [jobs.must_give_way(one) for one in (first, second, third)] == [True, False, False]
    jobs.put_back(first, delay_s=5, counts=False)
    fourth = runs(services, 4)
    assert fourth is not None
    assert runs(services, 5) is None
    assert not jobs.must_give_way(second)  # the fourth has its share first
    let_share_pass(services, fourth)
    assert jobs.must_give_way(second)


def test_nobody_gives_way_before_the_end_of_the_share_or_while_there_is_room(
    tmp_path: Path,
) -> None:
    services = services_of(tmp_path, 4, threads=11)
    first = runs(services, 1)
    assert first is not None
    assert runs(services, 2) is None
    assert not services.jobs.must_give_way(first)
    let_share_pass(services, first)
    assert not services.jobs.must_give_way(first)  # the second finds room beside it


def test_policies_that_train_leave_room_for_everybody_else(tmp_path: Path) -> None:
    services = services_of(tmp_path, 6, threads=11)
    with services.store.reading() as session:
        projects = list(session.scalars(select(Project).order_by(Project.id)))
    for project in projects[:3]:
        add_round(services, project, [], state="selecting", selector="cdal-rl")
    add_round(services, projects[3], [], state="selecting", selector="cdal-cs")
    for number in (1, 2):
        long_running(services, number, "select")
    assert runs(services, 3, "select") is None
    fourth = runs(services, 4, "select")
    assert fourth is not None
    services.jobs.finish(fourth, "done")
    fifth = long_running(services, 5)
    assert not services.jobs.must_give_way(fifth)  # only a policy waits, and it has no place
    assert runs(services, 6) is None
    assert services.jobs.must_give_way(fifth)


def test_a_job_that_gave_way_is_behind_those_that_waited(tmp_path: Path) -> None:
    services = services_of(tmp_path, 3, threads=9)
    first = long_running(services, 1)
    second, third = (services.jobs.ask(number, "score", "test") for number in (2, 3))
    services.jobs.put_back(first, delay_s=0.0, counts=False)
    services.jobs.huey.flush()
    services.jobs.send_pending()
    assert sent(services) == [second, third, first]
    with services.store.reading() as session:
        put_back = session.get_one(Job, first)
    assert (put_back.state, put_back.attempts) == ("pending", 0)
    assert put_back.not_before is not None
    assert put_back.not_before <= now()


def test_a_place_is_not_offered_to_a_project_that_has_one(tmp_path: Path) -> None:
    services = services_of(tmp_path, 4, threads=11)
    first, *_ = (long_running(services, number) for number in (1, 2, 3))
    services.jobs.ask(2, "select", "test")  # has waited longest, and waits for its own scoring
    fourth = services.jobs.ask(4, "score", "test")
    services.jobs.huey.flush()
    services.jobs.finish(first, "done")
    with services.store.reading() as session:
        ended = session.get_one(Job, first)
    services.jobs.send_next(ended)
    assert sent(services) == [fourth]
