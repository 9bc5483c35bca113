"""The backend without a real Label Studio, for tests that need none or need it to fail."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from cdal.backend.annotations.packing import pack
from cdal.backend.config import ServerConfig
from cdal.backend.errors import LabelStudioError
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.label_studio.client import ALL_IDS, LAST_ID, UNCERTAINTY_SAMPLING
from cdal.backend.label_studio.data import (
    MLBackendInfo,
    PredictionInfo,
    ProjectInfo,
    TaskInfo,
    WebhookInfo,
)
from cdal.backend.loop.context import Context
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.database import Store
from cdal.backend.store.tables import Job, ModelVersion, Pick, Prediction, Project, Round, Task, now
from cdal.backend.web import setup
from cdal.backend.web.app import create_app
from cdal.models import Classification, make_network
from support.patterned import as_address

URL = "http://label-studio.test:8080"

BACKEND = "http://backend.test:9090"

UID = "12.1700000000"

CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="label" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)


def make_config(folder: Path, **changes: Any) -> ServerConfig:
    """A configuration that ignores the tests' environment."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "LABEL_STUDIO_URL": URL,
        "LABEL_STUDIO_API_KEY": "the-servers-key",
        "downloads": False,
    }
    return ServerConfig(**{**values, "MODEL_DIR": folder, **changes})


# What a test has opened, for `close_services` at its end.
_opened: list[Services] = []


def make_services(folder: Path, **changes: Any) -> Services:
    _opened.append(Services.open(_with_tables(make_config(folder, **changes)), on_job_given_up))
    return _opened[-1]


def make_browser(folder: Path, **changes: Any) -> FlaskClient:
    """A client of a new web application; `services_of` returns its services."""
    browser = create_app(_with_tables(make_config(folder, **changes))).test_client()
    _opened.append(services_of(browser))
    return browser


def close_services() -> None:
    """Close the databases of the services made above; those still used open them again."""
    while _opened:
        _opened.pop().close()


def _with_tables(config: ServerConfig) -> ServerConfig:
    """Give a new data folder a database with all tables: its migrations take longer than a test."""
    database = config.data_folder / "cdal.sqlite"
    if config.database_url is None and not database.exists():
        database.write_bytes(_migrated_database())
    return config


@cache
def _migrated_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder))
        Store(config.store_url).close()
        return (config.data_folder / "cdal.sqlite").read_bytes()


def services_of(browser: FlaskClient) -> Services:
    services: Services = browser.application.extensions["cdal"]
    return services


def add_project(services: Services, **changes: Any) -> Project:
    """A connected project."""
    values = {
        "uid": UID,
        "label_studio_id": 12,
        "url": URL,
        "labeling_config": CONFIG,
        "extra_params": None,
        "connected_at": now(),
        "webhook_guarded_at": now(),
    }
    with services.store.transaction() as session:
        project = Project(**{**values, **changes})
        session.add(project)
    return project


def add_tasks(services: Services, project: Project, ids: Sequence[int], **changes: Any) -> None:
    with services.store.transaction() as session:
        for number in ids:
            row = Task(project_id=project.id, task_id=number, image=f"/data/upload/{number}.png")
            for name, value in changes.items():
                setattr(row, name, value)
            session.add(row)


def add_version(
    services: Services,
    project: Project,
    said: Mapping[int, str] | None = None,
    number: int = 1,
) -> ModelVersion:
    """A serving model version that predicted "cat" or "dog" for these tasks."""
    with services.store.transaction() as session:
        version = ModelVersion(
            project_id=project.id,
            number=number,
            architecture="resnet18",
            classes=["cat", "dog"],
            fingerprint="f",
            labels=4,
            metrics={"main_name": "accuracy", "values": {"accuracy": 0.75}},
            promoted=True,
            verdict="serves",
            seconds=1.5,
        )
        session.add(version)
        session.flush()
        serve(session, version.id, project.id)
        for task_id, label in (said or {}).items():
            finding = pack(Classification(version.classes.index(label), 0.75), (30, 40))
            session.add(Prediction(model_version_id=version.id, task_id=task_id, finding=finding))
    return version


def serve(session: Session, version_id: int | None, project_id: int = 1) -> None:
    """Let a version, or none, serve a project's only control."""
    of_project = ModelVersion.project_id == project_id
    is_it = ModelVersion.id == (version_id or 0)
    session.execute(update(ModelVersion).where(of_project).values(serves=is_it))


def serving_id(session: Session, project_id: int = 1) -> int | None:
    """The version that serves a project's only control."""
    return session.scalars(
        select(ModelVersion.id).filter_by(project_id=project_id, serves=True)
    ).one_or_none()


def write_network(
    services: Services, project: Project, number: int, task: str = "classification"
) -> None:
    """Untrained weights for a model version."""
    networks = {
        "classification": "mobilenet_v3_small",
        "segmentation": "lraspp_mobilenet_v3_large",
        "detection": "ssdlite320_mobilenet_v3_large",
    }
    network = make_network(
        task=task,
        architecture=networks[task],
        classes=("cat", "dog"),
        image_size=32,
        device=torch.device("cpu"),
        pretrained=False,
    )
    network.save(services.config.version_folder(project.id, number))


def choice(label: str) -> list[dict[str, Any]]:
    """The prediction that Label Studio gets for what `add_version` stored."""
    return [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [label]},
            "score": 0.75,
        }
    ]


def add_round(
    services: Services,
    project: Project,
    task_ids: Sequence[int],
    state: str = "open",
    queued: int = 0,
    **changes: Any,
) -> Round:
    """A round that ranked these tasks in this order and queued the first of them."""
    values = {"number": 1, "selector": "random", "budget": 2, "seed": 0, "editions": 0}
    with services.store.transaction() as session:
        last = session.scalar(select(func.max(Round.ranking)).filter_by(project_id=project.id)) or 0
        made = Round(project_id=project.id, state=state, ranking=last + 1, **{**values, **changes})
        session.add(made)
        session.flush()
        for rank, task_id in enumerate(task_ids):
            session.add(
                Pick(
                    round_id=made.id,
                    rank=rank,
                    task_id=task_id,
                    state="queued" if rank < queued else "ranked",
                    score=0.0,
                    reason={},
                )
            )
        if made.queue_version:
            session.get_one(Project, project.id).queue_version = made.queue_version
    return made


def add_failure(services: Services, job_id: int, error: str) -> None:
    """A job that failed and left its round unfinished, as older data folders may have it."""
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        job.state, job.error, job.finished_at = "failed", error, now()


def pick_states(services: Services, made: Round) -> dict[int, str]:
    """State by task id."""
    with services.store.reading() as session:
        return {p.task_id: p.state for p in session.query(Pick).filter_by(round_id=made.id)}


def picture() -> str:
    """An image that needs no server."""
    return as_address(Image.new("RGB", (8, 8), "red"))


def job_of(services: Services, job_id: int) -> Job:
    with services.store.reading() as session:
        return session.get_one(Job, job_id)


def jobs_of(services: Services) -> list[tuple[str, str]]:
    """Kind and state of every job, in the order requested."""
    with services.store.reading() as session:
        return [(job.kind, job.state) for job in session.query(Job).order_by(Job.id)]


@dataclass
class FakeLabelStudio:
    """A stand-in for `LabelStudioClient`: one project in memory.

    It is a fake: only it can fail at a chosen call, or leave out a chosen prediction. What the
    real one does is in test_loop.py and test_situations.py.
    """

    info: ProjectInfo = field(default_factory=lambda: ProjectInfo("Pets", CONFIG, "", ""))
    known: dict[int, TaskInfo] = field(default_factory=dict)
    given: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    predictions: dict[int, PredictionInfo] = field(default_factory=dict)
    refuses: Callable[[Mapping[str, Any]], bool] = lambda _: False
    failures: list[LabelStudioError | None] = field(default_factory=list)
    imports: list[list[dict[str, Any]]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    second_look: list[int] | None = None
    project: int = 12
    url: str = URL
    backends: list[MLBackendInfo] = field(default_factory=lambda: [MLBackendInfo(BACKEND, None)])
    hooks: list[WebhookInfo] = field(
        default_factory=lambda: [WebhookInfo(1, f"{BACKEND}/webhook", {})]
    )

    def close(self) -> None:
        pass

    def ml_backends(self) -> list[MLBackendInfo]:
        return self.backends

    def webhooks(self) -> list[WebhookInfo]:
        return self.hooks

    def change_webhook(self, webhook: WebhookInfo) -> None:
        self.calls.append("webhook")
        self.hooks = [
            webhook if hook.webhook_id == webhook.webhook_id else hook for hook in self.hooks
        ]

    def add_tasks(self, ids: Sequence[int]) -> None:
        for number in ids:
            self.known[number] = TaskInfo(
                number, {"image": f"/data/upload/{number}.png"}, 0, 0, "2026-01-01T00:00:00Z"
            )

    def label(self, task_id: int, annotations: int = 1, skips: int = 0, at: str = "") -> None:
        self.known[task_id] = replace(
            self.known[task_id],
            annotations=annotations,
            skips=skips,
            updated_at=at or "2026-01-02T00:00:00Z",
        )

    def authorization(self) -> dict[str, str]:
        return {"Authorization": "Token t"}

    def read_project(self) -> ProjectInfo:
        return self.info

    def tasks(
        self, changed_since: str | None = None, after: int = 0, until: int = LAST_ID
    ) -> Iterator[TaskInfo]:
        since = changed_since or ""
        for task_id in sorted(self.known):
            task = self.known.get(task_id)  # it may be deleted meanwhile
            if task is not None and task.updated_at >= since and after < task_id <= until:
                yield task

    def newest_change(self) -> str | None:
        return max((task.updated_at for task in self.known.values()), default=None)

    def count(self, labelled: bool = False, among: tuple[int, int] = ALL_IDS) -> int:
        return sum(
            among[0] <= task.task_id <= among[1] and (not labelled or task.annotations > 0)
            for task in self.known.values()
        )

    def annotations(
        self, changed_since: str | None = None, among: tuple[int, int] = ALL_IDS
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        since = changed_since or ""
        left_out = {
            task.task_id
            for task in self.known.values()
            if task.updated_at < since or not among[0] <= task.task_id <= among[1]
        }
        return iter([pair for pair in self.given.items() if pair[0] not in left_out])

    def people(self) -> dict[int, str]:
        return {1: "Ada Lovelace"}

    def prediction(self, number: int) -> PredictionInfo | None:
        self.calls.append(f"prediction {number}")
        return self.predictions.get(number)

    def task_ids(self, among: tuple[int, int] = ALL_IDS) -> set[int]:
        return {task_id for task_id in self.known if among[0] <= task_id <= among[1]}

    def import_predictions(
        self, predictions: Sequence[Mapping[str, Any]], one_by_one: bool = False
    ) -> int:
        self.calls.append("import one by one" if one_by_one else "import")
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if any(p["task"] not in self.known for p in predictions):
            raise LabelStudioError("Label Studio refused to import the predictions: 400", 400)
        taken = [dict(p) for p in predictions if one_by_one or not self.refuses(p)]
        self.imports.append(taken)
        return len(taken)

    def prediction_counts(self) -> dict[str, int]:
        found = [p["model_version"] for chunk in self.imports for p in chunk]
        return dict(Counter(found))

    def delete_predictions(self, version: str) -> None:
        self.calls.append(f"delete {version}")
        self.imports = [
            [p for p in chunk if p["model_version"] != version] for chunk in self.imports
        ]

    def tasks_with(self, version: str) -> set[int]:
        return {p["task"] for chunk in self.imports for p in chunk if p["model_version"] == version}

    def serve(self, queue_version: str) -> None:
        self.calls.append("serve")
        self.info = replace(self.info, model_version=queue_version, sampling=UNCERTAINTY_SAMPLING)

    def show_queue(self, queue_version: str, view_id: int | None) -> int:
        self.calls.append("show")
        return view_id or 7

    def show_second_look(self, tasks: Sequence[int], view_id: int | None) -> int:
        self.calls.append("show second look")
        self.second_look = list(tasks)
        return view_id or 8

    def stream(self) -> list[int]:
        """The task ids that the label stream serves, in order: Label Studio's own rule."""
        version = self.info.model_version
        found = [p for chunk in self.imports for p in chunk if p["model_version"] == version]
        return [p["task"] for p in sorted(found, key=lambda p: p["score"])]


def let_sign_in(
    monkeypatch: pytest.MonkeyPatch, good: set[str] | None = None, created: int | None = None
) -> list[str]:
    """Let `/setup` find a project, created then, that may be read with these tokens, or with any.

    Returns:
        The tokens that were tried.
    """
    tried: list[str] = []

    class OneProject(FakeLabelStudio):
        def __init__(self, _url: str, token: str, _number: int, **_: Any) -> None:
            super().__init__()
            self.token = token

        def read_project(self) -> ProjectInfo:
            tried.append(self.token)
            if good is not None and self.token not in good:
                raise LabelStudioError("Label Studio refused to read the project: 401", 401)
            age = None if created is None else datetime.fromtimestamp(created, UTC)
            return replace(self.info, created_at=age)

    monkeypatch.setattr(setup, "LabelStudioClient", OneProject)
    monkeypatch.setattr(setup, "_trusted", {})
    return tried


def make_work(
    services: Services,
    project: Project,
    client: FakeLabelStudio,
    kind: JobKind = "sync",
    asked_by: str = "test",
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Context:
    """What a running job of this kind has at hand; the project as it is in the store now.

    Settings that are given become the project's.
    """
    with services.store.transaction() as session:
        job = Job(project_id=project.id, kind=kind, state="running", asked_by=asked_by)
        session.add(job)
        current = session.get_one(Project, project.id)
        current.extra_params = settings or current.extra_params
    config = ProjectConfig.parse(current.labeling_config, current.extra_params)
    return Context(
        services=services,
        job=job,
        project=current,
        settings=config.settings,
        controls=config.controls,
        control=config.control,
        client=client,  # type: ignore[arg-type]
        stop=stop,
    )


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
