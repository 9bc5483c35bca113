"""The worker process: runs jobs until it is stopped."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huey import Huey, crontab
from huey.consumer import Consumer
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from cdal.backend.config import ServerConfig
from cdal.backend.errors import WorkerError
from cdal.backend.jobs.heartbeat import beating
from cdal.backend.jobs.messages import log_less
from cdal.backend.loop.connection import POLL
from cdal.backend.loop.rounds import on_job_given_up
from cdal.backend.loop.runner import run_job
from cdal.backend.loop.versions import serve_last_good
from cdal.backend.services import Services
from cdal.backend.store.engine import WorkerLock
from cdal.backend.store.events import note
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.folder import check_data_folder
from cdal.backend.store.leftovers import remove_leftovers
from cdal.backend.store.tables import Project
from cdal.models import ModelError, choose_device

log = logging.getLogger(__name__)

NICENESS = 10
"""The worker yields to the web process, which answers people."""


def run_worker(config: ServerConfig) -> None:
    """Run jobs until SIGTERM or SIGINT. A job that is cut short goes on at the next start.

    Raises:
        WorkerError: another worker uses this data folder, or the device does not exist.
    """
    try:
        choose_device(config.device)
    except ModelError as error:  # now, rather than in every job
        raise WorkerError(f"CDAL_DEVICE: {error}") from None
    with _only_worker(config.data_folder) as was_killed:
        check_data_folder(config)
        os.nice(NICENESS)
        if config.compute_threads is not None:
            torch.set_num_threads(config.compute_threads)
        services = Services.open(config, on_job_given_up)
        huey = services.jobs.huey
        lock = WorkerLock(services.store.engine)
        if not lock.hold():
            services.store.close()
            raise WorkerError("Another worker is running on the database; only one may.")
        _forget_messages(huey)
        log_less()
        consumer = huey.create_consumer(
            workers=config.worker_threads,
            worker_type="thread",
            initial_delay=0.05,
            max_delay=0.5,
            graceful_signal="TERM",
        )
        services.jobs.run_with(lambda job_id: run_job(services, job_id, consumer.stop_flag.is_set))
        huey.periodic_task(crontab())(_poll_with(services))
        huey.periodic_task(crontab())(_end_unless(lock, consumer))
        _recover(services, was_killed)
        services.jobs.send_pending()
        with beating(services.store):
            consumer.run()
        lock.release()
        services.store.close()


def _forget_messages(huey: Huey) -> None:
    """Forget the messages of an earlier worker: the store knows what is to be done."""
    try:
        huey.flush()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WorkerError(f"The queue of messages cannot be used: {reason}") from error


def _end_unless(lock: WorkerLock, consumer: Consumer) -> Callable[[], None]:
    def check() -> None:
        """Every minute: end this worker if another has taken over while the database was away."""
        try:
            alone = lock.hold()
        except OperationalError:
            return  # while it is away, nobody can take over
        if not alone:
            log.error("Another worker runs on the database; this one ends.")
            consumer.stop_flag.set()

    return check


def _recover(services: Services, was_killed: bool) -> None:
    """Put back the jobs that a killed worker left running, and remove its unfinished files."""
    resumed = services.jobs.recover()
    services.images.remove_leftovers()
    removed = remove_leftovers(services.config, services.store)
    with services.store.reading() as session:
        projects = session.scalars(select(Project.id)).all()
    for project_id in projects:
        serve_last_good(services, project_id)
    if was_killed or resumed or removed:
        jobs = ", ".join(resumed) or "no job"
        text = f"After a kill, resumed: {jobs}. Removed: {removed} unfinished files."
        with services.store.transaction() as session:
            note(session, None, text, "warning")


def _poll_with(services: Services) -> Callable[[], None]:
    def poll() -> None:
        """Every minute: catch up on lost webhooks and lost messages."""
        try:
            with services.store.reading() as session:
                projects = session.scalars(select(Project.id)).all()
            for project_id in projects:
                services.jobs.ask(project_id, "sync", POLL)
            services.jobs.send_pending()
        except STORAGE as error:
            log.error("The minute's poll was left out. %s", storage_problem(error))  # noqa: TRY400

    return poll


@contextmanager
def _only_worker(folder: Path) -> Iterator[bool]:
    """Hold the data folder's lock, which the system gives back even after a kill.

    Yields:
        Whether the last worker was killed: one that ends by itself empties the file.
    """
    try:
        opened = (folder / "worker.lock").open("a+")
    except OSError as error:
        raise WorkerError(
            f"The data folder {folder} cannot be written: {error.strerror}."
        ) from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkerError(
                f"Another worker runs on the data folder {folder}; stop it, or set MODEL_DIR."
            ) from None
        file.seek(0)
        was_killed = bool(file.read())
        try:
            file.truncate(0)
            file.write("running\n")
            file.flush()
            yield was_killed
        finally:
            file.truncate(0)
