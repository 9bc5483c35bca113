"""What the unattended demo measures and prints; tests/backend/test_loop.py has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from cdal.datasets import ImageSet, open_images
from cdal.demo.scenes.files import write_scenes
from cdal.demo.unattended import Row, measure, table
from cdal.models import BACKGROUND, Metrics, make_network

SIZE = 32
TESTED = 3


@pytest.fixture
def drawn(tmp_path: Path, request: pytest.FixtureRequest) -> ImageSet:
    write_scenes(tmp_path / "drawn", request.param, 4 * TESTED, size=SIZE)
    return open_images(tmp_path / "drawn")


def measured(images: ImageSet, classes: tuple[str, ...], folder: Path) -> Metrics:
    network = make_network(images.task, classes=classes, image_size=SIZE, pretrained=False)
    network.save(folder / "version")
    return measure(folder / "version", images, images.test)


@pytest.mark.slow
@pytest.mark.parametrize("drawn", ["classification"], indirect=True)
def test_the_network_may_order_classes_differently(drawn: ImageSet, tmp_path: Path) -> None:
    metrics = measured(drawn, tuple(reversed(drawn.classes)), tmp_path)
    assert metrics.main_name == "accuracy"
    wanted = [drawn.classes[int(example.target())] for example in drawn.test]
    assert {name: score.count for name, score in metrics.per_class.items()} == {
        name: wanted.count(name) for name in drawn.classes
    }


@pytest.mark.slow
@pytest.mark.parametrize("drawn", ["segmentation"], indirect=True)
@pytest.mark.parametrize("background", [True, False])
def test_unlabelled_pixels_count_if_the_network_has_background(
    drawn: ImageSet, tmp_path: Path, background: bool
) -> None:
    classes = (*drawn.classes, BACKGROUND) if background else drawn.classes
    metrics = measured(drawn, classes, tmp_path)
    assert metrics.main_name == "miou"
    bare = sum(int((example.target() == 255).sum()) for example in drawn.test)
    assert 0 < bare < TESTED * SIZE**2
    counted = sum(score.count for score in metrics.per_class.values())
    assert counted == TESTED * SIZE**2 - (0 if background else bare)


def test_the_table_names_the_metric() -> None:
    seconds = {"train": 1.234, "score": 2.0, "select": 0.5, "queue": 0.25}
    rows = [
        Row(number, 10 * number, Metrics("miou", {"miou": value}, {}, (), 5), steps)
        for number, value, steps in ((1, 0.25, seconds), (2, 0.5, {"queue": 0.25}))
    ]
    console = Console(width=200)
    with console.capture() as printed:
        console.print(table(rows))
    lines = printed.get().splitlines()
    assert "Test miou" in lines[2]
    assert [line.strip("│ ").split() for line in lines[4:6]] == [
        ["1", "│", "10", "│", "0.250", "│", "1.23", "│", "2.00", "│", "0.50", "│", "0.25"],
        # It began with the model that there was.
        ["2", "│", "20", "│", "0.500", "│", "—", "│", "—", "│", "—", "│", "0.25"],
    ]
