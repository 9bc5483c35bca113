"""Fetching a file over HTTP without being led to an address that is not allowed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socket import SHUT_RDWR, gaierror, socket
from threading import Event, Timer
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

from urllib3 import BaseHTTPResponse, HTTPResponse, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.util import Url
from urllib3.util.connection import create_connection

from cdal.backend.addresses import ANY_HOST, AllowedHosts, Resolver, resolve
from cdal.backend.connections import LATE, NO_ADDRESS, UNREACHABLE, root_failure, tls_context
from cdal.backend.errors import ImageError, LargerError
from cdal.backend.images.hosts import Hosts
from cdal.backend.images.source import ImageSource, parse_address

# urllib3 logs addresses with their queries, which may be signatures.
logging.getLogger("urllib3").setLevel(logging.ERROR)

_MAX_REDIRECTS = 5
_CONNECT_S = 5.0
_HEADERS_S = 15.0
_CHUNK_BYTES = 1 << 16
_CONNECTIONS = 32  # kept alive for each host
# A host's Retry-After is ignored: it could demand hours.


class _Retries(Retry):
    """Repeats what may go well at once, such as a request on a connection that was just closed.

    A host that has been waited for in vain is not asked again: it would take as long.
    """

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError) or (
            isinstance(error, ProtocolError) and isinstance(error.args[-1], TimeoutError)
        ):
            raise TimeoutError from error
        return super().increment(method, url, response, error, _pool, _stacktrace)


_RETRIES = _Retries(
    total=3,
    connect=1,
    read=1,
    status=2,
    other=0,
    status_forcelist=(429, 500, 502, 503, 504),
    backoff_factor=0.2,
    respect_retry_after_header=False,
    raise_on_status=False,
)


_GONE = (
    "Label Studio cannot return this file (status 500), though it works otherwise; the upload has "
    "probably been removed from its disk."
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file, and the headers that came with it."""

    data: bytes
    headers: Mapping[str, str]


_NONE: Mapping[str, str] = {}


class Fetcher:
    """Fetches files from Label Studio and from the hosts that are allowed.

    Safe to use from many threads; connections are kept alive. Proxies, cookies and credentials
    of the environment (``HTTP_PROXY``, ``.netrc``) are not used.

    Args:
        allowed: The hosts to fetch from, besides Label Studio.
        timeout_s: Seconds within which the body must have arrived, and the headers before it; they
            have at most 15.
        resolver: How names are resolved; for tests.
    """

    def __init__(
        self,
        allowed: AllowedHosts,
        timeout_s: float,
        resolver: Resolver = resolve,
    ) -> None:
        self._timeout_s = timeout_s
        tls = tls_context()
        headers_s = min(timeout_s, _HEADERS_S)
        self._own = _guarded_pools(ANY_HOST, headers_s, resolver, tls)
        self._others = _guarded_pools(allowed, headers_s, resolver, tls)
        self._hosts = Hosts()

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._own.clear()
        self._others.clear()

    def fetch(
        self,
        source: ImageSource,
        address: Url,
        max_bytes: int,
        conditions: Mapping[str, str] = _NONE,
    ) -> Fetched | None:
        """Get a file, following redirects; each is checked as if it had been the address given.

        Args:
            source: where the images of the task's project come from.
            address: of the file.
            max_bytes: the largest size of the file.
            conditions: headers that say which file is known already.

        Returns:
            The file; None if it is the one that is known.

        Raises:
            LargerError: it is too large.
            ImageError: it cannot be fetched; the reason says why.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            own = source.owns(address)
            name = "Label Studio" if own else f"The host {address.host}"
            host = address.netloc or ""
            silent = self._hosts.silent_because(host)
            if silent is not None:
                raise ImageError(f"{name} {silent}.", passes=True)
            headers = dict(source.authorization()) if own else {}
            try:
                response = (self._own if own else self._others).request(
                    "GET",
                    str(address),
                    headers={"User-Agent": "label-studio-cdal", **conditions, **headers},
                    redirect=False,
                    preload_content=False,
                    retries=_RETRIES,
                )
                target = response.get_redirect_location()
                if conditions and response.status == 304:
                    response.close()
                    self._hosts.note_answer(host)
                    return None
                if not target and response.status != 200:
                    response.close()
                    self._hosts.note_answer(host)
                    if own and response.status == 500 and self._works(source):
                        raise ImageError(_GONE)
                    raise _refusal(response.status, name, own=own)
                body = self._body(response, max_bytes)
                self._hosts.note_answer(host)
            except (HTTPError, TimeoutError) as error:
                reason = _failure(error)
                if reason in (LATE, UNREACHABLE):
                    self._hosts.note_silence(host, reason)
                raise ImageError(f"{name} {reason}.", passes=True) from error
            if not target:
                return Fetched(body, response.headers)
            address = _redirected(address, target)
        raise ImageError(f"The image's address redirects more than {_MAX_REDIRECTS} times.")

    def _works(self, source: ImageSource) -> bool:
        """Whether Label Studio itself answers: then it is only this file that it cannot return."""
        try:
            health = self._own.request(
                "GET",
                f"{source.url.rstrip('/')}/health",
                redirect=False,
                retries=False,
                preload_content=False,  # it may be endless
            )
        except (HTTPError, TimeoutError):
            return False
        health.close()
        return health.status == 200

    def _body(self, response: BaseHTTPResponse, max_bytes: int) -> bytes:
        body = bytearray()
        try:
            if (response.length_remaining or 0) > max_bytes:
                raise LargerError(max_bytes)
            with _deadline(self._timeout_s, response.shutdown):
                for chunk in response.stream(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > max_bytes:
                        raise LargerError(max_bytes)
        finally:
            response.close()
        return bytes(body)


def _redirected(address: Url, target: str) -> Url:
    try:
        address = parse_address(urljoin(str(address), target))
    except (ImageError, ValueError) as error:
        raise ImageError("The image's address redirects to one that cannot be fetched.") from error
    if (address.path or "").rstrip("/").endswith("/user/login"):
        raise ImageError(
            "Label Studio requires a login: its access token is missing, expired or refused.",
            passes=True,
        )
    return address


def _refusal(status: int, name: str, *, own: bool) -> ImageError:
    if status in (401, 403):
        why = ": the access token may not read it." if own else "."
        return ImageError(f"{name} refuses to return the image (status {status}){why}", own)
    if status in (404, 410):
        return ImageError(f"{name} has no such image (status {status}).")
    reason = f"{name} answered with status {status} instead of the image."
    return ImageError(reason, passes=status == 429 or status >= 500)


def _failure(error: HTTPError | TimeoutError) -> str:
    cause = error.reason if isinstance(error, MaxRetryError) else error
    match cause:
        case NameResolutionError():
            return NO_ADDRESS
        case NewConnectionError():  # which is a kind of ConnectTimeoutError
            return UNREACHABLE
        case ConnectTimeoutError() | ReadTimeoutError() | TimeoutError():
            return LATE
    return root_failure(error) or "closed the connection before the whole image had arrived"


@contextmanager
def _deadline(seconds: float, abort: Callable[[], None]) -> Iterator[None]:
    """Abort from another thread when time is up, and raise `TimeoutError`.

    A socket's timeout starts again with each byte, so a host that sends a byte every few seconds
    could otherwise hold a thread for days.
    """
    passed = Event()

    def expire() -> None:
        passed.set()
        with suppress(OSError, RuntimeError, ValueError):  # it has just ended by itself
            abort()

    timer = Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if passed.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
    if passed.is_set():  # what looked like the end was the abort
        raise TimeoutError


def _guarded_pools(
    allowed: AllowedHosts, timeout_s: float, resolver: Resolver, tls: ssl.SSLContext
) -> PoolManager:
    """Connection pools that connect to allowed addresses only.

    The name is resolved once, the addresses are checked, and the connection is made to one of
    those addresses, so the name cannot come to mean something else between check and use. TLS
    still verifies the name.
    """

    class Guard(HTTPConnection):
        guarded = False

        def _new_conn(self) -> socket:
            try:
                addresses = allowed.addresses(self.host, self.port, resolver)
            except gaierror as error:
                raise NameResolutionError(self.host, self, error) from error
            self.guarded = True
            return _connect(self, addresses)

        def connect(self) -> None:
            super().connect()
            if not self.guarded:  # only if a urllib3 to come connects in another way
                self.close()
                raise NewConnectionError(self, "the address was not checked")

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
            sock = self.sock
            with _deadline(timeout_s, lambda: sock.shutdown(SHUT_RDWR)):
                return super().getresponse()

    class GuardTLS(Guard, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Guard

    class PoolTLS(HTTPSConnectionPool):
        ConnectionCls = GuardTLS

    pools = PoolManager(
        num_pools=16,
        maxsize=_CONNECTIONS,
        timeout=Timeout(connect=_CONNECT_S, read=timeout_s),
        ssl_context=tls,
    )
    pools.pool_classes_by_scheme = {"http": Pool, "https": PoolTLS}
    return pools


def _connect(connection: HTTPConnection, addresses: list[str]) -> socket:
    failure: OSError | None = None
    for address in addresses:
        try:
            return create_connection(
                (address, connection.port),
                connection.timeout,
                socket_options=connection.socket_options,
            )
        except OSError as error:
            failure = error
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, "timed out") from failure
    raise NewConnectionError(connection, "no address answers") from failure
