"""The pictures in the docs: the backend's pages and Label Studio's own, in Debian's Chromium.

    python tests/screenshots.py docs

Starts Label Studio and the backend in a temporary folder, with a project of drawn scenes per
control. Each has labelled images from the start, and one of them is labelled for two more rounds.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from support.admin import PHONE, Admin, admin
from support.label_studio_page import LabelStudioPage
from support.polygons import in_polygons, polygon_config

from cdal.datasets import ImageSet, open_images
from cdal.demo.annotator import Annotator, truth
from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.pictures import choose, copy_pictures, pictures_of
from cdal.demo.process import free_port
from cdal.demo.project import LABELING_CONFIGS, LabelStudioProject
from cdal.demo.scenes.files import write_scenes

CHROMIUM = "/usr/bin/chromium"
PATIENCE_S = 3600.0
LABELLED, SCENES = 30, 90
SECOND_OPINIONS = 5
"""Images that a second person labels, the first of them otherwise."""
WIDTH = 1180
COLOURS = 192


@dataclass(frozen=True, slots=True)
class Kind:
    """A control, the task that its scenes are drawn for, and the project's title."""

    control: str
    task: str
    title: str
    settings: Mapping[str, Any]


KINDS = (
    Kind("Choices", "classification", "Which shape", {"budget": 15, "train_every": 15}),
    Kind("BrushLabels", "segmentation", "Shapes, painted", {"budget": 10, "image_size": 128}),
    Kind("PolygonLabels", "segmentation", "Shapes, outlined", {"budget": 10, "image_size": 128}),
    Kind("RectangleLabels", "detection", "Shapes in boxes", {"budget": 10}),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A project with a model and an open round, and what its images show, by task."""

    project: LabelStudioProject
    number: int
    labels: Mapping[int, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the pictures go, such as docs")
    parser.add_argument("--only", nargs="+", help="controls to show, such as Choices")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "images").mkdir()
        label_studio = LabelStudioServer(
            folder / "label-studio", free_port(), secrets.token_hex(20), folder / "images"
        )
        backend = BackendServer(
            folder / "backend", free_port(), label_studio.url, label_studio.token
        )
        for server, seconds in ((label_studio, START_SECONDS), (backend, BACKEND_SECONDS)):
            stack.callback(server.stop)
            server.start()
            server.wait_until_up(f"{server.url}/health", seconds)
        kinds = [kind for kind in KINDS if kind.control in (options.only or kind.control)]
        shown = {kind.control: prepared(kind, label_studio, backend, folder) for kind in kinds}
        with chromium() as browser:
            if "Choices" in shown:
                pages(browser, backend, shown["Choices"], label_studio, options.folder)
            for control, file in (("BrushLabels", "masks"), ("RectangleLabels", "boxes")):
                if control in shown:
                    with page(browser, backend, shown[control].number, 1000) as one:
                        one.open("/queue")
                        keep(one, options.folder / f"pages-queue-{file}.png")
            label_studios(browser, backend, shown, label_studio, options.folder)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def prepared(
    kind: Kind, label_studio: LabelStudioServer, backend: BackendServer, folder: Path
) -> Shown:
    """A project of drawn scenes, the first of them labelled, with its first model."""
    say(f"{kind.title}: drawing, importing and training")
    images, config = drawn(kind, folder)
    examples = choose(images, SCENES, seed=0)
    place = folder / "images" / kind.control
    copy_pictures(examples, place)
    pictures = pictures_of(examples, place)
    project = LabelStudioProject.create(label_studio.url, label_studio.token, kind.title, config)
    project.allow_local_files(pictures[0].file.parent)
    outlined = kind.control == "PolygonLabels"
    said = [
        in_polygons(p.example, images.classes) if outlined else truth(images, p.example)
        for p in pictures
    ]
    root = label_studio.images
    tasks: list[dict[str, Any]] = [
        {"data": {"image": f"/data/local-files/?d={p.file.relative_to(root).as_posix()}"}}
        for p in pictures
    ]
    for task, regions in zip(tasks[:LABELLED], said, strict=False):
        task["annotations"] = [{"result": regions}]
    made = project.sdk.projects.import_tasks(id=project.number, request=tasks, return_task_ids=True)
    project.connect(backend.url, dict(kind.settings))
    status = backend.wait_for(project.number, "round", round_is_open(1), PATIENCE_S)
    return Shown(project, status["id"], dict(zip(map(int, made.task_ids), said, strict=True)))


def drawn(kind: Kind, folder: Path) -> tuple[ImageSet, str]:
    """Drawn scenes and a labeling config for them."""
    scenes = folder / kind.task
    if not scenes.exists():
        write_scenes(scenes, kind.task, SCENES + 10, test_share=0.1)
    images = open_images(scenes, kind.task)
    config = polygon_config if kind.control == "PolygonLabels" else LABELING_CONFIGS[kind.task]
    return images, config(images.classes)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def pages(
    browser: Browser,
    backend: BackendServer,
    shown: Shown,
    label_studio: LabelStudioServer,
    folder: Path,
) -> None:
    """The backend's pages for a project that is labelled for two more rounds."""
    annotator = Annotator(label_studio.url, label_studio.token, shown.project.number)
    served: list[int] = []
    for number in (2, 3):
        say(f"labelling round {number - 1}")
        for _ in range(15):
            task = annotator.next_task()
            assert task is not None
            annotator.submit(task, shown.labels[task])
            served.append(task)
        backend.wait_for(shown.project.number, "round", round_is_open(number), PATIENCE_S)
    second = Annotator(
        label_studio.url,
        label_studio.sign_up("bob@example.com", "a-long-password"),
        shown.project.number,
    )
    first, *others = served[:SECOND_OPINIONS]
    wrong = (said for said in shown.labels.values() if said != shown.labels[first])
    second.submit(first, next(wrong))
    for task in others:
        second.submit(task, shown.labels[task])
    say("the pages")
    with page(browser, backend, shown.number, 1330) as one:
        one.open()
        keep(one, folder / "pages-project.png")
        one.sees(f"on {SECOND_OPINIONS} images of several people", "#agree-part")
        keep(one, folder / "pages-people.png", ["kept", "agree"])
    with page(browser, backend, shown.number, 620) as one:
        one.page.goto(f"{backend.url}/projects")
        keep(one, folder / "pages-projects.png")
    with page(browser, backend, shown.number, 1120) as one:
        one.open("/queue")
        keep(one, folder / "pages-queue.png")
    with page(browser, backend, shown.number, PHONE["height"], PHONE["width"]) as one:
        one.open("/queue")
        keep(one, folder / "pages-queue-phone.png")
    with page(browser, backend, shown.number, 960) as one:
        one.open("/pool-map")
        one.page.wait_for_selector("#map")
        keep(one, folder / "pages-pool.png")
    with page(browser, backend, shown.number, 860) as one:
        one.open("/comparison")
        one.page.get_by_label("with").select_option("core-set")
        one.press("Compare")
        one.sees("They agree on")
        keep(one, folder / "pages-compare.png")
    with page(browser, backend, shown.number, 700) as one:
        one.open("/settings")
        keep(one, folder / "pages-settings.png")


@contextmanager
def page(
    browser: Browser, backend: BackendServer, number: int, height: int, width: int = WIDTH
) -> Iterator[Admin]:
    with admin(browser, backend, number, {"width": width, "height": height}) as one:
        yield one


def keep(one: Admin, file: Path, parts: Sequence[str] = ()) -> None:
    """Keep a picture of the window, or of some parts of the page, by their headings."""
    one.page.wait_for_load_state("networkidle")
    if not parts:
        one.page.screenshot(path=file)
    else:
        sections = [one.page.locator(f"section[aria-labelledby={part}]") for part in parts]
        boxes = [box for section in sections if (box := section.bounding_box()) is not None]
        left, top = (min(box[side] for box in boxes) for side in ("x", "y"))
        right = max(box["x"] + box["width"] for box in boxes)
        bottom = max(box["y"] + box["height"] for box in boxes)
        clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        one.page.screenshot(path=file, full_page=True, clip=clip)  # type: ignore[arg-type]
    shrink(file)


def shrink(file: Path) -> None:
    """Keep fewer colours, which halves the file."""
    with Image.open(file) as image:
        few = image.convert("RGB").quantize(COLOURS)
    few.save(file, optimize=True)
    say(f"{file}: {file.stat().st_size // 1024} KiB")


def label_studios(
    browser: Browser,
    backend: BackendServer,
    shown: Mapping[str, Shown],
    label_studio: LabelStudioServer,
    folder: Path,
) -> None:
    """Label Studio's page with the prediction that the model is surest of, for each control."""
    window = browser.new_page(viewport={"width": 1280, "height": 800})
    window.set_default_timeout(1000 * PATIENCE_S)
    ours = LabelStudioPage(window, label_studio)
    for control, one in shown.items():
        found = one.project.sdk.predictions.list(project=one.project.number)
        best = max(found, key=lambda prediction: _confidence(prediction.result))
        ours.open_task(one.project.number, int(best.task))
        file = folder / f"{control.lower()}.png"
        ours.keep(file)
        shrink(file)


def _confidence(result: Sequence[Mapping[str, Any]]) -> float:
    return max((float(region["score"]) for region in result), default=0.0)


if __name__ == "__main__":
    main()
