"""The networks that a process keeps loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import torch

from cdal.models import TaskNetwork, WeightSources, choose_device, free_memory, load_network
from cdal.models.head import HeadNetwork

MOST_BYTES = 1 << 30
"""Networks whose weights take more together do not stay loaded, except for the last one."""

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


class LoadedNetworks:
    """The networks that were requested last; a project has one per control."""

    def __init__(self, device: str, sources: WeightSources | None = None) -> None:
        self._device = device
        self._sources = sources
        self._lock = threading.Lock()
        self._loaded: dict[Path, TaskNetwork] = {}

    def get(self, folder: Path) -> TaskNetwork:
        """The network in a folder; on the CPU if the GPU's memory is full.

        Raises:
            ModelError: it cannot be loaded.
        """
        with self._lock:
            network = self._loaded.pop(folder, None) or self._load(folder)
            self._loaded[folder] = network  # the last one is the most recently used
            while len(self._loaded) > 1 and weight_bytes(self._loaded.values()) > MOST_BYTES:
                self._loaded.pop(next(iter(self._loaded)))
            return network

    def move_to_cpu(self, folder: Path) -> TaskNetwork:
        """The network in a folder, from now on on the CPU: a training needs the whole GPU.

        Raises:
            ModelError: it cannot be loaded.
        """
        with self._lock:
            self._loaded.pop(folder, None)
            free_memory()
            network = self._on(folder, CPU)
            self._loaded[folder] = network
            return network

    def _load(self, folder: Path) -> TaskNetwork:
        try:
            return self._on(folder, choose_device(self._device))
        except torch.OutOfMemoryError:
            log.warning("The GPU's memory is full; unseen images are predicted on the CPU.")
        return self._on(folder, CPU)

    def _on(self, folder: Path, device: torch.device) -> TaskNetwork:
        return load_network(folder, device, sources=self._sources)


def weight_bytes(networks: Iterable[TaskNetwork]) -> int:
    """The memory of the networks' weights; heads on the same backbone share it."""
    modules = [
        module
        for network in networks
        for module in (
            network.module,
            *((network.backbone.module,) if isinstance(network, HeadNetwork) else ()),
        )
    ]
    weights = {id(weight): weight for module in modules for weight in module.parameters()}
    return sum(weight.nbytes for weight in weights.values())
