"""Several workers on PostgreSQL: they share the work, and one that dies is replaced by another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from support.offline import add_project, jobs_of, make_config, make_services
from support.servers import PostgreSQL

from cdal.backend.errors import WorkerError
from cdal.backend.jobs import workers as module
from cdal.backend.jobs.workers import LATE_SECONDS, ONLY, Presence, living, present
from cdal.backend.loop.context import Context
from cdal.backend.reports.health import worker_view
from cdal.backend.services import Services
from cdal.backend.store.folder import folder_id
from cdal.backend.store.tables import Event, Job, Worker, now
from cdal.backend.supervisor import _commands
from cdal.backend.worker import _poll_with, _recover, _take_over
from cdal.models import Stopped

Begin = Callable[[], tuple[Services, Presence]]


@pytest.fixture
def begin(
    tmp_path: Path, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Begin]:
    """Begins another worker in this process, which beats only when it is told to."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 1e6)
    # All of them have this process's number.
    monkeypatch.setattr(module, "_has_ended", lambda worker: worker.pid < 0)
    url = postgresql.new_store()
    with ExitStack() as at_end:

        def another() -> tuple[Services, Presence]:
            services = make_services(tmp_path, database_url=url)
            at_end.callback(services.store.close)
            presence = at_end.enter_context(present(services.store, folder_id(tmp_path)))
            services.jobs.work_as(presence.number, lambda _: None)
            services.jobs.huey.flush()
            return services, presence

        yield another


def messages(services: Services) -> list[int]:
    """The jobs that a worker has messages about, which are removed."""
    found = []
    while (task := services.jobs.huey.dequeue()) is not None:
        found += task.args
    return found


def make_late(services: Services, worker: Presence, seconds: float = LATE_SECONDS + 1) -> None:
    with services.store.transaction() as session:
        row = session.get_one(Worker, worker.number)
        row.seen_at -= timedelta(seconds=seconds)
        row.machine = "another"


def watch_for(presence: Presence, seconds: float) -> None:
    """As if this worker had been in touch with the database for so long."""
    presence._since -= seconds


def running(services: Services) -> dict[str, int | None]:
    with services.store.reading() as session:
        jobs = session.scalars(select(Job).filter_by(state="running"))
        return {f"{job.kind} {job.project_id}": job.worker_id for job in jobs}


def test_each_trains_a_project_and_none_the_same(begin: Begin) -> None:
    (first, one), (second, two) = begin(), begin()
    for number in (1, 2, 3):
        add_project(first, uid=f"{number}.1", label_studio_id=number)
    train = [first.jobs.ask(project, "train", "test") for project in (1, 2, 3)]
    assert first.jobs.claim(train[0]) is not None
    assert first.jobs.claim(train[1]) is None  # it has a training
    assert second.jobs.claim(train[0]) is None  # somebody has it
    assert second.jobs.claim(train[1]) is not None
    assert running(first) == {"train 1": one.number, "train 2": two.number}
    # One project's queue is written by one job at a time, on whichever worker.
    sync, queue = first.jobs.ask(3, "sync", "test"), first.jobs.ask(3, "queue", "test")
    assert first.jobs.claim(sync) is not None
    assert second.jobs.claim(queue) is None


def test_every_worker_hears_of_every_job(begin: Begin) -> None:
    (first, _), (second, two) = begin(), begin()
    add_project(first)
    web = make_services(first.config.data_folder, database_url=first.config.store_url)
    job = web.jobs.ask(1, "train", "test")
    assert messages(first) == messages(second) == [job]
    make_late(first, two)
    web.jobs.ask(1, "sync", "test")
    assert len(messages(first)) == 1
    assert messages(second) == []
    web.store.close()


def test_a_worker_whose_process_is_gone_is_buried_at_once(begin: Begin) -> None:
    (first, one), (second, two) = begin(), begin()
    add_project(first)
    job = first.jobs.ask(1, "train", "test")
    assert second.jobs.claim(job) is not None
    _take_over(first, one)
    assert running(first) == {"train 1": two.number}  # both live
    with first.store.transaction() as session:
        session.get_one(Worker, two.number).pid = -1
    messages(first)
    _take_over(first, one)
    assert running(first) == {}
    assert messages(first) == [job]
    assert len(second.jobs.huey) == 0
    with first.store.reading() as session:
        assert [worker.id for worker in living(session)] == [one.number]
        (text,) = session.scalars(select(Event.text).filter_by(level="warning"))
    assert "train (job 1)" in text
    claimed = first.jobs.claim(job)
    assert claimed is not None
    assert claimed.worker_id == one.number


def test_one_that_is_not_heard_from_is_dead_unless_the_database_was_away(begin: Begin) -> None:
    (first, one), (_second, two) = begin(), begin()
    make_late(first, two, LATE_SECONDS - 5)
    watch_for(one, LATE_SECONDS + 1)
    assert bury(first, one) == []
    make_late(first, two)
    one._since += LATE_SECONDS + 1  # it has just heard from the database again
    assert bury(first, one) == []
    watch_for(one, LATE_SECONDS + 1)
    one._heard_from_store -= LATE_SECONDS + 1  # nor has it beaten itself
    one.beat()
    assert bury(first, one) == []
    watch_for(one, LATE_SECONDS + 1)
    assert bury(first, one) == [two.number]


def bury(services: Services, presence: Presence) -> list[int]:
    with services.store.transaction() as session:
        return presence.bury(session)


def test_what_a_worker_does_that_was_taken_for_dead_has_no_effect(begin: Begin) -> None:
    (first, one), (second, two) = begin(), begin()
    project = add_project(first)
    job_id = first.jobs.ask(project.id, "train", "test")
    job = second.jobs.claim(job_id)
    assert job is not None
    work = Context.of(second, job, lambda: second.jobs.is_cancelled(job_id))
    work.check_stop()
    make_late(first, two)
    watch_for(one, LATE_SECONDS + 1)
    _take_over(first, one)
    with pytest.raises(Stopped):
        work.check_stop()
    with pytest.raises(Stopped), second.store.transaction() as session:
        work.check_cancelled(session)
    assert first.jobs.claim(job_id) is not None
    second.jobs.report(job_id, 0.9, "nearly done")
    second.jobs.put_back(job_id, "stopped", 0.0)
    second.jobs.finish(job_id, "done", "well")
    assert running(first) == {"train 1": one.number}
    with first.store.reading() as session:
        assert session.get_one(Job, job_id).progress == 0
    one.beat()
    assert not one.lost.is_set()


def test_one_that_was_taken_for_dead_stops_its_jobs_and_works_again(begin: Begin) -> None:
    (first, one), (second, two) = begin(), begin()
    add_project(first)
    train, sync = (first.jobs.ask(1, kind, "test") for kind in ("train", "sync"))
    with two.at_work() as begins:
        assert begins
        assert second.jobs.claim(train) is not None
        assert second.jobs.claim(sync) is not None
        make_late(first, two)
        watch_for(one, LATE_SECONDS + 1)
        _take_over(first, one)
        assert first.jobs.claim(train) is not None
        for _ in range(2):  # a step that takes long
            two.beat()
            _take_over(second, two)
            assert two.lost.is_set()  # which the job is told at its next step
            with two.at_work() as begins:
                assert not begins
    with first.store.reading() as session:
        assert [worker.id for worker in living(session)] == [one.number]
    messages(second)
    two.beat()
    assert two.lost.is_set()
    _take_over(second, two)
    assert not two.lost.is_set()
    with first.store.reading() as session:
        assert [worker.id for worker in living(session)] == [one.number, two.number]
    assert running(first) == {"train 1": one.number}
    assert messages(second) == [sync]
    with two.at_work() as begins:
        assert begins
    assert second.jobs.claim(sync) is not None
    two.beat()
    _take_over(second, two)
    assert running(first) == {"train 1": one.number, "sync 1": two.number}


def test_a_job_that_could_not_be_put_back_runs_again_when_its_worker_returns(begin: Begin) -> None:
    (first, one), (second, two) = begin(), begin()
    add_project(first)
    train = first.jobs.ask(1, "train", "test")
    assert second.jobs.claim(train) is not None
    make_late(first, two)
    watch_for(one, LATE_SECONDS + 1)
    assert bury(first, one) == [two.number]  # and was killed before it put back the job
    messages(second)
    two.beat()
    _take_over(second, two)
    assert running(first) == {}
    assert messages(second) == [train]


def test_workers_of_two_data_folders_do_not_share_a_database(begin: Begin, tmp_path: Path) -> None:
    services, presence = begin()
    other = tmp_path / "other"
    other.mkdir()
    with (
        pytest.raises(WorkerError, match="another data folder"),
        present(services.store, folder_id(other)),
    ):
        pass
    make_late(services, presence)  # a dead one is in nobody's way
    with present(services.store, folder_id(other)):
        pass


def test_only_the_oldest_polls(begin: Begin) -> None:
    (first, one), (second, _) = begin(), begin()
    add_project(first)
    _poll_with(second)()
    assert jobs_of(first) == []
    _poll_with(first)()
    assert jobs_of(first) == [("sync", "pending")]
    make_late(first, one)
    job = first.jobs.claim(1)
    assert job is not None
    _poll_with(second)()
    assert jobs_of(first) == [("sync", "running"), ("sync", "pending")]


def test_unfinished_files_of_a_living_worker_are_left_alone(begin: Begin, tmp_path: Path) -> None:
    first, _ = begin()
    unfinished = tmp_path / "projects" / "7" / "versions" / "1"  # of a project that is unknown
    unfinished.mkdir(parents=True)
    second, two = begin()
    _recover(second, two, was_killed=False)
    assert unfinished.exists()
    with first.store.transaction() as session:
        session.query(Worker).filter(Worker.id != two.number).delete()
    _recover(second, two, was_killed=False)
    assert not unfinished.exists()


def test_what_a_worker_was_writing_when_it_died_is_removed_by_another(begin: Begin) -> None:
    (first, one), (second, two) = begin(), begin()
    written = {}
    for project, (services, _) in enumerate(((first, one), (second, two)), start=1):
        add_project(first, uid=f"{project}.1", label_studio_id=project)
        job = services.jobs.claim(first.jobs.ask(project, "train", "test"))
        assert job is not None
        written[project] = first.config.unfinished_versions(project, job.id, job.attempts)
        (written[project] / "0").mkdir(parents=True)
    _take_over(first, one)
    assert all(folder.exists() for folder in written.values())
    make_late(first, two)
    watch_for(one, LATE_SECONDS + 1)
    _take_over(first, one)
    assert written[1].exists()
    assert not written[2].exists()


def test_the_pages_say_where_they_run(begin: Begin) -> None:
    services, _ = begin()
    with services.store.reading() as session:
        assert worker_view(session).text.startswith("The worker is running on ")
    begin()
    with services.store.reading() as session:
        view = worker_view(session)
    assert view.alive
    assert view.text.startswith("2 workers are running: on ")


def test_the_only_worker_of_sqlite_goes_on_with_what_it_did(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    add_project(services)
    job = services.jobs.ask(1, "train", "test")
    with services.store.transaction() as session:  # it was killed
        session.add(
            Worker(
                id=ONLY, host="h", machine="m", pid=1, folder="f", started_at=now(), seen_at=now()
            )
        )
    services.jobs.work_as(ONLY, lambda _: None)
    assert services.jobs.claim(job) is not None
    with present(services.store, "f") as presence:
        assert presence.number == ONLY
        assert services.jobs.recover() == []
        assert services.jobs.recover(at_start=True) == ["train (job 1)"]
    with services.store.reading() as session:
        assert list(living(session)) == []


def test_processes_of_this_machine() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    machine = module._machine()
    gone, us, ours = (
        Worker(machine=place, pid=pid)
        for place, pid in (
            (machine, process.pid),
            (machine, os.getpid()),
            (machine, os.getppid()),
        )
    )
    assert module._has_ended(gone)
    assert module._has_ended(us)  # this process is a new worker, so that one was another
    assert not module._has_ended(ours)
    assert not module._has_ended(Worker(machine="elsewhere", pid=process.pid))


def test_a_data_folder_keeps_its_identity(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert folder_id(first) == folder_id(first) != folder_id(second)
    assert [file.name for file in first.iterdir()] == ["folder-id"]


def test_as_many_processes_as_the_operator_sets(tmp_path: Path) -> None:
    url = "postgresql://cdal@127.0.0.1/cdal"
    config = make_config(tmp_path, database_url=url, workers=3)
    names = [name for name, _, _ in _commands(config)]
    assert names == ["web process", "worker 1", "worker 2", "worker 3"]
    assert [environment.get("CDAL_WORKER") for _, _, environment in _commands(config)] == [
        None,
        "0",
        "1",
        "2",
    ]
    with pytest.raises(ValueError, match="CDAL_DATABASE_URL"):
        make_config(tmp_path, workers=2)
