"""The demo without people: annotators label through Label Studio's API, and a table sums it up."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.pictures import Picture
from cdal.demo.process import DemoError
from cdal.demo.project import Annotator, LabelStudioProject
from cdal.demo.steps import Step, step
from cdal.models import TaskNetwork

TRAINING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """One round's line of the table; `seconds` by step."""

    round: int
    labelled: int
    accuracy: float
    seconds: Mapping[str, float]


class HeldBackImages:
    """Images that nobody labels, to measure what labelling bought; a `cdal.models.Dataset`."""

    def __init__(self, pictures: list[Picture], classes: tuple[str, ...]) -> None:
        self._pictures = [picture for picture in pictures if picture.is_test]
        self._classes = classes

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        picture = self._pictures[index]
        with Image.open(picture.file) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        return pixels.permute(2, 0, 1), self._classes.index(picture.label)


def label_rounds(
    rounds: int,
    project: LabelStudioProject,
    label_studio: LabelStudioServer,
    backend: BackendServer,
    pictures: list[Picture],
    console: Console,
) -> list[Row]:
    """Label so many rounds with two annotators, and print what came of each.

    Raises:
        DemoError: a step failed, or took too long.
    """
    status = backend.wait_for(
        project.number, "open round", lambda s: s["rounds"][-1]["state"] == "open", TRAINING_SECONDS
    )
    left, budget = status["tasks"] - status["labelled"], status["rounds"][-1]["budget"]
    if left <= rounds * budget:
        raise DemoError(
            f"{rounds} rounds of {budget} images need more than the {left} that are left; "
            "ask for fewer rounds, a smaller budget or a larger limit, after «make clean»."
        )
    labels = _true_labels(project, pictures)
    annotators = [
        Annotator(
            label_studio.url,
            label_studio.sign_up(f"annotator-{secrets.token_hex(4)}@example.com", "simulated-1"),
            project.number,
        )
        for _ in range(2)
    ]
    rows = []
    for _ in range(rounds):
        status = backend.wait_for(project.number, "status", lambda _: True, TRAINING_SECONDS)
        rows.append(_label_round(status, project, annotators, backend, pictures, labels, console))
    console.print(_table(rows))
    return rows


def _label_round(
    status: Mapping[str, Any],
    project: LabelStudioProject,
    annotators: list[Annotator],
    backend: BackendServer,
    pictures: list[Picture],
    labels: Mapping[int, str],
    console: Console,
) -> Row:
    """Label the open round's budget in turns, and wait for the next round."""
    current = status["rounds"][-1]
    number, budget = current["number"], current["budget"]
    trained_before = len(status["versions"])
    with step(console, f"Round {number}: labelling {budget} images") as now:
        for turn in range(budget):
            annotator = annotators[turn % len(annotators)]
            task = annotator.next_task()
            if task is None:
                raise DemoError(f"Label Studio has no task for round {number} any more.")
            annotator.submit(task, labels[task])
            now.show(share=(turn + 1) / budget)
    with step(console, f"Round {number}: training") as now:
        after = backend.wait_for(
            project.number,
            f"round {number + 1}",
            round_is_open(number + 1),
            TRAINING_SECONDS,
            lambda status: show_job(now, status),
        )
    if len(after["versions"]) == trained_before:
        raise DemoError(f"Round {number} was labelled, but no model was trained.")
    newest = after["versions"][-1]
    return Row(
        round=number,
        labelled=newest["labels"],
        accuracy=accuracy_on_test_images(
            backend.data_folder, after["id"], after["serving_version"], pictures
        ),
        seconds=after["rounds"][-1]["seconds"],
    )


def show_job(now: Step, status: Mapping[str, Any]) -> None:
    """Show what the backend is at."""
    running = [job for job in status["jobs"] if job["state"] == "running" and job["message"]]
    if running:
        now.show(running[0]["message"].capitalize(), running[0]["progress"])


def accuracy_on_test_images(
    data: Path, project: int, version: int, pictures: list[Picture]
) -> float:
    """The accuracy of a model version on the images that nobody labels."""
    folder = data / "projects" / str(project) / "versions" / str(version)
    network = TaskNetwork.load(folder, torch.device("cpu"))
    return network.evaluate(HeldBackImages(pictures, network.classes)).values["accuracy"]


def _true_labels(project: LabelStudioProject, pictures: list[Picture]) -> dict[int, str]:
    """The true class of every task, found by the file that it names."""
    by_end = {"/".join(p.file.parts[-3:]): p.label for p in pictures}
    tasks = project.sdk.tasks.list(project=project.number, page_size=1000, include="id,data")
    return {int(task.id): by_end[task.data["image"].partition("?d=")[2]] for task in tasks}


def _table(rows: list[Row]) -> Table:
    table = Table(title="What labelling bought")
    for column in (
        "Round",
        "Images labelled",
        "Test accuracy",
        "Training s",
        "Scoring s",
        "Selecting s",
        "Queueing s",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        steps = [f"{row.seconds[step]:.2f}" for step in ("train", "score", "select", "queue")]
        table.add_row(str(row.round), str(row.labelled), f"{row.accuracy:.3f}", *steps)
    return table
