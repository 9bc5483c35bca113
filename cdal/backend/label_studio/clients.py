"""The clients of a process: one connection per server and token, however many projects use it."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from cdal.backend.label_studio.client import LabelStudioClient


class Clients:
    """Clients by server, token and project.

    Opening a connection costs a tenth of a second of computing, and each keeps sockets open.

    Args:
        most: connections that are kept; the least recently used is closed once no job uses it.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._lock = Lock()
        self._opened: OrderedDict[tuple[str, str], LabelStudioClient] = OrderedDict()

    def get(self, url: str, token: str, project: int) -> LabelStudioClient:
        """A client for a project.

        Raises:
            LabelStudioError: the address is not valid.
        """
        with self._lock:
            client = self._opened.get((url, token))
            if client is None:
                client = self._opened[url, token] = LabelStudioClient(url, token, project)
            self._opened.move_to_end((url, token))
            while len(self._opened) > self._most:
                self._opened.popitem(last=False)
        return client.for_project(project)
