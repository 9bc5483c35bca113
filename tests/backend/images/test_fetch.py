from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.certificates import certificate
from support.listening import connected, fake_resolver
from support.loopback import Loopback, in_turn, reply
from support.processes import wait_until

from cdal.backend import addresses
from cdal.backend.addresses import AllowedHosts
from cdal.backend.errors import ImageError
from cdal.backend.images import hosts
from cdal.backend.images.fetch import Fetcher
from cdal.backend.images.source import ImageSource

TASK = 1
MAX_BYTES = 1000
IMAGE = "/data/upload/1/a.png"
LOOPBACK = AllowedHosts.parse("127.0.0.1")


@pytest.fixture
def label_studio() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def source(label_studio: Loopback) -> ImageSource:
    return ImageSource(label_studio.url, lambda: {"Authorization": "Token secret"})


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def get(
    source: ImageSource,
    value: object,
    allowed: AllowedHosts = LOOPBACK,
    max_bytes: int = 1000,
    timeout_s: float = 60.0,
    resolver: addresses.Resolver = addresses.resolve,
) -> bytes:
    fetcher = Fetcher(allowed, timeout_s, resolver)
    try:
        fetched = fetcher.fetch(source, source.locate(TASK, value), max_bytes)
        assert fetched is not None
        return fetched.data
    finally:
        fetcher.close()


def refusal(source: ImageSource, value: object, **options: object) -> str:
    with pytest.raises(ImageError) as refused:
        get(source, value, **options)  # type: ignore[arg-type]
    return refused.value.reason


# --- What is fetched, and with which credentials


def test_label_studio_gets_the_token(label_studio: Loopback, source: ImageSource) -> None:
    label_studio.routes[IMAGE] = reply(b"pixels")
    assert get(source, IMAGE, AllowedHosts.parse("")) == b"pixels"
    [(path, headers)] = label_studio.requests
    assert path == IMAGE
    assert headers["Authorization"] == "Token secret"


def test_no_one_else_gets_the_token(source: ImageSource, elsewhere: Loopback) -> None:
    elsewhere.routes["/a.png"] = reply(b"pixels")
    assert get(source, f"{elsewhere.url}/a.png") == b"pixels"
    [(_, headers)] = elsewhere.requests
    assert "Authorization" not in headers


def test_label_studio_gets_no_token_for_other_paths(
    label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes["/api/users"] = reply(b"names")
    get(source, f"{label_studio.url}/api/users")
    [(_, headers)] = label_studio.requests
    assert "Authorization" not in headers


def test_storage_files_are_resolved_and_the_token_stays_behind(
    label_studio: Loopback, elsewhere: Loopback, source: ImageSource
) -> None:
    label_studio.routes["/tasks/1/resolve/?fileuri=czM6Ly9iL2s="] = reply(
        status=303, Location=f"{elsewhere.url}/b/k?signature=1"
    )
    elsewhere.routes["/b/k"] = reply(b"pixels")
    assert get(source, "s3://b/k") == b"pixels"
    assert label_studio.requests[0][1]["Authorization"] == "Token secret"
    [(path, headers)] = elsewhere.requests
    assert path == "/b/k?signature=1"
    assert "Authorization" not in headers


def test_a_storage_that_is_not_allowed_is_named(
    label_studio: Loopback, elsewhere: Loopback, source: ImageSource
) -> None:
    label_studio.routes["/tasks/1/resolve/"] = reply(
        status=303, Location=f"{elsewhere.url}/b/k?signature=hush"
    )
    assert refusal(source, "s3://b/k", allowed=AllowedHosts()) == (
        "Images may not be fetched from the host 127.0.0.1; "
        "an administrator can allow it in CDAL_IMAGE_HOSTS."
    )
    assert elsewhere.requests == []


def test_redirects_within_label_studio_keep_the_token(
    label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes["/data/local-files"] = reply(
        status=301, Location="/data/local-files/?d=a.png"
    )
    label_studio.routes["/data/local-files/?d=a.png"] = reply(b"pixels")
    assert get(source, "/data/local-files?d=a.png", AllowedHosts.parse("")) == b"pixels"
    assert label_studio.requests[1][1]["Authorization"] == "Token secret"


def test_a_redirect_to_label_studios_api_gets_nowhere(
    label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[IMAGE] = reply(status=302, Location="/api/users")
    assert "may not be fetched from the host" in refusal(source, IMAGE, allowed=AllowedHosts())
    assert [path for path, _ in label_studio.requests] == [IMAGE]


def test_redirects_come_to_an_end(elsewhere: Loopback, source: ImageSource) -> None:
    elsewhere.routes["/a.png"] = reply(status=302, Location="/a.png")
    assert refusal(source, f"{elsewhere.url}/a.png") == (
        "The image's address redirects more than 5 times."
    )
    assert len(elsewhere.requests) == 6


def test_five_redirects_are_followed(elsewhere: Loopback, source: ImageSource) -> None:
    for hop in range(5):
        elsewhere.routes[f"/{hop}"] = reply(status=307, Location=f"{hop + 1}")
    elsewhere.routes["/5"] = reply(b"pixels")
    assert get(source, f"{elsewhere.url}/0") == b"pixels"


def test_a_redirect_to_the_login_page(label_studio: Loopback, source: ImageSource) -> None:
    label_studio.routes[IMAGE] = reply(status=302, Location="/user/login/?next=/")
    assert refusal(source, IMAGE) == (
        "Label Studio requires a login: its access token is missing, expired or refused."
    )


def test_proxies_of_the_environment_are_not_used(
    label_studio: Loopback, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    label_studio.routes[IMAGE] = reply(b"pixels")
    assert get(source, IMAGE) == b"pixels"


def test_connections_are_kept_alive(label_studio: Loopback, source: ImageSource) -> None:
    clients = set()

    def remember(handler: BaseHTTPRequestHandler) -> None:
        clients.add(handler.client_address)
        reply(b"pixels")(handler)

    label_studio.routes[IMAGE] = remember
    fetcher = Fetcher(LOOPBACK, 5.0)
    for _ in range(3):
        fetcher.fetch(source, source.locate(TASK, IMAGE), MAX_BYTES)
    fetcher.close()
    assert len(clients) == 1


# --- Names: see test_hostile_addresses.py for what is refused


def test_a_name_that_changes_between_check_and_use(
    listener: socket.socket, source: ImageSource
) -> None:
    """A fake resolver stands for an attacker's name server, which answers differently each time.

    The first answer is allowed, and it is connected to without asking again. When a new
    connection is needed, the new answer is checked in its turn.
    """
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])
    with Loopback("127.0.0.2") as allowed:
        allowed.routes["/a.png"] = reply(b"pixels", Connection="close")
        fetcher = Fetcher(AllowedHosts.parse("127.0.0.2"), 5.0, lambda *_: next(answers))
        value = f"http://rebind.example:{allowed.server_port}/a.png"
        assert fetcher.fetch(source, source.locate(TASK, value), MAX_BYTES) is not None
        with pytest.raises(ImageError, match="may not be fetched from the host"):
            fetcher.fetch(source, source.locate(TASK, value), MAX_BYTES)
        fetcher.close()
    assert next(answers, None) is None
    assert not connected(listener)


def test_the_checked_address_is_the_one_connected_to(
    elsewhere: Loopback, source: ImageSource
) -> None:
    """A fake resolver, asked once for a connection, whose name the system does not know."""
    asked = []

    def once(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    elsewhere.routes["/a.png"] = reply(b"pixels")
    value = f"http://only-here.example:{elsewhere.server_port}/a.png"
    assert get(source, value, resolver=once) == b"pixels"
    assert asked == [("only-here.example", elsewhere.server_port)]
    assert elsewhere.requests[0][1]["Host"] == f"only-here.example:{elsewhere.server_port}"


def test_the_next_address_is_tried(elsewhere: Loopback, source: ImageSource) -> None:
    elsewhere.routes["/a.png"] = reply(b"pixels")
    value = f"http://two.example:{elsewhere.server_port}/a.png"
    allowed = AllowedHosts.parse("127.0.0.0/8")
    found = get(source, value, allowed, resolver=lambda *_: ["127.0.0.9", "127.0.0.1"])
    assert found == b"pixels"


# --- Hosts that fail


def test_errors_that_pass_are_waited_out(label_studio: Loopback, source: ImageSource) -> None:
    for status in (429, 500, 502, 503, 504):
        label_studio.routes[IMAGE] = in_turn(reply(status=status), reply(b"pixels"))
        assert get(source, IMAGE) == b"pixels"
    assert len(label_studio.requests) == 10


def test_a_host_cannot_make_us_wait(label_studio: Loopback, source: ImageSource) -> None:
    label_studio.routes[IMAGE] = in_turn(reply(status=503, Retry_After="86400"), reply(b"pixels"))
    begin = time.monotonic()
    assert get(source, IMAGE) == b"pixels"
    assert time.monotonic() - begin < 3600  # the host said a day


@pytest.mark.parametrize(
    ("status", "reason", "requests"),
    [
        (401, "Label Studio refuses to return the image (status 401): the access token may not "
         "read it.", 1),
        (403, "Label Studio refuses to return the image (status 403): the access token may not "
         "read it.", 1),
        (404, "Label Studio has no such image (status 404).", 1),
        (503, "Label Studio answered with status 503 instead of the image.", 3),
        (204, "Label Studio answered with status 204 instead of the image.", 1),
        (206, "Label Studio answered with status 206 instead of the image.", 1),
        (304, "Label Studio answered with status 304 instead of the image.", 1),
        (302, "Label Studio answered with status 302 instead of the image.", 1),
    ],
)  # fmt: skip
def test_statuses(
    label_studio: Loopback, source: ImageSource, status: int, reason: str, requests: int
) -> None:
    label_studio.routes[IMAGE] = reply(status=status)
    assert refusal(source, IMAGE) == reason
    assert len(label_studio.requests) == requests


def test_whether_label_studio_works_is_read_from_the_status_alone(
    label_studio: Loopback, source: ImageSource
) -> None:
    """What follows it may be endless, or packed gigabytes."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)
        handler.close_connection = True

    label_studio.routes |= {IMAGE: reply(status=500), "/health": drip}
    assert "probably been removed" in refusal(source, IMAGE)


@pytest.mark.parametrize(("health", "passes"), [(200, False), (500, True), (503, True)])
def test_an_upload_that_is_gone_is_a_500_of_a_label_studio_that_works(
    label_studio: Loopback, source: ImageSource, health: int, passes: bool
) -> None:
    label_studio.routes |= {IMAGE: reply(status=500), "/health": reply(status=health)}
    with pytest.raises(ImageError) as refused:
        get(source, IMAGE)
    assert refused.value.passes is passes
    assert ("removed" in refused.value.reason) is not passes
    path, headers = label_studio.requests[-1]
    assert path == "/health"
    assert "Authorization" not in headers


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_proxy_without_label_studio_proves_nothing_about_a_file(
    label_studio: Loopback, source: ImageSource, status: int
) -> None:
    label_studio.routes |= {IMAGE: reply(status=status), "/health": reply()}
    with pytest.raises(ImageError) as refused:
        get(source, IMAGE)
    assert refused.value.passes


def test_other_hosts_statuses(elsewhere: Loopback, source: ImageSource) -> None:
    elsewhere.routes["/a.png"] = reply(status=403)
    assert refusal(source, f"{elsewhere.url}/a.png?signature=hush") == (
        "The host 127.0.0.1 refuses to return the image (status 403)."
    )


def test_signatures_are_not_logged(
    elsewhere: Loopback, source: ImageSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    elsewhere.routes["/a.png"] = reply(status=500)
    assert "hush" not in refusal(source, f"{elsewhere.url}/a.png?signature=hush")
    assert "hush" not in caplog.text


@pytest.mark.parametrize("length", ["many", "-1", "1, 2"])
def test_an_invalid_length(elsewhere: Loopback, source: ImageSource, length: str) -> None:
    def write(handler: BaseHTTPRequestHandler) -> None:
        reply(b"", Content_Length=length)(handler)
        handler.close_connection = True

    elsewhere.routes["/a.png"] = write
    with suppress(ImageError):  # either outcome will do; any other error will not
        assert get(source, f"{elsewhere.url}/a.png") == b""


def test_nobody_listens(source: ImageSource) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert refusal(source, f"http://127.0.0.1:{port}/a.png") == (
        "The host 127.0.0.1 cannot be reached."
    )


def test_an_unknown_name(source: ImageSource) -> None:
    assert refusal(source, "http://unknown.example/a.png", resolver=fake_resolver) == (
        "The host unknown.example has a name that cannot be resolved."
    )


def test_a_connection_that_is_cut(label_studio: Loopback, source: ImageSource) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        reply(b"half", Content_Length="8")(handler)
        handler.close_connection = True

    label_studio.routes[IMAGE] = half
    assert refusal(source, IMAGE) == (
        "Label Studio closed the connection before the whole image had arrived."
    )


def test_not_http(source: ImageSource, elsewhere: Loopback) -> None:
    elsewhere.routes["/a.png"] = lambda handler: (
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n") and None
    )
    assert "closed the connection" in refusal(source, f"{elsewhere.url}/a.png")


@pytest.mark.parametrize("length", [{"Content_Length": "1001"}, {"Connection": "close"}])
def test_too_large(label_studio: Loopback, source: ImageSource, length: dict[str, str]) -> None:
    """Once by what the headers say, once by what comes when they say nothing."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, text in length.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()
        handler.wfile.write(b"x" * 1001)
        handler.close_connection = True

    label_studio.routes[IMAGE] = write
    assert refusal(source, IMAGE) == "The image is larger than 1,000 bytes."
    assert len(get(source, IMAGE, max_bytes=1001)) == 1001


def test_an_endless_answer(elsewhere: Loopback, source: ImageSource) -> None:
    def pour(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    elsewhere.routes["/a.png"] = pour
    assert refusal(source, f"{elsewhere.url}/a.png", max_bytes=1 << 20) == (
        "The image is larger than 1,048,576 bytes."
    )


def test_a_compressed_bomb(elsewhere: Loopback, source: ImageSource) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    elsewhere.routes["/a.png"] = reply(bomb, Content_Encoding="gzip")
    assert refusal(source, f"{elsewhere.url}/a.png", max_bytes=1 << 20) == (
        "The image is larger than 1,048,576 bytes."
    )


@pytest.mark.parametrize("slow", ["headers", "body", "chunk size"])
def test_a_byte_now_and_then(elsewhere: Loopback, source: ImageSource, slow: str) -> None:
    """Each byte comes well within a socket's timeout, so only the deadline ends it."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if slow == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-")
        elif slow == "body":
            reply(b"", Content_Length="1000")(handler)
        else:
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
        for _ in range(100_000):
            handler.wfile.write(b"0")
            handler.wfile.flush()
            time.sleep(0.05)

    elsewhere.routes["/a.png"] = drip
    begin = time.monotonic()
    assert refusal(source, f"{elsewhere.url}/a.png", timeout_s=0.3) == (
        "The host 127.0.0.1 did not answer in time."
    )
    assert time.monotonic() - begin < 1000  # the host drips for more than an hour


def test_silence(listener: socket.socket, source: ImageSource) -> None:
    port = listener.getsockname()[1]
    assert refusal(source, f"http://127.0.0.1:{port}/a.png", timeout_s=0.2) == (
        "The host 127.0.0.1 did not answer in time."
    )


def test_a_host_that_never_answers_is_asked_once_and_then_left_alone(
    source: ImageSource, elsewhere: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took a minute for each image."""
    clock = 1000.0
    monkeypatch.setattr(hosts, "time", SimpleNamespace(monotonic=lambda: clock))
    elsewhere.routes["/a.png"] = reply(b"pixels")
    fetcher = Fetcher(LOOPBACK, 0.5)
    connections = 0

    def accept() -> None:
        nonlocal connections
        with ExitStack() as kept, suppress(OSError):
            while True:
                kept.enter_context(listener.accept()[0])
                connections += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        hung = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        for _ in range(10):
            with pytest.raises(ImageError, match="did not answer in time") as refused:
                fetcher.fetch(source, source.locate(TASK, hung), MAX_BYTES)
            assert refused.value.passes
        wait_until("connections", lambda: connections >= hosts.FAILURES)
        assert connections == hosts.FAILURES
        # Other hosts are asked, and this one after a while.
        assert (
            fetcher.fetch(source, source.locate(TASK, f"{elsewhere.url}/a.png"), MAX_BYTES)
            is not None
        )
        clock += hosts.LEFT_ALONE_S + 1
        with pytest.raises(ImageError):
            fetcher.fetch(source, source.locate(TASK, hung), MAX_BYTES)
        wait_until("one more", lambda: connections > hosts.FAILURES)
        assert connections == hosts.FAILURES + 1
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    fetcher.close()


# --- TLS


def test_certificates_are_verified_for_the_name(
    tmp_path: Path, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting to an address that was resolved beforehand must not weaken TLS."""
    pem = certificate(tmp_path, "good.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    here = AllowedHosts.parse("127.0.0.1")
    refused = "has a certificate that is not accepted"
    with Loopback(tls=context) as server:
        server.routes["/a.png"] = reply(b"pixels")

        def ask(host: str) -> str:
            try:
                value = f"https://{host}:{server.server_port}/a.png"
                return get(source, value, here, resolver=lambda *_: ["127.0.0.1"]).decode()
            except ImageError as error:
                return error.reason

        assert ask("good.example") == f"The host good.example {refused} (self-signed certificate)."
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert ask("good.example") == "pixels"
        assert ask("bad.example").startswith(f"The host bad.example {refused} (Hostname mismatch")
        assert ask("127.0.0.1").startswith(f"The host 127.0.0.1 {refused} (IP address mismatch")
