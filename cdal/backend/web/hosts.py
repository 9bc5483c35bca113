"""The names by which the backend may be called.

A web page can let its own name lead to this machine's address (DNS rebinding). The browser then
takes the backend for that page's own server and lets the page read everything. What gives it away
is the name in the request's Host header. An IP address there is never such a name.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from cdal.backend.config import ServerConfig


def is_known(host: str, config: ServerConfig, connected_by: Callable[[], Collection[str]]) -> bool:
    """Whether a browser that calls the backend by a name may be answered.

    Args:
        host: a Host header.
        config: the server's settings.
        connected_by: gives the hosts by which Label Studio calls the backend.
    """
    if config.allowed_hosts is None and config.basic_auth_user is not None:
        return True  # a page under another name has no password
    name = name_of(host)
    if name in config.host_names or "*" in config.host_names:
        return True
    if _is_ip_address(name) or name == "localhost" or name.endswith(".localhost"):
        return True
    return name in map(name_of, connected_by()) or name in _names_of_this_machine()


def name_of(host: str) -> str:
    """The name in a Host header, without the port; empty if it is not valid."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def _is_ip_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _names_of_this_machine() -> frozenset[str]:
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local", socket.getfqdn().lower()}) - {"", ".local"}
