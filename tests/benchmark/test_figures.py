"""The paper's figures from small results made by hand, and one run with kept scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recorded import results, run

from cdal.benchmark import command
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.paper_figures import FIGURES
from cdal.benchmark.plan import pool_of
from cdal.benchmark.report.figures import DRAWN, write_figure
from cdal.cli import main


def kept(folder: Path, selectors: tuple[str, ...] = ("random", "cdal-rl:alpha=0.5")) -> Path:
    """A folder of results with these curves, two seeds each."""
    folder.mkdir()
    runs = [
        run(name, seed, {10: 0.4, 20: 0.5 + 0.1 * seed}) for name in selectors for seed in (0, 1)
    ]
    (folder / "results.json").write_text(json.dumps(results(runs)))
    return folder


def test_every_figure_is_drawn_and_described() -> None:
    assert set(DRAWN) == set(FIGURES)


@pytest.mark.slow
def test_curves_of_several_runs_are_side_by_side(tmp_path: Path) -> None:
    folders = [kept(tmp_path / "first"), kept(tmp_path / "second")]
    file = write_figure("5", folders, None, pool_of, None)
    assert file == tmp_path / "first" / "figure-5.svg"
    assert file.read_bytes().startswith(b"<?xml")


def test_a_table_has_the_last_budget_of_each_curve(tmp_path: Path) -> None:
    file = write_figure("table2", [kept(tmp_path / "run")], tmp_path / "table.md", pool_of, None)
    rows = file.read_text().splitlines()
    found = next(row for row in rows if "alpha=0.5" in row)
    assert "55.0 ± " in found
    assert "20 (" in found


def test_classes_are_grouped_by_curve(tmp_path: Path) -> None:
    curves = ("cdal-rl:reward=vr", "cdal-rl:reward=cd+vr,classes=cat")
    assert write_figure("7b", [kept(tmp_path / "run", curves)], None, pool_of, None).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1", "no picks of cdal-cs"),
        ("7a", "--keep-scores"),
        ("7b", "ablation classes"),
        ("8", "ablation classes"),
    ],
)
def test_results_that_a_figure_cannot_use_are_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        write_figure(name, [kept(tmp_path / "run")], None, pool_of, None)


def test_a_file_whose_ending_is_of_something_else_is_refused(tmp_path: Path) -> None:
    """A picture named figure.pdf held an SVG."""
    folder = kept(tmp_path / "run")
    for name, ending, possible in (("3", "pdf", "svg or .png"), ("table1", "svg", "md")):
        out = tmp_path / f"figure.{ending}"
        with pytest.raises(BenchmarkError, match=f"must end in .{possible}"):
            write_figure(name, [folder], out, pool_of, None)
        assert not out.exists()


@pytest.mark.slow
def test_figures_of_images_are_drawn_from_kept_scores(
    scenes: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "_report", lambda *_: True)
    curves = "entropy,core-set,cdal-cs,cdal-cs:classes=boat,cdal-cs:classes=boat+car"
    given = [
        "--dataset", str(scenes("segmentation")), "--out", str(tmp_path), "--keep-scores",
        "--selectors", curves, "--initial", "4", "--step", "3", "--until", "7", "--seeds", "1",
        "--epochs", "1", "--device", "cpu", "--image-size", "64", "--training", "full",
        "--network", "lraspp_mobilenet_v3_large",
    ]  # fmt: skip
    assert main(["benchmark", *given]) == 0
    for name in ("1", "7a", "8"):
        out = tmp_path / f"{name}.png"
        assert main(["benchmark", "figure", name, str(tmp_path), "--out", str(out)]) == 0
        assert out.read_bytes().startswith(b"\x89PNG")
    wrong = ["benchmark", "figure", "1", str(tmp_path), "--class", "ship"]
    assert main(wrong) == 2
    assert "--class must be one of" in capsys.readouterr().err
