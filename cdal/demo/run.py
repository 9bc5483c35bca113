"""`cdal demo`: set everything up, then wait for people to label, or label automatically."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError
from rich.console import Console
from rich.markup import escape

from cdal.datasets import TASKS, DatasetError, Example, ImageSet, open_images
from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.pictures import COPIES, choose, copy_pictures, known_examples, pictures_of
from cdal.demo.process import DemoError, require_free
from cdal.demo.project import LABELING_CONFIGS, LabelStudioProject, project_settings
from cdal.demo.scenes.files import write_scenes
from cdal.demo.scenes.scene import CLASSES
from cdal.demo.state import State
from cdal.demo.steps import step
from cdal.demo.unattended import Unattended

FOLDER = Path(".demo")
SEED = 0
DRAWN: Mapping[str, int] = {
    "classification": 600, "segmentation": 300, "detection": 300, "multilabel": 300,
}  # fmt: skip
"""How many scenes the demo draws to label by default."""
ROUND_SECONDS = 3600.0

LABEL: Mapping[str, str] = {
    "classification": 'Choose the class of each image and press "Submit".',
    "segmentation": "Choose a class and paint its pixels; repeat this for every class, "
    'and press\n   "Submit". Leave everything else unpainted.',
    "detection": "Choose a class and draw a box around an object; repeat this for every object, "
    'and press\n   "Submit". Submit an image without objects as it is.',
    "multilabel": 'Choose every class that an image shows, and press "Submit".',
}
"""How to label an image of each task."""


WhyRefused = Callable[[str, Mapping[str, Any]], str | None]
"""Why the backend would refuse a labeling config with these settings; None if it accepts them."""


@dataclass(slots=True)
class Options:
    """The options of `cdal demo`."""

    images: Path | None
    task: str | None
    limit: int | None
    rounds: int
    once: bool
    budget: int | None
    selector: str | None = None
    folder: Path = FOLDER
    why_refused: WhyRefused = lambda *_: None


def run(options: Options) -> int:
    """Run the demo; returns the exit status."""
    console = Console()
    try:
        with _ctrl_c_stops():
            _run(options, console)
    except (DemoError, DatasetError) as error:
        console.print(f"[red]The demo stopped:[/red] {escape(str(error))}", soft_wrap=True)
        return 1
    except (httpx.HTTPError, ApiError) as error:
        status = f": {error.status_code}" if isinstance(error, ApiError) else f": {error}"
        console.print(
            f"[red]The demo stopped:[/red] a request failed{escape(status)}. See the logs in "
            f"{options.folder}.",
            soft_wrap=True,
        )
        return 1
    except KeyboardInterrupt:
        console.print(
            'Stopped. Run the same command again to continue, or "make clean" to remove the demo.',
            soft_wrap=True,
        )
        return 0 if not options.once else 130
    return 0


def _run(options: Options, console: Console) -> None:
    folder = options.folder.resolve()
    source = str(options.images.resolve()) if options.images else "drawn"
    state = State.load(folder, source, options.task, options.budget, options.selector)
    images = open_images(options.images, options.task) if options.images else None
    if state is None:
        task = images.task if images else options.task or TASKS[0]
        _check(options, task, images.classes if images else CLASSES)
        state = State.fresh(source, task, options.budget, options.selector)
        state.save(folder)
    require_free(state.label_studio_port)
    require_free(state.backend_port)
    label_studio = LabelStudioServer(
        folder / "label-studio", state.label_studio_port, state.token, folder / "images"
    )
    backend = BackendServer(folder / "backend", state.backend_port, label_studio.url, state.token)
    try:
        # Both start while images are drawn and copied.
        label_studio.start()
        backend.start()
        images = images or _drawn(folder, state.task, options.limit, console)
        examples = _examples(images, folder / "images", options.limit, console)
        with step(console, "Starting Label Studio (the first time takes a minute)") as now:
            label_studio.wait_until_up(f"{label_studio.url}/health", START_SECONDS, now.show)
        with step(console, "Starting the backend") as now:
            backend.wait_until_up(f"{backend.url}/health", BACKEND_SECONDS, now.show)
        set_up = SetUp(folder, state, images, examples)
        project = _project(set_up, label_studio, backend, console)
        if options.once:
            pictures = pictures_of(examples, folder / "images")
            test = [example for example in examples if example.is_test]
            unattended = Unattended(project, label_studio, backend, images, pictures, test)
            unattended.label_rounds(options.rounds, console)
            return
        _print_instructions(console, images.task, label_studio, backend, project)
        while True:
            time.sleep(1.0)
            label_studio.check_alive()
            backend.check_alive()
    finally:
        with _uninterrupted(), step(console, "Stopping the backend and Label Studio"):
            backend.stop()
            label_studio.stop()


def _check(options: Options, task: str, classes: Sequence[str]) -> None:
    settings = {} if options.selector is None else {"selector": options.selector}
    why = options.why_refused(LABELING_CONFIGS[task](classes), settings)
    if why is not None:
        raise DemoError(why)


def _drawn(folder: Path, task: str, limit: int | None, console: Console) -> ImageSet:
    """The images that the demo draws, or drew in an earlier run."""
    drawn, done = folder / "drawn", folder / "drawn.done"
    if not done.exists():
        limit = limit or DRAWN[task]
        with step(console, f"Drawing {limit} images to label, and others to test on") as now:
            write_scenes(
                drawn, task, limit + limit // 3, SEED, progress=lambda share: now.show(share=share)
            )
        done.touch()
    return open_images(drawn, task)


def _examples(images: ImageSet, folder: Path, limit: int | None, console: Console) -> list[Example]:
    """The examples to label, whose images are copied to the folder, and the test examples."""
    examples = known_examples(images, folder)
    if examples is None:
        examples = choose(images, limit, SEED)
        with step(console, "Copying the images for Label Studio"):
            copy_pictures(examples, folder)
    return examples


@dataclass(frozen=True, slots=True)
class SetUp:
    """The parts of the demo's project."""

    folder: Path
    state: State
    images: ImageSet
    examples: Sequence[Example]


def _project(
    set_up: SetUp, label_studio: LabelStudioServer, backend: BackendServer, console: Console
) -> LabelStudioProject:
    """The demo's project, created and connected if needed, with its first round open."""
    state, images = set_up.state, set_up.images
    pictures = pictures_of(set_up.examples, set_up.folder / "images")
    if state.project is None:
        with step(console, "Creating the project and importing the images"):
            config = LABELING_CONFIGS[images.task](images.classes)
            project = LabelStudioProject.create(
                label_studio.url, state.token, f"CDAL demo: {images.task}", config
            )
            project.allow_local_files(set_up.folder / "images" / COPIES)
            project.import_images([picture.address for picture in pictures])
            state.project = project.number
            state.save(set_up.folder)
    project = LabelStudioProject(label_studio.url, state.token, state.project)
    if not state.connected:
        with step(console, "Connecting the backend"):
            to_label = [picture.example for picture in pictures]
            settings = project_settings(images, to_label, state.budget, state.selector)
            project.connect(backend.url, settings)
            state.connected = True
            state.save(set_up.folder)
    with step(console, "Preparing the first round") as now:
        backend.wait_for(project.number, "round", round_is_open(1), ROUND_SECONDS, now.show_job)
    return project


def _print_instructions(
    console: Console,
    task: str,
    label_studio: LabelStudioServer,
    backend: BackendServer,
    project: LabelStudioProject,
) -> None:
    status = backend.status(project.number)
    pages = f"{backend.url}/projects/{status['id']}" if status else f"{backend.url}/projects"
    console.print(
        f"""
[bold]Label Studio[/bold]  {label_studio.url}/projects/{project.number}
[bold]The queue[/bold]     {pages}/queue    the images to label, in order, and why
[bold]Overview[/bold]      {pages}          what the backend is doing, and how the model improves
[bold]Log in as[/bold]     {label_studio.EMAIL} with the password {label_studio.PASSWORD}

[bold]What to do now[/bold]
1. Open Label Studio, log in, and press "Label All Tasks". Images come in the order of the queue.
   There is no model yet, so images that are typical of the pool come first, once they are found.
2. {LABEL[task]}
   The model trains automatically, after ten labels for the first time; you can keep labelling.
3. The next images are the most informative ones by Contextual Diversity. The tab "CDAL queue" in
   the Data Manager lists them in order with the model's predictions; the queue page says why.

Press Ctrl-C to stop. Run the same command again to continue, or "make clean" to remove the demo.
""",
        soft_wrap=True,
    )


@contextmanager
def _ctrl_c_stops() -> Iterator[None]:
    """Let SIGTERM stop the demo as Ctrl-C does, so that no server is left running."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore a second Ctrl-C during shutdown, which would leave Label Studio running."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
