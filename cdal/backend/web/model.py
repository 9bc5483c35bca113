"""The model behind Label Studio's protocol, by the contract of its ML backends, version 2."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.annotations.control import Control
from cdal.backend.errors import ImageError
from cdal.backend.loop.inference import PredictedBatch, infer
from cdal.backend.loop.predictions import NOT_QUEUED_SCORE, queue_scores, result_of, stored_findings
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.queries import is_id
from cdal.backend.store.tables import ModelVersion, Project, Round
from cdal.backend.web.setup import SetupRequest, connect
from cdal.models import ModelError, TaskNetwork

log = logging.getLogger(__name__)

NO_TASK = -1
"""Stands for the id of a task that is only tried out."""

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

    def predict(self, tasks: Sequence[Task]) -> list[dict[str, Any] | Result]:
        """One prediction per task, in order; from the store if the task has been scored.

        Where there is nothing to predict, as before the first round, there is nothing for Label
        Studio to keep: the result is an empty list.
        """
        with self.services.store.reading() as session:
            current = self._queued_round(session)
            if current is None:
                return [[] for _ in tasks]
            ids = [task["id"] if is_id(task.get("id")) else NO_TASK for task in tasks]
            scores = queue_scores(session, current, ids)
            findings = stored_findings(session, current, ids)
            version = (
                session.get_one(ModelVersion, current.model_version_id)
                if current.model_version_id is not None
                else None
            )
        # By row: a task that is only tried out has no id.
        found = {row: findings[task_id] for row, task_id in enumerate(ids) if task_id in findings}
        config = ProjectConfig.parse(self.project.labeling_config, self.project.extra_params)
        control, settings = config.control, config.settings
        if version is not None and len(found) < len(tasks):
            unseen = {row: task for row, task in enumerate(tasks) if row not in found}
            found.update(self._run_network(version, control, unseen))
        classes = version.classes if version is not None else []

        def answer(row: int, task_id: int) -> dict[str, Any] | Result:
            if row not in found and task_id not in scores:
                return []
            finding = found.get(row)
            return {
                "result": [] if finding is None else result_of(control, settings, classes, finding),
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
        return jobs.ask(project.id, "sync", event, self.services.looks)

    def _queued_round(self, session: Session) -> Round | None:
        """The round that the label stream follows."""
        if self.project.queue_version is None:
            return None
        return session.scalars(
            select(Round).filter_by(
                project_id=self.project.id, queue_version=self.project.queue_version
            )
        ).first()

    def _run_network(
        self, version: ModelVersion, control: Control, tasks: Mapping[int, Task]
    ) -> dict[int, dict[str, Any]]:
        """Predict images that were not scored; an image that cannot be read gets no prediction."""
        folder = self.services.config.version_folder(self.project.id, version.number)
        try:
            network = self.services.networks.get(folder)
        except ModelError as error:  # stored predictions are still served
            log.error("project %d: %s", self.project.id, error)  # noqa: TRY400 — a sentence
            return {}
        try:
            return self._predict_with(network, control, tasks)
        except torch.OutOfMemoryError:
            log.warning("The GPU's memory is full; unseen images are predicted on the CPU.")
        return self._predict_with(self.services.networks.move_to_cpu(folder), control, tasks)

    def _predict_with(
        self, network: TaskNetwork, control: Control, tasks: Mapping[int, Task]
    ) -> dict[int, dict[str, Any]]:
        def problem(task_id: int, why: ImageError) -> None:
            log.warning("project %d: task %d: %s", self.project.id, task_id, why.reason)

        # Images are located by their tasks; one that is only tried out gets a number of its own.
        numbers = {
            row: task["id"] if is_id(task.get("id")) else NO_TASK - row
            for row, task in tasks.items()
        }
        items = {numbers[row]: _image(task, control) for row, task in tasks.items()}
        reader = self.services.input_reader(self.project)
        found: dict[int, dict[str, Any]] = {}
        for batch in infer(network, reader.batches(network, items.items(), problem), findings_of):
            found.update(batch)
        return {row: found[number] for row, number in numbers.items() if number in found}


def findings_of(batch: PredictedBatch) -> dict[int, dict[str, Any]]:
    """Keep only the findings of a batch: nothing is selected here."""
    return dict(zip(batch.ids, batch.findings(), strict=True))


def _image(task: Task, control: Control) -> object:
    data = task.get("data")
    return data.get(control.image_key) if isinstance(data, dict) else None
