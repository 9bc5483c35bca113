"""Which of a task's annotations counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def counting_annotation(annotations: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The annotation of a task that models learn from, None where it has none.

    Of several submitted annotations the ground truth counts, else the latest; skipped ones never
    do.
    """
    submitted = [a for a in annotations if not a.get("was_cancelled")]
    return max(
        submitted,
        key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")),
        default=None,
    )
