"""The feature store: entries are found again, bounded, and whole after kills and damage."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from cdal.models import feature_store, shards
from cdal.models.feature_store import FeatureStore, SeenImage, SeenImages
from cdal.models.features import ImageFeatures

MB = 2**20
FORK = get_context("fork")
"""Starts in milliseconds: torch is imported already."""


def key(number: int) -> bytes:
    return number.to_bytes(16)


def vector(number: int, length: int = 1280) -> SeenImage:
    return SeenImage(ImageFeatures((torch.full((length,), number).half(),), (64, 64)), (number, 7))


def maps(number: int) -> SeenImage:
    """Maps of an image whose shape depends on its number."""
    levels = (torch.randn(3, 4, 2 + number % 3).half(), torch.randn(5, 2, 1).half())
    return SeenImage(ImageFeatures(levels, (32, 16)), (480, 240))


def same(a: SeenImage | None, b: SeenImage | None) -> bool:
    if a is None or b is None:
        return a is b
    pairs = zip(a.features.maps, b.features.maps, strict=True)
    return (a.size, a.features.content) == (b.size, b.features.content) and all(
        x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs
    )


def keep(store: FeatureStore, numbers: range, extraction: str = "pooled") -> None:
    """Keep vectors under their numbers, at addresses of the same numbers, in one file."""
    for number in numbers:
        store.note(key(number), key(number))
        store.put(extraction, key(number), vector(number))
    store.flush()


def of_contents(
    store: FeatureStore, extraction: str, contents: list[bytes]
) -> list[SeenImage | None]:
    return in_order(store.get(extraction, contents), len(contents))


def at(store: FeatureStore, extraction: str, addresses: list[bytes]) -> list[SeenImage | None]:
    return in_order(store.at(extraction, addresses), len(addresses))


def in_order(kept: SeenImages, count: int) -> list[SeenImage | None]:
    images: list[SeenImage | None] = [None] * count
    for row, size, features in zip(kept.rows, kept.sizes, kept.features, strict=True):
        images[row] = SeenImage(features, size)
    return images


def found(store: FeatureStore, numbers: range, extraction: str = "pooled") -> list[int]:
    """The numbers that are kept; each vector must be the one that was put."""
    images = at(store, extraction, [key(number) for number in numbers])
    kept = [number for number, image in zip(numbers, images, strict=True) if image]
    assert all(same(images[numbers.index(number)], vector(number)) for number in kept)
    return kept


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path, 64 * MB)


class TestKeeping:
    @pytest.mark.parametrize("make", [vector, maps])
    def test_what_was_put_is_found_by_content(
        self, store: FeatureStore, tmp_path: Path, make: Callable[[int], SeenImage]
    ) -> None:
        images = {key(number): make(number) for number in range(1, 4)}
        for content, image in images.items():
            store.put("one", content, image)
        before = of_contents(store, "one", list(images))  # not written yet
        store.flush()
        again = of_contents(FeatureStore(tmp_path, 64 * MB), "one", list(images))
        for kept in (before, again, of_contents(store, "one", list(images))):
            assert all(same(a, b) for a, b in zip(kept, images.values(), strict=True))

    def test_an_image_that_another_process_wrote_meanwhile_is_found_once(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        store.put("one", key(1), vector(1))
        other = FeatureStore(tmp_path, 64 * MB)
        other.put("one", key(1), vector(1))
        other.flush()
        assert list(store.get("one", [key(2), key(1)]).rows) == [1]

    def test_a_file_that_another_process_removes_meanwhile_costs_nothing(
        self, store: FeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "pooled").mkdir()
        # Listed, but gone when it is looked at.
        (tmp_path / "pooled" / f"0{shards.SUFFIX}").symlink_to(tmp_path / "gone")
        keep(store, range(1, 3))
        assert found(store, range(1, 3)) == [1, 2]
        assert caplog.records == []

    def test_an_extraction_knows_nothing_of_another(self, store: FeatureStore) -> None:
        keep(store, range(1, 3), "one")
        assert found(store, range(1, 3), "two") == []
        assert found(store, range(4), "one") == [1, 2]

    def test_an_address_has_the_content_that_was_last_found_there(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        for number in (1, 2):
            store.note(key(9), key(number))
            store.put("one", key(number), vector(number))
            assert same(at(store, "one", [key(9)])[0], vector(number))
            store.flush()
            for each in (store, FeatureStore(tmp_path, 64 * MB)):
                assert same(at(each, "one", [key(9)])[0], vector(number))
        store.note(key(9), key(3))  # of which there are no features yet
        assert at(store, "one", [key(9)]) == [None]

    def test_two_processes_see_what_the_other_has_written(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        other = FeatureStore(tmp_path, 64 * MB)
        for start in (1, 11, 21):
            assert found(other, range(start, start + 10)) == []
            keep(store, range(start, start + 10))
            assert len(found(other, range(start, start + 10))) == 10

    def test_many_small_files_become_few(self, store: FeatureStore, tmp_path: Path) -> None:
        for number in range(1, 101):
            keep(store, range(number, number + 1))
            store.note(key(1000), key(number))  # changes each time
        store.flush()
        for folder in ("pooled", "addresses"):
            assert len(list((tmp_path / folder).iterdir())) < 2 * shards.MERGED_AT
        for each in (store, FeatureStore(tmp_path, 64 * MB)):
            assert len(found(each, range(1, 101))) == 100
            assert same(at(each, "pooled", [key(1000)])[0], vector(100))

    def test_what_cannot_be_written_is_logged_once_and_not_raised(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        store = FeatureStore(tmp_path / "file" / "features", 64 * MB)
        for number in (1, 2):
            keep(store, range(number, number + 1))
        assert [record.getMessage() for record in caplog.records] == [
            "Features of images are not kept: Not a directory."
        ]
        assert found(store, range(1, 3)) == []

    def test_a_limit_of_zero_keeps_nothing(self, tmp_path: Path) -> None:
        store = FeatureStore(tmp_path / "features", 0)
        keep(store, range(1, 9))
        assert found(store, range(1, 9)) == []
        assert not (tmp_path / "features").exists()


class TestBound:
    def test_the_oldest_go_first(self, tmp_path: Path) -> None:
        limit = 128 * 1024
        store = FeatureStore(tmp_path, limit)
        for number in range(1, 101):  # 2,560 bytes each
            keep(store, range(number, number + 1), f"backbone {number % 2}")
            used = sum(file.stat().st_size for file in tmp_path.glob("*/*"))
            assert used <= limit
        for parity in (0, 1):
            kept = found(store, range(parity, 101, 2), f"backbone {parity}")
            assert len(kept) > 10
            assert kept == list(range(kept[0], 101, 2))  # the newest, without a gap

    def test_an_image_that_alone_is_too_large(self, tmp_path: Path) -> None:
        store = FeatureStore(tmp_path, 8192)
        store.put("one", key(1), vector(1, 5000))
        store.flush()
        assert of_contents(store, "one", [key(1)]) == [None]

    def test_what_another_process_is_reading_stays_readable(self, tmp_path: Path) -> None:
        store, other = (FeatureStore(tmp_path, 64 * 1024) for _ in range(2))
        keep(store, range(1, 5))
        (image,) = of_contents(other, "pooled", [key(1)])
        for number in range(10, 40):
            keep(store, range(number, number + 1))
        assert of_contents(other, "pooled", [key(1)]) == [None]
        assert same(image, vector(1))


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[: len(data) // 2],
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            lambda data: data[:4] + b"\xff" + data[5:],
            lambda data: data[:-2000] + bytes(2000),
            lambda data: b"\x02" + bytes(7) + b"{}",
        ],
    )
    @pytest.mark.parametrize("folder", ["pooled", "addresses"])
    @pytest.mark.parametrize("is_open", [False, True])
    def test_a_damaged_file_is_made_again(
        self, tmp_path: Path, folder: str, is_open: bool, damage: Callable[[bytes], bytes]
    ) -> None:
        store = FeatureStore(tmp_path, 64 * MB)
        keep(store, range(1, 101))
        (file,) = (tmp_path / folder).iterdir()
        keep(store, range(101, 201))
        if is_open:  # but nothing of it was read yet
            at(store, "pooled", [key(0)])
        else:
            store = FeatureStore(tmp_path, 64 * MB)
        # A new file: what is open is damaged by a disk, not by somebody who cuts it off.
        data = damage(file.read_bytes())
        file.unlink()
        file.write_bytes(data)
        store = FeatureStore(tmp_path, 64 * MB) if is_open else store
        kept = found(store, range(1, 201))
        assert set(range(101, 201)) <= set(kept)
        assert len(kept) < 200
        assert not file.exists()
        keep(store, range(1, 101))
        assert len(found(store, range(1, 201))) == 200
        assert len(found(FeatureStore(tmp_path, 64 * MB), range(1, 201))) == 200


def in_another_process(call: Callable[..., None], *arguments: object) -> int | None:
    """Run a function in a copy of this process; returns its exit code."""
    process = FORK.Process(target=call, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def filling(folder: Path, committed: Any, fatal: int) -> None:
    """Fill a store until it kills itself before a certain call that changes files."""
    calls = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    shards.save_file = deadly(shards.save_file)
    Path.rename = deadly(Path.rename)  # type: ignore[method-assign]
    Path.unlink = deadly(Path.unlink)  # type: ignore[method-assign]
    store = FeatureStore(folder, 64 * MB)
    for number in range(1, 4):
        keep(store, range(number, number + 1))
        committed.send(number)


class TestKills:
    @pytest.mark.slow
    def test_nothing_is_lost_or_damaged_wherever_a_kill_comes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(shards, "MERGED_AT", 3)
        fatal = 0
        while True:
            fatal += 1
            folder = tmp_path / str(fatal)
            here, there = FORK.Pipe(duplex=False)
            code = in_another_process(filling, folder, there, fatal)
            there.close()
            committed = list(received(here))
            store = FeatureStore(folder, 64 * MB)
            kept = found(store, range(1, 4))
            assert set(committed) <= set(kept)
            assert len(kept) <= len(committed) + 1
            keep(store, range(1, 4))
            assert found(store, range(1, 4)) == [1, 2, 3]
            assert list(folder.glob(f"*/*{shards.UNFINISHED}")) == []
            if code == 0:
                break
            assert code == -signal.SIGKILL
        assert fatal > 12
        assert caplog.records == []  # no file was damaged

    def test_two_writers_at_once(self, tmp_path: Path) -> None:
        def write(start: int) -> None:
            store = FeatureStore(tmp_path, 64 * MB)
            for number in range(start, start + 40):
                keep(store, range(number, number + 1))

        writers = [FORK.Process(target=write, args=(start,)) for start in (1, 21)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0, 0]
        assert len(found(FeatureStore(tmp_path, 64 * MB), range(1, 61))) == 60


def received(pipe: Any) -> Iterator[int]:
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return


def test_files_hold_many_images(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 64 * MB)
    for number in range(1, 2 * feature_store.SHARD_IMAGES + 1):
        store.put("one", key(number), vector(number, 8))
    assert len(list((tmp_path / "one").iterdir())) >= 2  # without being told to
    store.flush()
    assert len(list((tmp_path / "one").iterdir())) < 20
