"""A real Label Studio, a real backend, and projects of real images that connect them."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.forked import ForkedBackend
from support.held import HeldBackend
from support.label_studio_page import LabelStudioPage
from support.offline import close_services, make_services
from support.processes import PATIENCE
from support.scenario import Projects, Scenario
from support.servers import DatabaseServer, PostgreSQL, RedisServer, find_program

from cdal.datasets import ImageSet, open_images
from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.process import free_port
from cdal.demo.project import LABELING_CONFIGS, choices_config
from cdal.demo.scenes.files import write_scenes

LIMITS = ("ML_CONNECTION_TIMEOUT", "ML_TIMEOUT_HEALTH", "ML_TIMEOUT_SETUP", "WEBHOOK_TIMEOUT")

CHROMIUM = Path("/usr/bin/chromium")

Server = TypeVar("Server", bound=DatabaseServer)

# Real trainings, but of seconds.
QUICK = {"budget": 8, "reserve": 6, "epochs": 2, "network": "mobilenet_v3_small"}


@pytest.fixture(autouse=True)
def databases_are_closed() -> Iterator[None]:
    """From Python 3.13 on, a database that is left open is a warning, and so an error."""
    yield
    close_services()


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    folder = tmp_path_factory.mktemp("label-studio")
    (folder / "images").mkdir()
    server = LabelStudioServer(folder, free_port(), secrets.token_hex(20), folder / "images")
    # A busy machine may take longer than Label Studio's own limits of one to three seconds.
    server.environment |= dict.fromkeys(LIMITS, "120")
    server.start()
    try:
        server.wait_until_up(f"{server.url}/health", START_SECONDS)
        yield server
    finally:
        server.stop()


# A backend ends with its module: it would go on asking Label Studio about each of its projects once
# per minute. To start another by forking costs a second of processor time.


@pytest.fixture(scope="module")
def start_backend(
    label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., BackendServer]]:
    """Starts backends on their own data folders; all are stopped at the end."""
    started: list[BackendServer] = []

    def start(**environment: str) -> BackendServer:
        folder = tmp_path_factory.mktemp("backend")
        server = ForkedBackend(folder, label_studio.url, label_studio.token, environment)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def backend(start_backend: Callable[..., BackendServer]) -> BackendServer:
    """A backend of default settings."""
    return start_backend()


@pytest.fixture
def new_backend(label_studio: LabelStudioServer, tmp_path: Path) -> Iterator[BackendServer]:
    """One that nothing else uses, as `cdal serve` starts it."""
    server = BackendServer(tmp_path, free_port(), label_studio.url, label_studio.token)
    server.start()
    try:
        server.wait_until_up(f"{server.url}/health", BACKEND_SECONDS)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def held_backend(
    label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HeldBackend]:
    """A backend whose trainings the test can hold."""
    server = HeldBackend(
        tmp_path_factory.mktemp("held-backend"), label_studio.url, label_studio.token
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


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
def signed_in(chromium: Browser, label_studio: LabelStudioServer) -> LabelStudioPage:
    """Label Studio's page, with its admin signed in."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(1000 * PATIENCE)
    return LabelStudioPage(page, label_studio)


@pytest.fixture
def label_studio_page(signed_in: LabelStudioPage) -> Iterator[LabelStudioPage]:
    """The same, which is left after the test."""
    yield signed_in
    signed_in.leave()


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
    """The address of a new database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same, with all tables."""
    if request.param == "sqlite":
        return make_services(tmp_path).config.store_url
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_store()


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


@pytest.fixture(scope="module")
def projects(label_studio: LabelStudioServer) -> Iterator[Projects]:
    made = Projects(label_studio)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cifar10_images(cifar10: Path) -> ImageSet:
    return open_images(cifar10)


@pytest.fixture(scope="module")
def make_scenario(
    request: pytest.FixtureRequest, projects: Projects, cifar10_images: ImageSet
) -> Callable[..., Scenario]:
    """Makes projects of CIFAR-10 images, connected unless asked otherwise.

    Where no backend is given, the shared one is started.
    """
    every = cifar10_images

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
            some,
            some.examples,
            choices_config(names),
            {**QUICK, **settings},
            server or request.getfixturevalue("backend"),
        )
        scenario.classes = list(wanted)
        if connect:
            scenario.connect()
        return scenario

    return make


@pytest.fixture(scope="module")
def make_drawn_scenario(
    projects: Projects, backend: BackendServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Scenario, ImageSet]]:
    """Makes connected projects of drawn scenes, for any task."""

    @cache
    def draw(task: str, images: int) -> ImageSet:
        folder = tmp_path_factory.mktemp("scenes")
        write_scenes(folder, task, images, seed=0, test_share=0.4)
        return open_images(folder)

    def make(
        task: str,
        images: int,
        labeling_config: Callable[[Sequence[str]], str] | None = None,
        **settings: Any,
    ) -> tuple[Scenario, ImageSet]:
        drawn = draw(task, images)
        scenario = projects.make(
            drawn,
            drawn.train,
            (labeling_config or LABELING_CONFIGS[task])(drawn.classes),
            settings,
            backend,
        )
        scenario.connect()
        return scenario, drawn

    return make
