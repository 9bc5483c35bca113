"""What a process remembers of the labels in Label Studio, so that only changes are read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.offline import CONFIG, FakeLabelStudio, add_project, make_services, make_work

from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio import remembered
from cdal.backend.label_studio.client import ALL_IDS
from cdal.backend.label_studio.data import ProjectInfo
from cdal.backend.loop import labelled_set
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.labelled_set import read_labels, read_submitted
from cdal.backend.services import Services
from cdal.backend.store.tables import Project


class LabelStudio(FakeLabelStudio):
    """Notes from when on annotations were requested; None for all of them."""

    def __init__(self, config: str = CONFIG) -> None:
        super().__init__(info=ProjectInfo("Pets", config, "", ""))
        self.since: list[str | None] = []

    def annotations(
        self, changed_since: str | None = None, among: tuple[int, int] = ALL_IDS
    ) -> Any:
        self.since.append(changed_since)
        return super().annotations(changed_since, among)

    def choose(self, task: int, label: str, at: str) -> None:
        self.label(task, at=at)
        value = {"choices": [label]}
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        self.given[task] = [{"id": task, "result": [result], "was_cancelled": False}]

    def delete_label(self, task: int, at: str) -> None:
        self.label(task, annotations=0, at=at)
        del self.given[task]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


@pytest.fixture
def label_studio() -> LabelStudio:
    fake = LabelStudio()
    fake.add_tasks(range(1, 6))
    for task in (1, 2, 3):
        fake.choose(task, "cat", f"2026-01-02T00:00:0{task}.000000Z")
    return fake


def labels(services: Services, project: Project, label_studio: LabelStudio) -> dict[int, str]:
    """What a training would read: each labelled task's class."""
    work = make_work(services, project, label_studio, "train")
    read_changes(work)
    label_studio.since.clear()
    found = read_labels(work, read_submitted(work))
    return {task: next(iter(truth.classes)) for task, truth in found.truths.items()}


def test_only_changed_labels_are_read_again(
    services: Services, project: Project, label_studio: LabelStudio
) -> None:
    assert labels(services, project, label_studio) == {1: "cat", 2: "cat", 3: "cat"}
    assert label_studio.since == [None]
    label_studio.choose(4, "dog", "2026-01-03T00:00:00.000000Z")
    label_studio.choose(1, "dog", "2026-01-03T00:00:01.000000Z")
    assert labels(services, project, label_studio) == {1: "dog", 2: "cat", 3: "cat", 4: "dog"}
    assert label_studio.since == ["2026-01-02T00:00:03.000000Z"]
    assert labels(services, project, label_studio)[1] == "dog"
    assert label_studio.since == ["2026-01-03T00:00:01.000000Z"]


def test_a_deleted_label_is_forgotten(
    services: Services, project: Project, label_studio: LabelStudio
) -> None:
    labels(services, project, label_studio)
    label_studio.delete_label(2, "2026-01-03T00:00:00.000000Z")
    assert labels(services, project, label_studio) == {1: "cat", 3: "cat"}
    assert None not in label_studio.since


def test_a_label_that_no_time_shows_makes_it_read_all(
    services: Services, project: Project, label_studio: LabelStudio
) -> None:
    """A change in bulk may leave a task's time as it was; counting has shown it."""
    labels(services, project, label_studio)
    label_studio.delete_label(1, "2026-01-02T00:00:01.000000Z")
    label_studio.choose(5, "dog", "2026-01-01T00:00:00.000000Z")
    label_studio.choose(4, "dog", "2026-01-01T00:00:00.000000Z")
    work = make_work(services, project, label_studio, asked_by="the minute's poll")
    read_changes(work)
    assert labels(services, project, label_studio) == {2: "cat", 3: "cat", 4: "dog", 5: "dog"}
    assert None in label_studio.since


def test_all_are_read_again_after_a_while(
    services: Services,
    project: Project,
    label_studio: LabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels(services, project, label_studio)
    monkeypatch.setattr(labelled_set, "ALL_AGAIN_S", 0.0)
    labels(services, project, label_studio)
    assert label_studio.since == [None]


def test_what_is_too_long_is_read_each_time(
    services: Services,
    project: Project,
    label_studio: LabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Brush strokes may take hundreds of kilobytes per task."""
    monkeypatch.setattr(remembered, "MOST_CHARACTERS", 200)  # one choice takes 130
    for _ in range(2):
        assert len(labels(services, project, label_studio)) == 3
        assert label_studio.since == [None]


def test_an_annotation_nested_without_end_stops_no_training(
    services: Services, project: Project, label_studio: LabelStudio
) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    label_studio.given[3][0]["result"].append(deep)
    assert labels(services, project, label_studio) == {1: "cat", 2: "cat", 3: "cat"}


def test_the_projects_that_trained_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_PROJECTS", 2)
    memory = remembered.Memory()
    for project in (1, 2, 1, 3):
        memory.keep("http://host", project, remembered.Annotations({}, "", 0.0))
    kept = {n for n in (1, 2, 3) if memory.of("http://host", n).annotations is not None}
    assert kept == {1, 3}


def test_another_label_studio_is_not_confused_with_it(
    services: Services, project: Project, label_studio: LabelStudio
) -> None:
    labels(services, project, label_studio)
    with services.store.transaction() as session:
        moved = session.get_one(Project, project.id)
        moved.url = "http://another.test"
    other = LabelStudio()
    other.add_tasks([1])
    other.choose(1, "dog", "2026-01-02T00:00:00.000000Z")
    assert labels(services, moved, other) == {1: "dog"}
    assert other.since == [None]


@pytest.mark.parametrize(("refused", "asked"), [(None, 1), (403, 1), (502, 2)])
def test_a_name_that_label_studio_does_not_tell_is_asked_for_once(
    services: Services,
    project: Project,
    label_studio: LabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    refused: int | None,
    asked: int,
) -> None:
    calls = 0

    def people() -> dict[int, str]:
        nonlocal calls
        calls += 1
        if refused is not None:
            raise LabelStudioError("Label Studio refuses.", refused)
        return {1: "Ada Lovelace"}

    monkeypatch.setattr(label_studio, "people", people)
    for second in (4, 5):
        label_studio.choose(second, "cat", f"2026-01-02T00:00:0{second}.000000Z")
        label_studio.known[second] = replace(label_studio.known[second], annotators=(7,))
        read_changes(make_work(services, project, label_studio, "sync"))
    assert calls == asked
