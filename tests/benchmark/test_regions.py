"""Labelling by region: what is revealed, and a run of each kind of selector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cdal.benchmark import command
from cdal.benchmark.loaded_data import LoadedImages
from cdal.benchmark.regions import Grid, LoadedRegions, boundaries
from cdal.cli import main
from cdal.models import IGNORED

SELECTORS = ("random", "cdal-cs", "cereals", "rbal")


def regions() -> LoadedRegions:
    """Three images of 4×6, of class 0 on the left and 1 on the right, in 2×3 cells."""
    mask = torch.zeros(4, 6, dtype=torch.uint8)
    mask[:, 4:] = 1
    images = LoadedImages(
        torch.zeros(3, 3, 4, 6, dtype=torch.uint8), [mask.clone() for _ in range(3)],
        torch.tensor([[16, 8]] * 3),
    )  # fmt: skip
    return LoadedRegions(images, Grid.of((4, 6), 2), 2)


def test_a_grid_has_cells_of_about_this_side() -> None:
    assert Grid.of((512, 1024), 128) == Grid(4, 8)
    assert Grid.of((100, 60), 64) == Grid(2, 1)
    cells = Grid(2, 3).cells(torch.arange(20).reshape(4, 5))
    assert [tuple(cell.shape) for cell in cells] == [(2, 2), (2, 1), (2, 2)] * 2
    assert cells[4].tolist() == [[12], [17]]


def test_only_the_picked_regions_are_revealed() -> None:
    pool = regions()
    assert len(pool) == 18
    images = pool.take([2, 6, 7])  # the upper right of image 0, two of image 1
    assert len(images) == 2
    _, mask = images[0]
    assert (mask != IGNORED).nonzero().tolist() == [[0, 4], [0, 5], [1, 4], [1, 5]]
    assert mask[:2, 4:].unique().tolist() == [1]
    assert int((images[1][1] == 0).sum()) == 8
    assert images.counts.tolist() == [[0, 4], [8, 0]]


def test_what_was_loaded_stays_as_it_was() -> None:
    pool = regions()
    pool.take([0])
    assert int((pool.images[0][1] == IGNORED).sum()) == 0
    assert pool.counts[2].tolist() == [0, 4]


def test_whole_images_come_first() -> None:
    rows = regions().whole_images(12, seed=0)
    assert len(rows) == 12
    assert {row // 6 for row in rows[:6]} == {rows[0] // 6}


def test_a_straight_boundary_costs_one() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1, :, 4:] = 1
    assert boundaries(logits).tolist() == [1.0]
    assert boundaries(torch.zeros(1, 2, 8, 8)).tolist() == [0.0]


@pytest.mark.slow
def test_regions_are_labelled_by_every_kind_of_selector(
    scenes: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_report", lambda *_: True)
    given = [
        "--dataset", str(scenes("segmentation")), "--out", str(tmp_path), "--regions", "32",
        "--selectors", ",".join(SELECTORS), "--initial", "2", "--step", "3", "--until", "14",
        "--seeds", "1", "--epochs", "1", "--device", "cpu", "--image-size", "64",
        "--network", "lraspp_mobilenet_v3_large", "--limit", "8", "--test-limit", "2",
    ]  # fmt: skip
    assert main(["benchmark", *given]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["dataset"]["pool"] == 32
    assert found["settings"]["budgets"] == [8, 11, 14]
    for run in found["runs"]:
        picked = [name for step in run["steps"] for name in step["picked"]]
        assert len(picked) == len(set(picked)) == 14
        assert {name.rpartition("#")[2] for name in picked} <= {"0", "1", "2", "3"}
    of = {run["selector"]: run["steps"] for run in found["runs"]}
    images = [name.rpartition("#")[0] for name in of["rbal"][1]["picked"]]
    assert len(set(images)) == 3  # one of each image first


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("segmentation", ["--selectors", "rbal"], "add --regions"),
        ("segmentation", ["--regions", "32"], "--training full"),
        ("classification", ["--regions", "32"], "is for segmentation"),
        ("segmentation", ["--regions", "0"], "--regions must be at least 1"),
        (
            "segmentation",
            ["--regions", "32", "--training", "full", "--selectors", "core-set"],
            "core-set needs features",
        ),
        (
            "segmentation",
            ["--regions", "32", "--training", "full", "--selectors", "committee"],
            "committee compares whole images",
        ),
        (
            "segmentation",
            ["--regions", "32", "--training", "full", "--selectors", "random", "--bias", "1"],
            "--bias is for whole images",
        ),
    ],
)
def test_what_regions_do_not_suit_is_refused(
    task: str,
    given: list[str],
    message: str,
    scenes: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ["--dataset", str(scenes(task)), "--out", str(tmp_path / "out"), "--initial", "6"]
    curves = [] if "--selectors" in given else ["--selectors", "random"]
    assert main(["benchmark", *usual, "--step", "3", *curves, *given]) == 2
    assert message in capsys.readouterr().err
