from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from support.processes import PATIENCE

from cdal.backend.images.cache import DiskCache

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def age(folder: Path, key: str, seconds: float) -> None:
    path = folder / key[:2] / key
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_what_is_put_is_returned(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "new" / "folder", 10_000)
    assert cache.get(A) is None
    cache.put(A, b"pixels")
    assert cache.get(A) == b"pixels"
    assert cache.get(B) is None
    cache.put(A, b"others")
    assert cache.get(A) == b"others"
    cache.remove(A)
    cache.remove(A)
    assert cache.get(A) is None


def test_it_survives_a_restart(tmp_path: Path) -> None:
    DiskCache(tmp_path, 10_000).put(A, b"pixels")
    assert DiskCache(tmp_path, 10_000).get(A) == b"pixels"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "zeros", "short"])
def test_a_damaged_entry_is_not_returned(tmp_path: Path, damage: str) -> None:
    cache = DiskCache(tmp_path, 10_000)
    cache.put(A, b"pixels")
    [path] = entries(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "flip": whole[:-1] + bytes([whole[-1] ^ 1]),
            "cut": whole[:-1],
            "empty": b"",
            "zeros": bytes(len(whole)),
            "short": whole[:3],
        }[damage]
    )
    assert cache.get(A) is None
    assert entries(tmp_path) == []


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    # 2,000 bytes hold 20 entries of 100. A sweep comes with every entry here, since each is as
    # large as a twentieth; it starts above 1,800 bytes and goes down to 1,600.
    cache = DiskCache(tmp_path, 2000)
    keys = [f"{number:064x}" for number in range(20)]
    for number, key in enumerate(keys[:19]):
        cache.put(key, bytes(95) + b"x")
        age(tmp_path, key, 1000 - number)  # the first is the oldest
    assert len(entries(tmp_path)) == 19
    assert cache.get(keys[0]) is not None  # used now, so no longer the oldest
    cache.put(keys[19], bytes(95) + b"x")
    kept = [number for number, key in enumerate(keys) if cache.get(key) is not None]
    assert kept == [0, *range(4, 20)]  # 1, 2 and 3 went: 16 stayed, and one came


def test_it_stays_within_its_limit(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 20_000)
    for number in range(300):
        cache.put(f"{number:064x}", os.urandom(300 + number))
        assert sum(path.stat().st_size for path in entries(tmp_path)) <= 20_000
    assert len(entries(tmp_path)) > 20


def test_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 2000)
    cache.put(A, bytes(97))
    assert cache.get(A) is None
    cache.put(A, bytes(96))
    assert cache.get(A) == bytes(96)


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 0)
    cache.put(A, b"pixels")
    assert cache.get(A) is None
    assert not (tmp_path / "cache").exists()


def test_interrupted_writes_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "aa"
    folder.mkdir()
    old, new = folder / "tmp-old", folder / "tmp-new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")  # another process may be about to finish it
    os.utime(old, (0, 0))
    DiskCache(tmp_path, 10_000).put(B, b"pixels")
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = DiskCache(tmp_path / "file", 10_000)
    with caplog.at_level(logging.WARNING):
        cache.put(A, b"pixels")
        cache.put(B, b"pixels")
    assert cache.get(A) is None
    assert caplog.messages == ["Images are not cached: Not a directory."]


def test_many_threads(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 4000)
    wrong = []

    def work(seed: int) -> None:
        for number in range(100):
            key = f"{(seed + number) % 50:064x}"
            found = cache.get(key)
            if found is not None and found != key.encode():
                wrong.append(key)
            cache.put(key, key.encode())

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 4000


PROCESS = """
import sys
from pathlib import Path
from cdal.backend.images.cache import DiskCache
cache = DiskCache(Path(sys.argv[1]), 100_000)
for number in range(int(sys.argv[2]), 400, 3):
    key = f"{number:064x}"
    cache.put(key, key.encode() * 20)
    for other in range(0, number, 7):
        found = cache.get(f"{other:064x}")
        assert found in (None, f"{other:064x}".encode() * 20)
"""


@pytest.mark.slow
def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, tmp_path, str(first)]) for first in (0, 1)
    ]
    assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    left = entries(tmp_path)
    assert 0 < sum(path.stat().st_size for path in left) <= 100_000
    assert not [path for path in left if path.name.startswith("tmp-")]
    cache = DiskCache(tmp_path, 100_000)
    assert all(cache.get(path.name) == path.name.encode() * 20 for path in left)
