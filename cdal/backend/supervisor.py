"""The parent process of `cdal serve`: web and workers, started and stopped together.

It runs as a module of its own, without the command line's imports: this process only waits, and
would otherwise hold half a gigabyte of memory for nothing.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from cdal.backend.config import ServerConfig, server_config
from cdal.backend.logs import set_up_logging

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
WORKER_VARIABLE = "CDAL_WORKER"
"""The environment variable that numbers the workers from 0."""

STOP_SECONDS = 60.0
"""How long both may take to stop; a training stops within a batch."""


def serve(config: ServerConfig) -> int:
    """Run the web process and the workers until SIGTERM or SIGINT, or until one of them ends.

    Returns:
        0 after a signal, 1 if a process ended by itself.
    """
    stop = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    # In sessions of their own, so that Ctrl-C reaches only the parent, which stops them in order.
    tie = end_with_parent(os.getpid())
    processes = {
        name: subprocess.Popen(
            command, start_new_session=True, preexec_fn=tie, env={**os.environ, **environment}
        )
        for name, command, environment in _commands(config)
    }
    ended = None
    while not stop and ended is None:
        time.sleep(0.1)
        ended = next((name for name, p in processes.items() if p.poll() is not None), None)
    if ended is not None:
        log.error("The %s ended with code %s.", ended, processes[ended].returncode)
    _stop(processes)
    return 0 if ended is None else 1


def _commands(config: ServerConfig) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """The processes: how each is called, its command, and what its environment has besides ours."""
    yield "web process", web_command(config), {}
    for index in range(config.workers):
        name = "worker" if config.workers == 1 else f"worker {index + 1}"
        yield name, worker_command(), {WORKER_VARIABLE: str(index)}


def end_with_parent(parent: int) -> Callable[[], None]:
    """What a new process runs so that it is told to stop when its parent ends, even by SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)

    def tie() -> None:
        # Only Linux has it; elsewhere, killing the parent leaves both running.
        if hasattr(libc, "prctl"):
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before this
            os._exit(1)

    return tie


def serve_command(_config: ServerConfig) -> list[str]:
    """The command that runs this parent."""
    return [sys.executable, "-m", "cdal.backend.supervisor"]


def web_command(config: ServerConfig) -> list[str]:
    """The command that runs the web process."""
    host = config.listening_host
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        f"[{host}]:{config.port}" if ":" in host else f"{host}:{config.port}",
        "--workers",
        "1",
        "--threads",
        str(config.web_threads),
        "--timeout",
        "0",
        "--graceful-timeout",
        "5",
        "--log-level",
        config.log_level.lower(),
        "--logger-class",
        "cdal.backend.web.gunicorn_logger.PlainLogger",
        # All backends of one user would share it, and nobody needs it.
        "--no-control-socket",
        "cdal.backend.web.app:create_app()",
    ]


def worker_command() -> list[str]:
    """The command that runs the worker."""
    return [sys.executable, "-m", "cdal", "worker"]


def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for name, process in processes.items():
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("The %s did not stop within %g s and was killed.", name, STOP_SECONDS)
            process.kill()
            process.wait()


if __name__ == "__main__":
    of_the_environment = server_config()
    set_up_logging(of_the_environment.log_level, of_the_environment.log_format)
    sys.exit(serve(of_the_environment))
