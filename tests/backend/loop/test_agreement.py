"""How far annotators agree, as a sync reads it and the API tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_version,
    choice,
    make_services,
    make_work,
)

from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio.data import PredictionInfo
from cdal.backend.loop import sync
from cdal.backend.loop.labelled_set import read_labels, read_submitted
from cdal.backend.reports.agreement import AgreementView, agreement_view
from cdal.backend.services import Services
from cdal.backend.store.tables import Project


class People:
    """People label a project of which a model has predicted tasks 1 to 3, as cats."""

    def __init__(self, services: Services) -> None:
        self.services = services
        settings = {"budget": 50, "reserve": 1, "min_labels": 50, "first_round": "random"}
        self.project = add_project(services, extra_params=settings)
        self.client = FakeLabelStudio()
        self.client.add_tasks(range(1, 10))
        self.day = 1
        self.sync()
        model = add_version(services, self.project, dict.fromkeys((1, 2, 3), "cat")).id
        queue = {"queue_version": "CDAL round 1.1", "model_version_id": model}
        add_round(services, self.project, [1, 2, 3], queued=3, selector="cdal_cs", **queue)

    def annotate(self, task: int, **labels: str) -> list[dict[str, Any]]:
        """What people say about a task: Ada is number 1, Bob 2 and Cy 3."""
        given = [
            {
                "id": 10 * task + number,
                "completed_by": number,
                "result": choice(labels[name]),
                "updated_at": f"2026-02-{self.day:02}",
                "was_cancelled": False,
                "parent_prediction": 8,
            }
            for number, name in enumerate(("ada", "bob", "cy"), start=1)
            if name in labels
        ]
        self.client.given[task] = given
        self.client.label(task, annotations=len(given), at="2100-01-01T00:00:00.000000Z")
        self.sync()
        return given

    def sync(self) -> None:
        self.day += 1
        work = make_work(self.services, self.project, self.client)
        sync.run(work)
        self.services.jobs.finish(work.job.id, "done")

    def view(self) -> AgreementView:
        with self.services.store.reading() as session:
            return agreement_view(session, session.get_one(Project, self.project.id))

    def second_look(self) -> list[tuple[int, float | None, float | None]]:
        found = self.view().second_look
        return [(one.task, one.agreement, one.confidence) for one in found]


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(make_services(tmp_path))


def test_people_are_compared_with_each_other_and_with_the_consensus(people: People) -> None:
    assert people.view() == AgreementView(tasks=0, agreement=None, annotators=[], second_look=[])
    people.annotate(4, ada="cat", bob="cat", cy="dog")
    people.annotate(5, ada="dog", bob="dog")
    people.annotate(6, ada="dog")
    view = people.view()
    assert view.tasks == 2
    assert view.agreement == pytest.approx((1 / 3 + 1) / 2)
    assert [(one.name, one.annotations, one.others, one.consensus) for one in view.annotators] == [
        ("annotator 1", 2, 0.75, 1.0),
        ("annotator 2", 2, 0.75, 1.0),
        ("annotator 3", 1, 0.0, 0.0),
    ]
    assert people.second_look() == [(4, pytest.approx(1 / 3), None)]
    work = make_work(people.services, people.project, people.client, "train")
    truths = read_labels(work, read_submitted(work)).truths
    assert truths[4].target(1, 1).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert truths[5].target(1, 1).tolist() == 1


def test_the_data_managers_tab_shows_them(people: People, caplog: pytest.LogCaptureFixture) -> None:
    def shown() -> list[int] | None:
        return people.client.second_look

    people.annotate(6, ada="dog", bob="dog")
    assert shown() is None  # nobody needs an empty tab
    people.annotate(5, ada="cat", bob="dog")
    given = people.annotate(4, ada="cat", bob="dog")
    assert shown() == [4, 5]
    writes = people.client.calls.count("show second look")
    people.annotate(7, ada="dog", bob="dog")
    assert people.client.calls.count("show second look") == writes
    given[1]["ground_truth"] = True
    # A failure waits for the next change.
    works = people.client.show_second_look
    people.client.show_second_look = away  # type: ignore[method-assign]
    people.annotate(8, ada="dog", bob="dog")
    assert shown() == [4, 5]
    assert "second look" in caplog.text
    people.client.show_second_look = works  # type: ignore[method-assign]
    people.annotate(8, ada="cat", bob="cat")
    assert shown() == [5]
    people.annotate(5, ada="dog", bob="dog")
    assert shown() == []


def away(*_: object) -> int:
    raise LabelStudioError("Label Studio is away.")


def test_a_ground_truth_settles_it(people: People) -> None:
    people.annotate(4, ada="cat", bob="dog")
    given = people.annotate(5, ada="cat", bob="dog")
    assert [task for task, *_ in people.second_look()] == [4, 5]
    given[1]["ground_truth"] = True
    people.sync()
    assert [task for task, *_ in people.second_look()] == [4]
    ada, bob = people.view().annotators
    assert (ada.consensus, bob.consensus) == (0.25, 0.5)  # with half a tie, and with the truth


def test_a_label_that_contradicts_a_confident_model_is_worth_a_second_look(people: People) -> None:
    for score in (0.79, 0.85, 0.9):
        said = [{**choice("cat")[0], "score": score}]
        people.client.predictions[8] = PredictionInfo("CDAL round 1.1", said)
        people.annotate({0.79: 1, 0.85: 2, 0.9: 3}[score], ada="dog")
    assert people.second_look() == [(3, None, 0.9), (2, None, 0.85)]
    people.annotate(3, ada="dog")  # somebody has looked at it again, and left it
    people.annotate(2, ada="dog", bob="cat")
    assert people.second_look() == [(2, 0, None)]
    people.annotate(1, ada="cat")
    people.annotate(2, ada="cat", bob="cat")
    assert people.second_look() == []
