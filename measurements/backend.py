"""Speed of the backend beside a real Label Studio, each figure as a ratio within one run.

    python measurements/backend.py --images ../shared/data/cifar10.zip

Starts Label Studio and the backend in a temporary folder. First the worker trains while clients
call the web process; then, with the worker stopped, jobs run in this process, alternating with the
bare calls they are compared with.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from pydantic import SecretStr
from servers import both_started
from shared import report, say, timed
from sqlalchemy import delete, select, update

from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.config import ServerConfig
from cdal.backend.images.decode import decode
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.loop.predictions import result_of
from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import ModelVersion, Pick, Prediction, Project, Round
from cdal.datasets import ImageSet, open_images
from cdal.demo.annotator import truth
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.pictures import Picture, choose, copy_pictures, pictures_of
from cdal.demo.project import LabelStudioProject, choices_config
from cdal.models import load_network

CLIENTS = 8
SETTINGS = {"budget": 500, "reserve": 500, "training": "full"}
"""A head's training would be over before the clients have called."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder or zip of class folders")
    parser.add_argument("--pool", type=int, default=1500)
    parser.add_argument("--calls", type=int, default=1000, help="calls per endpoint")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = open_images(options.images, "classification")
        examples = choose(images, options.pool, seed=0)
        copy_pictures(examples, folder / "images")
        pictures = pictures_of(examples, folder / "images")
        with both_started(folder) as (label_studio, backend):
            project = connect(label_studio, backend, images, pictures)
            say("the first training")
            status = backend.wait_for(project.number, "round", round_is_open(1), 1200)
            latency(project, backend, options.calls)
            predict(project, backend, options.repeats)
            backend.stop()
            services = Services.open(configuration(backend, label_studio), on_job_given_up)
            scoring(services, pictures, options.repeats)
            queueing(services, status["id"], options.repeats)
            services.store.close()


def connect(
    label_studio: LabelStudioServer,
    backend: BackendServer,
    images: ImageSet,
    pictures: Sequence[Picture],
) -> LabelStudioProject:
    """A project whose first 100 images are labelled, so that a model is trained at once."""
    project = LabelStudioProject.create(
        label_studio.url, label_studio.token, "benchmark", choices_config(images.classes)
    )
    project.allow_local_files(pictures[0].file.parent)
    tasks = []
    for row, picture in enumerate(pictures):
        task: dict[str, Any] = {"data": {"image": picture.address}}
        if row < 100:
            task["annotations"] = [{"result": truth(images, picture.example)}]
        tasks.append(task)
    project.sdk.projects.import_tasks(id=project.number, request=tasks)
    project.connect(backend.url, {**SETTINGS, "epochs": 5})
    return project


def latency(project: LabelStudioProject, backend: BackendServer, calls: int) -> None:
    """Call each endpoint from 8 clients at once while a training runs."""
    sdk_project = project.sdk.projects.get(id=project.number)
    assert sdk_project.created_at is not None
    uid = f"{project.number}.{int(sdk_project.created_at.timestamp())}"
    setup = {
        "project": uid,
        "schema": sdk_project.label_config,
        "hostname": project.url,
        "access_token": "",
        "extra_params": {**SETTINGS, "epochs": 2000},
    }
    httpx.post(f"{backend.url}/setup", json=setup, timeout=60).raise_for_status()
    hint = {"action": "ANNOTATION_CREATED", "project": {"id": project.number}}
    httpx.post(f"{backend.url}/webhook", json={**hint, "action": "START_TRAINING"}, timeout=60)
    backend.wait_for(project.number, "training", is_training, 600)
    secret = project.sdk.webhooks.list(project=str(project.number))[0].headers
    endpoints: dict[str, Callable[[httpx.Client], httpx.Response]] = {
        "/health": lambda client: client.get("/health"),
        "/setup": lambda client: client.post("/setup", json=setup),
        "/webhook": lambda client: client.post("/webhook", json=hint, headers=secret),
    }
    for name, call in endpoints.items():
        seconds = timed_calls(backend.url, call, calls)
        trained = "while training" if is_training(status_of(project, backend)) else "NOT TRAINING"
        report(
            f"{name}, {calls} calls, {CLIENTS} clients, {trained}",
            f"p50 {percentile(seconds, 50) * 1000:.0f} ms, "
            f"p99 {percentile(seconds, 99) * 1000:.0f} ms, most {max(seconds) * 1000:.0f} ms",
        )


def predict(project: LabelStudioProject, backend: BackendServer, repeats: int) -> None:
    """Call /predict once for 1,000 tasks that are already scored."""
    tasks = [
        {"id": int(task.id), "data": dict(task.data)}
        for task in project.sdk.tasks.list(
            project=project.number, page_size=1000, include="id,data", resolve_uri=False
        )
    ][:1000]
    created = project.sdk.projects.get(id=project.number).created_at
    assert created is not None
    body = {"tasks": tasks, "project": f"{project.number}.{int(created.timestamp())}"}
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        answer = httpx.post(f"{backend.url}/predict", json=body, timeout=100)
        seconds.append(time.perf_counter() - began)
        results = answer.json()["results"]
        assert len(results) == len(tasks)
        assert all(result["result"] for result in results)
    report(f"/predict, {len(tasks)} scored tasks", f"median {statistics.median(seconds):.3f} s")


def scoring(services: Services, pictures: Sequence[Picture], repeats: int) -> None:
    """The job `score` against a bare loop of decode and forward over the same files."""
    with services.store.reading() as session:
        version = session.scalars(select(ModelVersion)).first()
        assert version is not None
    folder = services.config.version_folder(version.project_id, version.number)

    def job() -> None:
        with services.store.transaction() as session:
            session.execute(delete(Prediction))
            session.execute(update(Round).values(state="closed"))
            newest = session.scalars(select(Round).order_by(Round.number.desc())).first()
            assert newest is not None
            newest.state, newest.model_version_id = "scoring", version.id
        run(services, version.project_id, "score")

    def bare() -> None:
        network = load_network(folder, torch.device("cpu"))
        size = network.prediction_batch_size
        for start in range(0, len(pictures), size):
            images = [
                network.prepare(decode(p.file.read_bytes())) for p in pictures[start : start + size]
            ]
            network.predict(torch.stack(images))

    job()  # fills the image cache
    compare(f"scoring {len(pictures)} images", job, "a bare loop", bare, repeats)


def queueing(services: Services, project_id: int, repeats: int) -> None:
    """The job `queue` against the bare import call, 1,000 predictions each."""
    run(services, project_id, "select")
    with services.store.reading() as session:
        project = session.get_one(Project, project_id)
        newest = session.scalars(
            select(Round).filter_by(project_id=project_id).order_by(Round.number.desc())
        ).first()
        assert newest is not None
        picks = session.scalars(
            select(Pick).filter_by(round_id=newest.id).order_by(Pick.rank)
        ).all()
        said = session.execute(select(Prediction.task_id, Prediction.finding)).all()
        findings = {row.task_id: row.finding for row in said}
        classes = session.get_one(ModelVersion, newest.model_version_id).classes
    client = services.client(project)
    settings, control = ProjectSettings(), served_control(project.labeling_config)
    predictions = [
        {
            "task": p.task_id,
            "result": result_of(control, settings, classes, findings[p.task_id]),
            "score": 0.5,
            "model_version": "bare",
        }
        for p in picks[:1000]
    ]

    def job() -> None:
        with services.store.transaction() as session:
            session.get_one(Round, newest.id).state = "queueing"
        run(services, project_id, "queue")

    compare(
        f"queueing {len(predictions)} predictions",
        job,
        "the bare import call",
        lambda: client.import_predictions(predictions),
        repeats,
    )


def run(services: Services, project_id: int, kind: JobKind) -> None:
    """Run one job here, as the worker does."""
    with services.store.transaction() as session:
        job_id = services.jobs.request(session, project_id, kind, "benchmark")
    run_job(services, job_id, lambda: False)


def compare(
    what: str, ours: Callable[[], object], other: str, theirs: Callable[[], object], repeats: int
) -> None:
    ratios, mine, bare = [], [], []
    for _ in range(repeats):
        a, b = timed(ours), timed(theirs)
        mine.append(a)
        bare.append(b)
        ratios.append(a / b)
    report(
        what,
        f"{statistics.median(mine):.2f} s against {statistics.median(bare):.2f} s for {other}: "
        f"median ratio {statistics.median(ratios):.2f}",
    )


def timed_calls(
    url: str, call: Callable[[httpx.Client], httpx.Response], calls: int
) -> list[float]:
    """Seconds of each call, made by several clients at once."""
    local = threading.local()

    def one(_: int) -> float:
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=url, timeout=60)
        began = time.perf_counter()
        call(local.client).raise_for_status()
        return time.perf_counter() - began

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(one, range(calls)))


def status_of(project: LabelStudioProject, backend: BackendServer) -> dict[str, Any]:
    status = backend.status(project.number)
    assert status is not None
    return status


def is_training(status: dict[str, Any]) -> bool:
    return any(job["kind"] == "train" and job["state"] == "running" for job in status["jobs"])


def configuration(backend: BackendServer, label_studio: LabelStudioServer) -> ServerConfig:
    config = ServerConfig()
    config.data_folder = backend.data_folder
    config.label_studio_url = label_studio.url
    config.label_studio_api_key = SecretStr(label_studio.token)
    return config


def percentile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100)[share - 1]


if __name__ == "__main__":
    main()
