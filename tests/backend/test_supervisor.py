"""The processes of `cdal serve`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
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
        other = subprocess.run(
            [sys.executable, "-m", "cdal", "worker"],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
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


def test_when_the_worker_dies_it_ends_too(tmp_path: Path) -> None:
    """So that whatever started it notices and starts both again."""
    with serving(tmp_path) as (process, _):
        started = children(process.pid)
        (worker,) = [
            pid
            for pid in started
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"cdal\0worker\0")
        ]
        subprocess.run(["kill", "-KILL", str(worker)], check=True)
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 1
        assert "The worker ended with code -9." in output
        wait_until("end", lambda: not [pid for pid in started if is_alive(pid)])


def test_when_it_is_killed_the_two_end_too(tmp_path: Path) -> None:
    """Nobody would be there to stop them, and the next worker would find the folder taken."""
    with serving(tmp_path) as (process, _):
        started = children(process.pid)
        process.kill()
        process.wait(PATIENCE)
        wait_until("end", lambda: not [pid for pid in started if is_alive(pid)])
        assert not worker_runs(tmp_path)


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
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout == "set()\n"
