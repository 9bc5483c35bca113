"""The labelled set: what was submitted, whether it is enough to train on, and the split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from sqlalchemy import select

from cdal.backend.annotations import Truth, truth_of
from cdal.backend.annotations.control import Control
from cdal.backend.images.retry import Patience
from cdal.backend.loop.context import Context
from cdal.backend.loop.training_images import LabelledImage, TrainingImages
from cdal.backend.store.events import note
from cdal.backend.store.tables import Task


def read_truths(work: Context) -> dict[int, Truth]:
    """The submitted truth for each task that can be learnt from, by task id."""
    truths = {}
    for task_id, submitted in work.client.annotations():
        work.check_stop()
        truth = truth_of(work.control, submitted, work.settings)
        if truth is not None:
            truths[task_id] = truth
    return truths


def labelled_images(work: Context, truths: Mapping[int, Truth]) -> TrainingImages:
    """The images of these tasks, in the order of their ids."""
    with work.services.store.reading() as session:
        known = session.execute(
            select(Task.task_id, Task.image).where(Task.project_id == work.project.id)
        )
        items = [
            LabelledImage(task_id, image, truths[task_id])
            for task_id, image in known
            if task_id in truths
        ]
    source = work.services.image_source(work.project)
    items.sort(key=lambda item: item.task_id)
    return TrainingImages(work.services.images, source, items, patience=Patience(work.stop))


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


def is_held_out(task_id: int, share: float) -> bool:
    """Whether an image is held out to measure models on; its task's id decides it for good."""
    digest = hashlib.sha256(str(task_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def split(
    images: TrainingImages, share: float, classes: int
) -> tuple[TrainingImages, TrainingImages]:
    """Training and held-out images; none is held out if too few classes would be left."""
    train = images.where(lambda item: not is_held_out(item.task_id, share))
    if len(_classes_of(item.truth for item in train.items)) < classes:
        return images, images.where(lambda _: False)
    return train, images.where(lambda item: is_held_out(item.task_id, share))


def note_dropped(work: Context, images: TrainingImages, side: int) -> None:
    """Record an event that says which submitted regions are not learnt as they are.

    Args:
        work: the training job.
        images: the images that it learns from.
        side: of the images as the network sees them, in pixels.
    """
    dropped = sum(item.truth.dropped for item in images.items)
    said = [f"task {i.task_id}: {text}" for i in images.items for text in i.truth.warnings]
    texts = []
    if dropped:
        texts.append(f"{dropped} labelled regions are damaged or too small, and were left out")
    unseen = sum(item.truth.unseen(side) for item in images.items)
    if unseen:
        texts.append(
            f"{unseen} boxes are less than a pixel wide or high at the {side} by {side} pixels "
            "that the network sees, and were left out; a larger image_size would show them"
        )
    if said:
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        texts.append(f"{said[0]}{more}")
    if texts:
        with work.services.store.transaction() as session:
            note(session, work.project.id, "; ".join(texts), "warning")


def _classes_of(truths: Iterable[Truth]) -> set[str]:
    return {name for truth in truths for name in truth.classes}
