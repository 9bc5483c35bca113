"""Odd images in a scoring pass: each is handled, or recorded with its reason; a pass goes on."""

from __future__ import annotations

import struct
import time
import zlib
from base64 import b64encode
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select
from support.loopback import Loopback, in_turn, reply
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_version,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.errors import ImagesAwayError
from cdal.backend.loop import score
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Prediction, Project, Round, Task
from cdal.models import make_network


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def plain(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size)


def upside_down() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 3
    return tags


def bomb() -> bytes:
    """A PNG of 2,500,000,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


FRAMES = [plain("RGB"), Image.new("RGB", (40, 30), "red")]

GOOD = {
    "CMYK": encoded(plain("CMYK"), "JPEG"),
    "16-bit": encoded(plain("I;16")),
    "grey": encoded(plain("L")),
    "one bit": encoded(plain("1")),
    "palette": encoded(plain("P")),
    "transparent": encoded(plain("RGBA")),
    "transparent grey": encoded(plain("LA")),
    "upside down": encoded(plain("RGB"), "JPEG", exif=upside_down()),
    "animated": encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "one pixel": encoded(plain("RGB", (1, 1))),
    "a long strip": encoded(plain("RGB", (3000, 2))),
}
BAD = {
    "zero bytes": (b"", "The image is empty: it has zero bytes."),
    "a text": (b"dear aunt", "The file is not an image in a supported format"),
    "a page": (b"<!doctype html><html>", "The address returns a web page"),
    "a drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "The image is an SVG drawing"),
    "truncated": (encoded(plain("RGB", (400, 300)))[:-40], "The image is damaged or incomplete."),
    "truncated JPEG": (encoded(plain("RGB"), "JPEG")[:200], "The image is damaged"),
    "a bomb": (bomb(), "The image has"),
    "32-bit": (encoded(plain("F"), "TIFF"), "The image has 32-bit samples"),
}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """A round whose model is to score the pool."""
    made = make_services(tmp_path, image_hosts="127.0.0.1")
    project = add_project(made)
    version = add_version(made, project)
    make_network("classification", "mobilenet_v3_small", ("cat", "dog"), 32).save(
        made.config.version_folder(1, 1)
    )
    add_round(made, project, [], state="scoring", model_version_id=version.id)
    return made


def add_images(services: Services, images: list[str]) -> None:
    with services.store.transaction() as session:
        for number, image in enumerate(images, start=1):
            session.add(Task(project_id=1, task_id=number, image=image))


def run(services: Services, age: float = 0.0) -> str:
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    work = make_work(services, project, FakeLabelStudio(), "score")
    with services.store.transaction() as session:
        job = session.get_one(Job, work.job.id)
        job.created_at -= timedelta(seconds=age)
        work.job = job
    return score.run(work)


def scored(services: Services) -> list[int]:
    with services.store.reading() as session:
        return sorted(session.scalars(select(Prediction.task_id)))


def problems(services: Services) -> dict[int, str | None]:
    with services.store.reading() as session:
        rows = session.execute(select(Task.task_id, Task.image_problem))
        return {task_id: problem for task_id, problem in rows if problem}


def test_each_is_handled_or_recorded_with_its_reason(services: Services) -> None:
    files = [*GOOD.values(), *(data for data, _ in BAD.values())]
    add_images(services, [f"data:image/png;base64,{b64encode(f).decode()}" for f in files])
    assert run(services) == f"{len(GOOD)} images scored, {len(BAD)} left out since they could " + (
        "not be used"
    )
    assert scored(services) == list(range(1, len(GOOD) + 1))
    said = problems(services)
    for number, (name, (_, reason)) in enumerate(BAD.items(), start=len(GOOD) + 1):
        assert (said[number] or "").startswith(reason), name


def slowly(body: bytes) -> Any:
    """An answer that arrives slowly."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for start in range(0, len(body), 40):
            handler.wfile.write(body[start : start + 40])
            handler.wfile.flush()
            time.sleep(0.1)

    return write


def test_slow_missing_and_failing_hosts(services: Services) -> None:
    picture = encoded(plain("RGB"))
    with Loopback() as host:
        host.routes |= {
            "/slow.png": slowly(picture),
            "/errs-once.png": in_turn(reply(status=500), reply(picture)),
            "/fine.png": reply(picture),
            "/forbidden.png": reply(status=403),
        }
        names = ("slow", "errs-once", "fine", "forbidden", "missing")
        add_images(services, [f"{host.url}/{name}.png" for name in names])
        run(services)
    assert scored(services) == [1, 2, 3]
    assert problems(services) == {
        4: "The host 127.0.0.1 refuses to return the image (status 403).",
        5: "The host 127.0.0.1 has no such image (status 404).",
    }


def test_a_host_that_is_away_is_waited_for_and_nothing_is_given_up(services: Services) -> None:
    add_images(services, ["http://127.0.0.1:9/away.png"] * 2)  # where nobody listens
    with pytest.raises(ImagesAwayError) as caught:
        run(services)
    assert str(caught.value) == (
        "2 of 2 images are unavailable now; task 1: The host 127.0.0.1 cannot be reached."
    )
    assert problems(services) == {}
    with services.store.reading() as session:
        assert session.scalars(select(Round.state)).one() == "scoring"


def test_after_an_hour_it_goes_on_without_those_that_are_away(services: Services) -> None:
    add_images(
        services,
        [
            f"data:image/png;base64,{b64encode(encoded(plain('RGB'))).decode()}",
            "http://127.0.0.1:9/away.png",
        ],
    )
    with pytest.raises(ImagesAwayError):
        run(services)
    assert scored(services) == [1]  # which need not be done again
    run(services, age=3700)
    assert problems(services) == {2: "The host 127.0.0.1 cannot be reached."}
    with services.store.reading() as session:
        assert session.scalars(select(Round.state)).one() == "selecting"
    assert jobs_of(services)[-1] == ("select", "pending")
