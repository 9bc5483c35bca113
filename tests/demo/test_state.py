from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdal.demo.process import DemoError
from cdal.demo.state import State


def test_a_later_run_goes_on_from_it(tmp_path: Path) -> None:
    assert State.load(tmp_path, "drawn", None) is None
    state = State.fresh("drawn", "detection")
    state.project = 3
    state.save(tmp_path)
    assert State.load(tmp_path, "drawn", None) == state
    assert State.load(tmp_path, "drawn", "detection") == state


@pytest.mark.parametrize(
    ("source", "task", "sentence"),
    [
        ("other.zip", None, r'holds a demo on other images \(drawn\); "make clean" removes it'),
        ("drawn", "segmentation", 'holds a demo of detection, not of segmentation; "make clean"'),
    ],
)
def test_another_demo_is_refused(
    tmp_path: Path, source: str, task: str | None, sentence: str
) -> None:
    State.fresh("drawn", "detection").save(tmp_path)
    with pytest.raises(DemoError, match=sentence):
        State.load(tmp_path, source, task)


def test_the_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"token": "t", "budget": 10}))
    with pytest.raises(DemoError, match="holds a demo of another version"):
        State.load(tmp_path, "drawn", None)
