"""Which annotation counts."""

from __future__ import annotations

from typing import Any

from support.annotated import control_of, region

from cdal.backend.annotations import read_annotations
from cdal.backend.annotations.format import counting_annotations
from cdal.backend.settings import ProjectSettings


def annotation(name: str, at: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "updated_at": at, **more}


def counting(*given: dict[str, Any]) -> list[str]:
    found = [one["name"] for one in counting_annotations(given)]
    assert [one["name"] for one in counting_annotations(given[::-1])] == found
    return found


def test_of_one_person_the_latest_counts() -> None:
    late, early = annotation("late", "2026-01-02"), annotation("early", "2026-01-01")
    assert counting(late, early) == ["late"]  # by whom is not known
    assert counting({**late, "completed_by": 3}, {**early, "completed_by": {"id": 3}}) == ["late"]


def test_of_several_people_everybody_counts_and_the_latest_comes_last() -> None:
    late, early = annotation("late", "2026-01-02"), annotation("early", "2026-01-01")
    late["completed_by"], early["completed_by"] = 3, 4
    again = annotation("again", "2026-01-03", completed_by=4)
    assert counting(late, early) == ["early", "late"]
    assert counting(late, early, again) == ["late", "again"]


def test_the_ground_truth_counts_alone() -> None:
    truth = annotation("truth", "2026-01-01", ground_truth=True, completed_by=3)
    assert counting(truth, annotation("late", "2026-01-02", completed_by=4)) == ["truth"]


def test_skipped_ones_do_not_count() -> None:
    skipped = annotation("skipped", "2026-01-02", was_cancelled=True, ground_truth=True)
    assert counting(skipped, annotation("other", "2026-01-01")) == ["other"]
    assert counting(skipped) == []
    assert counting() == []


def test_what_the_latest_replaced_does_not_come_back() -> None:
    old = {"result": [region("Choices", {"choices": ["car"]})], "updated_at": "2026-01-01"}
    new = {"result": [region("Choices", {"choices": ["gone"]})], "updated_at": "2026-01-02"}
    control, settings = control_of("Choices"), ProjectSettings()
    assert read_annotations(control, [old, new], settings).truth is None
    assert read_annotations(control, [old], settings).truth is not None
    assert read_annotations(control, [], settings).truth is None


def test_of_several_people_those_who_can_be_read_count() -> None:
    known = {"result": [region("Choices", {"choices": ["car"]})], "completed_by": 3}
    unknown = {"result": [region("Choices", {"choices": ["gone"]})], "completed_by": 4}
    found = read_annotations(control_of("Choices"), [known, unknown], ProjectSettings())
    assert found.truth is not None
    assert found.truth.classes == {"car"}
    assert found.left_out == ('with the unknown label "gone"',)
