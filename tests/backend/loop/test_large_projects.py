"""Reading projects of many pages: resumed after a kill, with a queue before the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, select
from support.offline import FakeLabelStudio, add_project, jobs_of, make_services, make_work

from cdal.backend.jobs.gathering import POLL
from cdal.backend.label_studio.client import ALL_IDS, LAST_ID
from cdal.backend.label_studio.data import TaskInfo
from cdal.backend.loop import changes, deletions, queue, sync
from cdal.backend.loop import select as selecting
from cdal.backend.services import Services
from cdal.backend.store.tables import Project, Round, Task

TASKS = 42

COUNT = "SELECT count(*) AS count_1 FROM tasks WHERE tasks.project_id = ?"


class Paged(FakeLabelStudio):
    """Notes what it lists, and ends the process after so many tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[int] = []
        self.ids_listed: list[int] = []
        self.dies_after: int | None = None

    def tasks(
        self, changed_since: str | None = None, after: int = 0, until: int = LAST_ID
    ) -> Iterator[TaskInfo]:
        for task in super().tasks(changed_since, after, until):
            if self.dies_after is not None and len(self.listed) >= self.dies_after:
                raise KeyboardInterrupt
            self.listed.append(task.task_id)
            yield task

    def task_ids(self, among: tuple[int, int] = ALL_IDS) -> set[int]:
        found = super().task_ids(among)
        self.ids_listed += found
        return found


@pytest.fixture
def services(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setattr(changes, "PAGE", 4)
    monkeypatch.setattr(deletions, "PAGE", 4)
    return make_services(tmp_path)


@pytest.fixture
def statements(services: Services) -> list[str]:
    """The statements that the store runs from now on."""
    said: list[str] = []

    @event.listens_for(services.store.engine, "before_cursor_execute")
    def note(*given: Any) -> None:
        said.append(" ".join(given[2].split()))

    return said


@pytest.fixture
def project(services: Services) -> Project:
    settings = {"budget": 2, "reserve": 2, "min_labels": 30, "first_round": "random"}
    return add_project(services, extra_params=settings)


@pytest.fixture
def label_studio() -> Paged:
    fake = Paged()
    fake.add_tasks(range(1, TASKS + 1))
    return fake


def run(services: Services, project: Project, label_studio: Paged, **more: Any) -> str:
    work = make_work(services, project, label_studio, **more)
    try:
        return sync.run(work)
    finally:
        services.jobs.finish(work.job.id, "done")


def known(services: Services) -> dict[int, int]:
    with services.store.reading() as session:
        return {task.task_id: task.annotations for task in session.scalars(select(Task))}


def test_after_a_kill_the_reading_goes_on_where_it_was(
    services: Services, project: Project, label_studio: Paged
) -> None:
    label_studio.dies_after = 14
    with pytest.raises(KeyboardInterrupt):
        run(services, project, label_studio)
    assert list(known(services)) == list(range(1, 13))
    # These change behind and before the place where it stopped.
    label_studio.label(3, at="2026-02-01T00:00:00Z")
    label_studio.label(40, at="2026-02-01T00:00:01Z")
    del label_studio.known[5]
    label_studio.dies_after, label_studio.listed = None, []
    assert run(services, project, label_studio).startswith("30 tasks read")
    assert label_studio.listed[:30] == list(range(13, TASKS + 1))
    run(services, project, label_studio)
    assert known(services) == {
        number: int(number in (3, 40)) for number in range(1, TASKS + 1) if number != 5
    }


def test_people_have_a_queue_before_all_is_read(
    services: Services, project: Project, label_studio: Paged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "SLICE_S", 0.0)
    outcome = run(services, project, label_studio)
    assert outcome == "4 tasks read, more are to come; a round is due with these"
    assert jobs_of(services)[1:] == [("select", "pending"), ("sync", "pending")]
    for job, kind in ((selecting.run, "select"), (queue.run, "queue")):
        work = make_work(services, project, label_studio, kind)
        job(work)
        services.jobs.finish(work.job.id, "done")
    assert len(label_studio.listed) == 4  # the selection did not wait for the rest
    assert sorted(label_studio.stream()) == [1, 2, 3, 4]
    outcomes = [run(services, project, label_studio) for _ in range(11)]
    assert outcomes[:9] == ["4 tasks read, more are to come"] * 9
    assert set(known(services)) == set(range(1, TASKS + 1))
    with services.store.reading() as session:
        assert len(session.scalars(select(Round)).all()) == 1
        assert session.scalars(select(Project.read_up_to)).one() is None


@pytest.mark.parametrize("gone", [{7}, {1, 42}, set(range(9, 30))])
def test_deletions_are_found_by_ids_alone(
    services: Services, project: Project, label_studio: Paged, gone: set[int]
) -> None:
    run(services, project, label_studio)
    run(services, project, label_studio)
    for task_id in gone:
        del label_studio.known[task_id]
    label_studio.listed, label_studio.ids_listed = [], []
    run(services, project, label_studio)
    assert set(known(services)) == set(range(1, TASKS + 1)) - gone
    # All tasks have the same time of change, so this lists them all; nothing else does.
    assert label_studio.listed == sorted(label_studio.known)
    assert len(label_studio.ids_listed) <= 4 * len(gone)


def test_a_label_deleted_without_a_newer_time_is_found_in_its_part(
    services: Services, project: Project, label_studio: Paged
) -> None:
    for task_id in (3, 20, 41):
        label_studio.label(task_id)
    run(services, project, label_studio)
    label_studio.label(20, annotations=0, at="2026-01-01T00:00:00Z")
    label_studio.listed = []
    run(services, project, label_studio)
    assert [task for task, count in known(services).items() if count] == [3, 41]
    assert len(label_studio.listed) <= 2 + 4


def test_a_task_that_was_missed_is_read(
    services: Services, project: Project, label_studio: Paged
) -> None:
    run(services, project, label_studio)
    label_studio.label(2)
    run(services, project, label_studio)
    label_studio.add_tasks([100])  # with an old time of change
    run(services, project, label_studio)
    assert 100 in known(services)


def test_tasks_are_counted_only_when_their_number_changed_and_every_minute(
    services: Services,
    project: Project,
    label_studio: Paged,
    statements: list[str],
) -> None:
    run(services, project, label_studio)
    statements.clear()
    label_studio.label(2)
    run(services, project, label_studio)
    assert statements
    assert not [said for said in statements if said.endswith(COUNT)]
    label_studio.add_tasks([100])  # and as many are deleted before it is read
    label_studio.known[100] = replace(label_studio.known[100], updated_at="2026-02-01T00:00:00Z")
    del label_studio.known[9]
    run(services, project, label_studio)
    assert {9, 100} <= set(known(services))
    run(services, project, label_studio, asked_by=POLL)
    assert set(known(services)) == set(label_studio.known)
    assert [said for said in statements if said.endswith(COUNT)]
