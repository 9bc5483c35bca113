"""Several choices per image: predictions out, labels in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.annotated import LABELS, config_of, control_of, refusals, region

from cdal.backend.annotations import Reading, Region, read_annotations, read_result, to_result
from cdal.backend.annotations.agreement import agreement
from cdal.backend.annotations.packing import pack, unpack
from cdal.backend.errors import LabelingError
from cdal.backend.settings import ProjectSettings
from cdal.models import Multilabel

MULTIPLE = 'choice="multiple"'
CONTROL = control_of("Choices", attributes=MULTIPLE)
SETTINGS = ProjectSettings()


def chosen(*labels: Any) -> list[Region]:
    return [region("Choices", {"choices": list(labels)})]


def read(result: list[Region]) -> Reading:
    return read_result(CONTROL, result, SETTINGS)


def target(*results: list[Region]) -> list[float] | None:
    """What is learnt of these results, each by another person."""
    given = [{"result": result, "completed_by": n} for n, result in enumerate(results)]
    truth = read_annotations(CONTROL, given, SETTINGS).truth
    if truth is None:
        return None
    told: list[float] = truth.target(5, 5).tolist()
    return told


def said(*probabilities: float, attributes: str = MULTIPLE) -> list[Region]:
    control = control_of("Choices", attributes=attributes)
    finding = Multilabel(torch.tensor(probabilities))
    result = to_result(control, LABELS, finding, (10, 10), SETTINGS)
    assert refusals(config_of("Choices", attributes=attributes), result) == []
    return result


def test_its_task_is_another() -> None:
    assert CONTROL.task == "multilabel"
    assert control_of("Choices").task == "classification"


def test_predicted_are_the_classes_above_the_threshold() -> None:
    (found,) = said(0.9, 0.2, 0.5)
    assert found["value"] == {"choices": ["sky", "car"]}
    assert found["score"] == 0.7
    assert said(0.4, 0.1, 0.2) == []
    (found,) = said(0.4, 0.1, 0.2, attributes=f'{MULTIPLE} model_score_threshold="0.15"')
    assert found["value"] == {"choices": ["sky", "car"]}


def test_what_was_chosen() -> None:
    assert target(chosen("sky", "car")) == [1, 0, 1]
    assert target([*chosen("sky"), *chosen("road")]) == [1, 1, 0]
    assert target(chosen("SKY ", "sky")) == [1, 0, 0]


def test_nothing_chosen_means_that_there_is_none_of_the_classes() -> None:
    assert target([]) == [0, 0, 0]
    assert target(chosen()) == [0, 0, 0]


@pytest.mark.parametrize("labels", [("sky", "wolf"), ("wolf",), (3, "sky")])
def test_an_unknown_choice_teaches_nothing(labels: tuple[Any, ...]) -> None:
    found = read(chosen(*labels))
    assert found.truth is None
    assert len(found.left_out) == 1


def test_several_people_give_shares() -> None:
    assert target(chosen("sky", "car"), chosen("sky"), chosen("sky", "road"), []) == [
        0.75,
        0.25,
        0.25,
    ]


def test_choices_agree_by_those_that_both_have() -> None:
    truths = [read(result).truth for result in (chosen("sky", "car"), chosen("sky"), [])]
    both, sky, none = truths
    assert both is not None
    assert sky is not None
    assert none is not None
    assert (agreement(both, sky), agreement(sky, none), agreement(none, none)) == (0.5, 0, 1)
    assert both.classes == {"sky", "car"}
    assert both.digest() != sky.digest()


def test_a_finding_is_kept() -> None:
    finding, size = unpack(pack(Multilabel(torch.tensor([0.25, 0.5])), (30, 40)))
    assert isinstance(finding, Multilabel)
    assert (finding.probabilities.tolist(), size) == ([0.25, 0.5], (30, 40))


def test_so_many_classes_would_take_too_much_memory() -> None:
    labels = [f"class {number}" for number in range(101)]
    with pytest.raises(LabelingError, match="101 labels; this backend serves at most 100"):
        control_of("Choices", labels, MULTIPLE)
    assert len(control_of("Choices", labels).labels) == 101
