"""Random numbers that are fixed by a seed and leave the process's own generator as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's default generators inside the block and restore them after it.

    Weight initialisation and dropout take no generator of their own, so they need this. The
    default generators belong to the process: if another thread draws from them meanwhile, both
    still get random numbers, but not the same ones in every run.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
