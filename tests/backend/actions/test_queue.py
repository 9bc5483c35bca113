"""Images that a person puts at the front of the queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_tasks,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.actions import MOST, queue_next
from cdal.backend.errors import ActionError
from cdal.backend.loop import queue
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Pick, Project, Round


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    project = add_project(services)
    add_tasks(services, project, [1, 2, 3, 4, 5, 6])
    add_tasks(services, project, [7], annotations=1)
    add_tasks(services, project, [8], image_problem="damaged")
    return project


def order(services: Services) -> list[int]:
    with services.store.reading() as session:
        return list(session.scalars(select(Pick.task_id).order_by(Pick.rank)))


def test_they_come_first_in_the_label_stream_in_the_order_given(
    services: Services, project: Project
) -> None:
    made = add_round(
        services, project, [1, 2, 3, 4, 7], queued=2, queue_version="CDAL round 1.1", editions=1
    )
    # 6 was not ranked, 3 was not queued, 7 is labelled, 8 is damaged and 99 is nowhere.
    done = queue_next(services, project.id, [6, 3, 7, 8, 99, 3], "ann")
    assert done.text == (
        "2 images come first once the queue is rewritten. 3 were left out: they are labelled, "
        "skipped or gone."
    )
    assert order(services) == [6, 3, 1, 2, 4, 7]
    assert jobs_of(services) == [("queue", "pending")]
    client = FakeLabelStudio()
    client.add_tasks(range(1, 9))
    queue.run(make_work(services, project, client, "queue"))
    assert client.stream()[:4] == [6, 3, 1, 2]
    with services.store.reading() as session:
        current = session.get_one(Round, made.id)
        assert (current.state, current.queue_version) == ("open", "CDAL round 1.2")
        first = session.scalars(select(Pick).order_by(Pick.rank)).first()
        assert first is not None
        assert first.reason == {"chosen_by": "ann"}
        assert "Round 1: 2 images put first by ann" in session.scalars(select(Event.text)).all()


def test_what_cannot_be_queued_is_said(services: Services, project: Project) -> None:
    with pytest.raises(ActionError, match="No round is open"):
        queue_next(services, project.id, [1], "ann")
    made = add_round(services, project, [1, 2], queued=1)
    with pytest.raises(ActionError, match="None of these images can be queued"):
        queue_next(services, project.id, [7, 8, 99], "ann")
    with pytest.raises(ActionError, match="None of these images"):
        queue_next(services, project.id, [], "ann")
    with pytest.raises(ActionError, match=f"At most {MOST} images"):
        queue_next(services, project.id, range(MOST + 1), "ann")
    with services.store.transaction() as session:
        session.get_one(Pick, (made.id, 0)).state = "sending"
    with pytest.raises(ActionError, match="just being written"):
        queue_next(services, project.id, [2], "ann")
    with services.store.transaction() as session:
        session.get_one(Pick, (made.id, 0)).state = "queued"
    newer = add_round(services, project, [], number=2, state="queueing")
    with pytest.raises(ActionError, match="just being written"):
        queue_next(services, project.id, [2], "ann")
    with services.store.transaction() as session:
        session.delete(session.get_one(Round, newer.id))
    assert order(services) == [1, 2]
    assert jobs_of(services) == []
