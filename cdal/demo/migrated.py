"""A new Label Studio database, migrated once per version and copied for each new server.

Label Studio's migrations take a minute of CPU time. On a database that has them it starts in
seconds, and it still runs any that the copy lacks.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

DATABASE = "label_studio.sqlite3"
"""What Label Studio calls its database in its data folder."""


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return caches / "label-studio-cdal"


def copy_migrated(
    data_folder: Path, label_studio: Sequence[str], environment: Mapping[str, str], log: Path
) -> None:
    """Give a new data folder a database without users or projects, with all its tables.

    A folder that has a database keeps it. If the copy cannot be made, the folder stays empty, and
    Label Studio migrates a database of its own when it starts.

    Args:
        data_folder: Label Studio's.
        label_studio: the command that runs Label Studio, without arguments.
        environment: the variables it needs besides this process's own.
        log: the file that its output is appended to.
    """
    target = data_folder / DATABASE
    if target.exists():
        return
    try:
        cache = cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        cached = cache / f"label-studio-{version('label-studio')}.sqlite3"
        with cached.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several servers may start at once
            if not cached.exists():
                _migrate(cached, label_studio, environment, log)
        data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy(cached, target)
    except (OSError, sqlite3.Error, subprocess.CalledProcessError) as error:
        with log.open("a") as file:
            file.write(f"No migrated database to start from: {error}\n")


def _migrate(
    cached: Path, label_studio: Sequence[str], environment: Mapping[str, str], log: Path
) -> None:
    """Have Label Studio make a database: it migrates even when asked only for its version."""
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder, log.open("ab") as output:
        subprocess.run(
            [*label_studio, "version"],
            env={**os.environ, **environment, "LABEL_STUDIO_BASE_DATA_DIR": folder},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        _copy(Path(folder) / DATABASE, cached)


def _copy(source: Path, target: Path) -> None:
    """Copy a database whole or not at all, with what its log still holds."""
    unfinished = target.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as database:
        database.execute("VACUUM INTO ?", (str(unfinished),))
    unfinished.rename(target)
