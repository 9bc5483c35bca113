"""Boxes and a choice per image in one project, against a real Label Studio, on drawn scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface

from cdal.demo.project import rectangle_config

SETTINGS = {
    "image_size": 96, "epochs": 3, "budget": 8, "reserve": 4, "min_labels": 8, "train_every": 8,
    "seed": 1,
}  # fmt: skip
FILLING = '<Choices name="filling" toName="image"><Choice value="few"/><Choice value="many"/>'


def both(classes: Sequence[str]) -> str:
    return rectangle_config(classes).replace("</View>", f"{FILLING}</Choices></View>")


@pytest.mark.slow
@pytest.mark.label_studio
def test_two_controls_have_a_model_each_and_one_queue(
    make_drawn_scenario: Callable[..., tuple[Any, Any]],
) -> None:
    scenario, _ = make_drawn_scenario("detection", 40, both, **SETTINGS)
    scenario.wait_for_round(1)
    scenario.settle()
    # Every other one in the order in which they are labelled, so that both are learnt.
    for number, task in enumerate(scenario.queue()):
        said = {"choices": [("few", "many")[number % 2]]}
        filling = {"from_name": "filling", "to_name": "image", "type": "choices", "value": said}
        scenario.truth[task] = [*scenario.truth[task], filling]
    served = scenario.label_stream(8)
    status = scenario.wait_for_round(2)
    serving = [version["control"] for version in status["versions"] if version["serves"]]
    assert serving == ["label", "filling"]
    queue = scenario.queue()
    assert not set(served) & set(queue)
    stored = scenario.project.sdk.predictions.list(project=scenario.number)
    now = {p.task: p.result for p in stored if p.model_version == status["queue_version"]}
    assert set(now) == set(queue[:12])
    interface = LabelInterface(scenario.project.sdk.projects.get(id=scenario.number).label_config)
    for result in now.values():
        assert interface.validate_prediction({"result": result}, return_errors=True) == []
        assert sum(region["from_name"] == "filling" for region in result) == 1
    assert scenario.label_stream(1) == queue[:1]
