"""A proxy between backend and Label Studio that makes requests fail as they do on a bad day."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import httpx

from cdal.demo.process import NO_TLS
from support.processes import PATIENCE

Forward = Callable[[], httpx.Response]
Fault = Callable[[Forward], httpx.Response | None]
"""Handles a request; None cuts the connection."""


def answers(status: int) -> Fault:
    """Answer with this status instead of passing the request on."""
    return lambda _: httpx.Response(status, json={"detail": "Caused by a test."})


def cut_before(_: Forward) -> None:
    """Cut the connection before anything was done."""


def cut_after(forward: Forward) -> None:
    """Cut the connection after the request was done, so that the client never learns of it."""
    forward()


def slow(seconds: float) -> Fault:
    def wait(forward: Forward) -> httpx.Response:
        time.sleep(seconds)
        return forward()

    return wait


def meanwhile(happens: Callable[[], None]) -> Fault:
    """Do something just before passing the request on."""

    def act(forward: Forward) -> httpx.Response:
        happens()
        return forward()

    return act


class FaultyLabelStudio(ThreadingHTTPServer):
    """Passes every request on, except those that a fault is waiting for."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        faults: list[tuple[str, str, Fault]] = []
        always: list[Fault] = []
        happened: list[str] = []
        lock = Lock()
        client = httpx.Client(base_url=url, timeout=PATIENCE, verify=NO_TLS)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kept = {k: v for k, v in self.headers.items() if k.lower() != "connection"}

                def forward() -> httpx.Response:
                    return client.request(self.command, self.path, content=body, headers=kept)

                answer = self._fault()(forward)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Location"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def _fault(self) -> Fault:
                with lock:
                    for waiting in faults:
                        method, part, fault = waiting
                        if method == self.command and part in self.path:
                            faults.remove(waiting)
                            happened.append(f"{method} {part}")
                            return fault
                    return always[0] if always else lambda forward: forward()

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _handle  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.happened = happened
        self._faults = faults
        self._always = always
        self._client = client

    def expect(self, method: str, part: str, *faults: Fault) -> None:
        """Make the next requests to addresses that contain this part fail, one per fault."""
        self._faults += [(method, part, fault) for fault in faults]

    def always(self, fault: Fault | None) -> None:
        """Make every other request fail from now on; None ends this."""
        self._always[:] = [fault] if fault else []

    @property
    def left(self) -> int:
        """How many faults have not happened yet."""
        return len(self._faults)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""

    def __enter__(self) -> FaultyLabelStudio:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()
        self._client.close()
