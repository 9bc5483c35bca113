"""Downloads of published weights: whole or not at all, checked, and never waited for twice."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from cdal.models import ModelError, Origin, WeightSources, weight_sources
from cdal.models.weight_sources import download

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]
SOURCES = WeightSources(downloads=True, patience=5)

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_sources, "_failed", {})


class Host:
    """A web server that gives one answer, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Answer = whole
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked += 1
                host.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/file"


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def whole(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT)


def half(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT[: len(CONTENT) // 2])


def missing(request: BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def test_what_a_killed_download_left_is_not_in_the_way(host: Host, tmp_path: Path) -> None:
    def killed(kept: Path, file: Path) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weight_sources, "put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            download(host.url, tmp_path / "a.safetensors", SOURCES)
    assert list(tmp_path.iterdir())
    download(host.url, tmp_path / "a.safetensors", SOURCES)
    assert (tmp_path / "a.safetensors").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["weights.safetensors", f"resnet-{DIGEST}.pth"])
def test_a_whole_file_is_kept(host: Host, tmp_path: Path, name: str) -> None:
    download(host.url, tmp_path / "folder" / name, SOURCES)
    assert (tmp_path / "folder" / name).read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "folder").iterdir()] == [name]


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (half, "weights.safetensors", "of 7000 bytes"),
        (missing, "weights.safetensors", "404"),
        (whole, "resnet-01234567.pth", "checksum"),
    ],
)
def test_anything_else_is_not(
    host: Host, tmp_path: Path, answer: Answer, name: str, words: str
) -> None:
    host.answer = answer
    with pytest.raises((OSError, ValueError), match=words):
        download(host.url, tmp_path / name, SOURCES)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_sources, "LARGEST", len(CONTENT) - 1)
    with pytest.raises(ValueError, match="larger"):
        download(host.url, tmp_path / "weights", SOURCES)
    assert list(tmp_path.iterdir()) == []


def test_another_protocol(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a web address"):
        download("file:///etc/passwd", tmp_path / "weights", SOURCES)


@pytest.mark.parametrize(
    ("asked", "location", "allowed"),
    [
        ("https://hub.test/a", "https://cdn.test/a", True),
        ("https://hub.test/a", "http://cdn.test/a", False),
        ("http://mirror.test/a", "http://cdn.test/a", True),
        ("http://mirror.test/a", "ftp://cdn.test/a", False),
    ],
)
def test_a_redirect_stays_encrypted(asked: str, location: str, allowed: bool) -> None:
    request = Request(asked)
    handle = weight_sources._SafeRedirects().redirect_request
    if allowed:
        followed = handle(request, None, 302, "Found", {}, location)
        assert followed is not None
        assert followed.full_url == location
    else:
        with pytest.raises(ValueError, match="not encrypted"):
            handle(request, None, 302, "Found", {}, location)


def test_a_host_that_failed_is_left_alone_for_a_while(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answer = half
    for _ in range(3):
        with pytest.raises((OSError, ValueError)):
            download(host.url, tmp_path / "weights", SOURCES)
    assert host.asked == 1
    host.answer = whole
    monkeypatch.setattr(weight_sources, "TRY_AGAIN_AFTER", 0.0)
    download(host.url, tmp_path / "weights", SOURCES)
    assert host.asked == 2


def test_a_host_that_has_not_got_the_file_is_asked_for_others(host: Host, tmp_path: Path) -> None:
    host.answer = missing
    for _ in range(2):
        with pytest.raises(OSError, match="404"):
            download(host.url, tmp_path / "weights", SOURCES)
    assert host.asked == 2


def test_a_silent_host_is_waited_for_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/file"
        sources = WeightSources(downloads=True, patience=0.05)
        with pytest.raises(OSError, match="timed out"):
            download(address, tmp_path / "weights", sources)
        with pytest.raises(OSError, match="failed a moment ago"):
            download(address, tmp_path / "weights", sources)


def test_the_servers_folder_comes_before_earlier_downloads(tmp_path: Path) -> None:
    folders = [tmp_path / "folder", tmp_path / "downloads"]
    for folder in folders:
        folder.mkdir()
        (folder / "weights").touch()
    sources = WeightSources(folders[0], download_folder=folders[1])
    assert list(sources.find(["other", "weights"])) == [folder / "weights" for folder in folders]
    assert sources.kept == folders[1]


@pytest.mark.parametrize("data", [None, {}, {"name": "a"}, asdict(Origin("a")) | {"name": 1}])
def test_an_origin_that_is_none(data: object) -> None:
    with pytest.raises(ModelError, match="origin"):
        Origin.from_json(data)
