"""How long a large project takes from connecting to its first queue, and from a label to an order.

    python measurements/large_projects.py --tasks 100000
    python measurements/large_projects.py --tasks 1000000 --stand-in
    python measurements/large_projects.py --tasks 1000000 --stand-in --known

Starts Label Studio, with its default SQLite, and imports tasks without images; with --stand-in, a
server that answers as it does (`stand_in.py`), in a process of its own. The backend's jobs are run
here one after another, as its worker would, so that their processor time can be told from that of
the server: the sync that reads the tasks with the first random queue in between, then the sync
after a label and after a deletion. With --known, the tasks are in the store from the beginning, so
that only the latter is measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from servers import label_studio_started
from shared import report, say
from sqlalchemy import insert, select
from stand_in import CHANGED, StandIn, created, image_of, served

from cdal.backend.config import ServerConfig
from cdal.backend.loop import queue, sync
from cdal.backend.loop import select as selecting
from cdal.backend.loop.context import Context
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Project, Task, now
from cdal.demo.annotator import Annotator
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.project import LabelStudioProject, choices_config

IMPORT = 5000
CONFIG = choices_config(("cat", "dog"))
JOBS = {"sync": sync.run, "select": selecting.run, "queue": queue.run}


class Server:
    """The project's server, with what people do there."""

    url: str
    token: str
    number: int

    def label(self) -> None:
        raise NotImplementedError

    def delete(self) -> None:
        raise NotImplementedError


class LabelStudio(Server):
    def __init__(self, server: LabelStudioServer, tasks: int) -> None:
        self.url, self.token = server.url, server.token
        project = LabelStudioProject.create(server.url, server.token, "Large", CONFIG)
        self.number = project.number
        started = time.monotonic()
        self._ids: list[int] = []
        for first in range(0, tasks, IMPORT):
            some = range(first, min(tasks, first + IMPORT))
            self._ids += project.import_images([f"/data/large/{number:08}.jpg" for number in some])
        say(f"{tasks:,} tasks imported in {time.monotonic() - started:.0f} s")
        self._annotator = Annotator(server.url, server.token, self.number)

    def label(self) -> None:
        self._annotator.submit(self._ids.pop(), "cat")

    def delete(self) -> None:
        task_id = self._ids.pop(len(self._ids) // 2)
        headers = {"Authorization": f"Token {self.token}"}
        httpx.delete(f"{self.url}/api/tasks/{task_id}/", headers=headers, timeout=300)


class Made(Server):
    """The stand-in, reached through a pipe."""

    number, token = 1, "t" * 40

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url = pipe.recv()

    def label(self) -> None:
        self._pipe.send("label")
        self._pipe.recv()

    def delete(self) -> None:
        self._pipe.send("delete")
        self._pipe.recv()


def stand_in(pipe: Connection, tasks: int) -> None:
    """The process of the stand-in."""
    project = StandIn(tasks, CONFIG)
    with served(project) as url:
        pipe.send(url)
        while (order := pipe.recv()) != "end":
            if order == "label":
                project.labelled[tasks // 3 + len(project.labelled)] = CHANGED
            else:
                project.deleted.add(tasks // 2)
            pipe.send("done")


@contextmanager
def server_of(arguments: argparse.Namespace, folder: Path) -> Iterator[Server]:
    if arguments.stand_in:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=stand_in, args=(theirs, arguments.tasks), daemon=True
        )
        process.start()
        yield Made(ours)
        ours.send("end")
        process.join()
        return
    with label_studio_started(folder) as server:
        yield LabelStudio(server, arguments.tasks)


class Worker:
    """Runs the project's jobs, one after another."""

    def __init__(self, server: Server, folder: Path) -> None:
        config = ServerConfig(
            LABEL_STUDIO_URL=server.url,
            LABEL_STUDIO_API_KEY=server.token,
            MODEL_DIR=folder,
            downloads=False,
        )
        folder.mkdir()
        self.services = Services.open(config, on_job_given_up)
        with self.services.store.transaction() as session:
            project = Project(
                uid="1.1",
                label_studio_id=server.number,
                url=server.url,
                labeling_config=CONFIG,
                extra_params={"first_round": "random"},
                connected_at=now(),
                webhook_guarded_at=now(),
            )
            session.add(project)
        self.project = project.id

    def know(self, tasks: int) -> None:
        """Write the stand-in's tasks to the store, as if they had been read."""
        with self.services.store.transaction() as session:
            for first in range(1, tasks + 1, IMPORT):
                some = range(first, min(tasks + 1, first + IMPORT))
                rows = [
                    {"project_id": self.project, "task_id": task_id, "image": image_of(task_id)}
                    for task_id in some
                ]
                session.execute(insert(Task), rows)
            session.get_one(Project, self.project).changes_seen = created(tasks)

    def ask(self, asked_by: str = "somebody") -> None:
        self.services.jobs.ask(self.project, "sync", asked_by)

    def step(self) -> str | None:
        """Run the next job; returns its kind, or None if none waits."""
        with self.services.store.reading() as session:
            waiting = session.scalars(select(Job.id).filter_by(state="pending").order_by(Job.id))
            job_id = waiting.first()
        job = None if job_id is None else self.services.jobs.claim(job_id)
        if job is None:
            return None
        outcome = JOBS[job.kind](Context.of(self.services, job, lambda: False))
        self.services.jobs.finish(job.id, "done", outcome=outcome)
        say(f"{job.kind}: {outcome}")
        return job.kind

    def timed(self, what: str, asked_by: str = "somebody") -> None:
        """Report what the jobs take that are due when somebody asks for a look."""
        wall, processor = time.monotonic(), time.process_time()
        self.ask(asked_by)
        while self.step() is not None:
            pass
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        report(what, f"{1000 * processor:.0f} ms of processor, {wall:.1f} s in all")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--known", action="store_true", help="with --stand-in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server_of(arguments, Path(name)) as server:
        worker = Worker(server, Path(name) / "backend")
        if arguments.known:
            worker.know(arguments.tasks)
        before = _peak()
        wall, processor = time.monotonic(), time.process_time()
        worker.ask()
        queued = None
        while (kind := worker.step()) is not None:
            if kind == "queue" and queued is None:
                queued = time.monotonic() - wall
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        report("first queue", f"{queued:.0f} s")
        report("all tasks read", f"{wall:.0f} s, {processor:.0f} s of processor")
        report("peak memory", f"{_peak():.2f} GB, {_peak() - before:.2f} GB of it since the start")
        worker.timed("nothing new")
        for _ in range(3):
            server.label()
            worker.timed("a label", "ANNOTATION_CREATED")
        server.delete()
        worker.timed("a deletion", "TASKS_DELETED")
        size = sum(file.stat().st_size for file in (Path(name) / "backend").glob("cdal.sqlite*"))
        report("database", f"{size / 1e6:.0f} MB")


def _peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
