"""A server process that the demo starts, waits for and stops."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

STOP_SECONDS = 75.0
"""Longer than the backend waits for its own processes: if it were killed first, they would stay."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of servers on this machine, which speak plain HTTP: it trusts nobody. By default each
client reads the system's hundreds of certificates, which takes longer than most requests."""


class DemoError(Exception):
    """The demo cannot continue; the message is a sentence that says why."""


class ServerProcess:
    """A process that answers HTTP requests and logs to a file."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in its own session: Ctrl-C reaches only the demo, which then stops it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until_up(
        self, address: str, seconds: float, waiting: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the address answers with status 200.

        Raises:
            DemoError: the process stopped, or did not answer in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                if httpx.get(address, timeout=2.0, verify=NO_TLS).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass  # not listening yet
            waiting()
            time.sleep(0.2)
        raise DemoError(f"{self.name} did not answer within {seconds:.0f} s. See {self.log}.")

    def check_alive(self) -> None:
        """Raise `DemoError` if the process has stopped by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise DemoError(
                f"{self.name} stopped with exit code {self._process.returncode}. See {self.log}."
            )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """Terminate it, and kill it if it is still running after `STOP_SECONDS`."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # The session has the id of its first process, so this reaches child processes too.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Check that a port is free; otherwise, another server's answers would pass for ours.

    Raises:
        DemoError: the port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise DemoError(
                f"Port {port} is in use, by another run of the demo or by another program. "
                "Stop it first."
            ) from None
