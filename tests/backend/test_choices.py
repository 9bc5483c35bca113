"""Choices: predictions out, labels in."""

from __future__ import annotations

from typing import Any

from label_studio_sdk.label_interface import LabelInterface
from offline import CONFIG

from cdal.backend.choices import label_of, to_result
from cdal.backend.labeling import served_control

CONTROL = served_control(CONFIG)


def annotation(label: str | None, at: str = "2026-01-01", **more: Any) -> dict[str, Any]:
    choices = [{"from_name": "label", "type": "choices", "value": {"choices": [label]}}]
    return {"result": choices if label else [], "updated_at": at, **more}


def test_a_prediction_is_one_that_label_studio_takes() -> None:
    result = to_result(CONTROL, "dog", 0.123456)
    assert result == [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["dog"]},
            "score": 0.1235,
        }
    ]
    assert LabelInterface(CONFIG).validate_prediction({"result": result, "score": 0.5})


def test_the_latest_annotation_counts() -> None:
    given = [annotation("cat", "2026-01-02"), annotation("dog", "2026-01-01")]
    assert label_of(CONTROL, given) == "cat"
    assert label_of(CONTROL, reversed(given)) == "cat"


def test_the_ground_truth_counts_more_than_the_latest() -> None:
    given = [annotation("dog", "2026-01-01", ground_truth=True), annotation("cat", "2026-01-02")]
    assert label_of(CONTROL, given) == "dog"


def test_skipped_ones_do_not_count() -> None:
    skipped = annotation("cat", "2026-01-02", was_cancelled=True, ground_truth=True)
    assert label_of(CONTROL, [skipped, annotation("dog")]) == "dog"
    assert label_of(CONTROL, [skipped]) is None


def test_no_label_comes_of_nothing_or_of_a_choice_that_is_gone() -> None:
    assert label_of(CONTROL, []) is None
    assert label_of(CONTROL, [annotation(None)]) is None
    assert label_of(CONTROL, [annotation("wolf")]) is None
    # The latest says something that is gone; what it replaced does not come back.
    assert label_of(CONTROL, [annotation("cat"), annotation("wolf", "2026-01-02")]) is None


def test_regions_of_other_controls_are_passed_over() -> None:
    mixed = annotation("dog")
    mixed["result"].insert(
        0, {"from_name": "mood", "type": "choices", "value": {"choices": ["cat"]}}
    )
    mixed["result"].insert(0, {"from_name": "label", "type": "textarea", "value": {"text": "cat"}})
    assert label_of(CONTROL, [mixed]) == "dog"
