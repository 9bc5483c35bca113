"""What kept features are worth: rescoring, a first pass, and the way from labels to an order.

    python measurements/kept_features.py rescore
    python measurements/kept_features.py first-pass --images ../shared/data/camvid.zip --pool 300
    python measurements/kept_features.py backbone --images ../shared/data/camvid.zip --threads 1
    python measurements/kept_features.py waiting --images ../shared/data/bccd.zip
    python measurements/kept_features.py order --images ../shared/data/cifar10.zip --pool 10000

``rescore`` fills a feature store with vectors and scores all of them with a new head, class
mixtures included, as the job ``score`` does before it saves scores. ``first-pass`` alternates the
job ``score`` over images that the backbone has not seen with two loops that only read, decode,
prepare and show the same files to it: one in a process of its own, as a script would do it, and one
with the worker's allocator, see ``cdal/allocator.py``. The job's head has learnt from a few images
before, so that its predictions are realistic. ``backbone`` shows images to the backbone, so many at
once, first with the default allocator. ``waiting`` does so alone in its process, and beside
idle threads that have used torch, as in a worker: how often threads then go to sleep while they
wait for each other. ``order`` reads new labels as the job ``sync`` does and runs
the jobs ``train``, ``score`` and ``select`` over a pool whose features are kept; calls to Label
Studio are left out, and the images are served by a local web server. Every figure is given in
seconds, and in those of the processor.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any, cast

import torch
from scoring import configuration, copies, score, served, set_up
from shared import report, say
from sqlalchemy import select

from cdal.allocator import keep_freed_memory
from cdal.backend.addresses import AllowedHosts
from cdal.backend.images.decode import decode
from cdal.backend.images.inputs import WORKERS, InputReader
from cdal.backend.images.source import ImageSource
from cdal.backend.images.store import ImageStore, address_key
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.label_studio.client import ALL_IDS, LAST_ID, LabelStudioClient
from cdal.backend.label_studio.data import ProjectInfo, TaskInfo
from cdal.backend.loop import score as scoring_job
from cdal.backend.loop import select as selecting_job
from cdal.backend.loop import train as training_job
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.context import Context
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.loop.inference import score_images
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Project, Round
from cdal.datasets import ImageSet, LabelledImages, open_images
from cdal.demo.annotator import Region, choice, truth
from cdal.demo.project import LABELING_CONFIGS, project_settings
from cdal.mixture_kind import MixtureKind
from cdal.models import Recipe, choose_device, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.feature_store import FeatureStore, SeenImage
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork

MB = 2**20

of_script: HeadNetwork
"""The network of a process that ``init_script`` has prepared."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--images", type=Path, help="labelled images, any layout")
    parser.add_argument("--task", help="where the layout does not say it")
    parser.add_argument("--pool", type=int, default=100_000, help="images, repeated if necessary")
    parser.add_argument("--labels", type=int, default=200, help="labels before the new ones")
    parser.add_argument("--new", type=int, default=10, help="labels after which a new order is due")
    parser.add_argument("--classes", type=int, default=10, help="of the vectors to rescore")
    parser.add_argument("--selector", default="cdal-cs")
    parser.add_argument(
        "--drawn", action="store_true", help="keep drawn vectors instead of looking at the images"
    )
    parser.add_argument("--network", default=DEFAULT_BACKBONE)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        WHAT[options.what](options, Path(name))


def clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and those of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def medians(pairs: Sequence[tuple[float, float]]) -> str:
    wall, processor = (statistics.median(each) for each in zip(*pairs, strict=True))
    return f"{wall:.2f} s, {processor:.2f} s of the processor"


def head(options: argparse.Namespace, task: str, classes: Sequence[str]) -> HeadNetwork:
    """A head that knows nothing yet."""
    made = make_network(task, options.network, classes, device=choose_device(options.device))
    assert isinstance(made, HeadNetwork)
    return made


def rescore(options: argparse.Namespace, folder: Path) -> None:
    network = head(options, "classification", [str(number) for number in range(options.classes)])
    torch.nn.init.normal_(network.module.get_parameter("weight"), std=0.2)
    source = ImageSource("http://label-studio.test", dict)
    items: list[tuple[int, object]] = [(n, f"/data/upload/{n}.jpg") for n in range(options.pool)]
    say(f"keeping {options.pool} vectors")
    store = FeatureStore(folder, 100_000 * MB)
    for task_id, value in items:
        vector = torch.randn(network.backbone.record.features).clamp_(min=0).half()
        content = task_id.to_bytes(16)
        store.note(address_key(source, task_id, value), content)
        image = SeenImage(ImageFeatures((vector,), (160, 160)), (480, 640))
        store.put(network.extraction, content, image)
    store.flush()
    images = ImageStore(folder, 0, AllowedHosts())

    def scored(kept: FeatureStore) -> None:
        reader = InputReader(images, kept, source)
        batches = reader.batches(network, items, lambda *_: None)
        found = sum(len(part) for part, _ in score_images(network, batches, MixtureKind("image")))
        assert found > 0.99 * len(items)  # a few addresses expire meanwhile

    first = clocked(lambda: scored(FeatureStore(folder, 100_000 * MB)))
    report(f"scoring {options.pool} kept vectors in a new process", medians([first]))
    again = [clocked(lambda: scored(store)) for _ in range(options.repeats)]
    report(f"scoring {options.pool} kept vectors", medians(again))


def first_pass(options: argparse.Namespace, folder: Path) -> None:
    images = open_images(options.images, options.task)
    network = head(options, images.task, images.classes)
    taught(network, images)
    files = copies(images.examples[-options.pool :], folder / "images")
    files = [files[row % len(files)] for row in range(options.pool)]
    mine, script, same = [], [], []
    alone = ProcessPoolExecutor(1, get_context("spawn"), init_script, (options, images.task))
    with alone, served(folder / "images") as url:
        services = set_up(network, images, folder / "data", url, files, len(files))
        score(services)  # fills the image cache
        alone.submit(clocked_script, files[:8]).result()
        keep_freed_memory()
        services.store.close()
        for _ in range(options.repeats):
            shutil.rmtree(services.config.features_folder)
            # Other services: these know what lay there.
            services = Services.open(
                configuration(folder / "data", network.device.type), on_job_given_up
            )
            mine.append(clocked(partial(score, services)))
            services.store.close()
            script.append(alone.submit(clocked_script, files).result())
            same.append(clocked(partial(bare_loop, network, files)))
    report(f"the job score, {len(files)} new images", medians(mine))
    for name, theirs in (("a script", script), ("a loop with the worker's allocator", same)):
        report(f"decoding and forward alone, {name}", medians(theirs))
        ratios = [
            statistics.median(a[number] / b[number] for a, b in zip(mine, theirs, strict=True))
            for number in (0, 1)
        ]
        report("ratio", f"{ratios[0]:.2f}, {ratios[1]:.2f} of the processor")


def backbone(options: argparse.Namespace, folder: Path) -> None:  # noqa: ARG001
    images = open_images(options.images, options.task)
    network = head(options, images.task, images.classes)
    some = torch.stack([network.prepare(decode(e.image())) for e in images.examples[:8]])

    def seconds(size: int) -> tuple[float, float]:
        before = os.times()
        for batch in torch.split(some, size):
            network.extract(batch)
        after = os.times()
        system = after.system - before.system
        return after.user - before.user + system, system

    for name in ("default", "worker's"):
        if name != "default":
            keep_freed_memory()
        for size in (8, 4, 2):
            found = [min(each) for each in zip(*(seconds(size) for _ in range(4)), strict=True)]
            processor, system = (f"{1000 * value / len(some):.0f}" for value in found)
            report(
                f"{name} allocator, {size} images at once",
                f"{processor} ms of the processor per image, {system} of them in the system",
            )


def waiting(options: argparse.Namespace, folder: Path) -> None:  # noqa: ARG001
    images = open_images(options.images, options.task)
    network = head(options, images.task, images.classes)
    some = [network.prepare(decode(e.image())) for e in images.examples[:4]]
    batch = torch.stack(some)
    keep_freed_memory()

    def looks(beside: str) -> None:
        network.extract(batch)
        before = resource.getrusage(resource.RUSAGE_SELF)
        found = [clocked(partial(network.extract, batch)) for _ in range(options.repeats)]
        after = resource.getrusage(resource.RUSAGE_SELF)
        times = (1000 * statistics.median(each) / len(batch) for each in zip(*found, strict=True))
        wall, processor = (f"{value:.0f} ms" for value in times)
        sleeps = (after.ru_nvcsw - before.ru_nvcsw) / options.repeats
        report(
            f"{len(batch)} images, {beside}",
            f"{wall} per image, {processor} of the processor, sleeps {sleeps:.0f} times",
        )

    looks("alone")
    end, ready = Event(), Barrier(WORKERS + 1)

    def idle() -> None:
        network.prepare(decode(images.examples[0].image()))
        ready.wait()
        end.wait()

    threads = [Thread(target=idle) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    ready.wait()
    looks(f"beside {WORKERS} idle threads")
    end.set()
    for thread in threads:
        thread.join()
    looks("alone again")


def taught(network: HeadNetwork, images: ImageSet) -> None:
    """Train the head on a few images."""
    examples = random.Random(0).sample(list(images.train), min(20, len(images.train)))
    fit(network, LabelledImages(images, examples), None, Recipe(epochs=20))


def init_script(options: argparse.Namespace, task: str) -> None:
    """Prepare a process for ``clocked_script``."""
    global of_script  # noqa: PLW0603 — what a process pool's initialiser can leave behind
    torch.set_num_threads(options.threads)
    of_script = head(options, task, ["a", "b"])


def clocked_script(files: Sequence[Path]) -> tuple[float, float]:
    """Seconds of ``bare_loop`` in this process, and those of the processor."""
    return clocked(partial(bare_loop, of_script, files))


def bare_loop(network: HeadNetwork, files: Sequence[Path]) -> None:
    size = network.prediction_batch_size
    for start in range(0, len(files), size):
        batch = [network.prepare(decode(file.read_bytes())) for file in files[start : start + size]]
        network.extract(torch.stack(batch))


class StandIn:
    """What the jobs ask of Label Studio, from memory."""

    def __init__(self, info: ProjectInfo, addresses: Sequence[str]) -> None:
        self.info = info
        self.given: dict[int, list[dict[str, Any]]] = {}
        self._tasks = {
            task_id: TaskInfo(task_id, {"image": address}, 0, 0, "2026-01-01T00:00:00Z")
            for task_id, address in enumerate(addresses, start=1)
        }

    def label(self, row: int, regions: str | list[Region]) -> None:
        task_id = row + 1
        result = choice(regions) if isinstance(regions, str) else regions
        self.given[task_id] = [{"id": task_id, "result": result, "was_cancelled": False}]
        self._tasks[task_id] = replace(
            self._tasks[task_id], annotations=1, updated_at=f"2026-01-02T00:00:{len(self.given):06}"
        )

    def read_project(self) -> ProjectInfo:
        return self.info

    def tasks(
        self, changed_since: str | None = None, after: int = 0, until: int = LAST_ID
    ) -> Iterator[TaskInfo]:
        since = changed_since or ""
        return iter(
            [
                t
                for t in self._tasks.values()
                if t.updated_at >= since and after < t.task_id <= until
            ]
        )

    def newest_change(self) -> str | None:
        return max((task.updated_at for task in self._tasks.values()), default=None)

    def count(self, labelled: bool = False, among: tuple[int, int] = ALL_IDS) -> int:
        known = self.given if labelled else self._tasks
        return sum(among[0] <= task_id <= among[1] for task_id in known)

    def annotations(
        self, changed_since: str | None = None, among: tuple[int, int] = ALL_IDS
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        changed = {task.task_id for task in self.tasks(changed_since, among[0] - 1, among[1])}
        return iter([pair for pair in self.given.items() if pair[0] in changed])

    def people(self) -> dict[int, str]:
        return {}


def order(options: argparse.Namespace, folder: Path) -> None:
    images = open_images(options.images, options.task)
    examples = list(images.train)
    random.Random(0).shuffle(examples)
    files = copies(examples[: options.pool], folder / "images")
    with served(folder / "images") as url:
        addresses = [f"{url}/{files[row % len(files)].name}" for row in range(options.pool)]
        config = LABELING_CONFIGS[images.task](images.classes)
        client = StandIn(ProjectInfo("order", config, "", ""), addresses)
        (folder / "data").mkdir()
        services = Services.open(configuration(folder / "data", options.device), on_job_given_up)
        with services.store.transaction() as session:
            project = Project(uid="1.1", label_studio_id=1, url=url, labeling_config=config)
            chosen = {"network": options.network, "selector": options.selector}
            project.access_token = "unused"
            project.extra_params = {**project_settings(images, examples, None), **chosen}
            session.add(project)
        rows = list(range(min(len(files), options.labels + options.repeats * options.new)))
        for row in rows[: options.labels]:
            client.label(row, truth(images, examples[row]))
        if options.drawn:
            truths = [int(example.target()) for example in examples[: len(files)]]
            keep_drawn(services, project, options, addresses, truths)
        say(f"the first turn with {options.pool} images")
        first = a_turn(services, project, client)
        report("the first turn", shown(first))
        turns = []
        for row in range(options.repeats):
            start = options.labels + row * options.new
            for new in rows[start : start + options.new]:
                client.label(new, truth(images, examples[new]))
            turns.append(a_turn(services, project, client))
            say(shown(turns[-1]))
        middle = {kind: [turn[kind] for turn in turns] for kind in turns[0]}
        for kind, pairs in middle.items():
            report(f"{kind}, {options.pool} images with features kept", medians(pairs))
        totals = [tuple(map(sum, zip(*turn.values(), strict=True))) for turn in turns]
        report("from new labels to the new order", medians(cast(Any, totals)))
        services.store.close()


def keep_drawn(
    services: Services,
    project: Project,
    options: argparse.Namespace,
    addresses: Sequence[str],
    truths: Sequence[int],
) -> None:
    """Keep a vector near the centre of its class for each image, as if it had been looked at."""
    network = head(options, "classification", [str(number) for number in sorted(set(truths))])
    length = network.backbone.record.features
    centres = torch.randn(max(truths) + 1, length)
    source = services.image_source(project)
    for row, address in enumerate(addresses):
        content = sha256(row.to_bytes(16)).digest()[:16]  # it decides what is held out
        near = centres[truths[row % len(truths)]] + 3 * torch.randn(length)
        features = ImageFeatures((near.clamp(min=0).half(),), (network.image_size,) * 2)
        services.features.note(address_key(source, row + 1, address), content)
        services.features.put(network.extraction, content, SeenImage(features, (480, 640)))
    services.features.flush()


def a_turn(services: Services, project: Project, client: StandIn) -> dict[str, tuple[float, float]]:
    """Read what is new, train, score and select; returns the seconds of each."""
    handlers: dict[JobKind, Callable[[Context], str]] = {
        "sync": lambda work: f"{read_changes(work)} tasks read",
        "train": training_job.run,
        "score": scoring_job.run,
        "select": selecting_job.run,
    }
    return {
        kind: clocked(partial(do, services, project, client, kind, run))
        for kind, run in handlers.items()
    }


def do(
    services: Services,
    project: Project,
    client: StandIn,
    kind: JobKind,
    run: Callable[[Context], str],
) -> None:
    with services.store.transaction() as session:
        job = Job(project_id=project.id, kind=kind, state="running", asked_by="measurement")
        session.add(job)
        current = session.get_one(Project, project.id)
    config = ProjectConfig.parse(current.labeling_config, current.extra_params)
    outcome = run(
        Context(
            services, job, current, config.settings, config.controls,
            config.control,
            cast(LabelStudioClient, client), lambda: False,
        )
    )  # fmt: skip
    say(f"{kind}: {outcome}")
    with services.store.reading() as session:
        states = session.scalars(select(Round.state)).all()
    assert kind != "select" or states[-1] == "queueing", states


def shown(turn: dict[str, tuple[float, float]]) -> str:
    return ", ".join(f"{kind} {wall:.2f} s ({cpu:.2f})" for kind, (wall, cpu) in turn.items())


WHAT = {
    "rescore": rescore,
    "first-pass": first_pass,
    "backbone": backbone,
    "waiting": waiting,
    "order": order,
}

if __name__ == "__main__":
    main()
