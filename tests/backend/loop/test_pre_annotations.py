"""What people made of pre-annotations, as a sync reads it."""

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

from cdal.backend.label_studio.data import PredictionInfo
from cdal.backend.loop import sync
from cdal.backend.reports.pre_annotations import PreAnnotationsView
from cdal.backend.reports.project import project_view
from cdal.backend.services import Services
from cdal.backend.store.tables import Project

VERSION = "CDAL round 1.1"


class Labelling:
    """People label a project of which a round has queued tasks 1 to 6, as cats."""

    def __init__(self, services: Services, has_model: bool = True) -> None:
        self.services = services
        settings = {"budget": 50, "reserve": 1, "min_labels": 50, "first_round": "random"}
        self.project = add_project(services, extra_params=settings)
        self.client = FakeLabelStudio()
        self.client.add_tasks(range(1, 10))
        self.sync()
        model = add_version(services, self.project, dict.fromkeys(range(1, 7), "cat")).id
        add_round(
            services,
            self.project,
            [1, 2, 3, 4, 5, 6],
            queued=6,
            selector="cdal_cs",
            model_version_id=model if has_model else None,
            queue_version=VERSION,
        )

    def submit(self, task: int, label: str, parent: int | None = None, number: int = 0) -> None:
        annotation: dict[str, Any] = {"id": number or task, "was_cancelled": False}
        annotation |= {"result": choice(label), "parent_prediction": parent, "completed_by": 3}
        given = self.client.given.setdefault(task, [])
        given[:] = [one for one in given if one["id"] != annotation["id"]] + [annotation]
        self.client.label(task, annotations=len(given), at="2100-01-01T00:00:00.000000Z")

    def sync(self) -> None:
        work = make_work(self.services, self.project, self.client)
        sync.run(work)
        self.services.jobs.finish(work.job.id, "done")

    def kept(self) -> dict[int, PreAnnotationsView | None]:
        with self.services.store.reading() as session:
            view = project_view(session, session.get_one(Project, self.project.id))
        return {one.number: one.pre_annotations for one in view.rounds}


@pytest.fixture
def labelling(tmp_path: Path) -> Labelling:
    return Labelling(make_services(tmp_path))


def kept(unchanged: int, replaced: int, changed: int = 0, agreement: float = 0) -> Any:
    return PreAnnotationsView(
        unchanged=unchanged,
        changed=changed,
        replaced=replaced,
        agreement=agreement or unchanged / (unchanged + replaced),
    )


def test_annotations_are_compared_with_the_prediction_that_they_name(labelling: Labelling) -> None:
    assert labelling.kept() == {1: None}
    labelling.client.predictions = {
        8: PredictionInfo(VERSION, choice("dog")),
        9: PredictionInfo("another backend", choice("dog")),
    }
    labelling.submit(1, "dog", parent=8)
    labelling.submit(2, "dog", parent=9)  # so it is compared with what was queued
    labelling.sync()
    assert labelling.kept() == {1: kept(1, 1)}
    # A round of which only the prediction is left.
    labelling.client.predictions[10] = PredictionInfo("CDAL round 7.3", choice("dog"))
    labelling.submit(3, "dog", parent=10)
    labelling.sync()
    assert labelling.kept() == {1: kept(1, 1)}


def test_where_no_prediction_is_named_it_is_the_one_that_was_queued(labelling: Labelling) -> None:
    labelling.submit(1, "cat")
    labelling.submit(2, "cat", parent=5)  # it was deleted
    labelling.submit(3, "dog")
    labelling.submit(7, "cat")  # nobody had queued it
    labelling.sync()
    assert labelling.kept() == {1: kept(2, 1)}


def test_a_correction_says_nothing_about_the_pre_annotation(labelling: Labelling) -> None:
    labelling.client.predictions[8] = PredictionInfo(VERSION, choice("cat"))
    labelling.submit(1, "cat", parent=8)
    labelling.sync()
    labelling.submit(1, "dog", parent=8)
    labelling.sync()
    assert labelling.kept() == {1: kept(1, 0)}
    assert labelling.client.calls.count("prediction 8") == 1
    # A second opinion does.
    labelling.submit(1, "dog", parent=8, number=100)
    labelling.sync()
    assert labelling.kept() == {1: kept(1, 1)}
    labelling.client.given.pop(1)
    labelling.client.label(1, annotations=0, at="2100-01-01T00:00:00.000000Z")
    labelling.sync()
    assert labelling.kept() == {1: None}


def test_a_round_without_a_model_has_no_pre_annotations(tmp_path: Path) -> None:
    labelling = Labelling(make_services(tmp_path), has_model=False)
    labelling.client.predictions[8] = PredictionInfo(VERSION, [])
    labelling.submit(1, "dog", parent=8)
    labelling.submit(2, "dog")
    labelling.sync()
    assert labelling.kept() == {1: None}
