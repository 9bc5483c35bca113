"""How long each page takes for a project of 100,000 tasks.

    python measurements/pages.py
    python measurements/pages.py --classes 500 --versions 50 --labels 95000

Fills a store and score files as many rounds would, without Label Studio, and requests each page and
what the API says of the project: the server's time, without the browser's drawing. It fails if one
of them takes more processor time than its budget.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from flask.testing import FlaskClient
from pydantic import SecretStr
from sqlalchemy import insert

from cdal.backend.annotations.packing import pack
from cdal.backend.config import ServerConfig
from cdal.backend.loop.pool_map import PoolMap, map_file
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.services import Services
from cdal.backend.store.tables import (
    ClassMetrics,
    Comparison,
    Event,
    ModelVersion,
    Pick,
    Prediction,
    Project,
    Round,
    Submission,
    Task,
    now,
)
from cdal.backend.web.app import create_app
from cdal.models import Classification
from cdal.selectors import mixtures_of_vectors
from cdal.selectors.uncertainty import uncertainties_of

FEATURES = 512
RANKED = 1000
CHUNK = 1024
POINTS = 2000
PATHS = ("", "/queue", "/pool-map", "/comparison", "/settings")
API = ("", "/throughput")

BUDGET_S = 1.0
"""Processor time of a request, whatever the project."""


@dataclass(frozen=True)
class Size:
    """How large the project is."""

    tasks: int
    labels: int
    classes: int
    versions: int

    @property
    def names(self) -> list[str]:
        return [f"class {number}" for number in range(self.classes)]

    @property
    def config(self) -> str:
        choices = "".join(f'<Choice value="{name}"/>' for name in self.names)
        return (
            '<View><Image name="image" value="$image"/><Choices name="label" toName="image">'
            f"{choices}</Choices></View>"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if options.tasks <= RANKED:
        parser.error(f"--tasks must be more than the {RANKED:,} that are in the queue")
    size = Size(options.tasks, options.labels, options.classes, options.versions)
    slow = []
    with tempfile.TemporaryDirectory() as name:
        config = ServerConfig(
            MODEL_DIR=Path(name),
            LABEL_STUDIO_URL="http://localhost:1",
            LABEL_STUDIO_API_KEY=SecretStr("none"),
            LOG_LEVEL="ERROR",
        )
        app = create_app(config)
        services: Services = app.extensions["cdal"]
        sys.stderr.write(f"Filling the store with {options.tasks:,} tasks …\n")
        _fill(services, size)
        browser = app.test_client()
        print(f"| page of a project of {options.tasks:,} tasks | median | most | processor |")
        print("|---|---|---|---|")
        pages = [f"/projects/1{page}" for page in PATHS]
        for path in ("/projects", *pages, *(f"/api/v1/projects/1{path}" for path in API)):
            times = [_seconds(browser, path) for _ in range(options.repeats)]
            began = time.process_time()
            _seconds(browser, path)
            worked = time.process_time() - began
            print(
                f"| `{path}` | {statistics.median(times):.2f} s | {max(times):.2f} s "
                f"| {worked:.2f} s |"
            )
            if worked > BUDGET_S:
                slow.append(path)
    if slow:
        raise SystemExit(f"More than {BUDGET_S} s of processor time: {', '.join(slow)}")


def _seconds(browser: FlaskClient, path: str) -> float:
    started = time.perf_counter()
    answer = browser.get(path)
    answer.get_data()
    if answer.status_code != 200:
        raise SystemExit(f"{path} answers {answer.status}")
    return time.perf_counter() - started


def _fill(services: Services, size: Size) -> None:
    tasks, labelled = size.tasks, min(size.labels, size.tasks - RANKED)
    with services.store.transaction() as session:
        session.add(
            Project(
                uid="1.1",
                label_studio_id=1,
                url="http://localhost:1",
                title="Many images",
                labeling_config=size.config,
                extra_params=None,
            )
        )
        session.flush()
        session.execute(
            insert(Task),
            [
                {
                    "project_id": 1,
                    "task_id": n,
                    "image": f"/data/upload/1/{n}.jpg",
                    "annotations": int(n <= labelled),
                    "skips": 0,
                }
                for n in range(1, tasks + 1)
            ],
        )
        session.execute(
            insert(Submission),
            [
                {
                    "project_id": 1,
                    "task_id": n,
                    "labelled_at": now() - timedelta(minutes=labelled - n),
                    "annotators": [n % 4],
                    "seconds": 4.0,
                }
                for n in range(1, labelled + 1)
            ],
        )
        session.add_all(Event(project_id=1, level="info", text=f"Event {n}") for n in range(500))
        for number in range(1, size.versions + 1):
            session.add(_version(number, size))
            session.add(_round(number, size))
            session.flush()
            session.add(_class_metrics(number, size))
        session.flush()
        session.get_one(ModelVersion, size.versions).serves = True
    _fill_scores(services, size, labelled)


def _class_metrics(number: int, size: Size) -> ClassMetrics:
    """Every class is taken for ten others."""
    reach = min(10, size.classes)
    return ClassMetrics(
        model_version_id=number,
        per_class={name: {"count": 18, "score": 0.5} for name in size.names},
        columns=size.classes,
        cells=[
            [i, (i + j) % size.classes, 9 if not j else 1]
            for i in range(size.classes)
            for j in range(reach)
        ],
    )


def _version(number: int, size: Size) -> ModelVersion:
    return ModelVersion(
        project_id=1,
        number=number,
        architecture="resnet18",
        classes=size.names,
        fingerprint=str(number),
        labels=250 * number,
        metrics={
            "main_name": "accuracy",
            "values": {"accuracy": 0.4 + number / 200},
            "images": 180,
        },
        promoted=True,
        verdict="serves; accuracy on held-out images",
        seconds=60.0,
    )


def _round(number: int, size: Size) -> Round:
    return Round(
        project_id=1,
        ranking=number,
        number=number,
        model_version_id=number,
        state="open" if number == size.versions else "closed",
        selector="cdal-cs",
        budget=250,
        seed=0,
        labels=250 * number,
        seconds={"train": 60.0, "score": 90.0, "select": 2.0, "queue": 1.0},
    )


def _fill_scores(services: Services, size: Size, labelled: int) -> None:
    """Write the last version's scores and predictions, and what rounds make of them."""
    torch.manual_seed(0)
    tasks, newest = size.tasks, size.versions
    folder = services.config.scores_folder(1, newest)
    for start in range(1, tasks + 1, CHUNK):
        ids = torch.arange(start, min(start + CHUNK, tasks + 1))
        probabilities = torch.rand(len(ids), size.classes).pow(6)
        probabilities /= probabilities.sum(1, keepdim=True)
        mixtures = mixtures_of_vectors(probabilities, region="image")
        Scores(
            task_ids=ids,
            probabilities=probabilities,
            uncertainties=uncertainties_of(probabilities).float(),
            features=torch.rand(len(ids), FEATURES),
            mixtures=mixtures.mixtures,
            present=mixtures.present,
            region_counts=mixtures.region_counts,
        ).save(folder)
        with services.store.transaction() as session:
            session.execute(
                insert(Prediction),
                [
                    {
                        "model_version_id": newest,
                        "task_id": task,
                        "finding": pack(Classification(index, 0.6), (480, 640)),
                    }
                    for task, index in zip(
                        ids.tolist(), probabilities.argmax(1).tolist(), strict=True
                    )
                ],
            )
    ranked = list(range(labelled + 1, labelled + RANKED + 1))
    with services.store.transaction() as session:
        for number in range(1, newest + 1):
            session.execute(
                insert(Pick),
                [
                    {
                        "round_id": number,
                        "rank": rank,
                        "task_id": task,
                        "state": "queued" if rank < 500 else "ranked",
                        "score": 1.0,
                        "reason": {"nearest": rank + 1, "classes": {"1": 0.7, "2": 0.3}},
                    }
                    for rank, task in enumerate(ranked)
                ],
            )
        for name in ("cdal-cs", "cd-greedy", "core-set", "entropy", "margin", "least-confidence"):
            session.add(Comparison(round_id=newest, selector=name, task_ids=ranked))
    points = list(range(1, tasks + 1, max(1, tasks // POINTS)))[:POINTS]
    PoolMap(
        version=newest,
        images=tasks,
        task_ids=points,
        x=torch.rand(len(points)).tolist(),
        y=torch.rand(len(points)).tolist(),
        classes=[n % size.classes for n in points],
        entropies=torch.rand(len(points)).tolist(),
    ).save(map_file(services.config.project_folder(1), newest))


if __name__ == "__main__":
    main()
