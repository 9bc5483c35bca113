"""Queries about a project's tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select
from support.offline import add_project, add_tasks, make_services

from cdal.backend.services import Services
from cdal.backend.store.queries import (
    count_labelled,
    count_tasks,
    count_unusable,
    forget_all_but,
    waiting,
)
from cdal.backend.store.tables import Project, Task


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


def test_tasks_are_counted_by_project(services: Services, project: Project) -> None:
    add_tasks(services, project, [1, 2])
    add_tasks(services, project, [3], annotations=2)
    add_tasks(services, project, [4], skips=1)
    other = add_project(services, uid="13.1")
    add_tasks(services, other, [5], annotations=1)
    with services.store.reading() as session:
        assert (count_tasks(session, project.id), count_labelled(session, project.id)) == (4, 1)
        assert (count_tasks(session, other.id), count_labelled(session, other.id)) == (1, 1)


def test_tasks_that_label_studio_no_longer_has_are_forgotten(
    services: Services, project: Project
) -> None:
    add_tasks(services, project, range(1, 1203))  # more than one query takes
    other = add_project(services, uid="13.1")
    add_tasks(services, other, [2000])
    with services.store.transaction() as session:
        forget_all_but(session, project.id, {3, 1202, 2001})
    with services.store.reading() as session:
        left = session.scalars(select(Task.task_id).order_by(Task.task_id)).all()
    assert left == [3, 1202, 2000]


def test_a_round_may_pick_images_that_are_not_labelled_ended_or_unusable(
    services: Services, project: Project
) -> None:
    add_tasks(services, project, [1])
    add_tasks(services, project, [2], annotations=1)
    add_tasks(services, project, [3], skips=1)
    add_tasks(services, project, [4], image_problem="The file does not exist.")
    other = add_project(services, uid="13.1")
    add_tasks(services, other, [5])
    with services.store.reading() as session:
        # A skip is that person's: others are served the task.
        assert session.scalars(select(Task.task_id).where(waiting(project.id))).all() == [1, 3]
        assert session.scalar(select(func.count()).where(waiting(other.id))) == 1
    with services.store.transaction() as session:
        session.get_one(Project, project.id).skip_queue = "IGNORE_SKIPPED"
    with services.store.reading() as session:
        assert session.scalars(select(Task.task_id).where(waiting(project.id))).all() == [1]


def test_bad_images_are_counted_without_looking_at_every_task(
    services: Services, project: Project
) -> None:
    add_tasks(services, project, range(1, 100))
    add_tasks(services, project, [100, 101], image_problem="The file does not exist.")
    said: list[tuple[Any, Any]] = []

    @event.listens_for(services.store.engine, "before_cursor_execute")
    def note(*given: Any) -> None:
        said.append((given[2], given[3]))

    with services.store.reading() as session:
        assert count_unusable(session, project.id) == 2
        statement, parameters = said[-1]
        explained = session.connection().exec_driver_sql(
            f"EXPLAIN QUERY PLAN {statement}", parameters
        )
        assert [row.detail for row in explained] == [
            "SEARCH tasks USING INDEX tasks_with_bad_images (project_id=?)"
        ]
