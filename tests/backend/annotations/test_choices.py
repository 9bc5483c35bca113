"""Choices: predictions out, labels in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.annotated import LABELS, config_of, control_of, refusals, region

from cdal.backend.annotations import choices, read_annotations
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Classification

SETTINGS = ProjectSettings()
CONTROL = control_of("Choices")
SIZE = (10, 10)


def test_label_studio_accepts_the_prediction() -> None:
    result = choices.to_result(CONTROL, LABELS, Classification(1, 0.123456), SIZE, SETTINGS)
    assert result == [
        {
            "from_name": "what",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["road"]},
            "score": 0.1235,
        }
    ]
    assert refusals(config_of("Choices"), result) == []


def test_a_class_that_is_gone_is_not_predicted() -> None:
    classes = ("sky", "river", "car")
    assert choices.to_result(CONTROL, classes, Classification(1, 0.9), SIZE, SETTINGS) == []


@pytest.mark.parametrize(("confidence", "shown"), [(0.59, 0), (0.6, 1)])
def test_a_threshold_of_the_control_holds(confidence: float, shown: int) -> None:
    control = control_of("Choices", attributes='model_score_threshold="0.6"')
    finding = Classification(0, confidence)
    assert len(choices.to_result(control, LABELS, finding, SIZE, SETTINGS)) == shown


def chosen(*labels: Any) -> Any:
    found = choices.read(CONTROL, [region("Choices", {"choices": list(labels)})], SETTINGS)
    assert bool(found.left_out) == (found.truth is None and bool(labels))
    return found.truth and found.truth.digest()


def test_what_was_chosen() -> None:
    assert chosen("road") == "road"
    assert chosen() is None
    assert chosen("wolf") is None
    assert chosen(["road"], 3) is None
    assert choices.read(CONTROL, [], SETTINGS).truth is None


def test_several_choices_teach_nothing() -> None:
    assert chosen("car", "sky") is None
    assert chosen("car", "car") == "car"
    assert chosen("car", "wolf") is None
    found = [region("Choices", {"choices": [label]}) for label in ("car", "wolf")]
    assert choices.read(CONTROL, found, SETTINGS).truth is None


def test_its_target_is_its_index() -> None:
    given = [{"result": [region("Choices", {"choices": ["car"]})]}]
    truth = read_annotations(CONTROL, given, SETTINGS).truth
    assert truth is not None
    assert torch.equal(truth.target(5, 7), torch.tensor(2))
    assert truth.target(5, 7).dtype == torch.int64
    assert truth.classes == {"car"}
    assert truth.digest() == "car"


def test_regions_of_other_controls_are_ignored() -> None:
    own = region("Choices", {"choices": ["car"]})
    mood = {**region("Choices", {"choices": ["sky"]}), "from_name": "mood"}
    text = {**region("Choices", {"text": "sky"}), "type": "textarea"}
    truth = choices.read(CONTROL, [mood, text, own], SETTINGS).truth
    assert truth is not None
    assert truth.classes == {"car"}
