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
    pick_states,
)

from cdal.backend.loop.rounds import (
    begin_round,
    close_older,
    count_fresh_picks,
    ended_or_deleted,
    is_refresh,
    labels_in,
    queue_version,
    round_of_queue,
    unlabelled_picks,
    waits_for_typical,
)
from cdal.backend.services import Services
from cdal.backend.store.tables import IGNORE_SKIPPED, Job, Project, Round, Task


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


def begin(services: Services, project: Project, trained: bool = False, **settings: Any) -> Round:
    with services.store.transaction() as session:
        session.get_one(Project, project.id).extra_params = settings
        return begin_round(session, services.jobs, project.id, trained=trained).round


def states(services: Services) -> list[tuple[int, str]]:
    """Round and state of every ranking, the oldest first."""
    with services.store.reading() as session:
        rows = session.scalars(select(Round).order_by(Round.ranking))
        return [(row.number, row.state) for row in rows]


def test_without_a_model_it_is_random_and_says_so(services: Services, project: Project) -> None:
    begun = begin(services, project, selector="entropy", seed=5, budget=3)
    assert (begun.number, begun.state, begun.selector) == (1, "selecting", "random")
    assert begun.seed == 5
    assert "no trained model yet. Typical images come first" in (begun.cold_start or "")
    assert jobs_of(services) == [("select", "pending")]


@pytest.mark.parametrize(
    ("settings", "selector", "why"),
    [
        ({}, "typiclust", ""),
        ({"first_round": "random"}, "random", ""),
        ({"training": "full"}, "random", " Full training has no backbone"),
    ],
)
def test_typical_images_come_once_people_have_a_queue(
    services: Services, project: Project, settings: dict[str, str], selector: str, why: str
) -> None:
    add_tasks(services, project, [1, 2, 3])
    add_round(services, project, [1, 2, 3], queued=3)
    begun = begin(services, project, selector="entropy", **settings)
    assert (begun.number, begun.ranking, begun.selector) == (1, 2, selector)
    assert begun.state == ("scoring" if selector == "typiclust" else "selecting")
    assert (begun.cold_start or "").startswith(f"There is no trained model yet.{why}")


@pytest.mark.parametrize(
    ("last_job", "waits"), [("failed", True), ("cancelled", False), ("done", False)]
)
def test_typical_images_are_looked_for_again_only_after_a_failure(
    services: Services, project: Project, last_job: str, waits: bool
) -> None:
    first = add_round(services, project, [1, 2, 3], queued=3)
    with services.store.reading() as session:
        assert waits_for_typical(session, first)
    add_round(services, project, [], state="closed")
    with services.store.transaction() as session:
        session.add(Job(project_id=project.id, kind="score", state=last_job, asked_by="test"))
    with services.store.reading() as session:
        assert waits_for_typical(session, first) is waits


def test_with_a_model_it_is_scored_first(services: Services, project: Project) -> None:
    version = add_version(services, project)
    begun = begin(services, project, selector="entropy")
    assert (begun.state, begun.selector, begun.cold_start) == ("scoring", "entropy", None)
    assert begun.model_version_id == version.id
    assert jobs_of(services) == [("score", "pending")]


def test_every_ranking_has_another_seed(services: Services, project: Project) -> None:
    assert [begin(services, project).seed for _ in range(3)] == [0, 1, 2]


def learnt(services: Services, project: Project, labels: int) -> None:
    """A training began with so many labels."""
    with services.store.transaction() as session:
        session.get_one(Project, project.id).training_labels = labels


@pytest.fixture
def at_work(services: Services, project: Project) -> Round:
    """Round 4 asks for 3 labels; it has 2, and one image was labelled before it began."""
    add_tasks(services, project, [1, 2, 3], annotations=1)
    add_tasks(services, project, range(4, 10))
    return add_round(
        services, project, range(2, 10), number=4, queued=4, labels=1, budget=3, editions=2
    )


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("after_training", [True, False])
def test_an_open_round_has_its_order_refreshed(
    services: Services, project: Project, after_training: bool
) -> None:
    learnt(services, project, 3)
    with services.store.transaction() as session:
        session.scalars(select(Round)).one().training_asked = 3
    begun = begin(services, project, after_training, budget=7)
    # Its labels are counted from where the round began, and its queue gets a name of its own.
    assert (begun.number, begun.ranking, begun.counts_from) == (4, 2, 1)
    assert (begun.budget, begun.training_asked, begun.editions) == (7, 3, 2)
    assert states(services) == [(4, "open"), (4, "scoring")]


@pytest.mark.usefixtures("at_work")
def test_a_round_that_was_learnt_is_followed_by_the_next(
    services: Services, project: Project
) -> None:
    change(services, 4, annotations=1)
    learnt(services, project, 4)
    begun = begin(services, project, trained=True)
    assert (begun.number, begun.counts_from, begun.training_asked) == (5, None, None)


@pytest.mark.usefixtures("at_work")
def test_a_round_goes_on_until_its_last_labels_are_learnt(
    services: Services, project: Project
) -> None:
    change(services, 4, annotations=1)  # while the model was learning from three
    learnt(services, project, 3)
    assert begin(services, project, trained=True).number == 4


@pytest.mark.usefixtures("at_work")
def test_a_finished_round_that_waits_for_its_training_hands_its_labels_on(
    services: Services, project: Project
) -> None:
    change(services, 4, annotations=1)
    begun = begin(services, project)
    assert (begun.number, begun.counts_from) == (5, 1)


def test_the_open_round_stays_and_a_ranking_in_the_making_is_given_up(
    services: Services, project: Project
) -> None:
    add_round(services, project, [1], state="open", number=1)
    add_round(services, project, [1], state="selecting", number=1)
    begin(services, project)
    assert states(services) == [(1, "open"), (1, "closed"), (1, "scoring")]


def test_a_round_whose_queue_is_being_written_again_goes_on(
    services: Services, project: Project
) -> None:
    """As after a person has put images first; a training that ended then began the next round."""
    add_tasks(services, project, [1, 2, 3])
    first = add_round(
        services, project, [1, 2, 3], queued=3, labels=5, training_asked=7, editions=1,
        queue_version="CDAL round 1.1", state="queueing",
    )  # fmt: skip
    add_version(services, project)
    begun = begin(services, project, trained=True)
    assert states(services) == [(1, "open"), (1, "scoring")]
    assert (begun.counts_from, begun.training_asked, begun.editions) == (5, 7, 1)
    assert begun.model_version_id != first.model_version_id


def test_when_it_is_queued_the_older_ones_end(services: Services, project: Project) -> None:
    older = add_round(services, project, [1, 2, 3], queued=1)
    newest = add_round(services, project, [2, 3], queued=1)
    with services.store.transaction() as session:
        close_older(session, session.get_one(Round, newest.id))
    assert states(services) == [(1, "closed"), (1, "open")]
    # What was ranked but never queued needs no place in the store.
    assert pick_states(services, older) == {1: "queued"}
    assert pick_states(services, newest) == {2: "queued", 3: "ranked"}


def test_progress_continues_through_a_refreshed_order(services: Services, at_work: Round) -> None:
    """What an earlier order queued and a skip ended counts in the round, once."""
    project = project_of(services)
    with services.store.transaction() as session:
        session.get_one(Project, 1).skip_queue = IGNORE_SKIPPED
    with services.store.reading() as session:
        assert labels_in(session, at_work) == 2
    change(services, 4, skips=1)
    refreshed = add_round(services, project, [5, 6], number=4, queued=2, labels=1, budget=3)
    change(services, 5, skips=1)  # it was queued in both orders
    with services.store.reading() as session:
        assert labels_in(session, refreshed) == 4
        assert is_refresh(session, refreshed) is False  # nobody has followed the first yet
    with services.store.transaction() as session:
        session.get_one(Round, at_work.id).queue_version = "CDAL round 4.2"
    with services.store.reading() as session:
        assert is_refresh(session, refreshed) is True


def project_of(services: Services) -> Project:
    with services.store.reading() as session:
        return session.get_one(Project, 1)


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
