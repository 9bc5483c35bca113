"""The commands that watch and steer a backend, in whatever process it runs."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from cdal.backend import actions
from cdal.backend.config import ServerConfig
from cdal.backend.errors import ActionError
from cdal.backend.loop.rounds import on_job_given_up
from cdal.backend.reports.health import worker_status
from cdal.backend.reports.jobs import jobs_status
from cdal.backend.reports.project import project_status
from cdal.backend.services import Services
from cdal.backend.store.folder import check_database
from cdal.backend.store.queries import find_project
from cdal.backend.store.tables import Project
from cdal.backend.text import estimate, one_line

WATCH_SECONDS = 2.0

CLEAR = "\x1b[H\x1b[2J"

Steer = Callable[[Services, argparse.Namespace, str], actions.Done]

ACTIONS: Mapping[str, Steer] = {
    "cancel": lambda services, a, by: actions.cancel(services, a.job, by),
    "retry": lambda services, a, by: actions.retry(services, a.job, by),
    "retrain": lambda services, a, by: actions.retrain(services, a.project, by),
    "rescore": lambda services, a, by: actions.rescore(services, a.project, by),
    "rollback": lambda services, a, by: actions.roll_back(services, a.project, a.version, by),
    "pause": lambda services, a, by: actions.pause(services, a.project, by),
    "forget": lambda services, a, by: actions.forget(services, a.project, by),
    "resume": lambda services, a, by: actions.resume(services, a.project, by),
}


def run(config: ServerConfig, arguments: argparse.Namespace) -> int:
    """Run a command.

    Returns:
        0, or 1 where there is no backend's data or what is asked for is impossible, which one
        sentence then says.

    Raises:
        DataFolderError: the database cannot be used.
    """
    logging.getLogger("cdal").setLevel(logging.WARNING)  # the answer is what is printed
    config.data_folder = config.data_folder.resolve()
    there = config.data_folder if config.database_url else config.data_folder / "cdal.sqlite"
    if not there.exists():
        return _refuse(
            f"There is no backend's data in {config.data_folder}; set MODEL_DIR as for the backend."
        )
    check_database(config)
    services = Services.open(config, on_job_given_up)
    try:
        steer = ACTIONS.get(arguments.command)
        if steer is None:
            _show(services, arguments)
        else:
            done = steer(services, arguments, f"{_user()} on the command line")
            _write(json.dumps(asdict(done)) if arguments.json else done.text)
    except ActionError as error:
        return _refuse(str(error))
    finally:
        services.store.close()
    return 0


def _show(services: Services, arguments: argparse.Namespace) -> None:
    """Print once, or again and again until Ctrl-C."""
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
    data, as_text = _look(services, arguments)
    return json.dumps(data) if arguments.json else as_text(data)


def _look(
    services: Services, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], str]]:
    number = getattr(arguments, "project", None)
    with services.store.reading() as session:
        if number is not None:
            find_project(session, number)
        if arguments.command == "jobs":
            found = jobs_status(session, number, arguments.state, limit=arguments.limit)
            return {"jobs": found}, jobs_text
        query = select(Project).order_by(Project.id)
        if number is not None:
            query = query.filter_by(id=number)
        projects = [project_status(session, project) for project in session.scalars(query)]
        if arguments.command == "projects":
            return {"projects": projects}, projects_text
        return {"worker": worker_status(session), "projects": projects}, status_text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"


def _write(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"cdal: {sentence}\n")
    return 1


Data = dict[str, Any]


def status_text(data: Data) -> str:
    """The worker, then each project and what is done for it now."""
    blocks = [data["worker"]["text"]]
    blocks += [_project(project) for project in data["projects"]] or [_NONE]
    return "\n\n".join(blocks)


def projects_text(data: Data) -> str:
    """A line a project."""
    if not data["projects"]:
        return _NONE
    rows = [("project", "title", "labelled", "round", "model version", "state")]
    for project in data["projects"]:
        newest = project["rounds"][-1] if project["rounds"] else None
        rows.append(
            (
                str(project["id"]),
                one_line(project["title"], 40) or "—",
                f"{project['labelled']} of {project['tasks']}",
                f"{newest['number']} ({newest['state']})" if newest else "—",
                str(project["serving_version"] or "—"),
                "paused" if project["paused_at"] else "problem" if project["problem"] else "well",
            )
        )
    return _table(rows)


def jobs_text(data: Data) -> str:
    """A line a job."""
    if not data["jobs"]:
        return "There are no such jobs."
    rows = [("job", "project", "kind", "state", "asked by", "what")]
    for job in data["jobs"]:
        rows.append(
            (
                str(job["id"]),
                str(job["project"]),
                job["kind"],
                job["state"],
                one_line(job["asked_by"], 40),
                _what(job),
            )
        )
    return _table(rows)


_NONE = "No project is connected yet."


def _project(project: Data) -> str:
    lines = [
        f"Project {project['id']}: {one_line(project['title'], 60) or 'without a title'} "
        f"(project {project['label_studio_id']} of {project['url']})",
        f"  {project['labelled']} of {project['tasks']} images labelled",
    ]
    if project["rounds"]:
        newest = project["rounds"][-1]
        lines.append(f"  round {newest['number']} is {newest['state']}, by {newest['selector']}")
    for version in project["versions"][-5:]:
        serves = ", serves" if version["number"] == project["serving_version"] else ""
        metric = f", {version['metric']} {version['value']:.3f}" if version["metric"] else ""
        lines.append(f"  model version {version['number']}{metric}{serves}")
    if project["paused_at"]:
        lines.append(f"  paused since {project['paused_at']}")
    if project["problem"]:
        lines.append(f"  problem: {project['problem']}")
    for job in reversed(project["jobs"]):
        if job["state"] in ("pending", "running"):
            lines.append(f"  job {job['id']} ({job['kind']}) {_doing(job)}")
    return "\n".join(lines)


def _doing(job: Data) -> str:
    return "waits" if job["state"] == "pending" else _what(job)


def _what(job: Data) -> str:
    """What a job does now, or what came of it."""
    if job["state"] == "running":
        left = "" if job["seconds_left"] is None else f", {estimate(job['seconds_left'])} left"
        ending = ", is being cancelled" if job["cancelled_by"] else ""
        message = f": {job['message']}" if job["message"] else ""
        return f"{job['progress']:.0%}{left}{ending}{message}"
    if job["state"] == "pending":
        return job["error"] or ""
    return one_line(job["error"] or job["outcome"] or "", 100)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
