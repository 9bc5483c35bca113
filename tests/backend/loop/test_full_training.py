"""Full training after a head: when it is due, and what becomes of it."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_version,
    make_services,
    make_work,
    serve,
    serving_id,
)

from cdal.backend.jobs.kinds import JobKind
from cdal.backend.label_studio.data import TaskInfo
from cdal.backend.loop import full_training, train, versions
from cdal.backend.loop.context import Context
from cdal.backend.loop.due_in_full import FULL_TRAINING_LABELS, full_training_is_due
from cdal.backend.loop.full_training import GiveWay
from cdal.backend.loop.gate import Serving, Verdict
from cdal.backend.loop.train import Trained
from cdal.backend.loop.versions import OVERTAKEN
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import Job, ModelVersion, Project, Round, Task, now

HEAD = "timm:tf_efficientnet_lite0"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def served_by(services: Services, architecture: str, labels: int, learnt: int) -> Project:
    """A project with this many labels, which this network serves that learnt from others."""
    project = add_project(services)
    version = add_version(services, project)
    with services.store.transaction() as session:
        found = session.get_one(ModelVersion, version.id)
        found.architecture, found.labels = architecture, learnt
        session.add_all(
            Task(project_id=project.id, task_id=number, image="", annotations=1)
            for number in range(labels)
        )
    return project


def is_due(services: Services, project: Project, device: str, **settings: Any) -> bool:
    with services.store.reading() as session:
        return full_training_is_due(session, project.id, ProjectSettings.parse(settings), device)


@pytest.mark.parametrize(
    ("labels", "device", "due"),
    [
        (FULL_TRAINING_LABELS, "cuda", True),
        (FULL_TRAINING_LABELS - 1, "cuda", False),
        (FULL_TRAINING_LABELS, "cpu", False),
    ],
)
def test_it_takes_a_gpu_and_enough_labels(
    services: Services, labels: int, device: str, due: bool
) -> None:
    project = served_by(services, HEAD, labels, labels)
    assert is_due(services, project, device) is due


def test_a_network_that_sees_whole_images_does_not_follow_one_that_sees_tiles(
    services: Services,
) -> None:
    project = served_by(services, HEAD, FULL_TRAINING_LABELS, FULL_TRAINING_LABELS)
    assert not is_due(services, project, "cuda", tile=480)


@pytest.mark.parametrize(("labels", "due"), [(109, False), (110, False), (111, True)])
def test_a_fully_trained_model_that_serves_goes_on_learning(
    services: Services, labels: int, due: bool
) -> None:
    project = served_by(services, "mobilenet_v3_small", labels, 100)
    assert is_due(services, project, "cpu") is due


@pytest.mark.parametrize(("known", "due"), [(100, False), (111, True)])
def test_labels_of_another_control_alone_are_none_to_go_on_learning_from(
    services: Services, known: int, due: bool
) -> None:
    project = served_by(services, "mobilenet_v3_small", 300, 100)
    for number in (2, 3):
        add_version(services, project, number=number)
    rows = [
        ("pet", "mobilenet_v3_small", 100, True), ("boxes", HEAD, 300, True),
        ("pet", HEAD, known, False),
    ]  # fmt: skip
    with services.store.transaction() as session:
        for number, row in enumerate(rows, start=1):
            found = session.get_one(ModelVersion, number)
            found.control, found.architecture, found.labels, found.serves = row
    assert is_due(services, project, "cpu") is due


@pytest.mark.parametrize(
    "settings",
    [{"training": "head"}, {"training": "full"}, {"network": HEAD}, {"pretrained": False}],
)
def test_settings_that_choose_the_training_are_followed(
    services: Services, settings: dict[str, Any]
) -> None:
    project = served_by(services, "mobilenet_v3_small", 200, 100)
    assert is_due(services, project, "cuda")
    assert not is_due(services, project, "cuda", **settings)


def test_a_paused_project_waits(services: Services) -> None:
    project = served_by(services, "mobilenet_v3_small", 200, 100)
    with services.store.transaction() as session:
        session.get_one(Project, project.id).paused_at = now()
    assert not is_due(services, project, "cuda")


def coloured(red: int) -> str:
    file = BytesIO()
    Image.new("RGB", (40, 30), (red, 0, 0)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


SHORT = {"image_size": 32, "epochs": 1, "min_labels": 2}


def run(services: Services, project: Project, kind: JobKind, **settings: Any) -> str:
    client = FakeLabelStudio()
    for task_id in range(1, 9):
        data = {"image": coloured(20 if task_id % 2 else 230)}
        client.known[task_id] = TaskInfo(task_id, data, 1, 0, "2026-01-01T00:00:00Z")
        value = {"choices": ["cat" if task_id % 2 else "dog"]}
        given = {"from_name": "label", "to_name": "image", "type": "choices", "value": value}
        client.given[task_id] = [{"result": [given], "was_cancelled": False}]
    work = make_work(services, project, client, kind, **SHORT, **settings)
    said = {"train": train.run, "full_training": full_training.run}[kind](work)
    services.jobs.finish(work.job.id, "done")
    return said


def state(services: Services) -> tuple[list[ModelVersion], int | None, int]:
    """Versions, the number of the serving one, and how many rounds have begun."""
    with services.store.reading() as session:
        versions = list(session.scalars(select(ModelVersion).order_by(ModelVersion.number)))
        serving = serving_id(session)
        rounds = len(session.scalars(select(Round)).all())
    return versions, next((v.number for v in versions if v.id == serving), None), rounds


@pytest.mark.parametrize(("promoted", "serves"), [(True, 2), (False, 1)])
def test_the_same_gate_decides_whether_it_serves(
    services: Services, monkeypatch: pytest.MonkeyPatch, promoted: bool, serves: int
) -> None:
    project = add_project(services)
    run(services, project, "train")
    monkeypatch.setattr(train, "judge", lambda *_, **__: Verdict(promoted, "as it is judged"))
    run(services, project, "full_training")
    (head, full), serving, rounds = state(services)
    assert (head.architecture, full.architecture) == (HEAD, "resnet18")
    assert (full.promoted, full.verdict, serving) == (promoted, "as it is judged", serves)
    assert full.started_from is None
    assert full.origin is not None
    assert full.origin["name"] == "random weights"
    assert "ResNet18_Weights" in full.origin["shortfall"]
    # A round is made again only for another model.
    assert rounds == serves


def test_what_served_when_it_began_need_not_serve_when_it_ends(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = add_project(services)
    run(services, project, "train")
    learn = full_training.learn

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        trained = learn(*arguments, **named)
        run(services, project, "train", seed=5)
        return trained

    compared: list[int] = []
    compare = full_training.compare

    def watched(work: Context, trained: Trained, serving: Serving | None) -> Any:
        assert serving is not None
        compared.append(serving.network.manifest.seed)
        return compare(work, trained, serving)

    monkeypatch.setattr(full_training, "learn", meanwhile)
    monkeypatch.setattr(full_training, "compare", watched)
    run(services, project, "full_training", tolerance=1.0)
    versions, serving, _ = state(services)
    assert [version.architecture for version in versions] == [HEAD, HEAD, "resnet18"]
    assert (compared, serving) == ([5], 3)


def test_a_rollback_meanwhile_keeps_it_from_serving(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = add_project(services)
    for seed in (1, 2):
        run(services, project, "train", seed=seed, tolerance=1.0)
    learn = full_training.learn

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        trained = learn(*arguments, **named)
        with services.store.transaction() as session:
            first = session.scalars(select(ModelVersion).filter_by(number=1)).one()
            serve(session, first.id)
        return trained

    monkeypatch.setattr(full_training, "learn", meanwhile)
    run(services, project, "full_training", tolerance=1.0)
    versions, serving, _ = state(services)
    assert (versions[2].promoted, versions[2].verdict) == (False, OVERTAKEN)
    assert serving == 1


@pytest.mark.slow
def test_it_goes_on_from_the_fully_trained_model_that_serves(services: Services) -> None:
    project = add_project(services)
    run(services, project, "train", training="full")
    run(services, project, "full_training", seed=5, tolerance=1.0)
    versions, serving, _ = state(services)
    assert versions[1].started_from == versions[0].id
    assert serving == 2


def test_it_waits_while_other_jobs_compute(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = add_project(services)
    with services.store.transaction() as session:
        job = Job(project_id=project.id, kind="score", state="running", asked_by="test")
        session.add(job)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            services.jobs.finish(job.id, "done")

    monkeypatch.setattr("cdal.backend.loop.full_training.time.sleep", nap)
    assert not GiveWay(services, lambda: False)()
    assert len(naps) == 3


def test_it_can_be_stopped_while_it_waits(services: Services) -> None:
    project = add_project(services)
    with services.store.transaction() as session:
        session.add(Job(project_id=project.id, kind="train", state="running", asked_by="test"))
    answers = iter([False, True])
    assert GiveWay(services, lambda: next(answers))()


@pytest.mark.parametrize(
    ("state", "due"), [("cancelled", False), ("failed", False), ("done", True)]
)
def test_one_that_came_to_nothing_is_requested_again_only_with_more_labels(
    services: Services, state: str, due: bool
) -> None:
    project = served_by(services, HEAD, FULL_TRAINING_LABELS, FULL_TRAINING_LABELS)
    with services.store.transaction() as session:
        session.add(
            Job(project_id=project.id, kind="full_training", state=state, asked_by="a test")
        )
    assert is_due(services, project, "cuda") is due
    more = FULL_TRAINING_LABELS + FULL_TRAINING_LABELS // 10 + 1
    with services.store.transaction() as session:
        session.add_all(
            Task(project_id=project.id, task_id=number, image="", annotations=1)
            for number in range(FULL_TRAINING_LABELS, more)
        )
    assert is_due(services, project, "cuda")


def test_old_weights_go_as_soon_as_a_new_version_is_there(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(versions, "forget_old_weights", lambda work: left.append(work.project.id))
    project = add_project(services)
    run(services, project, "train")
    assert left == [project.id]
