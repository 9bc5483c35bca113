from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.recorded import SETTINGS

from cdal.benchmark.errors import BenchmarkError

BEFORE: dict[str, Any] = json.loads(json.dumps(SETTINGS.to_dict()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seeds": 5},
        {"selectors": ("random", "entropy", "cdal-cs")},
        {"dataset": "elsewhere/images.zip"},
    ],
)
def test_the_same_and_more_of_the_same_go_on(changes: dict[str, Any]) -> None:
    replace(SETTINGS, **changes).check_continues(BEFORE, "DIR")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 2}, "seeds was 3 and is 2"),
        ({"selectors": ("random",)}, r"selectors was \['random', 'cdal-cs'\] and is \['random'\]"),
        ({"epochs": 4}, "epochs was None and is 4"),
        ({"images": "4567"}, "images was '0123' and is '4567'"),
        ({"options": {}}, r"options was {'missing': 'skip'} and is {}"),
        ({"step": "1%", "noise": 0.1}, "step was '5%' and is '1%'; noise was 0.0 and is 0.1"),
    ],
)
def test_other_settings_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        replace(SETTINGS, **changes).check_continues(BEFORE, "DIR")
