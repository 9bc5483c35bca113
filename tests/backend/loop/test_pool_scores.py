"""Scores in files: complete or absent."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cdal.backend.errors import DamagedScoresError
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.select import arrays_for
from cdal.selectors import make_selector
from cdal.selectors.synthetic import confused_pool
from cdal.selectors.uncertainty import uncertainties_of


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


def test_several_models_scores_of_the_same_images() -> None:
    first, second = scores([7, 8, 9]), scores([9, 5, 7])
    ours, theirs = Scores.of_the_same([first, second])
    assert ours.task_ids.tolist() == theirs.task_ids.tolist() == [7, 9]
    assert ours.features[:, 0].tolist() == [0, 6]
    assert theirs.features[:, 0].tolist() == [6, 0]
    assert Scores.of_the_same([first, first])[1] is first


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def of_another_format(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        written = opened.metadata()
    save_file(load_file(file), file, {**written, "format": "0"})


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


def by_class(images: int, first_id: int = 0, seed: int = 0) -> Scores:
    """Scores of 8 classes, of which each image has some."""
    pool = confused_pool(images, classes=8, seed=seed)
    assert pool.features is not None
    assert pool.probabilities is not None
    assert pool.region_counts is not None
    return Scores(
        task_ids=torch.arange(first_id, first_id + images),
        probabilities=pool.probabilities,
        uncertainties=uncertainties_of(pool.probabilities).float(),
        features=pool.features,
        mixtures=pool.mixtures,
        present=pool.present,
        region_counts=pool.region_counts,
    )


def write_dense(folder: Path, some: Scores, with_checksum: bool) -> None:
    """Write scores as earlier versions did."""
    folder.mkdir(exist_ok=True)
    tensors = {field.name: getattr(some, field.name).contiguous() for field in fields(some)}
    sum_ = 0
    for name in sorted(tensors):
        sum_ = zlib.crc32(f"{name} {tuple(tensors[name].shape)}".encode(), sum_)
        sum_ = zlib.crc32(tensors[name].numpy().tobytes(), sum_)
    metadata = {"format": "1", "crc32": f"{sum_:08x}"} if with_checksum else None
    save_file(tensors, folder / "00000000.safetensors", metadata)


@pytest.mark.parametrize("with_checksum", [True, False])
def test_dense_scores_of_earlier_versions_are_read(tmp_path: Path, with_checksum: bool) -> None:
    old, new = by_class(5), by_class(4, first_id=5, seed=1)
    write_dense(tmp_path, old, with_checksum)
    new.save(tmp_path)
    assert Scores.remove_damaged(tmp_path) == 0
    loaded = Scores.load(tmp_path)
    assert loaded is not None
    both = Scores.concatenate([old, new])
    assert loaded.mixtures.to_dense().equal(both.mixtures)
    assert loaded.features.equal(both.features)
    one = Scores.of_tasks(tmp_path, {3, 7})
    assert one is not None
    assert one.mixtures.equal(both.mixtures[[3, 7]])
    if with_checksum:
        flip_a_bit(tmp_path / "00000000.safetensors")
        with pytest.raises(DamagedScoresError):
            Scores.load(tmp_path)


def test_classes_that_an_image_does_not_have_take_no_room(tmp_path: Path) -> None:
    some = by_class(50)
    some.save(tmp_path)
    kept = load_file(tmp_path / "00000000.safetensors")["mixtures"]
    assert kept.shape == (int(some.present.sum()), 8)
    assert kept.equal(some.mixtures[some.present])


def test_the_pool_of_some_tasks_has_only_what_is_needed(tmp_path: Path) -> None:
    by_class(6).save(tmp_path)
    again = by_class(3, first_id=4, seed=1)  # tasks 4 and 5 were scored again
    again.save(tmp_path)
    loaded = Scores.load(tmp_path, ["mixtures"], among=[6, 2, 4, 99])
    assert loaded is not None
    assert loaded.task_ids.tolist() == [2, 4, 6]
    expected = torch.cat([by_class(6).mixtures[2:3], again.mixtures[[0, 2]]])
    pool = loaded.pool([False, True, False])
    assert pool.mixtures.to_dense().equal(expected)
    assert set(pool.arrays()) == {"mixtures", "present", "labelled"}
    without = Scores.load(tmp_path, ["probabilities"])
    assert without is not None
    assert set(without.pool([False] * 7).arrays()) >= {"probabilities", "mixtures"}
    assert not without.present.any()


def test_what_is_not_needed_is_not_read(tmp_path: Path) -> None:
    """Damage to an array that nobody needs is found when the next round looks at all files."""
    some = by_class(5)
    some.save(tmp_path)
    file = tmp_path / "00000000.safetensors"
    content = file.read_bytes()
    at = content.index(some.features.numpy().tobytes())
    file.write_bytes(content[:at] + b"\x01\x02\x03" + content[at + 3 :])
    assert Scores.load(tmp_path, ["mixtures"]) is not None
    with pytest.raises(DamagedScoresError):
        Scores.load(tmp_path, ["features"])
    assert Scores.remove_damaged(tmp_path) == 1


@pytest.mark.parametrize("name", ["cdal-cs", "cd-greedy", "entropy", "core-set", "typiclust"])
@pytest.mark.parametrize("seed", [0, 1])
def test_picks_are_exactly_those_of_dense_scores(tmp_path: Path, name: str, seed: int) -> None:
    parts = [by_class(90, first_id=90 * part, seed=2 * seed + part) for part in range(3)]
    for part in parts:
        part.save(tmp_path)
    labelled = [number % 40 == seed for number in range(270)]
    loaded = Scores.load(tmp_path, arrays_for([name]))
    assert loaded is not None
    selector = make_selector(name)
    expected = selector.select(Scores.concatenate(parts).pool(labelled), 40, seed)
    assert selector.select(loaded.pool(labelled), 40, seed) == expected


@pytest.mark.parametrize("damage", [cut, empty, without_a_tensor])
def test_what_is_only_looked_at_is_left_out(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    scores([1, 2]).save(tmp_path)
    scores([3]).save(tmp_path)
    damage(tmp_path / "00000000.safetensors")
    found = Scores.of_tasks(tmp_path, {1, 3})
    assert found is not None
    assert found.task_ids.tolist() == [3]
