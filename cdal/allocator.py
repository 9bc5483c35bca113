"""The C library's allocator, set for processes in which networks run on the CPU."""

from __future__ import annotations

import ctypes

MAPPED_FROM_BYTES = 2**30
"""Smaller blocks come from the heap, and stay there when they are freed."""

KEPT_BYTES = 2**28
"""Free memory at the end of the heap beyond this goes back to the system."""

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> None:
    """Let this process reuse the memory that it frees, instead of returning it to the system.

    A feature map of a batch has tens of megabytes. By default glibc requests such a block from the
    system for each layer and returns it after the layer, and the system fills its pages with zeros
    each time: half of the processor time of a backbone's pass. All threads share one arena, since
    those of other threads are too small for such blocks.

    Does nothing where the C library has no ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
