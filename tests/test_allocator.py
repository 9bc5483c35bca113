"""Memory that is freed is used again, without the system's help."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

BLOCK = 64 * 2**20

PAGES_TOUCHED = f"""
import sys
from resource import RUSAGE_SELF, getrusage
from threading import Thread

def touch(length):
    for _ in range(5):
        b"x" * length

if "keep" in sys.argv:
    from cdal.allocator import keep_freed_memory
    keep_freed_memory()
for _ in range(2):
    before = getrusage(RUSAGE_SELF).ru_minflt
    thread = Thread(target=touch, args=({BLOCK},))
    thread.start()
    thread.join()
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_blocks_are_reused_in_every_thread() -> None:
    def pages(*arguments: str) -> int:
        command = [sys.executable, "-c", PAGES_TOUCHED, *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    block = BLOCK // resource.getpagesize()
    assert pages() >= block  # as glibc does by default
    assert pages("keep") < block / 10
