"""A real Label Studio, a real backend, and projects of real images between them."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pytest
from label_studio_page import LabelStudioPage
from playwright.sync_api import Browser, sync_playwright
from servers import DatabaseServer, PostgreSQL, RedisServer, find_program

from cdal.datasets import Example, ImageSet, open_images
from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.drawn import write_scenes
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.process import free_port
from cdal.demo.project import LABELING_CONFIGS, Annotator, LabelStudioProject, choices_config
from cdal.demo.regions import truth

CHROMIUM = Path("/usr/bin/chromium")

Server = TypeVar("Server", bound=DatabaseServer)

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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a screen."""
    if not CHROMIUM.exists():
        missing = f"{CHROMIUM} is missing: install Debian's package chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        # In a container it may run as root, which Chromium's own sandbox does not allow.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def label_studio_page(chromium: Browser, label_studio: LabelStudioServer) -> LabelStudioPage:
    """The page of the admin, who is signed in."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    return LabelStudioPage(page, label_studio)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server."""
    yield from _started(PostgreSQL, "postgres", "postgresql")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server."""
    yield from _started(RedisServer, "redis-server", "redis-server")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


def _started(kind: type[Server], program: str, package: str) -> Iterator[Server]:
    if find_program(program) is None:
        missing = f"{program} is missing: install Debian's package {package}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    server = kind()
    server.start()
    yield server
    server.close()


@dataclass
class Scenario:
    """A connected project with real images of which the truth is known.

    Attributes:
        truth: what a person who makes no mistakes submits, by task: a class, or regions.
        examples: the image that each task is of.
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
        self.connection = self.project.connect(
            self.backend.url, self.settings, self.backend.password
        )

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


class Projects:
    """Makes projects, and closes what they have open."""

    def __init__(self, label_studio: LabelStudioServer, backend: BackendServer) -> None:
        self._label_studio = label_studio
        self._backend = backend
        self._made: list[Scenario] = []

    def make(
        self,
        images: ImageSet,
        examples: Sequence[Example],
        labeling_config: str,
        settings: Mapping[str, Any],
        server: BackendServer | None = None,
    ) -> Scenario:
        """A project of these images; it is not connected."""
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
        scenario = Scenario(
            label_studio=self._label_studio,
            backend=server or self._backend,
            project=project,
            truth=dict(zip(tasks, said, strict=True)),
            examples=dict(zip(tasks, examples, strict=True)),
            classes=list(images.classes),
            settings=dict(settings),
        )
        self._made.append(scenario)
        return scenario

    def close(self) -> None:
        for scenario in self._made:
            scenario.project.close()


@pytest.fixture(scope="session")
def projects(label_studio: LabelStudioServer, backend: BackendServer) -> Iterator[Projects]:
    made = Projects(label_studio, backend)
    yield made
    made.close()


@pytest.fixture(scope="session")
def make_scenario(projects: Projects, cifar10: Path) -> Callable[..., Scenario]:
    """Makes projects of CIFAR-10 images, connected unless asked otherwise."""
    every = open_images(cifar10)

    def make(
        images: int,
        classes: int = 3,
        server: BackendServer | None = None,
        extra_class: str | None = None,
        connect: bool = True,
        **settings: Any,
    ) -> Scenario:
        wanted = every.classes[:classes]
        drawn = [e for e in every.train if PurePosixPath(e.name).parts[1] in wanted]
        random.Random(images).shuffle(drawn)
        some = ImageSet(every.task, every.classes, tuple(drawn[:images]))
        names = [*wanted, extra_class] if extra_class else wanted
        scenario = projects.make(
            some, some.examples, choices_config(names), {**QUICK, **settings}, server
        )
        scenario.classes = list(wanted)
        if connect:
            scenario.connect()
        return scenario

    return make


@pytest.fixture(scope="session")
def make_drawn_scenario(
    projects: Projects, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Scenario, ImageSet]]:
    """Makes connected projects of drawn scenes, for any task."""

    def make(
        task: str,
        images: int,
        labeling_config: Callable[[Sequence[str]], str] | None = None,
        **settings: Any,
    ) -> tuple[Scenario, ImageSet]:
        folder = tmp_path_factory.mktemp("scenes")
        write_scenes(folder, task, images, seed=0, test_share=0.4)
        drawn = open_images(folder)
        scenario = projects.make(
            drawn,
            drawn.train,
            (labeling_config or LABELING_CONFIGS[task])(drawn.classes),
            settings,
        )
        scenario.connect()
        return scenario, drawn

    return make
