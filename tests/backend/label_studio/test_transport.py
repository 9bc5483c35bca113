"""How Label Studio's API is reached, whoever named its address."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from support.certificates import certificate
from support.listening import connected
from support.loopback import Answer, Loopback, in_turn, reply
from support.offline import CONFIG, make_services

from cdal.backend.errors import LabelStudioError, RefusedError
from cdal.backend.label_studio import client as client_module
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.web.setup import SetupRequest, connect

PROJECT = "/api/projects/12/"
ELSEWHERE = "it redirects to an address that is not its own"


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    # Another name of this machine is another host.
    with socket.create_server(("127.0.0.2", 0)) as listening:
        yield listening


def project() -> bytes:
    return json.dumps({"id": 12, "title": "Pets", "label_config": CONFIG}).encode()


def read(url: str) -> Any:
    with closing(LabelStudioClient(url, "a-token", 12, timeout_s=60.0, retries=0)) as client:
        return client.read_project()


def refusal(url: str) -> str:
    with pytest.raises(LabelStudioError) as refused:
        read(url)
    return str(refused.value)


def test_a_project_is_read(server: Loopback) -> None:
    server.routes[PROJECT] = reply(project(), Content_Type="application/json")
    assert read(server.url).title == "Pets"
    assert read(server.url.replace("127.0.0.1", "localhost")).title == "Pets"


def test_a_list_ends_with_a_page_that_is_not_full(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE", 1)
    task = {"id": 7, "data": {"image": "a.png"}, "updated_at": "2026-01-01T00:00:00Z"}
    page = json.dumps({"tasks": [task], "total": 1, "total_annotations": 0}).encode()
    end = json.dumps({"tasks": [], "total": 0, "total_annotations": 0}).encode()
    server.routes["/api/tasks/"] = in_turn(
        reply(page, Content_Type="application/json"),
        reply(end, Content_Type="application/json"),
    )
    with closing(LabelStudioClient(server.url, "a-token", 12, retries=0)) as client:
        assert [task.task_id for task in client.tasks()] == [7]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "listing",
    [
        lambda client: list(client.tasks()),
        lambda client: list(client.annotations()),
        lambda client: client.tasks_with("CDAL round 1.1"),
    ],
)
def test_the_same_page_without_end_is_refused(
    server: Loopback,
    monkeypatch: pytest.MonkeyPatch,
    listing: Callable[[LabelStudioClient], object],
) -> None:
    """As a proxy's cache may return it that ignores what is asked."""
    for name in ("PAGE", "ANNOTATED_PAGE"):
        monkeypatch.setattr(client_module, name, 2)
    tasks = [{"id": number, "data": {}} for number in (7, 8)]
    page = json.dumps({"tasks": tasks, "total": 2, "total_annotations": 0}).encode()
    server.routes["/api/tasks/"] = in_turn(
        *[reply(page, Content_Type="application/json")] * 3, reply(status=500)
    )
    with (
        closing(LabelStudioClient(server.url, "a-token", 12, retries=0)) as client,
        pytest.raises(LabelStudioError, match="same tasks again"),
    ):
        listing(client)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_to_its_own_host_are_followed(server: Loopback, status: int) -> None:
    """For example from one spelling of a path to another, or from http to https."""
    server.routes[PROJECT] = reply(status=status, Location="/there")
    server.routes["/there"] = reply(project(), Content_Type="application/json")
    assert read(server.url).title == "Pets"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_to_other_hosts_are_not(
    server: Loopback, listener: socket.socket, status: int
) -> None:
    """Requests hold a token, which other hosts must not get."""
    target = f"http://127.0.0.2:{listener.getsockname()[1]}/latest/meta-data"
    server.routes[PROJECT] = reply(status=status, Location=target)
    assert refusal(server.url).endswith(
        f"did not answer the request to read the project: {ELSEWHERE}"
    )
    server.routes["/api/projects/12/import/predictions"] = reply(status=status, Location=target)
    with (
        closing(LabelStudioClient(server.url, "a-token", 12, timeout_s=60.0, retries=0)) as client,
        pytest.raises(LabelStudioError, match=ELSEWHERE),
    ):
        client.import_predictions([{"task": 1, "result": [], "score": 0.5, "model_version": "v"}])
    assert not connected(listener)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://127.0.0.1/x", "http://[", "//"])
def test_invalid_redirects(server: Loopback, target: str) -> None:
    server.routes[PROJECT] = reply(status=302, Location=target)
    assert "Label Studio" in refusal(server.url)


def test_redirects_come_to_an_end(server: Loopback) -> None:
    server.routes[PROJECT] = reply(status=302, Location=PROJECT)
    assert refusal(server.url).endswith(ELSEWHERE)


def test_a_name_that_does_not_exist() -> None:
    assert refusal("http://label-studio.invalid").endswith(
        ": it has a name that cannot be resolved"
    )


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}").endswith(": it cannot be reached")


def test_a_server_that_does_not_speak_tls(server: Loopback) -> None:
    assert "did not answer in TLS" in refusal(server.url.replace("http:", "https:"))


def test_a_server_that_says_nothing(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    client = LabelStudioClient(f"http://127.0.0.2:{port}", "a-token", 12, timeout_s=0.2, retries=0)
    with closing(client), pytest.raises(LabelStudioError, match="it did not answer in time"):
        client.read_project()


def dripping(head: bytes, body: bytes) -> Answer:
    """An answer that arrives in time if each byte counts, and only then."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        for byte in body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.02)

    return write


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("what", ["headers", "body"])
def test_a_server_that_sends_a_byte_now_and_then(server: Loopback, what: str) -> None:
    """Each byte restarts a socket's timeout, and such a server would hold a job's thread."""
    length = b"Content-Length: %d\r\n\r\n" % (len(project()) + 300)
    head, body = (
        (HEAD, b"X-More: x\r\n" * 30 + length) if what == "headers" else (HEAD + length, b" " * 300)
    )
    server.routes[PROJECT] = dripping(head, body + project())
    client = LabelStudioClient(server.url, "a-token", 12, timeout_s=0.3, retries=0, whole_s=0.3)
    with closing(client), pytest.raises(LabelStudioError, match="did not answer in time") as told:
        client.read_project()
    assert told.value.is_away


def test_a_long_answer_is_read_within_its_own_timeout(server: Loopback) -> None:
    """Deleting predictions may take longer than anything else."""
    server.routes["/api/projects/12/model-versions/"] = dripping(
        HEAD + b"Content-Length: 32\r\n\r\n", b" " * 30 + b"{}"
    )
    client = LabelStudioClient(server.url, "a-token", 12, retries=0, whole_s=0.1)
    with closing(client):
        assert client.prediction_counts() == {}


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_an_answer_without_end(server: Loopback, encoding: str) -> None:
    """It would fill the memory; packed, with a thousandth of the bytes."""
    pack = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    long = pack(b" " * (5 << 20) + project())
    headers = {"Content_Type": "application/json", "Content_Encoding": encoding}
    server.routes[PROJECT] = reply(long, **headers)
    limits = {"timeout_s": 60.0, "retries": 0}
    with closing(LabelStudioClient(server.url, "a-token", 12, **limits)) as client:
        assert client.read_project().title == "Pets"
    limits["most_bytes"] = 4 << 20
    with (
        closing(LabelStudioClient(server.url, "a-token", 12, **limits)) as client,
        pytest.raises(LabelStudioError, match="it sent more than 4 MB"),
    ):
        client.read_project()


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "GZIP,deflate"])
def test_an_encoding_that_nobody_requested(server: Loopback, encoding: str) -> None:
    """A few bytes of these may become gigabytes in one step."""
    body = gzip.compress(gzip.compress(project()))
    server.routes[PROJECT] = reply(body, Content_Encoding=encoding)
    assert refusal(server.url).endswith("answers in an encoding that was not requested")
    assert server.requests[0][1]["Accept-Encoding"] == "gzip, deflate"


def test_an_answer_that_cannot_be_unpacked(server: Loopback) -> None:
    server.routes[PROJECT] = reply(b"not packed", Content_Encoding="gzip")
    assert refusal(server.url).endswith("it sent an answer that cannot be unpacked")


def test_a_certificate_that_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same authorities are trusted as for images: the system's and the operator's."""
    pem = certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with Loopback(tls=context) as server:
        server.routes[PROJECT] = reply(project(), Content_Type="application/json")
        url = f"https://localhost:{server.server_port}"
        with pytest.raises(LabelStudioError) as refused:
            read(url)
        assert str(refused.value).endswith(
            ": it has a certificate that is not accepted (self-signed certificate)"
        )
        assert "SSL_CERT_FILE" in refused.value.advice
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert read(url).title == "Pets"
        wrong_name = refusal(url.replace("localhost", "127.0.0.1"))
        assert "certificate is not valid for '127.0.0.1'" in wrong_name


def test_a_token_that_cannot_be_sent(server: Loopback) -> None:
    """As an earlier version may have stored it."""
    client = LabelStudioClient(server.url, "a-token\n", 12, timeout_s=60.0, retries=0)
    with closing(client), pytest.raises(LabelStudioError, match="characters that no token") as told:
        client.read_project()
    assert "LABEL_STUDIO_API_KEY" in told.value.advice
    assert "a-token" not in str(told.value)


# No packet leaves for these: the address is refused before. Without that, they would time out.
METADATA = [
    "http://169.254.169.254",
    "http://2852039166",
    "http://0xa9fea9fe/",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::]",
    "http://[fd00:ec2::254]:80",
    "https://169.254.170.2",
    "http://100.100.100.200",
    "http://168.63.129.16",
]


@pytest.mark.parametrize("url", METADATA)
def test_a_clouds_metadata_server_is_refused(url: str) -> None:
    assert refusal(url).endswith("the request to read the project: it cannot be reached")


def setup(folder: Path, hostname: str) -> str:
    """What `/setup` says to a caller who names this address, where the operator has named none."""
    services = make_services(folder, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    request = SetupRequest("12.1", CONFIG, hostname, "a-token", None)
    try:
        with pytest.raises(RefusedError) as refused:
            connect(services, request)
    finally:
        services.store.close()
    return str(refused.value)


@pytest.mark.parametrize(
    "hostname",
    [
        *METADATA,
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "gopher://127.0.0.1:70/_GET",
        "ftp://127.0.0.1/",
        "unix:///run/docker.sock",
        "http+unix://%2Frun%2Fdocker.sock",
        "\\\\127.0.0.1\\share",
        "//127.0.0.1",
        "127.0.0.1",
        "http://",
        "http:///etc/passwd",
        "http://user:pass-word@127.0.0.1",
        "http://127.0.0.1@169.254.169.254",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
        "http://[::1",
        "http://127.0.0.1\x00",
        "http://127.0.0.1\r\nHost: x",
        "http://127.0.0.1 .example",
        "http://" + "a" * 300,
        "http://a..example",
        "javascript:alert(1)",
        "data:text/plain,x",
    ],
)
def test_an_address_that_setup_refuses(tmp_path: Path, hostname: str) -> None:
    said = setup(tmp_path, hostname)
    assert said.endswith((".", "of a user who may change the project, for the backend."))
    assert "pass-word" not in said
    assert "a-token" not in said


def test_setup_follows_no_redirect_to_another_host(
    tmp_path: Path, server: Loopback, listener: socket.socket
) -> None:
    target = f"http://127.0.0.2:{listener.getsockname()[1]}{PROJECT}"
    server.routes[PROJECT] = reply(status=307, Location=target)
    # Whoever named that server learns nothing of what it said.
    assert "(it did not answer)" in setup(tmp_path, server.url)
    assert not connected(listener)
