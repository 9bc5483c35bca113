"""A real Label Studio, a real backend, and projects of real images between them."""

from __future__ import annotations

import random
import secrets
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.process import free_port
from cdal.demo.project import Annotator, LabelStudioProject, choices_config

# Small enough for seconds, and still a real training.
QUICK = {"budget": 8, "reserve": 6, "epochs": 2, "network": "mobilenet_v3_small"}


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    folder = tmp_path_factory.mktemp("label-studio")
    (folder / "images").mkdir()
    server = LabelStudioServer(folder, free_port(), secrets.token_hex(20), folder / "images")
    server.start()
    try:
        server.wait_until_up(f"{server.url}/health", START_SECONDS)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def start_backend(
    label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., BackendServer]]:
    """Starts backends on data folders of their own; all are stopped in the end."""
    started: list[BackendServer] = []

    def start(**environment: str) -> BackendServer:
        server = BackendServer(
            tmp_path_factory.mktemp("backend"),
            free_port(),
            label_studio.url,
            label_studio.token,
            environment,
        )
        started.append(server)
        server.start()
        server.wait_until_up(f"{server.url}/health", BACKEND_SECONDS)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def backend(start_backend: Callable[..., BackendServer]) -> BackendServer:
    return start_backend()


@pytest.fixture(scope="session")
def annotators(label_studio: LabelStudioServer) -> list[str]:
    """The tokens of two people."""
    return [
        label_studio.sign_up(f"{name}@example.com", "a-long-password") for name in ("ann", "bob")
    ]


@dataclass
class Scenario:
    """A connected project with real images whose true classes are known."""

    label_studio: LabelStudioServer
    backend: BackendServer
    project: LabelStudioProject
    truth: dict[int, str]
    classes: list[str]
    settings: dict[str, Any]
    connection: int = 0

    @property
    def number(self) -> int:
        return self.project.number

    def connect(self) -> None:
        self.connection = self.project.connect(self.backend.url, self.settings)

    def annotator(self, token: str | None = None) -> Annotator:
        return Annotator(self.label_studio.url, token or self.label_studio.token, self.number)

    def status(self) -> dict[str, Any]:
        status = self.backend.status(self.number)
        assert status is not None
        return status

    def wait(
        self, what: str, reached: Callable[[dict[str, Any]], bool], seconds: float = 180
    ) -> dict[str, Any]:
        return self.backend.wait_for(self.number, what, reached, seconds)

    def wait_for_round(self, number: int, seconds: float = 180) -> dict[str, Any]:
        return self.wait(f"round {number}", round_is_open(number), seconds)

    def queue(self) -> list[int]:
        """Task ids in the order in which they are to be labelled."""
        return [pick["task"] for pick in self.backend.queue(self.number)]

    def label(self, tasks: list[int], annotator: Annotator | None = None) -> None:
        annotator = annotator or self.annotator()
        for task in tasks:
            annotator.submit(task, self.truth[task])

    def label_stream(self, count: int) -> list[int]:
        """Label what the stream serves; returns the tasks in the order served."""
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

    def settle(self, seconds: float = 180) -> dict[str, Any]:
        """Wait until nothing is left to do."""
        return self.wait("rest", self.is_idle, seconds)


@pytest.fixture(scope="session")
def make_scenario(
    label_studio: LabelStudioServer, backend: BackendServer, cifar10: Path
) -> Iterator[Callable[..., Scenario]]:
    """Makes projects of CIFAR-10 images, connected unless asked otherwise."""
    made: list[Scenario] = []

    def make(
        images: int,
        classes: int = 3,
        server: BackendServer | None = None,
        extra_class: str | None = None,
        connect: bool = True,
        **settings: Any,
    ) -> Scenario:
        addresses, labels = _copy_images(cifar10, Path(label_studio.images), images, classes)
        names = sorted(set(labels)) or ["airplane", "automobile"]
        config = choices_config([*names, extra_class] if extra_class else names)
        project = LabelStudioProject.create(
            label_studio.url, label_studio.token, "test project", config
        )
        project.allow_local_files(label_studio.images / "cifar")
        tasks = project.import_images(addresses) if addresses else []
        scenario = Scenario(
            label_studio=label_studio,
            backend=server or backend,
            project=project,
            truth=dict(zip(tasks, labels, strict=True)),
            classes=names,
            settings={**QUICK, **settings},
        )
        made.append(scenario)
        if connect:
            scenario.connect()
        return scenario

    yield make
    for scenario in made:
        scenario.project.close()


def _copy_images(
    archive: Path, root: Path, count: int, classes: int
) -> tuple[list[str], list[str]]:
    """Extract images of a few classes; their task addresses and labels, shuffled."""
    with zipfile.ZipFile(archive) as members:
        names = [name for name in members.namelist() if name.startswith("train/")]
        wanted = sorted({PurePosixPath(name).parts[1] for name in names})[:classes]
        names = sorted(name for name in names if PurePosixPath(name).parts[1] in wanted)
        random.Random(count).shuffle(names)
        for name in names[:count]:
            members.extract(name, root / "cifar")
    chosen = names[:count]
    return (
        [f"/data/local-files/?d=cifar/{name}" for name in chosen],
        [PurePosixPath(name).parts[1] for name in chosen],
    )
