"""Scores in files: complete or absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cdal.backend.errors import DamagedScoresError
from cdal.backend.loop.pool_scores import Scores


def scores(task_ids: list[int], value: float = 0.5) -> Scores:
    count = len(task_ids)
    return Scores(
        task_ids=torch.tensor(task_ids),
        probabilities=torch.full((count, 2), value),
        uncertainties=torch.full((count, 3), value),
        features=torch.arange(count * 3, dtype=torch.float32).reshape(count, 3),
        mixtures=torch.full((count, 1, 2), value),
        present=torch.ones(count, 1, dtype=torch.bool),
        region_counts=torch.ones(count, 2, dtype=torch.int64),
    )


def test_what_was_saved_in_parts_is_loaded_as_one(tmp_path: Path) -> None:
    assert Scores.load(tmp_path / "scores") is None
    scores([3, 1]).save(tmp_path / "scores")
    scores([2]).save(tmp_path / "scores")
    loaded = Scores.load(tmp_path / "scores")
    assert loaded is not None
    assert len(loaded) == 3
    assert sorted(loaded.task_ids.tolist()) == [1, 2, 3]
    # Each row is still that of its task.
    row = loaded.task_ids.tolist().index(1)
    assert loaded.features[row].tolist() == [3, 4, 5]


def test_an_image_that_was_scored_twice_is_there_once(tmp_path: Path) -> None:
    scores([1, 2]).save(tmp_path)
    scores([2, 3]).save(tmp_path)
    loaded = Scores.load(tmp_path)
    assert loaded is not None
    assert sorted(loaded.task_ids.tolist()) == [1, 2, 3]


def test_a_kill_while_saving_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            scores([1]).save(tmp_path)
    assert Scores.load(tmp_path) is None
    scores([1]).save(tmp_path)
    loaded = Scores.load(tmp_path)
    assert loaded is not None
    assert loaded.task_ids.tolist() == [1]


def test_rows() -> None:
    some = scores([7, 8, 9]).rows(torch.tensor([2, 0]))
    assert some.task_ids.tolist() == [9, 7]
    assert {len(getattr(some, field.name)) for field in fields(Scores)} == {2}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def of_another_format(file: Path) -> None:
    save_file(load_file(file), file, {"format": "0"})


def without_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    del tensors["features"]
    save_file(tensors, file)


DAMAGES = [cut, empty, flip_a_bit, of_another_format, without_a_tensor]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_can_be_removed(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    scores([1, 2]).save(tmp_path)
    scores([3]).save(tmp_path)
    damage(tmp_path / "00000000.safetensors")
    with pytest.raises(DamagedScoresError, match=r"00000000\.safetensors"):
        Scores.load(tmp_path)
    assert Scores.remove_damaged(tmp_path) == 1
    assert Scores.scored(tmp_path) == {3}
    # The next file takes the place of none that is left.
    scores([1, 2]).save(tmp_path)
    assert Scores.scored(tmp_path) == {1, 2, 3}
    assert Scores.remove_damaged(tmp_path) == 0


def test_scores_from_before_checksums_are_good(tmp_path: Path) -> None:
    scores([1, 2]).save(tmp_path)
    file = tmp_path / "00000000.safetensors"
    save_file(load_file(file), file)
    assert Scores.remove_damaged(tmp_path) == 0
    assert Scores.load(tmp_path) is not None


@pytest.mark.parametrize("damage", [cut, empty, without_a_tensor])
def test_what_is_only_looked_at_is_left_out(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    scores([1, 2]).save(tmp_path)
    scores([3]).save(tmp_path)
    damage(tmp_path / "00000000.safetensors")
    found = Scores.of_tasks(tmp_path, {1, 3})
    assert found is not None
    assert found.task_ids.tolist() == [3]
