"""Rankings by other selectors, which queue nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    jobs_of,
    make_services,
    make_work,
)
from support.pooled import pooled_project

from cdal.backend.loop import comparison
from cdal.backend.loop.rounds import forget_older
from cdal.backend.reports.comparison import ComparisonView, comparison_view, ranks_of
from cdal.backend.services import Services
from cdal.backend.store.tables import Pick, Project, Round, Task


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def want(services: Services, project: Project, current: Round, *names: str) -> None:
    with services.store.transaction() as session:
        comparison.want(session, services.jobs, project, current, names, "test")


def made(services: Services, current: Round) -> dict[str, list[int] | None]:
    with services.store.reading() as session:
        return {name: row.task_ids for name, row in comparison.made(session, current).items()}


def test_each_selector_ranks_the_pool_and_the_queue_stays(services: Services) -> None:
    project, current = pooled_project(services)
    want(services, project, current, "entropy", "cdal-cs")
    assert made(services, current) == {"entropy": None, "cdal-cs": None}
    outcome = comparison.run(make_work(services, project, FakeLabelStudio(), "comparison"))
    assert outcome == "ranked by cdal-cs, entropy"
    found = made(services, current)
    # The most torn first; of the cat that is labelled, the dog is the farthest.
    assert found["entropy"] == [4, 6, 5, 2, 3]
    assert found["cdal-cs"] is not None
    assert found["cdal-cs"][0] == 3
    with services.store.reading() as session:
        assert list(session.scalars(select(Pick.task_id).order_by(Pick.rank))) == [3, 4, 6, 5, 2]
        ranks = ranks_of(comparison.made(session, current), [3, 99])
    assert ranks == {3: {"cdal-cs": 1, "entropy": 5}, 99: {"cdal-cs": None, "entropy": None}}


def test_what_has_been_labelled_since_was_in_the_pool(services: Services) -> None:
    project, current = pooled_project(services)
    with services.store.transaction() as session:
        session.get_one(Task, (project.id, 4)).annotations = 1
    want(services, project, current, "entropy")
    comparison.run(make_work(services, project, FakeLabelStudio(), "comparison"))
    assert made(services, current)["entropy"] == [4, 6, 5, 2, 3]


def test_it_is_asked_for_once(services: Services) -> None:
    project, current = pooled_project(services)
    want(services, project, current, "entropy")
    want(services, project, current, "entropy")
    assert jobs_of(services) == [("comparison", "pending")]
    comparison.run(make_work(services, project, FakeLabelStudio(), "comparison"))
    want(services, project, current, "entropy")
    assert len(jobs_of(services)) == 2


def test_a_random_round_has_nothing_to_rank_by(services: Services) -> None:
    project = add_project(services)
    current = add_round(services, project, [1, 2], queued=1)
    want(services, project, current, "entropy")
    assert made(services, current) == {}
    with services.store.reading() as session:
        names = ["entropy", "cdal-cs"]
        assert comparison_view(session, services.config, project, names) is None


def test_two_selectors_side_by_side(services: Services) -> None:
    project, current = pooled_project(services)

    def told() -> ComparisonView:
        with services.store.reading() as session:
            names = ["entropy", "cdal-cs"]
            found = comparison_view(session, services.config, project, names)
        assert found is not None
        return found

    assert (told().common, [one.ready for one in told().selectors]) == (
        None,
        [False, False],
    )
    want(services, project, current, "entropy", "cdal-cs")
    comparison.run(make_work(services, project, FakeLabelStudio(), "comparison"))
    one, other = told().selectors
    assert (one.picks, other.picks[0]) == ([4, 6], 3)
    assert told().common == len({4, 6} & set(other.picks))
    assert one.entropy == pytest.approx((1.0 + 0.971) / 2, abs=1e-3)
    assert one.classes == 1  # it takes both for cats
    assert other.diversity > one.diversity


def test_rankings_of_older_rounds_are_forgotten(services: Services) -> None:
    project, current = pooled_project(services)
    want(services, project, current, "entropy")
    newer = add_round(services, project, [4], number=3)
    with services.store.transaction() as session:
        forget_older(session, newer)
    assert made(services, current) == {}
