"""The images of the demo, as copies that Label Studio may serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from random import Random

from cdal.datasets import Example, ImageSet
from cdal.demo.process import DemoError

COPIES = "pictures"
LIST = "pictures.json"
"""The names of the chosen examples, in a file beside the copies that is written last."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A copy of an image to label, and its example."""

    file: Path
    example: Example

    @property
    def address(self) -> str:
        """Its address in a task, if Label Studio serves the folder above the copies."""
        return f"/data/local-files/?d={self.file.parent.name}/{self.file.name}"


def choose(images: ImageSet, limit: int | None, seed: int) -> list[Example]:
    """Choose random examples: up to ``limit`` to label, then a third as many to test on."""
    draw = Random(seed)  # noqa: S311 — not for secrets
    train, test = list(images.train), list(images.test)
    draw.shuffle(train)
    draw.shuffle(test)
    return train[:limit] + test[: max(1, len(train[:limit]) // 3)]


def pictures_of(examples: Sequence[Example], folder: Path) -> list[Picture]:
    """The copies in ``folder`` of the examples to label, under names that do not reveal the label.

    Test images have none: Label Studio never sees them.
    """
    to_label = (example for example in examples if not example.is_test)
    return [
        Picture(folder / COPIES / f"{row:05}{PurePosixPath(example.name).suffix.lower()}", example)
        for row, example in enumerate(to_label)
    ]


def copy_pictures(examples: Sequence[Example], folder: Path) -> None:
    """Write the copies, and then the list that ``known_examples`` reads.

    Raises:
        DatasetError: an image cannot be read.
    """
    (folder / COPIES).mkdir(parents=True, exist_ok=True)
    for picture in pictures_of(examples, folder):
        picture.file.write_bytes(picture.example.image())
    (folder / LIST).write_text(json.dumps([example.name for example in examples]))


def known_examples(images: ImageSet, folder: Path) -> list[Example] | None:
    """The examples that an earlier run chose; None if there was none.

    Raises:
        DemoError: the set has changed since.
    """
    file = folder / LIST
    if not file.exists():
        return None
    by_name = {example.name: example for example in images.examples}
    names = json.loads(file.read_text())
    if not by_name.keys() >= set(names):
        raise DemoError(
            'The images have changed since the demo was set up. Run "make clean" to remove the '
            "demo, and then this command again."
        )
    return [by_name[name] for name in names]
