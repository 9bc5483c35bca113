"""The networks that the web process predicts unseen images with, loaded when first needed."""

from __future__ import annotations

import threading
from pathlib import Path

from cdal.models import TaskNetwork, choose_device


class LoadedNetworks:
    """The last few networks that were asked for."""

    KEPT = 2

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._loaded: dict[Path, TaskNetwork] = {}

    def get(self, folder: Path) -> TaskNetwork:
        """The network in a folder.

        Raises:
            ModelError: it cannot be loaded.
        """
        with self._lock:
            network = self._loaded.pop(folder, None)
            if network is None:
                network = TaskNetwork.load(folder, choose_device(self._device))
            self._loaded[folder] = network  # the last one is the most recently used
            while len(self._loaded) > self.KEPT:
                self._loaded.pop(next(iter(self._loaded)))
            return network
