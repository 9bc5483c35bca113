"""`cdal demo`: set everything up, then wait for people, or label by itself."""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from label_studio_sdk.core.api_error import ApiError
from rich.console import Console
from rich.markup import escape

from cdal.demo.backend import START_SECONDS as BACKEND_SECONDS
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import START_SECONDS, LabelStudioServer
from cdal.demo.pictures import Picture, copy_pictures, known_pictures
from cdal.demo.process import DemoError, free_port, require_free
from cdal.demo.project import LabelStudioProject, choices_config
from cdal.demo.scenes import write_scenes
from cdal.demo.steps import step
from cdal.demo.unattended import label_rounds, show_job

FOLDER = Path(".demo")
SEED = 0
DRAWN = 600
ROUND_SECONDS = 3600.0


@dataclass(slots=True)
class Options:
    """What the user asked for."""

    images: Path | None
    limit: int | None
    rounds: int
    once: bool
    budget: int | None
    folder: Path = FOLDER


@dataclass(slots=True)
class State:
    """What a second run needs to go on where the first stopped."""

    token: str
    label_studio_port: int
    backend_port: int
    source: str
    budget: int
    project: int | None = None
    connected: bool = False


def run(options: Options) -> int:
    """Run the demo; returns the exit status."""
    console = Console()
    try:
        with _ctrl_c_stops():
            _run(options, console)
    except DemoError as error:
        console.print(f"[red]The demo stopped:[/red] {error}", soft_wrap=True)
        return 1
    except (httpx.HTTPError, ApiError) as error:
        status = f": {error.status_code}" if isinstance(error, ApiError) else f": {error}"
        console.print(
            f"[red]The demo stopped:[/red] a request failed{escape(status)}; see the logs in "
            f"{options.folder}.",
            soft_wrap=True,
        )
        return 1
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from here; «make clean» removes it all.")
        return 0 if not options.once else 130
    return 0


def _run(options: Options, console: Console) -> None:
    folder = options.folder.resolve()
    state = _state(folder, options)
    require_free(state.label_studio_port)
    require_free(state.backend_port)
    pictures = _pictures(folder, options, console)
    label_studio = LabelStudioServer(
        folder / "label-studio", state.label_studio_port, state.token, folder / "images"
    )
    backend = BackendServer(folder / "backend", state.backend_port, label_studio.url, state.token)
    try:
        label_studio.start()
        with step(console, "Starting Label Studio (its first start takes a minute)") as now:
            label_studio.wait_until_up(f"{label_studio.url}/health", START_SECONDS, now.show)
        backend.start()
        with step(console, "Starting the backend") as now:
            backend.wait_until_up(f"{backend.url}/health", BACKEND_SECONDS, now.show)
        project = _project(folder, state, label_studio, backend, pictures, console)
        if options.once:
            label_rounds(options.rounds, project, label_studio, backend, pictures, console)
            return
        _tell(console, label_studio, backend, project)
        while True:
            time.sleep(1.0)
            label_studio.check_alive()
            backend.check_alive()
    finally:
        with _uninterrupted(), step(console, "Stopping the backend and Label Studio"):
            backend.stop()
            label_studio.stop()


def _state(folder: Path, options: Options) -> State:
    """The state of an earlier run on the same images, or a fresh one."""
    file = folder / "state.json"
    source = str(options.images.resolve()) if options.images else "drawn"
    if file.exists():
        state = State(**json.loads(file.read_text()))
        if state.source != source:
            raise DemoError(
                f"{folder} holds a demo on other images ({state.source}); "
                "«make clean» removes it, and then this command starts anew."
            )
        return state
    limit = options.limit or DRAWN
    state = State(
        token=secrets.token_hex(20),
        label_studio_port=free_port(),
        backend_port=free_port(),
        source=source,
        budget=options.budget or max(10, min(100, limit // 15)),
    )
    _save(folder, state)
    return state


def _save(folder: Path, state: State) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "state.json").write_text(json.dumps(asdict(state)))


def _pictures(folder: Path, options: Options, console: Console) -> list[Picture]:
    images = folder / "images"
    done = folder / "images.done"
    if done.exists():
        return known_pictures(images)
    limit = options.limit or DRAWN
    if options.images is None:
        with step(console, f"Drawing {limit} images to label, and some to test on") as now:
            write_scenes(
                images,
                limit + limit // 3,
                SEED,
                test_share=0.25,
                progress=lambda share: now.show(share=share),
            )
    else:
        with step(console, f"Copying images from {options.images}"):
            copy_pictures(options.images, images, options.limit, SEED)
    done.touch()
    return known_pictures(images)


def _project(
    folder: Path,
    state: State,
    label_studio: LabelStudioServer,
    backend: BackendServer,
    pictures: list[Picture],
    console: Console,
) -> LabelStudioProject:
    """The demo's project, with its first round open."""
    if state.project is None:
        with step(console, "Creating the project and importing the images"):
            classes = sorted({picture.label for picture in pictures})
            project = LabelStudioProject.create(
                label_studio.url, state.token, "CDAL demo", choices_config(classes)
            )
            project.allow_local_files(folder / "images" / "train")
            project.import_images([_address(p, folder) for p in pictures if not p.is_test])
            state.project = project.number
            _save(folder, state)
    project = LabelStudioProject(label_studio.url, state.token, state.project)
    if not state.connected:
        with step(console, "Connecting the backend"):
            project.connect(backend.url, {"budget": state.budget})
            state.connected = True
            _save(folder, state)
    with step(console, "Making the first round") as now:
        backend.wait_for(
            project.number, "round", round_is_open(1), ROUND_SECONDS, lambda s: show_job(now, s)
        )
    return project


def _address(picture: Picture, folder: Path) -> str:
    return f"/data/local-files/?d={picture.file.relative_to(folder / 'images').as_posix()}"


def _tell(
    console: Console,
    label_studio: LabelStudioServer,
    backend: BackendServer,
    project: LabelStudioProject,
) -> None:
    console.print(
        f"""
[bold]Label Studio[/bold]  {label_studio.url}/projects/{project.number}
[bold]Backend[/bold]       {backend.url}/api/v1/projects
[bold]Log in as[/bold]     {label_studio.EMAIL} with the password {label_studio.PASSWORD}

[bold]What to do now[/bold]
1. Open Label Studio, log in, and press «Label All Tasks»: the images come in the queue's order.
   The first round is random, since there is no model yet.
2. Label. When the round is labelled, the model trains by itself; go on labelling meanwhile.
3. The next images are those that Contextual Diversity finds most telling; the tab «CDAL queue»
   of the Data Manager shows them in order, each with the model's guess.

Ctrl-C stops everything; the same command goes on from there; «make clean» removes it.
""",
        soft_wrap=True,
    )


@contextmanager
def _ctrl_c_stops() -> Iterator[None]:
    """SIGTERM stops the demo as Ctrl-C does, so that nothing it started is left running."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C while everything is being stopped would leave Label Studio running."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
