"""`cdal` run in separate processes, without a Label Studio."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from cdal.demo.process import NO_TLS, free_port

PATIENCE = 900.0
"""The most seconds a test waits for anything: far more than the busiest machine needs."""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment without the backend's variables, except those that a test sets."""
    ours = ("LABEL_STUDIO_", "CDAL_", "BASIC_AUTH_", "MODEL_DIR", "PORT", "LOG_LEVEL", "THREADS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "MODEL_DIR": str(folder), "CDAL_HOST": "127.0.0.1", **more}


def wait_until(what: str, reached: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"after {seconds} s still no {what}"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """A process's children, and theirs."""
    found = [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for child in found for below in children(child)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def worker_runs(folder: Path) -> bool:
    """Whether a worker holds the data folder."""
    try:
        with (folder / "worker.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def serving(
    folder: Path, cdal: Sequence[str] = (sys.executable, "-m", "cdal"), **more: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `cdal serve` and its address; what is left of it at the end is killed."""
    port = free_port()
    process = subprocess.Popen(
        [*cdal, "serve"],
        env=environment(folder, PORT=str(port), **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started: list[int] = []
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until("web process and worker", lambda: _answers(url) and worker_runs(folder))
        started = children(process.pid)
        yield process, url
    finally:
        for pid in [process.pid, *started]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1.0, verify=NO_TLS).status_code == 200
    except httpx.HTTPError:
        return False
