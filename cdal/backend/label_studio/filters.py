"""Filters of the Data Manager, by which Label Studio lists tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def condition(field: str, operator: str, kind: str, value: object) -> dict[str, object]:
    """What a field of a task must fulfil; operator and kind are the Data Manager's names."""
    return {
        "filter": f"filter:tasks:{field}",
        "operator": operator,
        "type": kind,
        "value": value,
    }


def query_of(conditions: Sequence[Mapping[str, object]]) -> str | None:
    """What the tasks asked for must fulfil, all of it; None where there is nothing."""
    if not conditions:
        return None
    return json.dumps({"filters": {"conjunction": "and", "items": list(conditions)}})
