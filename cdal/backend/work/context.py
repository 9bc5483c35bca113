"""What a job has at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from cdal.backend.jobs import JobKind
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.labeling import Control, served_control
from cdal.backend.rounds import newest_round
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.tables import Job, Project, Round
from cdal.backend.work.hiccups import Hiccups
from cdal.models import Stopped

REPORT_SECONDS = 0.5


@dataclass(slots=True)
class Context:
    """One job's run: its project as it was when the job began, and whom to tell."""

    services: Services
    job: Job
    project: Project
    settings: ProjectSettings
    control: Control
    client: LabelStudioClient
    stop: Callable[[], bool]
    _reported: float = field(default=0.0)
    _hiccups: Hiccups = field(default_factory=Hiccups)

    @classmethod
    def of(cls, services: Services, job: Job, stop: Callable[[], bool]) -> Context:
        with services.store.reading() as session:
            project = session.get_one(Project, job.project_id)
        settings = ProjectSettings.parse(project.extra_params)
        return cls(
            services=services,
            job=job,
            project=project,
            settings=settings,
            control=served_control(project.labeling_config, settings.control),
            client=services.client(project),
            stop=stop,
        )

    def report(self, share: float, message: str) -> None:
        """Tell how far the job is, seldom enough to cost nothing.

        Raises:
            Stopped: the worker is to end, or somebody cancelled the job.
        """
        self.check_stop()
        clock = time.monotonic()
        if clock - self._reported >= REPORT_SECONDS:
            self._reported = clock
            with self._hiccups:
                self.services.jobs.report(self.job.id, share, message)

    def check_stop(self) -> None:
        """Raise `Stopped` if the worker is to end or somebody cancelled the job."""
        if self.stop():
            raise Stopped

    def check_cancelled(self, session: Session) -> None:
        """Raise `Stopped` if somebody cancelled the job, before what it came to takes effect."""
        if session.get_one(Job, self.job.id, populate_existing=True).cancelled_by is not None:
            raise Stopped

    def request(self, session: Session, kind: JobKind, asked_by: str) -> None:
        """Have a job done for the same project; it is sent when this one has ended."""
        self.services.jobs.request(session, self.project.id, kind, asked_by)

    def newest_round(self, session: Session, *states: str) -> Round | None:
        """The project's newest round in one of these states."""
        return newest_round(session, self.project.id, *states)
