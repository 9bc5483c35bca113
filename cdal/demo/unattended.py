"""The unattended demo: simulated annotators label, and a table shows the results."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cdal.datasets import Example, ImageSet, LabelledImages
from cdal.demo.annotator import Annotator, truth
from cdal.demo.backend import BackendServer, round_is_open
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.pictures import Picture
from cdal.demo.process import DemoError
from cdal.demo.project import LabelStudioProject
from cdal.demo.steps import step
from cdal.models import Metrics, load_network

TRAINING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """The results of a round; `seconds` are by step."""

    round: int
    labelled: int
    metrics: Metrics
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Unattended:
    """A demo that labels automatically, and what it needs."""

    project: LabelStudioProject
    label_studio: LabelStudioServer
    backend: BackendServer
    images: ImageSet
    pictures: Sequence[Picture]
    test: Sequence[Example]

    def label_rounds(self, rounds: int, console: Console) -> list[Row]:
        """Label this many rounds with two annotators, and print the results.

        Raises:
            DemoError: a step failed, or took too long.
            DatasetError: an image or its labels cannot be read.
        """
        status = self.backend.wait_for(
            self.project.number,
            "open round",
            lambda s: s["rounds"][-1]["state"] == "open",
            TRAINING_SECONDS,
        )
        left, budget = status["tasks"] - status["labelled"], status["rounds"][-1]["budget"]
        if left <= rounds * budget:
            raise DemoError(
                f"{rounds} rounds of {budget} images need more than the {left} remaining images. "
                'Run "make clean", and then the demo with fewer rounds, a smaller budget or a '
                "larger limit."
            )
        examples = self._examples_of_tasks()
        annotators = [self._annotator() for _ in range(2)]
        rows = [self._label_round(annotators, examples, console) for _ in range(rounds)]
        console.print(table(rows))
        return rows

    def _label_round(
        self, annotators: Sequence[Annotator], examples: Mapping[int, Example], console: Console
    ) -> Row:
        """Label the open round in turns, and wait for the next round."""
        status = self.backend.wait_for(
            self.project.number, "status", lambda _: True, TRAINING_SECONDS
        )
        current = status["rounds"][-1]
        number, budget = current["number"], current["budget"]
        trained_before = len(status["versions"])
        with step(console, f"Round {number}: labelling {budget} images") as now:
            for turn in range(budget):
                annotator = annotators[turn % len(annotators)]
                task = annotator.next_task()
                if task is None:
                    raise DemoError(f"Label Studio has no more tasks for round {number}.")
                annotator.submit(task, truth(self.images, examples[task]))
                now.show(share=(turn + 1) / budget)
        with step(console, f"Round {number}: training") as now:
            after = self.backend.wait_for(
                self.project.number,
                f"round {number + 1}",
                round_is_open(number + 1),
                TRAINING_SECONDS,
                now.show_job,
            )
        if len(after["versions"]) == trained_before:
            raise DemoError(f"Round {number} was labelled, but no model was trained.")
        folder = version_folder(self.backend.data_folder, after["id"], after["serving_version"])
        return Row(
            round=number,
            labelled=after["versions"][-1]["labels"],
            metrics=measure(folder, self.images, self.test),
            seconds=after["rounds"][-1]["seconds"],
        )

    def _annotator(self) -> Annotator:
        """A new user of Label Studio."""
        email = f"annotator-{secrets.token_hex(4)}@example.com"
        token = self.label_studio.sign_up(email, "simulated-1")
        return Annotator(self.label_studio.url, token, self.project.number)

    def _examples_of_tasks(self) -> dict[int, Example]:
        """The example of each task, by the task's id."""
        by_address = {picture.address: picture.example for picture in self.pictures}
        tasks = self.project.sdk.tasks.list(
            project=self.project.number, page_size=1000, include="id,data"
        )
        return {int(task.id): by_address[task.data["image"]] for task in tasks}


def version_folder(data: Path, project: int, version: int) -> Path:
    """The folder of a model version in the backend's data folder."""
    return data / "projects" / str(project) / "versions" / str(version)


def measure(version: Path, images: ImageSet, test: Sequence[Example]) -> Metrics:
    """The quality of a model version on test images.

    Raises:
        DatasetError: an image or its labels cannot be read.
    """
    network = load_network(version, torch.device("cpu"))
    return network.evaluate(LabelledImages(images, test, network.classes))


def table(rows: Sequence[Row]) -> Table:
    """A table of the results of all rounds."""
    made = Table(title="Results of each round")
    for column in (
        "Round",
        "Images labelled",
        f"Test {rows[0].metrics.main_name}",
        "Training s",
        "Scoring s",
        "Selecting s",
        "Queueing s",
    ):
        made.add_column(column, justify="right")
    for row in rows:
        # A round whose last labels were learnt before it ended begins without a training.
        known = [row.seconds.get(step) for step in ("train", "score", "select", "queue")]
        steps = ["—" if seconds is None else f"{seconds:.2f}" for seconds in known]
        made.add_row(str(row.round), str(row.labelled), f"{row.metrics.main:.3f}", *steps)
    return made
