"""Files that outlast a power loss: on the disk before their name is."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(file: Path) -> None:
    """Have a file's content on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def put_in_place(unfinished: Path, place: Path) -> None:
    """Give a file its name: after a power loss it is there whole, or not at all."""
    sync_file(unfinished)
    unfinished.rename(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
