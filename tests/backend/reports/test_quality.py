"""What a model knows and what it confuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from support.offline import add_project, add_version, make_services

from cdal.backend.reports.quality import ClassView, quality_view
from cdal.backend.store.tables import ClassMetrics, ModelVersion


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    services = make_services(tmp_path)
    add_version(services, add_project(services))
    with services.store.transaction() as session:
        yield session


def version(
    session: Session, metrics: dict[str, Any], per_class: dict[str, Any], columns: int, cells: Any
) -> ModelVersion:
    found = session.scalars(select(ModelVersion)).one()
    found.metrics = metrics
    session.add(ClassMetrics(model_version_id=1, per_class=per_class, columns=columns, cells=cells))
    return found


def test_the_worst_confusions_come_first_by_their_share(session: Session) -> None:
    told = quality_view(
        session,
        version(
            session,
            {"main_name": "accuracy", "values": {"accuracy": 0.6}, "images": 15},
            {
                "cat": {"count": 10, "score": 0.7},
                "dog": {"count": 4, "score": 0.5},
                "owl": {"count": 1, "score": None},
            },
            3,
            [[0, 0, 7], [0, 1, 3], [1, 0, 1], [1, 1, 2], [1, 2, 1], [2, 2, 1]],
        ),
    )
    assert [(p.true, p.taken_for, p.count, p.share) for p in told.confused] == [
        ("cat", "dog", 3, 0.3),
        ("dog", "cat", 1, 0.25),
        ("dog", "owl", 1, 0.25),
    ]
    assert told.classes[1] == ClassView(name="dog", count=4, score=0.5)
    assert told.matrix == [[7, 3, 0], [1, 2, 1], [0, 0, 1]]


def test_the_matrix_of_many_classes_is_left_out(session: Session) -> None:
    """A page of 500 classes had a table of 250,000 cells."""
    per_class = {name: {"count": 1, "score": 1.0} for name in ("cat", "dog")}
    measured = version(session, {}, per_class, 2, [[0, 0, 1], [1, 1, 1]])
    assert quality_view(session, measured, most_classes=2).matrix == [[1, 0], [0, 1]]
    told = quality_view(session, measured, most_classes=1)
    assert (told.matrix, len(told.classes)) == ([], 2)


def test_a_detector_may_miss_what_is_there(session: Session) -> None:
    told = quality_view(
        session,
        version(
            session,
            {"main_name": "map_50"},
            {"cat": {"count": 4, "score": 0.7}, "dog": {"count": 2, "score": 0.5}},
            3,
            [[0, 0, 3], [0, 2, 1], [1, 0, 1], [1, 1, 1]],
        ),
    )
    assert [(p.true, p.taken_for, p.share) for p in told.confused] == [
        ("dog", "cat", 0.5),
        ("cat", "nothing (missed)", 0.25),
    ]


def test_a_version_that_was_not_measured(session: Session) -> None:
    found = session.scalars(select(ModelVersion)).one()
    found.metrics = {}
    told = quality_view(session, found)
    assert (told.images, told.classes, told.confused, told.matrix) == (0, [], [], [])
