"""The networks that the web process predicts unseen images with, loaded when first needed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import torch

from cdal.models import TaskNetwork, choose_device, free_memory

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


class LoadedNetworks:
    """The last few networks that were asked for."""

    KEPT = 2

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._loaded: dict[Path, TaskNetwork] = {}

    def get(self, folder: Path) -> TaskNetwork:
        """The network in a folder; on the CPU where the GPU's memory is full.

        Raises:
            ModelError: it cannot be loaded.
        """
        with self._lock:
            network = self._loaded.pop(folder, None) or self._load(folder)
            self._loaded[folder] = network  # the last one is the most recently used
            while len(self._loaded) > self.KEPT:
                self._loaded.pop(next(iter(self._loaded)))
            return network

    def move_to_cpu(self, folder: Path) -> TaskNetwork:
        """The network in a folder, from now on on the CPU: a training needs all of the GPU.

        Raises:
            ModelError: it cannot be loaded.
        """
        with self._lock:
            self._loaded.pop(folder, None)
            free_memory()
            network = TaskNetwork.load(folder, CPU)
            self._loaded[folder] = network
            return network

    def _load(self, folder: Path) -> TaskNetwork:
        try:
            return TaskNetwork.load(folder, choose_device(self._device))
        except torch.OutOfMemoryError:
            log.warning("The GPU's memory is full; unseen images are predicted on the CPU.")
        return TaskNetwork.load(folder, CPU)
