"""The worker process: runs jobs until it is stopped."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from huey import Huey, crontab
from huey.consumer import Consumer
from sqlalchemy import func, select

from cdal.allocator import keep_freed_memory
from cdal.backend.config import ServerConfig
from cdal.backend.errors import WorkerError
from cdal.backend.jobs.gathering import POLL
from cdal.backend.jobs.messages import log_less
from cdal.backend.jobs.workers import Presence, living, present
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.loop.runner import run_job
from cdal.backend.loop.versions import serve_last_good
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.folder import check_data_folder, folder_id
from cdal.backend.store.leftovers import remove_leftovers, remove_unfinished_versions
from cdal.backend.store.tables import Project, Worker
from cdal.backend.supervisor import WORKER_VARIABLE
from cdal.models import ModelError, choose_device

log = logging.getLogger(__name__)

NICENESS = 10
"""The worker yields to the web process, which answers people."""


def run_worker(config: ServerConfig) -> None:
    """Run jobs until SIGTERM or SIGINT. A job that is cut short goes on at the next start.

    Raises:
        WorkerError: another worker uses this data folder with SQLite, or the database with another
            data folder; or the device does not exist.
    """
    try:
        choose_device(config.device)
    except ModelError as error:  # now, rather than in every job
        raise WorkerError(f"CDAL_DEVICE: {error}") from None
    with ExitStack() as at_end:
        was_killed = False
        if config.has_one_worker:
            was_killed = at_end.enter_context(_only_worker(config.data_folder))
        check_data_folder(config)
        os.nice(NICENESS)
        keep_freed_memory()
        _share_processor(config)
        services = Services.open(_with_own_device(config), on_job_given_up)
        at_end.callback(services.store.close)
        folder = folder_id(config.data_folder)
        presence = at_end.enter_context(
            present(services.store, folder, lambda us: _take_over(services, us))
        )
        _work(services, presence, was_killed)


def _work(services: Services, presence: Presence, was_killed: bool) -> None:
    consumer: Consumer | None = None

    def ends() -> bool:
        return presence.lost.is_set() or (consumer is not None and consumer.stop_flag.is_set())

    def work(job_id: int) -> None:
        with presence.at_work() as begins:
            if begins:
                run_job(services, job_id, ends)

    services.jobs.work_as(presence.number, work)
    huey = services.jobs.huey
    _forget_messages(huey)
    log_less()
    consumer = huey.create_consumer(
        workers=services.config.worker_threads,
        worker_type="thread",
        initial_delay=0.05,
        max_delay=0.5,
        graceful_signal="TERM",
    )
    huey.periodic_task(crontab())(_poll_with(services))
    _recover(services, presence, was_killed)
    services.jobs.send_pending()
    consumer.run()


def _share_processor(config: ServerConfig) -> None:
    """Leave the other workers of this machine their share of the cores."""
    threads = config.compute_threads
    if threads is None and config.workers > 1:
        threads = max(1, (os.cpu_count() or 1) // config.workers)
    if threads is not None:
        torch.set_num_threads(threads)


def _with_own_device(config: ServerConfig) -> ServerConfig:
    """The configuration with a GPU for each worker of `cdal serve`, as far as there are enough."""
    if config.device not in ("auto", "cuda") or torch.cuda.device_count() < 2:
        return config
    own = int(os.environ.get(WORKER_VARIABLE, "0")) % torch.cuda.device_count()
    return config.model_copy(update={"device": f"cuda:{own}"})


def _forget_messages(huey: Huey) -> None:
    """Forget the messages of an earlier worker: the store knows what is to be done."""
    try:
        huey.flush()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WorkerError(f"The queue of messages cannot be used: {reason}") from error


def _recover(services: Services, presence: Presence, was_killed: bool) -> None:
    """Put back the jobs that a killed worker left running, and remove its unfinished files."""
    with services.store.transaction() as session:
        presence.bury(session)
        is_alone = session.scalar(select(func.count(Worker.id))) == 1
    resumed = services.jobs.recover(at_start=True)
    removed = remove_unfinished_versions(services.config, services.store)
    if is_alone:  # what is unfinished is not being written by another
        services.images.remove_leftovers()
        removed += remove_leftovers(services.config, services.store)
    with services.store.reading() as session:
        projects = session.scalars(select(Project.id)).all()
    for project_id in projects:
        serve_last_good(services, project_id)
    if was_killed or resumed or removed:
        jobs = ", ".join(resumed) or "no job"
        text = f"After a kill, resumed: {jobs}. Removed: {removed} unfinished files."
        with services.store.transaction() as session:
            note(session, None, text, "warning")


def _take_over(services: Services, presence: Presence) -> None:
    """After each heartbeat: do the jobs of workers that have died, if this one was not thought to
    have.
    """
    if presence.lost.is_set():
        if not presence.entered:
            log.warning("Others took this worker for dead and do its jobs; it stops them.")
            return
        services.jobs.recover(at_start=True)
        presence.lost.clear()
        log.warning("This worker was taken for dead; its jobs have stopped, and it works again.")
        services.jobs.send_pending()
    if services.store.has_one_worker:
        return
    with services.store.transaction() as session:
        dead = presence.bury(session)
    for number in dead:
        services.jobs.forget_worker(number)
    resumed = services.jobs.recover()
    if dead:
        remove_unfinished_versions(services.config, services.store)
    if dead or resumed:
        jobs = ", ".join(resumed) or "no job"
        with services.store.transaction() as session:
            note(session, None, f"A worker has died. Resumed by another: {jobs}.", "warning")
        services.jobs.send_pending()


def _poll_with(services: Services) -> Callable[[], None]:
    def poll() -> None:
        """Every minute: catch up on lost webhooks and lost messages."""
        try:
            with services.store.reading() as session:
                projects = session.scalars(select(Project.id)).all()
                oldest = next((one.id for one in living(session)), services.jobs.worker)
            if services.jobs.worker == oldest:  # one poll is enough
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
