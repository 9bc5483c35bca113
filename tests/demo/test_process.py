"""Servers that the demo starts: waited for, watched, stopped."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdal.demo import process
from cdal.demo.process import DemoError, ServerProcess, free_port, require_free


@pytest.fixture
def make(tmp_path: Path) -> Iterator[type]:
    """Makes servers of Python programs; all are stopped in the end."""
    made: list[ServerProcess] = []

    class Server(ServerProcess):
        def __init__(self, program: str, *arguments: str, **environment: str) -> None:
            command = [sys.executable, "-c", program, *arguments]
            super().__init__("The server", command, environment, tmp_path / "logs" / "server.log")
            made.append(self)

    yield Server
    for server in made:
        server.stop()


WEB = (
    "import http.server, sys; print('listening', flush=True); "
    "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), "
    "http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def log_of(server: ServerProcess) -> str:
    return server.log.read_text() if server.log.exists() else ""


def wait_for_log(server: ServerProcess, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in log_of(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_waited_for_and_stopped(make: type) -> None:
    port = free_port()
    server = make(WEB, str(port))
    server.start()
    waits = []
    server.wait_until_up(f"http://127.0.0.1:{port}/", 30, lambda: waits.append(1))
    assert "listening" in log_of(server)
    pid = server.pid
    assert pid is not None
    server.check_alive()
    server.stop()
    assert not exists(pid)
    assert server.pid is None
    server.stop()  # once more does no harm
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_one_that_ends_by_itself_is_noticed(make: type) -> None:
    server = make("import sys; sys.exit(3)")
    server.start()
    with pytest.raises(DemoError) as caught:
        server.wait_until_up("http://127.0.0.1:9/", 30)
    assert str(caught.value) == f"The server ended with code 3; see {server.log}."


def test_one_that_never_answers_is_given_up(make: type) -> None:
    server = make("import time; time.sleep(60)")
    server.start()
    with pytest.raises(DemoError) as caught:
        server.wait_until_up("http://127.0.0.1:9/", 0.5)
    assert str(caught.value) == f"The server did not answer within 0 s; see {server.log}."


def test_one_that_does_not_listen_to_the_signal_is_killed_with_what_it_started(
    make: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.3)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    child = stubborn + "print('ready', flush=True); time.sleep(60)"
    server = make(
        "import subprocess, sys; " + stubborn + "child = subprocess.Popen("
        f"[sys.executable, '-c', {child!r}]); print('child', child.pid, flush=True); child.wait()"
    )
    server.start()
    wait_for_log(server, "ready")
    started = [server.pid, int(log_of(server).split("child ")[1].split()[0])]
    server.stop()
    deadline = time.monotonic() + 5
    while any(exists(pid) and not _is_zombie(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_its_environment_and_a_log_that_a_later_start_goes_on_with(make: type) -> None:
    for greeting in ("hello", "again"):
        server = make("import os; print(os.environ['GREETING'])", GREETING=greeting)
        server.start()
        wait_for_log(server, greeting)
    assert log_of(server) == "hello\nagain\n"


def test_it_is_in_a_session_of_its_own(make: type) -> None:
    """Ctrl-C reaches the demo alone, which then stops it."""
    server = make("import os; print('session', os.getsid(0), os.getpid(), flush=True); input()")
    server.start()
    wait_for_log(server, "session")
    _, session, pid = log_of(server).split()[:3]
    assert session == pid


def test_free_ports_are_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DemoError, match=f"Port {port} is taken"):
            require_free(port)
    require_free(port)
