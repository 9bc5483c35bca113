"""The backend's processes, forked from one that has their imports.

The imports take most of a start's time, eight seconds for each process. Otherwise the processes are
those of `cdal web` and `cdal worker`; the real commands are tested with the fixture `new_backend`,
in test_supervisor.py and in test_package.py.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import gunicorn.app.wsgiapp

from cdal.backend import commands
from cdal.backend.config import server_config
from cdal.backend.supervisor import web_command
from cdal.cli import main
from cdal.demo.backend import START_SECONDS, BackendServer
from cdal.demo.process import free_port

PRELOADED = [
    "cdal.backend.web.app", "cdal.backend.worker", "cdal.cli", "gunicorn.app.wsgiapp",
    # The first training of each worker would import these.
    "timm", "torchmetrics.classification", "torchmetrics.detection",
    # And its first map.
    "sklearn.decomposition", "sklearn.manifold",
]  # fmt: skip

Target = Callable[[Mapping[str, str], Path], None]
"""Runs a process with these environment variables and this log, and never returns."""


def fork(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run a function in a process that has the backend's imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def begin(environment: Mapping[str, str], log: Path) -> None:
    """Make this process's surroundings those of a command that was just started."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)


def web(environment: Mapping[str, str], log: Path) -> None:
    """Run the web process as `cdal serve` does."""
    begin(environment, log)
    sys.argv = web_command(server_config())[2:]
    gunicorn.app.wsgiapp.run()


def worker(environment: Mapping[str, str], log: Path) -> None:
    """Run the worker as `cdal serve` does."""
    begin(environment, log)
    sys.exit(commands.worker())


def command(environment: Mapping[str, str], *arguments: object) -> str:
    """Run `cdal` with these arguments in a process of its own; returns its standard output."""
    done = ended(environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ended(
    environment: Mapping[str, str], *arguments: object, user: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `cdal` with these arguments as `command` does, where it may fail.

    Args:
        environment: the variables of the process.
        arguments: of the command.
        user: who runs it, if this process may change that.
    """
    given = [str(each) for each in arguments]
    with tempfile.TemporaryDirectory() as folder:
        said, errors = Path(folder) / "said", Path(folder) / "errors"
        process = fork(_command, environment, said, errors, given, user)
        process.join()
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(given, code, said.read_text(), errors.read_text())


def _command(
    environment: Mapping[str, str],
    said: Path,
    errors: Path,
    arguments: Sequence[str],
    user: int | None,
) -> None:
    begin(environment, errors)
    with said.open("w") as sys.stdout:
        if user is not None and os.getuid() == 0:
            os.setgid(user)
            os.setuid(user)
        sys.exit(main(arguments))


class ForkedServer(BackendServer):
    """A web process or a worker, started by forking."""

    def __init__(
        self,
        folder: Path,
        port: int,
        label_studio_url: str,
        token: str,
        environment: Mapping[str, str],
        target: Target,
    ) -> None:
        super().__init__(folder, port, label_studio_url, token, environment)
        self._target = target

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **self.environment}
        self._process = _Started(fork(self._target, environment, self.log))  # type: ignore[assignment]


class ForkedBackend(ForkedServer):
    """Web process and worker on a data folder of their own; both log to the same file."""

    def __init__(
        self,
        folder: Path,
        label_studio_url: str,
        token: str,
        environment: Mapping[str, str],
        port: int | None = None,
        run_worker: Target = worker,
    ) -> None:
        given = (label_studio_url, token, environment)
        super().__init__(folder, port or free_port(), *given, target=web)
        self.worker = ForkedServer(folder, free_port(), *given, target=run_worker)

    def start(self) -> None:
        super().start()
        self.worker.start()
        self.wait_until_up(f"{self.url}/health", START_SECONDS)

    def check_alive(self) -> None:
        super().check_alive()
        self.worker.check_alive()

    def stop(self) -> None:
        super().stop()
        self.worker.stop()


class _Started:
    """A forked process by the names that `subprocess.Popen` has."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid
        self.terminate = process.terminate

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode
