"""Full training: after a head, train all weights of a network in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import select

from cdal.backend.jobs.kinds import KINDS
from cdal.backend.label_studio.remembered import Submitted
from cdal.backend.loop.context import Context
from cdal.backend.loop.labelled_set import read_labels, read_submitted
from cdal.backend.loop.serving import serving_of
from cdal.backend.loop.train import compare, learn, serving_model
from cdal.backend.loop.versions import save
from cdal.backend.services import Services
from cdal.backend.store.failures import STORAGE
from cdal.backend.store.tables import Job

LOOK_SECONDS = 0.5

BEFORE_IT = tuple(kind for kind, known in KINDS.items() if known.lane in ("train", "score", "look"))
"""The kinds of job that compute, to which it gives way."""


def run(work: Context) -> str:
    """Train all weights on all labels; if the result is no worse than what serves, it serves."""
    submitted = read_submitted(work)
    said = [_train(part, submitted) for part in work.parts(work.controls)]
    return "; ".join(said)


def _train(work: Context, submitted: Mapping[int, Submitted]) -> str:
    """Train a network for the work's control, and save it."""
    started = time.monotonic()
    give_way = GiveWay(work.services, work.stop)
    labels = read_labels(work, submitted)
    trained = learn(work, labels, full=True, stop=give_way, started=started)
    if isinstance(trained, str):
        return f"not trained: {work.about(trained)}"
    while True:
        # Heads may have been trained meanwhile, and one of them may serve.
        serving_id, serving = serving_model(work, trained.network.device)
        version, images = compare(work, trained, serving)
        if (serving_id or 0) < (trained.serving_id or 0):  # somebody rolled back
            serving_id = trained.serving_id
        elif serving_id != _serving_id(work):
            continue
        made = trained.saved_as(work, version, images, serving_id)
        return save(work, [made], background=True)


def _serving_id(work: Context) -> int | None:
    with work.services.store.reading() as session:
        serving = serving_of(session, work.project.id, work.controls)
    version = serving.get(work.control.from_name)
    return None if version is None else version.id


@dataclass(slots=True)
class GiveWay:
    """Asked between the steps of a training: waits while other jobs compute.

    Attributes:
        services: of the worker.
        stop: whether the training is to end.
    """

    services: Services
    stop: Callable[[], bool]
    _looked: float = field(default=0.0)

    def __call__(self) -> bool:
        while not self.stop():
            if time.monotonic() - self._looked < LOOK_SECONDS or not self._others_compute():
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def _others_compute(self) -> bool:
        running = select(Job.id).where(Job.state == "running", Job.kind.in_(BEFORE_IT)).limit(1)
        try:
            with self.services.store.reading() as session:
                busy = session.scalar(running) is not None
        except STORAGE:  # a training goes on without a database for a while
            busy = False
        if not busy:
            self._looked = time.monotonic()
        return busy
