from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.recorded import results, run, step, two_selectors, write
from torch import Tensor

from cdal.benchmark.data_set import Part
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.folder import SimulationFolder
from cdal.benchmark.report import write_report


class Page(HTMLParser):
    """Tags with their attributes, headings and the text of a page; checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def page(folder: Path, data: dict[str, Any], pool: Part | None = None) -> Page:
    return Page(write_report(write(folder, data), pool).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """The folder with the report of two selectors, and its page."""
    folder = tmp_path_factory.mktemp("reported")
    return folder, page(folder, two_selectors())


def test_the_page_has_everything(reported: tuple[Path, Page]) -> None:
    folder, found = reported
    assert found.headings == [
        "Findings",
        "Learning curves",
        "Classes",
        "Overlap of picks",
        "Time",
        "Settings",
        "Data",
        "Machine",
        "Run it again",
    ]
    assert "Learning curves: animals" in found.text
    assert "cdal-cs needs 20 labels for what random reaches with 30" in found.text
    assert "cdal benchmark --selectors random,cdal-cs --dataset data/animals" in found.text
    assert "73.0 ± 38.1" in found.text
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert "- cdal-cs needs 20 labels" in table
    assert "| 20 | 61.0 ± 12.7 | 73.0 ± 38.1 |" in table
    assert b"<svg" in (folder / "curves.svg").read_bytes()


def test_the_page_needs_nothing_from_outside(reported: tuple[Path, Page]) -> None:
    folder, found = reported
    pictures = [attributes for tag, attributes in found.tags if tag == "img"]
    assert len(pictures) == 4
    for attributes in pictures:
        assert attributes["alt"]
        assert str(attributes["src"]).startswith("data:image/")
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe", "object", "a"})
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_same_results_give_the_same_page(reported: tuple[Path, Page]) -> None:
    folder, _ = reported
    first = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == first


def test_nothing_in_the_results_is_markup(tmp_path: Path) -> None:
    evil = "</td><script>alert(1)</script>&\"'{{1234*5678}}"
    data = results(
        [
            {
                "selector": name,
                "seed": 0,
                "steps": [
                    step(10, 0.5, per_class={evil: 0.5}, warnings=[evil]),
                    step(20, 0.6, [evil], per_class={evil: 0.6}, warnings=[evil]),
                ],
            }
            for name in ("random", evil)
        ],
        settings={"dataset": evil, evil: {evil: [evil]}},
        machine={"processor": evil},
    )
    found = page(tmp_path, data)
    assert "script" not in {tag for tag, _ in found.tags}
    assert f"{evil}: {evil} (2 times)" in found.text
    assert "7006652" not in found.text
    assert "<script" not in (tmp_path / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "Nothing has been measured yet."),
        ([run("random", 0, {10: 0.5})], "only random was run"),
        ([run("cdal-cs", 0, {10: 0.5, 20: 0.6})], "the selector random was not run"),
        (
            [run("random", 0, {10: 0.5, 20: 0.6}), run("cdal-cs", 0, {10: 0.5})],
            "0 of 1 runs have reached the last budget",
        ),
        (
            [run("random", 0, {10: 0.5}), {"selector": "cdal-cs", "seed": 0, "steps": []}],
            "only random was run",
        ),
        (
            [run("random", 0, {10: 0.5, 20: 0.5}), run("cdal-cs", 0, {10: 0.5, 20: 0.5})],
            "chance cannot be ruled out",
        ),
    ],
)
def test_unfinished_results_are_shown_as_far_as_they_are(
    tmp_path: Path, runs: list[dict[str, Any]], said: str
) -> None:
    assert said in page(tmp_path, results(runs)).text


def test_without_results_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"results\.json cannot be read"):
        write_report(tmp_path)


class Squares:
    """Black images, all with the same target."""

    def __init__(self, target: Tensor) -> None:
        self._target = target

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        return torch.zeros(3, 8, 8, dtype=torch.uint8), self._target


NAMES = tuple(f"images/{number}.png" for number in range(100))


def kept(folder: Path, task: str, count: int = 100) -> dict[str, Any]:
    """Results with the kept scores of CDAL-CS's first model."""
    simulation = SimulationFolder(folder)
    simulation.write_images(NAMES, [], [])
    file = simulation.scores_file("cdal-cs", 0, 10)
    file.parent.mkdir()
    mixtures = np.tile(np.array([[0.5, 0.5], [0.2, 0.8]], dtype=np.float32), (count, 1, 1))
    features = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    present = np.ones((count, 2), dtype=bool)
    save_file({"features": features, "mixtures": mixtures, "present": present}, file)
    runs = [
        {
            "selector": name,
            "seed": 0,
            "steps": [step(10, 0.5, NAMES[:10]), step(20, 0.6, NAMES[begin : begin + 10])],
        }
        for name, begin in (("random", 20), ("cdal-cs", 30))
    ]
    dataset = {"task": task, "classes": ["cat", "dog"], "pool": 100, "test": 10}
    return results(runs, dataset=dataset)


TARGETS = {
    "classification": torch.tensor(1),
    "segmentation": torch.ones(8, 8, dtype=torch.uint8),
    "detection": torch.tensor([[1.0, 1, 5, 5, 0]]),
}
MAP, MIXTURES = "Picks of the first round", "Class mixtures of picked images"


@pytest.mark.slow
@pytest.mark.parametrize("task", TARGETS)
def test_kept_scores_are_drawn(tmp_path: Path, task: str) -> None:
    found = page(tmp_path, kept(tmp_path, task), Part(NAMES, Squares(TARGETS[task])))
    assert {MAP, MIXTURES} <= set(found.headings)


@pytest.mark.slow
def test_without_images_there_is_a_map_only(tmp_path: Path) -> None:
    found = page(tmp_path, kept(tmp_path, "classification"))
    assert MAP in found.headings
    assert MIXTURES not in found.headings


def test_scores_of_other_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"safetensors does not fit .*images\.json"):
        page(tmp_path, kept(tmp_path, "classification", count=99))


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    data = kept(tmp_path, "classification")
    SimulationFolder(tmp_path).scores_file("cdal-cs", 0, 10).write_bytes(b"none")
    with pytest.raises(BenchmarkError, match="is damaged"):
        page(tmp_path, data)


def test_pictures_in_the_page_are_whole(reported: tuple[Path, Page]) -> None:
    folder, found = reported
    source = next(str(attributes["src"]) for tag, attributes in found.tags if tag == "img")
    data = base64.b64decode(source.partition("base64,")[2], validate=True)
    assert data == (folder / "curves.svg").read_bytes()
