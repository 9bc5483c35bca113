"""Projects of real images with known labels, connected to a Label Studio and a backend."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from cdal.backend.loop.select import draw_order
from cdal.datasets import Example, ImageSet
from cdal.demo.annotator import Annotator, truth
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.process import DemoError
from cdal.demo.project import LabelStudioProject
from support.commits import commits
from support.processes import PATIENCE

FIRST = 4
"""So many images at the front of a random order are of several classes."""


def mixed_seed(classes: Mapping[int, str]) -> int:
    """A seed whose random order of tasks has several classes at its front.

    Nothing can be learnt from a single class, and the first four of three classes are all of one in
    one of 27 orders; the order depends on the tasks' numbers, which no test knows beforehand.

    Args:
        classes: the class of each task.
    """
    most = min(FIRST - 1, len(set(classes.values())))
    return next(
        seed
        for seed in count()
        if len({classes[task] for task in draw_order(list(classes), seed)[:FIRST]}) >= most
    )


@dataclass
class Scenario:
    """A project of real images with known labels.

    Attributes:
        truth: the correct annotation of each task: a class, or regions.
        examples: each task's image.
    """

    label_studio: LabelStudioServer
    backend: BackendServer
    project: LabelStudioProject
    truth: dict[int, Any]
    examples: dict[int, Example]
    classes: list[str]
    settings: dict[str, Any]
    connection: int = 0

    @property
    def number(self) -> int:
        return self.project.number

    def connect(self) -> None:
        """Connect the backend, again where Label Studio was too busy to answer it in time.

        For the backend's call it has a second or two, since it waits no longer itself.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.connection:
            try:
                self.connection = self.project.connect(
                    self.backend.url, self.settings, self.backend.password
                )
            except DemoError as error:
                if "did not answer in time" not in str(error) or time.monotonic() > deadline:
                    raise

    def annotator(self, token: str | None = None) -> Annotator:
        return Annotator(self.label_studio.url, token or self.label_studio.token, self.number)

    def status(self) -> dict[str, Any]:
        status = self.backend.status(self.number)
        assert status is not None
        return status

    def wait(
        self, what: str, reached: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """Wait until the project's status, looked at after each commit, meets a condition."""
        with commits(self.backend.data_folder) as wait_for_commit:
            return self.backend.wait_for(
                self.number, what, reached, seconds, watch=lambda _: wait_for_commit()
            )

    def wait_for_round(self, number: int, seconds: float = PATIENCE) -> dict[str, Any]:
        return self.wait(f"round {number}", round_is_open(number), seconds)

    def queue(self) -> list[int]:
        """Task ids in labelling order."""
        return [pick["task"] for pick in self.backend.queue(self.number)]

    def label(self, tasks: list[int], annotator: Annotator | None = None) -> None:
        annotator = annotator or self.annotator()
        for task in tasks:
            annotator.submit(task, self.truth[task])

    def label_stream(self, count: int) -> list[int]:
        """Label what the stream serves, and return the tasks in the order served."""
        annotator = self.annotator()
        served = []
        for _ in range(count):
            task = annotator.next_task()
            assert task is not None
            annotator.submit(task, self.truth[task])
            served.append(task)
        return served

    def is_idle(self, status: dict[str, Any]) -> bool:
        return not any(job["state"] in ("pending", "running") for job in status["jobs"])

    def settle(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until nothing is left to do."""
        return self.wait("rest", self.is_idle, seconds)


class Projects:
    """Creates projects, and closes their connections."""

    def __init__(self, label_studio: LabelStudioServer) -> None:
        self._label_studio = label_studio
        self._made: list[Scenario] = []

    def make(
        self,
        images: ImageSet,
        examples: Sequence[Example],
        labeling_config: str,
        settings: Mapping[str, Any],
        server: BackendServer,
    ) -> Scenario:
        """Create a project of these images, without connecting it."""
        root = Path(self._label_studio.images)
        folder = root / secrets.token_hex(4)
        folder.mkdir()
        addresses = []
        for row, example in enumerate(examples):
            file = folder / f"{row:05}{PurePosixPath(example.name).suffix}"
            file.write_bytes(example.image())
            addresses.append(f"/data/local-files/?d={file.relative_to(root).as_posix()}")
        project = LabelStudioProject.create(
            self._label_studio.url, self._label_studio.token, "test project", labeling_config
        )
        project.allow_local_files(folder)
        tasks = project.import_images(addresses) if addresses else []
        said = (truth(images, example) for example in examples)
        if images.task == "classification":
            said = (regions[0]["value"]["choices"][0] for regions in said)
        known = dict(zip(tasks, said, strict=True))
        if images.task == "classification":
            settings = {"seed": mixed_seed(known), **settings}
        scenario = Scenario(
            label_studio=self._label_studio,
            backend=server,
            project=project,
            truth=known,
            examples=dict(zip(tasks, examples, strict=True)),
            classes=list(images.classes),
            settings=dict(settings),
        )
        self._made.append(scenario)
        return scenario

    def close(self) -> None:
        for scenario in self._made:
            scenario.project.close()
