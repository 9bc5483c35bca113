"""Task data that must get nowhere: no local file, no internal address.

One table, and each row is tried as a task's image, as the target of a redirect by Label Studio, and
as the target of a redirect by a host that is allowed. A listener stands where the rows point to:
nobody may even connect to it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from support.listening import connected, fake_resolver
from support.loopback import Loopback, reply

from cdal.backend.addresses import ANY_HOST, AllowedHosts
from cdal.backend.errors import ImageError
from cdal.backend.images.fetch import Fetcher
from cdal.backend.images.source import ImageSource

TASK = 1
MAX_BYTES = 1000
IMAGE = "/data/upload/1/a.png"

# Hosts: each stands for http://HOST:PORT/a.png, with the listener's port.
HOSTS = {
    "loopback": ["127.0.0.1", "127.255.255.254", "localhost", "LOCALHOST", "0.0.0.0", "0"],
    "IPv4 in odd spelling": [
        "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.0.0.1", "0x7f.1", "0177.0.0.1",
        "017700000001", "0x7f.0.0x0.01", "4294967295", "00000000177.0.0.1", "127.0.0.1.",
        "0x0000007f.0.0.1",
    ],
    "encoded": [
        "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "%2531%2532%2537.0.0.1", "%6c%6f%63alhost",
        "127%252e0%252e0%252e1", "127.0.0.1%00.example.com", "example.com%40127.0.0.1",
    ],
    "Unicode digits, letters and dots": [
        "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "１２７.0.0.1", "①②⑦.0.0.1", "ⓛocalhost",
        "ｌｏｃａｌｈｏｓｔ", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "١٢٧.0.0.1", "loc\u00adalhost", "localho\u200bst",
    ],
    "trailing and double dots": ["localhost.", "localhost..", "127.0.0.1..", ".127.0.0.1", ".", ""],
    "IPv6": [
        "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::]", "[fe80::1]", "[fc00::1]",
        "[fd12:3456::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[::1", "::1", "[]",
        "[v1.fe80::1]",
    ],
    "IPv6 with a zone": ["[::1%25lo]", "[::1%lo]", "[fe80::1%25lo]", "[fe80::1%lo]"],
    "IPv6 that carries IPv4": [
        "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[::ffff:0:127.0.0.1]",
        "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]", "[2001:0:808:808::80ff:fffe]", "[fe80::5efe:7f00:1]",
        "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
        "[::ffff:10.0.0.1]", "[::ffff:0x7f.0.0.1]",
    ],
    "private networks": [
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "198.18.0.1",
        "192.0.2.1", "224.0.0.1", "255.255.255.255", "167772161", "0xa.1", "012.0.0.1",
    ],
    "metadata of clouds": [
        "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
        "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "[fd00:ec2::254]", "[fd20:ce::254]", "metadata.google.internal", "METADATA.google.internal",
    ],
    "names": ["127.0.0.1.names.example", "mixed.example", "mixed6.example", "unknown.example"],
    "user names": [
        "user@127.0.0.1", "user:password@127.0.0.1", "@127.0.0.1", "example.com@127.0.0.1",
        "a@b@127.0.0.1", "example.com:80@127.0.0.1", "user@example.com@127.0.0.1",
    ],
    "where parsers disagree": [
        "example.com\\@127.0.0.1", "127.0.0.1\\@example.com", "127.0.0.1#@example.com",
        "127.0.0.1?@example.com", "127.0.0.1;@example.com", "127.0.0.1&@example.com",
        "127.0.0.1\t", "127.0.0.1 .example.com", "127.0.0.1\x00.example.com",
        "127.0.0.1\r\nHost: example.com\r\n", "a..example", "a" * 64 + ".example",
    ],
}  # fmt: skip

# Whole values; {port} is the listener's.
VALUES: dict[str, list[object]] = {
    "without a scheme": [
        "//127.0.0.1:{port}/data/upload/1/a.png", "///127.0.0.1:{port}/a.png",
        "/\\127.0.0.1:{port}/a.png", "/%2f127.0.0.1:{port}/a.png", "127.0.0.1:{port}/a.png",
        "/data/upload/@127.0.0.1:{port}/../../../a.png",
    ],
    "malformed": [
        "http:127.0.0.1:{port}/a.png", "http:/127.0.0.1:{port}/a.png",
        "http:///127.0.0.1:{port}/a.png", "http:\\\\127.0.0.1:{port}\\a.png",
        "http://[::1:{port}/a.png", "http://:{port}/a.png", "http:// 127.0.0.1:{port}/a.png",
        "\thttp://127.0.0.1:{port}/a.png", "https:///etc/passwd",
    ],
    "ports": [
        "http://127.0.0.1:99999/a.png", "http://127.0.0.1:0/a.png", "http://127.0.0.1:-1/a.png",
        "http://127.0.0.1:0x50/a.png", "http://127.0.0.1:８０/a.png", "http://127.0.0.1:22/a.png",
        "http://127.0.0.1:6379/a.png", "http://127.0.0.1:{port}:80/a.png",
    ],
    "file:": [
        "file:///etc/passwd", "FILE:///etc/passwd", "file:/etc/passwd", "file:etc/passwd",
        "file://localhost/etc/passwd", "file://127.0.0.1/share/a.png", "file:\\\\\\etc\\passwd",
        "%66ile:///etc/passwd", "file%3a///etc/passwd", "url:file:///etc/passwd",
        "file:///proc/self/environ", "file:////srv/share/a.png",
    ],
    "UNC and Windows": [
        "\\\\127.0.0.1\\share\\a.png", "\\\\?\\C:\\a.png", "\\\\.\\pipe\\x", "C:\\images\\a.png",
        "C:/images/a.png", "smb://127.0.0.1/share/a.png", "//?/C:/a.png",
    ],
    "other schemes": [
        "ftp://127.0.0.1:{port}/a.png", "gopher://127.0.0.1:{port}/_GET", "dict://127.0.0.1:{port}/x",
        "ldap://127.0.0.1:{port}/x", "tftp://127.0.0.1:{port}/x", "ws://127.0.0.1:{port}/x",
        "http+unix://%2Frun%2Fdocker.sock/info", "unix:///run/docker.sock",
        "jar:http://127.0.0.1:{port}/a.zip!/a.png", "view-source:http://127.0.0.1:{port}/a.png",
        "javascript:fetch('http://127.0.0.1:{port}')", "data:text/html;base64,PGh0bWw+",
        "blob:http://127.0.0.1:{port}/x", "netdoc:///etc/passwd", "expect://id",
        "php://filter/resource=/etc/passwd", "about:blank", "://127.0.0.1:{port}/a.png",
    ],
    "storage schemes that are none": [
        "S3://bucket/key", "s3:bucket/key", "gs:/bucket/key", "azure://container/key",
        "azure-blob:container", "hdfs://127.0.0.1:{port}/a.png", "redis://127.0.0.1:{port}/0",
        "abfs://container@127.0.0.1/a.png",
    ],
    "paths of this machine": [
        "/etc/passwd", "/proc/self/environ", "/dev/zero", "/root/.ssh/id_rsa", "etc/passwd",
        "./a.png", "../a.png", "~/.ssh/id_rsa", "upload/1/a.png", "a.png", "/",
    ],
    "paths of Label Studio that are no image's": [
        "/api/current-user/token", "/api/users", "/logout", "/data/upload/", "/admin/",
        "/data/local-filesystem?d=a.png", "/tasks/x/resolve/?fileuri=x", "/tasks/1/resolve/x",
        "/DATA/upload/1/a.png",
    ],
    "paths that lead upwards": [
        "/data/upload/../../api/users", "/data/upload/%2e%2e/%2e%2e/api/users",
        "/data/upload/%252e%252e/%252e%252e/api/users", "/data/upload/..%2f..%2fapi/users",
        "/data/upload/..;/..;x/api/users",
        "/data/upload/..%252f..%252fapi/users", "/data/upload/..\\..\\api\\users",
        "/data/upload/..%5c..%5capi", "/data/upload/..%255c..%255capi", "/data/upload/.%2e/x",
        "/data/upload/%2525252525252e%2525252525252e/x", "/data/local-files/../../api/users",
        "/tasks/1/resolve/../../../api/users", "/storage-data/uploaded/../../api/users",
    ],
    "local files that lead upwards": [
        "/data/local-files/?d=../a.png", "/data/local-files/?d=..",
        "/data/local-files/?d=a/../../b",
        "/data/local-files/?d=%2e%2e/a.png", "/data/local-files/?d=%252e%252e%252fa.png",
        "/data/local-files/?d=..\\a.png", "/data/local-files/?d=..%5ca.png",
        "/data/local-files/?d=a.png&d=../b.png", "/data/local-files?d=./../a.png",
    ],
    "no text": [
        None, 5, True, 1.5, b"/data/upload/1/a.png", ["/data/upload/1/a.png"],
        {"url": "/data/upload/1/a.png"}, "", "   ", "/data/upload/1/" + "a" * 20_000,
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A row of the table, with the listener's port."""

    kind: str
    name: str
    value: object

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"

    def at(self, port: int) -> object:
        return (
            self.value.replace("{port}", str(port)) if isinstance(self.value, str) else self.value
        )

    def fits_a_header(self) -> bool:
        """Whether it can be the target of a redirect."""
        return isinstance(self.value, str) and self.value.isprintable()


CASES = [
    *(
        Case(kind, host, f"http://{host}:{{port}}/a.png")
        for kind, hs in HOSTS.items()
        for host in hs
    ),
    *(Case(kind, repr(value)[:60], value) for kind, values in VALUES.items() for value in values),
]


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture(scope="module")
def label_studio() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Loopback]:
    with Loopback("127.0.0.2") as server:
        yield server


@pytest.fixture(scope="module")
def fetcher(elsewhere: Loopback) -> Iterator[Fetcher]:
    """As in the backend: any public host, and one that the operator has listed."""
    allowed = AllowedHosts.parse(f"public, 127.0.0.2:{elsewhere.server_port}")
    made = Fetcher(allowed, 5.0, fake_resolver)
    yield made
    made.close()


@pytest.fixture
def source(label_studio: Loopback) -> ImageSource:
    label_studio.requests.clear()
    return ImageSource(label_studio.url, lambda: {"Authorization": "Token secret"})


def test_the_table_is_as_long_as_it_looks() -> None:
    assert len(CASES) == len(set(map(str, CASES))) == 246
    assert sum(case.fits_a_header() for case in CASES) == 233


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_gets_nowhere(
    case: Case,
    fetcher: Fetcher,
    source: ImageSource,
    listener: socket.socket,
    label_studio: Loopback,
    elsewhere: Loopback,
) -> None:
    with pytest.raises(ImageError) as refused:
        fetcher.fetch(source, source.locate(TASK, case.at(listener.getsockname()[1])), MAX_BYTES)
    assert refused.value.reason.endswith(".")
    assert label_studio.requests == []
    assert not connected(listener)
    if not case.fits_a_header():
        return

    redirect(elsewhere, "/a.png", case, listener)
    with pytest.raises(ImageError):
        fetcher.fetch(source, source.locate(TASK, f"{elsewhere.url}/a.png"), MAX_BYTES)
    assert label_studio.requests == []
    assert not connected(listener)

    redirect(label_studio, IMAGE, case, listener)
    with pytest.raises(ImageError):
        fetcher.fetch(source, source.locate(TASK, IMAGE), MAX_BYTES)
    # Label Studio was asked only for the image and for files below its own address.
    assert {path.split("/")[1] for path, _ in label_studio.requests} == {"data"}
    assert not connected(listener)


def redirect(server: Loopback, path: str, case: Case, listener: socket.socket) -> None:
    target = str(case.at(listener.getsockname()[1])).encode().decode("latin-1")
    server.routes[path] = reply(status=302, Location=target)


def test_the_listener_would_notice(listener: socket.socket, source: ImageSource) -> None:
    port = listener.getsockname()[1]
    guileless = Fetcher(ANY_HOST, 0.1, fake_resolver)
    with pytest.raises(ImageError, match="did not answer in time"):
        guileless.fetch(source, source.locate(TASK, f"http://127.1:{port}/a.png"), MAX_BYTES)
    guileless.close()
    assert connected(listener)
    listener.accept()[0].close()


def test_odd_spellings_are_read_as_the_system_reads_them() -> None:
    """Otherwise the table would prove less than it seems to."""
    for spelling in ("2130706433", "0x7f.1", "0177.0.0.1", "127.1"):
        [found] = set(fake_resolver(spelling, 80))
        assert ip_address(found) == ip_address("127.0.0.1")


METADATA = [*HOSTS["metadata of clouds"], "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"]


@pytest.mark.parametrize("host", METADATA)
def test_metadata_is_no_label_studio_either(host: str) -> None:
    """A caller of `/setup` may name Label Studio's address if the operator has not."""
    with pytest.raises(ImageError):
        ANY_HOST.addresses(host.strip("[]").lower(), 80, fake_resolver)


def test_metadata_is_allowed_where_it_is_listed_by_itself_alone() -> None:
    def allows(setting: str) -> bool:
        try:
            AllowedHosts.parse(setting).addresses("169.254.169.254", 80, fake_resolver)
        except ImageError:
            return False
        return True

    assert not allows("public")
    assert not allows("169.254.0.0/16, 0.0.0.0/0")
    assert allows("169.254.169.254")
    assert ANY_HOST.addresses("10.0.0.1", 80, fake_resolver) == ["10.0.0.1"]
