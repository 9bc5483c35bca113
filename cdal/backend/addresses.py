"""Which network addresses task data may make the backend connect to."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from urllib3.connection import port_by_scheme
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from cdal.backend.errors import ImageError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# From a host name and a port to the addresses to try, in order; OSError if the name has none.
Resolver = Callable[[str, int], Sequence[str]]

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
# Python 3.11's ipaddress calls these global, although no public image is there.
_NOT_PUBLIC = (
    ip_network("168.63.129.16"),  # Azure's platform, which each of its machines can reach
    ip_network("192.0.0.0/24"),  # protocol assignments; Oracle Cloud's metadata is among them
    ip_network("192.88.99.0/24"),  # 6to4 relays
    ip_network("224.0.0.0/4"),  # multicast
    ip_network("3fff::/20"),  # documentation
)
# Services that give a cloud's machines their secrets, at addresses that nothing else uses.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # of nearly all clouds
            "169.254.170.2",  # AWS, of containers
            "169.254.170.23",
            "168.63.129.16",  # Azure's platform
            "100.100.100.200",  # Alibaba Cloud
            "192.0.0.192",  # Oracle Cloud
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",
            "fd20:ce::254",  # Google Cloud
        ),
    )
)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host by the system's resolver.

    Raises:
        OSError: the name has no address.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


MOST_CHARACTERS = 500


def server_address(text: str) -> str | None:
    """The address of a server in its only spelling; None if it is not the address of one.

    "HTTP://Label-Studio.example:80/" is "http://label-studio.example".
    """
    try:
        url = parse_url(text.strip())
    except LocationParseError:
        return None
    if url.scheme not in port_by_scheme or not url.host or url.auth or len(text) > MOST_CHARACTERS:
        return None
    port = "" if url.port in (None, port_by_scheme[url.scheme]) else f":{url.port}"
    return f"{url.scheme}://{url.host.rstrip('.')}{port}{(url.path or '').rstrip('/')}"


def is_public(address: Address) -> bool:
    """Whether everybody on the internet would reach the same machine at this address.

    An IPv6 address that carries an IPv4 address (mapped, 6to4, Teredo, NAT64) is as public as
    the address it carries, since that is where the packets end up.
    """
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is not None:
            return is_public(carried)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def is_metadata(address: Address) -> bool:
    """Whether a cloud gives its machines their secrets at this address."""
    carried = _carried(address) if isinstance(address, IPv6Address) else None
    return (carried or address) in _METADATA


def is_servers(address: Address) -> bool:
    """Whether a self-hosted server may have this address: public, private or this machine's."""
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is not None:
            return is_servers(carried)
    odd = address.is_link_local or address.is_multicast or address.is_unspecified
    if odd or is_metadata(address):
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts from which images may be fetched, besides Label Studio.

    Attributes:
        public: Whether any host is allowed all of whose addresses are public.
        names: Host names, each with the one port that is allowed or None for every port; allowed
            whatever their addresses are.
        networks: Networks, with ports likewise; a host is allowed whose addresses lie in them. An
            address of a cloud's metadata is allowed only where it is listed by itself.
    """

    public: bool = True
    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> AllowedHosts:
        """Read a setting such as ``public, minio:9000, 10.1.0.0/16, [fd00::5]:8080``.

        Entries are host names, addresses (both with or without a port), networks in CIDR form, or
        the word ``public``. An empty text allows no host but Label Studio itself.

        Raises:
            ValueError: an entry is none of these; the message names it.
        """
        public = False
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            if entry == "public":
                public = True
                continue
            host, port = _split_entry(entry)
            if isinstance(host, str):
                names.add((host, port))
            else:
                networks.append((host, port))
        return cls(public, frozenset(names), tuple(networks))

    def addresses(self, host: str, port: int, resolver: Resolver = resolve) -> list[str]:
        """Resolve a host to the addresses that may be connected to, in the resolver's order.

        Connect to one of these addresses, not to the name, which may resolve to something else a
        moment later.

        Raises:
            ImageError: one of its addresses is not allowed, so none is.
            OSError: the name has no address.
        """
        found = list(dict.fromkeys(resolver(host, port)))
        name = host.rstrip(".").lower()
        if (name, None) in self.names or (name, port) in self.names:
            return found
        for address in found:
            if not self._allows(ip_address(address), port):
                raise ImageError(
                    f"Images may not be fetched from the host {name}; an administrator can allow "
                    "it in CDAL_IMAGE_HOSTS."
                )
        return found

    def _allows(self, address: Address, port: int) -> bool:
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        for network, only in self.networks:
            if address in network and only in (None, port):
                return network.num_addresses == 1 or not is_metadata(address)
        return self.public and is_public(address)


def _split_entry(entry: str) -> tuple[str | Network, int | None]:
    try:
        return ip_network(entry), None  # an address is the network that holds it alone
    except ValueError:
        pass  # not a network or an address by itself: a name, or something with a port
    try:
        url = parse_url(f"http://{entry}")
    except LocationParseError:
        url = parse_url("")
    host = url.host or ""
    if url != parse_url(f"http://{host}{'' if url.port is None else f':{url.port}'}"):
        host = ""  # userinfo, a path or a query came along
    try:
        return ip_network(host.strip("[]")), url.port
    except ValueError:
        host = host.rstrip(".")
    if not _NAME.fullmatch(host):
        raise ValueError(
            f"{entry!r} is not a host name, host:port, IP address, CIDR network or the word public."
        )
    return host, url.port


ANY_HOST = AllowedHosts.parse("0.0.0.0/0, ::/0")
"""For Label Studio itself, wherever it is."""
