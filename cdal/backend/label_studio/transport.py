"""Connections to Label Studio: to its own host only, and never to a cloud's metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx

from cdal.backend.addresses import ANY_HOST
from cdal.backend.connections import LATE, UNREACHABLE, root_failure, tls_context
from cdal.backend.errors import ImageError


class _Network(httpcore.SyncBackend):
    """Resolves a name once and connects only to the addresses that were checked."""

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
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Transport(httpx.HTTPTransport):
    def __init__(self) -> None:
        super().__init__()
        # httpx has no argument for it; test_transport.py would notice if httpx renamed it.
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls_context(),
            network_backend=_Network(),
            # The defaults of httpx.
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
        )


def open_http(url: str, timeout_s: float) -> httpx.Client:
    """Open a client for Label Studio at an address, which any caller of `/setup` may have named.

    It follows redirects to the same host only, since requests may carry a token. As for images,
    it ignores proxies in the environment.
    """
    return httpx.Client(
        timeout=timeout_s,
        follow_redirects=True,
        transport=_Transport(),
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
