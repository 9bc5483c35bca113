"""A port at which nobody may arrive, and names that mean the same on every machine."""

from __future__ import annotations

import select
import socket

# A fake, since tests must not ask the network's name servers and these names must mean the same
# everywhere; numbers in all their spellings, and localhost, go to the system's resolver.
NAMES = {
    "metadata.google.internal": ["169.254.169.254"],
    "127.0.0.1.names.example": ["127.0.0.1"],
    "mixed.example": ["8.8.8.8", "127.0.0.1"],
    "mixed6.example": ["2001:4860:4860::8888", "::ffff:169.254.169.254"],
}


def fake_resolver(host: str, port: int) -> list[str]:
    if host in NAMES:
        return NAMES[host]
    if host.lower() == "localhost" or host.strip("[]").replace("%", "")[-1:].isalnum():
        found = socket.getaddrinfo(
            host.strip("[]"),
            port,
            type=socket.SOCK_STREAM,
            flags=0 if host.lower() == "localhost" else socket.AI_NUMERICHOST,
        )
        return [str(entry[4][0]) for entry in found]
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


def connected(listener: socket.socket) -> bool:
    """Whether anybody has connected: the connection would be waiting to be accepted."""
    return bool(select.select([listener], [], [], 0)[0])
