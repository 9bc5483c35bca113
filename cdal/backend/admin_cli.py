"""The commands that watch and steer a backend, whether or not its processes run here."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cdal.backend import actions
from cdal.backend.config import ServerConfig
from cdal.backend.errors import ActionError
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.reports.health import WorkerView, worker_view
from cdal.backend.reports.jobs import JobsView, JobView, jobs_view
from cdal.backend.reports.project import ProjectsView, ProjectView, projects_view
from cdal.backend.reports.view import View
from cdal.backend.services import Services
from cdal.backend.store.folder import check_database
from cdal.backend.store.queries import find_project
from cdal.backend.text import estimate
from cdal.text import one_line

WATCH_SECONDS = 2.0

NOT_FOUND = 404
NUMBERS = "See cdal projects, cdal status or cdal jobs for the numbers."

CLEAR = "\x1b[H\x1b[2J"

Steer = Callable[[Services, argparse.Namespace, str], actions.Done]

ACTIONS: Mapping[str, Steer] = {
    "cancel": lambda services, a, by: actions.cancel(services, a.job, by),
    "retry": lambda services, a, by: actions.retry(services, a.job, by),
    "retrain": lambda services, a, by: actions.retrain(services, a.project, by),
    "rescore": lambda services, a, by: actions.rescore(services, a.project, by),
    "rollback": lambda services, a, by: actions.roll_back(services, a.project, a.version, by),
    "pause": lambda services, a, by: actions.pause(services, a.project, by),
    "export": lambda services, a, _: actions.export(
        services, a.project, a.version, a.format, a.out or _export_folder(a)
    ),
    "forget": lambda services, a, by: actions.forget(services, a.project, by),
    "resume": lambda services, a, by: actions.resume(services, a.project, by),
}


class StatusView(View):
    """What `cdal status` shows."""

    worker: WorkerView
    projects: list[ProjectView]


def run(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Run a command.

    Returns:
        0, or 1, with a sentence on standard error, where there is no backend's data or the
        request is impossible.

    Raises:
        DataFolderError: the database cannot be used.
    """
    logging.getLogger("cdal").setLevel(logging.WARNING)  # only the answer is printed
    config.data_folder = config.data_folder.resolve()
    needed = config.data_folder if config.database_url else config.data_folder / "cdal.sqlite"
    if not needed.exists():
        return _refuse(
            f"No backend has data in {config.data_folder}; set MODEL_DIR as for the backend."
        )
    check_database(config)
    services = Services.open(config, on_job_given_up)
    try:
        steer = ACTIONS.get(arguments.command)
        if steer is None:
            _show(services, arguments)
        else:
            done = steer(services, arguments, f"{_user()} on the command line")
            _write(json.dumps(done.model_dump()) if arguments.json else done.text)
    except ActionError as error:
        return _refuse(f"{error} {NUMBERS}" if error.status == NOT_FOUND else str(error))
    finally:
        services.close()
    return 0


def _show(services: Services, arguments: argparse.Namespace) -> None:
    """Print once or, with --watch, repeatedly until Ctrl-C."""
    watch = getattr(arguments, "watch", False)
    try:
        while True:
            text = _text(services, arguments)
            _write(f"{CLEAR}{text}" if watch and sys.stdout.isatty() else text)
            if not watch:
                return
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def _text(services: Services, arguments: argparse.Namespace) -> str:
    view = _look(services, arguments)
    if arguments.json:
        return json.dumps(view.model_dump(mode="json"))
    if isinstance(view, JobsView):
        return jobs_text(view)
    return projects_text(view) if isinstance(view, ProjectsView) else status_text(view)


def _look(
    services: Services, arguments: argparse.Namespace
) -> StatusView | ProjectsView | JobsView:
    number = getattr(arguments, "project", None)
    with services.store.reading() as session:
        if number is not None:
            find_project(session, number)
        if arguments.command == "jobs":
            return jobs_view(session, number, arguments.state, limit=arguments.limit)
        found = projects_view(session, number)
        if arguments.command == "projects":
            return found
        return StatusView(worker=worker_view(session), projects=found.projects)


def _export_folder(arguments: argparse.Namespace) -> Path:
    """Where a model version is written by default: in the current folder."""
    version = "serving" if arguments.version is None else arguments.version
    return Path(f"project-{arguments.project}-version-{version}-{arguments.format}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return "somebody"


def _write(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"cdal: {sentence}\n")
    return 1


def status_text(view: StatusView) -> str:
    """The worker, then each project and the jobs that are under way for it."""
    blocks = [view.worker.text]
    blocks += [_project(project) for project in view.projects] or [NO_PROJECT]
    return "\n\n".join(blocks)


def projects_text(view: ProjectsView) -> str:
    """One line per project."""
    if not view.projects:
        return NO_PROJECT
    rows = [("project", "title", "labelled", "round", "model version", "state")]
    for project in view.projects:
        newest = project.rounds[-1] if project.rounds else None
        rows.append(
            (
                str(project.id),
                one_line(project.title, 40) or "—",
                f"{project.labelled} of {project.tasks}",
                f"{newest.number} ({newest.state})" if newest else "—",
                str(project.serving_version or "—"),
                "paused" if project.paused_at else "problem" if project.problem else "well",
            )
        )
    return _table(rows)


def jobs_text(view: JobsView) -> str:
    """One line per job."""
    if not view.jobs:
        return "There are no such jobs."
    rows = [("job", "project", "kind", "state", "asked by", "what")]
    for job in view.jobs:
        rows.append(
            (
                str(job.id),
                str(job.project),
                job.kind,
                job.state,
                one_line(job.asked_by, 40),
                _what(job),
            )
        )
    return _table(rows)


NO_PROJECT = "No project is connected yet."


def _project(project: ProjectView) -> str:
    lines = [
        f"Project {project.id}: {one_line(project.title, 60) or 'without a title'} "
        f"(project {project.label_studio_id} of {project.url})",
        f"  {project.labelled} of {project.tasks} images labelled",
    ]
    if project.rounds:
        newest = project.rounds[-1]
        lines.append(f"  round {newest.number} is {newest.state}, by {newest.selector}")
    for version in project.versions[-5:]:
        serves = ", serves" if version.serves else ""
        measured = "" if version.value is None else f", {version.metric} {version.value:.3f}"
        lines.append(f"  model version {version.number}{measured}{serves}")
    if project.paused_at:
        lines.append(f"  paused since {project.paused_at:%Y-%m-%d %H:%M} UTC")
    if project.problem:
        lines.append(f"  problem: {project.problem}")
    if project.problem_advice:
        lines.append(f"  what to do: {project.problem_advice}")
    for job in reversed(project.jobs):
        if job.state in ("pending", "running"):
            lines.append(f"  job {job.id} ({job.kind}) {_doing(job)}")
    return "\n".join(lines)


def _doing(job: JobView) -> str:
    return "is waiting" if job.state == "pending" else _what(job)


def _what(job: JobView) -> str:
    """What a job is doing, or what came of it."""
    if job.state == "running":
        left = "" if job.seconds_left is None else f", {estimate(job.seconds_left)} left"
        ending = ", is being cancelled" if job.cancelled_by else ""
        message = f": {job.message}" if job.message else ""
        return f"{job.progress:.0%}{left}{ending}{message}"
    if job.state == "pending":
        return job.error or ""
    return one_line(job.error or job.outcome or "", 100)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
