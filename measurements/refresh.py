"""From the last label that was due to the new order in Label Studio, by step.

    python measurements/refresh.py --images ../shared/data/cifar10.zip

Starts Label Studio and the backend in a temporary folder, with a pool of which some images are
labelled. Then, time and again, an annotator labels as many images as cause a training, and waits
for everything else to end before the last of them. The time is from that label, once Label Studio
has taken it, until the job that switches the label stream to a new order has ended, as the backend
records it: nobody asks Label Studio meanwhile, which would hold it up. Processor time is that of
all processes of the servers, whatever else runs on the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servers import both_started
from shared import report, say

from cdal.backend.settings import HEAD_TRAINS_EVERY
from cdal.datasets import ImageSet, open_images
from cdal.demo.annotator import Annotator, truth
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.pictures import choose, copy_pictures, pictures_of
from cdal.demo.process import ServerProcess
from cdal.demo.project import LABELING_CONFIGS, LabelStudioProject

STEPS = ("sync", "train", "score", "select", "queue")
PATIENCE = 1800.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="folder or zip of labelled images"
    )
    parser.add_argument("--pool", type=int, default=1500)
    parser.add_argument(
        "--labelled", type=int, default=100, help="images labelled at the beginning"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = open_images(options.images)
        with both_started(folder) as (label_studio, backend):
            project, labels = connect(label_studio, images, folder, options.pool, options.labelled)
            project.connect(backend.url, {"budget": 10_000, "reserve": 50})
            say("the first training")
            backend.wait_for(project.number, "round", round_is_open(1), PATIENCE)
            annotator = Annotator(label_studio.url, label_studio.token, project.number)
            runs = [
                refresh(project, backend, annotator, labels, (label_studio, backend))
                for _ in range(options.repeats)
            ]
            tell(runs, options.pool)


def connect(
    label_studio: LabelStudioServer, images: ImageSet, folder: Path, pool: int, labelled: int
) -> tuple[LabelStudioProject, dict[int, Any]]:
    """A project of these images, some of them labelled, and what the others show, by task."""
    examples = choose(images, pool, seed=0)
    copy_pictures(examples, folder / "images")
    pictures = pictures_of(examples, folder / "images")
    project = LabelStudioProject.create(
        label_studio.url,
        label_studio.token,
        "refresh",
        LABELING_CONFIGS[images.task](images.classes),
    )
    project.allow_local_files(pictures[0].file.parent)
    said = [truth(images, picture.example) for picture in pictures]
    tasks: list[dict[str, Any]] = [{"data": {"image": p.address}} for p in pictures]
    for task, regions in zip(tasks[:labelled], said, strict=False):
        task["annotations"] = [{"result": regions}]
    made = project.sdk.projects.import_tasks(id=project.number, request=tasks, return_task_ids=True)
    return project, dict(zip(map(int, made.task_ids), said, strict=True))


def refresh(
    project: LabelStudioProject,
    backend: BackendServer,
    annotator: Annotator,
    labels: dict[int, Any],
    servers: tuple[ServerProcess, ...],
) -> dict[str, float]:
    """Seconds from the last label to the new order: in all, by step, and processor time."""
    for _ in range(HEAD_TRAINS_EVERY - 1):
        label_next(annotator, labels)
    before = backend.wait_for(project.number, "rest", is_idle, PATIENCE)
    last = before["jobs"][0]["id"]
    task = annotator.next_task()
    assert task is not None
    used = {server.name: processor_seconds(server) for server in servers}
    annotator.submit(task, labels[task])
    began = datetime.now(UTC)

    def is_new(status: dict[str, Any]) -> bool:
        return is_idle(status) and bool(status["queue_version"] != before["queue_version"])

    after = backend.wait_for(project.number, "a new order", is_new, PATIENCE)
    found = {
        f"processor, {server.name}": processor_seconds(server) - used[server.name]
        for server in servers
    }
    assert after["versions"][-1]["number"] == before["versions"][-1]["number"] + 1
    jobs = [job for job in after["jobs"] if job["id"] > last]
    switched = max(moment(job["finished_at"]) for job in jobs if job["kind"] == "queue")
    return {"in all": (switched - began).total_seconds(), **found, **by_step(jobs)}


def label_next(annotator: Annotator, labels: dict[int, Any]) -> None:
    task = annotator.next_task()
    assert task is not None
    annotator.submit(task, labels[task])


def is_idle(status: dict[str, Any]) -> bool:
    return not any(job["state"] in ("pending", "running") for job in status["jobs"])


def by_step(jobs: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that the newest job of each step ran, and waited for its turn."""
    found: dict[str, float] = defaultdict(float)
    for job in jobs:
        moments = [moment(job[name]) for name in ("created_at", "started_at", "finished_at")]
        if job["kind"] in STEPS[1:]:
            found[job["kind"]] = (moments[2] - moments[1]).total_seconds()
            found["waiting"] += (moments[1] - moments[0]).total_seconds()
    return found


def moment(text: str) -> datetime:
    """A time that the backend gave, which is in UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def processor_seconds(server: ServerProcess) -> float:
    """Processor time of a server and all processes that it started and are still there."""
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children[int(fields[1])].append(int(entry.name))
        used[int(entry.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total, todo = 0.0, [server.pid]
    while todo:
        pid = todo.pop()
        if pid is not None:
            total += used.get(pid, 0.0)
            todo += children[pid]
    return total


def tell(runs: list[dict[str, float]], pool: int) -> None:
    """Print the median and the longest of all runs."""
    for what in dict.fromkeys(name for run in runs for name in run):
        seconds = [run.get(what, 0.0) for run in runs]
        report(
            f"{what}, {pool} images, {len(runs)} times",
            f"median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s",
        )


if __name__ == "__main__":
    main()
