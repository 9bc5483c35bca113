"""How a round begins, and what is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.offline import (
    add_project,
    add_round,
    add_tasks,
    add_version,
    jobs_of,
    make_services,
)

from cdal.backend.loop.rounds import (
    begin_round,
    close_older,
    count_fresh_picks,
    ended_or_deleted,
    queue_version,
    round_of_queue,
    unlabelled_picks,
)
from cdal.backend.services import Services
from cdal.backend.store.tables import IGNORE_SKIPPED, Project, Round, Task


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


def begin(services: Services, project: Project, **settings: Any) -> Round:
    with services.store.transaction() as session:
        session.get_one(Project, project.id).extra_params = settings
        return begin_round(session, services.jobs, project.id).round


def state_of(services: Services, number: int) -> str:
    with services.store.reading() as session:
        return session.scalars(select(Round.state).filter_by(number=number)).one()


def test_without_a_model_it_is_random_and_says_so(services: Services, project: Project) -> None:
    begun = begin(services, project, selector="entropy", seed=5, budget=3)
    assert (begun.number, begun.state, begun.selector) == (1, "selecting", "random")
    assert (begun.cold_start, begun.seed) == ("There is no trained model yet.", 5)
    assert jobs_of(services) == [("select", "pending")]


def test_with_a_model_it_is_scored_first(services: Services, project: Project) -> None:
    version = add_version(services, project)
    begun = begin(services, project, selector="entropy")
    assert (begun.state, begun.selector, begun.cold_start) == ("scoring", "entropy", None)
    assert begun.model_version_id == version.id
    assert jobs_of(services) == [("score", "pending")]


def test_every_round_has_another_seed(services: Services, project: Project) -> None:
    assert [begin(services, project).seed for _ in range(3)] == [0, 1, 2]


def test_the_open_round_stays_and_one_in_the_making_is_given_up(
    services: Services, project: Project
) -> None:
    add_round(services, project, [1], state="open", number=1)
    add_round(services, project, [1], state="selecting", number=2)
    assert begin(services, project).number == 3
    assert (state_of(services, 1), state_of(services, 2)) == ("open", "closed")


def test_when_it_is_queued_the_older_ones_end(services: Services, project: Project) -> None:
    add_round(services, project, [1], number=1)
    newest = add_round(services, project, [1], number=2)
    with services.store.transaction() as session:
        close_older(session, session.get_one(Round, newest.id))
    assert (state_of(services, 1), state_of(services, 2)) == ("closed", "open")


@pytest.fixture
def ranked(services: Services, project: Project) -> Round:
    """Budget 2; tasks 1 to 4 are queued, 5 is ranked, and one was labelled before it began."""
    add_tasks(services, project, [1, 2, 3, 4, 5])
    add_tasks(services, project, [6], annotations=1)
    return add_round(services, project, [3, 1, 4, 2, 5], queued=4, labels=1)


def change(services: Services, task_id: int, **changes: int) -> None:
    with services.store.transaction() as session:
        for name, value in changes.items():
            setattr(session.get_one(Task, (1, task_id)), name, value)


def delete(services: Services, task_id: int) -> None:
    with services.store.transaction() as session:
        session.delete(session.get_one(Task, (1, task_id)))


def ignore_skipped(services: Services) -> None:
    """Let a skip end the task, as Label Studio's setting IGNORE_SKIPPED does."""
    with services.store.transaction() as session:
        session.get_one(Project, 1).skip_queue = IGNORE_SKIPPED


def test_deleted_images_and_those_that_a_skip_ended_will_not_be_labelled(
    services: Services, ranked: Round
) -> None:
    change(services, 3, skips=1)
    change(services, 2, skips=1, annotations=1)  # one person skipped it, another labelled it
    delete(services, 1)
    with services.store.reading() as session:
        assert ended_or_deleted(session, ranked) == 1  # others are served 3
    ignore_skipped(services)
    with services.store.reading() as session:
        assert ended_or_deleted(session, ranked) == 2


def test_what_is_left_of_it_by_rank(services: Services, ranked: Round) -> None:
    change(services, 1, annotations=1)
    change(services, 4, skips=1)
    delete(services, 5)
    with services.store.reading() as session:
        left = unlabelled_picks(session, ranked)
        assert [pick.task_id for pick in left.picks] == [3, 4, 2]
        assert left.fresh == {0, 3}
        # Everyone is served 3; whoever skipped 4 is served 2 next.
        assert [pick.task_id for pick in left.front(1)] == [3]
        assert [pick.task_id for pick in left.front(2)] == [3, 4, 2]
        assert left.front(9) == left.picks
        assert unlabelled_picks(session, ranked, "ranked").picks == []
        assert count_fresh_picks(session, ranked) == {"queued": 2}
    ignore_skipped(services)
    with services.store.reading() as session:
        assert [p.task_id for p in unlabelled_picks(session, ranked).picks] == [3, 2]
        assert count_fresh_picks(session, ranked) == {"queued": 2}


def test_the_name_of_a_queue_tells_its_round() -> None:
    assert queue_version(Round(number=12, editions=3)) == "CDAL round 12.3"
    assert round_of_queue("CDAL round 12.3") == 12
    assert [round_of_queue(other) for other in ("", "CDAL", "CDAL round 1", "x 1.1")] == [None] * 4
