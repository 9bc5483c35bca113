from __future__ import annotations

import pytest
from urllib3.util import parse_url

from cdal.backend.errors import ImageError
from cdal.backend.images.source import ImageSource

TASK = 7
HOME = "http://ls:8080"
BELOW = "https://example.com/label-studio"

# Home, what the task's data says, what is fetched.
FINE = [
    (HOME, "/data/upload/1/a.png", f"{HOME}/data/upload/1/a.png"),
    (HOME, "/data/upload/1/a b.png", f"{HOME}/data/upload/1/a%20b.png"),
    (HOME, "/data/upload/1/a%20b.png", f"{HOME}/data/upload/1/a%20b.png"),
    (HOME, "/data/upload/1/été.png", f"{HOME}/data/upload/1/%C3%A9t%C3%A9.png"),
    (HOME, "/data/upload/1/犬\u3000猫.png", None),
    (HOME, "/data/upload/1/a..b.png", f"{HOME}/data/upload/1/a..b.png"),
    (HOME, "/data/upload/1/a@b:c.png", f"{HOME}/data/upload/1/a@b:c.png"),
    (HOME, "/data/upload/1/2/deep.png", f"{HOME}/data/upload/1/2/deep.png"),
    (HOME, "/data/local-files/?d=set/a.png", f"{HOME}/data/local-files/?d=set/a.png"),
    (HOME, "/data/local-files?d=set/a.png", f"{HOME}/data/local-files?d=set/a.png"),
    (HOME, "/data/local-files/?d=set\\a.png", f"{HOME}/data/local-files/?d=set%5Ca.png"),
    (HOME, "/storage-data/uploaded/?filepath=upload/1/a.png", None),
    (HOME, "/tasks/5/resolve/?fileuri=czM6Ly9iL2s=", None),
    (HOME, "/tasks/5/presign/?fileuri=czM6Ly9iL2s=", None),
    (HOME, "/projects/5/resolve/?fileuri=czM6Ly9iL2s=", None),
    (HOME, "s3://b/k", f"{HOME}/tasks/7/resolve/?fileuri=czM6Ly9iL2s="),
    (HOME, "gs://b/k", f"{HOME}/tasks/7/resolve/?fileuri=Z3M6Ly9iL2s="),
    (HOME, "azure-blob://b/k", f"{HOME}/tasks/7/resolve/?fileuri=YXp1cmUtYmxvYjovL2Ivaw=="),
    (HOME, "s3://b/???>>>", f"{HOME}/tasks/7/resolve/?fileuri=czM6Ly9iLz8_Pz4-Pg=="),
    (HOME, "s3://b/../k", f"{HOME}/tasks/7/resolve/?fileuri=czM6Ly9iLy4uL2s="),
    (f"{HOME}/", "s3://b/k", f"{HOME}/tasks/7/resolve/?fileuri=czM6Ly9iL2s="),
    (f"{HOME}/", "/data/upload/1/a.png", f"{HOME}/data/upload/1/a.png"),
    (BELOW, "/data/upload/1/a.png", f"{BELOW}/data/upload/1/a.png"),
    (BELOW, "/label-studio/data/upload/1/a.png", f"{BELOW}/data/upload/1/a.png"),
    (BELOW, "s3://b/k", f"{BELOW}/tasks/7/resolve/?fileuri=czM6Ly9iL2s="),
    (HOME, f"{HOME}/data/upload/1/a.png", f"{HOME}/data/upload/1/a.png"),
    (HOME, " /data/upload/1/a.png ", f"{HOME}/data/upload/1/a.png"),
    (HOME, "https://example.com/a.png", "https://example.com/a.png"),
    (HOME, "HTTPS://Example.COM/A.png", "https://example.com/A.png"),
    (HOME, "https://example.com/a.png?sig=%2F+x&y=a@b", None),
    (HOME, "https://example.com/a b.png", "https://example.com/a%20b.png"),
    (HOME, "https://example.com/user@home/a.png", "https://example.com/user@home/a.png"),
    (HOME, "https://example.com/x?u=http://a\\b", "https://example.com/x?u=http://a%5Cb"),
    (HOME, "https://example.com", "https://example.com"),
    (HOME, "https://example.com./a.png", "https://example.com./a.png"),
    (HOME, "https://example.com:8443/a.png", "https://example.com:8443/a.png"),
    (HOME, "https://bücher.example/a.png", "https://xn--bcher-kva.example/a.png"),
    (HOME, "http://[2001:4860:4860::8888]:81/a.png", "http://[2001:4860:4860::8888]:81/a.png"),
]


@pytest.mark.parametrize(("home", "value", "address"), FINE)
def test_locate(home: str, value: str, address: str | None) -> None:
    found = ImageSource(home, dict).locate(TASK, value)
    if address is None:  # it is fetched as it stands, from home if it is a path
        address = str(parse_url(f"{home if value[0] == '/' else ''}{value}"))
    assert str(found) == address


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "The task's image is a NoneType, not an address."),
        (["/data/upload/1/a.png"], "The task's image is a list, not an address."),
        ("", "The task names no image."),
        ("   ", "The task names no image."),
        ("/data/upload/1/" + "a" * 20_000, "The image's address is too long."),
        ("https://example.com/\x00", "The image's address contains control characters."),
        ("https://example.com/\ud800", "The image's address contains control characters."),
        ("s3://b/\ud800", "The image's address contains control characters."),
        ("/etc/passwd", "The image's address is not a path at which Label Studio serves files."),
        ("https://u:p@example.com/", "The image's address contains a user name or password."),
        ("https://example.com\\a", "The image's address contains a backslash."),
        ("https://[::1/", "The image's address names no valid host."),
        (
            "file:///etc/passwd",
            "The image's address cannot be fetched: it must be an upload, a local file "
            "that Label Studio serves, an http(s) address, or a file of a connected cloud storage.",
        ),
    ],
)
def test_locate_says_why_it_cannot(value: object, reason: str) -> None:
    with pytest.raises(ImageError) as refused:
        ImageSource(HOME, dict).locate(TASK, value)
    assert refused.value.reason == reason


# The address that Label Studio calls its own, what the task's data says, what is fetched from HOME.
PUBLIC = "https://ls.example.com"
BY_PUBLIC_NAME = [
    (PUBLIC, f"{PUBLIC}/data/local-files/?d=set/a.png", "/data/local-files/?d=set/a.png"),
    (PUBLIC, "http://LS.example.com/data/upload/1/a.png", "/data/upload/1/a.png"),
    (PUBLIC, f"{PUBLIC}:443/data/upload/1/a b.png", "/data/upload/1/a%20b.png"),
    (f"{PUBLIC}/ls", f"{PUBLIC}/ls/data/local-files/?d=a.png", "/data/local-files/?d=a.png"),
    (f"{PUBLIC}/ls", "/ls/data/upload/1/a.png", "/data/upload/1/a.png"),
    (f"{PUBLIC}/ls", "/data/upload/1/a.png", "/data/upload/1/a.png"),
    (f"{PUBLIC}/data", "/data/upload/1/a.png", "/data/upload/1/a.png"),
    ("http://localhost:8080", "http://localhost:8080/data/upload/1/a.png", "/data/upload/1/a.png"),
]


@pytest.mark.parametrize(("public", "value", "path"), BY_PUBLIC_NAME)
def test_label_studios_public_address_is_its_own(public: str, value: str, path: str) -> None:
    source = ImageSource(HOME, dict, public)
    found = source.locate(TASK, value)
    assert str(found) == f"{HOME}{path}"
    assert source.owns(found)


def test_below_a_path_it_gets_that_path() -> None:
    source = ImageSource(BELOW, dict, f"{PUBLIC}/ls")
    for value in ("/ls/data/upload/1/a.png", f"{PUBLIC}/ls/data/upload/1/a.png"):
        assert str(source.locate(TASK, value)) == f"{BELOW}/data/upload/1/a.png"


@pytest.mark.parametrize(
    "value",
    [
        f"{PUBLIC}/api/users",
        f"{PUBLIC}/data/upload/../../api/users",
        f"{PUBLIC}/ls2/data/upload/1/a.png",
        f"{PUBLIC}:8443/ls/data/upload/1/a.png",
        "https://ls.example.com.evil.example/ls/data/upload/1/a.png",
        "https://images.example.com/ls/data/upload/1/a.png",
    ],
)
def test_other_addresses_there_get_no_token(value: str) -> None:
    source = ImageSource(HOME, dict, f"{PUBLIC}/ls")
    assert not source.owns(source.locate(TASK, value))


@pytest.mark.parametrize(
    ("home", "address"),
    [
        ("http://ls:8080", "http://ls:8080/data/upload/1/a.png"),
        ("http://ls:8080", "http://LS.:8080/data/upload/1/a.png"),
        ("http://ls", "http://ls:80/data/upload/1/a.png"),
        ("https://ls:443", "https://ls/data/upload/1/a.png"),
        (BELOW, f"{BELOW}/tasks/1/resolve/?fileuri=x"),
    ],
)
def test_owns(home: str, address: str) -> None:
    assert ImageSource(home, dict).owns(parse_url(address))


@pytest.mark.parametrize(
    ("home", "address"),
    [
        ("http://ls:8080", "http://ls:8081/data/upload/1/a.png"),
        ("http://ls:8080", "https://ls:8080/data/upload/1/a.png"),
        ("http://ls:8080", "http://ls/data/upload/1/a.png"),
        ("http://ls:8080", "http://ls.example:8080/data/upload/1/a.png"),
        ("http://ls:8080", "http://ls:8080/"),
        ("http://ls:8080", "http://ls:8080"),
        ("http://ls:8080", "http://ls:8080/data/upload/"),
        ("http://ls:8080", "http://ls:8080/api/current-user/token"),
        ("http://ls:8080", "http://ls:8080/tasks/1/resolve/../../../api/users"),
        ("http://ls:8080", "http://ls:8080/data/upload/%2e%2e/%2e%2e/api/users"),
        ("http://ls:8080", "http://ls:8080/data/upload/..%2F..%2Fapi/users"),
        ("http://ls:8080", "http://ls:8080/data/upload/..%5C..%5Capi"),
        (BELOW, "https://example.com/data/upload/1/a.png"),
        (BELOW, "https://example.com/label-studio-2/data/upload/1/a.png"),
    ],
)
def test_does_not_own(home: str, address: str) -> None:
    assert not ImageSource(home, dict).owns(parse_url(address))
