"""Which annotation counts."""

from __future__ import annotations

from typing import Any

from support.annotated import control_of, region

from cdal.backend.annotations import read_annotations
from cdal.backend.annotations.format import counting_annotation
from cdal.backend.settings import ProjectSettings


def annotation(name: str, at: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "updated_at": at, **more}


def counting(*given: dict[str, Any]) -> str | None:
    for order in (given, given[::-1]):
        found = counting_annotation(order)
    return found and found["name"]


def test_the_latest_counts() -> None:
    assert counting(annotation("late", "2026-01-02"), annotation("early", "2026-01-01")) == "late"


def test_the_ground_truth_counts_more_than_the_latest() -> None:
    truth = annotation("truth", "2026-01-01", ground_truth=True)
    assert counting(truth, annotation("late", "2026-01-02")) == "truth"


def test_skipped_ones_do_not_count() -> None:
    skipped = annotation("skipped", "2026-01-02", was_cancelled=True, ground_truth=True)
    assert counting(skipped, annotation("other", "2026-01-01")) == "other"
    assert counting(skipped) is None
    assert counting() is None


def test_what_the_latest_replaced_does_not_come_back() -> None:
    old = {"result": [region("Choices", {"choices": ["car"]})], "updated_at": "2026-01-01"}
    new = {"result": [region("Choices", {"choices": ["gone"]})], "updated_at": "2026-01-02"}
    control, settings = control_of("Choices"), ProjectSettings()
    assert read_annotations(control, [old, new], settings).truth is None
    assert read_annotations(control, [old], settings).truth is not None
    assert read_annotations(control, [], settings).truth is None
