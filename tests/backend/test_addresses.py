from __future__ import annotations

from ipaddress import ip_address

import pytest

from cdal.backend.addresses import AllowedHosts, is_public, server_address
from cdal.backend.errors import ImageError

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.169.0.1",
    "100.63.255.255",
    "168.63.129.17",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",  # NAT64 of 8.8.8.8
    "2002:808:808::1",  # 6to4 of 8.8.8.8
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba Cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's platform
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",  # Oracle Cloud's metadata
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
    "64:ff9b:1::7f00:1",
    "2001:0:808:808::80ff:fffe",  # Teredo, of a client at 127.0.0.1
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::",  # 6to4 of 169.254.169.254
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # AWS's metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


def allowed(setting: str, host: str, *addresses: str, port: int = 80) -> bool:
    # A fake resolver: what a name resolves to is the input here, not a matter of this machine.
    try:
        found = AllowedHosts.parse(setting).addresses(host, port, lambda *_: addresses)
    except ImageError:
        return False
    assert found == list(addresses)
    return True


def test_public_means_that_every_address_is_public() -> None:
    assert allowed("public", "a.example", "8.8.8.8", "2001:4860:4860::8888")
    assert not allowed("public", "a.example", "8.8.8.8", "10.0.0.1")
    assert not allowed("public", "a.example", "8.8.8.8", "::1")


def test_without_public_only_what_is_listed() -> None:
    assert not allowed("minio", "a.example", "8.8.8.8")
    assert not allowed("", "a.example", "8.8.8.8")
    assert allowed("8.8.8.0/24", "a.example", "8.8.8.8")


@pytest.mark.parametrize("setting", ["minio", "MinIO", " minio ,", "minio.", "minio:9000"])
def test_a_listed_name_may_have_any_address(setting: str) -> None:
    assert allowed(setting, "minio", "10.0.0.7", port=9000)
    assert allowed(setting, "MINIO.", "10.0.0.7", port=9000)
    assert not allowed(setting, "minio.example", "10.0.0.7", port=9000)


def test_a_name_in_unicode_is_listed_as_it_is_asked_for() -> None:
    assert allowed("bücher.example", "xn--bcher-kva.example", "10.0.0.7")


def test_a_listed_port_is_the_only_one() -> None:
    assert not allowed("minio:9000", "minio", "10.0.0.7", port=9001)
    assert not allowed("10.0.0.7:9000", "a.example", "10.0.0.7", port=9001)
    assert allowed("10.0.0.7:9000", "a.example", "10.0.0.7", port=9000)
    assert allowed("[fd00::5]:9000", "a.example", "fd00::5", port=9000)
    assert not allowed("[fd00::5]:9000", "a.example", "fd00::5", port=80)


def test_listed_networks() -> None:
    assert allowed("10.1.0.0/16", "a.example", "10.1.2.3")
    assert allowed("10.1.0.0/16", "a.example", "::ffff:10.1.2.3")
    assert not allowed("10.1.0.0/16", "a.example", "10.2.0.1")
    assert not allowed("10.1.0.0/16", "a.example", "10.1.2.3", "10.2.0.1")
    assert allowed("10.1.0.0/16, public", "a.example", "10.1.2.3", "8.8.8.8")
    assert allowed("fd00::/8", "a.example", "fd12::1")
    assert not allowed("fd00::/8", "a.example", "fc00::1")
    assert allowed("fd00::5", "a.example", "fd00::5")


def test_the_refusal_names_the_host_and_the_setting() -> None:
    with pytest.raises(ImageError) as refused:
        AllowedHosts().addresses("inside.example", 80, lambda *_: ["10.0.0.1"])
    assert refused.value.reason == (
        "Images may not be fetched from the host inside.example; "
        "an administrator can allow it in CDAL_IMAGE_HOSTS."
    )


@pytest.mark.parametrize(
    "entry",
    [
        "http://minio",
        "minio/bucket",
        "user@minio",
        "minio?x",
        "minio:port",
        "minio:99999",
        "*.example",
        "*",
        "10.0.0.1/8",  # host bits: the operator may have meant the address or the network
        "10.0.0.0/33",
        "-minio",
        "min io",
        "[fd00::5",
    ],
)
def test_a_bad_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host name") as refused:
        AllowedHosts.parse(f"public, {entry}")
    assert repr(entry) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://ls.example", "http://ls.example"),
        (" HTTP://LS.Example.:80/ ", "http://ls.example"),
        ("https://ls.example:443/below//", "https://ls.example/below"),
        ("https://ls.example:8443/?x=1#y", "https://ls.example:8443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://ls.example:80808", None),
        ("ls.example:8080", None),
        ("ftp://ls.example", None),
        ("http://", None),
        ("http://ann:pass@ls.example", None),
        ("http://ls.example/" + "x" * 500, None),
    ],
)
def test_a_server_has_one_address(text: str, address: str | None) -> None:
    assert server_address(text) == address
