"""How long Label Studio takes to serve the next task, with the backend connected and without.

    python measurements/next_task.py --images ../shared/data/cifar10.zip --tasks 100000

Starts Label Studio, with its default SQLite, and imports tasks whose images lie on another server
of this machine: a few hundred files, each task with an address of its own. Eight people request the
next task, think for a few seconds and submit a label. First the backend reads all tasks; then
periods without it and with it alternate. Without it, it is disconnected and stopped, and Label
Studio serves tasks in their order, as it does by default; with it, it trains, scores, selects and
queues. Where other programs run, Label Studio's processor time per task says more than seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import numpy as np
from engines import served
from scoring import copies
from servers import label_studio_started
from shared import print_header, print_row, processor_of, say

from cdal.backend.label_studio.client import UNCERTAINTY_SAMPLING
from cdal.datasets import ImageSet, open_images
from cdal.demo.annotator import Annotator
from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.process import DemoError, free_port
from cdal.demo.project import LabelStudioProject, choices_config

IMPORT = 5000
FILES = 500
SETTLE = 10.0
SEQUENTIAL = "Sequential sampling"
COLUMNS = (
    *("", "seconds", "next tasks", "p50", "p99", "maximum", "submits", "p50", "p99", "errors"),
    "Label Studio's processor per task",
)


@dataclass
class Seen:
    """What people saw of a period, in seconds per request."""

    next: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    errors: int = 0
    processor: float = 0.0
    """Seconds of Label Studio's processor."""

    def add(self, other: Seen) -> None:
        self.next += other.next
        self.submit += other.submit
        self.errors += other.errors
        self.processor += other.processor


class Person(threading.Thread):
    """Labels what is served until the end."""

    def __init__(self, people: People, annotator: Annotator, seed: int) -> None:
        super().__init__(daemon=True)
        self._people = people
        self._annotator = annotator
        self._draws = Random(seed)

    def run(self) -> None:
        while not self._people.ended:
            try:
                self._label()
            except httpx.HTTPError:  # Label Studio's SQLite is locked: a person would try again
                self._people.seen.errors += 1
                time.sleep(1)

    def _label(self) -> None:
        seen = self._people.seen
        began = time.monotonic()
        task = self._annotator.next_task()
        seen.next.append(time.monotonic() - began)
        time.sleep(self._draws.uniform(1, 2 * self._people.think - 1))
        if task is None:
            return
        began = time.monotonic()
        self._annotator.submit(task, self._people.classes[task])
        self._people.seen.submit.append(time.monotonic() - began)


class People:
    """Those who label, and what they have seen since `begin`."""

    def __init__(
        self,
        annotators: Sequence[Annotator],
        classes: dict[int, str],
        think: float,
        label_studio: int,
    ) -> None:
        self.classes = classes
        self.think = think
        self.seen = Seen()
        self.ended = False
        self._label_studio = label_studio
        self.begin()
        self._threads = [Person(self, annotator, n) for n, annotator in enumerate(annotators)]
        for thread in self._threads:
            thread.start()

    def begin(self) -> None:
        """Begin a period; what belongs to none is not reported."""
        self.seen, self._since = Seen(), time.monotonic()
        self._used = processor_of(self._label_studio)

    def report(self, name: str) -> Seen:
        """Print what was seen since the period's beginning."""
        seen = self.seen
        seen.processor = processor_of(self._label_studio) - self._used
        print_row([name, f"{time.monotonic() - self._since:.0f}", *figures(seen)])
        return seen

    def end(self) -> None:
        self.ended = True
        for thread in self._threads:
            thread.join()


def figures(seen: Seen) -> list[str]:
    next_p50, next_p99, next_most = quantiles(seen.next)
    p50, p99, _ = quantiles(seen.submit)
    per_task = f"{1000 * seen.processor / max(1, len(seen.next)):.0f} ms"
    counts = str(len(seen.next)), str(len(seen.submit))
    return [
        *(counts[0], next_p50, next_p99, next_most),
        *(counts[1], p50, p99, str(seen.errors), per_task),
    ]


def quantiles(seconds: Sequence[float]) -> list[str]:
    """The median, the 99th percentile and the maximum; dashes if nobody requested anything."""
    if not seconds:
        return ["–"] * 3
    return [f"{1000 * each:.0f} ms" for each in np.quantile(seconds, (0.5, 0.99, 1))]


class Soak:
    """The project, and whether the backend is connected."""

    def __init__(self, project: LabelStudioProject, backend: BackendServer, sample: int) -> None:
        self._project = project
        self._backend = backend
        self._settings = {"first_round": "random", "pool_sample": sample}
        self._connection = 0

    def connect(self) -> None:
        """Connect the backend, and wait until the label stream follows its queue."""
        self._backend.start()
        self._backend.wait_until_up(f"{self._backend.url}/health", BACKEND_SECONDS)
        while not self._connection:
            try:
                self._connection = self._project.connect(self._backend.url, self._settings)
            except DemoError as error:  # Label Studio, which waits for the answer, was too busy
                if "did not answer in time" not in str(error):
                    raise
        while not self._is_followed():
            time.sleep(1)

    def _is_followed(self) -> bool:
        status = self._backend.status(self._project.number)
        found = self._project.sdk.projects.get(id=self._project.number)
        wanted = status and status["queue_version"]
        return bool(wanted) and (found.sampling, found.model_version) == (
            UNCERTAINTY_SAMPLING,
            wanted,
        )

    def wait_until_read(self, tasks: int) -> None:
        def all_known() -> bool:
            status = self._backend.status(self._project.number)
            return status is not None and status["tasks"] >= tasks

        while not all_known():
            time.sleep(2)

    def done(self) -> str:
        """What the backend has done so far."""
        status = self._backend.status(self._project.number)
        assert status is not None
        rounds, versions = len(status["rounds"]), len(status["versions"])
        found = self._project.sdk.projects.get(id=self._project.number)
        return (
            f"{versions} model versions, {rounds} rounds, queue {status['queue_version']!r}, "
            f"{found.total_predictions_number} predictions"
        )

    def disconnect(self) -> None:
        """Remove the backend, and let Label Studio serve tasks as if there had never been one."""
        self._project.sdk.ml.delete(id=self._connection)
        for webhook in self._project.sdk.webhooks.list(project=str(self._project.number)):
            self._project.sdk.webhooks.delete(id=webhook.id or 0)  # it would outlive the backend
        self._connection = 0
        self._backend.stop()
        self._project.sdk.projects.update(id=self._project.number, sampling=SEQUENTIAL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="labelled, of one class each")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--think", type=float, default=3, help="mean seconds from task to label")
    parser.add_argument("--seconds", type=float, default=150, help="of each period")
    parser.add_argument("--periods", type=int, default=4, help="half of them with the backend")
    parser.add_argument("--pool-sample", type=int, default=2000)
    options = parser.parse_args()
    if options.periods < 2 or options.periods % 2:
        parser.error("--periods must be 2, 4, …: half of them are with the backend")
    images = open_images(options.images)
    with tempfile.TemporaryDirectory() as name, served(Path(name) / "web") as url:
        folder = Path(name)
        with label_studio_started(folder) as server:
            project = LabelStudioProject.create(
                server.url, server.token, "Large", choices_config(images.classes)
            )
            classes = imported(project, images, folder / "web", url, options.tasks)
            hosts = {"CDAL_IMAGE_HOSTS": url.removeprefix("http://")}
            backend = BackendServer(
                folder / "backend", free_port(), server.url, server.token, hosts
            )
            soak = Soak(project, backend, options.pool_sample)
            try:
                measure(options, server, soak, project, classes)
            finally:
                backend.stop()


def imported(
    project: LabelStudioProject, images: ImageSet, web: Path, url: str, tasks: int
) -> dict[int, str]:
    """Import the tasks; returns the class of each."""
    examples = images.examples[:: max(1, len(images.examples) // FILES)]
    files = copies(examples, web / "images")
    classes = [images.classes[int(example.target())] for example in examples]
    found: dict[int, str] = {}
    order = Random(0).choices(range(len(files)), k=tasks)
    for first in range(0, tasks, IMPORT):
        rows = range(first, min(tasks, first + IMPORT))
        addresses = [f"{url}/images/{files[order[n]].name}?{n}" for n in rows]
        made = project.import_images(addresses)
        found |= {task: classes[order[n]] for task, n in zip(made, rows, strict=True)}
        say(f"{len(found):,} tasks imported")
    return found


def measure(
    options: argparse.Namespace,
    server: LabelStudioServer,
    soak: Soak,
    project: LabelStudioProject,
    classes: dict[int, str],
) -> None:
    tokens = [
        server.sign_up(f"person-{number}@example.com", "a-long-password")
        for number in range(options.people)
    ]
    annotators = [Annotator(server.url, token, project.number) for token in tokens]
    assert server.pid is not None
    people = People(annotators, classes, options.think, server.pid)
    totals = {"without": Seen(), "with": Seen()}
    print_header(COLUMNS)
    soak.connect()
    people.begin()
    soak.wait_until_read(options.tasks)
    people.report("while all tasks are read")
    for period in range(options.periods):
        if period % 2 == 0:
            soak.disconnect()
        else:
            soak.connect()
            say(soak.done())
        name = "with" if period % 2 else "without"
        time.sleep(SETTLE)  # what the change itself costs belongs to no period
        people.begin()
        time.sleep(options.seconds)
        seen = people.report(name)
        if period % 2:
            say(soak.done())
        totals[name].add(seen)
    people.end()
    for name, seen in totals.items():
        print_row([f"{name}, all periods", "", *figures(seen)])


if __name__ == "__main__":
    main()
