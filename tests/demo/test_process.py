"""Server processes of the demo: starting, waiting, watching and stopping."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import PATIENCE, is_alive, wait_until

from cdal.demo import process
from cdal.demo.process import DemoError, ServerProcess, free_port, require_free


@pytest.fixture
def make(tmp_path: Path) -> Iterator[type]:
    """Creates servers that run Python programs; all of them are stopped at the end."""
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
    wait_until(f"{text!r} in the log", lambda: text in log_of(server))


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_starts_answers_and_stops(make: type) -> None:
    port = free_port()
    server = make(WEB, str(port))
    server.start()
    waits = []
    server.wait_until_up(f"http://127.0.0.1:{port}/", PATIENCE, lambda: waits.append(1))
    assert "listening" in log_of(server)
    pid = server.pid
    assert pid is not None
    server.check_alive()
    server.stop()
    assert not exists(pid)
    assert server.pid is None
    server.stop()  # stopping twice is harmless
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_server_that_stops_by_itself(make: type) -> None:
    server = make("import sys; sys.exit(3)")
    server.start()
    with pytest.raises(DemoError) as caught:
        server.wait_until_up("http://127.0.0.1:9/", PATIENCE)
    assert "The server stopped with exit code 3" in str(caught.value)
    assert str(server.log) in str(caught.value)


def test_a_server_that_never_answers(make: type) -> None:
    server = make("import time; time.sleep(3600)")
    server.start()
    with pytest.raises(DemoError) as caught:
        server.wait_until_up("http://127.0.0.1:9/", 0.5)
    assert "The server did not answer within 0 s" in str(caught.value)
    assert str(server.log) in str(caught.value)


def test_a_server_that_ignores_the_signal_is_killed_with_its_children(
    make: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.3)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    child = stubborn + "print('ready', flush=True); time.sleep(3600)"
    server = make(
        "import subprocess, sys; " + stubborn + "child = subprocess.Popen("
        f"[sys.executable, '-c', {child!r}]); print('child', child.pid, flush=True); child.wait()"
    )
    server.start()
    wait_for_log(server, "ready")
    started = [server.pid, int(log_of(server).split("child ")[1].split()[0])]
    server.stop()
    wait_until("end", lambda: not any(is_alive(pid) for pid in started))


def test_its_environment_and_its_log_which_later_starts_continue(make: type) -> None:
    for greeting in ("hello", "again"):
        server = make("import os; print(os.environ['GREETING'])", GREETING=greeting)
        server.start()
        wait_for_log(server, greeting)
    assert log_of(server) == "hello\nagain\n"


def test_it_has_its_own_session(make: type) -> None:
    """So Ctrl-C reaches only the demo, which then stops it."""
    server = make("import os; print('session', os.getsid(0), os.getpid(), flush=True); input()")
    server.start()
    wait_for_log(server, "session")
    _, session, pid = log_of(server).split()[:3]
    assert session == pid


def test_free_ports_are_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DemoError, match=f"Port {port} is in use"):
            require_free(port)
    require_free(port)
