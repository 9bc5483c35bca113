"""The labelled set: what was submitted, and whether it is enough to train on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cdal.backend.annotations import Truth, mark_of, read_annotations
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import UNKNOWN
from cdal.backend.images.retry import Patience
from cdal.backend.label_studio.remembered import Annotations, Submitted
from cdal.backend.loop.changes import first_to_read
from cdal.backend.loop.context import Context
from cdal.backend.loop.training_images import LabelledImage, ReadImages, TrainingImages
from cdal.backend.store.events import note
from cdal.backend.store.queries import rows_of
from cdal.backend.store.tables import Event, Project, Task, now


@dataclass(frozen=True, slots=True)
class Labels:
    """What was submitted in a project about one control, by task id.

    Attributes:
        truths: of each task that can be learnt from.
        left_out: what is wrong with the regions that cannot be read.
        sizes: heights and widths of the image as the annotation's regions name them.
    """

    truths: dict[int, Truth]
    left_out: dict[int, tuple[str, ...]]
    sizes: dict[int, frozenset[tuple[int, int]]]


def read_labels(work: Context, submitted: Mapping[int, Submitted]) -> Labels:
    """What the annotations that count of every labelled task say about the work's control."""
    labels = Labels({}, {}, {})
    for task_id, given in submitted.items():
        work.check_stop()
        reading = read_annotations(work.control, given, work.settings)
        if reading.truth is not None:
            labels.truths[task_id] = reading.truth
        if reading.left_out:
            labels.left_out[task_id] = reading.left_out
        labels.sizes[task_id] = reading.sizes
    return labels


def marks_of(work: Context, submitted: Mapping[int, Submitted]) -> dict[int, str]:
    """The hashes of what was submitted, see `mark_of`."""
    marks = {task_id: mark_of(work.control, every) for task_id, every in submitted.items()}
    return {task_id: mark for task_id, mark in marks.items() if mark is not None}


ALL_AGAIN_S = 600.0
"""All annotations are read again after this long, in case something changed them in bulk without
giving their tasks a newer time."""


def read_submitted(work: Context) -> dict[int, Submitted]:
    """The annotations of every labelled task; of those that this process remembers, changes only.

    Label Studio takes milliseconds per labelled task, and head training comes back every few
    labels.
    """
    with work.services.store.reading() as session:
        seen = session.get_one(Project, work.project.id).changes_seen
        labelled = set(
            session.scalars(
                select(Task.task_id).where(Task.project_id == work.project.id, Task.annotations > 0)
            )
        )
    known, begun = work.services.remembered(work.project).annotations, time.monotonic()
    since = None if known is None else first_to_read(known.seen)
    if known is not None and since is not None and begun - known.whole < ALL_AGAIN_S:
        changed = _read(work, since)
        found = {task: known.by_task[task] for task in labelled & known.by_task.keys()} | changed
        whole = known.whole
        complete = labelled <= found.keys()
    else:
        complete = False
    if not complete:
        found, whole = _read(work, None), begun
    if seen is not None:
        place = (work.project.url, work.project.label_studio_id)
        work.services.memory.keep(*place, Annotations(found, seen, whole))
    return found


def _read(work: Context, since: str | None) -> dict[int, Submitted]:
    found: dict[int, Submitted] = {}
    for task_id, submitted in work.client.annotations(since):
        work.check_stop()
        found[task_id] = submitted
    return found


def labelled_as(session: Session, project_id: int) -> dict[int, str]:
    """What the labelled tasks are labelled as, as far as the store knows."""
    rows = session.execute(
        select(Task.task_id, Task.labelled_as).where(
            Task.project_id == project_id, Task.labelled_as.is_not(None)
        )
    )
    return {task_id: mark for task_id, mark in rows if mark is not None}


def note_learnt(
    session: Session,
    project_id: int,
    marks: Mapping[int, str],
    known: Mapping[int, str],
) -> None:
    """Note what a training that begins now has every task labelled as.

    Args:
        session: of the transaction.
        project_id: of the project.
        marks: of the labels that it has.
        known: what the store knew before they were read; what it has learnt of a task meanwhile is
            newer, and stays.
    """
    learnt_before = select(Task.task_id).where(
        Task.project_id == project_id, Task.learnt_as.is_not(None)
    )
    gone = [
        {"project_id": project_id, "task_id": task_id, "learnt_as": None}
        for task_id in session.scalars(learnt_before)
        if task_id not in marks
    ]
    if gone:  # their labels were deleted
        session.execute(update(Task), gone)
    rows = list(rows_of(session, project_id, marks, Task.task_id, Task.labelled_as, Task.learnt_as))
    for is_newer in (False, True):
        names = ("learnt_as",) if is_newer else ("learnt_as", "labelled_as")
        new = [
            {"project_id": project_id, "task_id": task_id, **dict.fromkeys(names, mark)}
            for task_id, labelled, learnt in rows
            if (mark := marks[task_id]) != learnt and (labelled != known.get(task_id)) == is_newer
        ]
        if new:
            session.execute(update(Task), new)


def labelled_images(work: Context, truths: Mapping[int, Truth]) -> TrainingImages:
    """The images of these tasks, in the order of their ids."""
    with work.services.store.reading() as session:
        items = [
            LabelledImage(task_id, image, truths[task_id])
            for task_id, image in rows_of(
                session, work.project.id, truths, Task.task_id, Task.image
            )
        ]
    reader = work.services.input_reader(work.project)
    return TrainingImages(reader, items, patience=Patience(work.stop))


def least_classes(control: Control) -> int:
    """How many classes must occur before a network can learn: two if images are classified."""
    return 2 if control.task == "classification" else 1


def too_few(truths: Iterable[Truth], needed: int, classes: int) -> str | None:
    """Why these labels are not enough to train on; None if they are.

    Args:
        truths: one per labelled image.
        needed: how many there must be.
        classes: how many classes must occur, see `least_classes`.
    """
    known = list(truths)
    if len(known) < needed:
        return f"There are {len(known)} of at least {needed} labels."
    if len(_classes_of(known)) >= classes:
        return None
    if classes == 1:
        return f"None of the {len(known)} labelled images has a labelled region."
    return f"All {len(known)} labels are of one class; a model needs two."


def note_unread(work: Context, labels: Labels, read: ReadImages | None = None) -> None:
    """Record an event that says what nothing is learnt from, because it cannot be read.

    Args:
        work: the training job.
        labels: the labels of the project.
        read: what reading the images gave; None if it did not come to that.
    """
    left_out = {task: list(why) for task, why in labels.left_out.items()}
    for task, why in read.left_out.items() if read else ():
        left_out.setdefault(task, []).extend(why)
    texts = []
    if left_out:
        counts = Counter(why for each in left_out.values() for why in each)
        shown = [f"{count} {why}" for why, count in counts.most_common(MOST_KINDS)]
        if len(counts) > MOST_KINDS:
            shown.append(f"and others ({len(counts)} kinds in all)")
        taught = set(labels.truths) if read is None else {i.task_id for i in read.images.items}
        taught |= set(read.problems) if read else set()
        useless = [task for task in left_out if task not in taught]
        texts.append(
            f"{_regions(counts.total())} cannot be read, so nothing is learnt of what lies there: "
            f"{', '.join(shown)} (the first in task {min(left_out)})"
        )
        if useless:
            teach = "teaches" if len(useless) == 1 else "teach"
            texts.append(f"{_images(len(useless))} therefore {teach} nothing ({_tasks(useless)})")
        if any(UNKNOWN in why for why in counts):
            texts.append("list a label's former names in its predicted_values")
    texts += _contradictions(labels, read) if read else ()
    _warn(work, texts)


def _warn(work: Context, texts: Sequence[str]) -> None:
    """Record an event, unless it was recorded already today: trainings may be minutes apart."""
    text = work.about("; ".join(texts)) if texts else ""
    with work.services.store.transaction() as session:
        said = select(Event.id).where(
            Event.project_id == work.project.id,
            Event.text == text,
            Event.created_at > now() - AGAIN,
            Event.created_at < now() + AGAIN,  # a clock that was ahead silences nothing
        )
        if text and session.scalars(said).first() is None:
            note(session, work.project.id, text, "warning")


AGAIN = timedelta(days=1)
"""The same is said again after this long."""

MOST_KINDS = 5
"""Kinds of unreadable regions that an event lists."""

MOST_TASKS = 10
"""Images that teach nothing of which an event lists the tasks."""


def _regions(count: int) -> str:
    return "1 labelled region" if count == 1 else f"{count} labelled regions"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _tasks(task_ids: Iterable[int]) -> str:
    """The first few tasks, for people who want to correct them."""
    shown = sorted(task_ids)[: MOST_TASKS + 1]
    more = " and others" if len(shown) > MOST_TASKS else ""
    return f"task{'s' * (len(shown) > 1)} {', '.join(map(str, shown[:MOST_TASKS]))}{more}"


def _contradictions(labels: Labels, read: ReadImages) -> list[str]:
    """A sentence about images that were annotated at another size than they have."""
    other = [
        (task, named, size)
        for task, size in sorted(read.sizes.items())
        if (named := labels.sizes.get(task)) and size not in named
    ]
    if not other:
        return []
    task, named, (height, width) = other[0]
    seen = min(named)
    return [
        f"{_images(len(other))} had another size when annotated: task {task} "
        f"{seen[1]} x {seen[0]} pixels, now {width} x {height}; check whether regions lie on their "
        "objects"
    ]


def note_changed(
    work: Context,
    read: ReadImages,
    seen_size: Callable[[int, int], tuple[int, int]],
    learns_turns: bool = False,
) -> None:
    """Record an event that says which submitted regions are not learnt as they are.

    Args:
        work: the training job.
        read: the images that it learns from.
        seen_size: the height and width at which the network sees an image, given its own.
        learns_turns: whether it learns rotated boxes as such.
    """
    items = read.images.items
    said = [f"task {i.task_id}: {text}" for i in items for text in i.truth.warnings]
    if learns_turns:  # rotated boxes are all that truths warn of
        said = []
    texts = []
    unseen = sum(i.truth.unseen(*seen_size(*read.sizes[i.task_id])) for i in items)
    if unseen:
        texts.append(
            f"{unseen} boxes are less than a pixel wide or high at the size that the network sees, "
            "and were left out; a larger image_size, or tile, would show them"
        )
    if said:
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        texts.append(f"{said[0]}{more}")
    _warn(work, texts)


def _classes_of(truths: Iterable[Truth]) -> set[str]:
    return {name for truth in truths for name in truth.classes}
