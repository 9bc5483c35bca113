"""What a model knows and what it confuses."""

from __future__ import annotations

from cdal.backend.reports.quality import ClassView, quality_view
from cdal.backend.store.tables import ModelVersion


def version(**metrics: object) -> ModelVersion:
    return ModelVersion(number=2, classes=["cat", "dog", "owl"], metrics=metrics)


def test_the_worst_confusions_come_first_by_their_share() -> None:
    told = quality_view(
        version(
            main_name="accuracy",
            values={"accuracy": 0.6},
            images=15,
            per_class={
                "cat": {"count": 10, "score": 0.7},
                "dog": {"count": 4, "score": 0.5},
                "owl": {"count": 1, "score": None},
            },
            confusion=((7, 3, 0), (1, 2, 1), (0, 0, 1)),
        )
    )
    assert [(p.true, p.taken_for, p.count, p.share) for p in told.confused] == [
        ("cat", "dog", 3, 0.3),
        ("dog", "cat", 1, 0.25),
        ("dog", "owl", 1, 0.25),
    ]
    assert told.classes[1] == ClassView(name="dog", count=4, score=0.5)
    assert told.matrix[0] == [7, 3, 0]


def test_a_detector_may_miss_what_is_there() -> None:
    told = quality_view(
        version(
            main_name="map_50",
            per_class={"cat": {"count": 4, "score": 0.7}, "dog": {"count": 2, "score": 0.5}},
            confusion=((3, 0, 1), (1, 1, 0)),
        )
    )
    assert [(p.true, p.taken_for, p.share) for p in told.confused] == [
        ("dog", "cat", 0.5),
        ("cat", "nothing (missed)", 0.25),
    ]


def test_a_version_that_was_not_measured() -> None:
    told = quality_view(version())
    assert (told.images, told.classes, told.confused) == (0, [], [])
