from __future__ import annotations

from pathlib import Path

import pytest

from cdal.demo.process import DemoError
from cdal.demo.state import State


def test_a_later_run_continues(tmp_path: Path) -> None:
    assert State.load(tmp_path, "drawn", None) is None
    state = State.fresh("drawn", "detection")
    state.project = 3
    state.save(tmp_path)
    assert State.load(tmp_path, "drawn", None) == state
    assert State.load(tmp_path, "drawn", "detection") == state


def test_other_users_cannot_read_the_token(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    State.fresh("drawn", "detection").save(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("source", "task", "message"),
    [
        ("other.zip", None, r'other images \(drawn\).*"make clean"'),
        ("drawn", "segmentation", 'for detection, not segmentation.*"make clean"'),
    ],
)
def test_another_demo_is_refused(
    tmp_path: Path, source: str, task: str | None, message: str
) -> None:
    State.fresh("drawn", "detection").save(tmp_path)
    with pytest.raises(DemoError, match=message):
        State.load(tmp_path, source, task)


def test_other_settings_than_the_existing_demos(tmp_path: Path) -> None:
    State.fresh("drawn", "detection", budget=20).save(tmp_path)
    for same in ({}, {"budget": 20}):
        state = State.load(tmp_path, "drawn", None, **same)
        assert state is not None
        assert (state.budget, state.selector) == (20, None)
    with pytest.raises(DemoError, match=r"budget is 20, not 30.*settings page"):
        State.load(tmp_path, "drawn", None, budget=30)
    with pytest.raises(DemoError, match="selector is the default, not random"):
        State.load(tmp_path, "drawn", None, selector="random")


@pytest.mark.parametrize("content", ['{"token": "t", "budget": 10}', '{"token": "t', "", "[]"])
def test_a_state_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(DemoError, match="a demo of another version"):
        State.load(tmp_path, "drawn", None)
