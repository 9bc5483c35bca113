"""What the demo refuses before it starts a server; tests/backend/test_loop.py has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdal.cli import main
from cdal.datasets import TASKS
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.run import FOLDER, Options, run
from cdal.demo.scenes.files import write_scenes
from cdal.demo.state import State


def refuse(*_: object) -> None:
    raise AssertionError("a server was started")


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LabelStudioServer, "start", refuse)


def options(tmp_path: Path, images: Path | None, task: str | None) -> Options:
    return Options(
        images=images, task=task, limit=8, rounds=1, once=True, budget=None, folder=tmp_path / "d"
    )


def test_images_for_another_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path / "images", "detection", 4, size=32)
    assert run(options(tmp_path, tmp_path / "images", "segmentation")) == 1
    printed = capsys.readouterr().out
    assert "VOC's layout, a layout for detection; segmentation needs" in printed
    assert "train/masks/NAME.png" in printed
    assert not (tmp_path / "d").exists()


def test_a_label_studio_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert run(options(tmp_path, None, "classification")) == 1
    assert "pip install 'label-studio-cdal[demo]'" in capsys.readouterr().out


def test_images_of_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "[b].txt").write_text("")  # must not be read as markup
    assert run(options(tmp_path, tmp_path, None)) == 1
    assert "1 files, such as [b].txt" in capsys.readouterr().out


def test_another_task_than_the_existing_demos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    State.fresh("drawn", "detection").save(tmp_path / "d")
    assert run(options(tmp_path, None, "segmentation")) == 1
    assert "a demo for detection, not segmentation" in capsys.readouterr().out
    # Without a task, it continues with its own until it waits for the servers.
    with pytest.raises(AssertionError, match="a server was started"):
        run(options(tmp_path, None, None))
    for server in (LabelStudioServer, BackendServer):
        monkeypatch.setattr(server, "start", lambda _: None)
    monkeypatch.setattr(LabelStudioServer, "wait_until_up", refuse)
    with pytest.raises(AssertionError, match="a server was started"):
        run(options(tmp_path, None, None))
    assert (tmp_path / "d/drawn/JPEGImages/0000.png").is_file()
    assert len(list((tmp_path / "d/images/pictures").iterdir())) == 8


@pytest.mark.parametrize("given", [["--selector", "vaal"], ["--task", "detection"]])
def test_a_selector_that_a_project_may_not_have(
    given: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder would remember it, and Label Studio's refusal came a minute later."""
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--selector", "bald", *given]) == 1
    assert 'Setting "selector"' in capsys.readouterr().out
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("given", [[], *(["--task", task] for task in TASKS)])
def test_the_demo_of_drawn_images_is_accepted(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="a server was started"):
        main(["demo", *given])
