"""Labels that are changed after a training had them: corrections, second opinions, ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.annotated import config_of, control_of, region
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_version,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.annotations import mark_of
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.label_studio.data import moment_of
from cdal.backend.loop import sync
from cdal.backend.loop.due import read_facts
from cdal.backend.loop.labelled_set import labelled_as, marks_of, note_learnt, read_submitted
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import Project, Task


def annotation(label: str, **more: Any) -> dict[str, Any]:
    region = {"id": label, "from_name": "label", "to_name": "image", "type": "choices"}
    result = [{**region, "value": {"choices": [label]}}]
    return {"result": result, "updated_at": "2026-01-01", "was_cancelled": False, **more}


class Reviewed:
    """A project of ninety cats, all labelled and learnt."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.project = add_project(services)
        self.client = FakeLabelStudio()
        self.client.add_tasks(range(1, 91))
        self.day = 1
        for task_id in range(1, 91):
            self.annotate(task_id, annotation("cat"))
        self.sync()
        add_version(services, self.project)
        self.train()

    def annotate(self, task_id: int, *annotations: dict[str, Any]) -> None:
        """As somebody submits or updates it on another day."""
        self.client.given[task_id] = list(annotations)
        at = f"2026-02-{self.day:02}T00:00:00Z"
        self.client.label(task_id, annotations=len(annotations), at=at)

    def sync(self) -> str:
        self.day += 1
        work = make_work(self.services, self.project, self.client)
        outcome = sync.run(work)
        self.services.jobs.finish(work.job.id, "done")
        return outcome

    def train(self) -> None:
        """A training begins, as far as labels are concerned, and ends."""
        work = make_work(self.services, self.project, self.client, "train")
        with self.services.store.transaction() as session:
            known = labelled_as(session, self.project.id)
            note_learnt(session, self.project.id, marks_of(work, read_submitted(work)), known)
            session.get_one(Project, self.project.id).training_labels = 90
        self.services.jobs.finish(work.job.id, "done")
        with self.services.store.reading() as session:
            waiting = [job for job in jobs_of(self.services) if job[1] == "pending"]
            assert not session.get_one(Project, self.project.id).problem
        for number, job in enumerate(jobs_of(self.services), start=1):
            if job in waiting:
                self.services.jobs.finish(number, "done")

    @property
    def changed(self) -> int:
        with self.services.store.reading() as session:
            return read_facts(session, self.project.id, ProjectSettings()).changed


@pytest.fixture
def reviewed(tmp_path: Path) -> Reviewed:
    return Reviewed(make_services(tmp_path))


def test_corrections_after_the_last_label_are_learnt(reviewed: Reviewed) -> None:
    assert reviewed.changed == 0
    for task_id in range(1, 46):
        reviewed.annotate(task_id, annotation("dog"))
    assert "a training is due" in reviewed.sync()
    assert jobs_of(reviewed.services)[-1] == ("train", "pending")
    # They are requested once, even if that training fails.
    assert reviewed.changed == 0
    reviewed.services.jobs.finish(len(jobs_of(reviewed.services)), "failed", error="No memory.")
    assert "a training is due" not in reviewed.sync()


@pytest.mark.parametrize(
    "annotations",
    [
        [annotation("dog")],
        [annotation("cat"), annotation("dog", updated_at="2026-01-02")],  # a second opinion
        [annotation("dog", updated_at="2025-12-31", completed_by=2), annotation("cat")],
        [annotation("dog", ground_truth=True), annotation("cat", updated_at="2026-01-03")],
    ],
)
def test_whatever_changes_what_counts_is_a_change(
    reviewed: Reviewed, annotations: list[dict[str, Any]]
) -> None:
    reviewed.annotate(7, *annotations)
    assert "a training is due" in reviewed.sync()


def test_an_update_that_says_the_same_is_no_change(reviewed: Reviewed) -> None:
    reviewed.annotate(7, annotation("cat", updated_at="2026-01-05"), annotation("cat"))
    reviewed.annotate(8, {**annotation("cat"), "id": 12, "lead_time": 3.0})
    assert "a training is due" not in reviewed.sync()
    assert reviewed.changed == 0


def test_a_change_that_is_taken_back_is_none(reviewed: Reviewed) -> None:
    with reviewed.services.store.transaction() as session:
        session.get_one(Project, reviewed.project.id).training_labels = 90
        project = session.get_one(Project, reviewed.project.id)
        project.extra_params = {"min_labels": 100}
    reviewed.annotate(7, annotation("dog"))
    reviewed.sync()
    assert reviewed.changed == 1
    reviewed.annotate(7, annotation("cat"))
    reviewed.sync()
    assert reviewed.changed == 0


def test_a_label_that_is_deleted_and_made_again_is_new_not_changed(reviewed: Reviewed) -> None:
    reviewed.annotate(7)
    reviewed.sync()
    assert reviewed.changed == 1
    reviewed.annotate(7, annotation("dog"))
    reviewed.sync()
    assert reviewed.changed == 0


def test_deleted_labels_count_until_a_training_has_been_without_them(reviewed: Reviewed) -> None:
    for task_id in range(1, 46):
        reviewed.annotate(task_id)
    reviewed.sync()
    assert reviewed.changed == 45
    reviewed.train()
    assert reviewed.changed == 0


def test_another_image_under_a_label_is_a_change(reviewed: Reviewed) -> None:
    task = reviewed.client.known[7]
    task.data["image"] = "/data/upload/another.png"  # type: ignore[index]
    reviewed.client.label(7, at="2026-02-28T00:00:00Z")
    assert "a training is due" in reviewed.sync()


def test_when_it_was_changed(reviewed: Reviewed) -> None:
    reviewed.annotate(7, annotation("dog"))
    reviewed.sync()
    with reviewed.services.store.reading() as session:
        rows = session.scalars(select(Task).where(Task.label_changed_at.is_not(None))).all()
    assert [row.task_id for row in rows] == [7]
    assert rows[0].label_changed_at == moment_of(reviewed.client.known[7].updated_at)


def test_what_a_mark_stands_for() -> None:
    """What people see on the image, not ids, scores or times."""
    control = control_of("RectangleLabels")
    box = {"id": "a", "from_name": "what", "type": "rectanglelabels", "score": 0.5}
    whole = {**box, "value": {"x": 1, "rectanglelabels": ["car"]}}
    assert mark_of(control, []) is None
    assert mark_of(control, [{"result": [], "was_cancelled": True}]) is None
    marks = {
        mark_of(control, [{"result": result}])
        for result in (
            [],
            [whole],
            [{**whole, "value": {"x": 2, "rectanglelabels": ["sky"]}}],
            [{**whole, "from_name": "c"}],
            [whole, whole],
            None,
            ["\ud800", 3],
        )
    }
    assert len(marks) == 6  # None says as little as no region
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert mark_of(control, [{"result": [{**whole, "value": deep}]}]) is None
    of_another_id = {**whole, "id": "z", "score": 1}
    assert mark_of(control, [{"result": [of_another_id]}]) == mark_of(
        control, [{"result": [whole]}]
    )


def test_what_no_model_learns_from_is_no_change() -> None:
    """A control that is not served, or the comment that somebody leaves in it."""
    config = config_of("Choices").replace(
        "</View>", "<TextArea name='note' toName='image'/></View>"
    )
    control = served_control(config)
    choice = region("Choices", {"choices": ["sky"]})
    note = {**region("TextArea", {"text": ["blurred"]}), "from_name": "note"}
    marks = {
        mark_of(control, [{"result": result}])
        for result in ([choice], [choice, note], [note, choice], [choice, {"type": "relation"}])
    }
    assert len(marks) == 1
    assert mark_of(control, [{"result": [note]}]) == mark_of(control, [{"result": []}])


def test_a_change_while_a_training_reads_the_labels_is_learnt_later(reviewed: Reviewed) -> None:
    services, number = reviewed.services, reviewed.project.id
    with services.store.reading() as session:
        known = labelled_as(session, number)
    work = make_work(services, reviewed.project, reviewed.client, "train")
    reviewed.annotate(8, annotation("dog"))
    marks = marks_of(work, read_submitted(work))
    services.jobs.finish(work.job.id, "failed", error="Only labels are of interest here.")
    reviewed.annotate(7, annotation("dog"))
    with services.store.transaction() as session:
        session.get_one(Project, number).extra_params = {"min_labels": 100}
    reviewed.sync()  # it notices the change of 7, which the training does not have
    with services.store.transaction() as session:
        note_learnt(session, number, marks, known)
    assert reviewed.changed == 1
    with services.store.reading() as session:
        tasks = {task.task_id: task for task in session.scalars(select(Task))}
    assert tasks[7].labelled_as != tasks[7].learnt_as
    assert tasks[8].labelled_as == tasks[8].learnt_as == marks[8]
