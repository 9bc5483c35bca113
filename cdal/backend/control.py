"""The commands that watch and steer a backend, in whatever process it runs."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from cdal.backend import actions
from cdal.backend.config import ServerConfig
from cdal.backend.console import jobs_text, projects_text, status_text
from cdal.backend.data_folder import check_database
from cdal.backend.heartbeat import worker_status
from cdal.backend.services import Services
from cdal.backend.status import jobs_status, project_status
from cdal.backend.tables import Project

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
    services = Services.open(config)
    try:
        steer = ACTIONS.get(arguments.command)
        if steer is None:
            _show(services, arguments)
        else:
            done = steer(services, arguments, f"{_user()} on the command line")
            _write(json.dumps(asdict(done)) if arguments.json else done.text)
    except actions.ActionError as error:
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
            actions.find_project(session, number)
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
