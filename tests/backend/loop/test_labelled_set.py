"""Which labels can be learnt from, and which images are held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from support.offline import (
    CONFIG,
    FakeLabelStudio,
    add_project,
    add_tasks,
    make_services,
    make_work,
)

from cdal.backend.annotations import Truth
from cdal.backend.annotations.choices import ChoiceTruth
from cdal.backend.annotations.rectangles import BoxesTruth
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import AllowedHosts, ImageSource, ImageStore
from cdal.backend.loop import train
from cdal.backend.loop.context import Context
from cdal.backend.loop.labelled_set import (
    Labels,
    labelled_as,
    labelled_images,
    note_changed,
    note_learnt,
    note_unread,
    read_labels,
    read_submitted,
    too_few,
)
from cdal.backend.loop.training_images import LabelledImage, ReadImages, TrainingImages
from cdal.backend.store.tables import Event
from cdal.models import make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.feature_store import FeatureStore


def truth(label: str, **more: Any) -> ChoiceTruth:
    return ChoiceTruth(label, ("cat", "dog").index(label), **more)


def images(tmp_path: Path, truths: Mapping[int, Truth]) -> TrainingImages:
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    source = ImageSource("http://host", dict)
    reader = InputReader(store, FeatureStore(tmp_path, 0), source)
    return TrainingImages(reader, [LabelledImage(n, "", t) for n, t in truths.items()])


# Labels.


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([], "There are 0 of at least 3 labels."),
        (["cat", "dog"], "There are 2 of at least 3 labels."),
        (["cat"] * 3, "All 3 labels are of one class; a model needs two."),
        (["cat", "cat", "dog"], None),
    ],
)
def test_too_few(labels: list[str], why: str | None) -> None:
    assert too_few(map(truth, labels), 3, classes=2) == why


def test_one_class_is_enough_where_there_is_something_else_to_see() -> None:
    assert too_few([truth("cat")] * 3, 3, classes=1) is None


def test_a_training_reads_no_task_but_the_labelled_ones(tmp_path: Path) -> None:
    """A million others would take seconds, and nobody could write meanwhile."""
    services = make_services(tmp_path)
    project = add_project(services)
    add_tasks(services, project, [1, 3], annotations=1, labelled_as="a")
    add_tasks(services, project, [2, 4])
    with services.store.transaction() as session:
        session.execute(text("UPDATE tasks SET image = 'unreadable' WHERE task_id IN (2, 4)"))
    work = make_work(services, project, FakeLabelStudio(), "train")
    items = labelled_images(work, {3: truth("dog"), 1: truth("cat"), 9: truth("cat")}).items
    assert [(item.task_id, item.image) for item in items] == [
        (1, "/data/upload/1.png"),
        (3, "/data/upload/3.png"),
    ]
    with services.store.transaction() as session:
        assert labelled_as(session, project.id) == {1: "a", 3: "a"}
        # The second was labelled, and the third again, after the store was last brought up to date.
        note_learnt(session, project.id, {1: "a", 2: "b", 3: "b"}, {1: "a", 3: "a"})
        rows = session.execute(text("SELECT labelled_as, learnt_as FROM tasks ORDER BY task_id"))
        assert [tuple(row) for row in rows] == [("a", "a"), ("b", "b"), ("b", "b"), (None, None)]
        note_learnt(session, project.id, {1: "a"}, {})
        learnt = session.execute(text("SELECT learnt_as FROM tasks ORDER BY task_id")).scalars()
        assert list(learnt) == ["a", None, None, None]


class Negative(ChoiceTruth):
    """An image without boxes."""

    @property
    def classes(self) -> frozenset[str]:
        return frozenset()


def test_negatives_alone_teach_nothing() -> None:
    negatives = [Negative("cat", 0)] * 3
    why = "None of the 3 labelled images has a labelled region."
    assert too_few(negatives, 3, classes=1) == why
    assert too_few([*negatives, truth("cat")], 3, classes=1) is None


def annotation(label: str, at: str = "1", **more: Any) -> dict[str, Any]:
    choice = {"from_name": "label", "type": "choices", "value": {"choices": [label]}}
    return {"result": [choice], "updated_at": at, **more}


def test_the_labels_that_annotations_give(tmp_path: Path) -> None:
    """Drafts are not among annotations; that Label Studio keeps them apart is in test_loop.py."""
    services = make_services(tmp_path)
    label_studio = FakeLabelStudio()
    label_studio.given = {
        1: [annotation("cat", "1"), annotation("dog", "2")],
        2: [annotation("cat", "1", ground_truth=True), annotation("dog", "2")],
        3: [annotation("cat", was_cancelled=True)],
        4: [annotation("cat", "1"), annotation("dog", "2", was_cancelled=True)],
        5: [annotation("wolf")],
        6: [],
    }
    work = make_work(services, add_project(services), label_studio, "train")
    found = read_labels(work, read_submitted(work))
    assert found.left_out == {5: ('with the unknown label "wolf"',)}
    assert found.truths == {1: truth("dog"), 2: truth("cat"), 4: truth("cat")}


def test_an_image_that_was_submitted_with_no_box_is_learnt_from(tmp_path: Path) -> None:
    """A skipped image is not: nobody said that it shows nothing."""
    boxes = CONFIG.replace("Choices", "RectangleLabels").replace("Choice ", "Label ")
    box = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
    region = {"from_name": "label", "type": "rectanglelabels", "value": box}
    services = make_services(tmp_path)
    label_studio = FakeLabelStudio()
    label_studio.given = {
        1: [{"result": [region], "updated_at": "1"}],
        2: [{"result": [], "updated_at": "1"}],
        3: [{"result": [], "updated_at": "1", "was_cancelled": True}],
        4: [],
    }
    project = add_project(services, labeling_config=boxes)
    add_tasks(services, project, [1, 2, 3, 4])
    work = make_work(services, project, label_studio, "train")
    learnt = labelled_images(work, read_labels(work, read_submitted(work)).truths)
    found = {item.task_id: item.truth.target(100, 100).shape[0] for item in learnt.items}
    assert found == {1: 1, 2: 0}


@pytest.mark.parametrize(
    ("truths", "said"),
    [
        ([truth("cat")], []),
        ([truth("cat", warnings=("It leans.",))], ["task 1: It leans."]),
        (
            [truth("cat"), truth("dog", warnings=("It leans.", "It turns."))],
            ["task 2: It leans. (and 1 more)"],
        ),
    ],
)
def test_what_was_not_taken_as_it_is_is_said(
    tmp_path: Path, truths: list[ChoiceTruth], said: list[str]
) -> None:
    services = make_services(tmp_path)
    work = make_work(services, add_project(services), FakeLabelStudio(), "train")
    given = dict(enumerate(truths, start=1))
    read = read_images(tmp_path, given, sizes=dict.fromkeys(given, (40, 60)))
    note_changed(work, read, lambda height, width: (height, width))
    with services.store.reading() as session:
        assert [event.text for event in session.query(Event).all()] == said


def read_images(tmp_path: Path, truths: Mapping[int, Truth], **more: Any) -> ReadImages:
    given: dict[str, Any] = {"problems": {}, "left_out": {}, "sizes": {}, **more}
    return ReadImages(images(tmp_path, truths), **given)


def events_of(work: Context) -> list[str]:
    with work.services.store.reading() as session:
        return [event.text for event in session.query(Event).all()]


def test_an_event_names_what_cannot_be_read_with_its_count(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    work = make_work(services, add_project(services), FakeLabelStudio(), "train")
    wolf = 'with the unknown label "wolf"'
    left_out = {3: (wolf, "damaged"), 2: (wolf,), 1: ()}
    labels = Labels({1: truth("cat"), 2: truth("dog")}, left_out, {})
    read = read_images(tmp_path, {1: truth("cat")}, left_out={2: ("covering no pixel",)})
    note_unread(work, labels, read)
    (said,) = events_of(work)
    assert said.startswith("4 labelled regions cannot be read")
    assert f"2 {wolf}, 1 damaged, 1 covering no pixel" in said
    assert "2 images therefore teach nothing (tasks 2, 3)" in said
    assert "predicted_values" in said
    # The next training says it again only if it has changed.
    note_unread(work, labels, read)
    assert len(events_of(work)) == 1
    note_unread(work, labels)
    assert len(events_of(work)) == 2


def test_an_event_is_written_too_if_too_little_is_left_to_train_on(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    label_studio = FakeLabelStudio()
    label_studio.given = {n: [annotation("wolf")] for n in range(1, 31)}
    project = add_project(services)
    add_tasks(services, project, range(1, 31))
    label_studio.add_tasks(range(1, 31))
    work = make_work(services, project, label_studio, "train")
    assert "0 of at least" in train.run(work)
    (said,) = [text for text in events_of(work) if "cannot be read" in text]
    assert '30 with the unknown label "wolf"' in said
    assert "30 images therefore teach nothing" in said
    assert "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and others" in said


def test_one_bad_box_among_twenty_leaves_its_image_out_and_an_event_names_it(
    tmp_path: Path,
) -> None:
    """The object would be learnt as background; whoever corrects the box gets the image back."""
    boxes = CONFIG.replace("Choices", "RectangleLabels").replace("Choice ", "Label ")

    def box(width: object) -> dict[str, Any]:
        value = {"x": 10, "y": 10, "width": width, "height": 50, "rectanglelabels": ["cat"]}
        return {"from_name": "label", "type": "rectanglelabels", "value": value}

    services = make_services(tmp_path)
    label_studio = FakeLabelStudio()
    good = [box(width) for width in range(1, 21)]
    label_studio.given = {1: [{"result": good}], 2: [{"result": [*good, box(None)]}]}
    project = add_project(services, labeling_config=boxes)
    work = make_work(services, project, label_studio, "train")
    labels = read_labels(work, read_submitted(work))
    assert list(labels.truths) == [1]
    note_unread(work, labels)
    (said,) = events_of(work)
    assert said.startswith("1 labelled region cannot be read")
    assert "1 image therefore teaches nothing (task 2)" in said


def test_images_of_another_size_than_annotated_are_told(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    work = make_work(services, add_project(services), FakeLabelStudio(), "train")
    truths = {1: truth("cat"), 2: truth("dog"), 3: truth("dog")}
    sizes = {1: frozenset({(40, 60)}), 2: frozenset({(40, 60)}), 3: frozenset[tuple[int, int]]()}
    found = {1: (40, 60), 2: (60, 40), 3: (5, 5)}
    note_unread(work, Labels(truths, {}, sizes), read_images(tmp_path, truths, sizes=found))
    (said,) = events_of(work)
    assert said.startswith("1 image had another size when annotated")
    assert "task 2" in said
    assert "60 x 40 pixels, now 40 x 60" in said
    note_unread(work, Labels(truths, {}, {}), read_images(tmp_path, truths, sizes=found))
    assert len(events_of(work)) == 1


@pytest.mark.parametrize(
    ("seen", "unseen"), [((100, 100), 2), ((200, 200), 1), ((100, 200), 1), ((1000, 1000), 0)]
)
def test_boxes_that_the_network_cannot_see_are_counted(
    tmp_path: Path, seen: tuple[int, int], unseen: int
) -> None:
    """Boxes of at most a hundredth of an image's side are less than a pixel at small sizes."""
    shares = np.array([[0.1, 0.1, 0.5, 0.5], [0, 0, 0.5, 0.002], [0.2, 0.2, 0.209, 0.9]])
    boxes = BoxesTruth(("cat",), shares.astype(np.float32), np.zeros(3, np.int64))
    services = make_services(tmp_path)
    work = make_work(services, add_project(services), FakeLabelStudio(), "train")
    read = read_images(tmp_path, {1: boxes}, sizes={1: (3000, 4000)})
    note_changed(work, read, lambda height, width: seen)
    said = events_of(work)
    assert len(said) == (unseen > 0)
    assert all(text.startswith(f"{unseen} boxes") and "image_size" in text for text in said)


@pytest.mark.parametrize(("learns_turns", "warnings"), [(False, 1), (True, 0)])
def test_rotated_boxes_are_told_unless_they_are_learnt_as_such(
    tmp_path: Path, learns_turns: bool, warnings: int
) -> None:
    boxes, turns = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32), np.full((1, 2), 0.5, np.float32)
    truth = BoxesTruth(("cat",), boxes, np.zeros(1, np.int64), turns, ("a rotated box",))
    services = make_services(tmp_path)
    work = make_work(services, add_project(services), FakeLabelStudio(), "train")
    read = read_images(tmp_path, {1: truth}, sizes={1: (300, 400)})
    note_changed(work, read, lambda height, width: (height, width), learns_turns)
    assert len(events_of(work)) == warnings


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", DEFAULT_BACKBONE])
@pytest.mark.parametrize("size", [(3000, 4000), (4000, 300)])
def test_boxes_that_are_counted_are_those_left_out(name: str, size: tuple[int, int]) -> None:
    shares = np.array([[0.1, 0.1, 0.5, 0.5], [0, 0, 0.5, 0.009], [0.2, 0.2, 0.215, 0.9]])
    boxes = BoxesTruth(("cat",), shares.astype(np.float32), np.zeros(3, np.int64))
    network = make_network("detection", name, ("cat",), 96, pretrained="auto")
    left = network.prepare_target(boxes.target(*size), *size)
    assert len(left) == 3 - boxes.unseen(*network.seen_size(*size))
