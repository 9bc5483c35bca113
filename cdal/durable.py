"""Files that survive a power loss: their content reaches the disk before their name does."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(file: Path) -> None:
    """Flush a file's content to the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def put_in_place(unfinished: Path, place: Path) -> None:
    """Rename a finished file: after a power loss it is complete or does not exist."""
    sync_file(unfinished)
    unfinished.rename(place)
    sync_folder(place.parent)


def put_tree_in_place(unfinished: Path, place: Path) -> None:
    """Rename a finished folder: after a power loss all that is in it exists, or nothing."""
    for path in unfinished.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(unfinished)
    unfinished.rename(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
