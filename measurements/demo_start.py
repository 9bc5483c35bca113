"""How long the demo takes from its start to the first trained model in use, by step.

    python measurements/demo_start.py

Runs `cdal demo` in a temporary folder, submits labels for the first images of the queue at once
through Label Studio's API as soon as the demo says what to do, and waits until a model serves.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

from shared import say

from cdal.datasets import open_images
from cdal.demo.annotator import Annotator, truth
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.pictures import known_examples, pictures_of
from cdal.demo.project import LabelStudioProject
from cdal.demo.run import FOLDER
from cdal.demo.state import State

PATIENCE = 900.0
LOOK_SECONDS = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="classification")
    parser.add_argument("--labels", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "cdal", "demo", "--task", options.task]
        started = time.monotonic()
        demo = subprocess.Popen(
            command,
            cwd=name,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            _wait_for_instructions(demo, started)
            _label(Path(name) / FOLDER, options.labels, started)
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.wait()


def _wait_for_instructions(demo: subprocess.Popen[str], started: float) -> None:
    """Print each step of the demo with its time, until it waits for people."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.rstrip().endswith("…"):
            say(f"{time.monotonic() - started:6.1f} s  {line.strip()}")
        if line.startswith("What to do now"):
            # It must not block on a full pipe.
            Thread(target=demo.stdout.read, daemon=True).start()
            return
    raise SystemExit("The demo ended.")


def _label(folder: Path, count: int, started: float) -> None:
    """Label the first images of the queue at once, and wait for the model."""
    state = State.load(folder.resolve(), "drawn", None)
    assert state is not None
    assert state.project is not None
    label_studio = LabelStudioServer(
        folder / "label-studio", state.label_studio_port, state.token, folder / "images"
    )
    backend = BackendServer(folder / "backend", state.backend_port, label_studio.url, state.token)
    images = open_images(folder / "drawn", state.task)
    examples = known_examples(images, folder / "images")
    assert examples is not None
    by_address = {p.address: p.example for p in pictures_of(examples, folder / "images")}
    annotator = Annotator(label_studio.url, state.token, state.project)
    say(f"{time.monotonic() - started:6.1f} s  the first round is open")
    picks = [pick["task"] for pick in backend.queue(state.project)[:count]]
    project = LabelStudioProject(label_studio.url, state.token, state.project)
    listed = project.sdk.tasks.list(project=state.project, page_size=1000, include="id,data")
    tasks = {int(task.id): task.data["image"] for task in listed}

    def submit(task: int) -> None:
        annotator.submit(task, truth(images, by_address[tasks[task]]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(submit, picks))
    say(f"{time.monotonic() - started:6.1f} s  {len(picks)} labels are submitted")
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        status = backend.status(state.project)
        if status is not None and status["serving_version"] is not None:
            version = status["versions"][0]
            say(
                f"{time.monotonic() - started:6.1f} s  model version 1 serves; its training took "
                f"{version['seconds']:.1f} s with {version['labels']} labels"
            )
            return
        time.sleep(LOOK_SECONDS)
    raise SystemExit("No model was trained.")


if __name__ == "__main__":
    main()
