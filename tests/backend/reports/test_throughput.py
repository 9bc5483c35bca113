"""How fast people label, and who."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from support.offline import FakeLabelStudio, add_project, make_services, make_work

from cdal.backend.errors import LabelStudioError
from cdal.backend.loop.changes import read_changes
from cdal.backend.reports import throughput
from cdal.backend.reports.throughput import ThroughputView, throughput_view
from cdal.backend.services import Services
from cdal.backend.store.tables import Project, Submission, now


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


class People(FakeLabelStudio):
    """A fake, as its parent is, in which some people label at given times."""

    def submit(self, task: int, who: int, at: datetime, seconds: float) -> None:
        self.known[task] = replace(
            self.known[task],
            annotations=1,
            updated_at=at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            labelled_at=at,
            annotators=(who,),
            seconds=seconds,
        )

    def people(self) -> dict[int, str]:
        self.calls.append("people")
        return {1: "Ada", 2: "ben@example.com"}


def told(services: Services, project: Project) -> ThroughputView:
    with services.store.reading() as session:
        return throughput_view(session, project)


def test_labels_over_time_and_by_annotator(services: Services) -> None:
    project = add_project(services)
    client = People()
    client.add_tasks([1, 2, 3, 4, 5])
    noon = now().replace(microsecond=0) - timedelta(hours=3)
    client.submit(1, 1, noon, 4.0)
    client.submit(2, 1, noon + timedelta(minutes=1), 6.0)
    client.submit(3, 2, noon + timedelta(minutes=10), 20.0)
    client.submit(4, 3, now() - timedelta(minutes=1), 2.0)
    read_changes(make_work(services, project, client))
    status = told(services, project)
    assert (status.labels, status.last_hour, status.last_day) == (4, 1, 4)
    assert status.median_seconds == 5.0
    assert [(a.name, a.labels, a.median_seconds) for a in status.annotators] == [
        ("Ada", 2, 5.0),
        ("annotator 3", 1, 2.0),
        ("ben@example.com", 1, 20.0),
    ]
    over_time = status.over_time
    assert over_time.step_seconds == 900
    assert sum(bar.labels for bar in over_time.bars) == 4
    assert over_time.bars[-1].labels == 1


def test_a_label_that_is_taken_back_is_forgotten(services: Services) -> None:
    project = add_project(services)
    client = People()
    client.add_tasks([1, 2])
    client.submit(1, 1, now() - timedelta(minutes=5), 4.0)
    read_changes(make_work(services, project, client))
    assert told(services, project).labels == 1
    client.known[1] = replace(
        client.known[1],
        annotations=0,
        labelled_at=None,
        annotators=(),
        updated_at=now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )
    read_changes(make_work(services, project, client))
    assert told(services, project).labels == 0


def test_names_are_asked_for_once_and_not_needed(services: Services) -> None:
    project = add_project(services)
    client = People()
    client.add_tasks([1, 2, 3])
    client.submit(1, 1, now() - timedelta(minutes=5), 4.0)
    read_changes(make_work(services, project, client))
    client.submit(2, 2, now() - timedelta(minutes=4), 4.0)
    read_changes(make_work(services, project, client))
    assert client.calls.count("people") == 1

    def refuse() -> dict[int, str]:
        raise LabelStudioError("Label Studio refused to list the people: 403", 403)

    client.people = refuse  # type: ignore[method-assign]
    client.submit(3, 9, now() - timedelta(minutes=3), 4.0)
    read_changes(make_work(services, project, client))
    names = [one.name for one in told(services, project).annotators]
    assert names == ["Ada", "annotator 9", "ben@example.com"]


def test_nobody_has_labelled(services: Services) -> None:
    status = told(services, add_project(services))
    assert (status.labels, status.over_time.bars, status.annotators) == (0, [], [])


def test_its_cost_does_not_grow_with_the_labels(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that are read, not the time: 100,000 labels took 4 s per request."""
    project = add_project(services)
    monkeypatch.setattr(throughput, "TIMED", 10)
    with services.store.transaction() as session:
        session.add_all(
            Submission(
                project_id=project.id,
                task_id=number,
                labelled_at=now() - timedelta(minutes=number),
                annotators=[number % 2],
                seconds=float(number),
            )
            for number in range(1, 201)
        )
    rows = 0
    execute = Session.execute

    def count(session: Session, *statement: Any) -> Any:
        nonlocal rows
        read = execute(session, *statement).freeze()
        rows += len(read.data)
        return read()

    monkeypatch.setattr(Session, "execute", count)
    with services.store.reading() as session:
        status = throughput_view(session, project)
    assert rows == 10 + 2 + 1  # the newest ten, one per person, and the first and last time
    assert status.labels == 200
    assert [one.labels for one in status.annotators] == [100, 100]
    assert status.median_seconds == 5.5  # of the newest ten
