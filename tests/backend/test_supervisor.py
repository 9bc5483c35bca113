"""The processes of `cdal serve`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.forked import ended
from support.offline import make_config
from support.processes import (
    PATIENCE,
    children,
    environment,
    is_alive,
    serving,
    wait_until,
    worker_runs,
)

from cdal.backend.supervisor import web_command

pytestmark = pytest.mark.slow


def test_it_stops_both_on_a_signal_and_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
        started = children(process.pid)
        assert len(started) == 3  # gunicorn, the web process that it keeps, and the worker
        # While it runs, no other worker may take its data folder.
        other = ended(environment(tmp_path), "worker")
        assert other.returncode == 1
        assert other.stderr.endswith(
            f"cdal: Another worker runs on the data folder {tmp_path}; stop it, or set MODEL_DIR.\n"
        )
        assert "Traceback" not in other.stderr
        assert worker_runs(tmp_path)

        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0
        assert not [pid for pid in started if is_alive(pid)]
        assert not worker_runs(tmp_path)
        assert "Traceback" not in output
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")


STAND_INS = """
import sys
from cdal.backend import supervisor
from cdal.backend.config import server_config

supervisor.STOP_SECONDS = 0.2
supervisor.web_command = lambda _: [sys.executable, "-c", "import signal; signal.pause()", "web"]
supervisor.worker_command = lambda: [sys.executable, "-c", sys.argv[1], "worker"]
sys.exit(supervisor.serve(server_config()))
"""

WAITS = "import signal; signal.pause()"

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(900)"


def ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


@contextmanager
def waiting(
    folder: Path, worker: str = WAITS
) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A parent whose two processes only wait for a signal, and their ids.

    What the real ones do when they get it is tested above.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", STAND_INS, worker],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started: dict[str, int] = {}

    def both() -> bool:
        for pid in children(process.pid):
            last = Path(f"/proc/{pid}/cmdline").read_text().removesuffix("\0").rpartition("\0")[2]
            started[last] = pid
        return {"web", "worker"} <= set(started)

    try:
        wait_until("web process and worker", both)
        yield process, {name: started[name] for name in ("web", "worker")}
    finally:
        for pid in (process.pid, *started.values()):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_when_the_worker_dies_it_ends_too(tmp_path: Path) -> None:
    """So that whatever started it notices and starts both again."""
    with waiting(tmp_path) as (process, started):
        os.kill(started["worker"], signal.SIGKILL)
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 1
        assert "The worker ended with code -9." in output
        wait_until("end", lambda: not any(map(is_alive, started.values())))


def test_one_that_does_not_stop_is_killed_and_named(tmp_path: Path) -> None:
    with waiting(tmp_path, DEAF) as (process, started):
        wait_until("deaf worker", lambda: ignores_sigterm(started["worker"]))
        process.terminate()
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0
        assert "The worker did not stop within 0.2 s and was killed." in output
        assert not any(map(is_alive, started.values()))


def test_when_it_is_killed_the_two_end_too(tmp_path: Path) -> None:
    """Nobody would be there to stop them, and the next worker would find the folder taken."""
    with waiting(tmp_path) as (process, started):
        process.kill()
        process.wait(PATIENCE)
        wait_until("end", lambda: not any(map(is_alive, started.values())))


def test_the_web_process_listens_where_it_was_told_to(tmp_path: Path) -> None:
    config = make_config(tmp_path, host="127.0.0.1", PORT=9191, threads=3)
    command = web_command(config)
    options = dict(zip(command[3::2], command[4::2], strict=False))
    assert options["--bind"] == "127.0.0.1:9191"
    assert int(options["--threads"]) == config.web_threads > 2 * 3
    assert options["--workers"] == "1"  # one process has the loaded networks and the metrics
    assert options["--timeout"] == "0"
    assert command[-1] == "cdal.backend.web.app:create_app()"


@pytest.mark.parametrize("module", ["supervisor", "commands"])
def test_what_only_starts_others_loads_no_libraries_for_it(module: str) -> None:
    program = f"import sys, cdal.backend.{module}; print({{'torch', 'flask'}} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert said == "set()\n"
