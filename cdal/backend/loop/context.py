"""The context of a running job: its project, its settings, and the services it uses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from sqlalchemy.orm import Session

from cdal.backend.annotations.control import Control
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.jobs.manager import Jobs
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.loop.rounds import newest_round
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.tables import Job, Project, Round
from cdal.models import Stopped

log = logging.getLogger(__name__)

LONGEST_S = 300.0

REPORT_SECONDS = 0.5

LOOK_SECONDS = 0.5
"""Seconds between two looks at whether somebody, in any process, cancelled the job."""


class Hiccups:
    """A context in which the store may fail for a while, as when a database restarts.

    It is meant for what a job can do without, such as reporting its progress: a training of hours
    must not start over because of that. A failure that lasts longer than `LONGEST_S` is raised.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            self._since = None
        if not isinstance(error, STORAGE):
            return False
        clock = time.monotonic()
        if self._since is None:
            self._since = clock
            log.warning("The job goes on without it for now: %s", storage_problem(error))
        return clock - self._since < LONGEST_S


class GaveWay(Stopped):
    """A job stopped to let another project's run first; it goes on where it was."""


@dataclass(slots=True)
class Context:
    """What a running job needs; the project is as it was when the job began.

    Attributes:
        controls: those that are served, the main one first.
        control: the one that is worked for: the main one, or that of the part.
        part: which part of the job this is, from 0.
        of_parts: how many parts it has.
    """

    services: Services
    job: Job
    project: Project
    settings: ProjectSettings
    controls: tuple[Control, ...]
    control: Control
    client: LabelStudioClient
    stop: Callable[[], bool]
    part: int = 0
    of_parts: int = 1
    _reported: float = field(default=0.0)
    _hiccups: Hiccups = field(default_factory=Hiccups)

    @classmethod
    def of(cls, services: Services, job: Job, stop: Callable[[], bool]) -> Context:
        with services.store.reading() as session:
            project = session.get_one(Project, job.project_id)
        config = ProjectConfig.parse(project.labeling_config, project.extra_params)
        return cls(
            services=services,
            job=job,
            project=project,
            settings=config.settings,
            controls=config.controls,
            control=config.control,
            client=services.client(project),
            stop=stop,
        )

    def parts(self, controls: Sequence[Control]) -> list[Context]:
        """The job as one part for each of these controls, which share its progress."""
        return [
            replace(self, control=control, part=number, of_parts=len(controls))
            for number, control in enumerate(controls)
        ]

    def about(self, why: str) -> str:
        """Words about the control that is worked for, which they name if others are served, too."""
        return f'"{self.control.from_name}": {why}' if self.control.beside else why

    def report(self, share: float, message: str) -> None:
        """Report the job's progress, seldom enough to cost nothing.

        Raises:
            Stopped: the worker is to end, or somebody cancelled the job.
        """
        self.check_stop()
        clock = time.monotonic()
        if clock - self._reported >= REPORT_SECONDS:
            self._reported = clock
            with self._hiccups:
                whole = (self.part + share) / self.of_parts
                self.services.jobs.report(self.job.id, whole, message)

    def check_stop(self) -> None:
        """Raise `Stopped` if the worker is to end or somebody cancelled the job."""
        if self.stop():
            raise Stopped

    def give_way(self) -> None:
        """Raise `GaveWay` if this scoring has had its share and another project waits.

        To be called where what was done so far is saved.
        """
        if self.services.jobs.must_give_way(self.job.id):
            raise GaveWay

    def check_cancelled(self, session: Session) -> None:
        """Raise `Stopped` before what the job came to takes effect, if that is no longer wanted.

        Somebody has cancelled it, or another worker has taken it over.
        """
        job = session.get_one(Job, self.job.id, populate_existing=True)
        if job.cancelled_by is not None or job.worker_id != self.services.jobs.worker:
            raise Stopped

    def request(self, session: Session, kind: JobKind, asked_by: str) -> None:
        """Request a job for the same project; it is sent when this one has ended."""
        self.services.jobs.request(session, self.project.id, kind, asked_by)

    def newest_round(self, session: Session, *states: str) -> Round | None:
        """The project's newest round in one of these states."""
        return newest_round(session, self.project.id, *states)


class Watch:
    """Called between a job's steps: true once the worker ends or the job is cancelled."""

    def __init__(self, jobs: Jobs, job_id: int, worker_ends: Callable[[], bool]) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._worker_ends = worker_ends
        self._cancelled = False
        self._looked = time.monotonic()
        self._hiccups = Hiccups()

    def __call__(self) -> bool:
        if self._cancelled or self._worker_ends():
            return True
        clock = time.monotonic()
        if clock - self._looked >= LOOK_SECONDS:
            self._looked = clock
            with self._hiccups:
                self._cancelled = self._jobs.is_cancelled(self._job_id)
        return self._cancelled
