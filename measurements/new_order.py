"""From a label to the new order of a large project, of which a head's features are kept.

    python measurements/new_order.py --tasks 100000

Tasks and features are made up: the features of two classes differ a little, and those of each image
are kept from the beginning, as they are once the backbone has seen the pool. Label Studio is a
server that answers as it does (`stand_in.py`), in a process of its own. After 100 labels and the
first model, ten labels at a time cause a training and a new order; the backend's jobs for it are
run one after another, as its worker would.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch
from large_projects import JOBS, Made, Worker, stand_in
from shared import report
from stand_in import class_of, image_of

from cdal.backend.images.store import address_key
from cdal.backend.loop import score, train
from cdal.backend.loop.context import Context
from cdal.backend.settings import HEAD_TRAINS_EVERY
from cdal.backend.store.tables import Job
from cdal.models.feature_store import SeenImage
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork

LABELS = 100
SIDE = 256


class OrderingWorker(Worker):
    """Notes what each kind of job takes."""

    def __init__(self, server: Made, folder: Path) -> None:
        super().__init__(server, folder)
        self.taken: dict[str, float] = defaultdict(float)
        """Seconds of processor by kind of job."""

    def step(self) -> str | None:
        used = time.process_time()
        kind = super().step()
        if kind is not None:
            self.taken[kind] += time.process_time() - used
        return kind

    def keep_features(self, tasks: int) -> None:
        """Make up what the backbone has seen."""
        with self.services.store.transaction() as session:
            job = Job(project_id=self.project, kind="train", state="running", asked_by="")
            session.add(job)
        work = Context.of(self.services, job, lambda: False)
        network = train.new_network(work, torch.device("cpu"))
        assert isinstance(network, HeadNetwork)
        source = self.services.image_source(work.project)
        draws = torch.Generator().manual_seed(0)
        assert network.manifest.backbone is not None
        length = network.manifest.backbone.features
        apart = torch.randn(length, generator=draws) / 12
        features = self.services.features
        for task_id in range(1, tasks + 1):
            vector = torch.randn(length, generator=draws)
            vector += apart if class_of(task_id) == "cat" else -apart
            content = sha256(task_id.to_bytes(8)).digest()[:16]
            seen = ImageFeatures((vector.half(),), (SIDE, SIDE))
            features.put(network.extraction, content, SeenImage(seen, (SIDE, SIDE)))
            features.note(address_key(source, task_id, image_of(task_id)), content)
        features.flush()
        self.services.jobs.finish(job.id, "done")


@contextmanager
def made(tasks: int) -> Iterator[Made]:
    """The stand-in in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=stand_in, args=(theirs, tasks), daemon=True
    )
    process.start()
    yield Made(ours)
    ours.send("end")
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    JOBS.update(train=train.run, score=score.run)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, made(arguments.tasks) as server:
        worker = OrderingWorker(server, Path(name) / "backend")
        worker.know(arguments.tasks)
        worker.keep_features(arguments.tasks)
        worker.timed("first order")
        for labels in [LABELS, *[HEAD_TRAINS_EVERY] * arguments.repeats]:
            for _ in range(labels):
                server.label()
            worker.taken.clear()
            worker.timed(f"{labels} labels to the new order")
            steps = ", ".join(f"{kind} {taken:.1f}" for kind, taken in worker.taken.items())
            report("seconds of processor", steps)


if __name__ == "__main__":
    main()
