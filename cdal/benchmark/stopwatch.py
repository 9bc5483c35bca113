"""Measures what the time of a step is spent on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds by part; time outside all parts is "other"."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begun = time.perf_counter()
        self._parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the block, including the work it queues on a GPU."""
        begun = time.perf_counter()
        try:
            yield
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            self._parts[name] = self._parts.get(name, 0.0) + time.perf_counter() - begun

    def seconds(self, *parts: str) -> dict[str, float]:
        """The seconds of these parts, and of "other", since the stopwatch was created."""
        named = {part: self._parts.get(part, 0.0) for part in parts}
        total = time.perf_counter() - self._begun
        other = max(0.0, total - sum(self._parts.values()))
        return {name: round(value, 4) for name, value in {**named, "other": other}.items()}
