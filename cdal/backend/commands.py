"""The commands that run the backend.

`serve` and `web` only check the data folder and make way for another program, so what takes long to
import is imported where it is used.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from cdal.backend.config import ServerConfig, server_config
from cdal.backend.errors import BackupError, DataFolderError, WorkerError
from cdal.backend.logs import never_show, set_up_logging
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.folder import check_data_folder
from cdal.backend.supervisor import serve_command, web_command

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

CANNOT_LOAD = 4
"""gunicorn ends when a process of its ends with this, instead of starting another."""


def serve() -> int:
    """Become the parent of the web process and the worker."""
    return _become(serve_command)


def web() -> int:
    """Become the web process."""
    return _become(web_command)


def application() -> Flask:
    """The WSGI application for any server; where it cannot run, this process ends."""
    config = _config()
    if config is None or not _is_usable(config):
        sys.exit(CANNOT_LOAD)
    from cdal.backend.web.app import create_app

    return create_app(config)


def worker() -> int:
    """Run the worker; returns only if it cannot run."""
    from cdal.backend.worker import run_worker

    config = _config()
    if config is None:
        return 2
    try:
        run_worker(config)
    except (WorkerError, DataFolderError) as error:
        sys.stderr.write(f"cdal: {error}\n")
        return 1
    except STORAGE as error:  # while it starts; later, its jobs wait
        sys.stderr.write(f"cdal: The worker cannot start. {storage_problem(error)}\n")
        return 1
    return _end_at_once()


def _end_at_once() -> NoReturn:
    """End without tearing the interpreter down.

    With torch loaded, that takes two seconds of processor time, and twenty on a busy machine; a
    container that is stopped has ten.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def backup(target: Path) -> int:
    """Back the data folder up, also while the backend runs."""
    from cdal.backend.store.backup import back_up

    config = _config()
    if config is None:
        return 2
    try:
        versions = back_up(config, target.absolute())
    except (BackupError, DataFolderError) as error:
        sys.stderr.write(f"cdal: {error}\n")
        return 1
    what = f"{versions} model versions with their scores"
    if config.database_url is None:
        what = f"the database and {what}"
    sys.stdout.write(f"{target} holds {what}.\n")
    return 0


def control(arguments: argparse.Namespace) -> int:
    """Watch or steer the backend whose data the environment names."""
    from cdal.backend.admin_cli import run as run_control

    config = _config(ServerConfig)  # this creates no folder
    if config is None:
        return 2
    try:
        return run_control(config, arguments)
    except DataFolderError as error:
        sys.stderr.write(f"cdal: {error}\n")
    except BrokenPipeError:  # of the output, not of the data folder
        raise
    except STORAGE as error:
        sys.stderr.write(f"cdal: {storage_problem(error)}\n")
    return 1


def _become(command_for: Callable[[ServerConfig], list[str]]) -> int:
    """Replace this process by another program, so that signals reach that program."""
    config = _config()
    if config is None:
        return 2
    if not _is_usable(config):
        return 1
    if config.host is None and config.basic_auth_user is None:
        log.info(
            "Only this machine can reach the backend. To let others, set BASIC_AUTH_USER and "
            "BASIC_AUTH_PASS, or CDAL_HOST."
        )
    command = command_for(config)
    os.execv(command[0], command)  # noqa: S606 — nothing of it comes from outside
    return 0


def _is_usable(config: ServerConfig) -> bool:
    """Whether the data folder and the database are usable; checked once, not in each process."""
    try:
        check_data_folder(config)
    except DataFolderError as error:
        sys.stderr.write(f"cdal: {error}\n")
        return False
    return True


def _config(read: Callable[[], ServerConfig] = server_config) -> ServerConfig | None:
    """The configuration; each mistake in it is reported in a sentence."""
    try:
        config = read()
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            sys.stderr.write(f"cdal: {_sentence(fault['loc'], fault['msg'])}\n")
        return None
    except OSError as error:
        sys.stderr.write(f"cdal: the data folder (MODEL_DIR) cannot be made: {error.strerror}\n")
        return None
    set_up_logging(config.log_level, config.log_format)
    never_show(*config.secrets())
    return config


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    if not where:
        return message.removeprefix("Value error, ")
    name = str(where[0])
    # Pydantic names a variable without an alias by its field.
    variable = name if name.isupper() else f"CDAL_{name.upper()}"
    message = message.removeprefix("Value error, ")
    return f"the environment variable {variable} is wrong: {message[:1].lower()}{message[1:]}."
