"""The model behind Label Studio's protocol, by the contract of its ML backends, version 2."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, Self

import torch
from sqlalchemy import select

from cdal.backend.annotations.control import Control
from cdal.backend.errors import ImageError, RefusedError
from cdal.backend.loop.inference import PredictedBatch, infer
from cdal.backend.loop.predictions import (
    NOT_QUEUED_SCORE,
    Part,
    joined,
    parts_of,
    queue_scores,
    result_of,
)
from cdal.backend.loop.rounds import queued_round
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.failures import STORAGE
from cdal.backend.store.queries import is_id
from cdal.backend.store.tables import Event, ModelVersion, Project, now
from cdal.backend.web.setup import SetupRequest, connect
from cdal.models import ModelError, TaskNetwork

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 50.0
"""Label Studio waits 100 s for predictions, and a proxy between the two often only 60."""

MANY = 16
"""Unseen images in one call; more are many."""

# More calls at once would each only take longer. Few images need not wait for many.
_many = BoundedSemaphore(2)

LATE = "There was no time to predict"
TOLD_FOR = timedelta(minutes=10)

NO_TASK = -1
"""Stands for the id of a task that is only tried out."""

_EVENT = re.compile(r"[A-Z_]{1,60}")

Task = Mapping[str, Any]

Result = list[dict[str, Any]]


class CDALModel:
    """One project's model: set up, predict, fit."""

    def __init__(self, services: Services, project: Project) -> None:
        self.services = services
        self.project = project

    @classmethod
    def setup(
        cls, services: Services, body: Mapping[str, Any], host: str = "", caller: str = ""
    ) -> Self:
        """Connect a project as `/setup` requests.

        Args:
            services: the backend's services.
            body: the body of the call.
            host: what the caller calls the backend.
            caller: the address that the caller calls from.

        Raises:
            RefusedError: it cannot be served; the message says why and what to do.
        """
        return cls(services, connect(services, SetupRequest.of(body, host, caller)))

    @property
    def model_version(self) -> str:
        """The queue version, by which Label Studio requests predictions and orders tasks."""
        return self.project.queue_version or ""

    def predict(
        self, tasks: Sequence[Task], context: object = None
    ) -> list[dict[str, Any] | Result]:
        """One prediction per task, in order; from the store if the task has been scored.

        Where there is nothing to predict, as before the first round, or no time for it, there is
        nothing for Label Studio to keep: the result is an empty list.

        Args:
            tasks: Label Studio's.
            context: what somebody has just drawn, in a call of an interactive model; there is
                nothing to add to it.
        """
        if context:
            return [[] for _ in tasks]
        with self.services.store.reading() as session:
            current = queued_round(session, self.project)
            if current is None:
                return [[] for _ in tasks]
            ids = [task["id"] if is_id(task.get("id")) else NO_TASK for task in tasks]
            scores = queue_scores(session, current, ids)
            config = ProjectConfig.parse(self.project.labeling_config, self.project.extra_params)
            parts = parts_of(session, current, config.controls, ids)
        deadline = time.monotonic() + ANSWER_WITHIN_S
        found: set[int] = set()
        late: set[int] = set()
        results: list[list[Result]] = [[] for _ in tasks]
        for part in parts:
            # By row: a task that is only tried out has no id.
            stored = dict(enumerate(map(part.findings.get, ids)))
            seen = {row: finding for row, finding in stored.items() if finding is not None}
            unseen = {row: task for row, task in enumerate(tasks) if row not in seen}
            if unseen:
                predicted, overdue = self._predict_in_time(part, unseen, deadline)
                seen.update(predicted)
                late |= overdue
            found |= seen.keys()
            classes = part.version.classes
            for row, finding in seen.items():
                results[row].append(result_of(part.control, config.settings, classes, finding))

        def answer(row: int, task_id: int) -> dict[str, Any] | Result:
            if row in late or (row not in found and task_id not in scores):
                return []
            return {
                "result": joined(results[row]),
                "score": scores.get(task_id, NOT_QUEUED_SCORE),
                "model_version": self.model_version,
            }

        return [answer(row, task_id) for row, task_id in enumerate(ids)]

    def fit(self, event: str) -> int:
        """Request the job that an event causes; returns its number.

        Only the event's name counts: what changed is read back from Label Studio.
        """
        jobs, project = self.services.jobs, self.project
        # Only once Label Studio lists this backend: anybody can send events.
        if event == "START_TRAINING" and project.connected_at is not None:
            asked_by = "Start training in Label Studio"
            return jobs.ask(project.id, "train", asked_by, self.services.trainings)
        about_labels = event.startswith("ANNOTATION")
        wait_s = self.services.gathering.wait_s(project) if about_labels else 0.0
        return jobs.ask(project.id, "sync", event, self.services.looks, wait_s)

    def _predict_in_time(
        self, part: Part, tasks: Mapping[int, Task], deadline: float
    ) -> tuple[dict[int, dict[str, Any]], set[int]]:
        """Predict images that were not scored, as many as there is time for.

        Args:
            part: the control, and the model version that predicts it.
            tasks: by row.
            deadline: by ``time.monotonic``.

        Returns:
            The findings by row, and the rows that there was no time for.
        """
        work = _Prediction(dict(tasks), deadline)
        ended: Future[None] = Future()

        def predict() -> None:
            try:
                self._predict_unseen(part.version, part.control, work)
            except Exception as error:  # noqa: BLE001 — the caller raises it
                ended.set_exception(error)
            else:
                ended.set_result(None)

        # In a thread of its own, so that nothing that it waits for can hold up the answer.
        Thread(target=copy_context().run, args=(predict,), daemon=True).start()
        with suppress(TimeoutError):
            ended.result(work.seconds_left)
        found, late = work.end()
        if late:
            self._tell_late(len(late), len(tasks))
        return found, late

    def _tell_late(self, late: int, unseen: int) -> None:
        """Record an event, now and then: Label Studio shows nothing of what is missing."""
        text = (
            f"{LATE} {late} of {unseen} images that Label Studio requested at once; request them "
            "again after the next order, or fewer at a time"
        )
        recently = select(Event.id).where(
            Event.project_id == self.project.id,
            Event.text.startswith(LATE),
            Event.created_at > now() - TOLD_FOR,
            Event.created_at < now() + TOLD_FOR,
        )
        # The answer does not depend on it.
        with suppress(*STORAGE), self.services.store.transaction() as session:
            if session.scalars(recently).first() is None:
                note(session, self.project.id, text, "warning")

    def _predict_unseen(self, version: ModelVersion, control: Control, work: _Prediction) -> None:
        is_big = len(work.tasks) > MANY
        if is_big and not _many.acquire(timeout=work.seconds_left):
            return
        try:
            self._run_network(version, control, work)
        finally:
            if is_big:
                _many.release()

    def _run_network(self, version: ModelVersion, control: Control, work: _Prediction) -> None:
        """Predict images that were not scored; an image that cannot be read gets no prediction."""
        folder = self.services.config.version_folder(self.project.id, version.number)
        try:
            network = self.services.networks.get(folder)
        except ModelError as error:  # stored predictions are still served
            log.error("project %d: %s", self.project.id, error)  # noqa: TRY400 — a sentence
            work.leave_out(work.tasks)
            return
        try:
            self._predict_with(network, control, work)
        except torch.OutOfMemoryError:
            log.warning("The GPU's memory is full; unseen images are predicted on the CPU.")
        else:
            return
        self._predict_with(self.services.networks.move_to_cpu(folder), control, work)

    def _predict_with(self, network: TaskNetwork, control: Control, work: _Prediction) -> None:
        # Images are located by their tasks; one that is only tried out gets a number of its own.
        rows: dict[int, list[int]] = {}
        items: dict[int, object] = {}
        for row, task in work.tasks.items():
            number = task["id"] if is_id(task.get("id")) else NO_TASK - row
            rows.setdefault(number, []).append(row)
            items[number] = _image(task, control)

        def problem(number: int, why: ImageError) -> None:
            log.warning("project %d: task %d: %s", self.project.id, number, why.reason)
            work.leave_out(rows[number])

        reader = self.services.input_reader(self.project)
        for batch in infer(network, reader.batches(network, items.items(), problem), findings_of):
            for number, finding in batch.items():
                work.put(rows[number], finding)
            if work.is_over:
                return


class _Prediction:
    """Unseen tasks, by row of the answer, and what is found of them until time is up."""

    def __init__(self, tasks: Mapping[int, Task], deadline: float) -> None:
        self.tasks = tasks
        self._deadline = deadline
        self._lock = Lock()
        self._found: dict[int, dict[str, Any]] = {}
        self._open = set(tasks)
        self._ended = False

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the answer was given, so that there is nothing left to do."""
        return self._ended or not self.seconds_left

    def put(self, rows: Iterable[int], finding: dict[str, Any]) -> None:
        """Note what was found of the image in these rows."""
        with self._lock:
            for row in rows:
                self._found[row] = finding
                self._open.discard(row)

    def leave_out(self, rows: Iterable[int]) -> None:
        """Note that there is no prediction for these rows."""
        with self._lock:
            self._open.difference_update(rows)

    def end(self) -> tuple[dict[int, dict[str, Any]], set[int]]:
        """What was found by now, by row, and the rows that nobody got to."""
        with self._lock:
            self._ended = True
            return dict(self._found), set(self._open)


def event_named(action: object) -> str:
    """The name of an event. It ends up in the log and in job records, and anybody may send it.

    Raises:
        RefusedError: it is not one.
    """
    if not isinstance(action, str) or not _EVENT.fullmatch(action):
        raise RefusedError('The field "action" must name an event, such as ANNOTATION_CREATED.')
    return action


def findings_of(batch: PredictedBatch) -> dict[int, dict[str, Any]]:
    """Keep only the findings of a batch: nothing is selected here."""
    return dict(zip(batch.ids, batch.findings(), strict=True))


def _image(task: Task, control: Control) -> object:
    data = task.get("data")
    return data.get(control.image_key) if isinstance(data, dict) else None
