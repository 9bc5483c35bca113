"""A real HTTP server on loopback whose answers a test sets path by path."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


def reply(body: bytes = b"", status: int = 200, **headers: str) -> Answer:
    """An answer with a length; header names are written with underscores."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        fields = {"Content-Length": str(len(body))}
        fields.update({name.replace("_", "-"): text for name, text in headers.items()})
        for name, text in fields.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(body)

    return write


def in_turn(*answers: Answer) -> Answer:
    """One answer after another, the last one from then on."""
    left = list(answers)

    def write(handler: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return write


class Loopback(ThreadingHTTPServer):
    """Serves `routes`; what it was asked is in `requests`, as (path, headers)."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        routes: dict[str, Answer] = {}
        requests: list[tuple[str, Message]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # headers and body in one packet

            def do_GET(self) -> None:
                requests.append((self.path, self.headers))
                answer = routes.get(self.path) or routes.get(self.path.partition("?")[0])
                (answer or reply(b"nothing here", 404))(self)

            do_POST = do_GET  # noqa: N815 — the server calls it so

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__((host, 0), Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.routes = routes
        self.requests = requests
        self.url = f"http://{host}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""

    def __enter__(self) -> Loopback:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()
