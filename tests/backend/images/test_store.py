from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from threading import Barrier, Lock, current_thread
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from support.loopback import Answer, Loopback, reply
from support.processes import PATIENCE
from torch import Tensor

from cdal.backend.images import store as module
from cdal.backend.images.decode import memory_to_decode
from cdal.backend.images.in_flight import InFlight
from cdal.backend.images.kept_file import FRESH_S, KeptFile
from cdal.backend.images.memory import Memory
from cdal.backend.images.store import AllowedHosts, ImageError, ImageFile, ImageSource, ImageStore


def png(grey: int, size: int = 1) -> bytes:
    file = BytesIO()
    Image.new("RGB", (size, size), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def label_studio() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def source(label_studio: Loopback) -> ImageSource:
    return ImageSource(label_studio.url, lambda: {"Authorization": "Token secret"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    images = ImageStore(tmp_path, 1_000_000, AllowedHosts(), max_bytes=1000, max_pixels=100)
    yield images
    images.close()


def path(number: int) -> str:
    return f"/data/upload/1/{number}.png"


def file_of(store: ImageStore, source: ImageSource, value: object) -> bytes:
    with store.opened(source, 1, value) as file:
        return file.data


def refusal(store: ImageStore, source: ImageSource, value: object) -> str:
    with pytest.raises(ImageError) as refused:
        store.read(source, 1, value)
    return refused.value.reason


def test_an_image_is_fetched_once(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(png(7, size=2))
    for _ in range(3):
        assert store.read(source, 1, path(1)).tolist() == [[[7, 7], [7, 7]]] * 3
    assert file_of(store, source, path(1)) == png(7, size=2)
    assert len(label_studio.requests) == 1


def test_the_cache_outlives_the_process(
    tmp_path: Path, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(png(7))
    for _ in range(2):
        images = ImageStore(tmp_path, 1_000_000, AllowedHosts())
        assert images.read(source, 1, path(1)).tolist() == [[[7]]] * 3
        images.close()
    assert len(label_studio.requests) == 1


def test_a_file_is_kept_for_its_task_alone(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    """Another project's task must ask Label Studio, which may refuse it."""
    label_studio.routes[path(1)] = reply(png(7))
    store.read(source, 1, path(1))
    label_studio.routes[path(1)] = reply(status=403)
    store.read(source, 1, path(1))
    with pytest.raises(ImageError, match="refuses to return the image"):
        store.read(source, 2, path(1))


def test_what_is_not_an_image_is_not_cached(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(b"<!doctype html><title>Log in</title>")
    assert "perhaps a login page" in refusal(store, source, path(1))
    label_studio.routes[path(1)] = reply(png(7))
    assert store.read(source, 1, path(1)).tolist() == [[[7]]] * 3


def test_a_damaged_image_is_fetched_again(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    damaged = bytearray(png(7))
    damaged[-20] ^= 255  # in the pixels: the header is well
    label_studio.routes[path(1)] = reply(bytes(damaged))
    assert refusal(store, source, path(1)) == "The image is damaged or incomplete."
    label_studio.routes[path(1)] = reply(png(7))
    assert store.read(source, 1, path(1)).tolist() == [[[7]]] * 3


def test_limits(store: ImageStore, label_studio: Loopback, source: ImageSource) -> None:
    label_studio.routes[path(1)] = reply(png(7, size=11))
    assert refusal(store, source, path(1)) == (
        "The image has 11 x 11 pixels; at most 100 are allowed."
    )
    label_studio.routes[path(2)] = reply(bytes(1001))
    assert refusal(store, source, path(2)) == "The image is larger than 1,000 bytes."


@pytest.mark.parametrize("value", [None, 5, ["/data/upload/1/1.png"], {}, "\ud800", "file:///a"])
def test_odd_values(store: ImageStore, source: ImageSource, value: object) -> None:
    refusal(store, source, value)


def test_embedded_images(
    store: ImageStore, label_studio: Loopback, source: ImageSource, tmp_path: Path
) -> None:
    encoded = b64encode(png(7)).decode()
    for start in ("data:image/png;base64,", "DATA:image/PNG;base64,"):
        assert store.read(source, 1, f"{start}{encoded}").tolist() == [[[7]]] * 3
    start = "data:image/png;base64,"
    assert refusal(store, source, f"{start}{encoded}!") == (
        "The image in the task's data is not valid base64."
    )
    large = b64encode(bytes(1005)).decode()
    assert refusal(store, source, start + large) == "The image is larger than 1,000 bytes."
    large = b64encode(png(7, size=11)).decode()
    assert refusal(store, source, start + large) == (
        "The image has 11 x 11 pixels; at most 100 are allowed."
    )
    assert refusal(store, source, start) == "The image is empty: it has zero bytes."
    refusal(store, source, "data:image/png,raw")
    assert label_studio.requests == []
    assert list(tmp_path.iterdir()) == []


# --- Many at once


def gauge(label_studio: Loopback, count: int, together: int) -> list[int]:
    """Serve images 0 to count - 1, as many at once as given, a divisor of count.

    Returns:
        A list that is filled with the most that were requested at once.
    """
    running, seen, lock, meet = [0], [0], Lock(), Barrier(together)

    def slow(number: int) -> Answer:
        def write(handler: BaseHTTPRequestHandler) -> None:
            with lock:
                running[0] += 1
                seen[0] = max(seen[0], running[0])
            meet.wait(PATIENCE)
            with lock:
                running[0] -= 1
            reply(png(number))(handler)

        return write

    for number in range(count):
        label_studio.routes[path(number)] = slow(number)
    return seen


def as_it_is(image: Tensor) -> Tensor:
    return image


def greys(results: Iterator[tuple[int, Tensor | ImageError]]) -> list[tuple[int, int | str]]:
    return [
        (task, image.reason if isinstance(image, ImageError) else int(image[0, 0, 0]))
        for task, image in results
    ]


def test_a_stream_keeps_the_order(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    def after(seconds: float, number: int) -> Answer:
        def write(handler: BaseHTTPRequestHandler) -> None:
            time.sleep(seconds)
            reply(png(number))(handler)

        return write

    for number in range(20):  # the earlier of four, the slower
        label_studio.routes[path(number)] = after(0.02 * (3 - number % 4), number)
    items = [(100 + number, path(number)) for number in range(20)]
    expected = [(100 + number, number) for number in range(20)]
    for _ in ("fetched", "cached"):
        assert greys(store.stream(source, items, as_it_is, workers=4)) == expected


def test_a_stream_works_on_several_at_once(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    seen = gauge(label_studio, 16, together=4)
    assert (
        len(list(store.stream(source, [(n, path(n)) for n in range(16)], as_it_is, workers=4)))
        == 16
    )
    assert seen == [4]


def test_a_stream_reports_what_failed_and_continues(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(png(7))
    items: list[tuple[int, object]] = [(1, path(1)), (2, path(2)), (3, None), (1, path(1))]
    assert greys(store.stream(source, items, as_it_is)) == [
        (1, 7),
        (2, "Label Studio has no such image (status 404)."),
        (3, "The task's image is a NoneType, not an address."),
        (1, 7),
    ]


def test_a_stream_runs_ahead_only_so_far(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(png(7))
    taken = []

    def items() -> Iterator[tuple[int, object]]:
        for number in range(100):
            taken.append(number)
            yield number, path(1)

    stream = store.stream(source, items(), as_it_is, workers=2)
    assert taken == []
    for given in range(1, 5):
        next(stream)
        assert len(taken) == given + 3 * 2
    stream.close()  # type: ignore[attr-defined]
    assert len(taken) == 10


def test_images_are_prepared_by_the_workers(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(png(7))
    threads = []

    def double(image: Tensor) -> Tensor:
        threads.append(current_thread().name)
        return image * 2

    assert greys(store.stream(source, [(1, path(1)), (2, None)], prepare=double))[0] == (1, 14)
    [thread] = threads  # and what is no image is not prepared
    assert thread.startswith("cdal-images")


def test_a_mistake_in_prepare_is_not_hidden(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(png(7))

    def mistake(image: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(store.stream(source, [(1, path(1))], prepare=mistake))


def test_an_empty_stream(store: ImageStore, source: ImageSource) -> None:
    assert list(store.stream(source, [], as_it_is)) == []


def test_images_stack_into_a_batch(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    file = BytesIO()
    Image.new("L", (1, 1), 9).save(file, "JPEG", quality=100)
    label_studio.routes[path(1)] = reply(png(7))
    label_studio.routes[path(2)] = reply(file.getvalue())
    images = [
        image
        for _, image in store.stream(source, [(1, path(1)), (2, path(2))], as_it_is)
        if isinstance(image, Tensor)
    ]
    assert torch.equal(torch.stack(images)[:, 0, 0, 0], torch.tensor([7, 9], dtype=torch.uint8))


def test_few_large_files_are_held_at_the_same_time(
    store: ImageStore,
    label_studio: Loopback,
    source: ImageSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many downloads of 50 MB together would fill the memory; small ones wait for none of them."""
    large, small = png(7, size=10), png(7)
    assert len(small) < len(large)
    monkeypatch.setattr(module, "LARGE_BYTES", len(small) + 60)  # with what the cache adds
    large += bytes(100)  # which a decoder ignores
    held: list[int] = []
    most = [0]
    lock = Lock()
    all_at_once = Barrier(8)

    def prepare(file: ImageFile) -> bytes:
        if file.data == small:
            all_at_once.wait(PATIENCE)
            return file.data
        with lock:
            held.append(len(file.data))
            most[0] = max(most[0], len(held))
        time.sleep(0.02)
        with lock:
            held.pop()
        return file.data

    for number in range(16):
        label_studio.routes[path(number)] = reply(large)
        label_studio.routes[path(100 + number)] = reply(small)
    for first, expected in ((0, large), (0, large), (100, small)):  # the second time from the cache
        items = [(number, path(number)) for number in range(first, first + 16)]
        read = store.stream_files(source, items, prepare)
        assert {content for _, content in read} == {expected}
    assert 1 <= most[0] <= module.LARGE_AT_ONCE


def test_what_is_decoded_together_stays_within_the_memory(
    tmp_path: Path, label_studio: Loopback, source: ImageSource
) -> None:
    """230 kB of PNG may be 1.4 GB decoded: eight at once killed the process."""
    tasks = range(1, 13)
    label_studio.routes |= {path(number): reply(png(number, size=10)) for number in tasks}
    at_once, most = 0, 0
    lock = Lock()

    def count(image: Tensor) -> Tensor:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return image

    one = memory_to_decode(png(1, size=10))
    assert one is not None
    images = ImageStore(tmp_path / "images", 0, AllowedHosts(), max_memory=2 * one)
    items = [(number, path(number)) for number in tasks]
    read = dict(images.stream(source, items, prepare=count))
    images.close()
    assert all(isinstance(image, Tensor) for image in read.values())
    assert most == 2


def test_an_image_that_killed_processes_is_refused_and_the_others_are_read(
    tmp_path: Path, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes |= {path(number): reply(png(number)) for number in (1, 2)}
    folder = tmp_path / "decoding"
    folder.mkdir()
    (folder / f"{InFlight.digest(png(1)).hex()}.guilty").touch()
    (folder / f"{InFlight.digest(png(2)).hex()}.suspect").touch()
    images = ImageStore(tmp_path / "images", 1_000_000, AllowedHosts())
    assert "killed" in refusal(images, source, path(1))
    assert images.read(source, 2, path(2)).tolist() == [[[2]]] * 3
    label_studio.routes[path(1)] = reply(png(3))  # it was replaced
    assert images.read(source, 1, path(1)).tolist() == [[[3]]] * 3
    images.close()
    assert [file.suffix for file in folder.iterdir() if file.suffix] == [".guilty"]


def test_what_may_have_killed_a_process_is_decoded_alone(
    tmp_path: Path,
    label_studio: Loopback,
    source: ImageSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label_studio.routes |= {path(number): reply(png(number)) for number in (1, 2)}
    (tmp_path / "decoding").mkdir()
    (tmp_path / "decoding" / f"{InFlight.digest(png(1)).hex()}.suspect").touch()
    images = ImageStore(tmp_path / "images", 0, AllowedHosts())
    taken: list[int | None] = []

    def taking(_: Memory, wanted: int | None) -> AbstractContextManager[None]:
        taken.append(wanted)
        return nullcontext()

    monkeypatch.setattr(Memory, "taking", taking)
    for task in (1, 2, 1):  # the first time, nothing died of it
        images.read(source, task, path(task))
    images.close()
    assert taken == [None, memory_to_decode(png(2)), memory_to_decode(png(1))]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test may set."""
    at = [1_800_000_000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: at[0]))
    return at


def unless(tag: str, name: str, asked: str, data: bytes) -> Answer:
    """A host that answers 304 to who knows the file already."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers.get(asked) == tag
        reply(b"" if known else data, 304 if known else 200, **{name: tag})(handler)

    return write


@pytest.mark.parametrize(
    ("name", "asked", "tags"),
    [
        ("ETag", "If-None-Match", ('"one"', '"other"')),
        (
            "Last-Modified",
            "If-Modified-Since",
            ("Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"),
        ),
    ],
)
def test_a_replaced_image_is_fetched_again_and_any_other_is_not(
    store: ImageStore,
    label_studio: Loopback,
    source: ImageSource,
    clock: list[float],
    name: str,
    asked: str,
    tags: tuple[str, str],
) -> None:
    label_studio.routes[path(1)] = unless(tags[0], name, asked, png(7))
    for _ in range(2):
        assert file_of(store, source, path(1)) == png(7)
    assert len(label_studio.requests) == 1
    clock[0] += FRESH_S
    for _ in range(2):  # it is the same, which counts for another day
        assert file_of(store, source, path(1)) == png(7)
    assert [headers[asked] for _, headers in label_studio.requests] == [None, tags[0]]
    label_studio.routes[path(1)] = unless(tags[1], name, asked, png(9))
    clock[0] += FRESH_S
    assert file_of(store, source, path(1)) == png(9)


def test_without_anything_to_ask_by_age_decides(
    store: ImageStore, label_studio: Loopback, source: ImageSource, clock: list[float]
) -> None:
    label_studio.routes[path(1)] = reply(png(7))
    assert file_of(store, source, path(1)) == png(7)
    label_studio.routes[path(1)] = reply(png(9))
    assert file_of(store, source, path(1)) == png(7)
    clock[0] += FRESH_S
    assert file_of(store, source, path(1)) == png(9)


def test_a_kept_image_serves_while_its_host_is_away_but_not_once_it_is_gone(
    store: ImageStore, label_studio: Loopback, source: ImageSource, clock: list[float]
) -> None:
    label_studio.routes[path(1)] = reply(png(7))
    file_of(store, source, path(1))
    clock[0] += FRESH_S
    label_studio.routes[path(1)] = reply(status=503)
    assert file_of(store, source, path(1)) == png(7)
    label_studio.routes[path(1)] = reply(status=404)
    assert "has no such image" in refusal(store, source, path(1))


def test_a_file_from_the_future_is_asked_for_again(
    store: ImageStore, label_studio: Loopback, source: ImageSource, clock: list[float]
) -> None:
    """The clock was ahead when it was fetched."""
    label_studio.routes[path(1)] = reply(png(7))
    file_of(store, source, path(1))
    clock[0] -= 30 * 24 * 3600
    label_studio.routes[path(1)] = reply(png(9))
    assert file_of(store, source, path(1)) == png(9)


@pytest.mark.parametrize("tag", ["", "x" * 501, "\u00e9"])
def test_odd_tags_are_not_sent_back(tag: str) -> None:
    assert KeptFile.of(b"", 0.0, {"ETag": tag}).conditions == {}


def test_a_304_that_nobody_asked_for_is_refused(
    store: ImageStore, label_studio: Loopback, source: ImageSource
) -> None:
    label_studio.routes[path(1)] = reply(status=304)
    assert "304" in refusal(store, source, path(1))


def test_what_was_found_at_an_address_counts_for_a_week(
    source: ImageSource, clock: list[float]
) -> None:
    keys = set()
    for _ in range(4 * 7):
        keys.add(module.address_key(source, 1, path(1)))
        clock[0] += 24 * 3600
    assert len(keys) in (4, 5)
