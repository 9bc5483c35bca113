"""The labelled images of a project: what was submitted, what of it can be used, and the split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, select, update
from torch import Tensor

from cdal.backend.annotations import Truth, truth_of
from cdal.backend.annotations.control import Control
from cdal.backend.errors import ImageError, ImagesAwayError
from cdal.backend.images.retry import Patience
from cdal.backend.images.store import ImageSource, ImageStore
from cdal.backend.loop.context import Context
from cdal.backend.store.store import note
from cdal.backend.store.tables import Task, now
from cdal.models import TaskNetwork

CHUNK = 500
"""Images whose problems are written in one transaction."""

PATIENCE = timedelta(hours=1)
"""How long a job waits for images that are away before it goes on without them."""


def read_truths(work: Context) -> dict[int, Truth]:
    """What was submitted about every task that can be learnt from, by task id."""
    truths = {}
    for task_id, submitted in work.client.annotations():
        work.check_stop()
        truth = truth_of(work.control, submitted, work.settings)
        if truth is not None:
            truths[task_id] = truth
    return truths


def labelled_images(work: Context, truths: Mapping[int, Truth]) -> TaskImages:
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
    return TaskImages(work.services.images, source, items, patience=Patience(work.stop))


def least_classes(control: Control) -> int:
    """How many classes must occur for a network to learn: two, if there is nothing else to see."""
    return 2 if control.task == "classification" else 1


def too_few(truths: Iterable[Truth], needed: int, classes: int) -> str | None:
    """Why these labels are not enough to train on, None where they are.

    Args:
        truths: one a labelled image.
        needed: how many of them there must be.
        classes: how many classes must occur, see `least_classes`.
    """
    known = list(truths)
    if len(known) < needed:
        return f"{len(known)} of at least {needed} labels are there."
    if len(_classes_of(known)) >= classes:
        return None
    if classes == 1:
        return f"None of the {len(known)} labelled images has a labelled region."
    return f"All {len(known)} labels are of one class; a model needs two."


def is_held_out(task_id: int, share: float) -> bool:
    """Whether an image is kept to measure models on: fixed for good by its task's id."""
    digest = hashlib.sha256(str(task_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def split(images: TaskImages, share: float, classes: int) -> tuple[TaskImages, TaskImages]:
    """Training and held-out images; all are trained on where too few classes would be left."""
    train = images.where(lambda item: not is_held_out(item.task_id, share))
    if len(_classes_of(item.truth for item in train.items)) < classes:
        return images, images.where(lambda _: False)
    return train, images.where(lambda item: is_held_out(item.task_id, share))


def check_there(work: Context, problems: Mapping[int, ImageError], asked: int) -> None:
    """Refuse to go on where half of the images or more are away, such as with their host.

    For an hour; then it is better to go on without them, unless there would be none.

    Args:
        work: the job that needs the images.
        problems: why images cannot be had, by task id.
        asked: how many there are in all.

    Raises:
        ImagesAwayError: they are.
    """
    away = {task_id: error for task_id, error in problems.items() if error.passes}
    patient = now() - work.job.created_at < PATIENCE
    if away and (len(problems) == asked or (patient and 2 * len(away) >= asked)):
        raise ImagesAwayError(away, asked)


def record_problems(work: Context, problems: Mapping[int, ImageError]) -> None:
    """Remember which images cannot be used, and why; they are left out of rounds.

    From time to time they are looked at again, see recheck.py.
    """
    if not problems:
        return
    task_id, first = next(iter(problems.items()))
    text = f"{len(problems)} images cannot be used; task {task_id}: {first.reason}"
    with work.services.store.transaction() as session:
        note(session, work.project.id, text, "warning")
    record = (
        update(Task)
        .where(Task.project_id == work.project.id, Task.task_id == bindparam("task"))
        .values(image_problem=bindparam("reason"))
    )
    rows = [{"task": task_id, "reason": problem.reason} for task_id, problem in problems.items()]
    for start in range(0, len(rows), CHUNK):  # others want to write, too
        with work.services.store.transaction() as session:
            session.connection().execute(record, rows[start : start + CHUNK])


def note_dropped(work: Context, images: TaskImages, side: int) -> None:
    """Say which parts of what was submitted were not learnt from as they are.

    Args:
        work: the job that learns.
        images: what it learns from.
        side: of the images that the network sees, in pixels.
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


MEMORY_LIMIT = 2**30
"""Prepared images are kept in memory up to this many bytes; beyond, they are read anew."""

Example = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A task's image, and what was submitted about it."""

    task_id: int
    image: object
    truth: Truth


@dataclass(frozen=True, slots=True)
class SizedImage:
    """An image as a network takes it, with the height and width that it had before."""

    pixels: Tensor
    size: tuple[int, int]

    @classmethod
    def preparer(cls, network: TaskNetwork) -> Callable[[Tensor], SizedImage]:
        """What makes one of an image, (3, H, W) uint8, for this network."""
        return lambda image: cls(network.prepare(image), (image.shape[1], image.shape[2]))


class TaskImages:
    """Labelled images of one project; a `cdal.models.Dataset`."""

    def __init__(
        self,
        store: ImageStore,
        source: ImageSource,
        items: Sequence[LabelledImage],
        prepared: dict[int, Example] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.items = list(items)
        self._store = store
        self._source = source
        self._prepared = prepared or {}
        self._patience = patience or Patience()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Example:
        """An image and its target; one that is away for now is waited for.

        Raises:
            ImageError, LabelStudioError: it cannot be had, or has been away for minutes.
            Stopped: the job that waits for it is to stop.
        """
        item = self.items[index]
        known = self._prepared.get(item.task_id)
        if known is not None:
            return known
        image = self._patience.read(
            lambda: self._store.read(self._source, item.task_id, item.image)
        )
        return image, item.truth.target(image.shape[1], image.shape[2])

    def where(self, wanted: Callable[[LabelledImage], bool]) -> TaskImages:
        """Those of the images that are wanted."""
        chosen = [item for item in self.items if wanted(item)]
        return TaskImages(self._store, self._source, chosen, self._prepared, self._patience)

    def only(self, index: int) -> TaskImages:
        """One of the images."""
        one = [self.items[index]]
        return TaskImages(self._store, self._source, one, self._prepared, self._patience)

    def sizes(self, most: int) -> list[tuple[int, int]]:
        """Height and width of the first images that can be read."""
        pairs = [(item.task_id, item.image) for item in self.items[:most]]
        found = self._store.stream(
            self._source, pairs, prepare=lambda image: (image.shape[1], image.shape[2])
        )
        return [size for _, size in found if not isinstance(size, ImageError)]

    def read(
        self, network: TaskNetwork, progress: Callable[[float], None]
    ) -> tuple[TaskImages, dict[int, ImageError]]:
        """Read every image once; those that can be had, and why the others cannot, by task id."""
        pairs = [(item.task_id, item.image) for item in self.items]
        prepared: dict[int, Example] = {}
        problems: dict[int, ImageError] = {}
        used = 0
        stream = self._store.stream(self._source, pairs, prepare=SizedImage.preparer(network))
        for done, (item, (task_id, image)) in enumerate(
            zip(self.items, stream, strict=True), start=1
        ):
            if isinstance(image, ImageError):
                problems[task_id] = image
            elif used <= MEMORY_LIMIT:
                target = network.prepare_target(item.truth.target(*image.size), *image.size)
                used += image.pixels.nbytes + target.nbytes
                prepared[task_id] = image.pixels, target
            progress(done / len(pairs))
        readable = [item for item in self.items if item.task_id not in problems]
        return (
            TaskImages(self._store, self._source, readable, prepared, self._patience),
            problems,
        )
