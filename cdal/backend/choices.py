"""Image classification in Label Studio's format: `Choices`, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cdal.backend.labeling import Control

Region = dict[str, Any]
"""One entry of a Label Studio `result` list."""


def to_result(control: Control, label: str, confidence: float) -> list[Region]:
    """A prediction: one choice, its confidence as the score of the region."""
    return [
        {
            "from_name": control.from_name,
            "to_name": control.to_name,
            "type": "choices",
            "value": {"choices": [label]},
            "score": round(confidence, 4),
        }
    ]


def label_of(control: Control, annotations: Iterable[Mapping[str, Any]]) -> str | None:
    """The class that a task's annotations give it, None where they give none.

    Of several submitted annotations the ground truth counts, else the latest; skipped ones never
    do. A choice that the labeling config no longer has gives no label.
    """
    submitted = [a for a in annotations if not a.get("was_cancelled")]
    submitted.sort(key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")))
    for annotation in reversed(submitted):
        label = _choice(control, annotation.get("result") or ())
        return label if label in control.labels else None
    return None


def _choice(control: Control, result: Sequence[Mapping[str, Any]]) -> str | None:
    for region in result:
        if region.get("from_name") == control.from_name and region.get("type") == "choices":
            choices = region.get("value", {}).get("choices") or ()
            if choices:
                return str(choices[0])
    return None
