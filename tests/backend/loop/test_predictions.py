"""Scores that make the label stream follow the ranks."""

from __future__ import annotations

from pathlib import Path

from support.offline import CONFIG, add_project, add_round, add_version, choice, make_services

from cdal.backend.annotations.labeling_config import served_control, served_controls
from cdal.backend.annotations.packing import pack
from cdal.backend.loop.predictions import (
    NOT_QUEUED_SCORE,
    QUEUED_SHARE,
    count_ranked,
    parts_of,
    queue_scores,
    rank_score,
    result_of,
    stored_findings,
)
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.queries import chunks
from cdal.models import Classification


def test_scores_rise_with_the_rank_and_stay_below_those_of_what_is_not_queued() -> None:
    assert rank_score(0, 1) == QUEUED_SHARE / 2
    scores = [rank_score(rank, 3) for rank in range(3)]
    assert scores == [0.9 * 1 / 4, 0.9 * 2 / 4, 0.9 * 3 / 4]
    many = [rank_score(rank, 1_000_000) for rank in range(0, 1_000_000, 997)]
    assert many == sorted(set(many))
    assert many[0] > 0
    assert many[-1] < QUEUED_SHARE < NOT_QUEUED_SCORE <= 1


def test_what_the_store_knows_of_tasks(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    version = add_version(services, project, {5: "cat", 6: "dog"})
    made = add_round(services, project, [6, 5], model_version_id=version.id)
    controls = served_controls(CONFIG)
    with services.store.reading() as session:
        assert count_ranked(session, made) == 2
        assert queue_scores(session, made, [5, 6, 7]) == {5: 0.9 * 2 / 3, 6: 0.9 * 1 / 3}
        (part,) = parts_of(session, made, controls, [5, 6, 7, 5])
        labels = {task_id: packed["label"] for task_id, packed in part.findings.items()}
        assert labels == {5: 0, 6: 1}
        assert part.version.classes == ["cat", "dog"]
        many = list(range(2000))  # more than one query may name
        assert set(queue_scores(session, made, many)) == {5, 6}
        assert set(stored_findings(session, version, many)) == {5, 6}


def test_a_random_round_has_nothing_to_say(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    made = add_round(services, add_project(services), [1])
    with services.store.reading() as session:
        assert parts_of(session, made, served_controls(CONFIG), [1]) == []


BOXES = CONFIG.replace("Choices", "RectangleLabels").replace("Choice ", "Label ")


def test_what_was_said_is_drawn_for_the_control_of_now() -> None:
    settings = ProjectSettings()
    control = served_control(CONFIG)
    said = pack(Classification(1, 0.75), (30, 40))
    assert result_of(control, settings, ["cat", "dog"], said) == choice("dog")
    # By a model that knew another class, and by one that did another task.
    assert result_of(control, settings, ["cat", "wolf"], said) == []
    assert result_of(served_control(BOXES), settings, ["cat", "dog"], said) == []


def test_chunks() -> None:
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(chunks([], 2)) == []
