"""What the demo refuses before it starts anything; the rest is in tests/backend/test_loop.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.run import Options, run
from cdal.demo.scenes.files import write_scenes
from cdal.demo.state import State


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(LabelStudioServer, "start", refuse)


def options(tmp_path: Path, images: Path | None, task: str | None) -> Options:
    return Options(
        images=images, task=task, limit=8, rounds=1, once=True, budget=None, folder=tmp_path / "d"
    )


def test_a_task_that_the_images_are_not_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "images", "detection", 4, size=32)
    assert run(options(tmp_path, tmp_path / "images", "segmentation")) == 1
    printed = capsys.readouterr().out
    assert "holds VOC's layout, which is for detection; segmentation needs train/images" in printed
    assert not (tmp_path / "d").exists()


def test_images_of_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "[b].txt").write_text("")  # no markup of the terminal's
    assert run(options(tmp_path, tmp_path, None)) == 1
    assert "holds 1 files, such as [b].txt. Needed is" in capsys.readouterr().out


def test_another_task_than_that_of_the_demo_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    State.fresh("drawn", "detection").save(tmp_path / "d")
    assert run(options(tmp_path, None, "segmentation")) == 1
    assert "holds a demo of detection, not of segmentation" in capsys.readouterr().out
    # Without being told, it goes on with the task that it has, as far as starting the servers.
    with pytest.raises(AssertionError, match="a server was started"):
        run(options(tmp_path, None, None))
    assert (tmp_path / "d/drawn/JPEGImages/0000.png").is_file()
    assert len(list((tmp_path / "d/images/pictures").iterdir())) == 8
