"""The pool's map, and how it is laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.offline import FakeLabelStudio, add_project, make_services, make_work
from support.pooled import pooled_project

from cdal.backend.loop import pool_map
from cdal.backend.loop.pool_map import PoolMap, map_file, newest_map
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.reports.pool_map import pool_map_view
from cdal.backend.services import Services


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def test_every_image_is_on_it_with_what_has_become_of_it(services: Services) -> None:
    project, _ = pooled_project(services)
    old = map_file(services.config.project_folder(project.id), 0)
    PoolMap(0, 0, [], [], [], [], []).save(old)
    outcome = pool_map.run(make_work(services, project, FakeLabelStudio(), "pool_map"))
    assert outcome == "6 of 6 images laid out"
    assert not old.exists()
    with services.store.reading() as session:
        drawn = newest_map(session, services.config, project)
        assert drawn is not None
        told = pool_map_view(session, project, drawn)
    states = {point.task: point.state for point in told.points}
    assert states == {
        1: "labelled",
        2: "unlabelled",
        3: "queued",
        4: "queued",
        5: "unlabelled",
        6: "queued",
    }
    rounds = {point.task: point.round for point in told.points}
    assert (rounds[3], rounds[2], rounds[1]) == (2, None, None)
    assert told.counts == {"labelled": 1, "queued": 3, "unlabelled": 2}
    assert {point.class_ for point in told.points if point.task in (3, 5)} == {1}
    for point in told.points:
        assert 0 <= point.x <= 1
        assert 0 <= point.y <= 1


def test_a_damaged_file_is_none(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    assert PoolMap.load(file) is None
    PoolMap(1, 2, [7], [0.5], [1], [0], [0.25]).save(file)
    assert PoolMap.load(file) is not None
    whole = file.read_text()
    damaged = (
        whole[:20],
        "[]",
        whole.replace("[7]", "[7, 8]"),
        whole.replace("[7]", '"7"'),
        whole.replace("task_ids", "tasks"),
        whole.replace("[0.5]", "null"),
    )
    for text in damaged:
        file.write_text(text)
        assert PoolMap.load(file) is None, text
    file.write_bytes(b"\xff")
    assert PoolMap.load(file) is None


def test_no_bit_of_a_file_may_be_another(tmp_path: Path) -> None:
    """A class that the model does not have would break the page until the next map."""
    file = tmp_path / "map.json"
    PoolMap(1, 2, [7], [0.5], [1], [0], [0.25]).save(file)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert PoolMap.load(file) is None, place
    # A map of before there was a checksum is laid out again.
    file.write_bytes(whole.partition(b"\n")[2])
    assert PoolMap.load(file) is None


def test_without_features_there_is_nothing_to_lay_out(services: Services) -> None:
    project = add_project(services)
    outcome = pool_map.run(make_work(services, project, FakeLabelStudio(), "pool_map"))
    assert outcome == "there are no features that could be laid out"


def test_of_many_images_the_queue_and_some_of_the_rest() -> None:
    every, queued, labelled = set(range(10_000)), range(100), set(range(5000, 7000))
    shown = pool_map._sample(every, queued, labelled, seed=0)
    assert len(shown) == pool_map.MOST_POINTS
    assert set(queued) <= shown
    assert len(labelled & shown) == pool_map.MOST_LABELLED
    assert shown == pool_map._sample(every, queued, labelled, seed=0)


def test_only_what_is_shown_is_read(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of a million images take gigabytes."""
    project, _ = pooled_project(services)
    monkeypatch.setattr(pool_map, "MOST_POINTS", 4)
    monkeypatch.setattr(pool_map, "MOST_QUEUED", 2)
    load, read = Scores.load, []

    def note(*given: Any, **more: Any) -> Scores | None:
        found = load(*given, **more)
        assert found is not None
        read.append(len(found))
        return found

    monkeypatch.setattr(Scores, "load", note)
    outcome = pool_map.run(make_work(services, project, FakeLabelStudio(), "pool_map"))
    assert outcome == "4 of 6 images laid out"
    assert read == [4]


def test_groups_stay_together() -> None:
    draws = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 20) * 50, 20, axis=0)
    places = pool_map.lay_out((centres + draws.normal(size=(60, 20))).astype(np.float32), seed=0)
    groups = places.reshape(3, 20, 2)
    within = np.linalg.norm(groups - groups.mean(1, keepdims=True), axis=2).max()
    apart = np.linalg.norm(groups.mean(1)[:, None] - groups.mean(1)[None], axis=2)
    assert within < apart[np.triu_indices(3, 1)].min()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_few_images(count: int) -> None:
    places = pool_map.lay_out(np.eye(count, 4, dtype=np.float32), seed=0)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


def test_copies_of_one_image_do_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **_named: object) -> None:
        pytest.fail("t-SNE of equal rows divides by zero, and then accesses foreign memory")

    monkeypatch.setattr("sklearn.manifold.TSNE", crash)
    places = pool_map.lay_out(np.full((40, 16), 0.3, np.float32), seed=0)
    assert places.shape == (40, 2)
    assert np.isfinite(places).all()
