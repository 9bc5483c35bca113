"""Connections to Label Studio: to its own host only, and never to a cloud's metadata.

The answers of whatever server a caller of `/setup` named are limited in time and size.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpcore
import httpx

from cdal.backend.addresses import ANY_HOST
from cdal.backend.connections import LATE, UNREACHABLE, root_failure, tls_context
from cdal.backend.errors import ImageError

MOST_BYTES = 512 << 20
"""Of an answer: a thousand tasks of half a megabyte, such as images within the task data."""

WHOLE_S = 300.0
"""Seconds within which an answer must be complete. A socket's timeout begins again with each byte,
so a server that sends a byte per minute would otherwise hold a job's thread for days."""

_MOST_REDIRECTS = 5
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
_WRITTEN_AT_ONCE = 1 << 16


class AnswerError(httpx.DecodingError):
    """An answer that is not read, for a reason that follows Label Studio's name."""


class _Deadline:
    """When the answer to a thread's current request must be complete."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def begin(self, seconds: float) -> None:
        self._of_thread.at = time.monotonic() + seconds

    def limit(self, timeout: float | None, late: type[Exception]) -> float | None:
        """A timeout that does not exceed the deadline; raises `late` where nothing is left."""
        at = getattr(self._of_thread, "at", None)
        if at is None:
            return timeout
        left: float = at - time.monotonic()
        if left <= 0:
            raise late("the answer was not complete in time")
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A connection whose user's deadline counts."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        limit = self._deadline.limit(timeout, httpcore.ReadTimeout)
        return self._stream.read(max_bytes, limit)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITTEN_AT_ONCE):
            limit = self._deadline.limit(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _WRITTEN_AT_ONCE], limit)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        limit = self._deadline.limit(timeout, httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, limit)
        return _Stream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore.SyncBackend):
    """Resolves a name once and connects only to the addresses that were checked."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = ANY_HOST.addresses(host, port)
        except (ImageError, OSError, UnicodeError) as error:
            raise httpcore.ConnectError("no address that may be connected to") from error
        failure: Exception = httpcore.ConnectError("no address")
        for address in addresses:
            limit = self._deadline.limit(timeout, httpcore.ConnectTimeout)
            try:
                stream = super().connect_tcp(address, port, limit, local_address, socket_options)
                return _Stream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Answer(httpx.Response):
    """An answer of limited size, also where it is compressed."""

    most_bytes: int

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        size = 0
        for chunk in super().iter_bytes(chunk_size):
            size += len(chunk)
            if size > self.most_bytes:
                raise AnswerError(f"sent more than {self.most_bytes >> 20} MB")
            yield chunk


class _Transport(httpx.HTTPTransport):
    def __init__(self, whole_s: float, most_bytes: int) -> None:
        super().__init__(verify=tls_context())  # else it reads hundreds of certificates
        self._whole_s = whole_s
        self._most_bytes = most_bytes
        self._deadline = _Deadline()
        # httpx has no argument for it; test_transport.py would notice if httpx renamed it.
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls_context(),
            network_backend=_Network(self._deadline),
            # The defaults of httpx.
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeout = request.extensions.get("timeout", {}).get("read") or 0.0
        self._deadline.begin(max(self._whole_s, timeout))
        given = super().handle_request(request)
        # A kilobyte of other encodings, or of several, may become gigabytes at once.
        if given.headers.get("Content-Encoding", "").strip().lower() not in _ENCODINGS:
            given.close()
            raise AnswerError("answers in an encoding that was not requested")
        answer = _Answer(
            given.status_code,
            headers=given.headers,
            stream=given.stream,
            extensions=given.extensions,
        )
        answer.most_bytes = self._most_bytes
        return answer


def open_http(
    url: str, timeout_s: float, whole_s: float = WHOLE_S, most_bytes: int = MOST_BYTES
) -> httpx.Client:
    """Open a client for Label Studio at an address, which any caller of `/setup` may have named.

    It follows redirects to the same host only, since requests may carry a token. As for images,
    it ignores proxies in the environment.

    Args:
        url: the address.
        timeout_s: seconds without a byte after which a request fails.
        whole_s: seconds within which an answer must be complete, unless a request's own timeout is
            longer.
        most_bytes: the largest answer that is read, once unpacked.
    """
    return httpx.Client(
        headers={"Accept-Encoding": "gzip, deflate"},
        timeout=timeout_s,
        follow_redirects=True,
        max_redirects=_MOST_REDIRECTS,
        transport=_Transport(whole_s, most_bytes),
        event_hooks={"request": [_same_host(url)]},
    )


def failure_of(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    """Why a request got no answer, to follow Label Studio's name or address."""
    match error:
        case httpx.InvalidURL():
            return "has an address that is not valid"
        case httpx.UnsupportedProtocol() | httpx.TooManyRedirects():
            return "redirects to an address that is not its own"
        case httpx.LocalProtocolError():
            return "cannot be sent this access token, which contains characters that no token has"
        case httpx.TimeoutException():
            return LATE
        case AnswerError():
            return str(error)
        case httpx.DecodingError():
            return "sent an answer that cannot be unpacked"
    known = root_failure(error)
    if known is not None:
        return known
    if isinstance(error, httpx.ConnectError):
        return UNREACHABLE
    return "closed the connection before the whole answer had arrived"


def _same_host(url: str) -> Callable[[httpx.Request], None]:
    host = httpx.URL(url).host

    def check(request: httpx.Request) -> None:
        if request.url.host != host:
            raise httpx.UnsupportedProtocol("a redirect to another host", request=request)

    return check
