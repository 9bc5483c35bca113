from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.offline import FakeLabelStudio, make_services, make_work
from support.pooled import pooled_project

from cdal.backend.loop import select as selecting
from cdal.backend.loop.select import parts_of
from cdal.backend.services import Services
from cdal.backend.store.tables import Pick, Round


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.mark.parametrize(
    ("ranked", "wanted", "parts"),
    [
        (1000, 100, [10, 10, 20, 40, 20, 900]),
        (100, 100, [10, 10, 20, 40, 20]),
        (25, 100, [10, 10, 5]),
        (30, 10, [10, 20]),
        (3, 10, [3]),
        (0, 10, []),
    ],
)
def test_each_part_of_a_typical_order_is_as_long_as_all_before_it(
    ranked: int, wanted: int, parts: list[int]
) -> None:
    assert parts_of(ranked, wanted) == parts


@pytest.mark.parametrize(
    ("selector", "options", "reason"),
    [
        ("typiclust", {"neighbours": 2}, {"cluster", "covered"}),
        ("prob-cover", {"delta": 0.5}, {"covers", "cover"}),
    ],
)
def test_selectors_on_features_rank_the_whole_pool(
    services: Services, selector: str, options: dict[str, Any], reason: set[str]
) -> None:
    project, made = pooled_project(services)
    with services.store.transaction() as session:
        begun = session.get_one(Round, made.id)
        begun.state, begun.selector = "selecting", selector
    client = FakeLabelStudio()
    client.add_tasks(range(1, 7))
    client.label(1)
    chosen = {"selector": selector, "selector_options": options, "budget": 2, "reserve": 1}
    work = make_work(services, project, client, "select", **chosen)
    # Two for the queue and one for its reserve; the others are ranked behind.
    assert selecting.run(work) == f"5 images ranked by {selector}"
    with services.store.reading() as session:
        picks = session.scalars(select(Pick).filter_by(round_id=made.id).order_by(Pick.rank)).all()
    assert sorted(pick.task_id for pick in picks) == [2, 3, 4, 5, 6]
    assert all(set(pick.reason) == reason for pick in picks)
