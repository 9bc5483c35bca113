"""The sample of a large pool that a round scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.offline import add_project, add_round, add_tasks, make_services

from cdal.backend.loop.pool_sample import sample_of, sampled
from cdal.backend.loop.select import draw_order
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import Round


def test_half_are_the_best_of_before_and_half_random() -> None:
    found = sample_of(range(1, 101), [7, 200, 5, 9, 3], [], 6, "0 1")
    assert found[:3] == [7, 5, 9]  # 200 is labelled by now
    assert len(set(found)) == 6


def test_other_rounds_draw_others() -> None:
    samples = [set(sample_of(range(1000), [], [], 100, f"0 {ranking}")) for ranking in range(60)]
    assert samples[0] == set(sample_of(range(1000), [], [], 100, "0 0"))
    assert samples[0] != samples[1]
    # Each image is left out of 60 rounds with a probability of 0.9 ** 60, 0.2%.
    assert len(set().union(*samples)) > 980


def test_random_draws_are_in_it_whatever_was_best() -> None:
    found = sample_of(range(100), [1, 2, 3, 4], [50, 51, 52], 4, "0 1")
    assert found == [50, 51, 52, 1]
    assert sample_of(range(100), [1, 2], [50, 51], 2, "0 1") == [50, 51]


def test_few_are_all_of_it() -> None:
    assert sorted(sample_of([1, 2, 3], [2], [], 9, "0 1")) == [1, 2, 3]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """300 tasks, of which the first ten are labelled, and a ranking of some of the others."""
    made = make_services(tmp_path)
    project = add_project(made)
    add_tasks(made, project, range(1, 11), annotations=1)
    add_tasks(made, project, range(11, 301))
    add_tasks(made, project, [301, 302], image_problem="gone")
    add_round(made, project, [5, *range(200, 300)], state="closed")
    add_round(made, project, [], state="scoring", number=2)
    return made


def of_round(services: Services, **settings: Any) -> set[int] | None:
    with services.store.reading() as session:
        current = session.get_one(Round, 2)
        current.selector = "cdal-cs"
        return sampled(session, current, ProjectSettings(**settings))


def test_labelled_images_are_looked_at_besides(services: Services) -> None:
    found = of_round(services, pool_sample=100)
    assert found is not None
    assert found >= {*range(1, 11), *range(200, 250)}
    assert len(found) == 110
    assert not found & {301, 302}


def test_by_default_all_are(services: Services) -> None:
    assert of_round(services) is None
    assert of_round(services, pool_sample=290) is None
    assert of_round(services, pool_sample=289) is not None


def test_the_queues_random_share_is_drawn_as_from_the_whole_pool(services: Services) -> None:
    found = of_round(services, pool_sample=100, random_share=0.2)
    assert found is not None
    assert found >= set(draw_order(range(11, 301), 0)[:20])


def test_a_tiny_sample_is_refused() -> None:
    with pytest.raises(ValidationError, match="pool_sample"):
        ProjectSettings(pool_sample=99)
