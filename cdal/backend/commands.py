"""The commands that run the backend."""

from __future__ import annotations

import os
import sys

from pydantic import ValidationError

from cdal.backend.config import ServerConfig, server_config
from cdal.backend.logs import set_up_logging
from cdal.backend.serve import serve as serve_both
from cdal.backend.serve import web_command
from cdal.backend.store import Store, StoreError
from cdal.backend.worker import WorkerError, run_worker


def serve() -> int:
    """Run web process and worker under one parent."""
    config = _config()
    if config is None:
        return 2
    return 0 if _opens(config) and serve_both(config) == 0 else 1


def web() -> int:
    """Become the web process."""
    config = _config()
    if config is None:
        return 2
    if not _opens(config):
        return 1
    command = web_command(config)
    # It must itself be the one that is told to stop.
    os.execv(command[0], command)  # noqa: S606 — nothing of it comes from outside
    return 0


def worker() -> int:
    """Run the worker."""
    config = _config()
    if config is None:
        return 2
    try:
        run_worker(config)
    except (WorkerError, StoreError) as error:
        sys.stderr.write(f"cdal: {error}\n")
        return 1
    return 0


def _opens(config: ServerConfig) -> bool:
    """Whether the database opens; here, to say so once, rather than in each web process."""
    try:
        Store(config.store_url).close()
    except StoreError as error:
        sys.stderr.write(f"cdal: {error}\n")
        return False
    return True


def _config() -> ServerConfig | None:
    """The configuration, its faults told in sentences."""
    try:
        config = server_config()
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            sys.stderr.write(f"cdal: {_sentence(fault['loc'], fault['msg'])}\n")
        return None
    except OSError as error:
        sys.stderr.write(f"cdal: the data folder (MODEL_DIR) cannot be made: {error.strerror}\n")
        return None
    set_up_logging(config.log_level)
    return config


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    if not where:
        return message.removeprefix("Value error, ")
    name = str(where[0])
    # Pydantic names a variable that has no alias by its field.
    variable = name if name.isupper() else f"CDAL_{name.upper()}"
    message = message.removeprefix("Value error, ")
    return f"the environment variable {variable} is wrong: {message[:1].lower()}{message[1:]}."
