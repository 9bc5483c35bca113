"""Jobs: requests for work, claims on them, and the record of what was done.

The record in the store is the truth; huey only carries job numbers to the workers. A message that
is lost or arrives twice does no harm: pending jobs are sent again, and a job can be claimed only
once. Every worker gets every message in a queue of its own, since one may be busy with what another
has time for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from huey import Huey
from huey.api import TaskWrapper
from sqlalchemy import Select, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cdal.backend.errors import CHECK_LABEL_STUDIO
from cdal.backend.jobs import lanes
from cdal.backend.jobs.gathering import sees_more
from cdal.backend.jobs.kinds import KINDS, SHARED_LANES, JobKind
from cdal.backend.jobs.rate_limit import Spacing
from cdal.backend.jobs.servers import FIRST_WAIT_S, Servers
from cdal.backend.jobs.waits import in_turn, may_run_now, must_wait_s
from cdal.backend.jobs.workers import ONLY, living
from cdal.backend.store.database import Store
from cdal.backend.store.events import note
from cdal.backend.store.tables import Job, Project, Worker, now, seconds_since

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
MAX_DEATHS = 10
"""After so many deaths of a worker during the same job, the job is to blame."""
CHECK_MEMORY = "check whether the machine ran out of memory; then start the step again below."

GivenUp = Callable[[Session, Job], None]
"""Called, in the same transaction, for a job that fails for good or is cancelled."""


class Jobs:
    """Requests, claims and records jobs.

    Args:
        store: where they are recorded.
        open_queue: opens the queue of messages of a worker, by its number.
        on_given_up: called for each job that fails for good or is cancelled.
        threads: jobs that run at the same time.
    """

    def __init__(
        self,
        store: Store,
        open_queue: Callable[[int], Huey],
        on_given_up: GivenUp,
        threads: int = 8,
    ) -> None:
        self.store = store
        self.worker: int | None = None
        """The number of the worker that this process is."""
        self.servers = Servers()
        # A thread is left for the other servers, besides one for each shared lane.
        self._scoring_at_once = lanes.scored_at_once(threads)
        shared = len(SHARED_LANES) - 1 + self._scoring_at_once
        self._per_server = max(1, threads - shared - 1)
        self._open_queue = open_queue
        self._on_given_up = on_given_up
        self._work: Callable[[int], object] | None = None
        self._tasks: dict[int, TaskWrapper] = {}
        # Jobs that wait for others to share them. One that another process has requested goes
        # unhastened: it waits for seconds at most.
        self._shared: dict[tuple[int, JobKind], int] = {}
        self._lock = threading.Lock()

    @property
    def huey(self) -> Huey:
        """The queue of this worker's messages; in another process, that of the only worker."""
        return self._task_of(self.worker or ONLY).huey

    def work_as(self, worker: int, work: Callable[[int], object]) -> None:
        """Set who this worker is, and what it does with a job's number."""
        self.worker = worker
        self._work = work

    def forget_worker(self, worker: int) -> None:
        """Drop the messages for a worker that has ended."""
        with suppress(Exception):  # they do no harm
            self._task_of(worker).huey.flush()
        with self._lock:
            self._tasks.pop(worker, None)

    def close(self) -> None:
        """Close the queues of messages that this thread has used."""
        with self._lock:
            for task in self._tasks.values():
                task.huey.storage.close()
            self._tasks.clear()

    def _task_of(self, worker: int) -> TaskWrapper:
        """Sends a job's number to a worker."""
        with self._lock:
            if worker not in self._tasks:
                # Registered in the web process too, which runs no job but sends messages.
                self._tasks[worker] = self._open_queue(worker).task(name="work")(self._run)
            return self._tasks[worker]

    def _run(self, job_id: int) -> None:
        if self._work is None:
            raise RuntimeError("This process sends jobs and runs none.")
        self._work(job_id)

    def request(self, session: Session, project_id: int, kind: JobKind, asked_by: str) -> int:
        """Request a job, in the transaction of whatever makes it necessary; returns its number.

        If such a job is waiting already, that is the job: a burst of requests makes one. Call
        `send_pending` once the transaction is committed.
        """
        waiting = session.scalars(_waiting(project_id, kind)).one_or_none()
        if waiting is not None:
            _join(waiting, asked_by)
            return waiting.id
        job = Job(project_id=project_id, kind=kind, state="pending", asked_by=asked_by)
        try:
            with session.begin_nested():
                session.add(job)
        except IntegrityError:  # another process was faster
            waiting = session.scalars(_waiting(project_id, kind)).one()
            _join(waiting, asked_by)
            return waiting.id
        return job.id

    def ask(
        self,
        project_id: int,
        kind: JobKind,
        asked_by: str,
        spacing: Spacing | None = None,
        wait_s: float = 0.0,
    ) -> int:
        """Request a job and send it, unless one of its kind is waiting already.

        One that waits for others to share it is sent at once if this request does not wait.

        Args:
            project_id: the project.
            kind: the kind of job.
            asked_by: who requested it, for the record.
            spacing: how often it may be requested; jobs requested too often wait.
            wait_s: seconds for which it can wait for others to share it.
        """
        with self.store.reading() as session:
            waiting = session.scalars(_waiting(project_id, kind)).one_or_none()
        if waiting is not None and self._still_waits(waiting, asked_by):
            if not wait_s and self._shared.pop((project_id, kind), None) == waiting.id:
                self._hasten(waiting.id)
            return waiting.id
        with self.store.transaction() as session:
            job_id = self.request(session, project_id, kind, asked_by)
            spaced_s = 0.0 if spacing is None else spacing.delay(project_id)
            delay_s = max(spaced_s, wait_s)
            if delay_s > 0:
                session.get_one(Job, job_id).not_before = now() + timedelta(seconds=delay_s)
        if delay_s > spaced_s:
            self._shared[project_id, kind] = job_id
        self._send(job_id, delay_s or None)
        return job_id

    def _still_waits(self, waiting: Job, asked_by: str) -> bool:
        """Let a waiting job do for a request; False if it began before it could."""
        if not sees_more(asked_by, waiting.asked_by):  # a burst of webhooks writes nothing
            return True
        with self.store.transaction() as session:
            job = session.get(Job, waiting.id, with_for_update=True)
            if job is None or job.state != "pending":
                return False
            _join(job, asked_by)
            return True

    def _hasten(self, job_id: int) -> None:
        """Send a job that waits for others to share it now, unless it has begun or failed."""
        with self.store.transaction() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.state != "pending" or job.attempts or job.error is not None:
                return
            job.not_before = None
        self._send(job_id)

    @staticmethod
    def is_active(session: Session, project_id: int, kind: JobKind) -> bool:
        """Whether a job of this kind is waiting or running for a project."""
        query = select(Job.id).where(
            Job.project_id == project_id, Job.kind == kind, Job.state.in_(("pending", "running"))
        )
        return session.scalars(query).first() is not None

    def send_next(self, ended: Job) -> None:
        """Send the jobs that waited for this one to end: its project's, and the next of its lane.

        To send every waiting job at every job's end would take as many messages as the square of
        the number of projects.
        """
        with self.store.reading() as session:
            is_due = (Job.state == "pending") & may_run_now()
            own = select(Job.id).where(is_due, Job.project_id == ended.project_id)
            waiting = list(session.scalars(own.order_by(Job.id)))
            lane = KINDS[ended.kind].lane
            others = select(Job.id).where(
                is_due, Job.project_id != ended.project_id, Job.kind.in_(lanes.kinds_of(lane))
            )
            # A project that has a job in the lane would not run another, and nobody would instead.
            others = others.where(Job.project_id.not_in(lanes.projects_in(lane)))
            if lane not in SHARED_LANES:
                url = select(Project.url).filter_by(id=ended.project_id).scalar_subquery()
                others = others.join(Project, Project.id == Job.project_id)
                others = others.where(Project.url == url)
            next_one = session.scalars(others.order_by(*in_turn())).first()
        for job_id in waiting if next_one is None else [*waiting, next_one]:
            self._send(job_id)

    def send_pending(self, project_id: int | None = None) -> None:
        """Send every waiting job: those just requested, and those whose message was lost.

        It is for a worker's start, the minute's poll, and, with a project, for requests.
        """
        query = select(Job.id).filter_by(state="pending").order_by(*in_turn())
        if project_id is not None:
            query = query.filter_by(project_id=project_id)
        with self.store.reading() as session:
            waiting = session.scalars(query).all()
        for job_id in waiting:
            self._send(job_id)

    def _send(self, job_id: int, delay_s: float | None = None) -> None:
        """Send a job to all workers; if that fails, the minute's poll sends it again."""
        for worker in self._workers():
            task = self._task_of(worker)
            try:
                if delay_s is None:
                    task(job_id)
                else:
                    task.schedule((job_id,), delay=delay_s)
            except Exception as error:  # noqa: BLE001 — what huey's storages raise is their own
                log.warning("Job %d waits for the minute's poll: %s.", job_id, type(error).__name__)
                # A failed commit, as on a full disk, leaves huey's file locked for everybody.
                with suppress(Exception):
                    task.huey.storage.close()

    def _workers(self) -> list[int]:
        """The numbers of those that messages go to."""
        if self.store.has_one_worker:
            return [ONLY]
        with self.store.reading() as session:
            return [one.id for one in living(session)] or [ONLY]

    def claim(self, job_id: int) -> Job | None:
        """Claim a waiting job; None if it may not run yet or somebody else has claimed it."""
        with self.store.transaction() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.state != "pending" or must_wait_s(job):
                return None
            if lanes.is_busy(session, job, self.worker, self._scoring_at_once):
                return None
            put_off_s = self._put_off(session, job)
            if put_off_s == 0:
                job.state = "running"
                job.worker_id = self.worker
                job.started_at = now()
                job.attempts += 1
                return job
        if put_off_s is not None:
            self._send(job_id, put_off_s)
        return None

    def _put_off(self, session: Session, job: Job) -> float | None:
        """Put a job off if its Label Studio is away, or takes its share of the threads.

        Returns:
            0 if the job may run, else after how many seconds it is to be sent again; None if
            another job's end will send it.
        """
        lane = KINDS[job.kind].lane
        if lane == "look":  # these ask nobody
            return 0
        project = session.get_one(Project, job.project_id)
        running = _running_on(session, project.url)
        away = self.servers.find_away(project.url)
        if away is None:
            several = session.scalar(select(func.count(Project.url.distinct()))) or 0
            short = sum(count for kind, count in running.items() if KINDS[kind].lane == "queue")
            full = lane == "queue" and several > 1 and short >= self._per_server
            return None if full else 0
        wait = away.wait_s
        # One job is enough to find out whether it answers. Many servers that hang must leave a
        # thread for the others, too.
        if not wait and (running or self._count_asking_away(session) >= self._per_server):
            wait = FIRST_WAIT_S
        if wait:
            job.not_before = now() + timedelta(seconds=wait)
            if job.error == away.reason:  # nobody needs to know what passes at once
                project.set_problem(away.reason, CHECK_LABEL_STUDIO)
            job.error = away.reason
        return wait

    def _count_asking_away(self, session: Session) -> int:
        """How many jobs are finding out whether their servers answer again."""
        query = (
            select(func.count())
            .select_from(Job)
            .join(Project, Project.id == Job.project_id)
            .where(Job.state == "running", Project.url.in_(self.servers.all_away()))
        )
        return session.scalar(query) or 0

    def must_give_way(self, job_id: int) -> bool:
        """Whether a scoring of this worker is to let another project's run first."""
        with self.store.reading() as session:
            return lanes.must_give_way(session, session.get_one(Job, job_id), self._scoring_at_once)

    def cancel(self, session: Session, job_id: int, asked_by: str) -> bool:
        """End a waiting job, or mark a running one, which its worker notices within a second.

        Returns:
            Whether it has ended; False if it is still running and will end.
        """
        job = session.get_one(Job, job_id, with_for_update=True)
        job.cancelled_by = asked_by
        if job.state == "pending":
            self._end_cancelled(session, job)
        return job.state != "running"

    def is_cancelled(self, job_id: int) -> bool:
        """Whether somebody cancelled a job that this worker runs, or another has taken it over."""
        with self.store.reading() as session:
            job = session.get(Job, job_id)
            return job is None or job.cancelled_by is not None or not self._is_ours(job)

    def _is_ours(self, job: Job) -> bool:
        return job.worker_id == self.worker

    def report(self, job_id: int, progress: float, message: str) -> None:
        """Record a job's progress, a share in [0, 1], and what it is doing."""
        with self.store.transaction() as session:
            job = session.get_one(Job, job_id)
            if self._is_ours(job):
                job.progress, job.message = progress, message

    def finish(
        self, job_id: int, state: str, outcome: str | None = None, error: str | None = None
    ) -> None:
        """Record a job's end, unless another worker has taken the job over."""
        with self.store.transaction() as session:
            job = session.get_one(Job, job_id)
            if not self._is_ours(job):
                return
            job.state, job.outcome, job.error = state, outcome, error
            job.finished_at = now()
            if state == "done":
                job.progress = 1.0
            else:
                self._on_given_up(session, job)
            if state == "done" and KINDS[job.kind].is_frequent:
                # Every submitted label requests one; the last one's record is enough.
                session.execute(
                    delete(Job).where(
                        Job.project_id == job.project_id,
                        Job.kind == job.kind,
                        Job.state == "done",
                        Job.id < job.id,
                    )
                )

    def put_back(
        self,
        job_id: int,
        error: str | None = None,
        delay_s: float | None = None,
        counts: bool = True,
    ) -> None:
        """Put a running job back to wait, unless one of its kind is waiting already.

        Args:
            job_id: a job that was stopped, or that failed for a reason that may pass.
            error: what happened; None keeps what happened before, by which the project's problem is
                known to be this job's.
            delay_s: seconds until it is tried again; None: at the worker's next start.
            counts: whether this counts as an attempt; not if it was stopped or waits for something
                else.
        """
        with self.store.transaction() as session:
            job = session.get_one(Job, job_id)
            if job.state != "running" or not self._is_ours(job):  # recorded before
                return
            if error is not None:
                job.error = error
            if not counts:
                job.attempts -= 1
            self._wait_again(session, job)
            if job.state != "pending" or delay_s is None:
                return
            job.not_before = now() + timedelta(seconds=delay_s)
        self._send(job_id, delay_s)

    def recover(self, at_start: bool = False) -> list[str]:
        """Put back the jobs of workers that have died.

        Args:
            at_start: whether this worker starts, so that what its number runs is left, too.

        Returns:
            These jobs, in words.
        """
        with self.store.transaction() as session:
            is_left = Job.worker_id.is_(None) | Job.worker_id.not_in(select(Worker.id))
            if at_start:
                is_left |= Job.worker_id == self.worker
            left = session.scalars(select(Job).where(Job.state == "running", is_left)).all()
            for job in left:
                if job.attempts >= MAX_DEATHS and job.cancelled_by is None:
                    job.state, job.finished_at = "failed", now()
                    job.error = f"The worker died {job.attempts} times while it ran this job."
                    note(session, job.project_id, f"Job {job.kind} failed: {job.error}", "error")
                    session.get_one(Project, job.project_id).set_problem(job.error, CHECK_MEMORY)
                    self._on_given_up(session, job)
                else:
                    self._wait_again(session, job)
        ended = ("failed", "cancelled")
        return sorted(f"{job.kind} (job {job.id})" for job in left if job.state not in ended)

    def _wait_again(self, session: Session, job: Job) -> None:
        if job.cancelled_by is not None:
            self._end_cancelled(session, job)
            return
        waiting = session.scalars(_waiting(job.project_id, job.kind)).one_or_none()
        if waiting is not None:
            _join(waiting, job.asked_by)
            job.state, job.outcome, job.finished_at = "done", f"Goes on as job {waiting.id}.", now()
        else:
            job.state, job.message, job.worker_id = "pending", "", None

    def _end_cancelled(self, session: Session, job: Job) -> None:
        job.state, job.finished_at = "cancelled", now()
        job.outcome = f"Cancelled by {job.cancelled_by}."
        text = f"Job {job.id} ({job.kind}): cancelled by {job.cancelled_by}"
        note(session, job.project_id, text)
        self._on_given_up(session, job)


def was_requested(session: Session, project_id: int, kind: JobKind) -> timedelta:
    """How long ago a job of this kind was last requested; the longest time if never."""
    newest = select(Job.created_at).filter_by(project_id=project_id, kind=kind)
    last = session.scalars(newest.order_by(Job.id.desc())).first()
    return timedelta.max if last is None else timedelta(seconds=seconds_since(last))


def _running_on(session: Session, url: str) -> dict[str, int]:
    """How many jobs of each kind run for the projects of a Label Studio."""
    query = (
        select(Job.kind, func.count())
        .join(Project, Project.id == Job.project_id)
        .where(Job.state == "running", Project.url == url)
        .group_by(Job.kind)
    )
    return dict(session.execute(query).all())


def _waiting(project_id: int, kind: str) -> Select[Job]:
    return select(Job).filter_by(project_id=project_id, kind=kind, state="pending")


def _join(waiting: Job, asked_by: str) -> None:
    """Let a waiting job see all that another request is about."""
    if sees_more(asked_by, waiting.asked_by):
        waiting.asked_by = asked_by
